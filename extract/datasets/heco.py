"""HECO (Yang et al., ECCV 2022): persons in context, eight emotions, valence, arousal, dominance.

A CSV `Image, xmin, ymin, xmax, ymax, Category, Valence, Arousal, Dominance, Label_SA, Label_CA`
with a row a person, wherever it lies below the root; pictures beside it, in the root, or in a
folder of either. `Happinesst` is Happiness. There is no official split.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from cache.boxes import NO_BOX
from cache.errors import DataError
from extract.datasets import NAN, Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import LabelNames, finite, found_below, number, table
from extract.definitions import shipped
from extract.images import is_below

COLUMNS = ("Image", "xmin", "ymin", "xmax", "ymax", "Category")
RATINGS = ("Valence", "Arousal", "Dominance")


@dataset("heco")
class Heco(Dataset):
    """HECO by its CSV. Label_SA and Label_CA, how much of themselves and of relief people show,
    are kept as attributes of the picture, a list in the order of its persons."""

    kind = "single"
    splits = ()
    choosable = True

    def __init__(self, root: Path, file: Path | None = None) -> None:
        super().__init__(root)
        self.definitions = shipped("heco")
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts, {"Happinesst": "Happiness"})
        self._csv = found_below(self.root, file, "*.csv", "HECO's CSV")
        self.note = "HECO"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order in which the CSV names them first."""
        self.counts.clear()
        persons: dict[str, list[PersonRecord]] = {}
        more: dict[str, dict[str, list[float | None]]] = {}
        paths: dict[str, str] = {}
        for cells, where in table(self._csv, COLUMNS):
            name = cells["Image"].replace("\\", "/")
            if not name:
                raise DataError(f"{where} has no Image: see data.root")
            if name not in paths:
                paths[name] = self._path(name)
            path = paths[name]
            persons.setdefault(path, []).append(self._person(cells, where))
            others = more.setdefault(path, {"Label_SA": [], "Label_CA": []})
            for column, values in others.items():
                score = number(cells.get(column))
                values.append(score if math.isfinite(score) else None)
        for path, people in persons.items():
            known = {k: v for k, v in more[path].items() if any(x is not None for x in v)}
            yield PictureRecord(path, "", "HECO", None, None, people, attributes=known)

    def _person(self, cells: dict[str, str], where: str) -> PersonRecord:
        labels = self._names.vector([cells["Category"]] if cells["Category"] else [], where)
        box = finite([number(cells[side]) for side in COLUMNS[1:5]])
        vad = (NAN, NAN, NAN)
        if all(name in cells for name in RATINGS):
            v, a, d = (number(cells[name]) for name in RATINGS)
            vad = (v, a, d)
        if not labels.any():
            self.counts["persons without a category"] += 1
        status = "ok" if labels.any() else "unlabelled"
        reason = "" if labels.any() else "no category"
        if box is None:
            status, reason = "bad_box", "the box is not four numbers"
        return PersonRecord(
            box or NO_BOX, "", labels, annotators=int(labels.any()), vad=vad, status=status,
            reason=reason,
        )  # fmt: skip

    def _path(self, name: str) -> str:
        """The picture below the root: beside the CSV or above it, or in a folder there."""
        if not is_below(name):
            return name
        for place in (self.root, self._csv.parent):
            for folder in ("", "images", "Images", "image", "Data", "data", "Image"):
                if (place / folder / name).is_file():
                    return (place / folder / name).relative_to(self.root).as_posix()
        return name
