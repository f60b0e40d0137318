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
from pipelines.settings import Sweep
from pipelines.trials import Trial, Trials
from train.search import vary
from train.settings import Train

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


def sweep(
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
    names = {name: _plain(value) for name, value in point.items()}
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


def _plain(value: Any) -> Any:
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


def write(rows: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """sweep.parquet and sweep.csv. A column that mixes numbers and words is of words."""
    folder.mkdir(parents=True, exist_ok=True)
    columns: dict[str, pa.Array] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if len(kinds) > 1 and not kinds <= {int, float}:
            values = [None if value is None else str(value) for value in values]
        elif kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        columns[name] = pa.array(values, pa.string() if not kinds else None)
    table = pa.table(columns)
    pq.write_table(table, folder / "sweep.parquet")
    pyarrow.csv.write_csv(table, folder / "sweep.csv")
