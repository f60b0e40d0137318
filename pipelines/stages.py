"""What each command does: settings in, files and plain values out. No printing, no parsing."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DataError
from cache.index import Index
from cache.store import WORDS, open_view, view_names
from pipelines.settings import Settings

Progress = Callable[[int, int], None]
RESULTS = Path("results")


def device_of(settings: Settings) -> str:
    """The device that `auto` stands for here: a GPU where torch sees one, else the CPU."""
    if settings.device != "auto":
        return settings.device
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def prepare(settings: Settings) -> dict[str, Any]:
    from extract.prepare import prepare as read

    return read(settings.data, settings.cache.root, workers=settings.extract.workers).as_dict()


def views_of(settings: Settings, index: Index) -> dict[str, Any]:
    from extract.run import give_definitions
    from extract.views import make_views

    views = make_views(settings.views, settings.cache.dtype, settings.extract.batch)
    give_definitions(views, index)
    return views


def plan(settings: Settings) -> dict[str, Any]:
    """What `extract` would do: rows and reason for each view. Computes nothing."""
    from extract.plan import make_plan
    from extract.views import Networks

    networks = Networks(settings.weights, lambda: "cpu")
    index = Index.read(settings.cache.root)
    views = views_of(settings, index)
    found = make_plan(settings.cache.root, index, views, networks, settings.cache.shard_rows)
    return {
        "views": {
            name: {"rows": len(rows), "reason": found.reasons[name]}
            for name, rows in found.rows.items()
        },
        "pictures": found.pictures,
    }


def extract(
    settings: Settings,
    progress: Progress = lambda done, total: None,
    on_load: Callable[[Any], None] = lambda weights: None,
) -> dict[str, Any]:
    from extract.run import extract as run
    from extract.views import Networks

    networks = Networks(settings.weights, lambda: device_of(settings), on_load)
    views = views_of(settings, Index.read(settings.cache.root))
    outcome = run(settings.data, settings.cache, settings.extract, views, networks, progress)
    if outcome.skipped:
        path, reason = next(iter(outcome.skipped.items()))
        raise DataError(
            f"{len(outcome.skipped)} of the pictures that `prepare` saw are gone or changed (the "
            f"first: {path}: {reason}); everything else is extracted. Check data.root, then run "
            "`emocache prepare` and `emocache extract`"
        )
    return {
        "rows": {name: dict(statuses) for name, statuses in outcome.rows.items()},
        "taken": outcome.taken,
        "why": outcome.reasons,
        "networks": [networks.weights(name).words() for name in outcome.networks],
        "untrained": [n for n in outcome.networks if not networks.weights(n).trained],
    }


def train(
    settings: Settings, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    from train.run import train_head

    device = device_of(settings)
    return train_head(settings.cache.root, settings.train, device, RESULTS, progress)


def evaluate(settings: Settings) -> dict[str, Any]:
    from cache.keys import key_of
    from pipelines.evaluation import evaluate as measure
    from train.run import score

    device = device_of(settings)
    head = RESULTS / "head"
    split = settings.evaluate.split
    scores = score(settings.cache.root, head, split, device)
    # Thresholds come from val; data without a val split have none, and no F1 or Jaccard.
    has_val = bool((_counted(settings) == "val").any())
    val = score(settings.cache.root, head, "val", device) if has_val and split != "val" else None
    info = scores.info
    weights = [weights for view in info["views"].values() for weights in view["weights"]]
    provenance = {
        "dataset": info["dataset"],
        "note": info["note"],
        "cache_key": key_of(
            {"index": info["index"], **{name: v["key"] for name, v in info["views"].items()}}
        ),
        "head": info["head"],
        "seed": info["seed"],
        "best_epoch": info["best_epoch"],
        "device": device,
        "weights": sorted({in_words(one) for one in weights}),
        "untrained": sorted({one["network"] for one in weights if not one["trained"]}) or "none",
        "versions": info["versions"],
    }
    return measure(
        scores, list(scores.labels), settings.evaluate, provenance, val=val, folder=RESULTS
    )


def report(settings: Settings) -> Path:
    from pipelines.report import write_report
    from pipelines.report_data import gather

    return write_report(gather(settings, RESULTS), RESULTS / "report.html")


def cache_contents(settings: Settings) -> dict[str, Any]:
    """Each view: rows by status, key, size, weights; and the index beside them."""
    root = settings.cache.root
    index = Index.read(root)
    views = {}
    for name in view_names(root):
        view = open_view(root, name)
        codes, counts = np.unique(view.status, return_counts=True)
        views[name] = {
            "key": view.key,
            "parts": view.parts,
            "weights": view.weights,
            "trained": view.trained,
            "rows": {WORDS[int(c)]: int(n) for c, n in zip(codes, counts, strict=True)},
            "bytes": sum(f.stat().st_size for f in view.path.rglob("*") if f.is_file()),
            "files": sum(f.is_file() for f in view.path.rglob("*")),
        }
    status, counts = np.unique(index.person_status, return_counts=True)
    return {
        "dataset": index.dataset,
        "note": index.note,
        "persons": {str(s): int(n) for s, n in zip(status, counts, strict=True)},
        "pictures": len(index.pictures),
        "views": views,
    }


def in_words(weights: Mapping[str, Any]) -> str:
    """One network's weights in a line, from `Weights.facts()`."""
    if not weights["trained"]:
        return f"{weights['network']}: UNTRAINED, random weights ({weights['sha256']})"
    return (
        f"{weights['network']}: {weights['name']} from {weights['source']}, "
        f"SHA-256 {weights['sha256'][:12]}, {weights['licence']}"
    )


def read_metrics() -> dict[str, Any]:
    path = RESULTS / "metrics.json"
    if not path.exists():
        raise DataError(f"no {path}: run `emocache evaluate` first")
    return json.loads(path.read_text(encoding="utf-8"))


def _counted(settings: Settings) -> np.ndarray:
    index = Index.read(settings.cache.root)
    return index.splits[index.person_status == "ok"]
