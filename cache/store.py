"""One view of the cache on disk: a Zarr v3 group of arrays, shards with proof, and how to read it.

    <cache root>/<view>.zarr/
        zarr.json              the group; its attribute `emocache` says what the view is
        features/ box/ ...     the arrays, in person, picture or label row space
        status/                one code a row, see `cache.statuses`
        commits/view.json      what the view is, once more: one copy mends the other
        commits/000003.json    written last: rows, key and the SHA-256 and chunks of each file

A row counts when the commit record of its shard lists it, and never because a file exists:
unwritten rows of a Zarr array read as zeros. The record has the CRC-32C of every chunk; a read
compares the bytes with it, so that another shard in its place is noticed too. The SHA-256 is for
`cache.check`.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any, cast

import numpy as np
import zarr
from jaxtyping import Bool, Shaped, UInt8
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from cache.commits import Commit, commit_files
from cache.errors import CacheError, FormatError, KeyMismatch
from cache.files import json_bytes
from cache.keys import is_sealed, key_of, sealed
from cache.paths import view_folder, view_names
from cache.shards import CHUNKS_PER_SHARD, ArrayLayout, Compression
from cache.spec import ArraySpec, RowSpace, ViewSpec
from cache.statuses import STATUS

FORMAT = 2
ROW_DIMS = {"persons": "person", "pictures": "picture", "labels": "label"}
MEND = "run `emocache cache verify`, then `emocache cache repair`"
THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class ViewLayout:
    """A view as it lies on disk: what it is, how its rows are cut into shards and chunks, and the
    Zarr metadata of its group and arrays, by folder, as Zarr wrote it for a view of no rows."""

    spec: ViewSpec
    shard_rows: int
    chunk_rows: int
    compression: Compression
    metadata: Mapping[str, Mapping[str, Any]]

    @classmethod
    def new(cls, spec: ViewSpec, shard_rows: int, compression: Compression) -> "ViewLayout":
        chunk_rows = max(1, shard_rows // CHUNKS_PER_SHARD)
        shard_rows = chunk_rows * (shard_rows // chunk_rows)
        files: dict[str, Buffer] = {}
        store = MemoryStore(files)
        zarr.open_group(store, mode="w").create_group("commits")  # so that readers know the folder
        for name, array in spec.all_arrays.items():
            layout = ArrayLayout(array, shard_rows, chunk_rows, compression)
            layout.create(store, name, 0, ROW_DIMS[spec.space])
        metadata = {
            file.removesuffix("zarr.json").rstrip("/"): json.loads(files[file].to_bytes())
            for file in sorted(files)
        }
        return cls(spec, shard_rows, chunk_rows, compression, metadata)

    def files(self, rows: int) -> dict[str, bytes]:
        """The files of a view of `rows` rows that say what it is, by path in its folder."""
        record = self.record()
        files = {"commits/view.json": json_bytes(record)}
        for folder, metadata in self.metadata.items():
            file = f"{folder}/zarr.json".lstrip("/")
            if metadata["node_type"] == "array":
                metadata = {**metadata, "shape": [rows, *metadata["shape"][1:]]}
            elif not folder:
                metadata = {**metadata, "attributes": {"emocache": record}}
            files[file] = json_bytes(metadata)
        return files

    @cached_property
    def arrays(self) -> dict[str, ArrayLayout]:
        """How each array lies in its shards, `status` too."""
        return {
            name: ArrayLayout(array, self.shard_rows, self.chunk_rows, self.compression)
            for name, array in self.spec.all_arrays.items()
        }

    def record(self) -> dict[str, Any]:
        """As kept in the group's attributes and in `commits/view.json`."""
        spec = self.spec
        return sealed(
            {
                "format": FORMAT,
                "view": spec.name,
                "rows": spec.space,
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
    def of(cls, record: Any, where: Path) -> "ViewLayout":
        """From such a record; CacheError when it is of another format or not whole."""
        if not isinstance(record, dict) or "format" not in record:
            raise CacheError(f"{where} is not a view of emocache, or damaged: {MEND}")
        if record["format"] != FORMAT:
            older = "delete the folder and run `emocache extract`"
            raise FormatError.of(where, record["format"], FORMAT, older)
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


class StoredView:
    """A view of a cache, opened for reading. See `open_view`."""

    def __init__(self, root: Path, name: str):
        self.name = name
        self.path = view_folder(root, name)
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
            records = list(commit_files(self.path))
        except PermissionError as error:
            raise CacheError(f"{error.filename} may not be read: see its permissions") from error
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise CacheError(f"{self.path} cannot be opened ({error!r}): {MEND}") from error
        self.layout = ViewLayout.of(about, self.path)
        self.spec = self.layout.spec
        self.commits: dict[int, Commit] = {}
        for shard, record in records:
            commit = Commit.read(record)
            if commit is None or commit.shard != shard:
                raise CacheError(f"the commit record {record} is damaged: {MEND}")
            if commit.key != self.key:
                raise KeyMismatch(
                    f"{self.path} is of key {self.key[:12]} but its shard {shard} was committed "
                    f"with {commit.key[:12]}: delete the folder and run `emocache extract`"
                )
            self.commits[shard] = commit

    def __len__(self) -> int:
        return self.count

    @property
    def space(self) -> RowSpace:
        """What a row is of."""
        return self.spec.space

    @property
    def key(self) -> str:
        """The content key: see `cache.keys`."""
        return self.spec.key

    @property
    def trained(self) -> bool:
        """False when any network behind the view runs on random weights."""
        return all(weights["trained"] for weights in self.spec.weights)

    @cached_property
    def arrays(self) -> dict[str, "zarr.Array[Any]"]:
        """The Zarr arrays by name, for lazy reading; rows that no commit lists hold no data."""
        group = zarr.open_group(self.path, mode="r")
        return {name: cast("zarr.Array[Any]", group[name]) for name in self.spec.arrays}

    @cached_property
    def done(self) -> Bool[np.ndarray, " N"]:
        """The rows that a commit record lists."""
        done = np.zeros(len(self), bool)
        for commit in self.commits.values():
            done[commit.rows] = True
        return done

    @cached_property
    def status(self) -> UInt8[np.ndarray, " N"]:
        """Codes of `cache.statuses.STATUS`; `absent` where no commit lists the row."""
        return np.where(self.done, self._read("status"), STATUS["absent"]).astype(np.uint8)

    @cached_property
    def reasons(self) -> dict[int, str]:
        """Why a row failed, by row, in words."""
        commits = self.commits.values()
        return {row: why for commit in commits for row, why in commit.reasons.items()}

    def done_of(self, count: int) -> Bool[np.ndarray, " count"]:
        """`done` of an index of `count` rows, which may have grown since."""
        done = np.zeros(count, bool)
        done[: len(self)] = self.done[:count]
        return done

    def read(
        self, name: str = "features", out: Shaped[np.ndarray, "N ..."] | None = None
    ) -> Shaped[np.ndarray, "N ..."]:
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
        layout = self.layout.arrays[name]
        shape, dtype = (len(self), *layout.array.shape), np.dtype(layout.array.dtype)
        if out is None:
            out = np.empty(shape, dtype)
        elif out.shape != shape or out.dtype != dtype or not out.flags.c_contiguous:
            raise ValueError(
                f"view {self.name!r}, array {name!r} is {dtype} {shape}, C-contiguous: it cannot "
                f"be read into {out.dtype} {out.shape}"
            )
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
        layout, place = self.layout.arrays[name], str(self.path)
        for shard in shards:
            rows = out[shard * layout.shard_rows : (shard + 1) * layout.shard_rows]
            file = layout.file(name, shard)
            proof = self.commits[shard].files.get(file) if shard in self.commits else None
            if proof is None:
                rows[...] = layout.array.fill
            elif layout.read(f"{place}/{file}", rows, proof.chunks):
                raise CacheError(f"{place}/{file} is missing or damaged: {MEND}")


def open_view(root: Path, name: str) -> StoredView:
    """Open view `name` of the cache at `root`.

    Raises CacheError when it is absent, damaged or of another format, and KeyMismatch when its
    shards were written under different keys.
    """
    return StoredView(Path(root), name)


def _metadata(path: Path) -> dict[str, Any]:
    return json.loads((path / "zarr.json").read_text())
