"""Writes one view shard by shard: files first, flushed to the disk, and the commit record last."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.commits import Commit, Proof
from cache.errors import CacheError
from cache.files import discard, sweep, sync, write_atomic, write_partial, writing_to
from cache.paths import aside, commit_file, view_folder
from cache.shards import Compression
from cache.spec import ArraySpec, Row, ViewSpec
from cache.statuses import STATUS, WORDS
from cache.store import MEND, StoredView, ViewLayout


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
        self.path = view_folder(root, spec.name)
        with writing_to(self.path):
            if self.path.exists() and StoredView(root, spec.name).key != spec.key:
                discard(self.path)
            if not self.path.exists():
                self._create(ViewLayout.new(spec, shard_rows, compression))
            sweep(self.path)
            view = StoredView(root, spec.name)
            self.layout = view.layout
            self.shard_rows = view.layout.shard_rows
            self.commits = view.commits
            self.done = view.done_of(len(ids))
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

    def put_all(
        self,
        places: Mapping[int, int],
        arrays: Mapping[str, np.ndarray],
        status: np.ndarray,
        reasons: Mapping[int, str],
    ) -> None:
        """Put rows that stand in arrays. places: row here -> row of `arrays`, of `status` (codes)
        and of `reasons`."""
        self.expect(places)
        for row, at in sorted(places.items()):
            values = {name: array[at] for name, array in arrays.items()}
            self.put(row, Row(WORDS[int(status[at])], values, reasons.get(at, "")))
        self.close()

    def forget(self, row: int) -> None:
        """An expected row will not come this time; its shard does not wait for it."""
        shard = row // self.shard_rows
        waiting = self._expected.get(shard, set())
        waiting.discard(row)
        if not waiting and shard in self._buffers:
            self._commit(shard)

    def close(self) -> None:
        """Commit what is buffered, also shards that did not get every expected row."""
        with contextlib.ExitStack() as closing:  # one that fails does not keep the others
            for shard in list(self._buffers):
                closing.callback(self._commit, shard)

    def retract(self, shard: int, rows: np.ndarray) -> None:
        """Take `rows` out of a committed shard, as if they had never been written.

        The other rows stay; their bytes are read and must be whole.
        """
        commit = self.commits[shard]
        start, stop = self._span(shard)
        left = np.setdiff1d(commit.rows, rows)
        if not len(left):
            self.done[start:stop] = False
            self._uncommit(shard)
            for name, layout in self.layout.arrays.items():
                (self.path / layout.file(name, shard)).unlink(missing_ok=True)
            return
        blocks, kept = {}, set(left.tolist())
        for name, layout in self.layout.arrays.items():
            blocks[name], bad = self._read(name, shard)
            if any(kept & set(range(start + a, start + b)) for a, b in bad):
                file = self.path / layout.file(name, shard)
                raise CacheError(f"{file}: rows that should stay are damaged: {MEND}")
            blocks[name][np.setdiff1d(np.arange(start, stop), left) - start] = layout.array.fill
        reasons = {row: why for row, why in commit.reasons.items() if row in kept}
        self._write(shard, left, blocks, reasons)

    def _create(self, stored: ViewLayout) -> None:
        made = aside(self.path)
        shutil.rmtree(made, ignore_errors=True)
        for file, data in stored.files(rows=0).items():
            write_atomic(made / file, data)
        os.rename(made, self.path)
        sync(self.path.parent)

    def _grow(self) -> None:
        files = self.layout.files(rows=len(self.ids))
        for name in self.layout.arrays:  # `status` last: it tells how many rows the view has
            write_atomic(self.path / name / "zarr.json", files[f"{name}/zarr.json"])

    def _span(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the one after its last."""
        return shard * self.shard_rows, min((shard + 1) * self.shard_rows, len(self.ids))

    def _commit(self, shard: int) -> None:
        """Add the buffered rows to those that the shard has."""
        new = self._buffers.pop(shard)
        start, stop = self._span(shard)
        blocks = {}
        for name, layout in self.layout.arrays.items():
            blocks[name], bad = self._read(name, shard)
            if bad:
                raise CacheError(f"{self.path / layout.file(name, shard)} is damaged: {MEND}")
            for row in sorted(new):
                blocks[name][row - start] = self._value(name, layout.array, row, new[row])
        rows = np.union1d(np.flatnonzero(self.done[start:stop]) + start, list(new))
        had = self.commits[shard].reasons if shard in self.commits else {}
        reasons = {**had, **{row: value.reason for row, value in new.items()}}
        self._write(shard, rows, blocks, {row: why for row, why in reasons.items() if why})

    def _read(self, name: str, shard: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """An array's rows of a shard as they are now, fill values where there are none; and the
        ranges of them that are damaged."""
        layout = self.layout.arrays[name]
        start, stop = self._span(shard)
        block, file = layout.empty(stop - start), layout.file(name, shard)
        proof = self.commits[shard].files.get(file) if shard in self.commits else None
        return block, layout.read(self.path / file, block, proof.chunks) if proof else []

    def _write(
        self,
        shard: int,
        rows: np.ndarray,
        blocks: Mapping[str, np.ndarray],
        reasons: Mapping[int, str],
    ) -> None:
        """Replace a shard by one with these rows.

        Everything is on the disk under other names before the old record goes, so a full disk costs
        nothing that was committed, and a kill one shard at most.
        """
        files: dict[str, Proof] = {}
        partials: dict[Path, Path] = {}
        empty: list[Path] = []
        with writing_to(self.path), contextlib.ExitStack() as failed:
            failed.callback(_delete_all, partials.values())
            for name, layout in self.layout.arrays.items():
                file = layout.file(name, shard)
                encoded = layout.encode(blocks[name])
                if encoded is None:
                    empty.append(self.path / file)
                    continue
                data, chunks = encoded
                partials[self.path / file] = write_partial(self.path / file, data)
                files[file] = Proof(len(data), hashlib.sha256(data).hexdigest(), chunks)
            commit = Commit.made(shard, self.spec.key, rows, self.ids, reasons, files)
            record = commit_file(self.path, shard)
            partials[record] = write_partial(record, commit.text())
            self._uncommit(shard)
            _delete_all(empty)
            for path, partial in partials.items():  # the record comes last
                if path == record:
                    for folder in {other.parent for other in partials if other != record}:
                        sync(folder)
                os.replace(partial, path)
            sync(record.parent)
            failed.pop_all()
        start, stop = self._span(shard)
        self.done[start:stop] = False
        self.done[rows] = True
        self.commits[shard] = commit

    def _uncommit(self, shard: int) -> None:
        """Without its record a shard does not count: a kill from here on redoes it, no more."""
        record = commit_file(self.path, shard)
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


def _delete_all(files: Iterable[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
