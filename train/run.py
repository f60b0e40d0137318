"""What the commands of stage 2 do: fit a head on a cache, score a split, show what a head saw."""

import csv
import io
import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cache.errors import DataError
from cache.files import write_atomic
from train.checkpoint import check_keys, load_head, save_head
from train.data import Features, load
from train.fit import AT_ONCE, fit, outputs
from train.heads import get_head
from train.settings import Train

Progress = Callable[[dict[str, int | float]], None]
CURVES = ("epoch", "train_loss", "val_loss", "val_map")


def train_head(
    cache_root: Path | str,
    settings: Train,
    device: torch.device | str,
    out: Path | str,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Fit one head on a cache; write head/, curves.csv and train.json below `out`, and
    tensorboard/<start, head and seed> where `settings.tensorboard` asks for it.

    Gives what train.json holds. `progress` gets a row of the curves after each epoch.
    """
    started = time.perf_counter()
    out = Path(out)
    views = get_head(settings.head).views(settings)
    features = load(cache_root, views, device, settings.memory)
    loaded = time.perf_counter()
    with _logged(out / "tensorboard", settings, progress) as say:
        fitted = fit(features, settings, say, out / "resume.pt")
    finished = time.perf_counter()
    here = versions()
    kept = fitted.history[fitted.best_epoch - 1]
    about = {
        "seed": settings.seed,
        "best_epoch": fitted.best_epoch,
        "selected_by": fitted.selected_by,
        "val_map": _number(kept["val_map"]),
        "val_loss": _number(kept["val_loss"]),
        "positives": _positives(features),
    }
    save_head(out / "head", fitted.model, settings, features, here, about)
    result = {
        "head": settings.head,
        "dataset": features.dataset,
        "note": features.note,
        **about,
        "epochs": len(fitted.history),
        "resumed": fitted.resumed,
        "stopped_early": fitted.descended and len(fitted.history) < settings.epochs,
        "val_labels": int((features.truth(features.rows("val")) > 0.5).any(0).sum()),
        "persons": {split: len(features.rows(split)) for split in ("train", "val")},
        "dropped": {split: dict(features.dropped.get(split, {})) for split in ("train", "val")},
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "device": str(features.device),
        "versions": here,
        "index": features.index_digest,
        "keys": dict(features.keys),
        "weights": {name: [dict(w) for w in ws] for name, ws in features.weights.items()},
        "untrained": untrained(features.weights),
        "seconds": {"load": round(loaded - started, 3), "fit": round(finished - loaded, 3)},
    }
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(CURVES)
    for row in fitted.history:
        writer.writerow(["" if math.isnan(row[name]) else row[name] for name in CURVES])
    write_atomic(out / "curves.csv", sink.getvalue().encode())
    write_atomic(out / "train.json", (json.dumps(result, indent=1) + "\n").encode())
    return result


@contextmanager
def _logged(folder: Path, settings: Train, progress: Progress | None) -> Iterator[Progress | None]:
    """`progress` that also writes each row where TensorBoard finds it, if the settings ask."""
    if not settings.tensorboard:
        yield progress
        return
    from torch.utils.tensorboard import SummaryWriter

    # A folder for each run: they are there to be compared, and a fit that goes on after a kill
    # says its first epochs again.
    started = datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    with SummaryWriter(folder / f"{started}_{settings.head}_{settings.seed}") as writer:
        writer.add_text("settings", f"```\n{settings.model_dump_json(indent=1)}\n```")

        def say(row: dict[str, int | float]) -> None:
            for name in CURVES[1:]:
                if not math.isnan(row[name]):
                    writer.add_scalar(name, row[name], row["epoch"])
            writer.flush()  # so that it can be watched
            if progress is not None:
                progress(row)

        yield say


@dataclass(frozen=True)
class Scores:
    """A head's scores on one split, a row a person.

    person_rows, picture_rows (N,): rows in the index; y_true (N, C) 0 or 1; y_score (N, C),
    higher is more likely; dropped: reason -> persons of the split that could not be scored;
    info: of the head, from head.json. dataset, note, index (its digest): of the persons scored,
    who need not be of the data that the head was fitted on. Where labels are shares of 1,
    distribution (N, C) has them, and train_mean (C,) their mean over the train persons. Where the
    head predicts valence, arousal and dominance: vad, y_vad (N, 3), predicted and annotated, the
    latter NaN where not rated, and train_vad (3,), the mean annotation over the train persons.
    """

    split: str
    labels: tuple[str, ...]
    person_rows: np.ndarray
    picture_rows: np.ndarray
    y_true: np.ndarray
    y_score: np.ndarray
    dropped: Mapping[str, int]
    info: Mapping[str, Any]
    dataset: str = ""
    note: str = ""
    index: str = ""
    distribution: np.ndarray | None = None
    train_mean: np.ndarray | None = None
    vad: np.ndarray | None = None
    y_vad: np.ndarray | None = None
    train_vad: np.ndarray | None = None


def score(
    cache_root: Path | str,
    head_folder: Path | str,
    split: str = "test",
    device: torch.device | str = "cpu",
) -> Scores:
    """Score every person of `split` that counts.

    Raises KeyMismatch when the cache is not what the head was fitted on, DataError when the split
    is empty.
    """
    model, info, features = _open(cache_root, head_folder, device)
    return scores_of(model, info, features, split)


def scores_of(model: Any, info: Mapping[str, Any], features: Features, split: str) -> Scores:
    """As `score`, of a head at hand."""
    rows = features.rows(split)
    if not len(rows):
        said = ", ".join(f"{n} {why}" for why, n in features.dropped.get(split, {}).items())
        raise DataError(
            f"no {split} person to score ({said or 'the index has none'}): set evaluate.split to "
            "another split, or run `emocache prepare` on data that has one"
        )
    train = features.rows("train")
    shares = features.kind == "distribution"
    found = list(outputs(model, features, rows))
    rated: dict[str, np.ndarray] = {}
    if found[0].vad is not None and features.vad is not None:
        rated = {
            "vad": torch.cat([output.vad for output in found]).cpu().numpy(),
            "y_vad": features.vad[rows].cpu().numpy(),
            "train_vad": features.vad[train].nanmean(0).cpu().numpy(),
        }
    return Scores(
        split=split,
        labels=features.labels,
        person_rows=rows.cpu().numpy(),
        picture_rows=features.picture[rows].cpu().numpy(),
        y_true=(features.truth(rows) > 0.5).cpu().numpy().astype(np.int8),
        y_score=torch.cat([output.scores for output in found]).cpu().numpy(),
        dropped=features.dropped.get(split, {}),
        info=info,
        dataset=features.dataset,
        note=features.note,
        index=features.index_digest,
        distribution=features.truth(rows).cpu().numpy() if shares else None,
        train_mean=features.truth(train).mean(0).cpu().numpy() if shares and len(train) else None,
        **rated,
    )


@dataclass(frozen=True)
class Explanation:
    """What a head saw of some persons. Boxes are x1 y1 x2 y2 in pixels of the picture.

    person_rows, picture_rows (N,): rows in the index; boxes (N, 4) of the persons; y_score (N, C);
    attention (N, k): weight of each object, zero where padded, None for a head that weighs none;
    object_boxes (N, k, 4), object_labels (N, k) into classes, object_scores and object_mask
    (N, k): None without the view; head_boxes (N, 4), head_mask (N,): likewise; graphs: name ->
    (C, C), row i is what label i says of each j.
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    person_rows: np.ndarray
    picture_rows: np.ndarray
    boxes: np.ndarray
    y_score: np.ndarray
    attention: np.ndarray | None
    object_boxes: np.ndarray | None
    object_labels: np.ndarray | None
    object_scores: np.ndarray | None
    object_mask: np.ndarray | None
    head_boxes: np.ndarray | None
    head_mask: np.ndarray | None
    graphs: Mapping[str, np.ndarray]


def explain(
    cache_root: Path | str,
    head_folder: Path | str,
    persons: Sequence[int] | None = None,
    split: str = "test",
    device: torch.device | str = "cpu",
) -> Explanation:
    """Object weights and label graphs of a head, for these person rows or a whole split.

    Raises DataError when a person named does not count (it was dropped or removed).
    """
    model, _, features = _open(cache_root, head_folder, device)
    if persons is None:
        rows = features.rows(split)
    else:
        wrong = [p for p in persons if not 0 <= p < len(features.kept) or not features.kept[p]]
        if wrong:
            raise DataError(f"persons {wrong} have no features: name rows that evaluation scored")
        rows = torch.as_tensor(list(persons), dtype=torch.long, device=features.device)
    return explain_features(model, features, rows)


@torch.no_grad()
def explain_features(model: Any, features: Features, rows: torch.Tensor) -> Explanation:
    """As `explain`, for features at hand (those of new pictures, say)."""
    model.eval()
    outputs, batches = [], []
    for some in rows.split(AT_ONCE):
        batches.append(features.batch(some))
        outputs.append(model(batches[-1]))

    def together(values: list[torch.Tensor | None]) -> np.ndarray | None:
        there = [value for value in values if value is not None]
        return torch.cat(there).cpu().numpy() if there else None

    def array(view: str, name: str) -> np.ndarray | None:
        return together([batch.views.get(view, {}).get(name) for batch in batches])

    scores = together([output.scores for output in outputs])
    return Explanation(
        labels=features.labels,
        classes=features.classes,
        person_rows=rows.cpu().numpy(),
        picture_rows=features.picture[rows].cpu().numpy(),
        boxes=features.box[rows].cpu().numpy(),
        y_score=np.zeros((0, len(features.labels)), np.float32) if scores is None else scores,
        attention=together([output.attention for output in outputs]),
        object_boxes=array("objects", "box"),
        object_labels=array("objects", "label"),
        object_scores=array("objects", "score"),
        object_mask=array("objects", "mask"),
        head_boxes=array("head", "box"),
        head_mask=array("head", "mask"),
        graphs={name: graph.cpu().numpy() for name, graph in model.graphs().items()},
    )


def untrained(weights: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """The networks that run on random weights, as `view: network`."""
    return [
        f"{view}: {one['network']}"
        for view, some in weights.items()
        for one in some
        if not one["trained"]
    ]


def _open(
    cache_root: Path | str, head_folder: Path | str, device: torch.device | str
) -> tuple[Any, dict[str, Any], Features]:
    model, info = load_head(head_folder, device)
    settings = Train.model_validate(info["settings"])
    features = load(cache_root, model.views(settings), device, settings.memory)
    check_keys(info, features)
    return model, info, features


def _positives(features: Features) -> dict[str, int]:
    """How many training persons had each label; a head knows nothing of one that none had."""
    counts = (features.truth(features.rows("train")) > 0.5).sum(0).tolist()
    return dict(zip(features.labels, counts, strict=True))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("emocache", "numpy", "zarr", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
