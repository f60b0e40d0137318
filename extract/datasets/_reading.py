"""What readers share: tables with line numbers, labels by name, pictures below a folder, faults."""

import csv
import difflib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from cache.boxes import Box
from cache.errors import DataError, did_you_mean, first_line
from cache.index import SPLITS, LabelKind
from extract.datasets import NAN, Dataset
from extract.images import is_below

LISTED = 3  # faults that a refusal quotes
KEPT = 1000  # faults that are kept
LINKS = "links to folders, not entered (data.follow_links)"
OFF = 0.02  # how far from 1 rounded shares may sum
RARE = 3  # persons: a label of so few may be a slip of the pen
NEAR = 0.85  # how like one another long names are, of which one may be the other misspelt
LETTERS, NAMES = 40, 200  # longer labels, and more of them, are texts: their spelling is theirs
PICTURES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")

# What folders and files of splits are called elsewhere.
SPLIT_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


class Faults(DataError):
    """What is wrong with an annotation, each fault a sentence that names its file and line.

    faults: the first `KEPT`; count: how many there are.
    """

    def __init__(self, faults: Sequence[str], count: int):
        self.faults, self.count = tuple(faults), count
        more = count - LISTED
        end = f"; and {more:,} more: `emocache prepare --check` lists them" if more > 0 else ""
        super().__init__("; ".join(self.faults[:LISTED]) + end)


class Gathering:
    """Faults, gathered so that all can be told at once."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.count = 0

    def add(self, fault: str) -> None:
        self.count += 1
        if len(self.faults) < KEPT:
            self.faults.append(fault)

    def stop(self) -> None:
        """Raise `Faults` where there are some."""
        if self.count:
            raise Faults(self.faults, self.count)


class LabelNames:
    """The labels of a data set, found by name: case, blanks and signs do not matter.

    names: in the order of the label vectors; also: other spellings of them; counts: is told of
    each label that was spelt in another way.
    """

    def __init__(
        self, names: Sequence[str], counts: Counter[str], also: Mapping[str, str] | None = None
    ):
        self.names, self.counts = tuple(names), counts
        self._exact = {name: i for i, name in enumerate(self.names)}
        spelt = Counter(plain(name) for name in self.names)  # no guess between two labels
        self._places = {
            plain(n): i for n, i in self._exact.items() if plain(n) and spelt[plain(n)] == 1
        }
        for other, name in (also or {}).items():
            self._places[plain(other)] = self._exact[name]

    def place(self, word: str, where: str) -> int:
        """Its number. Raises DataError, naming `where`, for a word that is no label."""
        found = self._exact.get(word, self._places.get(plain(word)))
        if found is None:
            raise DataError(
                f"{where} has the label {word!r}, which is none of the labels (mend it, or see "
                f"data.name and data.root){did_you_mean(word, self.names)}"
            )
        if word not in self.names:
            self.counts[f"read as {self.names[found]!r}, spelt {word!r}"] += 1
        return found

    def one(self, place: int) -> Float32[np.ndarray, " C"]:
        """1 for the label of that number, 0 for the others."""
        return np.eye(len(self.names), dtype=np.float32)[place]

    def vector(self, words: Iterable[str], where: str) -> Float32[np.ndarray, " C"]:
        """0 and 1 of each label; DataError as `place`."""
        vector = np.zeros(len(self.names), np.float32)
        for word in words:
            vector[self.place(word, where)] = 1
        return vector


def plain(label: str) -> str:
    """A label's letters and digits alone, in lower case: `Doubt / Confusion` is
    `doubtconfusion`."""
    return re.sub(r"[\W_]", "", label.lower())


def names_in_use(words: Iterable[str]) -> list[str]:
    """In alphabetical order; of spellings that differ in case and blanks alone the most frequent,
    of equally frequent ones the first."""
    found: dict[str, str] = {}
    counts = Counter(words)
    for word in sorted(counts, key=lambda word: (-counts[word], word)):
        found.setdefault(" ".join(word.split()).casefold(), word)
    return sorted(found.values())


def misspelt(persons: Mapping[str, int]) -> list[str]:
    """A sentence for each label that may be another one misspelt; persons: who has each label.

    That is a label of at most `RARE` persons, or of a tenth of the other's, beside one of more
    persons from which one letter sets it apart (another one, one too many, one missing, two in
    each other's place), or to which `difflib` finds it `NEAR`. It is a guess from spelling alone:
    happiness and unhappiness are as near, and nothing is joined or refused. Case, blanks and signs
    do not matter. Labels of one or two letters, and those that differ in digits (`level 1`,
    `level 2`), are not compared.
    """
    if len(persons) > NAMES:
        return []
    said = []
    spelt = {name: plain(name) for name in persons if len(name) <= LETTERS}
    for name, word in spelt.items():
        few = persons[name]
        near = {
            other: _likeness(word, its)
            for other, its in spelt.items()
            if 0 < few < persons[other] and few <= max(RARE, persons[other] // 10)
        }
        best = max(near, key=lambda other: near[other], default=None)
        if best is not None and near[best] > 0:
            said.append(
                f"the label {name!r} ({few:,} person{'' if few == 1 else 's'}) is spelt nearly as "
                f"{best!r} ({persons[best]:,}): mend the annotation where it is misspelt; where "
                "both are meant, list the labels in labels.yaml"
            )
    return said


def _likeness(one: str, other: str) -> float:
    """`difflib`'s ratio of two words, 0 where they are not near: see `misspelt`."""
    longer = max(len(one), len(other))
    if longer < 3 or re.sub(r"\D", "", one) != re.sub(r"\D", "", other):
        return 0.0
    needed = min(NEAR, (longer - 1) / longer)
    match = difflib.SequenceMatcher(None, one, other, autojunk=False)
    likely = match.real_quick_ratio() >= needed and match.quick_ratio() >= needed
    return ratio if likely and (ratio := match.ratio()) >= needed else 0.0


# What a person is said to feel: names of labels, or shares by name.
Answers = Sequence[str] | Mapping[str, float]


def kind_of(every: Iterable[Answers]) -> LabelKind:
    """What labels given so are: shares, one each, or any number."""
    some = list(every)
    if any(isinstance(answers, Mapping) for answers in some):
        return "distribution"
    return "single" if all(len(answers) <= 1 for answers in some) else "multi"


def target_of(
    answers: Answers, names: LabelNames, kind: LabelKind | Literal[""], where: str
) -> Float32[np.ndarray, " C"]:
    """The label vector of such answers; zeros where there are none. Raises DataError for a label
    that is none, and for shares that do not sum to 1 or are missing where others have them."""
    if not answers:
        return np.zeros(len(names.names), np.float32)
    if not isinstance(answers, Mapping):
        if kind == "distribution":
            raise DataError(f"{where} has labels without shares, and other lines have shares")
        return names.vector(answers, where)
    shares = np.zeros(len(names.names), np.float64)
    for name, share in answers.items():
        shares[names.place(name, where)] += share
    if not ((shares >= 0).all() and abs(shares.sum() - 1) <= OFF):  # NaN is neither
        raise DataError(f"{where} has shares that sum to {shares.sum():g}, not 1")
    return (shares / shares.sum()).astype(np.float32)


def table(path: Path, needed: Iterable[str]) -> Iterator[tuple[dict[str, str], str]]:
    """Each row of a CSV file with a header, by column, blanks about cells cut off; and where it
    stands, in words. Raises DataError for a file that cannot be read or has not all the columns."""
    try:
        rows = csv.DictReader(lines_of(path), skipinitialspace=True, strict=True)
        missing = set(needed) - {name.strip() for name in rows.fieldnames or () if name}
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(sorted(missing))}: see data.root and data.name"
            )
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if None in row:
                raise DataError(f"{where} has more cells than the header has columns")
            yield {key.strip(): (value or "").strip() for key, value in row.items()}, where
    except csv.Error as error:
        raise DataError(f"{path} is no CSV file ({error}): see data.root") from error


def number(text: Any) -> float:
    """The number in a cell; NaN where there is none."""
    try:
        return float(text)
    except (TypeError, ValueError, OverflowError):
        return NAN


def finite(box: Sequence[float]) -> Box | None:
    """The box, where it is four finite numbers."""
    if len(box) != 4 or not all(math.isfinite(side) for side in box):
        return None
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1, y1, x2, y2


def split_of(word: str) -> str:
    """The split that a folder or file is named after, or ""."""
    low = word.lower()
    return next((split for split in SPLITS if low in SPLIT_WORDS[split]), "")


def pictures_below(folder: Path, data: Dataset) -> list[str]:
    """Paths, relative to the data root, of the pictures in a folder and below it, sorted. Hidden
    files are left out; other files are counted, and links to folders that are not entered."""
    found = []
    root, counts, follow = data.root, data.counts, data.follow_links
    if not follow and not folder.resolve().is_relative_to(root.resolve()):
        counts[LINKS] += 1
        return []
    for place, folders, names in os.walk(folder, followlinks=follow):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(place) / name).is_symlink()]
        if links and not follow:
            counts[LINKS] += len(links)
        below = Path(place).relative_to(root).as_posix()
        for name in names:
            if name.startswith(".") or name in ("Thumbs.db", "desktop.ini"):
                continue
            if is_picture(name):
                found.append(f"{below}/{name}" if below != "." else name)
            else:
                counts["files that are no pictures, left out"] += 1
    return sorted(found)


def is_picture(name: str) -> bool:
    """By its ending; hidden files are none."""
    return PurePosixPath(name).suffix.lower() in PICTURES and not name.startswith(".")


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name; hidden ones left out."""
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error}): see data.root") from error


def found_below(root: Path, file: Path | None, pattern: str, what: str) -> Path:
    """The one file of that pattern in `root` or in a folder of it; or `file`, where it is given.
    Raises DataError where there is none, or more than one."""
    if file is not None:
        if not is_below(file.as_posix()) or not (root / file).is_file():
            raise DataError(f"there is no {root / file}: set data.file to {what}")
        return root / file
    found = sorted([*root.glob(pattern), *root.glob(f"*/{pattern}")])
    if not found:
        raise DataError(f"{root} has no {pattern}: set data.root to where {what} is")
    if len(found) > 1:
        names = ", ".join(path.relative_to(root).as_posix() for path in found[:5])
        raise DataError(f"{root} has several files {pattern} ({names}): set data.file to {what}")
    return found[0]


def rows_of(
    path: Path, cells: int, delimiter: str = ",", form: str = ""
) -> Iterator[tuple[list[str], str]]:
    """Each row of a table without a header, and where it stands, in words; empty lines are left
    out. Raises DataError for a row of another length (form: what it should be), and for a file that
    cannot be read."""
    try:
        rows = csv.reader(lines_of(path), delimiter=delimiter, skipinitialspace=True, strict=True)
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if row and len(row) != cells:
                wanted = f"{cells} ({form})" if form else str(cells)
                raise DataError(f"{where} has {len(row)} cells, not {wanted}: see data.root")
            if row:
                yield [cell.strip() for cell in row], where
    except csv.Error as error:
        raise DataError(f"{path} is no table ({error}): see data.root") from error


def lines_of(path: Path) -> Iterator[str]:
    """The lines of a text. Raises DataError, naming the line, where it is not UTF-8."""
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}, line {number} is not UTF-8 ({error.reason}): save it as UTF-8"
                    ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error}): see data.root") from error


def json_of(path: Path) -> Any:
    """What a JSON file holds. Raises DataError where it cannot be read."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON that can be read: {first_line(error)}") from error
