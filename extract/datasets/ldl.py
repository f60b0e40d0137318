"""Label-distribution sets (Geng, TKDE 2016, and later): rows of ready features, shares of labels.

A .mat file with two matrices of as many rows: features, a variable whose name ends in `feature`,
`features` or is `X`; labels, one that ends in `label`, `labels`, `distribution` or is `D` or `Y`.
The copies of SJAFFE, SBU_3DFE, Movie and emotion6 that were at hand say `features` and `labels`;
some programs say `Feature` and `Distribution`. `data.file` chooses where the root has several.

The files do not name their labels. Known sets, by the file's name and the number of labels:

SJAFFE: happiness, sadness, surprise, anger, disgust, fear: as in JAFFE's own table of ratings, and
    as two other programs have it; faces that pose an expression have most of it.
SBU_3DFE: happiness, anger, sadness, disgust, fear, surprise. This is not SJAFFE's order, though
    tables often say so. It is read off the data: rows stand in blocks of 25, a person each, sorted
    as BU-3DFE's files (anger, disgust, fear, happiness of four levels each, neutral, sadness,
    surprise of four), and these are the columns that rise most from level 1 to 4 of each.
emotion6: anger, disgust, fear, joy, sadness, surprise, neutral: the order of Emotion6's own table.
    In the data the fourth and the sixth go together and against the other emotions.
Movie: ratings 1 to 5, in this order.

Others have `label 1`, `label 2`, ...; `labels.yaml` in the root names any set's labels, in order.

Rows are samples of their own, but for faces of one person: in SJAFFE (rows are JAFFE's numbers 1 to
219, of which 8, 12, 21, 76, 108 and 183 are none) and in SBU_3DFE the person is the `group`, so
that splits and folds keep a person together. The order of these rows is known by a hash of the
labels; files with another have no groups.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np

from cache.errors import DataError
from extract.datasets import Dataset, PictureRecord, dataset
from extract.datasets._matlab import arrays, shapes
from extract.datasets._reading import found_below, plain
from extract.datasets._rows import bytes_of, row_record, shares_of
from extract.definitions import read, shipped
from extract.images import PictureError
from extract.signals.recording import Channel, Channels, Modality

FEATURES = ("feature", "features"), ("x",)  # ends of names, and whole names, in lower case
LABELS = ("label", "labels", "distribution"), ("d", "y")

NAMES = {
    "sjaffe": ("happiness", "sadness", "surprise", "anger", "disgust", "fear"),
    "sbu3dfe": ("happiness", "anger", "sadness", "disgust", "fear", "surprise"),
    "emotion6": ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral"),
    "movie": ("rating 1", "rating 2", "rating 3", "rating 4", "rating 5"),
}
STARS = ("dreadful", "poor", "fair", "good", "excellent")

# JAFFE's ten women, with the number of the last picture of each, and numbers that no picture has.
JAFFE = {"KM": 25, "KA": 48, "YM": 70, "KR": 91, "NM": 112, "MK": 133, "UY": 154, "KL": 176}
JAFFE |= {"TM": 198, "NA": 219}
NOT_IN_JAFFE = (8, 12, 21, 76, 108, 183)

# The start of the SHA-256 of the labels, as `_order` has it, of the files whose rows are known.
ORDERS = {"sjaffe": "cedf5c3451c7c8e1", "sbu3dfe": "932fb65de0fdeb9e"}


@dataset("ldl")
class LabelDistributions(Dataset):
    """One label-distribution set. A stretch is a row, counted from 1: `SJAFFE.mat#17`."""

    kind = "distribution"
    splits = ()
    choosable = True

    def __init__(self, root: Path, file: Path | None = None) -> None:
        super().__init__(root)
        self._file = found_below(self.root, file, "*.mat", "the .mat file of the set")
        try:
            data = bytes_of(self._file)
            features, shares = _parsed(data)
        except DataError as error:
            raise DataError(f"{self._file}: {error}: see data.root and data.file") from error
        self._set = plain(self._file.stem)
        self.definitions = self._definitions(shares.shape[1])
        self.labels = tuple(self.definitions)
        self.modalities = {
            "features": Modality("", ("features",), "given", "ldl", (features.shape[1],))
        }
        self.note = f"{self._file.stem}, features as given"

    def records(self) -> Iterator[PictureRecord]:
        """Rows in the order of the file."""
        self.counts.clear()
        features, shares = _parsed(bytes_of(self._file))
        below = self._file.relative_to(self.root).as_posix()
        groups = self._groups(shares)
        for row, given in enumerate(shares):
            target, fault = shares_of(given)
            person = row_record(0, features[row], target, len(self.labels), fault)
            if target is None:
                self.counts["rows whose labels are no shares that sum to 1"] += 1
            if person.status == "unreadable":
                self.counts["rows with features that are no finite numbers"] += 1
            yield PictureRecord(
                f"{below}#{row + 1}", "", self._file.stem, 1, 1, [person], groups[row]
            )

    @classmethod
    def decode(cls, data: bytes, stretch: str) -> Channels:
        """features (1, F) of the row of that number."""
        try:
            features, _ = _parsed(data)
        except DataError as error:
            raise PictureError(str(error)) from error
        if not (stretch.isdecimal() and 1 <= int(stretch) <= len(features)):
            raise PictureError(f"the file has rows 1 to {len(features)}, and no {stretch!r}")
        return {"features": Channel(features[int(stretch) - 1 : int(stretch)], 1.0)}

    def _definitions(self, count: int) -> dict[str, str]:
        file = self.root / "labels.yaml"
        if file.is_file():
            named = read(file)
            if len(named) != count:
                raise DataError(f"{file} names {len(named)} labels, and {self._file} has {count}")
            return named
        names = NAMES.get(self._set, ())
        if len(names) != count:
            return {f"label {n}": f"label {n} of {self._file.stem}" for n in range(1, count + 1)}
        if self._set == "movie":
            return {name: f"a {star} film" for name, star in zip(names, STARS, strict=True)}
        sentences = shipped("ferplus") | shipped("emotion6")
        return {name: sentences[name] for name in names}

    def _groups(self, shares: np.ndarray) -> list[str]:
        """Of each row, the person whose face it is, where that is known."""
        if self._set not in ORDERS:
            return [""] * len(shares)
        if _order(shares) != ORDERS[self._set]:
            self.counts["rows in an order that is not known: no persons"] = len(shares)
            return [""] * len(shares)
        if self._set == "sbu3dfe":
            return [f"person {row // 25 + 1}" for row in range(len(shares))]
        numbers = [n for n in range(1, 220) if n not in NOT_IN_JAFFE]
        return [next(who for who, last in JAFFE.items() if n <= last) for n in numbers]


def _order(shares: np.ndarray) -> str:
    """A hash that tells rows in one order from those in another. Shares count in 997ths: none of
    the known ones is near to a half of that, so copies in float32 have the same."""
    rounded = np.rint(np.asarray(shares, np.float64) * 997).astype("<i4")
    return hashlib.sha256(rounded.tobytes()).hexdigest()[:16]


@lru_cache(maxsize=1)  # thousands of rows are asked for one after the other
def _parsed(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Features (N, F) float32 and labels (N, C) float64 of a file."""
    there = [name for name, shape in shapes(data).items() if len(shape) == 2]
    features, labels = (_chosen(there, *one) for one in (FEATURES, LABELS))
    held = arrays(data, [features, labels])
    for name, value in held.items():
        if np.iscomplexobj(value):
            raise DataError(f"{name} is complex")
    if len(held[features]) != len(held[labels]) or not held[labels].size:
        raise DataError(
            f"{features} is {held[features].shape} and {labels} {held[labels].shape}: as many rows "
            "are needed"
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold is a row that is not finite
        return held[features].astype(np.float32), held[labels].astype(np.float64)


def _chosen(there: Iterable[str], ends: tuple[str, ...], whole: tuple[str, ...]) -> str:
    """The one matrix of such a name."""
    found = [n for n in there if n.lower().endswith(ends) or n.lower() in whole]
    if len(found) != 1:
        wanted = " or ".join([*ends, *(name.upper() for name in whole)])
        raise DataError(
            f"it has {len(found) or 'no'} matrices that are called as {wanted}: its matrices are "
            f"{', '.join(sorted(there)) or 'none'}"
        )
    return found[0]
