"""Is a cache whole? What is damaged, and which rows have to be made again."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import CacheError
from cache.files import sha256_file, write_atomic, writing_to
from cache.index import Index, damage_of, folder_of
from cache.lock import writer_of
from cache.shards import Layout
from cache.store import (
    STATUS,
    THREADS,
    WORDS,
    Stored,
    ids_digest,
    manifest_of,
    path_of,
    read_manifest,
    read_record,
    record_path,
    rows_of,
    view_names,
)
from cache.writer import ViewWriter, sweep

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: in which view ("" for index and manifest), in which file below the
    cache's root, what, in which shard, and the rows that have to be extracted again."""

    view: str
    file: str
    what: str
    shard: int | None = None
    rows: tuple[int, ...] = ()


@dataclass
class Findings:
    """What `verify` found.

    rows: committed rows of each view; absent: rows that the index wants and no commit lists, which
    is no damage; bytes: how many were hashed; writer: who was writing the cache meanwhile, whose
    shard under way looks like damage; notes: what is no damage and should be known, as a manifest
    that is older than the views because a run was stopped, or a view that was not pulled.
    """

    damages: list[Damage] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    absent: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    writer: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        return not self.damages

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return {**asdict(self), "whole": self.whole}


def verify(
    root: Path,
    names: Sequence[str] | None = None,
    progress: Progress = lambda done, total: None,
    index: Index | None = None,
) -> Findings:
    """Hash every file of the cache at `root` and compare it with its proof.

    names: views to look at, all of them if None; the manifest is looked at only with all of them.
    progress: called with (shards done, shards in all). index: to hold the rows against, instead of
    the one in the cache.
    Raises CacheError where there is no cache, or one of another format.
    """
    root = Path(root)
    here = view_names(root)
    if not here and not folder_of(root).exists():
        raise CacheError(f"there is no cache in {root}: set cache.root")
    for name in names or ():
        if name not in here:
            raise CacheError(f"the cache {root} has no view {name!r}: it has {', '.join(here)}")
    found = Findings()
    manifest = read_manifest(root)
    wrong = damage_of(root) if index is None else ""
    if wrong and not folder_of(root).exists() and not (root / "manifest.json").exists():
        found.notes.append(f"{wrong}; rows are not held against it")
    elif wrong:
        found.damages.append(Damage("", "index", wrong))
    elif index is None:
        index = Index.read(root)
    examinations = [_Examination(root, name, index) for name in names or here]
    total = sum(len(one.shards) for one in examinations)
    with ThreadPoolExecutor(THREADS) as pool:
        jobs = [(one, shard) for one in examinations for shard in one.shards]
        looked = pool.map(lambda job: job[0].look_at(job[1]), jobs)
        for number, (damages, size) in enumerate(looked, 1):
            found.damages += damages
            found.bytes += size
            progress(number, total)
    for one in examinations:
        found.damages += one.damages
        found.rows[one.name] = int(one.done.sum())
        if index is not None and one.stored is not None:
            wanted = index.wanted(one.stored.spec.rows)
            absent = np.setdiff1d(wanted, np.flatnonzero(one.done))
            found.absent[one.name] = len(absent)
            known = (manifest or {"views": {}})["views"].get(one.name)
            if known and known["key"] == one.stored.spec.key and not one.damages:
                found.damages += one.gone(known["rows"], absent)
    if names is None:
        _look_at_manifest(root, manifest, index, here, found)
    if not found.whole:
        found.writer = writer_of(root)
    return found


def stored_view(root: Path, name: str) -> Stored | None:
    """What a view says it is, also when it is damaged; None where both copies are."""
    return _Examination(Path(root), name, None).stored


class _Examination:
    """One view under examination: what it says of itself, then shard after shard."""

    def __init__(self, root: Path, name: str, index: Index | None):
        self.root, self.name, self.path = root, name, path_of(root, name)
        self.damages: list[Damage] = []
        self.stored, self.count, self.ids = None, 0, None
        self.done = np.zeros(0, bool)
        self.records: dict[int, dict[str, Any]] = {}
        self.shards: list[int] = []
        self.own: dict[str, bytes] = {}
        self.stored = self._identity()
        if self.stored is None:
            return
        if index is not None:
            self.ids = index.ids(self.stored.spec.rows)
        self.count = self._metadata()
        self._records()
        self._strays()

    def _damage(self, file: Path, what: str, shard: int | None = None, rows: Iterable = ()) -> None:
        self.damages.append(self._made(file, what, shard, rows))

    def _made(self, file: Path, what: str, shard: int | None = None, rows: Iterable = ()) -> Damage:
        place = file.relative_to(self.root).as_posix()
        return Damage(self.name, place, what, shard, tuple(int(row) for row in rows))

    def _identity(self) -> Stored | None:
        """What the view is, from either of its two copies."""
        read: list[Stored] = []
        errors: list[CacheError] = []
        for file, inner in (("zarr.json", ("attributes", "emocache")), ("commits/view.json", ())):
            path = self.path / file
            try:
                record = json.loads(path.read_text())
                for step in inner:
                    record = record[step]
                stored = Stored.of(record, path)
                if stored.spec.name != self.name:
                    raise CacheError(f"{path} is of the view {stored.spec.name}")
                read.append(stored)
            except PermissionError as error:
                raise CacheError(f"{path} may not be read: see its permissions") from error
            except CacheError as error:
                errors.append(error)
                self._damage(path, str(error))
            except (OSError, ValueError, LookupError, TypeError) as error:
                self._damage(path, f"cannot be read: {error!r}")
        if not read:
            if len(errors) == 2 and all("has format" in str(error) for error in errors):
                raise errors[0]  # both copies agree: another version's, not damaged
            self.damages = [
                self._made(
                    self.path, "neither copy of what the view is can be read: the view is lost"
                )
            ]
            return None
        if len(read) == 2 and read[0] != read[1]:
            self._damage(self.path / "zarr.json", "says another thing than commits/view.json")
        return read[0]

    def _metadata(self) -> int:
        """Check Zarr's metadata; gives the number of rows: the most that an array
        says, as more than there are ids is damage and more than are committed costs nothing."""
        assert self.stored is not None
        counts = []
        for name in self.stored.layouts:
            try:
                counts.append(json.loads((self.path / name / "zarr.json").read_text())["shape"][0])
            except (OSError, ValueError, LookupError, TypeError):
                continue  # named below
        counts = [count for count in counts if isinstance(count, int) and 0 <= count < 2**40]
        if self.ids is not None:
            counts = [count for count in counts if count <= len(self.ids)]
        rows = max(counts, default=len(self.ids or ()))
        self.own = self.stored.files(rows)
        for file, data in self.own.items():
            path = self.path / file
            known = {damage.file for damage in self.damages}
            if path.relative_to(self.root).as_posix() in known:
                continue
            if not path.is_file():
                self._damage(path, "is missing")
            elif path.read_bytes() != data:
                self._damage(path, "is not as it was written")
        return rows

    def _span(self, shard: int) -> range:
        assert self.stored is not None
        size = self.stored.shard_rows
        return range(shard * size, max(min((shard + 1) * size, self.count), shard * size))

    def _records(self) -> None:
        assert self.stored is not None
        self.done = np.zeros(self.count, bool)
        for path in sorted((self.path / "commits").glob("*.json")):
            if path.name in ("view.json", "zarr.json"):
                continue
            shard = int(path.stem) if path.stem.isdigit() else -1
            if path != record_path(self.path, shard):
                self._damage(path, "is not a commit record's name")
                continue
            record, span = read_record(path), self._span(shard)
            if record is None or record.get("shard") != shard:
                self._damage(path, "the commit record is damaged", shard, span)
                continue
            if record["key"] != self.stored.spec.key:
                what = f"committed under the key {record['key'][:12]}"
                self._damage(path, f"{what}, the view has {self.stored.spec.key[:12]}", shard, span)
                continue
            rows = rows_of(record)
            if len(rows) and rows[-1] >= self.count:
                what = f"lists rows up to {rows[-1]} of a view of {self.count}"
                self._damage(path, what, shard, span)
                continue
            if self.ids is not None and record["ids"] != ids_digest(self.ids, rows):
                self._damage(path, f"{OTHER_ROWS}: {self.stored.spec.rows} {span[0]} to {span[-1]}")
            self.done[rows] = True
            self.records[shard] = record
        self.shards = sorted(self.records)

    def _strays(self) -> None:
        """Files that nothing accounts for: shards without a commit, and what is not of the view."""
        assert self.stored is not None
        known = set(self.own)
        known |= {f"commits/{shard:06d}.json" for shard in self.records}
        known |= {file for record in self.records.values() for file in record["files"]}
        blamed = {damage.file for damage in self.damages}
        for folder, _, names in os.walk(self.path):
            for name in names:
                path = Path(folder) / name
                file = path.relative_to(self.path).as_posix()
                if file in known or path.relative_to(self.root).as_posix() in blamed:
                    continue
                if name.endswith(".partial"):
                    continue  # of a killed run; the next one sweeps it
                shard = self._shard_of(file)
                if shard is None:
                    self._damage(path, "does not belong to the view")
                elif shard in self.records:
                    self._damage(path, "a shard's file that its commit does not know", shard)
                else:
                    self._damage(path, "a shard without a commit record", shard, self._span(shard))

    def _shard_of(self, file: str) -> int | None:
        assert self.stored is not None
        for name, layout in self.stored.layouts.items():
            parts = file.split("/")
            if parts[0] == name and len(parts) > 2 and parts[2].isdigit():
                shard = int(parts[2])
                if file == layout.file(name, shard):
                    return shard
        return None

    def gone(self, before: int, absent: np.ndarray) -> list[Damage]:
        """Rows that the manifest counts and no commit lists: records and shards lost together."""
        assert self.stored is not None
        lost = before - int(self.done.sum())
        if lost <= 0 or not len(absent):
            return []
        record = record_path(self.path, int(absent[0]) // self.stored.shard_rows)
        what = f"is missing, with its shard: {lost} rows that were committed are gone"
        return [self._made(record, what, None, absent)]

    def look_at(self, shard: int) -> tuple[list[Damage], int]:
        """Damage in the files of one committed shard, and the bytes hashed."""
        assert self.stored is not None
        record = self.records[shard]
        span, rows, size = self._span(shard), rows_of(record), 0
        damages = []
        for name, layout in self.stored.layouts.items():
            file = layout.file(name, shard)
            path, proof = self.path / file, record["files"].get(file)
            if proof is None:
                continue  # holds only the fill value
            block = layout.empty(len(span))
            try:
                whole = path.is_file() and path.stat().st_size == proof["bytes"]
                whole = whole and sha256_file(path) == proof["sha256"]
                size += proof["bytes"] if whole else 0
                bad = layout.read(path, block, proof["chunks"])
            except OSError as error:
                damages.append(self._made(path, f"cannot be read: {error}", shard, rows))
                continue
            if not whole:
                where = {span[0] + row for start, stop in bad for row in range(start, stop)}
                # Every checksum right and still other bytes: nothing in the file is proven.
                lost = [row for row in rows.tolist() if row in where or not bad]
                what = _wrong(path, proof)
                damages.append(self._made(path, what, shard, lost))
            else:
                wrong = rows[~_sound(name, layout, block[rows - span[0]])]
                if len(wrong):
                    what = "holds values that are not finite, or statuses that are none"
                    damages.append(self._made(path, what, shard, wrong))
        return damages, size


OTHER_ROWS = "was written for other rows than the index has"


def _wrong(path: Path, proof: dict[str, Any]) -> str:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != proof["bytes"]:
        return f"has {size} bytes instead of {proof['bytes']}"
    return "does not have the SHA-256 of its commit"


def _sound(name: str, layout: Layout, block: np.ndarray) -> np.ndarray:
    """(n,) bool: the rows whose values may stand there."""
    if name == "status":
        return np.isin(block, [code for code in WORDS if code != STATUS["absent"]])
    if block.dtype.kind != "f":
        return np.ones(len(block), bool)
    return np.isfinite(block).reshape(len(block), -1).all(axis=1)


def _look_at_manifest(
    root: Path,
    manifest: dict[str, Any] | None,
    index: Index | None,
    here: list[str],
    found: Findings,
) -> None:
    if not here or index is None:
        return
    if manifest is None:
        what = f"{root / 'manifest.json'} is missing or damaged: repair writes it anew"
        found.damages.append(Damage("", "manifest.json", what))
        return
    for name in sorted(manifest["views"].keys() - set(here)):
        rows = manifest["views"][name]["rows"]
        found.notes.append(
            f"view {name} is not here ({rows} rows): `dvc pull` it, or run `emocache extract`"
        )
    if found.whole:
        now = manifest_of(root, index.digest())
        views = {name: facts for name, facts in manifest["views"].items() if name in here}
        if views != now["views"] or manifest["index"] != now["index"]:
            found.notes.append(
                "manifest.json is older than the views, as after a run that was stopped: "
                "`emocache extract` goes on, and writes it anew"
            )


# -------------------------------------------------------------------------------------- repair


def retract(root: Path, found: Findings, index: Index) -> dict[str, np.ndarray]:
    """Take what is damaged out of the cache: it is whole then, and lacks rows.

    Proven rows keep their bytes, metadata is written anew from its other copy. Returns the rows
    to extract again, by view. Call it with the cache locked.
    Raises CacheError where the shards belong to another index than the one there.
    """
    root = Path(root)
    rows: dict[str, np.ndarray] = {}
    by_view: dict[str, list[Damage]] = {}
    for damage in found.damages:
        if damage.view:
            by_view.setdefault(damage.view, []).append(damage)
        if damage.what.startswith(OTHER_ROWS):
            raise CacheError(
                f"{root / damage.file} {damage.what}: put the index back that the cache was made "
                f"with (`dvc checkout --force {folder_of(root)}`), or set cache.root; if the rows "
                "are worthless, delete the view's folder and run `emocache extract`"
            )
    if (root / "manifest.json").is_dir():  # else it is just written anew
        shutil.rmtree(root / "manifest.json")
    for name, damages in by_view.items():
        with writing_to(path_of(root, name)):
            rows[name] = _retract(root, name, damages, index)
    return rows


def _retract(root: Path, name: str, damages: list[Damage], index: Index) -> np.ndarray:
    path = path_of(root, name)
    one = _Examination(root, name, index)
    if one.stored is None:
        gone = path.with_name(f".{path.name}.lost.partial")
        shutil.rmtree(gone, ignore_errors=True)
        os.rename(path, gone)
        shutil.rmtree(gone)
        return np.arange(max(len(index.persons), len(index.pictures), len(index.labels)))
    sweep(path)
    for file, data in one.own.items():
        if not (path / file).is_file() or (path / file).read_bytes() != data:
            _delete(path / file)
            write_atomic(path / file, data)
    for damage in one.damages:  # records that prove nothing, and files that no record proves
        if damage.file.removeprefix(f"{path.name}/") not in one.own:
            _delete(root / damage.file)
    for damage in damages:
        if (root / damage.file).is_dir():
            shutil.rmtree(root / damage.file)
    for shard in {d.shard for d in one.damages if d.shard is not None} - set(one.records):
        for array, layout in one.stored.layouts.items():
            _delete(path / layout.file(array, shard))
    writer = ViewWriter(root, one.stored.spec, index.ids(one.stored.spec.rows))
    again: set[int] = set()
    for damage in damages:
        again |= set(damage.rows)
    for shard in sorted({d.shard for d in damages if d.rows and d.shard in one.records}):
        lost = [row for d in damages if d.shard == shard for row in d.rows]
        writer.retract(shard, np.unique(lost))
    return np.array(sorted(again), int)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
