"""The index: which pictures and persons a cache knows, under row numbers that never change.

Two Parquet tables below `<cache root>/index/`. `pictures.id` is the SHA-256 of the file's bytes;
`persons.id` is a hash of picture and box. Rows are only ever appended: what leaves the data set
keeps its row with the status `removed`. A failure is a row too, with a status and a reason.
"""

import hashlib
import io
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import CacheError
from cache.files import write_atomic

FORMAT = 1

# `removed` rows are no longer part of the data set; the others are, and count as dropped.
STATUSES = ("ok", "unlabelled", "repeated", "removed", "missing", "unreadable", "bad_box")

PICTURES = pa.schema(
    {
        "id": pa.string(),
        "path": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "split": pa.string(),
        "source": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
    }
)
PERSONS = pa.schema(
    {
        "id": pa.string(),
        "picture": pa.int32(),
        "x1": pa.float32(),
        "y1": pa.float32(),
        "x2": pa.float32(),
        "y2": pa.float32(),
        "split": pa.string(),
        "labels": pa.list_(pa.float32()),
        "annotators": pa.int16(),
        "votes": pa.list_(pa.int16()),
        "valence": pa.float32(),
        "arousal": pa.float32(),
        "dominance": pa.float32(),
        "gender": pa.string(),
        "age": pa.string(),
        "status": pa.string(),
        "reason": pa.string(),
    }
)


def person_id(picture_id: str, box: tuple[float, float, float, float]) -> str:
    """Hash of the picture and the box in it, rounded to hundredths of a pixel."""
    text = picture_id + ":" + ",".join(f"{side:.2f}" for side in box)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Index:
    """Pictures and persons of a cache.

    dataset: name of the reader that filled it last; note: what must be said beside every result
    (for example that labels are made up); labels: the C label names, in the order of every
    label vector; pictures, persons: the two tables, as in `PICTURES` and `PERSONS`.
    """

    dataset: str
    note: str
    labels: tuple[str, ...]
    pictures: pa.Table
    persons: pa.Table

    @cached_property
    def boxes(self) -> np.ndarray:
        """(P, 4) float32: x1, y1, x2, y2 of each person, in pixels of the upright picture."""
        sides = [self.persons[side].to_numpy() for side in ("x1", "y1", "x2", "y2")]
        return np.stack(sides, axis=1).astype(np.float32)

    @cached_property
    def targets(self) -> np.ndarray:
        """(P, C) float32: the label vector of each person."""
        flat = self.persons["labels"].combine_chunks().flatten().to_numpy()
        return flat.reshape(len(self.persons), len(self.labels)).astype(np.float32)

    @cached_property
    def splits(self) -> np.ndarray:
        """(P,) str: train, val or test."""
        return self.persons["split"].to_numpy()

    @cached_property
    def picture_rows(self) -> np.ndarray:
        """(P,) int64: row of each person's picture."""
        return self.persons["picture"].to_numpy().astype(np.int64)

    @cached_property
    def person_status(self) -> np.ndarray:
        """(P,) str: one of `STATUSES`."""
        return self.persons["status"].to_numpy()

    def write(self, root: Path) -> None:
        """Write both tables below `root`/index, each atomically."""
        about = {
            "format": FORMAT,
            "dataset": self.dataset,
            "note": self.note,
            "labels": list(self.labels),
        }
        for name, table in (("pictures", self.pictures), ("persons", self.persons)):
            table = table.replace_schema_metadata({"emocache": json.dumps(about)})
            sink = io.BytesIO()
            pq.write_table(table, sink)
            write_atomic(root / "index" / f"{name}.parquet", sink.getvalue())

    @classmethod
    def read(cls, root: Path) -> "Index":
        """Read the index below `root`; CacheError where it is absent or of a newer format."""
        folder = root / "index"
        if not (folder / "persons.parquet").exists():
            raise CacheError(f"no index in {folder}: run `emocache prepare`, or set cache.root")
        pictures, persons = (
            pq.read_table(folder / f"{name}.parquet") for name in ("pictures", "persons")
        )
        about = json.loads(persons.schema.metadata[b"emocache"])
        if about["format"] > FORMAT:
            raise CacheError(
                f"the index in {folder} has format {about['format']}, this emocache reads up to "
                f"{FORMAT}: upgrade emocache"
            )
        return cls(about["dataset"], about["note"], tuple(about["labels"]), pictures, persons)

    def digest(self) -> str:
        """SHA-256 over everything a head's result depends on: ids, splits, labels, statuses."""
        hasher = hashlib.sha256("\0".join((self.dataset, *self.labels)).encode())
        columns = (self.persons["id"], self.persons["split"], self.persons["status"])
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            hasher.update("\0".join(values).encode())
        hasher.update(self.targets.tobytes())
        hasher.update(self.picture_rows.tobytes())
        return hasher.hexdigest()
