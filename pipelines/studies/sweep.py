"""Every point of a grid of settings, fitted and measured on val; the table of it, as files."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from cache.errors import DataError, SettingsError
from pipelines.evaluation import MAIN
from pipelines.settings import Settings, Sweep
from pipelines.stages import RESULTS
from pipelines.studies.page import Section, trials_figures, trials_table, warnings_of, write_page
from pipelines.studies.trials import Trial, Trials, searching
from train.settings import Train
from train.vary import vary

Point = Mapping[str, Any]  # dotted setting below train -> value


def points(base: Train, sweep: Sweep) -> list[tuple[dict[str, Any], Train]]:
    """Each point of the grid `sweep.over`, at each of `sweep.points` where there are some, with
    the settings there. Equal points come once. Raises SettingsError naming a setting that is
    unknown, out of range or without effect on its head."""
    twice = sorted({name for one in sweep.points for name in one} & set(sweep.over))
    if twice:
        raise SettingsError(f"{twice[0]} stands in sweep.over and in sweep.points: take one")
    found: dict[str, tuple[dict[str, Any], Train]] = {}
    for start in sweep.points or [{}]:
        for values in itertools.product(*sweep.over.values()):
            changes = {**start, **dict(zip(sweep.over, values, strict=True))}
            one = vary(base, changes)
            found.setdefault(one.model_dump_json(), ({n: value_of(one, n) for n in changes}, one))
    return list(found.values())


def value_of(one: Train, name: str) -> Any:
    """The setting of this dotted name, as `train.hugme.beta`."""
    found: Any = one.model_dump(mode="json")
    for part in name.split(".")[1:]:
        found = found[part]
    return found


def plan(settings: Settings) -> dict[str, Any]:
    """What `sweep` would fit: see `Trials.plan`."""
    asked = points(settings.train, settings.sweep)
    return searching(settings).plan([one for _, one in asked])


def sweep(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """Fit every point of the sweep that has not been fitted yet; write sweep.parquet, sweep.csv
    and sweep.html below results/sweep. Gives rows (see `fit_points`), measure and names (the
    columns that rank and that vary), and how many points were fitted now and kept from before."""
    asked = points(settings.train, settings.sweep)
    trials = searching(settings)
    rows = fit_points(trials, asked, progress)
    folder = RESULTS / "sweep"
    write(rows, folder, "sweep")
    measure, more = main_of(rows)
    names = list(dict.fromkeys(name for point, _ in asked for name in point))
    found = sorted({n for row in rows for n in (row["untrained"] or "").split(", ") if n})
    one = next(row for row in rows if "kind" in row)
    remark = (
        f"Intervals ({one['confidence']:.0%}) resample the pictures of val; the best of many fits "
        "looks better than it is."
    )
    page = write_page(
        folder / "sweep.html",
        f"Sweep of {settings.train.head}",
        [
            ("data", trials.index.dataset),
            ("N on val", f"{one['n_evaluated']:,} ({one['n_dropped']:,} dropped)"),
            ("fits", f"{len(rows):,}"),
            ("cache key", one["cache_key"][:12]),
            ("device", "; ".join([one["device"], *trials.words()])),
        ],
        warnings_of(trials.index.note, found),
        [
            Section("Fits, the best first", table=trials_table(rows, names, measure, remark)),
            *trials_figures(rows, names, measure, more),
        ],
    )
    return {
        "points": len(asked),
        "fitted": sum(row["new"] and row["status"] in ("ok", "failed") for row in rows),
        "kept": sum(not row["new"] for row in rows),
        "measure": measure,
        "names": names,
        "rows": rows,
        "untrained": found,
        "ways": trials.words(),
        "note": trials.index.note,
        "report": str(page),
    }


def fit_points(
    trials: Trials,
    asked: Sequence[tuple[Point, Train]],
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> list[dict[str, Any]]:
    """A row for each point, the best on val first, those without numbers last.

    status and reason as in `Trial`; the point's settings; of val: kind's measure of
    `evaluation.MAIN` with _low and _high, mAP, loss, n_evaluated, n_dropped; best_epoch, epochs,
    parameters, seconds, together, seed, cache_key, trial (its key) and new (fitted now).
    """
    found: dict[int, Trial] = {}
    progress(0, len(asked), "")

    def watch(number: int, row: Mapping[str, float]) -> None:
        progress(len(found), len(asked), f"epoch {row['epoch']:.0f}")

    for number, trial in trials.run([one for _, one in asked], watch):
        found[number] = trial
        progress(len(found), len(asked), "")
    rows = [_row(asked[n][0], found[n]) for n in range(len(asked))]
    return sorted(rows, key=_rank)


def _row(point: Point, trial: Trial) -> dict[str, Any]:
    names = {name: plain_cell(value) for name, value in point.items()}
    row: dict[str, Any] = {"status": trial.status, "reason": trial.reason, **names}
    record = trial.record or {}
    numbers = trial.measured("val")
    if numbers:
        main, _ = MAIN[numbers["kind"]]
        for name in dict.fromkeys((main, "mAP")):
            row |= {f"val_{name}{end}": numbers[f"{name}{end}"] for end in ("", "_low", "_high")}
        some = ("kind", "n_evaluated", "n_dropped", "confidence")
        row |= {name: numbers[name] for name in some}
    keys = ("val_loss", "best_epoch", "epochs", "parameters", "seconds", "together", "seed")
    row |= {name: record.get(name) for name in (*keys, "cache_key", "dataset", "note", "device")}
    row |= {"untrained": ", ".join(record.get("untrained", [])), "trial": trial.key}
    return row | {"new": trial.new}


def plain_cell(value: Any) -> Any:
    """What a table's cell can hold."""
    return value if isinstance(value, int | float | str | None) else str(value)


def main_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """The column that says which row is better, and whether more of it is. Raises DataError where
    no row has numbers of val."""
    for row in rows:
        if "kind" in row:
            main, more = MAIN[row["kind"]]
            return f"val_{main}", more
    why = next((row["reason"] for row in rows if row["reason"]), "it has no person")
    raise DataError(f"nothing could be measured on val: {why}")


def _rank(row: Mapping[str, Any]) -> tuple[bool, float]:
    if "kind" not in row:
        return True, 0.0
    main, more = MAIN[row["kind"]]
    value = row[f"val_{main}"]
    return value is None, 0.0 if value is None else -value if more else value


def write(rows: Sequence[Mapping[str, Any]], folder: Path, name: str) -> None:
    """<name>.parquet and <name>.csv. A column that mixes numbers and words is of words."""
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, pa.Array] = {}
    for column in dict.fromkeys(column for row in rows for column in row):
        values = [row.get(column) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [None if value is None else str(value) for value in values]
        elif kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        columns[column] = pa.array(values, pa.string() if not kinds else None)
    table = pa.table(columns)
    pq.write_table(table, folder / f"{name}.parquet")
    pyarrow.csv.write_csv(table, folder / f"{name}.csv")
