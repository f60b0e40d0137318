"""What each command does: settings in, files and plain values out. No printing, no parsing."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.contents import quarantined, weights_in_words, weights_summary
from cache.errors import DataError, EmocacheError, SettingsError
from cache.index import Index
from cache.paths import view_names
from cache.progress import Progress, silent
from cache.statuses import FAILED
from cache.store import open_view
from pipelines.recordings import terms_of
from pipelines.results import RESULTS, Results
from pipelines.settings import Settings
from pipelines.workplace import device_of, index_of, networks_of, views_of

if TYPE_CHECKING:
    from extract.people import Finder
    from train.scores import Scores

log = logging.getLogger("extract")


def prepare(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """The annotation -> the index, and a contact sheet of some persons: what
    `extract.prepare.Prepared` says of it, and where the sheet is.

    progress: called with pictures done, pictures in all, and what is done with them.
    """
    from extract.prepare import prepare as read
    from pipelines.contact_sheet import write

    done = read(
        settings.data,
        settings.cache.root,
        settings.extract.readers,
        _finder(settings, progress),
        lambda done, total: progress(done, total, "reading files"),
    ).as_dict()
    sheet = write(settings, done, Results().contact_sheet)
    return {**done, "contact_sheet": str(sheet)}


def check(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """What `prepare` would find, and `faults`: what is wrong with the annotation, in sentences.
    Writes nothing."""
    from extract.prepare import check as look

    try:
        found = look(
            settings.data,
            settings.extract.readers,
            lambda done, total: progress(done, total, "reading files"),
        ).as_dict()
    except DataError as error:
        faults = list(getattr(error, "faults", [str(error)]))
        count = getattr(error, "count", len(faults))
        return {"dataset": settings.data.name, "faults": faults, "fault_count": count}
    return {**found, "faults": [], "fault_count": 0}


def unpack(settings: Settings, arrays: Sequence[Path]) -> dict[str, Any]:
    """FER+ in arrays -> pictures and votes below `data.root`: how many faces of each split."""
    from extract.datasets.ferplus import unpack as write

    if settings.data.name != "ferplus":
        raise SettingsError(f"data.name is {settings.data.name}: set it to ferplus, to unpack that")
    return {"folder": str(settings.data.root), "faces": write(arrays, settings.data.root)}


def _finder(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> "Finder":
    """Who looks for people in pictures without boxes."""
    from extract.people import Finder

    networks = networks_of(settings)

    def step(done: int, total: int) -> None:
        progress(done, total, f"looking for people, {networks.meter.line()}")

    return Finder(settings.people, settings.data, settings.cache, settings.extract, networks, step)


def plan(settings: Settings, probe: bool = True) -> dict[str, Any]:
    """What `extract` would do: rows and reason for each view; with `probe`, how long it takes and
    how big it gets, from a few pictures computed now; and, in words, what would stop it. Writes
    nothing."""
    from cache.share import offered
    from extract.estimate import MEASURED, estimate
    from extract.plan import make_plan, networks_needed
    from extract.run import from_others

    networks = networks_of(settings)
    index = index_of(settings)
    views = views_of(settings, index)
    found = make_plan(settings.cache.root, index, views, networks, settings.cache.shard_rows)
    taken = from_others(offered, settings.cache, index, views, networks, found)
    if taken:  # the rest is to be computed
        left = {n: np.setdiff1d(rows, taken.get(n, ())) for n, rows in found.rows.items()}
        reasons = found.reasons
        found = make_plan(
            settings.cache.root, index, views, networks, settings.cache.shard_rows, left
        )
        found.reasons = {
            n: f"{why}; {len(taken[n])} from cache.take_from" if n in taken else why
            for n, why in reasons.items()
        }
    root, pictures, warnings = settings.cache.root, settings.data.root, []
    if not pictures.expanduser().is_dir():
        stop = "`extract` would refuse" if found.pictures else "nothing needs it now"
        warnings.append(f"there is no folder {pictures}, {stop}: set data.root to the pictures")
    estimated = None
    if probe and not found.empty and not warnings:
        some = min(MEASURED, found.pictures)
        on = f" on {some} {terms_of(index).sources}" if some else ""
        log.info("measuring%s (--no-probe leaves it out) ...", on)
        try:
            estimated = estimate(
                found, settings.data, settings.cache, settings.extract, views, networks
            ).as_dict()
        except EmocacheError as error:
            warnings.append(f"no estimate, and `extract` would stop: {error}")
    return {
        "views": {
            name: {"rows": len(rows), "reason": found.reasons[name]}
            for name, rows in found.rows.items()
        },
        "pictures": found.pictures,
        "recordings": bool(index.modalities),
        "failed": _failed(root, index, sorted(set(view_names(root)) & set(views))),
        "estimate": estimated,
        "untrained": sorted(
            name for name in networks_needed(found, views) if not networks.weights(name).trained
        ),
        "warnings": warnings,
    }


def extract(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
    on_load: Callable[[Any], None] = lambda weights: None,
    retry: bool = False,
) -> dict[str, Any]:
    """Pictures -> features, in the cache: rows written by view and status, and which pictures
    failed.

    progress: called with pictures done, pictures in all, and rates in words; on_load: with the
    `Weights` of each network as it is loaded. retry: try again what failed: pictures that `prepare`
    could not read, and rows that are in the cache as failed.
    """
    from extract.run import extract as run

    index = index_of(settings)
    if retry and set(index.pictures["status"].to_pylist()) & set(FAILED):
        prepare(settings)
        index = index_of(settings)
    networks = networks_of(settings, on_load)
    views = views_of(settings, index)

    def step(done: int, total: int) -> None:
        progress(done, total, networks.meter.line())

    outcome = run(
        settings.data, settings.cache, settings.extract, views, networks, step, retry=retry
    )
    failed = [name for name, found in outcome.rows.items() if set(found) & set(FAILED)]
    return {
        "rows": {name: dict(statuses) for name, statuses in outcome.rows.items()},
        "failed": _failed(settings.cache.root, index, failed) if failed else [],
        "taken": outcome.taken,
        "why": outcome.reasons,
        "networks": [weights_in_words(networks.weights(n).facts()) for n in outcome.networks],
        "untrained": [n for n in outcome.networks if not networks.weights(n).trained],
        "speed": outcome.speed,
        "recordings": bool(index.modalities),
        "skipped": outcome.skipped,
    }


def repair(settings: Settings, progress: Progress = silent) -> dict[str, Any]:
    """Take what is damaged out of the cache, and compute exactly those rows again: what was found,
    rows computed by view, what was left."""
    from extract.people import people_views
    from extract.repair import repair as mend
    from extract.views import View

    def views(index: Index) -> dict[str, View]:
        return views_of(settings, index) | people_views(settings.people)

    used: list[Any] = []
    networks = networks_of(settings, used.append)
    finder = _finder(settings)
    done = mend(settings.data, settings.cache, settings.extract, views, networks, progress, finder)
    return {
        "damages": [asdict(damage) for damage in done.damages],
        "rows": done.rows,
        "skipped": done.outcome.skipped,
        "left": [asdict(damage) for damage in done.left],
        "untrained": [weights.network for weights in used if not weights.trained],
    }


def train(
    settings: Settings, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Features -> a head and its curves: what train.json holds. progress: called with a row of the
    curves after each epoch."""
    from train.run import train_head

    index_of(settings)
    device = device_of(settings)
    return train_head(settings.cache.root, settings.train, device, RESULTS, progress)


def evaluate(settings: Settings, head_named: str | None = None) -> dict[str, Any]:
    """The fitted head on a split, written into the results folder: what `Results.read_metrics`
    gives. head_named: what the head must be, where the user said so; DataError for another."""
    from cache.audit import gaps, leaked_persons
    from pipelines.evaluation import measure
    from train.run import open_head

    index_of(settings)
    results, root, split = Results(), settings.cache.root, settings.evaluate.split
    device = device_of(settings)
    opened = open_head(root, results.head, device, settings.train.memory)
    if head_named not in (None, opened.info["head"]):
        raise DataError(
            f"train.head is set to {head_named}, and {results.head} holds {opened.info['head']}: "
            "run `emocache train` with that setting first"
        )
    scores = opened.scores(split)
    # Thresholds come from val; where no person of val counts there are none, and no F1 or Jaccard.
    apart = split != "val" and len(opened.features.rows("val")) > 0
    val = opened.scores("val") if apart else None
    provenance = {**_provenance(scores), "device": device, "leaks_not_sought": gaps(root)}
    leaked = leaked_persons(root, split)
    found = measure(scores, settings.evaluate, provenance, val=val, leaked=leaked)
    found.write(results)
    return found.metrics


def probe(settings: Settings, progress: Progress = silent) -> dict[str, Any]:
    """What each view is worth to a linear head."""
    from train.probe import probe as measure

    index_of(settings)
    device = device_of(settings)
    return measure(settings.cache.root, settings.train, settings.evaluate, device, progress)


def report(settings: Settings, progress: Progress = silent) -> Path:
    """The results as one HTML file."""
    from pipelines.report import data, page

    results = Results()
    return page.write(data.gather(settings, results, progress), results.report)


def _failed(root: Path, index: Index, views: Iterable[str]) -> list[dict[str, str]]:
    """The pictures that `prepare` could not use, or that one of these views could not."""
    return quarantined([open_view(root, name) for name in views], index)


def _provenance(scores: "Scores") -> dict[str, Any]:
    """Where these scores come from: persons, head, networks."""
    from train.checkpoint import fitted_key

    info = scores.info
    weights = [one for view in info["views"].values() for one in view["weights"]]
    return {
        "dataset": scores.dataset,
        "note": _note(scores),
        "cache_key": fitted_key(info, scores.index),
        "fitted_on": {
            "dataset": info["dataset"],
            "note": info["note"],
            "cache_key": fitted_key(info, info["index"]),
        },
        "head": info["head"],
        "head_sha256": info["sha256"],
        "seed": info["seed"],
        "best_epoch": info["best_epoch"],
        **weights_summary(weights),
        "versions": info["versions"],
    }


def _note(scores: "Scores") -> str:
    """What must be said beside the numbers: of the data measured, and of the head's where that is
    something else."""
    info = scores.info
    if scores.note == info["note"]:
        return scores.note
    notes = {scores.dataset: scores.note, f"fitted on {info['dataset']}": info["note"]}
    return "; ".join(f"{whose}: {note}" for whose, note in notes.items() if note)
