"""What each command does: settings in, files and plain values out. No printing, no parsing."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import DataError, EmocacheError, SettingsError
from cache.index import Index
from cache.statuses import FAILED
from pipelines.settings import Settings

if TYPE_CHECKING:  # train.run loads torch, and not every command needs it
    from extract.views import Networks
    from train.run import Scores

Progress = Callable[[int, int], None]
RESULTS = Path("results")


def device_of(settings: Settings) -> str:
    """The device that `auto` stands for here: a GPU where torch sees one, else the CPU.

    Raises SettingsError for a device that is not here.
    """
    if settings.device == "cpu":
        return "cpu"
    import torch

    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if settings.device == "auto":
        return next((kind for kind, found in here.items() if found), "cpu")
    kind, _, number = settings.device.partition(":")
    if not here[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise SettingsError(f"device {settings.device} is not here: set device to auto or cpu")
    return settings.device


def prepare(settings: Settings) -> dict[str, Any]:
    from extract.prepare import prepare as read

    return read(settings.data, settings.cache.root, workers=settings.extract.readers).as_dict()


def index_of(settings: Settings) -> Index:
    """The cache's index, of the data set that the settings name: DataError for another. Where the
    pictures lie may differ from one machine to the next, so `data.root` is not compared."""
    index, data = Index.read(settings.cache.root), settings.data
    if index.dataset != data.name:
        raise DataError(
            f"the index in {settings.cache.root} holds {index.dataset}, the settings say "
            f"{data.name} ({data.root}): run `emocache prepare`, or set data.name or cache.root"
        )
    return index


def views_of(settings: Settings, index: Index) -> dict[str, Any]:
    from extract.run import give_definitions
    from extract.views import make_views

    views = make_views(settings.views, settings.cache.dtype)
    give_definitions(views, index)
    return views


def networks_of(
    settings: Settings, on_load: Callable[[Any], None] = lambda weights: None
) -> "Networks":
    from extract.views import Networks

    return Networks(
        settings.weights,
        lambda: device_of(settings),
        on_load,
        settings.extract.batch,
        settings.views.precision,
    )


def plan(settings: Settings, probe: bool = True) -> dict[str, Any]:
    """What `extract` would do: rows and reason for each view; with `probe`, how long it takes and
    how big it gets, from a few pictures computed now; and, in words, what would stop it. Writes
    nothing."""
    from cache.share import offered
    from extract.estimate import estimate
    from extract.plan import make_plan
    from extract.run import from_others, networks_needed

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
    root, warnings = settings.data.root, []
    if not root.expanduser().is_dir():
        stop = "`extract` would refuse" if found.pictures else "nothing needs it now"
        warnings.append(f"there is no folder {root}, {stop}: set data.root to the pictures")
    estimated = None
    if probe and not found.empty and not warnings:
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
    """progress: called with pictures done, pictures in all, and rates in words. retry: try again
    what failed: pictures that `prepare` could not read, and rows that are in the cache as failed.
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
    return {
        "rows": {name: dict(statuses) for name, statuses in outcome.rows.items()},
        "taken": outcome.taken,
        "why": outcome.reasons,
        "networks": [networks.weights(name).words() for name in outcome.networks],
        "untrained": [n for n in outcome.networks if not networks.weights(n).trained],
        "speed": outcome.speed,
        "skipped": outcome.skipped,
    }


def train(
    settings: Settings, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    from train.run import train_head

    index_of(settings)
    device = device_of(settings)
    return train_head(settings.cache.root, settings.train, device, RESULTS, progress)


def evaluate(settings: Settings, head_named: str | None = None) -> dict[str, Any]:
    """head_named: what the fitted head must be, where the user said so."""
    from cache.audit import gaps, leaked_persons
    from pipelines.evaluation import evaluate as measure
    from train.checkpoint import cache_key
    from train.run import score

    index = index_of(settings)
    device = device_of(settings)
    head = RESULTS / "head"
    split = settings.evaluate.split
    scores = score(settings.cache.root, head, split, device)
    # Thresholds come from val; data without a val split have none, and no F1 or Jaccard.
    has_val = bool((index.splits[index.person_status == "ok"] == "val").any())
    val = score(settings.cache.root, head, "val", device) if has_val and split != "val" else None
    info = scores.info
    if head_named not in (None, info["head"]):
        raise DataError(
            f"train.head is set to {head_named}, and {head} holds {info['head']}: run `emocache "
            "train` with that setting first"
        )
    weights = [weights for view in info["views"].values() for weights in view["weights"]]
    provenance = {
        "dataset": scores.dataset,
        "note": _note(scores),
        "cache_key": cache_key(info, scores.index),
        "fitted_on": {
            "dataset": info["dataset"],
            "note": info["note"],
            "cache_key": cache_key(info, info["index"]),
        },
        "head": info["head"],
        "head_sha256": info["sha256"],
        "seed": info["seed"],
        "best_epoch": info["best_epoch"],
        "device": device,
        "weights": sorted({in_words(one) for one in weights}),
        "untrained": sorted({one["network"] for one in weights if not one["trained"]}),
        "versions": info["versions"],
        "leaks_not_sought": gaps(settings.cache.root),
    }
    return measure(
        scores,
        list(scores.labels),
        settings.evaluate,
        provenance,
        val=val,
        leaked=leaked_persons(settings.cache.root, split),
        mean_distribution=scores.train_mean,
        folder=RESULTS,
    )


def probe(settings: Settings, progress: Progress = lambda done, total: None) -> dict[str, Any]:
    """What each view is worth to a linear head."""
    from train.probe import probe as measure

    index_of(settings)
    device = device_of(settings)
    return measure(settings.cache.root, settings.train, settings.evaluate, device, progress)


def compare(settings: Settings, a: Path, b: Path) -> dict[str, Any]:
    """The heads of two results folders on the persons that both have scored."""
    from pipelines.evaluation import compare as measure

    return measure(a, b, settings.evaluate)


def report(settings: Settings) -> Path:
    from pipelines.report import write_report
    from pipelines.report_data import gather

    return write_report(gather(settings, RESULTS), RESULTS / "report.html")


def _note(scores: "Scores") -> str:
    """What must be said beside the numbers: of the data measured, and of the head's where that is
    something else."""
    info = scores.info
    if scores.note == info["note"]:
        return scores.note
    notes = {scores.dataset: scores.note, f"fitted on {info['dataset']}": info["note"]}
    return "; ".join(f"{whose}: {note}" for whose, note in notes.items() if note)


def in_words(weights: Mapping[str, Any]) -> str:
    """One network's weights in a line, from `Weights.facts()`."""
    if not weights["trained"]:
        return f"{weights['network']}: UNTRAINED, random weights ({weights['sha256']})"
    return (
        f"{weights['network']}: {weights['name']} from {weights['source']}, "
        f"SHA-256 {weights['sha256'][:12]}, {weights['licence']}"
    )
