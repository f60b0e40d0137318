"""FER+ (Barsoum et al., ICMI 2016): FER2013's faces with the votes of ten people each.

`fer2013new.csv` (`Usage, Image name`, eight emotions, `unknown`, `NF`) and the pictures in
`FER2013Train`, `FER2013Valid` and `FER2013Test`, as the authors' script writes them from FER2013's
CSV; or `label.csv` in each of these folders (name, box, the same votes, no header). `unpack` writes
that form from arrays. The face is the whole picture, and so is the person.

Labels are the shares of the votes for the eight emotions. Where `unknown` or `NF` (not a face) has
at least as many votes as any emotion, as the authors leave out, the person keeps a row with the
status `unlabelled`.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from cache.errors import DataError, first_line
from cache.files import writing_to
from cache.index import SPLITS
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import PICTURES, finite, number, rows_of, table
from extract.definitions import shipped

FOLDERS = {"train": "FER2013Train", "val": "FER2013Valid", "test": "FER2013Test"}
USAGE = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
OTHERS = ("unknown", "NF")
SIDE = 48


@dataset("ferplus")
class FerPlus(Dataset):
    """FER+ by its votes."""

    kind = "distribution"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.definitions = shipped("ferplus")
        self.labels = tuple(self.definitions)
        self._inner = "images/" if (self.root / "images").is_dir() else ""
        self._whole = self.root / "fer2013new.csv"
        self._parts = {s: self.root / self._inner / f / "label.csv" for s, f in FOLDERS.items()}
        if not self._whole.is_file() and not any(p.is_file() for p in self._parts.values()):
            raise DataError(
                f"{self.root} has neither fer2013new.csv nor FER2013Train/label.csv: set data.root "
                "to the folder of FER+ (`emocache unpack` writes it from arrays)"
            )
        self.note = "FER+"

    def records(self) -> Iterator[PictureRecord]:
        """Faces in the order of the tables, train first."""
        self.counts.clear()
        rows = self._from_whole() if self._whole.is_file() else self._from_parts()
        seen: set[str] = set()
        for name, split, votes, where in rows:
            if not name:  # a face of FER2013 that FER+ left out
                self.counts["rows without a picture"] += 1
                continue
            if not (np.isfinite(votes).all() and (votes >= 0).all()):
                raise DataError(f"{where} has votes that are no counts: see data.root")
            path = f"{self._inner}{FOLDERS[split]}/{name}"
            if path in seen:
                self.counts["faces listed twice (the first row counts)"] += 1
                continue
            seen.add(path)
            yield self._face(path, split, votes)

    def _from_whole(self) -> Iterator[tuple[str, str, np.ndarray, str]]:
        columns = (*self.labels, *OTHERS)
        held: dict[str, list[tuple[str, np.ndarray, str]]] = {split: [] for split in SPLITS}
        for cells, where in table(self._whole, ("Usage", "Image name", *columns)):
            split = USAGE.get(cells["Usage"])
            if split is None:
                raise DataError(f"{where}: {cells['Usage']!r} is none of {', '.join(USAGE)}")
            votes = np.array([number(cells[name]) for name in columns])
            held[split].append((cells["Image name"], votes, where))
        for split, rows in held.items():
            yield from ((name, split, votes, where) for name, votes, where in rows)

    def _from_parts(self) -> Iterator[tuple[str, str, np.ndarray, str]]:
        for split, file in self._parts.items():
            if not file.is_file():
                self.counts[f"split {split} absent"] += 1
                continue
            for cells, where in rows_of(
                file, 2 + len(self.labels) + len(OTHERS), form="name, box, ten votes"
            ):
                votes = np.array([number(cell) for cell in cells[2:]])
                yield cells[0], split, votes, where

    def _face(self, path: str, split: str, votes: np.ndarray) -> PictureRecord:
        felt, others = votes[: len(self.labels)], votes[len(self.labels) :]
        whole = finite((0, 0, SIDE, SIDE))
        known = felt.max() > others.max()
        if not known:
            self.counts["faces that unknown or NF wins"] += 1
        shares = felt / felt.sum() if known else np.zeros(len(felt))
        person = PersonRecord(
            whole, split, shares.astype(np.float32), felt.astype(np.int16),
            int(votes.sum()) if known else 0, face=whole,
            status="ok" if known else "unlabelled",
            reason="" if known else "no emotion has more votes than unknown or NF",
        )  # fmt: skip
        return PictureRecord(path, split, "FER2013", SIDE, SIDE, [person])


def unpack(arrays: Sequence[Path], folder: Path) -> dict[str, int]:
    """Write the pictures and `label.csv` files from arrays: how many by split.

    arrays: .npz files named after their folder (`ferplus_FER2013Valid.npz`), each with images
    (N, 48, 48) uint8, votes (N, 10) and names (N,). Raises DataError for anything else.
    """
    written: dict[str, int] = {}
    for file in arrays:
        split = next((s for s, name in FOLDERS.items() if name.lower() in file.stem.lower()), None)
        if split is None:
            raise DataError(f"{file} is named after none of {', '.join(FOLDERS.values())}")
        try:
            # Opened here: numpy leaves a damaged file open.
            with open(file, "rb") as data, np.load(data, allow_pickle=False) as held:
                faces, votes, names = held["images"], held["votes"], held["names"]
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{file} does not hold images, votes, names: {first_line(error)}"
            ) from error
        shapes = faces.shape[1:] == (SIDE, SIDE) and faces.dtype == np.uint8
        if not shapes or votes.shape != (len(faces), 10) or names.shape != (len(faces),):
            raise DataError(f"{file}: images are {faces.dtype} {faces.shape}, votes {votes.shape}")
        for name in map(str, names):
            if Path(name).name != name or Path(name).suffix.lower() not in PICTURES:
                raise DataError(f"{file} names the picture {name!r}, which is no picture's name")
        place = folder.expanduser() / FOLDERS[split]
        with writing_to(place):
            place.mkdir(parents=True, exist_ok=True)
            with open(place / "label.csv", "w", newline="") as table:
                rows = csv.writer(table)
                for face, name, given in zip(faces, names, votes, strict=True):
                    Image.fromarray(face).save(place / str(name))
                    rows.writerow([name, f"(0, 0, {SIDE}, {SIDE})", *given.tolist()])
        written[split] = len(faces)
    return written
