"""Every point of a grid of settings, fitted and measured on val; the table of it, as files."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from cache.errors import DataError, SettingsError
from pipelines.results import Results
from pipelines.settings import Settings, Sweep
from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.rendering import plain_cell, write_rows
from pipelines.studies.trials import Progress, Trial, fits_of, quiet, searching, untrained_of
from pipelines.studies.trials_page import best_first, trials_figures, trials_table
from train.metrics.measures import MAIN, Measure
from train.settings import Train
from train.vary import vary

Point = Mapping[str, Any]  # dotted setting, as `train.hugme.beta` -> value


def plan(settings: Settings) -> dict[str, Any]:
    """What `sweep` would fit: see `Trials.plan`; equal: as of `sweep`."""
    asked = points(settings.train, settings.sweep)
    found = searching(settings).plan([one for _, one in asked])
    return {**found, "equal": combinations(settings.sweep) - len(asked)}


def sweep(settings: Settings, progress: Progress = quiet) -> dict[str, Any]:
    """Fit every point of the sweep that has not been fitted yet; write sweep.parquet, sweep.csv
    and sweep.html below results/sweep. Gives rows (see `_row`), the best on val first, those
    without numbers last; measure and names (the columns that rank and that vary); how many points
    there are, how many more were equal to one of them, and how many fits were made now and kept
    from before. Raises DataError where nothing could be measured."""
    asked = points(settings.train, settings.sweep)
    trials = searching(settings)
    found = trials.collect([one for _, one in asked], progress)
    main = _main_of(found)
    measure = f"val_{main.name}"
    rows = best_first(
        [_row(point, one) for (point, _), one in zip(asked, found, strict=True)], measure, main.more
    )
    folder = Results().sweep
    write_rows(rows, folder, "sweep")
    names = list(dict.fromkeys(name for point, _ in asked for name in point))
    untrained = untrained_of(found)
    first = rows[0]
    remark = (
        f"Intervals ({first['confidence']:.0%}) resample the pictures of val; the best of many "
        "fits looks better than it is."
    )
    page = write_page(
        folder / "sweep.html",
        f"Sweep of {settings.train.head}",
        [
            ("data", trials.index.dataset),
            ("N on val", f"{first['n_evaluated']:,} ({first['n_dropped']:,} dropped)"),
            ("fits", f"{len(rows):,}"),
            ("cache key", first["cache_key"][:12]),
            ("device", "; ".join([first["device"], *trials.words()])),
        ],
        warnings_of(trials.index.note, untrained),
        [
            Section("Fits, the best first", table=trials_table(rows, names, measure, remark)),
            *trials_figures(rows, names, measure, main.more),
        ],
    )
    return {
        "points": len(asked),
        "equal": combinations(settings.sweep) - len(asked),
        "fitted": fits_of(one for one in found if one.fitted_now),
        "kept": fits_of(one for one in found if not one.new),
        "measure": measure,
        "names": names,
        "rows": rows,
        "untrained": untrained,
        "ways": trials.words(),
        "note": trials.index.note,
        "report": str(page),
    }


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


def combinations(sweep: Sweep) -> int:
    """How many points `points` goes through, equal ones too."""
    return max(1, len(sweep.points)) * math.prod(map(len, sweep.over.values()))


def value_of(one: Train, name: str) -> Any:
    """The setting of this dotted name, as `train.hugme.beta`."""
    found: Any = one.model_dump(mode="json")
    for part in name.split(".")[1:]:
        found = found[part]
    return found


def _main_of(found: Sequence[Trial]) -> Measure:
    """The measure that says which of them is better. Raises DataError where none has numbers."""
    for trial in found:
        if numbers := trial.measured("val"):
            return MAIN[numbers["kind"]]
    why = next((trial.reason for trial in found if trial.reason), "it has no person")
    raise DataError(f"nothing could be measured on val: {why}")


def _row(point: Point, trial: Trial) -> dict[str, Any]:
    """A point and its trial as one row.

    status and reason as in `Trial`; the point's settings; of val, where it was measured: the
    measure that heads are compared by, and mAP, with _low and _high, kind, n_evaluated, n_dropped
    and confidence; val_loss, best_epoch, epochs, parameters, seconds, together, seed, cache_key,
    dataset, note, device, untrained; trial (its key) and new (fitted now).
    """
    names = {name: plain_cell(value) for name, value in point.items()}
    row: dict[str, Any] = {"status": trial.status, "reason": trial.reason, **names}
    if numbers := trial.measured("val"):
        for name in dict.fromkeys((MAIN[numbers["kind"]].name, "mAP")):
            row |= {f"val_{name}{end}": numbers[f"{name}{end}"] for end in ("", "_low", "_high")}
        some = ("kind", "n_evaluated", "n_dropped", "confidence")
        row |= {name: numbers[name] for name in some}
    record = trial.record or {}
    keys = ("val_loss", "best_epoch", "epochs", "parameters", "seconds", "together", "seed")
    row |= {name: record.get(name) for name in (*keys, "cache_key", "dataset", "note", "device")}
    row |= {"untrained": ", ".join(record.get("untrained", [])), "trial": trial.key}
    return row | {"new": trial.new}
