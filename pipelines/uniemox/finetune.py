"""`emocache finetune`: an encoder and a linear layer, fitted on pictures and labels.

results/finetune/classifier/    the encoder as transformers saves a ViT, and its linear layer
results/finetune/finetune.json  what it is; curves.csv its epochs; report.html both
results/finetune/metrics.json   numbers of evaluate.split, and what `Results` has beside them
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cache.errors import DataError
from cache.files import write_json
from cache.keys import key_of
from extract.weights import Weights, find
from pipelines.evaluation import measure
from pipelines.results import Results, plain, write_csv
from pipelines.settings import Settings
from pipelines.uniemox.fit import Fit
from pipelines.uniemox.pictures import PictureSource, persons_of
from pipelines.wording import UNTRAINED, between, percent
from pipelines.workplace import device_of, index_of
from train.scores import Scores
from train.uniemox.classifier import Classifier
from train.uniemox.descent import Course, descend
from train.uniemox.encoder import open_encoder, statistics_in
from train.uniemox.logs import Logs
from train.uniemox.pictures import Split
from train.uniemox.ranks import World, joined
from train.uniemox.settings import Finetune

# Of the facts, those that stand beside every number.
PROVENANCE = (
    "dataset",
    "note",
    "cache_key",
    "seed",
    "weights",
    "untrained",
    "versions",
    "device",
)
Progress = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class FinetuneFit(Fit[Finetune]):
    """All that one fine-tuning is made of."""

    encoder: Weights

    @property
    def weights(self) -> list[Mapping[str, Any]]:
        """Of the encoder."""
        return [self.encoder.facts()]

    @property
    def cache_key(self) -> str:
        """Of the index and of the encoder's weights."""
        return key_of({"index": self.index.digest(), "encoder": self.encoder.sha256})


def finetune(settings: Settings, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Fine-tune and measure on evaluate.split; gives what finetune.json holds. Under torchrun every
    process calls it, and the first one writes.

    Raises DataError for labels of which a person can have several and for recordings, WeightsError
    where no source has the encoder.
    """
    own, index = settings.finetune, index_of(settings)
    if index.modalities:
        raise DataError(f"{index.dataset} holds recordings, and finetune takes pictures")
    if index.kind not in ("single", "distribution"):
        raise DataError(
            f"finetune fits single labels or shares, and a person of {index.dataset} can have "
            "several: fit a head on the encoder's features instead (views.scene.network), or set "
            "data.target"
        )
    weights = find(own.encoder, settings.weights)
    if weights.path is None:
        raise DataError(f"{own.encoder} has no trained weights: see finetune.encoder")
    vit = open_encoder(weights.path)
    size, patch = int(vit.config.image_size), int(vit.config.patch_size)  # type: ignore[arg-type]
    samples, dropped = persons_of(index)
    source = PictureSource(settings.data.root, samples, own, size, (size // patch) ** 2)
    fit = FinetuneFit(settings=own, index=index, source=source, dropped=dropped, encoder=weights)
    if UNTRAINED in weights.name:  # its teachers
        fit.warnings.append(f"the encoder {own.encoder} is {weights.name}")
    for split in ("train", *(["val"] if own.select == "val" else []), settings.evaluate.split):
        if not samples[split]:
            raise DataError(
                f"no person of {split} with a label: see `emocache prepare`, finetune.select and "
                "evaluate.split"
            )
    out = Results(Results().finetune)
    with joined(device_of(settings)) as here:
        torch.manual_seed(own.seed)
        statistics = statistics_in(weights.path)
        model = Classifier(vit, index.labels, own, statistics).to(here.device)
        by_accuracy = (lambda row: row["val_accuracy"]) if own.select == "val" else None
        with Logs(out.folder, own) as logs:
            done = descend(
                model,
                source,
                own,
                here.device,
                key=fit.key,
                resume=out.resume,
                select=by_accuracy,
                progress=progress,
                after=lambda epoch, row: logs.row(row),
            )
        result: dict[str, Any] = {}
        if here.first:
            result = _measured(settings, fit, model, done, here, out)
    return result


def _measured(
    settings: Settings, fit: FinetuneFit, model: Classifier, done: Course, here: World, out: Results
) -> dict[str, Any]:
    """The numbers of the split, and everything written."""
    from pipelines.uniemox.looking import looks_of_classifier
    from pipelines.uniemox.page import finetuned

    index, own, split = fit.index, fit.settings, settings.evaluate.split
    scores = _scores(model, fit, split, here)
    val = _scores(model, fit, "val", here) if split != "val" and fit.source.count("val") else None
    facts, seen = fit.facts(model, done, here), fit.seen(done)
    provenance = {
        **{name: facts[name] for name in PROVENANCE},
        "fitted_on": {name: facts[name] for name in ("dataset", "note", "cache_key")},
        "head": f"linear layer on {own.encoder}, fine-tuned",
        "best_epoch": done.best_epoch,
    }
    found = measure(scores, settings.evaluate, provenance, val=val)
    found.write(out)
    numbers = found.metrics[split]
    result = plain(
        {
            **facts,
            "encoder": fit.encoder.name,
            "head": provenance["head"],
            "split": split,
            "persons": {part: seen[part] for part in ("train", "val", split)},
            "best_epoch": done.best_epoch,
            "measured": numbers,
        }
    )
    result["said"] = in_words(result)
    about = {name: result[name] for name in ("dataset", "note", "cache_key", "seed", "weights")}
    about["name"] = f"{fit.encoder.name}, fine-tuned on {index.dataset}"
    model.save(out.folder / "classifier", about)
    columns = [name for name, value in done.history[-1].items() if isinstance(value, int | float)]
    write_csv(out.curves, columns, done.history)
    write_json(out.folder / "finetune.json", result)
    looks = looks_of_classifier(
        settings, index, fit.source, model, out.folder / "classifier", split
    )
    finetuned(out.folder, result, done.history, looks)
    out.resume.unlink(missing_ok=True)
    return result


def in_words(result: Mapping[str, Any]) -> list[str]:
    """The outcome in sentences."""
    numbers = result["measured"]
    told = [
        f"N evaluated {numbers['n_evaluated']:,} of {result['split']}, "
        f"{numbers['n_dropped']:,} dropped; seed {result['seed']}, cache key "
        f"{result['cache_key'][:12]}, kept epoch {result['best_epoch']} of {result['epochs']}"
    ]
    for name, title in (
        ("accuracy", "accuracy"),
        ("macro_F1", "macro F1"),
        ("kl", "KL divergence"),
        ("mAP", "mAP"),
    ):
        if numbers.get(name) is None:
            continue
        shown = (lambda value: f"{value:.4f}") if name == "kl" else percent
        ends = between(numbers.get(f"{name}_low"), numbers.get(f"{name}_high"), shown)
        chance = numbers.get(f"chance_{name}")
        beside = "" if chance is None else f", without information {shown(chance)}"
        told.append(f"{title} {shown(numbers[name])} ({ends}){beside}")
    return told


def _split(name: str) -> Split:
    """A name of `cache.index.SPLITS`, as a source takes it."""
    return name  # type: ignore[return-value]


def _scores(model: Classifier, fit: FinetuneFit, split: str, here: World) -> Scores:
    """Of everybody of a split whose picture can be read."""
    rows, scores = [], []
    lost: Counter[str] = Counter()
    for pictures in fit.source.all(_split(split), fit.settings.batch):
        lost.update(pictures.lost.values())
        if len(pictures):
            rows.append(pictures.row.numpy())
            scores.append(model.predict(pictures.to(here.device)).float().cpu().numpy())
    if not rows:
        raise DataError(f"no picture of {split} could be read: see data.root")
    index, at = fit.index, np.concatenate(rows)
    true = index.targets[at]
    shares = index.kind == "distribution"
    dropped = {
        reason.partition(": ")[2]: count
        for reason, count in fit.dropped.items()
        if reason.startswith(f"{split}: ")
    }
    train = index.targets[[sample.row for sample in fit.source.samples["train"]]]
    return Scores(
        split=split,
        labels=index.labels,
        person_rows=at,
        picture_rows=index.picture_rows[at],
        y_true=(true > 0.5).astype(np.int8),
        y_score=np.concatenate(scores),
        distribution=true if shares else None,
        declared=index.kind,
        index=index.digest(),
        dropped={**dropped, **lost},
        dataset=index.dataset,
        note=index.note,
        train_mean=train.mean(axis=0) if shares else None,
    )
