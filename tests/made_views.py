"""A small data set of made pictures, its index, and views whose numbers can be checked by hand."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from PIL import Image

from cache.boxes import WHOLE
from cache.files import sha256_file
from cache.index import PERSONS, PICTURES, Index, person_id
from cache.spec import ArraySpec, Row, ViewSpec
from extract import images
from extract.datasets import Dataset, PersonRecord, PictureRecord
from extract.views import View

Box = tuple[float, float, float, float]
LABELS = ("calm", "alarm")


def draw(path: Path, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    """A PNG of blocks of random colours, 10 pixels a side: width x height."""
    blocks = np.random.default_rng(seed).integers(0, 256, (size[1] // 10, size[0] // 10, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(blocks.astype(np.uint8).repeat(10, 0).repeat(10, 1)).save(path)


def index_of(
    folder: Path,
    people: dict[str, Sequence[Box]],
    status: dict[int, str] | None = None,
    labels: Sequence[str] = LABELS,
) -> Index:
    """An index of the pictures in `people` (path -> boxes); `status` by person row, else ok."""
    pictures, persons = [], []
    for row, (path, boxes) in enumerate(people.items()):
        identity = sha256_file(folder / path)
        with Image.open(folder / path) as image:
            width, height = image.size
        facts = (identity, path, width, height, "train", "made", "", "", "ok", "")
        pictures.append(dict(zip(PICTURES.names, facts, strict=True)))
        for box in boxes:
            word = (status or {}).get(len(persons), "ok")
            nan = float("nan")
            facts = (person_id(identity, box), row, *box, "annotated", None, "train")
            facts = (*facts, [0.0] * len(labels), 1, None)
            facts = (*facts, nan, nan, nan, "", "", word, "")
            persons.append(dict(zip(PERSONS.names, facts, strict=True)))
    tables = (
        pa.Table.from_pylist(rows, schema)
        for rows, schema in ((pictures, PICTURES), (persons, PERSONS))
    )
    return Index("made", "", tuple(labels), *tables)


def many(folder: Path, pictures: int) -> dict[str, list[Box]]:
    """Pictures with 0 to 2 persons each (1, 2, 0, 1, 2, 0 ...), drawn below `folder`."""
    people = {}
    for number in range(pictures):
        path = f"p/{number:03d}.png"
        draw(folder / path, number)
        boxes = [(0.0, 0.0, 10.0 + number % 20, 20.0), (15.5, 5.0, 38.0, 29.5)]
        people[path] = boxes[: (number + 1) % 3]
    return people


class Made(View):
    """A view without networks. `calls` holds how many subjects each call had; `pause` makes a
    subject last that many seconds."""

    def __init__(self, version: int = 1, pause: float = 0.0):
        super().__init__(None, "float32")
        self.version, self.pause = version, pause
        self.calls: list[int] = []

    def network_names(self):
        return []

    def parts(self, networks):
        return {"view": self.name, "version": self.version}

    def spec(self, networks):
        return ViewSpec(self.name, self.space, self.arrays(networks), self.parts(networks))

    def arrays(self, networks):
        return {"features": ArraySpec((3,), self.dtype)}

    def compute(self, subjects, networks):
        self.calls.append(len(subjects))
        time.sleep(self.pause * len(subjects))
        return [self.row(subject) for subject in subjects]


class Colour(Made):
    """Mean colour of each person's box."""

    name, space = "colour", "persons"

    def row(self, subject):
        return Row("ok", {"features": images.crop(subject.pixels, subject.box).mean((0, 1))})


class Area(Made):
    """Width and height of each person's box; boxes under 15 pixels wide have "no_face"."""

    name, space = "area", "persons"

    def arrays(self, networks):
        return {"features": ArraySpec((2,), self.dtype)}

    def row(self, subject):
        x1, y1, x2, y2 = subject.box
        sides = np.array((x2 - x1, y2 - y1))
        return Row("ok", {"features": sides}) if x2 - x1 >= 15 else Row("no_face")


class Whole(Made):
    """Mean colour of each whole picture."""

    name, space = "whole", "pictures"

    def row(self, subject):
        assert subject.box == WHOLE
        return Row("ok", {"features": subject.pixels.mean((0, 1))})


class Letters(Made):
    """How many letters a label's definition has."""

    name, space = "labels", "labels"

    def arrays(self, networks):
        return {"features": ArraySpec((1,), self.dtype)}

    def row(self, subject):
        return Row("ok", {"features": np.array([len(subject)])})


def made_views(pause: float = 0.0, **versions: int) -> dict[str, View]:
    classes = (Colour, Area, Whole, Letters)
    return {cls.name: cls(versions.get(cls.name, 1), pause) for cls in classes}


class MadeData(Dataset):
    """A data set that says its persons in `people.json`: path -> boxes."""

    name, note = "made", ""
    labels = LABELS
    definitions: ClassVar = {"calm": "at peace", "alarm": "afraid of something"}

    def records(self):
        for path, boxes in json.loads((self.root / "people.json").read_text()).items():
            persons = [PersonRecord(tuple(box), "train", np.zeros(2, np.float32)) for box in boxes]
            yield PictureRecord(path, "train", "made", None, None, persons)
