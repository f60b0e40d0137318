"""The pictures that UniEmoX is fitted on: who is in them from the index, what the teachers say from
the cache, the pixels from the data set."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from cache.boxes import Box
from cache.errors import CacheError, DataError, KeyMismatch, SettingsError
from cache.index import SPLITS, Index
from cache.paths import view_names
from cache.statuses import WORDS
from cache.store import StoredView, open_view
from extract import images
from extract.teachers import random_crop
from pipelines.settings import Settings
from pipelines.workplace import views_of
from train.uniemox.pictures import Pictures, Split
from train.uniemox.settings import Finetune, Pretrain

HELD_OUT = 0  # in place of the epoch, of pictures of which nothing but the noise is drawn


@dataclass(frozen=True)
class Sample:
    """One picture. row: its own in the index, or that of its person where each is one; people:
    boxes of which one is drawn, and whether it stands for nobody found."""

    row: int
    picture: int
    path: str
    id: str
    people: Sequence[tuple[Box, bool]]
    target: np.ndarray | None = None


@dataclass(frozen=True)
class Teachers:
    """What the cache holds of the teachers, by row of the picture.

    image (M, n, D): of n views of each picture; crop (M, n, 4) in pixels and flip (M, n): which;
    text (M, D); described (M,): whether there was anything to tell. usable (M,): whether all of it
    is there. An absent teacher is None. about: by view, key and weights.
    """

    image: np.ndarray | None = None
    crop: np.ndarray | None = None
    flip: np.ndarray | None = None
    text: np.ndarray | None = None
    described: np.ndarray | None = None
    usable: np.ndarray | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    cropped: bool = False  # whether the student has to see what the teacher saw
    keys: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # that they were made by
    weights: Sequence[Mapping[str, Any]] = ()

    @property
    def width(self) -> int | None:
        """D, of both."""
        for values in (self.image, self.text):
            if values is not None:
                return int(values.shape[-1])
        return None


def teachers_of(all_settings: Settings, index: Index) -> Teachers:
    """Those that the losses of `pretrain` need. Raises CacheError where the cache lacks one,
    KeyMismatch where it was made by other settings than these, and SettingsError where image and
    text are of different widths."""
    root, settings = all_settings.cache.root, all_settings.pretrain
    image = {"similarity", "image"} - set(settings.without)
    text = "similarity" not in settings.without
    wanted = [*(["teacher_image"] if image else []), *(["teacher_text"] if text else [])]
    here = view_names(root)
    if missing := [name for name in wanted if name not in here]:
        losses = ", ".join(sorted(image))
        raise CacheError(
            f"{root} has no {' and no '.join(missing)}: set "
            f"{' and '.join(f'views.{name}.network' for name in missing)} and run `emocache "
            f"extract`, or leave the losses out with pretrain.without=[{losses}]"
        )
    views = {name: open_view(root, name) for name in wanted}
    _same_settings(views, all_settings, index)
    count = len(index.pictures)
    usable = np.ones(count, bool)
    reasons: dict[int, str] = {}
    for name, view in views.items():
        done = _padded(view.done, count)
        status = _padded(view.status, count)
        good = done & np.isin(status, _codes("ok", "no_text"))
        for row in np.flatnonzero(usable & ~good).tolist():
            why = WORDS[int(status[row])] if done[row] else "not extracted"
            reasons[row] = f"{name}: {why}"
        usable &= good
    found: dict[str, Any] = {}
    if image:
        view = views["teacher_image"]
        found = {
            "image": _read(view, "features", count),
            "crop": _read(view, "crop", count),
            "flip": _read(view, "flip", count),
            "cropped": view.spec.parts["settings"]["crops"] > 0,
        }
    if text:
        view = views["teacher_text"]
        found["text"] = _read(view, "features", count)
        found["described"] = _padded(view.status, count) == _codes("ok")[0]
    teachers = Teachers(
        **found,
        usable=usable,
        reasons=reasons,
        keys={name: view.key for name, view in views.items()},
        settings={name: dict(view.spec.parts["settings"]) for name, view in views.items()},
        weights=[one for view in views.values() for one in view.spec.weights],
    )
    if teachers.image is not None and teachers.text is not None:
        _same_width(teachers.image.shape[-1], teachers.text.shape[-1], views)
    if teachers.described is not None and not teachers.described[usable].any():
        raise DataError(
            "no picture has a description: its data set gives neither attributes nor a label that "
            "views.teacher_text.attributes names; leave the loss out with "
            "pretrain.without=[similarity]"
        )
    return teachers


def _same_settings(views: Mapping[str, StoredView], settings: Settings, index: Index) -> None:
    """Weights are not sought for this: who was given the cache need not have them."""
    asked = views_of(settings, index)
    for name, view in views.items():
        if name not in asked:  # its network is null: what is there is meant
            continue
        known = view.spec.parts["settings"]
        wanted = asked[name].settings.model_dump(mode="json")
        differ = [key for key in known if key in wanted and known[key] != wanted[key]]
        if differ:
            told = ", ".join(f"{key} {known[key]} there, {wanted[key]} here" for key in differ)
            raise KeyMismatch(
                f"the view {name} in {settings.cache.root} was made by other settings than "
                f"views.{name} has ({told}): run `emocache extract`, or set them as they were"
            )
        if view.spec.parts.get("descriptions", "") != getattr(asked[name], "digest", ""):
            raise KeyMismatch(
                f"attributes, labels or splits have changed since the view {name} was made: run "
                "`emocache extract`"
            )


def _same_width(image: int, text: int, views: Mapping[str, StoredView]) -> None:
    if image != text:
        names = [view.spec.weights[0]["network"] for view in views.values()]
        raise SettingsError(
            f"the teachers {names[0]} and {names[1]} speak of vectors {image} and {text} wide, "
            "which cannot be compared: set views.teacher_image.network and "
            "views.teacher_text.network to one CLIP, or pretrain.without=[similarity]"
        )


def _codes(*words: str) -> list[int]:
    return [code for code, word in WORDS.items() if word in words]


def _padded(values: np.ndarray, count: int) -> np.ndarray:
    """The rows of an index of `count` pictures: a view may be shorter than it has grown."""
    full = np.zeros((count, *values.shape[1:]), values.dtype)
    full[: len(values)] = values[:count]
    return full


def _read(view: StoredView, array: str, count: int) -> np.ndarray:
    return _padded(view.read(array), count)


def pictures_of(
    index: Index, teachers: Teachers, splits: Sequence[str] = ("train", "val")
) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """A sample a picture: train has every one with a person of train, val the others with a person
    of val. And what was left out, by reason."""
    people: dict[str, dict[int, list[tuple[Box, bool]]]] = {split: {} for split in splits}
    nobody = [origin == "whole" for origin in index.persons["origin"].to_pylist()]
    dropped: Counter[str] = Counter()
    for row in index.wanted("persons").tolist():
        split = str(index.splits[row])
        if split in people:
            box = tuple(index.boxes[row].tolist())
            one = box, nobody[row]
            people[split].setdefault(int(index.picture_rows[row]), []).append(one)
    both = set(people[splits[0]])
    for split in splits[1:]:
        shared = both & set(people[split])
        if shared:
            dropped[f"{split}: also in {splits[0]}"] += len(shared)
        people[split] = {p: some for p, some in people[split].items() if p not in shared}
        both |= set(people[split])
    paths, ids = (index.pictures[name].to_pylist() for name in ("path", "id"))
    samples: dict[str, list[Sample]] = {}
    for split in splits:
        samples[split] = []
        for picture, some in sorted(people[split].items()):
            if teachers.usable is not None and not teachers.usable[picture]:
                dropped[f"{split}: {teachers.reasons[picture]}"] += 1
                continue
            samples[split].append(Sample(picture, picture, paths[picture], ids[picture], some))
    return samples, dropped


def persons_of(index: Index) -> tuple[dict[str, list[Sample]], Counter[str]]:
    """A sample a person, with its label vector; and who was left out, by reason."""
    paths, ids = (index.pictures[name].to_pylist() for name in ("path", "id"))
    nobody = [origin == "whole" for origin in index.persons["origin"].to_pylist()]
    samples: dict[str, list[Sample]] = {split: [] for split in SPLITS}
    dropped: Counter[str] = Counter()
    for row, (split, status) in enumerate(zip(index.splits, index.person_status, strict=True)):
        if split not in samples or status == "removed":
            continue
        if status != "ok":
            dropped[f"{split}: {status}"] += 1
            continue
        picture, box = int(index.picture_rows[row]), index.boxes[row].tolist()
        samples[split].append(
            Sample(
                row,
                picture,
                paths[picture],
                ids[picture],
                [((box[0], box[1], box[2], box[3]), nobody[row])],
                index.targets[row],
            )
        )
    return samples, dropped


@dataclass(frozen=True)
class _Lost:
    row: int
    reason: str


class PictureSource(Dataset[dict[str, Any] | _Lost]):
    """A `train.uniemox.pictures.Source` that reads the pictures of a data set below `root`.

    settings: how a picture is cut. size: of the squares; patches: of each. Of train a picture is
    cropped and mirrored at random, both streams to the same side.
    """

    def __init__(
        self,
        root: Path,
        samples: Mapping[str, Sequence[Sample]],
        settings: Pretrain | Finetune,
        size: int,
        patches: int,
        teachers: Teachers | None = None,
    ):
        if not root.expanduser().is_dir():
            raise DataError(f"there is no folder {root}: set data.root to where the pictures are")
        self.root, self.samples, self.settings = root.expanduser(), samples, settings
        self.size, self.patches, self.teachers = size, patches, teachers or Teachers()

    def count(self, split: Split) -> int:
        """How many pictures a split has."""
        return len(self.samples.get(split, ()))

    def all(self, split: Split, batch: int) -> Iterator[Pictures]:
        """Every picture of a held-out split, in order."""
        count = self.count(split)
        return self.read(split, [range(n, min(n + batch, count)) for n in range(0, count, batch)])

    def read(
        self, split: Split, batches: Sequence[Sequence[int]], epoch: int = HELD_OUT
    ) -> Iterator[Pictures]:
        """See `Source`."""
        if not batches:
            return
        keys = [[(split, place, epoch) for place in batch] for batch in batches]
        readers = min(self.settings.readers, len(batches))
        # Forked, so that nothing is sent to the readers; they never touch the device.
        yield from DataLoader(
            self,
            batch_sampler=keys,
            num_workers=readers,
            collate_fn=_batch,
            prefetch_factor=4 if readers else None,
            multiprocessing_context="fork" if readers else None,
        )

    def __getitem__(self, key: tuple[str, int, int]) -> dict[str, Any] | _Lost:
        """One picture of (split, place, epoch), in whichever process reads it."""
        split, place, epoch = key
        sample = self.samples[split][place]
        try:
            picture = images.read(self.root / sample.path)
        except images.PictureError as error:
            return _Lost(sample.row, error.reason)
        if picture.id != sample.id:
            return _Lost(sample.row, "the file has changed since `emocache prepare`")
        train = split == "train"
        draw = np.random.default_rng([self.settings.seed, epoch if train else HELD_OUT, sample.row])
        noise = draw.random((2, self.patches), np.float32)
        whole = (0.0, 0.0, float(picture.width), float(picture.height))
        box, nobody = sample.people[int(draw.integers(len(sample.people))) if train else 0]
        scene, person, flip, seen = whole, box, False, 0
        if train:
            scene, flip, seen = self._scene(sample.picture, whole, draw)
            person = random_crop(box, self.settings.person_crop, draw)
        return {
            "scene": self._square(picture.pixels, scene, flip),
            "person": self._square(picture.pixels, person, flip),
            "noise": noise,
            "whole": nobody,
            "row": sample.row,
            **self._said(sample.picture, seen),
            **({} if sample.target is None else {"target": sample.target}),
        }

    def _scene(self, picture: int, whole: Box, draw: np.random.Generator) -> tuple[Box, bool, int]:
        """What the scene shows, whether mirrored, and the number of the teacher's view of it."""
        teachers = self.teachers
        if teachers.cropped and teachers.crop is not None and teachers.flip is not None:
            seen = int(draw.integers(teachers.crop.shape[1]))
            x1, y1, x2, y2 = teachers.crop[picture, seen].tolist()
            return (x1, y1, x2, y2), bool(teachers.flip[picture, seen]), seen
        crop = random_crop(whole, self.settings.crop, draw)
        return crop, self.settings.flip and bool(draw.integers(2)), 0

    def _square(self, pixels: np.ndarray, box: Box, flip: bool) -> np.ndarray:
        """(3, S, S)"""
        square = images.resize(images.crop(pixels, box), self.size)
        if flip:
            square = square[:, ::-1]
        return np.ascontiguousarray(square.transpose(2, 0, 1))

    def _said(self, picture: int, seen: int) -> dict[str, Any]:
        teachers, said = self.teachers, dict[str, Any]()
        if teachers.image is not None:
            said["image"] = teachers.image[picture, seen].astype(np.float32)
        if teachers.text is not None and teachers.described is not None:
            said["text"] = teachers.text[picture].astype(np.float32)
            said["described"] = bool(teachers.described[picture])
        return said


def _batch(items: Sequence[dict[str, Any] | _Lost]) -> Pictures:
    lost = {item.row: item.reason for item in items if isinstance(item, _Lost)}
    good = [item for item in items if not isinstance(item, _Lost)]
    if not good:
        return nothing(lost)
    stacked = {
        name: torch.from_numpy(np.stack([np.asarray(item[name]) for item in good]))
        for name in good[0]
    }
    return Pictures(**stacked, lost=lost)


def nothing(lost: Mapping[int, str]) -> Pictures:
    """A batch of which no picture could be read."""
    none = torch.zeros((0, 3, 1, 1), dtype=torch.uint8)
    return Pictures(
        none,
        none,
        torch.zeros((0, 2, 1)),
        torch.zeros(0, dtype=torch.bool),
        torch.zeros(0, dtype=torch.long),
        lost=lost,
    )
