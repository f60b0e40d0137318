"""CAER-S (Lee et al., ICCV 2019): frames of television shows, one of seven emotions each.

Two forms are read. The lists `train.txt` and `test.txt` of the revised annotation (rows
`path,class,x1,y1,x2,y2`) give the face of the person concerned, and leave faulty frames out;
without them the folders `train|test/<Class>/*.png` give a label alone. No form has a person's box.

The seven classes are numbered in alphabetical order; `Anger` and `Angry` are both in use. There is
no val. Frames of one clip stand in train and in test: see `emocache cache audit`.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cache.errors import DataError
from extract.datasets import NAN, Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import (
    LabelNames,
    finite,
    folders_in,
    number,
    pictures_below,
    rows_of,
    split_of,
)
from extract.definitions import shipped

SPELLINGS = {"Angry": "Anger", "Happiness": "Happy", "Sadness": "Sad", "Surprised": "Surprise"}


@dataset("caers")
class Caers(Dataset):
    """CAER-S by its lists, or by its folders; `release` says which."""

    kind = "single"
    splits = ("train", "test")

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.definitions = shipped("caers")
        self.labels = tuple(self.definitions)
        self._names = LabelNames(self.labels, self.counts, SPELLINGS)
        self._lists = [path for path in self._expected() if path.is_file()]
        self._folders = [path for path in folders_in(self.root) if split_of(path.name)]
        if not self._lists and not self._folders:
            raise DataError(
                f"{self.root} has neither train.txt and test.txt nor the folders train and test: "
                "set data.root to the folder of CAER-S"
            )
        self.release = "revised lists with faces" if self._lists else "class folders"
        self.note = f"CAER-S, {self.release}"

    def records(self) -> Iterator[PictureRecord]:
        """Pictures in the order of the lists, train first; or of their paths."""
        self.counts.clear()
        if self._lists:
            yield from self._listed()
            return
        for folder in self._folders:
            for path in pictures_below(folder, self):
                name = PurePosixPath(path).parts[1]
                yield self._picture(path, split_of(folder.name), self._names.place(name, path))

    def _expected(self) -> list[Path]:
        return [self.root / "train.txt", self.root / "test.txt"]

    def _listed(self) -> Iterator[PictureRecord]:
        seen: set[str] = set()
        for file in self._expected():
            if file not in self._lists:
                self.counts[f"{file.name} absent"] += 1
                continue
            for cells, where in rows_of(file, 6, form="path,class,x1,y1,x2,y2"):
                path = self._present(cells[0].replace("\\", "/"))
                if path in seen:
                    self.counts["pictures listed twice (the first line counts)"] += 1
                    continue
                seen.add(path)
                yield self._line(path, cells, file.stem, where)
        if self._folders:
            there = {p for f in self._folders for p in pictures_below(f, self)}
            self.counts["pictures that no list names, left out"] += len(there - seen)

    def _present(self, path: str) -> str:
        """The path as it is on the disk: lists and folders may differ in `Anger` and `Angry`."""
        if (self.root / path).exists():
            return path
        for other, name in SPELLINGS.items():
            for a, b in ((name, other), (other, name)):
                twin = path.replace(f"/{a}/", f"/{b}/")
                if twin != path and (self.root / twin).exists():
                    self.counts[f"pictures listed below {a}, found below {b}"] += 1
                    return twin
        return path

    def _line(self, path: str, cells: list[str], split: str, where: str) -> PictureRecord:
        place = number(cells[1])
        if place not in range(len(self.labels)):
            raise DataError(f"{where}: {cells[1]!r} is no class from 0 to 6: see data.root")
        folder = PurePosixPath(path).parent.name
        if self._names.place(folder, where) != place:
            self.counts["pictures whose class is not that of their folder (the class counts)"] += 1
        face = finite([number(side) for side in cells[2:]])
        if face is None:
            self.counts["lines without a face"] += 1
        elif min(face) < 0:
            self.counts["faces that begin outside the picture"] += 1
        return self._picture(path, split, int(place), face)

    def _picture(
        self,
        path: str,
        split: str,
        label: int,
        face: tuple[float, float, float, float] | None = None,
    ) -> PictureRecord:
        labels = self._names.one(label)
        person = PersonRecord(None, split, labels, vad=(NAN, NAN, NAN), face=face)
        return PictureRecord(path, split, "CAER-S", None, None, [person])
