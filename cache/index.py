"""The index: which pictures and persons a cache knows, under row numbers that never change.

Below `<cache root>/index/`: two Parquet tables, `labels.json` with the definition of each label,
and `index.json` with the SHA-256 of the others, checked by every read. `pictures.id` is the SHA-256
of the file's bytes; `persons.id` is a hash of picture and box. Rows are only ever appended: what
leaves the data set keeps its row with the status `removed`. A failure is a row too, with a status
and a reason.
"""

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64, Shaped

from cache.boxes import Box
from cache.errors import CacheError, FormatError
from cache.files import sha256_file, sync, write_atomic, writing_to
from cache.keys import of_sealed_text, sealed_text
from cache.paths import index_folder
from cache.spec import RowSpace

FORMAT = 3
READABLE = (2, FORMAT)  # 2 had neither groups, attributes, faces and origins, nor a kind
VAD = ("valence", "arousal", "dominance")
SPLITS = ("train", "val", "test")  # in the order in which a head meets them

LabelKind = Literal["multi", "single", "distribution"]
# Where a person's box comes from: annotated; found by a detector; the annotated face, or the whole
# picture, where no person was found.
Origin = Literal["annotated", "found", "face", "whole"]

PICTURES = pa.schema(
    {
        "id": pa.string(),
        "path": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "split": pa.string(),
        "source": pa.string(),
        "group": pa.string(),  # film, subject or video; "" where none is known
        "attributes": pa.string(),  # what the set says of the picture besides, as JSON; or ""
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
        "origin": pa.string(),  # see `Origin`
        "face": pa.list_(pa.float32()),  # x1, y1, x2, y2 where the annotation has a face, else null
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


def person_id(picture_id: str, box: Box, face: Box | None = None, nobody: bool = False) -> str:
    """Hash of the picture, the box in it and the annotated face, rounded to hundredths of a
    pixel; nobody: the box is the whole picture, which stands for a person."""
    text = picture_id + ":" + ",".join(f"{side:.2f}" for side in box)
    if face is not None:
        text += ":face:" + ",".join(f"{side:.2f}" for side in face)
    if nobody:
        text += ":nobody"
    return hashlib.sha256(text.encode()).hexdigest()


def occurrences(persons: Iterable[Mapping[str, Any]]) -> list[tuple[str, str, int]]:
    """What tells persons apart: id, split, and which of its repeats in that split it is, from 0."""
    times: Counter[tuple[str, str]] = Counter()
    found = []
    for person in persons:
        key = person["id"], person["split"]
        found.append((*key, times[key]))
        times[key] += 1
    return found


def split_order(split: str) -> tuple[int, str]:
    """By which splits are sorted: those of `SPLITS` first."""
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)


@dataclass(frozen=True)
class Index:
    """Pictures and persons of a cache.

    dataset: name of the reader that filled it last; note: what must be said beside every result
    (for example that labels are made up); labels: the C label names, in the order of every
    label vector; pictures, persons: the two tables, as in `PICTURES` and `PERSONS`; definitions:
    for each label {"label": its name, "definition": the sentence that the text encoder reads};
    kind: what a label vector is (see `train.labels`), "" where an older cache does not say;
    modalities: of recordings, the views that they have: name -> what each is made from (see
    `extract.signals.recording`); empty where rows are pictures.

    Of recordings, a row of `pictures` is a stretch of one file, its path `file#stretch`, its width
    the seconds it lasts (rows, for ready features), its height 1; a row of `persons` is a window of
    it, whose box is (start, 0, end, 1) in seconds.
    """

    dataset: str
    note: str
    labels: tuple[str, ...]
    pictures: pa.Table
    persons: pa.Table
    definitions: tuple[Mapping[str, str], ...] = ()
    kind: LabelKind | Literal[""] = ""
    modalities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def boxes(self) -> Float32[np.ndarray, "P 4"]:
        """x1, y1, x2, y2 of each person, in pixels of the upright picture."""
        sides = [self.persons[side].to_numpy() for side in ("x1", "y1", "x2", "y2")]
        return np.stack(sides, axis=1).astype(np.float32)

    @cached_property
    def faces(self) -> list[Box | None]:
        """The annotated face of each person, where there is one."""
        return [None if face is None else tuple(face) for face in self.persons["face"].to_pylist()]

    @cached_property
    def targets(self) -> Float32[np.ndarray, "P C"]:
        """The label vector of each person."""
        flat = self.persons["labels"].combine_chunks().flatten().to_numpy()
        return flat.reshape(len(self.persons), len(self.labels)).astype(np.float32)

    @cached_property
    def vad(self) -> Float32[np.ndarray, "P 3"]:
        """Valence, arousal and dominance; NaN where a person was not rated."""
        columns = [self.persons[name].to_numpy().astype(np.float32) for name in VAD]
        return np.stack(columns, axis=1)

    @cached_property
    def splits(self) -> Shaped[np.ndarray, " P"]:
        """Words: train, val or test."""
        return self.persons["split"].to_numpy()

    @cached_property
    def picture_rows(self) -> Int64[np.ndarray, " P"]:
        """Row of each person's picture."""
        return self.persons["picture"].to_numpy().astype(np.int64)

    @property
    def drawn(self) -> str:
        """What `units` are, in a word."""
        if not self.modalities:
            return "pictures"
        return "subjects" if any(self.pictures["group"].to_pylist()) else "samples"

    @cached_property
    def units(self) -> Int64[np.ndarray, " P"]:
        """What is drawn anew, whole, when a measure's spread is asked for: persons of one unit hang
        together. The picture of each person; of recordings the group (subject), where it is
        known."""
        if not self.modalities:
            return self.picture_rows
        groups = self.pictures["group"].to_pylist()
        first: dict[str, int] = {}
        unit = [first.setdefault(name, row) if name else row for row, name in enumerate(groups)]
        return np.asarray(unit, np.int64)[self.picture_rows]

    def ids(self, rows: RowSpace) -> list[str]:
        """What names each row of the row space `rows`: persons, pictures or labels."""
        tables = {"persons": self.persons, "pictures": self.pictures}
        return tables[rows]["id"].to_pylist() if rows in tables else list(self.labels)

    def wanted(self, rows: RowSpace) -> Int64[np.ndarray, " n"]:
        """The rows of the row space `rows` that have features: of persons with the status ok."""
        if rows == "labels":
            return np.arange(len(self.labels))
        persons = np.flatnonzero(self.person_status == "ok")
        return persons if rows == "persons" else np.unique(self.picture_rows[persons])

    @cached_property
    def person_status(self) -> Shaped[np.ndarray, " P"]:
        """One of `cache.statuses.INDEX`."""
        return self.persons["status"].to_numpy()

    def files(self) -> dict[str, bytes]:
        """What `write` writes, by file name."""
        about = {
            "format": FORMAT,
            "dataset": self.dataset,
            "note": self.note,
            "labels": list(self.labels),
            "kind": self.kind,
            **({"modalities": dict(self.modalities)} if self.modalities else {}),
        }
        files: dict[str, bytes] = {}
        for name, table in (("pictures", self.pictures), ("persons", self.persons)):
            table = table.replace_schema_metadata({"emocache": json.dumps(about)})
            sink = io.BytesIO()
            pq.write_table(table, sink)
            files[f"{name}.parquet"] = sink.getvalue()
        definitions = json.dumps([dict(one) for one in self.definitions], indent=2)
        files["labels.json"] = definitions.encode()
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        return {**files, "index.json": sealed_text({**about, "files": hashes})}

    def write(self, root: Path) -> None:
        """Write the folder `root`/index: made beside its place, then put there as a whole."""
        folder, new, old = index_folder(root), root / ".index.partial", root / ".index.old"
        with writing_to(folder):
            shutil.rmtree(new, ignore_errors=True)
            for name, data in self.files().items():
                write_atomic(new / name, data)
            shutil.rmtree(old, ignore_errors=True)
            if folder.exists():
                os.rename(folder, old)
            os.rename(new, folder)
            sync(root)
            shutil.rmtree(old, ignore_errors=True)

    @classmethod
    def read(cls, root: Path) -> "Index":
        """Read the index below `root`; CacheError where it is absent, damaged or of a newer
        format."""
        folder = index_folder(root)
        damage = index_damage(root)
        if damage:
            raise CacheError(damage)
        pictures, persons = (
            _as(pq.read_table(folder / f"{name}.parquet"), schema)
            for name, schema in (("pictures", PICTURES), ("persons", PERSONS))
        )
        about = json.loads((folder / "index.json").read_text())
        definitions = json.loads((folder / "labels.json").read_text())
        return cls(
            about["dataset"],
            about["note"],
            tuple(about["labels"]),
            pictures,
            persons,
            tuple(definitions),
            about.get("kind", ""),
            about.get("modalities", {}),
        )

    def digest(self) -> str:
        """SHA-256 over everything a head's result depends on: ids, splits, labels, statuses,
        ratings."""
        hasher = hashlib.sha256("\0".join((self.dataset, *self.labels)).encode())
        columns = (self.persons["id"], self.persons["split"], self.persons["status"])
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            hasher.update("\0".join(values).encode())
        hasher.update(self.targets.tobytes())
        hasher.update(self.picture_rows.tobytes())
        if not np.isnan(self.vad).all():  # heads are fitted on ratings too
            hasher.update(self.vad.tobytes())
        if self.kind in ("single", "distribution"):
            hasher.update(self.kind.encode())
        return hasher.hexdigest()


def _as(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of any of `READABLE`, with the columns of today."""
    for name in schema.names:
        if name not in table.column_names:
            empty = "annotated" if name == "origin" else None if name == "face" else ""
            table = table.append_column(
                name, pa.array([empty] * len(table), schema.field(name).type)
            )
    return table.select(schema.names).cast(schema)


def recover_index(root: Path) -> None:
    """Put back the index that a killed `write` had moved aside. For the cache's only writer."""
    old = Path(root) / ".index.old"
    if old.exists() and not index_folder(root).exists():
        os.rename(old, index_folder(root))


def index_damage(root: Path) -> str:
    """What is wrong with the files of the index below `root`, in a sentence; "" when nothing is."""
    folder = index_folder(root)
    if not Path(root).is_dir():
        return f"there is no cache folder {root}: run `emocache prepare`, or set cache.root"
    if not folder.exists():
        return (
            f"no index in {folder}: run `emocache prepare` or `dvc pull prepare`, or set cache.root"
        )
    try:
        about = of_sealed_text((folder / "index.json").read_bytes())
    except OSError:
        about = None
    mend = "run `emocache cache repair`, or `dvc checkout --force` where DVC tracks it"
    if about is None or not {"format", "files"} <= about.keys():  # another file of the cache
        return f"{folder / 'index.json'} is missing or damaged: {mend}"
    if about["format"] not in READABLE:
        older = "move it away and run `emocache prepare`"
        return str(FormatError.of(f"the index in {folder}", about["format"], FORMAT, older))
    for name, expected in about["files"].items():
        path = folder / name
        if not path.is_file() or sha256_file(path) != expected:
            return f"{path} is missing or damaged: {mend}"
    stray = {path.name for path in folder.iterdir()} - {*about["files"], "index.json"}
    if stray:
        return (
            f"{folder} holds files that are not of the index: {', '.join(sorted(stray))}: "
            "delete them"
        )
    return ""
