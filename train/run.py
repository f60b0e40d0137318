"""What the commands of stage 2 do: fit a head on a cache, score a split, show what a head saw."""

import csv
import io
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
from cache.files import write_atomic, write_json
from train.checkpoint import check_keys, load_head, save_head
from train.data import EVERY, Features, load
from train.explain import Explanation, explain_features
from train.fit import Row, facts_of, fit, outputs_of
from train.heads import get_head
from train.scores import Scores
from train.settings import Train

ABOUT = ("seed", "best_epoch", "selected_by", "val_map", "val_loss")  # of a fit, in head.json
Say = Callable[[Row], None]  # gets a row of the curves after each epoch
CURVES = ("epoch", "train_loss", "val_loss", "val_map")


def train_head(
    cache_root: Path | str,
    settings: Train,
    device: torch.device | str,
    out: Path | str,
    progress: Say | None = None,
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
    facts = {**facts_of(fitted, features), "seed": settings.seed, "versions": versions()}
    about = {name: facts[name] for name in ABOUT} | {"positives": _positives(features)}
    save_head(out / "head", fitted.model, settings, features, facts["versions"], about)
    splits = ("train", "val")
    result = {
        "head": settings.head,
        "dataset": features.dataset,
        "note": features.note,
        **facts,
        **about,
        "resumed": fitted.resumed,
        "stopped_early": fitted.descended and len(fitted.history) < settings.epochs,
        "val_labels": int(features.has(features.rows("val")).any(0).sum()),
        "persons": {split: len(features.rows(split)) for split in splits},
        "dropped": {split: dict(features.dropped.get(split, {})) for split in splits},
        "index": features.index_digest,
        "keys": features.keys,
        "weights": {n: [dict(w) for w in spec.weights] for n, spec in features.specs.items()},
        "seconds": {"load": round(loaded - started, 3), "fit": round(finished - loaded, 3)},
    }
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(CURVES)
    for row in fitted.history:
        writer.writerow(["" if math.isnan(row[name]) else row[name] for name in CURVES])
    write_atomic(out / "curves.csv", sink.getvalue().encode())
    write_json(out / "train.json", result)
    return result


@contextmanager
def _logged(
    folder: Path, settings: Train, progress: Callable[[Row], None] | None
) -> Iterator[Callable[[Row], None] | None]:
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

        def say(row: Row) -> None:
            for name in CURVES[1:]:
                if not math.isnan(row[name]):
                    writer.add_scalar(name, row[name], row["epoch"])
            writer.flush()  # so that it can be watched
            if progress is not None:
                progress(row)

        yield say


@dataclass(frozen=True)
class Opened:
    """A fitted head with the features that it reads, checked against each other. info: of the head,
    from head.json."""

    model: Any
    info: Mapping[str, Any]
    features: Features

    def scores(self, split: str) -> Scores:
        """See `scores_of`."""
        return scores_of(self.model, self.info, self.features, split)

    def explain(self, persons: Sequence[int]) -> Explanation:
        """What the head saw of these person rows. Raises DataError where one does not count (it was
        dropped or removed)."""
        kept = self.features.kept
        wrong = [p for p in persons if not 0 <= p < len(kept) or not kept[p]]
        if wrong:
            raise DataError(f"persons {wrong} have no features: name rows that evaluation scored")
        rows = torch.as_tensor(list(persons), dtype=torch.long, device=self.features.device)
        return explain_features(self.model, self.features, rows)


def open_head(
    cache_root: Path | str,
    head_folder: Path | str,
    device: torch.device | str = "cpu",
    memory: float | None = None,
) -> Opened:
    """The head in `head_folder`, and its views of the cache; memory: as in `load`.

    Raises KeyMismatch where the cache is not what the head was fitted on, CacheError where either
    is absent or damaged.
    """
    model, info = load_head(head_folder, device)
    settings = Train.model_validate(info["settings"])
    views = model.views(settings)
    if EVERY in views:  # what the cache had then
        views = tuple(info["views"])
    features = load(cache_root, views, device, memory)
    check_keys(info, features)
    return Opened(model, info, features)


def score(
    cache_root: Path | str,
    head_folder: Path | str,
    split: str,
    device: torch.device | str = "cpu",
) -> Scores:
    """Open a head and score one split: see `open_head` and `scores_of`."""
    return open_head(cache_root, head_folder, device).scores(split)


def scores_of(model: Any, info: Mapping[str, Any], features: Features, split: str) -> Scores:
    """The scores of every person of `split` that counts. Raises DataError where there is none."""
    rows = features.rows(split)
    if not len(rows):
        said = ", ".join(f"{n} {why}" for why, n in features.dropped.get(split, {}).items())
        raise DataError(
            f"no {split} person to score ({said or 'the index has none'}): set evaluate.split to "
            "another split, or run `emocache prepare` on data that has one"
        )
    train = features.rows("train")
    shares = features.kind == "distribution"
    found = [output for _, output in outputs_of(model, features, rows)]
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
        y_true=features.has(rows).cpu().numpy().astype(np.int8),
        y_score=torch.cat([output.scores for output in found]).cpu().numpy(),
        head_sha256=info.get("sha256", ""),
        dropped=features.dropped.get(split, {}),
        info=info,
        dataset=features.dataset,
        note=features.note,
        index=features.index_digest,
        declared=features.declared,
        units=None if features.units is None else features.units[rows.cpu().numpy()],
        drawn=features.drawn,
        distribution=features.truth(rows).cpu().numpy() if shares else None,
        train_mean=features.truth(train).mean(0).cpu().numpy() if shares and len(train) else None,
        **rated,
    )


def _positives(features: Features) -> dict[str, int]:
    """How many training persons had each label; a head knows nothing of one that none had."""
    counts = features.has(features.rows("train")).sum(0).tolist()
    return dict(zip(features.labels, counts, strict=True))


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("emocache", "numpy", "zarr", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
