"""One view of the cache on disk: a Zarr v3 group of arrays, shards with proof, and how to read it.

    <cache root>/<view>.zarr/
        zarr.json              the group; its attribute `emocache` says what the view is
        features/ box/ ...     the arrays, in person, picture or label row space
        status/                one code a row, see `STATUS`
        commits/view.json      what the view is, once more: one copy mends the other
        commits/000003.json    written last: rows, key and the SHA-256 and chunks of each file

A row counts when the commit record of its shard lists it, and never because a file exists:
unwritten rows of a Zarr array read as zeros. The record has the CRC-32C of every chunk; a read
compares the bytes with it, so that another shard in its place is noticed too. The SHA-256 is for
`cache.check`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any, Literal, cast

import numpy as np
import zarr
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from cache.errors import CacheError, KeyMismatch
from cache.files import read_bytes, write_atomic, writing_to
from cache.keys import is_sealed, key_of, of_sealed_text, sealed
from cache.shards import CHUNKS_PER_SHARD, STATUS_ARRAY, ArraySpec, Compression, Layout

FORMAT = 2
STATUS = {
    "absent": 0,
    "ok": 1,
    "no_face": 2,
    "no_object": 3,
    "bad_box": 4,
    "unreadable": 5,
    "missing": 6,
}
FAILED = ("bad_box", "unreadable", "missing")  # what another try may mend
WORDS = {code: word for word, code in STATUS.items()}
ROW_DIMS = {"persons": "person", "pictures": "picture", "labels": "label"}
THREADS = min(8, os.cpu_count() or 1)

RowSpace = Literal["persons", "pictures", "labels"]


@dataclass(frozen=True)
class ViewSpec:
    """What a view is: its row space, arrays, key parts, the weights it came from, and `facts`
    that readers want to know but that decide no number (the detector's class names)."""

    name: str
    rows: RowSpace
    arrays: Mapping[str, ArraySpec]
    parts: Mapping[str, Any]
    weights: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        return key_of(self.parts)

    @property
    def all_arrays(self) -> dict[str, ArraySpec]:
        """The arrays with `status`, which every view has."""
        return {**self.arrays, "status": STATUS_ARRAY}

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in all arrays, uncompressed."""
        arrays = self.all_arrays.values()
        return sum(array.size * np.dtype(array.dtype).itemsize for array in arrays)


@dataclass(frozen=True)
class Stored:
    """A view as it lies on disk: what it is, how its rows are cut into shards and chunks, and the
    Zarr metadata of its group and arrays, by folder, as Zarr wrote it for a view of no rows."""

    spec: ViewSpec
    shard_rows: int
    chunk_rows: int
    compression: Compression
    metadata: Mapping[str, Mapping[str, Any]]

    @classmethod
    def new(cls, spec: ViewSpec, shard_rows: int, compression: Compression) -> "Stored":
        chunk_rows = max(1, shard_rows // CHUNKS_PER_SHARD)
        shard_rows = chunk_rows * (shard_rows // chunk_rows)
        files: dict[str, Buffer] = {}
        store = MemoryStore(files)
        zarr.open_group(store, mode="w").create_group("commits")  # so that readers know the folder
        for name, array in spec.all_arrays.items():
            layout = Layout(array, shard_rows, chunk_rows, compression)
            layout.create(store, name, 0, ROW_DIMS[spec.rows])
        metadata = {
            file.removesuffix("zarr.json").rstrip("/"): json.loads(files[file].to_bytes())
            for file in sorted(files)
        }
        return cls(spec, shard_rows, chunk_rows, compression, metadata)

    def files(self, rows: int) -> dict[str, bytes]:
        """The files of a view of `rows` rows that say what it is, by path in its folder."""
        record = self.record()
        files = {"commits/view.json": as_json(record)}
        for folder, metadata in self.metadata.items():
            file = f"{folder}/zarr.json".lstrip("/")
            if metadata["node_type"] == "array":
                metadata = {**metadata, "shape": [rows, *metadata["shape"][1:]]}
            elif not folder:
                metadata = {**metadata, "attributes": {"emocache": record}}
            files[file] = as_json(metadata)
        return files

    @cached_property
    def layouts(self) -> dict[str, Layout]:
        return {
            name: Layout(array, self.shard_rows, self.chunk_rows, self.compression)
            for name, array in self.spec.all_arrays.items()
        }

    def record(self) -> dict[str, Any]:
        """As kept in the group's attributes and in `commits/view.json`."""
        spec = self.spec
        return sealed(
            {
                "format": FORMAT,
                "view": spec.name,
                "rows": spec.rows,
                "key": spec.key,
                "parts": dict(spec.parts),
                "weights": [dict(weights) for weights in spec.weights],
                "facts": dict(spec.facts),
                "arrays": {name: array.as_dict() for name, array in spec.arrays.items()},
                "shard_rows": self.shard_rows,
                "chunk_rows": self.chunk_rows,
                "compression": self.compression,
                "zarr": {folder: dict(facts) for folder, facts in self.metadata.items()},
            }
        )

    @classmethod
    def of(cls, record: Any, where: Path) -> "Stored":
        """From such a record; CacheError when it is of another format or not whole."""
        if not isinstance(record, dict) or "format" not in record:
            raise CacheError(f"{where} is not a view of emocache, or damaged: {MEND}")
        if record["format"] != FORMAT:
            advice = (
                "upgrade emocache"
                if str(record["format"]) > str(FORMAT)
                else "delete the folder and run `emocache extract`"
            )
            raise CacheError(
                f"{where} has format {record['format']}, this emocache reads {FORMAT}: {advice}"
            )
        if not is_sealed(record) or key_of(record["parts"]) != record["key"]:
            raise CacheError(f"what {where} says of itself is damaged: {MEND}")
        arrays = {name: ArraySpec.of(facts) for name, facts in record["arrays"].items()}
        spec = ViewSpec(
            record["view"],
            record["rows"],
            arrays,
            record["parts"],
            record["weights"],
            record["facts"],
        )
        return cls(
            spec,
            record["shard_rows"],
            record["chunk_rows"],
            record["compression"],
            record["zarr"],
        )


MEND = "run `emocache cache verify`, then `emocache cache repair`"


def as_json(record: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file of the cache: the same ones for the same content."""
    return json.dumps(record, indent=1).encode()


def path_of(root: Path, name: str) -> Path:
    return Path(root) / f"{name}.zarr"


def view_names(root: Path) -> list[str]:
    """Names of the views that a cache holds, sorted."""
    return sorted(path.stem for path in Path(root).glob("*.zarr"))


def record_path(view: Path, shard: int) -> Path:
    return view / "commits" / f"{shard:06d}.json"


def commit_records(view: Path) -> list[tuple[int, str]]:
    """Number of each shard that has a commit record, and the record's path."""
    folder = str(view / "commits")
    names = [name for name in os.listdir(folder) if name[0].isdigit() and name.endswith(".json")]
    return [(int(name[:-5]), f"{folder}/{name}") for name in sorted(names)]


def read_record(path: Path | str) -> dict[str, Any] | None:
    """A commit record; None when it is damaged."""
    try:
        return of_sealed_text(read_bytes(path))
    except OSError:
        return None


def rows_of(commit: Mapping[str, Any]) -> np.ndarray:
    """The rows that a commit record lists, sorted."""
    ranges = [np.arange(start, stop) for start, stop in commit["done"]]
    return np.concatenate(ranges) if ranges else np.zeros(0, int)


def ids_digest(ids: Sequence[str], rows: np.ndarray) -> str:
    """SHA-256 over the ids of `rows`: tells whether an index still matches a shard."""
    return hashlib.sha256("\n".join(ids[row] for row in rows.tolist()).encode()).hexdigest()


class View:
    """A view opened for reading. See `open_view`."""

    def __init__(self, root: Path, name: str):
        self.name = name
        self.path = path_of(root, name)
        if not Path(root).is_dir():
            raise CacheError(f"there is no cache folder {root}: run `emocache extract`")
        if not self.path.is_dir():
            raise CacheError(
                f"the cache {root} has no view {name!r} (it has: "
                f"{', '.join(view_names(root)) or 'none'}): run `emocache extract`"
            )
        try:  # the two facts that are needed of Zarr's metadata, without opening all of it
            about = _metadata(self.path)["attributes"]["emocache"]
            self.count = int(_metadata(self.path / "status")["shape"][0])
            records = commit_records(self.path)
        except PermissionError as error:
            raise CacheError(f"{error.filename} may not be read: see its permissions") from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CacheError(f"{self.path} cannot be opened ({error!r}): {MEND}") from error
        self.stored = Stored.of(about, self.path)
        self.spec = self.stored.spec
        self.rows: RowSpace = self.spec.rows
        self.key: str = self.spec.key
        self.parts = self.spec.parts
        self.weights = self.spec.weights
        self.facts = self.spec.facts
        self.commits: dict[int, dict[str, Any]] = {}
        for shard, record in records:
            commit = read_record(record)
            if commit is None or commit["shard"] != shard:
                raise CacheError(f"the commit record {record} is damaged: {MEND}")
            if commit["key"] != self.key:
                raise KeyMismatch(
                    f"{self.path} is of key {self.key[:12]} but its shard {commit['shard']} was "
                    f"committed with {commit['key'][:12]}: delete the folder and run "
                    "`emocache extract`"
                )
            self.commits[shard] = commit

    def __len__(self) -> int:
        return self.count

    @property
    def trained(self) -> bool:
        """False when any network behind the view runs on random weights."""
        return all(weights["trained"] for weights in self.weights)

    @cached_property
    def arrays(self) -> dict[str, zarr.Array]:
        """The Zarr arrays by name, for lazy reading; rows that no commit lists hold no data."""
        group = zarr.open_group(self.path, mode="r")
        return {name: cast(zarr.Array, group[name]) for name in self.spec.arrays}

    @cached_property
    def done(self) -> np.ndarray:
        """(N,) bool: the rows that a commit record lists."""
        done = np.zeros(len(self), bool)
        for commit in self.commits.values():
            done[rows_of(commit)] = True
        return done

    @cached_property
    def status(self) -> np.ndarray:
        """(N,) uint8: codes of `STATUS`; `absent` where no commit lists the row."""
        return np.where(self.done, self._read("status"), STATUS["absent"]).astype(np.uint8)

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Why a row failed, by row, in words."""
        commits = self.commits.values()
        return {int(row): why for commit in commits for row, why in commit["reasons"].items()}

    def read(self, name: str = "features", out: np.ndarray | None = None) -> np.ndarray:
        """The whole array `name`, (N, ...), in the dtype of the store; read into `out` where given,
        which must be C-contiguous (a mapped file, say).

        Every chunk is checked against its CRC-32C; CacheError when one is damaged or missing.
        Rows that no commit lists hold the array's fill value. `torch.from_numpy` takes the result
        without a copy.
        """
        if name not in self.spec.arrays:
            raise CacheError(
                f"view {self.name!r} has no array {name!r}: it has {list(self.spec.arrays)}"
            )
        return self._read(name, out)

    def _read(self, name: str, out: np.ndarray | None = None) -> np.ndarray:
        layout = self.stored.layouts[name]
        if out is None:
            out = np.empty((len(self), *layout.array.shape), layout.array.dtype)
        count = -(-len(self) // layout.shard_rows)
        shards = iter(range(count))  # shared: each thread takes the next one
        errors: list[BaseException] = []

        def work() -> None:
            try:
                self._read_shards(name, shards, out)
            except BaseException as error:
                errors.append(error)

        others = [Thread(target=work) for _ in range(min(THREADS, count) - 1)]
        for thread in others:
            thread.start()
        work()  # this thread reads too, instead of waiting
        for thread in others:
            thread.join()
        if errors:
            raise errors[0]
        return out

    def _read_shards(self, name: str, shards: Iterable[int], out: np.ndarray) -> None:
        layout, place = self.stored.layouts[name], str(self.path)
        for shard in shards:
            rows = out[shard * layout.shard_rows : (shard + 1) * layout.shard_rows]
            file = layout.file(name, shard)
            proof = self.commits[shard]["files"].get(file) if shard in self.commits else None
            if proof is None:
                rows[...] = layout.array.fill
            elif layout.read(f"{place}/{file}", rows, proof["chunks"]):
                raise CacheError(f"{place}/{file} is missing or damaged: {MEND}")


def open_view(root: Path, name: str) -> View:
    """Open view `name` of the cache at `root`.

    Raises CacheError when it is absent, damaged or of another format, and KeyMismatch when its
    shards were written under different keys.
    """
    return View(Path(root), name)


def _metadata(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_text())


# ------------------------------------------------------------------------------------ manifest


def manifest_of(root: Path, index_digest: str) -> dict[str, Any]:
    """Per view its key and the hash of its commits, with the index's digest; small and stable."""
    views = {}
    for name in view_names(root):
        view = open_view(root, name)
        commits = hashlib.sha256()
        for shard in sorted(view.commits):
            commits.update(record_path(view.path, shard).read_bytes())
        views[name] = {
            "key": view.key,
            "rows": int(view.done.sum()),
            "trained": view.trained,
            "commits": commits.hexdigest(),
        }
    return sealed({"format": FORMAT, "index": index_digest, "views": views})


def write_manifest(root: Path, index_digest: str) -> dict[str, Any]:
    """Write `<root>/manifest.json`. Head stages depend on it, so that they notice a changed cache
    without hashing it whole."""
    manifest = manifest_of(root, index_digest)
    with writing_to(Path(root) / "manifest.json"):
        write_atomic(Path(root) / "manifest.json", as_json(manifest))
    return manifest


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest as it was written last; None where it is missing or damaged."""
    try:
        data = (Path(root) / "manifest.json").read_bytes()
        manifest = json.loads(data)
        whole = is_sealed(manifest) and "views" in manifest and as_json(manifest) == data
    except (OSError, ValueError, AttributeError):
        return None
    return manifest if whole else None
