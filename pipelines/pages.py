"""Pages as one HTML file each, from the templates beside: they open anywhere, ask no network and
hold no script, so nothing in them can fail."""

from functools import partial
from pathlib import Path
from typing import Any

from cache.files import write_atomic
from pipelines import wording


def render(template: str, path: Path, **content: Any) -> Path:
    """Write the page that this template of `pipelines/templates` makes of the content, and give its
    path. All text is escaped. Filters: percent, two, four, thousands."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("pipelines", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": partial(wording.percent, unit="", missing=wording.NONE),
        "two": partial(wording.number, digits=2, missing=wording.NONE),
        "four": partial(wording.number, digits=4, missing=wording.NONE),
        "thousands": wording.thousands,
    }
    write_atomic(path, environment.get_template(template).render(**content).encode())
    return path
