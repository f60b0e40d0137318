"""A study as one HTML file: tables and figures of a sweep, a tuning or a paper, with what they rest
on. It opens anywhere, asks no network and holds no script, like the report of a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.evaluation import PERCENT
from pipelines.studies import rendering
from pipelines.studies.rendering import Table

if TYPE_CHECKING:  # a page of tables alone needs no matplotlib
    from matplotlib.figure import Figure

SHOWN = 200  # rows of a page's table
MAPS = 6  # of a page
FEW = 20  # values that a side of a map may have
EMPTY = 0.5  # share of a map's cells that may have no fit: points that are strewn make no map


@dataclass(frozen=True)
class Section:
    """A part of the page: what is said, then a table, then figures with a caption each."""

    title: str
    text: Sequence[str] = ()  # paragraphs
    table: Table | None = None
    figures: Sequence[tuple[str, "Figure"]] = ()  # (caption, figure)


def write_page(
    path: Path,
    title: str,
    facts: Sequence[tuple[str, str]],
    warnings: Sequence[str],
    sections: Sequence[Section],
) -> Path:
    """Write the page to `path` and return it. `facts` are what the numbers rest on, e.g. ("N",
    "3,315 persons"); `warnings` stand above all else. All text is escaped."""
    from jinja2 import Environment, PackageLoader

    templates = PackageLoader("pipelines", "templates")
    environment = Environment(
        loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("study.html").render(
        title=title,
        facts=facts,
        warnings=warnings,
        sections=[_content(number, section) for number, section in enumerate(sections, 1)],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


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
    }


# ---- of trials -----------------------------------------------------------------------------


def is_percent(column: str) -> bool:
    """Whether a measure of this name, as `val_mAP`, is shown in per cent."""
    return column.removeprefix("val_") in PERCENT


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.5g}"
    return "" if value is None else str(value)


def said(measure: str) -> str:
    """`val_mAP` as "mAP on val"."""
    split, _, name = measure.partition("_")
    return f"{name.replace('_', ' ')} on {split}"


def trials_table(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], measure: str, remark: str
) -> Table:
    """Rows as they come: place, settings, the measure with its interval where it has one, epochs
    and how it ended; the first `SHOWN` of them."""
    scale, digits = (100, 2) if is_percent(measure) else (1, 4)
    ends = any(f"{measure}_low" in row for row in rows)

    def number(row: Mapping[str, Any], name: str) -> str:
        value = row.get(name)
        return "" if value is None else f"{scale * value:.{digits}f}"

    def interval(row: Mapping[str, Any]) -> str:
        low, high = (number(row, f"{measure}_{end}") for end in ("low", "high"))
        return f"{low} to {high}" if low else ""

    cells = [
        [
            str(place),
            *(cell(row.get(name)) for name in names),
            number(row, measure),
            *([interval(row)] if ends else []),
            cell(row.get("best_epoch")),
            cell(row.get("epochs")),
            ended(row),
        ]
        for place, row in enumerate(rows[:SHOWN], 1)
    ]
    unit = " %" if is_percent(measure) else ""
    columns = ["", *names, said(measure) + unit, *(["interval"] if ends else [])]
    notes = [remark]
    if len(rows) > SHOWN:
        notes.append(f"The first {SHOWN} of {len(rows):,}; all of them are in the CSV beside.")
    return Table("fits", "", [*columns, "best epoch", "epochs", "remark"], cells, notes)


def ended(row: Mapping[str, Any]) -> str:
    """How a fit ended, where not well."""
    if row["status"] in ("ok", "complete"):
        return ""
    return f"{row['status']}: {row['reason'] or ''}".rstrip(": ")


def trials_figures(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], measure: str, more: bool
) -> list[Section]:
    """Lines through the settings that vary, and a map for each two of those with few values."""
    from pipelines.studies import figures

    good = [row for row in rows if row.get(measure) is not None]
    values = {name: {json.dumps(row.get(name)): row.get(name) for row in good} for name in names}
    varied = [name for name in names if len(values[name]) > 1]
    if not varied:
        return []
    scale, unit = (100, " %") if is_percent(measure) else (1, "")
    shown = [{**row, said(measure) + unit: scale * row[measure]} for row in good]
    lines = figures.parallel_coordinates(shown, varied, said(measure) + unit, more)
    caption = f"A line is a fit: its settings, and at the right {said(measure)}."
    sections = [Section("Settings and outcome", figures=[(caption, lines)])]
    few = [name for name in varied if len(values[name]) <= FEW]
    pairs = [(x, y) for at, y in enumerate(few) for x in few[at + 1 :]]
    maps = []
    for x, y in pairs:
        across, up = (sorted(values[name], key=lambda k: _rank(values[name][k])) for name in (x, y))
        held = np.full((len(up), len(across)), np.nan)
        for i, one in enumerate(up):
            for j, other in enumerate(across):
                some = [
                    row[measure]
                    for row in good
                    if (json.dumps(row.get(y)), json.dumps(row.get(x))) == (one, other)
                ]
                held[i, j] = np.mean(some) if some else np.nan
        if np.isnan(held).mean() > EMPTY:
            continue
        ticks = [[cell(values[name][key]) for key in keys] for name, keys in ((x, across), (y, up))]
        figure = figures.heat_map(
            scale * held, (x, ticks[0]), (y, ticks[1]), said(measure) + unit, None, more
        )
        rest = ", the mean over the other settings" if len(varied) > 2 else ""
        maps.append((f"{said(measure)}{rest}.", figure))
    return [*sections, *([Section("Two settings at a time", figures=maps[:MAPS])] if maps else [])]


def _rank(value: Any) -> tuple[bool, float, str]:
    """Numbers in order, then words."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def warnings_of(note: str, untrained: Sequence[str]) -> list[str]:
    """What must be said above all numbers."""
    noise = "runs on random weights: its features carry no learned meaning"
    return [*([note] if note else []), *(f"UNTRAINED {name} {noise}" for name in untrained)]
