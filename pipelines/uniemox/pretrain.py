"""`emocache pretrain`: pictures and cached teachers -> an encoder that stage 1 can run.

results/pretrain/uniemox/       the encoder, a ViT of transformers: see weights.folder
results/pretrain/student.safetensors   the whole student
results/pretrain/pretrain.json  what it is; curves.csv, report.html
results/pretrain/grids/         held-out pictures and what the student makes of them
"""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from cache.boxes import area
from cache.contents import weights_in_words
from cache.errors import DataError
from cache.files import write_atomic, write_json
from cache.index import Index
from cache.keys import key_of
from extract.weights import Weights, find
from pipelines.results import Results, plain, write_csv
from pipelines.settings import Settings
from pipelines.uniemox.fit import Fit
from pipelines.uniemox.pictures import PictureSource, Sample, Teachers, pictures_of, teachers_of
from pipelines.wording import between, number, percent
from pipelines.workplace import device_of, index_of
from train.metrics import bootstrap_mean
from train.settings import Evaluate
from train.uniemox.descent import Course, Row, descend
from train.uniemox.encoder import save_encoder
from train.uniemox.grids import grid
from train.uniemox.logs import Logs
from train.uniemox.ranks import World, joined
from train.uniemox.settings import Pretrain
from train.uniemox.student import Student

MEAN_OF = 1024  # training pictures that the mean picture is made of, at most
WHOLE = 0.98  # share of a picture from which a box is all of it
log = logging.getLogger("train")
Progress = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class PretrainFit(Fit[Pretrain]):
    """All that one pre-training is made of. start: the weights that it goes on from."""

    teachers: Teachers
    start: Weights | None = None

    def described(self, split: str) -> int:
        """How many pictures of a split have a description."""
        known = self.teachers.described
        return (
            0 if known is None else sum(bool(known[s.picture]) for s in self.source.samples[split])
        )

    @property
    def weights(self) -> list[Mapping[str, Any]]:
        """Of the teachers, and those that it goes on from."""
        return [*self.teachers.weights, *([] if self.start is None else [self.start.facts()])]

    @property
    def cache_key(self) -> str:
        """Of the index and of the teachers."""
        return key_of({"index": self.index.digest(), "views": dict(self.teachers.keys)})

    @property
    def key(self) -> str:
        """Also of the start."""
        return key_of({"fit": super().key, "start": self.start and self.start.sha256})


def pretrain(
    settings: Settings, progress: Progress = lambda *_: None, out: Path | None = None
) -> dict[str, Any]:
    """Pre-train; gives what pretrain.json holds. Under torchrun every process calls it, and the
    first one writes. out: the folder, in place of results/pretrain.

    Raises CacheError where the cache lacks a teacher, DataError without pictures to train on or
    for recordings, SettingsError and WeightsError as their causes say.
    """
    fit = prepare(settings)
    out = Results().pretrain if out is None else out
    with joined(device_of(settings)) as here:
        torch.manual_seed(fit.settings.seed)
        student = Student.setup(fit.settings, fit.teachers.width)
        if fit.start is not None and fit.start.path is not None:
            student.load_start(fit.start.path)
        if "pixels" in student.active:
            student.learn_mean(_some(fit.source, fit.settings))
        student.to(here.device)
        shown = next(fit.source.read("val", [_first(fit.source, fit.settings)]), None)
        if here.first and not Results(out).resume.exists():
            shutil.rmtree(out / "grids", ignore_errors=True)  # of another run
        with Logs(out, fit.settings) as logs:

            def after(epoch: int, row: Row) -> None:
                logs.row(row)
                last = epoch == fit.settings.epochs
                if shown is not None and (last or epoch % fit.settings.grid_every == 0):
                    picture = grid(student, shown.to(here.device))
                    write_atomic(out / "grids" / f"epoch-{epoch:04}.png", _png(picture))
                    logs.picture("reconstructed", picture, epoch)

            done = descend(
                student,
                fit.source,
                fit.settings,
                here.device,
                key=fit.key,
                resume=Results(out).resume,
                progress=progress,
                after=after,
            )
        result: dict[str, Any] = {}
        if here.first:
            result = describe(fit, student, done, here)
            result["held_out"] = held_out(fit, student, settings.evaluate, here)
            result["said"] = in_words(result)
            _write(settings, out, fit, student, result, done.history)
    return result


def prepare(settings: Settings) -> PretrainFit:
    """What is fitted on what, before anything is computed."""
    own, index = settings.pretrain, index_of(settings)
    if index.modalities:
        raise DataError(f"{index.dataset} holds recordings, and pretrain takes pictures")
    teachers = teachers_of(settings, index)
    samples, dropped = pictures_of(index, teachers)
    if not samples["train"]:
        told = ", ".join(f"{n} {why}" for why, n in dropped.items()) or "the index has none"
        raise DataError(f"no picture of train to learn from ({told}): see `emocache prepare`")
    patches = (own.size // own.patch) ** 2
    source = PictureSource(settings.data.root, samples, own, own.size, patches, teachers)
    fit = PretrainFit(settings=own, index=index, source=source, teachers=teachers, dropped=dropped)
    if own.start is not None:
        fit.start = find(own.start, settings.weights)
    whole, count = _whole(samples["train"], index), len(samples["train"])
    if "person" not in own.without and whole:
        fit.warnings.append(
            f"in {whole:,} of {count:,} pictures of train the person's box is the whole picture: "
            "both streams see the same"
            + ("; pretrain.without=[person] spares the time" if whole == count else "")
        )
    return fit


def _whole(samples: list[Sample], index: Index) -> int:
    """Pictures of which every box is all of it."""
    widths, heights = (index.pictures[name].to_pylist() for name in ("width", "height"))

    def all_of_it(sample: Sample) -> bool:
        full = WHOLE * widths[sample.picture] * heights[sample.picture]
        return all(nobody or area(np.array(box)) >= full for box, nobody in sample.people)

    return sum(map(all_of_it, samples))


def _first(source: PictureSource, settings: Pretrain) -> range:
    return range(min(source.count("val"), settings.pictures))


def _some(source: PictureSource, settings: Pretrain) -> Any:
    """Training pictures, spread over all of them, as the first epoch crops them."""
    count = source.count("train")
    places = list(range(0, count, max(1, count // MEAN_OF)))
    batches = [places[at : at + settings.batch] for at in range(0, len(places), settings.batch)]
    return source.read("train", batches, 1)


def describe(fit: PretrainFit, student: Student, done: Course, here: World) -> dict[str, Any]:
    """What pretrain.json holds."""
    own, index = fit.settings, fit.index
    if fit.described("val") < 2:  # L2 is of texts beside each other
        for row in done.history:
            row.pop("val_similarity", None)
    last = done.history[-1]
    losses = [name for name in ("pixels", "similarity", "image") if name in last]
    facts, seen = fit.facts(student, done, here), fit.seen(done)
    name = (
        f"UniEmoX ViT-{own.encoder} {own.size}/{own.patch}, {len(done.history)} "
        f"epoch{'' if len(done.history) == 1 else 's'} on {seen['train']:,} pictures of "
        f"{index.dataset} ({' + '.join(losses)})"
    )
    if untrained := facts["untrained"]:
        name += f", teachers UNTRAINED, random weights: {', '.join(untrained)}"
    return plain(
        {
            "name": name,
            **facts,
            "index": index.digest(),
            "keys": dict(fit.teachers.keys),
            "fusion": own.fusion if fit.teachers.width and "person" not in own.without else None,
            "losses": losses,
            "pictures": seen,
            "described": None
            if fit.teachers.described is None
            else {split: fit.described(split) for split in seen},
            "teachers": fit.teachers.settings,
            "start": None if fit.start is None else weights_in_words(fit.start.facts()),
            "last": last,
        }
    )


def held_out(
    fit: PretrainFit, student: Student, settings: Evaluate, here: World
) -> dict[str, dict[str, float]]:
    """The pixel error of hidden patches over the held-out pictures, and what share it is of that of
    the mean training picture and of that of the mean visible colour, each with an interval by
    bootstrap over pictures; {} without a decoder or held-out pictures."""
    parts, rows = [], []
    for pictures in fit.source.all("val", fit.settings.batch):
        if len(pictures) and (found := student.errors(pictures.to(here.device))):
            parts.append(np.stack([value.cpu().numpy() for value in found.values()], axis=1))
            rows.append(pictures.row.numpy())
    if not parts:
        return {}
    own, mean, visible = np.concatenate(parts).astype(np.float64).T
    ones = np.ones_like(own)
    # A mean of ratios weighted by what stands below is the ratio of the means.
    drawn = bootstrap_mean(
        np.stack([own, own / mean, own / visible], axis=1),
        np.concatenate(rows),
        np.stack([ones, mean, visible], axis=1),
        settings.bootstrap,
        settings.confidence,
        settings.seed,
        np.inf,
    )
    names = ("pixels", "of_mean_picture", "of_visible")
    return {
        name: dict(zip(("value", "low", "high"), drawn.interval(column), strict=True))
        | {"n": len(own)}
        for column, name in enumerate(names)
    }


def in_words(result: Mapping[str, Any]) -> list[str]:
    """The outcome in sentences."""
    last, pictures = result["last"], result["pictures"]
    losses = ", ".join(f"{name} {last[name]:.4f}" for name in result["losses"])
    said = [f"{result['name']}: loss {last['loss']:.4f} on train ({losses})"]
    told = [
        f"{name} {last[f'val_{name}']:.4f}" if f"val_{name}" in last else f"{name} not measured"
        for name in result["losses"]
    ]
    if "val_loss" in last:
        said.append(f"held out, N {pictures['val']:,}: {', '.join(told)}")
    if held := result["held_out"]:
        own = held["pixels"]
        said.append(
            f"pixel error of hidden patches: {own['value']:.4f} "
            f"({between(own['low'], own['high'], partial(number, digits=4))}), N {own['n']:,}"
        )
        for name, guess in (
            ("of_mean_picture", "the mean training picture"),
            ("of_visible", "the mean colour of the visible patches"),
        ):
            one = held[name]
            ends = between(one["low"], one["high"], percent)
            said.append(
                f"that is {percent(one['value'])} ({ends}) of that of {guess}, N {one['n']:,}"
            )
    lost = f", {len(result['lost']):,} could not be read" if result["lost"] else ""
    said.append(
        f"N train {pictures['train']:,}, dropped {sum(result['dropped'].values()):,}{lost}; seed "
        f"{result['seed']}, cache key {result['cache_key'][:12]}"
    )
    return said


def _write(
    settings: Settings,
    out: Path,
    fit: PretrainFit,
    student: Student,
    result: dict[str, Any],
    history: list[Row],
) -> None:
    from pipelines.uniemox.looking import looks_of_student
    from pipelines.uniemox.page import pretrained

    about = {
        name: result[name]
        for name in ("name", "dataset", "note", "cache_key", "seed", "losses", "weights")
    }
    save_encoder(student, out / "uniemox", about)
    state = {name: value.cpu().contiguous() for name, value in student.state_dict().items()}
    write_atomic(out / "student.safetensors", save(state))
    columns = [name for name in history[-1] if isinstance(history[-1][name], int | float)]
    write_csv(out / "curves.csv", columns, history)
    write_json(out / "pretrain.json", result)
    looks = looks_of_student(settings, fit.index, fit.source, student, out)
    pretrained(out, result, history, looks)
    Results(out).resume.unlink(missing_ok=True)


def _png(picture: Image.Image) -> bytes:
    held = BytesIO()
    picture.save(held, "PNG")
    return held.getvalue()
