"""Pictures of one's own: a table of persons, `persons.csv` or `persons.jsonl`, a line each.

`Line` is the form, and docs/persons.schema.json the same as a JSON Schema. In the CSV a box is the
columns x1, y1, x2, y2, a face face_x1 ..., labels are separated by `;` (`joy; surprise`) or shares
(`joy=0.7; surprise=0.3`), and an empty cell says nothing. Without a box `prepare` looks for the
person. A picture of several persons has several lines. Labels are the names in use in alphabetical
order, or as `labels.yaml` in the root has them, with their definitions.

Every fault is told with its line: unknown columns and labels, paths out of the root, ids that stand
twice. A box that is no box is a row with a reason, as in every data set.
"""

import csv
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.boxes import NO_BOX
from cache.errors import FEW, DataError, did_you_mean, in_few
from extract.datasets import NAN, Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import (
    Gathering,
    LabelNames,
    finite,
    kind_of,
    lines_of,
    names_in_use,
    target_of,
)
from extract.definitions import read
from extract.images import is_below

NAMES = ("persons.csv", "persons.jsonl")
SIDES = ("x1", "y1", "x2", "y2")
Sides = Annotated[list[float], Field(min_length=4, max_length=4)]
Rating = Annotated[float, Field(allow_inf_nan=False)]
Pixels = Annotated[int, Field(ge=1, le=2**31 - 1)]
Label = Annotated[str, Field(pattern=r"\S")]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(max_length=1000)]  # a limit also refuses halves of characters


class Line(BaseModel):
    """One person. Boxes are x1, y1, x2, y2 in pixels of the upright picture; x2 and y2 are the
    first column and row outside."""

    model_config = ConfigDict(extra="forbid", title="A person, a line of persons.jsonl")

    path: str = Field(min_length=1, description="the picture, from data.root")
    labels: list[Label] | dict[Label, Share] = Field(
        description="the names of the labels; or shares that sum to 1, by name"
    )
    box: Sides | None = Field(None, description="the person; null: they are looked for")
    face: Sides | None = Field(None, description="their face, where it is known")
    split: Literal["train", "val", "test"] | None = Field(
        None, description="in every line or in none; none: splits are drawn, see data.split"
    )
    group: Text = Field("", description="film, subject or video, which no two splits share")
    id: str | None = Field(None, description="of your own; no two lines have the same")
    width: Pixels | None = Field(None, description="of the picture that boxes were drawn in")
    height: Pixels | None = Field(None, description="of the picture that boxes were drawn in")
    valence: Rating | None = None
    arousal: Rating | None = None
    dominance: Rating | None = None
    gender: Text = ""
    age: Text = ""
    attributes: dict[str, Any] = Field({}, description="what else is known of the picture")


@dataclass
class _Picture:
    """The lines of one picture."""

    group: str
    size: tuple[int, int] | None
    attributes: dict[str, Any]
    persons: list[tuple[Line, str]] = field(default_factory=list)


@dataset("persons")
class Persons(Dataset):
    """A table of persons. Raises `Faults` with every line that is wrong."""

    choosable = True

    def __init__(self, root: Path, file: Path | None = None) -> None:
        super().__init__(root)
        self._file = _the_file(self.root, file)
        self._faults = Gathering()
        self._pictures: dict[str, _Picture] = {}
        self._gather()
        lines = [line for one in self._pictures.values() for line, _ in one.persons]
        splits = {line.split for line in lines}
        if None in splits and len(splits) > 1:
            without = sum(line.split is None for line in lines)
            self._faults.add(
                f"{self._file}: {without} of {len(lines)} lines have no split: give it in every "
                "line, or in none and have splits drawn"
            )
        self._faults.stop()
        self.splits = tuple(s for s in ("train", "val", "test") if s in splits)
        every = [line.labels for line in lines]
        own = self.root / "labels.yaml"
        names = names_in_use(name for answers in every for name in answers)
        self.definitions = read(own) if own.is_file() else {name: name for name in names}
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts)
        self.kind = kind_of(every)
        self.note = f"own pictures, {self._file.name}"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order of their first lines."""
        for path, one in self._pictures.items():
            persons = [self._person(line, where) for line, where in one.persons]
            width, height = one.size or (None, None)
            split = persons[0].split
            yield PictureRecord(
                path, split, "own", width, height, persons, one.group, one.attributes
            )
        self._faults.stop()

    def _person(self, line: Line, where: str) -> PersonRecord:
        labels = np.zeros(len(self.labels), np.float32)
        try:
            labels = target_of(line.labels, self._names, self.kind, where)
        except DataError as error:
            self._faults.add(str(error))
        status, reason = "ok", ""
        if not labels.any():
            status, reason = "unlabelled", "no labels"
        box = None if line.box is None else finite(line.box) or NO_BOX
        if box is NO_BOX:
            status, reason = "bad_box", "the box is not four numbers"
        rated = (line.valence, line.arousal, line.dominance)
        v, a, d = (NAN if value is None else value for value in rated)
        return PersonRecord(
            box,
            line.split or "",
            labels,
            None,
            int(labels.any()),
            (v, a, d),
            line.gender,
            line.age,
            status,
            reason,
            None if line.face is None else finite(line.face) or NO_BOX,
        )

    def _gather(self) -> None:
        """Every line that is sound, by picture, and what is wrong with the others."""
        ids: dict[str, str] = {}
        reading = _csv_lines if self._file.suffix == ".csv" else _json_lines
        for given, where in reading(self._file, self._faults):
            line = self._sound(given, where)
            if line is None:
                continue
            if line.id is not None and ids.setdefault(line.id, where) != where:
                self._faults.add(f"{where}: the id {line.id!r} is that of {ids[line.id]}")
                continue
            size = (line.width, line.height) if line.width and line.height else None
            one = self._pictures.setdefault(line.path, _Picture(line.group, size, line.attributes))
            if (one.group, one.size) != (line.group, size):
                self._faults.add(f"{where}: group or size is not that of the picture's other lines")
            one.persons.append((line, where))
        boxes = [line.box for one in self._pictures.values() for line, _ in one.persons if line.box]
        if boxes and all(0 <= side <= 1 for box in boxes for side in box):
            self._faults.add(
                f"every box of {self._file} lies between 0 and 1: boxes are in pixels, so multiply "
                "x by the picture's width and y by its height"
            )
        if not self._pictures and not self._faults.count:
            raise DataError(f"{self._file} has no lines: see data.file")

    def _sound(self, given: Any, where: str) -> Line | None:
        try:
            line = Line.model_validate(given)
        except ValidationError as error:
            for part in error.errors(include_url=False):
                if _of_the_form(part, given):
                    self._faults.add(f"{where}: {_said(part)}")
            return None
        line.path = line.path.replace("\\", "/")
        if not is_below(line.path):
            self._faults.add(f"{where}: the path {line.path!r} is {self._misplaced(line.path)}")
            return None
        return line

    def _misplaced(self, path: str) -> str:
        """What is wrong with a path that is not one below the root; told by its words alone."""
        there = Path(os.path.normpath(path))  # absolute, or it is below neither
        for root in (self.root.absolute(), self.root.resolve()):
            if there.is_relative_to(root) and is_below(short := str(there.relative_to(root))):
                return f"absolute: write paths from data.root: {short!r}"
        return "not below data.root"


def _the_file(root: Path, file: Path | None) -> Path:
    if file is not None:
        there = is_below(file.as_posix()) and (root / file).is_file()
        if not there or file.suffix not in (".csv", ".jsonl"):
            raise DataError(f"{root / file} is no .csv or .jsonl file: see data.file")
        return root / file
    found = [root / name for name in NAMES if (root / name).is_file()]
    if len(found) != 1:
        many = f"both {' and '.join(NAMES)}: name one in data.file"
        none = f"neither {' nor '.join(NAMES)}: set data.root or data.file"
        raise DataError(f"{root} has {many if found else none}")
    return found[0]


def _json_lines(file: Path, faults: Gathering) -> Iterator[tuple[Any, str]]:
    for number, text in enumerate(lines_of(file), 1):
        where = f"{file.name}, line {number}"
        if not text.strip():
            continue
        try:
            yield json.loads(text), where
        except (ValueError, RecursionError) as error:
            faults.add(f"{where}: no JSON ({error})")


def _csv_lines(file: Path, faults: Gathering) -> Iterator[tuple[Any, str]]:
    rows = csv.reader(lines_of(file), skipinitialspace=True, strict=True)
    try:
        header = [cell.strip() for cell in next(rows, [])]
        twice = {name for name in header if header.count(name) > 1}
        if twice:
            raise DataError(f"{file.name}, line 1: the column {min(twice)!r} stands twice")
        missing = [name for name in ("path", "labels") if name not in header]
        if missing:
            raise DataError(f"{file.name}, line 1: {_without(missing, header)}")
        for row in rows:
            where = f"{file.name}, line {rows.line_num}"
            if len(row) > len(header):
                faults.add(f"{where}: {len(row)} cells, and the header has {len(header)} columns")
            elif row:
                yield (
                    _of_cells(dict(zip(header, (cell.strip() for cell in row), strict=False))),
                    where,
                )
    except csv.Error as error:
        faults.add(f"{file.name}, line {rows.line_num}: no CSV ({error})")


def _without(missing: list[str], header: list[str]) -> str:
    """The refusal of a header in which columns are missing."""
    some = len(missing) > 1
    needs = f"the table needs {'the columns' if some else 'a column'} {' and '.join(missing)}"
    if not any(header):
        return f"{needs}, and this line is empty"
    if any(sign in name for sign in ";\t" for name in header):
        return f"{needs}, and cells are separated by commas, not by semicolons or tabs"
    has = in_few(header, FEW)[:200]
    return f"{needs}; this file has {has}: rename or add {'them' if some else 'it'}"


def _of_cells(cells: dict[str, str]) -> dict[str, Any]:
    """A row of the CSV in the form of `Line`, which judges it."""
    given: dict[str, Any] = {name: text for name, text in cells.items() if text}
    for what, columns in (("box", SIDES), ("face", [f"face_{side}" for side in SIDES])):
        sides = [given.pop(column, None) for column in columns]
        if any(side is not None for side in sides):
            given[what] = ["nan" if side is None else side for side in sides]
    words = [word.strip() for word in cells.get("labels", "").split(";") if word.strip()]
    pairs = [word.rpartition("=") for word in words]
    if any(equals for _, equals, _ in pairs):  # a share that is missing is no number
        given["labels"] = {(n if eq else s).strip(): s if eq else "" for n, eq, s in pairs}
    else:
        given["labels"] = words
    more = {n.partition(".")[2]: given.pop(n) for n in list(given) if n.startswith("attributes.")}
    return given | ({"attributes": more} if more else {})


def _of_the_form(error: Any, given: Any) -> bool:
    """Whether an error about labels is of the form that they have: pydantic tries names, then
    shares."""
    if len(error["loc"]) < 2 or error["loc"][0] != "labels":
        return True
    form = "dict[" if isinstance(given["labels"], dict) else "list["
    return str(error["loc"][1]).startswith(form)


def _said(error: Any) -> str:
    """One error of pydantic as a sentence about a line."""
    place = ".".join(
        str(part) for part in error["loc"] if not str(part).startswith(("list[", "dict["))
    )
    if error["type"] == "extra_forbidden":
        known = [*Line.model_fields, *SIDES]
        return f"the column {place!r} is unknown{did_you_mean(place, known)}"
    if error["type"] == "missing":
        return f"{place} is missing"
    if error["loc"] and error["loc"][0] in ("box", "face"):
        got = f"{error['input']!r:.60}"
        return f"{error['loc'][0]}: should be four numbers, x1, y1, x2, y2 (got {got})"
    if place == "labels":
        return f"labels: should be names, or shares by name (got {error['input']!r:.60})"
    what = error["msg"].replace("Input should", "should")
    return f"{place or 'the line'}: {what} (got {error['input']!r:.60})"


def schema() -> dict[str, Any]:
    """The form of a line as a JSON Schema."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Line.model_json_schema()}
