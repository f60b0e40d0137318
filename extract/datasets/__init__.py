"""Data sets: one reader each, from the annotation as published to picture and person records.

A reader is a `Dataset` with a name in the registry:

    @dataset("mine")
    class Mine(Dataset): ...

in a file `mine.py` here. `get_dataset("mine")` finds it by the name of the file. What readers share
stands in files whose names begin with `_`. How to write one: docs/data.md.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

import numpy as np

from cache.boxes import Box
from cache.errors import DataError, SettingsError
from cache.index import LabelKind
from cache.registry import Registry
from extract.signals.recording import Channels, Modality

NAN = float("nan")
TABLES = (".csv", ".txt", ".json", ".jsonl", ".yaml", ".mat")  # what annotation comes in


@dataclass(frozen=True, eq=False, slots=True)
class PersonRecord:
    """One annotated person.

    box: x1, y1, x2, y2 in pixels as annotated, possibly leaving the picture; four NaN where the
    annotation should have one and has not; None where the set has no boxes, and `prepare` looks for
    the person: about `face`, if that is given, a box like `box`. split: "" where the set has none.
    labels: (C,) float32, of the reader's `kind`. annotators: how many gave labels; 0 means that
    the person has none, and that the zeros in `labels` are no answer. votes: (C,) int16, how many
    of the annotators gave each label, or None where that is not published. vad: valence, arousal,
    dominance, NaN where absent. status and reason: only where the reader itself finds a fault.
    """

    box: Box | None
    split: str
    labels: np.ndarray
    votes: np.ndarray | None = None
    annotators: int = 1
    vad: tuple[float, float, float] = (NAN, NAN, NAN)
    gender: str = ""
    age: str = ""
    status: str = "ok"
    reason: str = ""
    face: Box | None = None


@dataclass(frozen=True, eq=False)
class PictureRecord:
    """One picture and its persons.

    path: relative to the data root, with forward slashes; one that would leave the root is kept and
    never read. split: of the picture where it has no persons; persons carry their own. source: the
    collection it came from. width, height: as the annotation states them, or None. group: what must
    not stand in two splits (film, subject, video), or "". attributes: what else the set says.
    """

    path: str
    split: str
    source: str
    width: int | None
    height: int | None
    persons: list[PersonRecord]
    group: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)


class Dataset(ABC):
    """A data set below `root`. Subclasses set `labels`, `definitions` and `note`, and read.

    labels: the C names, in the order of every label vector. definitions: label to the sentence that
    a text network reads. kind: what a label vector is: `multi`, any number of labels; `single`,
    one; `distribution`, shares that sum to 1; "": told by their values. splits: those that the set
    itself has; the others are drawn (`extract.splits`). note: what must be said beside every
    result. counts: oddities of the annotation by name, filled while `records` is read.

    A set of recordings has `modalities`, and `decode` in place of pictures. Its records are
    stretches of files, with the path `file#stretch`, a width (seconds, rounded up; rows of ready
    features), a height of 1 and the subject as group; its persons are windows, with the box (start,
    0, end, 1) in seconds. window: how long windows of raw signals are, and how far apart they
    begin, in seconds.
    """

    name: str
    labels: tuple[str, ...]
    definitions: dict[str, str]
    note: str
    kind: LabelKind | Literal[""] = ""
    splits: tuple[str, ...] = ("train", "val", "test")
    follow_links = False  # whether links may lead out of `root`: `data.follow_links`
    modalities: Mapping[str, Modality] = MappingProxyType({})
    window: tuple[float, float] = (60.0, 30.0)  # `data.window`
    decoding = 1  # version of `decode`: raise it when a channel's values change
    choosable = False  # whether `__init__` also takes the annotation below `root`, `data.file`

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser()
        self.counts: Counter[str] = Counter()
        if not self.root.is_dir():
            raise DataError(
                f"there is no folder {self.root}: set data.root to the {self.name} data"
            )

    @classmethod
    def decode(cls, data: bytes, stretch: str) -> Channels:
        """The channels of one stretch of a file, out of the file's bytes; for sets of recordings.
        Raises `extract.images.PictureError` for bytes that are none."""
        raise NotImplementedError(f"{cls.name} has no recordings")

    @abstractmethod
    def records(self) -> Iterator[PictureRecord]:
        """Every picture, each path once, in an order that depends on the annotation alone."""


readers: Registry[type[Dataset]] = Registry("extract.datasets", "data.name")
names = readers.names
get_dataset = readers.get


def open_dataset(
    name: str,
    root: Path,
    file: Path | None = None,
    follow_links: bool = False,
    window: tuple[float, float] = (60.0, 30.0),
) -> Dataset:
    """The data set `name` at `root`; file: its annotation, where there may be several; window: as
    in `Dataset`. Raises
    SettingsError for an unknown name, and for a file where the reader has no choice of them;
    DataError for a table that is a link out of `root`, unless `follow_links`."""
    reader: Callable[..., Dataset] = get_dataset(name)
    if file is not None and not get_dataset(name).choosable:
        raise SettingsError(f"data.file: {name} has no choice of files; leave it null")
    if not follow_links:
        _require_own_tables(Path(root).expanduser())
    found = reader(root) if file is None else reader(root, file)
    if found.kind not in ("", *get_args(LabelKind)):
        known = ", ".join(get_args(LabelKind))
        raise DataError(f"the reader {name} has the kind {found.kind!r}, which is none of {known}")
    found.follow_links, found.window = follow_links, window
    return found


def _require_own_tables(root: Path) -> None:
    """Pictures are looked at one by one (`extract.images.place`); tables are read by readers."""
    here = root.resolve()
    for place, _, names in os.walk(root):
        for name in names:
            path = Path(place) / name if name.lower().endswith(TABLES) else None
            if path and path.is_symlink() and not path.resolve().is_relative_to(here):
                raise DataError(
                    f"{path} is a link that leads out of data.root: it is not read; set "
                    "data.follow_links to true for data that you trust"
                )


def dataset(name: str) -> Callable[[type[Dataset]], type[Dataset]]:
    """Class decorator: the reader answers to `name`, which `data.name` takes."""

    def register(reader: type[Dataset]) -> type[Dataset]:
        reader.name = name
        return readers.add(name)(reader)

    return register
