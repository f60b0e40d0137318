"""The tables and the sensitivity figure of the papers, from the cache, as text and pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.files import write_atomic, write_json
from pipelines.results import Results, plain
from pipelines.settings import Settings
from pipelines.studies import paper, rendering, table_figures
from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.paper import Point
from pipelines.studies.paper_tables import paper_tables
from pipelines.studies.rendering import Table
from pipelines.studies.summary import Entry, Summary, difference, summarise
from pipelines.studies.trials import (
    Progress,
    Trial,
    Trials,
    fits_of,
    measuring,
    quiet,
    untrained_of,
)
from train.metrics.measures import MAIN, Measure
from train.settings import Train

if TYPE_CHECKING:  # loaded when the figure is drawn
    pass


def plan(settings: Settings) -> dict[str, Any]:
    """What `tables` would fit: see `Trials.plan`."""
    rows = paper.entries(settings.train, settings.tables)
    points = paper.grid(settings.train, settings.tables)
    return _trials(settings).plan(_all(rows, points))


def tables(settings: Settings, progress: Progress = quiet) -> dict[str, Any]:
    """Every row of the papers' tables and every point of the figure, fitted where that has not
    been done. Below results/tables stand each table as .md, .tex and .csv, the figure as .svg,
    .pdf, .png and .csv, all of them as tables.html, and the numbers as tables.json. Gives those
    numbers, and tables, the `Table`s. Raises DataError where no head could be fitted."""
    found = _fit(settings, progress)
    made = paper_tables(
        found.summaries,
        found.trials.index.dataset,
        settings.evaluate.confidence,
        settings.tables.settings,
    )
    folder = Results().tables
    for table in made:
        write_atomic(folder / f"{table.name}.md", rendering.markdown(table).encode())
        write_atomic(folder / f"{table.name}.tex", rendering.latex(table).encode())
        rendering.write_csv(table, folder / f"{table.name}.csv")
    result = plain(_numbers(settings, found))
    write_json(folder / "tables.json", result)
    _write_figure(result, found.main.name, folder)
    sections = [Section(one.title, table=replace(one, title="")) for one in made]
    sections += table_figures.sections(result)
    page = _write_page(settings, found, result, sections, folder / "tables.html")
    return {
        **result,
        "fitted": fits_of(one for one in found.every if one.fitted_now),
        "ways": found.trials.words(),
        "tables": made,
        "report": str(page),
    }


# ---- fits ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """summaries: of the rows; points: of the figure, with the trial of each; every: all trials,
    those of the rows as well."""

    trials: Trials
    split: str
    summaries: Sequence[Summary]
    points: Sequence[tuple[Point, Trial]]
    every: Sequence[Trial]

    @property
    def numbers(self) -> Mapping[str, Any]:
        """Of the first row that has some: N and its like."""
        return next(one for one in self.summaries if not one.missing).numbers

    @property
    def main(self) -> Measure:
        return MAIN[self.numbers["kind"]]

    def value(self, trial: Trial) -> float | None:
        """The measure that heads are compared by."""
        return trial.measured(self.split).get(self.main.name)

    @property
    def shown(self) -> list[Trial]:
        """Trials of the points that have a value."""
        return [trial for _, trial in self.points if self.value(trial) is not None]


def _trials(settings: Settings) -> Trials:
    """val too: thresholds come from it."""
    return measuring(settings, ["val", settings.evaluate.split])


def _all(rows: Sequence[Entry], points: Sequence[Point]) -> list[Train]:
    """The settings of every seed of every row, then those of every point."""
    return [one for row in rows for one in row.settings] + [point.settings for point in points]


def _fit(settings: Settings, progress: Progress) -> _Found:
    trials, split = _trials(settings), settings.evaluate.split
    rows = paper.entries(settings.train, settings.tables)
    points = paper.grid(settings.train, settings.tables)
    every = trials.collect(_all(rows, points), progress)
    seeds = len(settings.tables.seeds)
    summaries = [
        summarise(row, every[seeds * at : seeds * (at + 1)], split, settings.evaluate.confidence)
        for at, row in enumerate(rows)
    ]
    cells = every[seeds * len(rows) :]
    return _Found(trials, split, summaries, list(zip(points, cells, strict=True)), every)


# ---- numbers and page ----------------------------------------------------------------------


def _numbers(settings: Settings, found: _Found) -> dict[str, Any]:
    """What tables.json holds."""
    missing = {one.entry.name: one.missing for one in found.summaries if one.missing}
    for point, trial in found.points:
        if trial.status != "ok":
            where = f"the figure at beta {point.beta:g}, lambda {point.lambda_c:g}"
            missing[where] = trial.reason
    return {
        "dataset": found.trials.index.dataset,
        "note": found.trials.index.note,
        "split": found.split,
        "seeds": settings.tables.seeds,
        "confidence": settings.evaluate.confidence,
        "index": found.trials.digest,
        "fits": fits_of(found.every),
        "untrained": untrained_of(found.every),
        "missing": missing,
        "rows": [_row(one, found, settings) for one in found.summaries if not one.missing],
        "cell": _cell(found),
        "figure2": [
            {"beta": point.beta, "lambda": point.lambda_c, "value": found.value(trial)}
            for point, trial in found.points
        ],
    }


def _row(one: Summary, found: _Found, settings: Settings) -> dict[str, Any]:
    """Of an ablation with its difference to the whole head, if that has numbers."""
    whole = next(
        (w for w in found.summaries if w.entry.head == one.entry.head and not w.entry.without), None
    )
    gap = low = high = None
    if one.entry.without and whole is not None and not whole.missing:
        gap, low, high = difference(whole, one, settings.evaluate.confidence)
    return {
        "head": one.entry.head,
        "without": one.entry.without,
        "measure": one.main,
        "mean": dict(one.mean),
        "half_over_seeds": dict(one.half),
        "low": one.low,
        "high": one.high,
        "difference": {"value": gap, "low": low, "high": high},
        "ap": {label: values.tolist() for label, values in one.per_class.items()},
        **{name: one.numbers[name] for name in ("n_evaluated", "n_dropped", "cache_key")},
        "trials": list(one.keys),
    }


def _cell(found: _Found) -> dict[str, Any] | None:
    """What a cell of the figure rests on, by the first that has a value."""
    if not found.shown:
        return None
    known = found.shown[0].measured(found.split)
    main = found.main.name
    return {
        "measure": main,
        "n_evaluated": known["n_evaluated"],
        "half_interval": (known[f"{main}_high"] - known[f"{main}_low"]) / 2,
    }


def _write_page(
    settings: Settings,
    found: _Found,
    result: Mapping[str, Any],
    sections: Sequence[Section],
    path: Path,
) -> Path:
    numbers = found.numbers
    return write_page(
        path,
        "The papers' tables",
        [
            ("data", result["dataset"]),
            ("split", found.split),
            ("N", f"{numbers['n_evaluated']:,} ({numbers['n_dropped']:,} dropped)"),
            ("seeds", ", ".join(map(str, settings.tables.seeds))),
            ("fits", f"{result['fits']:,}"),
            ("index", found.trials.digest[:12]),
            ("device", "; ".join([found.trials.device, *found.trials.words()])),
        ],
        warnings_of(result["note"], result["untrained"]),
        sections,
    )


# ---- files of the figure ------------------------------------------------------------------


def _write_figure(result: Mapping[str, Any], main: str, folder: Path) -> None:
    """HugMe's Figure 2 as pictures, and its numbers beside; nothing where no point has a value."""
    from pipelines.studies import figures

    if (found := table_figures.sensitivity(result)) is None:
        return
    for ending in ("svg", "pdf", "png"):
        figures.save(found[1], folder / f"figure2.{ending}")
    rows = [
        [
            f"{point['beta']:g}",
            f"{point['lambda']:g}",
            "" if point["value"] is None else f"{point['value']:.6f}",
        ]
        for point in result["figure2"]
    ]
    table = Table("figure2", "Figure 2", ["beta", "lambda", main], rows)
    rendering.write_csv(table, folder / "figure2.csv")
