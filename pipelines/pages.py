"""Pages as one HTML file each, from the templates beside: they open anywhere, ask no network, and
run no script but the one named here, if any, which the page's own rules hold to its hash."""

import base64
import hashlib
from functools import partial
from importlib import resources
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.files import write_atomic
from pipelines import wording

if TYPE_CHECKING:
    from PIL import Image


def render(template: str, path: Path, script: str | None = None, **content: Any) -> Path:
    """Write the page that this template of `pipelines/templates` makes of the content, and give its
    path. All text is escaped. Filters: percent, two, four, thousands.

    script: a file beside the template. The template gets its text as `script`, to stand between two
    tags as it is, and `script_hash`, by which the browser runs this and nothing else.
    """
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
    if script is not None:
        text = resources.files("pipelines").joinpath("templates", script).read_text("utf-8")
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
        content |= {"script": text, "script_hash": f"sha256-{digest}"}
    write_atomic(path, environment.get_template(template).render(**content).encode())
    return path


def data_url(picture: "Image.Image", quality: int) -> str:
    """A picture as the address of itself, WebP of that quality, so that a page holds it."""
    held = BytesIO()
    picture.save(held, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode("ascii")
