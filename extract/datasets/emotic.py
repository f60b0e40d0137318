"""EMOTIC (Kosti et al.): persons in context, 26 categories and valence, arousal, dominance.

Two forms are read. The official `Annotations.mat` keeps every annotator's answer, so it gives
votes; the widespread CSV form (train.csv, val.csv, test.csv) keeps the combined labels only.
Pictures lie at <root>/<folder>/<filename> or <root>/emotic/<folder>/<filename>.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.boxes import NO_BOX
from cache.errors import DataError
from cache.index import SPLITS
from extract.datasets import NAN, Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import LabelNames, table
from extract.definitions import shipped


@dataclass
class _Raw:
    """One annotated picture of one split, before equal paths are joined."""

    path: str
    split: str
    source: str
    size: tuple[int, int] | None
    persons: list[PersonRecord] = field(default_factory=list)


@dataset("emotic")
class Emotic(Dataset):
    """EMOTIC in its official or its CSV form; `release` says which one was found."""

    kind = "multi"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.definitions = shipped("emotic")
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts)
        self._prefixes: dict[str, str] = {}
        mats = [self.root / "Annotations" / "Annotations.mat", self.root / "Annotations.mat"]
        self._mat = next((path for path in mats if path.is_file()), None)
        self._csvs = {
            s: self.root / f"{s}.csv" for s in SPLITS if (self.root / f"{s}.csv").is_file()
        }
        if self._mat is None and not self._csvs:
            raise DataError(
                f"{self.root} has neither Annotations/Annotations.mat nor train.csv, val.csv or "
                f"test.csv: set data.root to the folder of the {self.name} annotation"
            )
        self.release = "official Annotations.mat" if self._mat else "CSV release"
        self.note = f"EMOTIC, {self.release}"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order of train, val, test; one that two splits share comes once."""
        self.counts.clear()
        joined: dict[str, list[_Raw]] = {}
        for raw in self._read_mat() if self._mat else self._read_csvs():
            joined.setdefault(raw.path, []).append(raw)
        for path, raws in joined.items():
            sizes = list(dict.fromkeys(raw.size for raw in raws if raw.size))
            if len(sizes) > 1:
                self.counts["pictures annotated with two sizes"] += 1
            width, height = sizes[0] if sizes else (None, None)
            if not sizes:
                self.counts["pictures without an annotated size"] += 1
            persons = [person for raw in raws for person in raw.persons]
            yield PictureRecord(path, raws[0].split, raws[0].source, width, height, persons)

    # The official form

    def _read_mat(self) -> Iterator[_Raw]:
        from scipy.io import loadmat

        try:
            tables = loadmat(self._mat, simplify_cells=True, variable_names=SPLITS)
        except NotImplementedError as error:
            raise DataError(
                f"{self._mat} is a MATLAB 7.3 file: save it again with '-v7', or set data.root"
            ) from error
        except Exception as error:  # a damaged .mat raises whatever its bytes lead to
            raise DataError(
                f"{self._mat} is not a readable .mat file ({type(error).__name__}: {error}): "
                "set data.root to the EMOTIC annotation"
            ) from error
        if not any(split in tables for split in SPLITS):
            raise DataError(f"{self._mat} has none of train, val and test: see data.root")
        for split in SPLITS:
            if split not in tables:
                self.counts[f"split {split} absent"] += 1
            for number, image in enumerate(_structs(tables.get(split))):
                yield self._mat_picture(image, split, f"{self._mat}, {split}({number + 1})")

    def _mat_picture(self, image: dict[str, Any], split: str, where: str) -> _Raw:
        folder, filename = _text(image.get("folder")), _text(image.get("filename"))
        if not filename:
            raise DataError(f"{where} has no filename: see data.root")
        size = next(_structs(image.get("image_size")), {})
        width, height = _number(size.get("n_col")), _number(size.get("n_row"))
        known = width >= 1 and height >= 1  # false for NaN
        origin = next(_structs(image.get("original_database")), {})
        raw = _Raw(
            self._path(folder, filename),
            split,
            _text(origin.get("name")) or _source(folder),
            (int(width), int(height)) if known else None,
        )
        for number, person in enumerate(_structs(image.get("person"))):
            raw.persons.append(self._mat_person(person, split, f"{where}.person({number + 1})"))
        if not raw.persons:
            self.counts["pictures without persons"] += 1
        return raw

    def _mat_person(self, person: dict[str, Any], split: str, where: str) -> PersonRecord:
        answers = [
            self._names.vector(_texts(annotator.get("categories")), where)
            for annotator in _structs(person.get("annotations_categories"))
        ]
        answers = [answer for answer in answers if answer.any()]
        votes = np.stack(answers).sum(axis=0).astype(np.int16) if answers else None
        labels = self._names.vector(_texts(person.get("combined_categories")), where)
        if not labels.any() and votes is not None:
            # The training split has no combined labels; a combined label is one that anyone gave.
            labels = np.asarray(votes > 0, np.float32)
            if len(answers) > 1:
                self.counts["combined labels made from the annotators' labels"] += 1
        vad = self._vad(next(_structs(person.get("combined_continuous")), {}))
        if all(np.isnan(vad)):
            given = [
                self._vad(annotator) for annotator in _structs(person.get("annotations_continuous"))
            ]
            columns = [
                [v for v in column if not np.isnan(v)] for column in zip(*given, strict=True)
            ]
            means = [float(np.mean(column)) if column else NAN for column in columns]
            vad = (means[0], means[1], means[2]) if means else vad
        box = [_number(side) for side in _items(person.get("body_bbox"))]
        return self._person(
            tuple(box), split, labels, votes, len(answers) or int(labels.any()), vad,
            _text(person.get("gender")), _text(person.get("age")),
        )  # fmt: skip

    @staticmethod
    def _vad(scores: dict[str, Any]) -> tuple[float, float, float]:
        return (
            _number(scores.get("valence")),
            _number(scores.get("arousal")),
            _number(scores.get("dominance")),
        )

    # The CSV form

    def _read_csvs(self) -> Iterator[_Raw]:
        needed = {"Folder", "Filename", "BBox", "Categorical_Labels"}
        for split in SPLITS:
            if split not in self._csvs:
                self.counts[f"split {split} absent"] += 1
                continue
            for cells, where in table(self._csvs[split], needed):
                yield self._csv_row(cells, split, where)

    def _csv_row(self, cells: dict[str, str], split: str, where: str) -> _Raw:
        folder, filename = cells["Folder"], cells["Filename"]
        if not filename:
            raise DataError(f"{where} has no Filename: see data.root")
        size = _numbers(cells.get("Image Size", ""))
        known = len(size) == 2 and min(size) >= 1
        labels = self._names.vector(_words(cells["Categorical_Labels"], where), where)
        vad = _numbers(cells.get("Continuous_Labels", ""))
        person = self._person(
            tuple(_numbers(cells["BBox"])), split, labels, None, int(labels.any()),
            (vad[0], vad[1], vad[2]) if len(vad) == 3 else (NAN, NAN, NAN),
            cells.get("Gender", ""), cells.get("Age", ""),
        )  # fmt: skip
        return _Raw(
            self._path(folder, filename),
            split,
            _source(folder),
            (int(size[0]), int(size[1])) if known else None,
            [person],
        )

    # Both forms

    def _person(
        self,
        box: tuple[float, ...],
        split: str,
        labels: np.ndarray,
        votes: np.ndarray | None,
        annotators: int,
        vad: tuple[float, float, float],
        gender: str,
        age: str,
    ) -> PersonRecord:
        reasons = []
        if not labels.any():
            self.counts["persons without labels"] += 1
            reasons.append("no labels")
        if any(np.isnan(vad)):
            self.counts["persons without valence, arousal or dominance"] += 1
        status = "ok" if annotators else "unlabelled"
        if len(box) != 4 or not np.isfinite(box).all():
            status, box = "bad_box", NO_BOX
            reasons.insert(0, "the box is not four numbers")
        return PersonRecord(
            (box[0], box[1], box[2], box[3]),
            split, labels, votes, annotators, vad, gender, age, status, "; ".join(reasons),
        )  # fmt: skip

    def _path(self, folder: str, filename: str) -> str:
        """Path below the root; `emotic/` stands before it where the folder is only found there."""
        folder = folder.replace("\\", "/").rstrip("/")
        if folder not in self._prefixes:
            nested = not (self.root / folder).is_dir() and (self.root / "emotic" / folder).is_dir()
            self._prefixes[folder] = "emotic/" if nested else ""
        return self._prefixes[folder] + (f"{folder}/{filename}" if folder else filename)


def _source(folder: str) -> str:
    """`mscoco` of `mscoco/images`."""
    return folder.replace("\\", "/").strip("/").split("/")[0]


# What loadmat makes of MATLAB's cells and structs: one struct is a dict and many are a list or
# an object array of dicts; one string is a str and many are an array; nothing is an empty array.


def _items(value: Any) -> list[Any]:
    """The elements of a MATLAB value, whether it came back bare, as a list or as an array."""
    if value is None:
        return []
    if isinstance(value, np.ndarray):
        return list(value.ravel())
    return list(value) if isinstance(value, list | tuple) else [value]


def _structs(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in _items(value) if isinstance(item, dict))


def _texts(value: Any) -> list[str]:
    """The strings in a cell array, however deep; blank ones are none."""
    if isinstance(value, str):
        return [value.strip()] if value.strip() else []
    if isinstance(value, np.ndarray | list | tuple):
        return [text for item in _items(value) for text in _texts(item)]
    return []


def _text(value: Any) -> str:
    return next(iter(_texts(value)), "")


def _number(value: Any) -> float:
    """The one number in a value; NaN where there is none."""
    found = _items(value)
    try:
        return float(found[0]) if len(found) == 1 else NAN
    except (TypeError, ValueError):
        return NAN


# What the CSV form keeps in its cells: Python lists as text, with `nan` for a missing number.


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(re.sub(r"\bnan\b", "None", text, flags=re.IGNORECASE))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _numbers(text: str) -> list[float]:
    """The numbers of a list; NaN for an element that is none, an empty list for other text."""
    found = _literal(text)
    return [_number(item) for item in found] if isinstance(found, list | tuple) else []


def _words(text: str, where: str) -> list[str]:
    """The strings of a list, or a single bare label."""
    if not text.startswith(("[", "(", "'", '"')):
        return [text] if text else []
    found = _literal(text)
    found = [found] if isinstance(found, str) else found
    if not isinstance(found, list | tuple) or not all(isinstance(word, str) for word in found):
        raise DataError(f"{where} has labels {text!r}, which is no list of names: see data.root")
    return _texts(found)
