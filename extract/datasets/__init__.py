"""Data sets: one reader each, from the annotation as published to picture and person records.

A reader is a `Dataset` with a name in the registry:

    @dataset("mine")
    class Mine(Dataset): ...

in a file `mine.py` here. `get_dataset("mine")` finds it by the name of the file.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cache.boxes import Box
from cache.errors import DataError
from cache.registry import Registry

NAN = float("nan")


@dataclass(frozen=True, eq=False)
class PersonRecord:
    """One annotated person.

    box: x1, y1, x2, y2 in pixels as annotated, possibly leaving the picture; four NaN where the
    annotation has no box. labels: (C,) float32. annotators: how many gave labels; 0 means that
    the person has none, and that the zeros in `labels` are no answer. votes: (C,) int16, how many
    of the annotators gave each label, or None where that is not published. vad: valence, arousal,
    dominance, NaN where absent. status and reason: only where the reader itself finds a fault.
    """

    box: Box
    split: str
    labels: np.ndarray
    votes: np.ndarray | None = None
    annotators: int = 1
    vad: tuple[float, float, float] = (NAN, NAN, NAN)
    gender: str = ""
    age: str = ""
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True, eq=False)
class PictureRecord:
    """One picture and its persons.

    path: relative to the data root, with forward slashes. split: of the picture where it has no
    persons; persons carry their own. source: the collection it came from. width, height: as the
    annotation states them, or None.
    """

    path: str
    split: str
    source: str
    width: int | None
    height: int | None
    persons: list[PersonRecord]

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.path)
        if parts.is_absolute() or ".." in parts.parts or "\0" in self.path or not parts.name:
            raise DataError(f"the annotation names {self.path!r}, which is not below data.root")


class Dataset(ABC):
    """A data set below `root`. Subclasses set `labels`, `definitions` and `note`, and read.

    labels: the C names, in the order of every label vector. definitions: label to the sentence
    that a text network reads. note: what must be said beside every result. counts: oddities of
    the annotation by name, filled while `records` is read.
    """

    name: str
    labels: tuple[str, ...]
    definitions: dict[str, str]
    note: str

    def __init__(self, root: Path) -> None:
        self.root = Path(root).expanduser()
        self.counts: Counter[str] = Counter()
        if not self.root.is_dir():
            raise DataError(
                f"there is no folder {self.root}: set data.root to the {self.name} data"
            )

    @abstractmethod
    def records(self) -> Iterator[PictureRecord]:
        """Every picture, each path once, in an order that depends on the annotation alone."""


readers: Registry[type[Dataset]] = Registry("extract.datasets", "data.name")
names = readers.names
get_dataset = readers.get


def dataset(name: str) -> Callable[[type[Dataset]], type[Dataset]]:
    """Class decorator: the reader answers to `name`, which `data.name` takes."""

    def register(reader: type[Dataset]) -> type[Dataset]:
        reader.name = name
        return readers.add(name)(reader)

    return register
