"""One view of the cache on disk: a Zarr v3 group written shard by shard, each with a commit record.

    <cache root>/<view>.zarr/
        zarr.json              the group: key, key parts, weights, row space
        features/ box/ ...     the arrays, in person, picture or label row space
        status/                one code a row, see `STATUS`
        commits/000003.json    written last: rows, key, SHA-256 and size of each file of shard 3

A row counts when the commit record of its shard lists it, and never because a file exists:
unwritten rows of a Zarr array read as zeros. A checksum codec inside every shard lets any Zarr
reader notice damage; the commit's SHA-256 notices a missing or replaced file as well.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from cache.errors import CacheError, KeyMismatch
from cache.files import sha256_file, sync, write_atomic
from cache.keys import key_of

FORMAT = 1
STATUS = {
    "absent": 0,
    "ok": 1,
    "no_face": 2,
    "no_object": 3,
    "bad_box": 4,
    "unreadable": 5,
    "missing": 6,
}
WORDS = {code: word for word, code in STATUS.items()}
CHUNKS_PER_SHARD = 8

RowSpace = Literal["persons", "pictures", "labels"]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a view: the shape and dtype of a row, and the value of a padded one."""

    shape: tuple[int, ...] = ()
    dtype: str = "float16"
    fill: float = 0


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


@dataclass
class Row:
    """What extraction says of one row: a status word, a value an array, a reason if it failed."""

    status: str = "ok"
    values: dict[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""


def path_of(root: Path, name: str) -> Path:
    return Path(root) / f"{name}.zarr"


def view_names(root: Path) -> list[str]:
    """Names of the views that a cache holds, sorted."""
    return sorted(path.stem for path in Path(root).glob("*.zarr"))


# ------------------------------------------------------------------------------------- reading


class View:
    """A view opened for reading. See `open_view`."""

    def __init__(self, root: Path, name: str):
        self.name = name
        self.path = path_of(root, name)
        if not (self.path / "zarr.json").exists():
            raise CacheError(
                f"the cache {root} has no view {name!r} (it has: "
                f"{', '.join(view_names(root)) or 'none'}): run `emocache extract`"
            )
        self.group = zarr.open_group(self.path, mode="r")
        about: dict[str, Any] = cast(Any, self.group.attrs["emocache"])
        if about["format"] > FORMAT:
            raise CacheError(
                f"{self.path} has format {about['format']}, this emocache reads up to {FORMAT}: "
                "upgrade emocache"
            )
        self.rows: RowSpace = about["rows"]
        self.key: str = about["key"]
        self.parts: dict[str, Any] = about["parts"]
        self.weights: list[dict[str, Any]] = about["weights"]
        self.facts: dict[str, Any] = about["facts"]
        self.shard_rows: int = about["shard_rows"]
        self.commits = _read_commits(self.path)
        for shard, commit in self.commits.items():
            if commit["key"] != self.key:
                raise KeyMismatch(
                    f"{self.path} is of key {self.key[:12]} but its shard {shard} was committed "
                    f"with {commit['key'][:12]}: run `emocache extract` to make it again"
                )

    def __len__(self) -> int:
        return _array(self.group, "status").shape[0]

    @property
    def trained(self) -> bool:
        """False when any network behind the view runs on random weights."""
        return all(weights["trained"] for weights in self.weights)

    @cached_property
    def arrays(self) -> dict[str, zarr.Array]:
        """The Zarr arrays by name, for lazy reading; rows that no commit lists hold no data."""
        return {name: array for name, array in self.group.arrays() if name != "status"}

    @cached_property
    def done(self) -> np.ndarray:
        """(N,) bool: the rows that a commit record lists."""
        done = np.zeros(len(self), bool)
        for commit in self.commits.values():
            for start, stop in commit["done"]:
                done[start:stop] = True
        return done

    @cached_property
    def status(self) -> np.ndarray:
        """(N,) uint8: codes of `STATUS`; `absent` where no commit lists the row."""
        return np.where(self.done, self._checked("status"), STATUS["absent"]).astype(np.uint8)

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Why a row failed, by row, in words."""
        commits = self.commits.values()
        return {int(row): why for commit in commits for row, why in commit["reasons"].items()}

    def read(self, name: str = "features") -> np.ndarray:
        """The whole array `name`, (N, ...), in the dtype of the store."""
        if name not in self.arrays:
            raise CacheError(
                f"view {self.name!r} has no array {name!r}: it has {list(self.arrays)}"
            )
        return self._checked(name)

    def _checked(self, name: str) -> np.ndarray:
        for shard, commit in self.commits.items():
            for file, proof in commit["files"].items():
                path = self.path / file
                if not file.startswith(f"{name}/"):
                    continue
                if not path.exists() or path.stat().st_size != proof["bytes"]:
                    raise CacheError(
                        f"{path}, part of committed shard {shard}, is missing or of another "
                        f"size: delete {self.path}/commits/{shard:06d}.json and run "
                        "`emocache extract` to make the shard again"
                    )
        return np.asarray(_array(self.group, name)[:])


def open_view(root: Path, name: str) -> View:
    """Open view `name` of the cache at `root`.

    Raises CacheError when it is absent, damaged or of a newer format, and KeyMismatch when its
    shards were written under different keys.
    """
    return View(Path(root), name)


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def _read_commits(path: Path) -> dict[int, dict[str, Any]]:
    records = sorted((path / "commits").glob("[0-9]*.json"))
    return {int(record.stem): json.loads(record.read_text()) for record in records}


# ------------------------------------------------------------------------------------- writing


class ViewWriter:
    """Writes rows of one view; a shard is committed as soon as its last expected row has come.

    One process writes one view at a time. A view of another key at the same place is replaced,
    since its rows are stale.
    """

    def __init__(
        self,
        root: Path,
        spec: ViewSpec,
        ids: Sequence[str],
        shard_rows: int = 1024,
        compression: Literal["none", "zstd"] = "none",
    ):
        self.spec, self.ids = spec, ids
        self.path = path_of(root, spec.name)
        if (self.path / "zarr.json").exists() and View(root, spec.name).key != spec.key:
            # Out of its place first: a kill while it is deleted leaves no half of it there.
            stale = self.path.with_name(f".{self.path.name}.stale.partial")
            shutil.rmtree(stale, ignore_errors=True)
            os.rename(self.path, stale)
            shutil.rmtree(stale)
        if not (self.path / "zarr.json").exists():
            self._create(shard_rows, compression)
        for partial in self.path.rglob("*.partial"):
            partial.unlink()
        view = View(root, spec.name)
        self.shard_rows = view.shard_rows
        self.group = zarr.open_group(self.path, mode="a")
        self.done = np.zeros(len(ids), bool)
        kept = min(len(ids), len(view))
        self.done[:kept] = view.done[:kept]
        self._grow()
        self._expected: dict[int, set[int]] = {}
        self._buffers: dict[int, dict[int, Row]] = {}

    def expect(self, rows: Iterable[int]) -> None:
        """Name the rows that will be put, so that a shard knows when it is complete."""
        for row in rows:
            self._expected.setdefault(row // self.shard_rows, set()).add(int(row))

    def put(self, row: int, value: Row) -> None:
        """Take one row; commits its shard when no expected row of it is missing any more."""
        shard = row // self.shard_rows
        self._buffers.setdefault(shard, {})[row] = value
        waiting = self._expected.get(shard, set())
        waiting.discard(row)
        if not waiting:
            self._commit(shard)

    def forget(self, row: int) -> None:
        """An expected row will not come this time; its shard does not wait for it."""
        shard = row // self.shard_rows
        waiting = self._expected.get(shard, set())
        waiting.discard(row)
        if not waiting and shard in self._buffers:
            self._commit(shard)

    def close(self) -> None:
        """Commit what is buffered, also shards that did not get every expected row."""
        for shard in list(self._buffers):
            self._commit(shard)

    def _create(self, shard_rows: int, compression: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Made beside its place, so that a kill leaves no half of a view there.
        made = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(made, ignore_errors=True)
        group = zarr.open_group(made, mode="w")
        chunk_rows = max(1, shard_rows // CHUNKS_PER_SHARD)
        shard_rows = chunk_rows * (shard_rows // chunk_rows)
        squeeze = (ZstdCodec(),) if compression == "zstd" else ()
        for name, array in {**self.spec.arrays, "status": ArraySpec((), "uint8")}.items():
            group.create_array(
                name,
                shape=(0, *array.shape),
                dtype=array.dtype,
                chunks=(chunk_rows, *array.shape),
                shards=(shard_rows, *array.shape),
                compressors=(*squeeze, Crc32cCodec()),
                fill_value=array.fill,
            )
        group.create_group("commits")  # so that other readers know the folder
        group.attrs["emocache"] = {
            "format": FORMAT,
            "view": self.spec.name,
            "rows": self.spec.rows,
            "key": self.spec.key,
            "parts": dict(self.spec.parts),
            "weights": [dict(weights) for weights in self.spec.weights],
            "facts": dict(self.spec.facts),
            "shard_rows": shard_rows,
        }
        os.rename(made, self.path)

    def _grow(self) -> None:
        for _, array in self.group.arrays():
            if array.shape[0] < len(self.ids):
                array.resize((len(self.ids), *array.shape[1:]))

    def _commit(self, shard: int) -> None:
        new = self._buffers.pop(shard)
        start = shard * self.shard_rows
        stop = min(start + self.shard_rows, len(self.ids))
        record = self.path / "commits" / f"{shard:06d}.json"
        old = json.loads(record.read_text()) if record.exists() else {"reasons": {}}
        if record.exists():
            # Without its record the shard is open: a kill from here on redoes it, no more.
            record.unlink()
            sync(record.parent)
        rows = sorted(new)
        for name, array in {**self.spec.arrays, "status": ArraySpec((), "uint8")}.items():
            block = self._block(name, array, start, stop)
            for row in rows:
                block[row - start] = self._value(name, array, row, new[row])
            _array(self.group, name)[start:stop] = block
        self.done[rows] = True
        reasons = {**old["reasons"], **{str(row): new[row].reason for row in rows}}
        files: dict[str, dict[str, Any]] = {}
        commit = {
            "shard": shard,
            "key": self.spec.key,
            "done": _ranges(np.flatnonzero(self.done[start:stop]) + start),
            "ids": ids_digest(self.ids, np.flatnonzero(self.done[start:stop]) + start),
            "reasons": {row: why for row, why in reasons.items() if why},
            "files": files,
        }
        for name in (*self.spec.arrays, "status"):
            dimensions = len(self.spec.arrays[name].shape) if name != "status" else 0
            file = "/".join([name, "c", str(shard), *["0"] * dimensions])
            path = self.path / file
            if path.exists():  # Zarr writes no file for a shard that holds only its fill value
                sync(path)
                sync(path.parent)
                proof = {"bytes": path.stat().st_size, "sha256": sha256_file(path)}
                files[file] = proof
        write_atomic(record, json.dumps(commit, indent=1).encode())
        sync(record.parent)

    def _block(self, name: str, array: ArraySpec, start: int, stop: int) -> np.ndarray:
        if self.done[start:stop].any():
            return np.asarray(_array(self.group, name)[start:stop])
        return np.full((stop - start, *array.shape), array.fill, array.dtype)

    def _value(self, name: str, array: ArraySpec, row: int, value: Row) -> Any:
        if name == "status":
            return STATUS[value.status]
        if name not in value.values:
            return array.fill
        with np.errstate(over="ignore"):  # an overflow is refused below, by name
            given = np.asarray(value.values[name]).astype(array.dtype)
        if given.shape != array.shape:
            raise ValueError(f"{self.spec.name}.{name} row {row}: {given.shape} != {array.shape}")
        if given.dtype.kind == "f" and not np.isfinite(given).all():
            raise CacheError(
                f"view {self.spec.name!r}, array {name!r}, row {row} is not finite in "
                f"{array.dtype}: set cache.dtype to float32, or check the network's weights"
            )
        return given


def _ranges(rows: np.ndarray) -> list[list[int]]:
    """Sorted row numbers as half-open ranges: 0 1 2 5 -> [[0, 3], [5, 6]]."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs if len(run)]


def ids_digest(ids: Sequence[str], rows: Iterable[int]) -> str:
    """SHA-256 over the ids of `rows`: tells whether an index still matches a shard."""
    return hashlib.sha256("\n".join(ids[row] for row in rows).encode()).hexdigest()


# ------------------------------------------------------------------------------------ manifest


def write_manifest(root: Path, index_digest: str) -> dict[str, Any]:
    """Write `<root>/manifest.json`: per view its key and the hash of its commits; small and stable.

    Head stages depend on it, so that they notice a changed cache without hashing it whole.
    """
    views = {}
    for name in view_names(root):
        view = open_view(root, name)
        commits = hashlib.sha256()
        for record in sorted((view.path / "commits").glob("[0-9]*.json")):
            commits.update(record.read_bytes())
        views[name] = {
            "key": view.key,
            "rows": int(view.done.sum()),
            "trained": view.trained,
            "commits": commits.hexdigest(),
        }
    manifest = {"format": FORMAT, "index": index_digest, "views": views}
    write_atomic(Path(root) / "manifest.json", json.dumps(manifest, indent=1).encode())
    return manifest


def cache_key(views: Mapping[str, View], index_digest: str) -> str:
    """One key for a result: of the views it read and of the index."""
    return key_of({"index": index_digest, **{name: view.key for name, view in views.items()}})
