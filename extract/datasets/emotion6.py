"""Emotion6 (Peng et al., CVPR 2015): pictures with the shares of seven emotions, valence, arousal.

`ground_truth.txt`, tab-separated with a header: the picture's path below `images`, valence and
arousal (1 to 9), and the share of each emotion, neutral last. The folder of a picture says what was
searched for, not what people felt. There is no official split.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cache.errors import DataError
from extract.datasets import NAN, Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import OFF, LabelNames, found_below, number, rows_of
from extract.definitions import shipped


@dataset("emotion6")
class Emotion6(Dataset):
    """Emotion6 by its ground truth."""

    kind = "distribution"
    splits = ()
    choosable = True

    def __init__(self, root: Path, file: Path | None = None) -> None:
        super().__init__(root)
        self.definitions = shipped("emotion6")
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts)
        self._file = found_below(self.root, file, "ground_truth.*", "Emotion6's ground_truth.txt")
        self.note = "Emotion6"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order of the file."""
        self.counts.clear()
        columns: list[int] = []
        seen: set[str] = set()
        rows = rows_of(self._file, 3 + len(self.labels), "," if self._csv else "\t")
        for cells, where in rows:
            if not columns:
                columns = [self._names.place(_emotion(cell), where) for cell in cells[3:]]
                if sorted(columns) != list(range(len(self.labels))):
                    raise DataError(f"{where} does not name each of the seven emotions once")
                rated = [_emotion(cell).lower() for cell in cells[1:3]]
                if rated != ["valence", "arousal"]:
                    raise DataError(f"{where} has {rated}, not valence and arousal: see data.root")
                continue
            if cells[0] in seen:
                self.counts["pictures listed twice (the first line counts)"] += 1
                continue
            seen.add(cells[0])
            shares = np.zeros(len(self.labels), np.float32)
            shares[columns] = [number(cell) for cell in cells[3:]]
            yield self._picture(cells[0].replace("\\", "/"), shares, cells[1:3], where)

    @property
    def _csv(self) -> bool:
        return self._file.suffix == ".csv"

    def _picture(
        self, name: str, shares: np.ndarray, rated: list[str], where: str
    ) -> PictureRecord:
        total = float(shares.sum())
        good = bool((shares >= 0).all()) and abs(total - 1) <= OFF
        if not good:
            self.counts["persons whose shares do not sum to 1"] += 1
        elif total != 1:
            shares = (shares / shares.sum()).astype(np.float32)
        vad = (number(rated[0]), number(rated[1]), NAN)
        person = PersonRecord(
            None, "", shares if good else np.zeros_like(shares), annotators=int(good), vad=vad,
            status="ok" if good else "unlabelled",
            reason="" if good else _why(shares, total),
        )  # fmt: skip
        searched = {"searched_for": name.partition("/")[0]} if "/" in name else {}
        folder = next((f for f in ("images/", "") if (self.root / (f + name)).exists()), "images/")
        return PictureRecord(folder + name, "", "Emotion6", None, None, [person], "", searched)


def _why(shares: np.ndarray, total: float) -> str:
    return "a share is below 0" if (shares < 0).any() else f"the shares sum to {total:g}"


def _emotion(cell: str) -> str:
    """`anger` of `[prob. anger]`."""
    return cell.strip("[] ").removeprefix("prob.").strip()
