"""Writes one view shard by shard: files first, flushed to the disk, and the commit record last."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError
from cache.files import sync, write_atomic, write_partial, writing_to
from cache.keys import sealed_text
from cache.shards import ArraySpec, Compression
from cache.store import (
    MEND,
    STATUS,
    Stored,
    View,
    ViewSpec,
    ids_digest,
    path_of,
    record_path,
    rows_of,
)


@dataclass
class Row:
    """What extraction says of one row: a status word, a value an array, a reason if it failed."""

    status: str = "ok"
    values: dict[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""


class ViewWriter:
    """Writes rows of one view; a shard is committed as soon as its last expected row has come.

    ids: what names each row of the row space; shard_rows, compression: for a new view, an old one
    keeps its own. One process writes a cache at a time (`cache.lock`). A view of another key at
    the same place is replaced, since its rows are stale.
    """

    def __init__(
        self,
        root: Path,
        spec: ViewSpec,
        ids: Sequence[str],
        shard_rows: int = 1024,
        compression: Compression = "none",
    ):
        self.spec, self.ids = spec, ids
        self.path = path_of(root, spec.name)
        with writing_to(self.path):
            if self.path.exists() and View(root, spec.name).key != spec.key:
                # Out of its place first: a kill while it is deleted leaves no half of it there.
                stale = self.path.with_name(f".{self.path.name}.stale.partial")
                shutil.rmtree(stale, ignore_errors=True)
                os.rename(self.path, stale)
                shutil.rmtree(stale)
            if not self.path.exists():
                self._create(Stored.new(spec, shard_rows, compression))
            sweep(self.path)
            view = View(root, spec.name)
            self.stored = view.stored
            self.shard_rows = view.stored.shard_rows
            self.commits = view.commits
            self.done = np.zeros(len(ids), bool)
            kept = min(len(ids), len(view))
            self.done[:kept] = view.done[:kept]
            if len(view) < len(ids):
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

    def retract(self, shard: int, rows: np.ndarray) -> None:
        """Take `rows` out of a committed shard, as if they had never been written.

        The other rows stay; their bytes are read and must be whole.
        """
        gone = set(rows.tolist())
        start, stop = self._span(shard)
        left = [row for row in rows_of(self.commits[shard]).tolist() if row not in gone]
        self.done[start:stop] = False
        self.done[left] = True
        if not left:
            self._open(shard)
            for name, layout in self.stored.layouts.items():
                (self.path / layout.file(name, shard)).unlink(missing_ok=True)
            return
        blocks = {}
        for name, layout in self.stored.layouts.items():
            block = layout.empty(stop - start)
            file = layout.file(name, shard)
            if proof := self.commits[shard]["files"].get(file):
                bad = layout.read(self.path / file, block, proof["chunks"])
                if any(set(range(start + a, start + b)) & set(left) for a, b in bad):
                    raise CacheError(f"{self.path}, shard {shard}: rows to keep are damaged")
            block[~self.done[start:stop]] = layout.array.fill
            blocks[name] = block
        reasons = self.commits[shard]["reasons"]
        self._write(shard, blocks, {r: why for r, why in reasons.items() if int(r) not in gone})

    def _create(self, stored: Stored) -> None:
        # Made beside its place, so that a kill leaves no half of a view there.
        made = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(made, ignore_errors=True)
        for file, data in stored.files(rows=0).items():
            write_atomic(made / file, data)
        os.rename(made, self.path)
        sync(self.path.parent)

    def _grow(self) -> None:
        files = self.stored.files(rows=len(self.ids))
        for name in self.stored.layouts:  # `status` last: it tells how many rows the view has
            write_atomic(self.path / name / "zarr.json", files[f"{name}/zarr.json"])

    def _span(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the one after its last."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, len(self.ids))

    def _commit(self, shard: int) -> None:
        """Add the buffered rows to those that the shard has."""
        new = self._buffers.pop(shard)
        start, stop = self._span(shard)
        had = self.commits.get(shard, {"files": {}, "reasons": {}})
        blocks = {}
        for name, layout in self.stored.layouts.items():
            block = layout.empty(stop - start)
            file = layout.file(name, shard)
            proof = had["files"].get(file)
            if proof and layout.read(self.path / file, block, proof["chunks"]):
                raise CacheError(f"{self.path / file} is damaged: {MEND}")
            for row in sorted(new):
                block[row - start] = self._value(name, layout.array, row, new[row])
            blocks[name] = block
        self.done[list(new)] = True
        reasons = {**had["reasons"], **{str(row): new[row].reason for row in sorted(new)}}
        self._write(shard, blocks, {row: why for row, why in reasons.items() if why})

    def _write(self, shard: int, blocks: dict[str, np.ndarray], reasons: dict[str, str]) -> None:
        """Replace a shard. Everything is on the disk under other names before the old record goes,
        so a full disk costs nothing that was committed, and a kill one shard at most."""
        start, stop = self._span(shard)
        rows = np.flatnonzero(self.done[start:stop]) + start
        files: dict[str, dict[str, Any]] = {}
        partials: dict[Path, Path] = {}
        empty: list[Path] = []
        with writing_to(self.path), contextlib.ExitStack() as failed:
            failed.callback(lambda: _delete(partials.values()))
            for name, layout in self.stored.layouts.items():
                file = layout.file(name, shard)
                encoded = layout.encode(blocks[name])
                if encoded is None:
                    empty.append(self.path / file)
                    continue
                data, chunks = encoded
                partials[self.path / file] = write_partial(self.path / file, data)
                files[file] = {
                    "bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "chunks": chunks,
                }
            commit = {
                "shard": shard,
                "key": self.spec.key,
                "done": _ranges(rows),
                "ids": ids_digest(self.ids, rows),
                "reasons": dict(sorted(reasons.items(), key=lambda item: int(item[0]))),
                "files": files,
            }
            record = record_path(self.path, shard)
            partials[record] = write_partial(record, sealed_text(commit))
            self._open(shard)
            _delete(empty)
            for path, partial in partials.items():  # the record comes last
                if path == record:
                    for folder in {other.parent for other in partials if other != record}:
                        sync(folder)
                os.replace(partial, path)
            sync(record.parent)
            failed.pop_all()
        self.commits[shard] = commit

    def _open(self, shard: int) -> None:
        """Without its record a shard does not count: a kill from here on redoes it, no more."""
        record = record_path(self.path, shard)
        if record.exists():
            record.unlink()
            sync(record.parent)
        self.commits.pop(shard, None)

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


def sweep(folder: Path) -> None:
    """Delete what a killed writer left half-written in a view or a whole cache."""
    for partial in list(folder.rglob("*.partial")):
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def _delete(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _ranges(rows: np.ndarray) -> list[list[int]]:
    """Sorted row numbers as half-open ranges: 0 1 2 5 -> [[0, 3], [5, 6]]."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs if len(run)]
