"""A study as one HTML file: tables and figures of a sweep, a tuning or a paper, with what they rest
on. It opens anywhere, asks no network and holds no script."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines import wording
from pipelines.pages import render
from pipelines.studies import rendering
from pipelines.studies.rendering import Table

if TYPE_CHECKING:  # a page of tables alone needs no matplotlib
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Section:
    """A part of the page: what is said, then a table, then figures and pictures with a caption
    each."""

    title: str
    text: Sequence[str] = ()  # paragraphs
    table: Table | None = None
    figures: Sequence[tuple[str, "Figure"]] = ()  # (caption, figure)
    pictures: Sequence[tuple[str, str]] = ()  # (caption, address of the picture: `pages.data_url`)


def write_page(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    warnings: Sequence[str],
    sections: Sequence[Section],
) -> Path:
    """Write the page to `path` and return it. `facts` are what the numbers rest on, e.g. ("N",
    "3,315 persons"); `warnings` stand above all else. All text is escaped."""
    return render(
        "study.html",
        path,
        title=title,
        facts=facts,
        warnings=warnings,
        sections=contents(sections),
    )


def contents(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """What `study_section.html` draws of each; ids are s1, s2 ... on the page."""
    return [_content(number, section) for number, section in enumerate(sections, 1)]


def _content(number: int, section: Section) -> dict[str, Any]:
    from markupsafe import Markup

    figures = []
    if section.figures:
        from pipelines.studies.figures import svg

        figures = [
            (caption, Markup(svg(figure, f"s{number}f{at}", caption)))
            for at, (caption, figure) in enumerate(section.figures, 1)
        ]
    return {
        "id": f"s{number}",
        "title": section.title,
        "text": section.text,
        "table": None if section.table is None else Markup(rendering.html(section.table)),
        "figures": figures,
        "pictures": section.pictures,
    }


def warnings_of(note: str, untrained: Sequence[str]) -> list[str]:
    """What must be said above all numbers: of the data, and of networks without trained weights."""
    return [*([note] if note else []), *map(wording.untrained, untrained)]
