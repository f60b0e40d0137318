"""Many fits side by side on a page: their order, their table and their figures.

A row holds settings by whole name, status, reason, epochs, and a measure as `val_mAP`.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.studies.page import Section
from pipelines.studies.rendering import Table
from pipelines.wording import Scale, cell

if TYPE_CHECKING:  # loaded when a figure is drawn
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
ENDED_WELL = ("ok", "complete")  # of a trial, and of one in Optuna's study
SHOWN = 200  # rows of a page's table
MAPS = 6  # of a page
FEW = 20  # values that a side of a map may have
EMPTY = 0.5  # share of a map's cells that may have no fit: points that are strewn make no map


def best_first(rows: Iterable[Row], measure: str, more: bool) -> list[Any]:
    """Fits that ended well, the best first, and those without the measure last; the others behind
    them, as they come."""

    def place(row: Row) -> tuple[bool, bool, float]:
        well = row["status"] in ENDED_WELL
        value = row.get(measure) if well else None
        return not well, value is None, 0.0 if value is None else -value if more else value

    return sorted(rows, key=place)


def trials_table(rows: Sequence[Row], names: Sequence[str], measure: str, remark: str) -> Table:
    """Rows as they come: place, settings, the measure with its interval where it has one, epochs
    and how it ended; the first `SHOWN` of them."""
    scale = Scale.of(measure)
    ends = any(f"{measure}_low" in row for row in rows)
    cells = [
        [
            str(place),
            *(cell(row.get(name)) for name in names),
            scale.number(row.get(measure)),
            *([interval(row, measure)] if ends else []),
            cell(row.get("best_epoch")),
            cell(row.get("epochs")),
            ended(row),
        ]
        for place, row in enumerate(rows[:SHOWN], 1)
    ]
    columns = ["", *names, _in_words(measure) + scale.unit, *(["interval"] if ends else [])]
    notes = [remark]
    if len(rows) > SHOWN:
        notes.append(f"The first {SHOWN} of {len(rows):,}; all of them are in the CSV beside.")
    return Table("fits", "", [*columns, "best epoch", "epochs", "remark"], cells, notes)


def interval(row: Row, measure: str) -> str:
    """That of the row's measure, without its unit; nothing where it has none."""
    return Scale.of(measure).interval(row.get(f"{measure}_low"), row.get(f"{measure}_high"))


def ended(row: Row) -> str:
    """How a fit ended, where not well."""
    if row["status"] in ENDED_WELL:
        return ""
    return f"{row['status']}: {row['reason'] or ''}".rstrip(": ")


def trials_figures(
    rows: Sequence[Row], names: Sequence[str], measure: str, more: bool
) -> list[Section]:
    """Lines through the settings that vary, and a map for each two of those with few values."""
    from pipelines.studies import figures

    good = [row for row in rows if row.get(measure) is not None]
    settings = [_Setting(name, good) for name in names]
    varied = [setting for setting in settings if len(setting.values) > 1]
    if not varied:
        return []
    scale, said = Scale.of(measure), _in_words(measure)
    heading = said + scale.unit
    shown = [{**row, heading: scale.factor * row[measure]} for row in good]
    lines = figures.parallel_coordinates(shown, [one.name for one in varied], heading, more)
    caption = f"A line is a fit: its settings, and at the right {said}."
    sections = [Section("Settings and outcome", figures=[(caption, lines)])]
    rest = ", the mean over the other settings" if len(varied) > 2 else ""
    few = [setting for setting in varied if len(setting.values) <= FEW]
    maps: list[tuple[str, Figure]] = []
    for x, y in ((x, y) for at, y in enumerate(few) for x in few[at + 1 :]):
        held = _means(good, x, y, measure)
        if np.isnan(held).mean() <= EMPTY:
            sides = (x.name, x.ticks), (y.name, y.ticks)
            figure = figures.heat_map(scale.factor * held, *sides, heading, None, more)
            maps.append((f"{said}{rest}.", figure))
    return [*sections, *([Section("Two settings at a time", figures=maps[:MAPS])] if maps else [])]


class _Setting:
    """One setting over some rows. values: the different ones in order, numbers first; a list is
    one."""

    def __init__(self, name: str, rows: Iterable[Row]):
        self.name = name
        found = {self.key(row): row.get(name) for row in rows}
        self.values = dict(sorted(found.items(), key=lambda pair: _place(pair[1])))

    def key(self, row: Row) -> str:
        return json.dumps(row.get(self.name))

    @property
    def ticks(self) -> list[str]:
        return [cell(value) for value in self.values.values()]


def _place(value: Any) -> tuple[bool, float, str]:
    """Numbers in order, then words."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)


def _means(rows: Iterable[Row], x: _Setting, y: _Setting, measure: str) -> np.ndarray:
    """(R, C) mean of the measure at each value of `y` (row) and `x` (column), NaN where no fit."""
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        cells.setdefault((y.key(row), x.key(row)), []).append(row[measure])
    return np.array(
        [
            [np.mean(cells[up, across]) if (up, across) in cells else np.nan for across in x.values]
            for up in y.values
        ]
    )


def _in_words(measure: str) -> str:
    """`val_mAP` as "mAP on val"."""
    split, _, name = measure.partition("_")
    return f"{name.replace('_', ' ')} on {split}"
