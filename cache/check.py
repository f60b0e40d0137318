"""Is a cache whole? What is damaged, and which rows have to be made again."""

import json
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.commits import Commit, Proof
from cache.errors import CacheError, FormatError
from cache.files import sha256_file
from cache.index import Index, index_damage
from cache.lock import writer_of
from cache.manifest import manifest_of, read_manifest
from cache.paths import commit_file, index_folder, manifest_file, view_folder, view_names
from cache.progress import Progress, silent
from cache.shards import ArrayLayout
from cache.statuses import STATUS, WORDS
from cache.store import THREADS, ViewLayout


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong: in which view ("" for index and manifest), in which file below the
    cache's root, what, in which shard, and the rows that have to be extracted again. foreign: the
    rows are whole, and those of another index."""

    view: str
    file: str
    what: str
    shard: int | None = None
    rows: tuple[int, ...] = ()
    foreign: bool = False


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
    progress: Progress = silent,
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
    if not here and not index_folder(root).exists():
        raise CacheError(f"there is no cache in {root}: set cache.root")
    for name in names or ():
        if name not in here:
            raise CacheError(f"the cache {root} has no view {name!r}: it has {', '.join(here)}")
    found = Findings()
    manifest = read_manifest(root)
    wrong = index_damage(root) if index is None else ""
    if wrong and not index_folder(root).exists() and not manifest_file(root).exists():
        found.notes.append(f"{wrong}; rows are not held against it")
    elif wrong:
        found.damages.append(Damage("", "index", wrong))
    elif index is None:
        index = Index.read(root)
    examinations = []
    for name in names or here:
        layout, damages = identify(root, name)
        if layout is None:
            found.damages += damages
            found.rows[name] = 0
        else:
            examinations.append(Examination(root, layout, damages, index))
    jobs = [(one, shard) for one in examinations for shard in sorted(one.commits)]
    with ThreadPoolExecutor(THREADS) as pool:
        looked = pool.map(lambda job: job[0].look_at(job[1]), jobs)
        for number, (damages, size) in enumerate(looked, 1):
            found.damages += damages
            found.bytes += size
            progress(number, len(jobs))
    for one in examinations:
        found.damages += one.damages
        found.rows[one.name] = int(one.done.sum())
        if index is not None:
            wanted = index.wanted(one.layout.spec.space)
            absent = np.setdiff1d(wanted, np.flatnonzero(one.done))
            # Of some views not every row of the index is asked for: nobody looks for people twice.
            found.absent[one.name] = 0 if "partial" in one.layout.spec.facts else len(absent)
            known = (manifest or {"views": {}})["views"].get(one.name)
            if known and known["key"] == one.layout.spec.key and not one.damages:
                found.damages += one.gone(known["rows"], absent)
    if names is None:
        _look_at_manifest(root, manifest, index, here, found)
    if not found.whole:
        found.writer = writer_of(root)
    return found


def require_whole(root: Path, names: Sequence[str] | None = None) -> Findings:
    """`verify`, for work that takes from the cache at `root`. Raises CacheError where it is
    damaged or being written."""
    found = verify(root, names)
    if found.whole:
        return found
    if found.writer:
        raise CacheError(
            f"{root} is being written by {found.writer}: nothing is taken from it before that has "
            "ended"
        )
    damage = found.damages[0]
    raise CacheError(
        f"the cache {root} is damaged ({damage.file}: {damage.what}), nothing is taken from it: "
        f"run `emocache cache repair --set cache.root={root}` first"
    )


def identify(root: Path, name: str) -> tuple[ViewLayout | None, list[Damage]]:
    """What the view `name` is, from either of its two copies, and what is wrong with them; None
    where neither can be read. Raises FormatError where both are of another version."""
    folder = view_folder(root, name)
    read: list[ViewLayout] = []
    damages: list[Damage] = []
    other: list[FormatError] = []

    def note(file: Path, what: str) -> None:
        damages.append(Damage(name, file.relative_to(root).as_posix(), what))

    for file, inner in (("zarr.json", ("attributes", "emocache")), ("commits/view.json", ())):
        path = folder / file
        try:
            record = json.loads(path.read_text())
            for step in inner:
                record = record[step]
            layout = ViewLayout.of(record, path)
            if layout.spec.name != name:
                raise CacheError(f"{path} is of the view {layout.spec.name}")
            read.append(layout)
        except PermissionError as error:
            raise CacheError(f"{path} may not be read: see its permissions") from error
        except CacheError as error:
            other += [error] if isinstance(error, FormatError) else []
            note(path, str(error))
        except (OSError, ValueError, LookupError, TypeError) as error:
            note(path, f"cannot be read: {error!r}")
    if not read:
        if len(other) == 2:  # both copies agree: another version's, not damaged
            raise other[0]
        what = "neither copy of what the view is can be read: the view is lost"
        return None, [Damage(name, folder.relative_to(root).as_posix(), what)]
    if len(read) == 2 and read[0] != read[1]:
        note(folder / "zarr.json", "says another thing than commits/view.json")
    return read[0], damages


class Examination:
    """One view under examination, shard after shard.

    damages: beside those of the files of shards, which `look_at` gives; commits: those that prove
    something; done (N,) bool: the rows they list; own: the files that say what the view is, by
    path in its folder, as they should be.
    """

    def __init__(
        self,
        root: Path,
        layout: ViewLayout,
        damages: Iterable[Damage] = (),
        index: Index | None = None,
    ):
        self.root, self.layout, self.name = root, layout, layout.spec.name
        self.path = view_folder(root, self.name)
        self.damages = list(damages)
        self.ids = None if index is None else index.ids(layout.spec.space)
        self.count = self._rows()
        self.own = self.layout.files(self.count)
        self.done = np.zeros(self.count, bool)
        self.commits: dict[int, Commit] = {}
        self._look_at_metadata()
        self._look_at_commits()
        self._look_for_strays()

    def damage(
        self, file: Path, what: str, shard: int | None = None, rows: Iterable[int] = ()
    ) -> Damage:
        """One of this view."""
        place = file.relative_to(self.root).as_posix()
        return Damage(self.name, place, what, shard, tuple(int(row) for row in rows))

    def _note(
        self, file: Path, what: str, shard: int | None = None, rows: Iterable[int] = ()
    ) -> None:
        self.damages.append(self.damage(file, what, shard, rows))

    def _rows(self) -> int:
        """Rows of the view: the most that an array says, as more than there are ids is damage and
        more than are committed costs nothing."""
        counts = []
        for name in self.layout.arrays:
            try:
                counts.append(json.loads((self.path / name / "zarr.json").read_text())["shape"][0])
            except (OSError, ValueError, LookupError, TypeError):
                continue  # named below
        counts = [count for count in counts if isinstance(count, int) and 0 <= count < 2**40]
        if self.ids is not None:
            counts = [count for count in counts if count <= len(self.ids)]
        return max(counts, default=len(self.ids or ()))

    def _look_at_metadata(self) -> None:
        blamed = {damage.file for damage in self.damages}
        for file, data in self.own.items():
            path = self.path / file
            if path.relative_to(self.root).as_posix() in blamed:
                continue
            if not path.is_file():
                self._note(path, "is missing")
            elif path.read_bytes() != data:
                self._note(path, "is not as it was written")

    def _span(self, shard: int) -> range:
        """The rows of a shard."""
        size = self.layout.shard_rows
        return range(shard * size, max(min((shard + 1) * size, self.count), shard * size))

    def _look_at_commits(self) -> None:
        key, space = self.layout.spec.key, self.layout.spec.space
        for path in sorted((self.path / "commits").glob("*.json")):
            if path.name in ("view.json", "zarr.json"):
                continue
            shard = int(path.stem) if path.stem.isdigit() else -1
            if path != commit_file(self.path, shard):
                self._note(path, "is not a commit record's name")
                continue
            commit, span = Commit.read(path), self._span(shard)
            if commit is None or commit.shard != shard:
                self._note(path, "the commit record is damaged", shard, span)
                continue
            if commit.key != key:
                what = f"committed under the key {commit.key[:12]}, the view has {key[:12]}"
                self._note(path, what, shard, span)
                continue
            if len(commit.rows) and commit.rows[-1] >= self.count:
                what = f"lists rows up to {commit.rows[-1]} of a view of {self.count}"
                self._note(path, what, shard, span)
                continue
            if self.ids is not None and not commit.fits(self.ids):
                what = "was written for other rows than the index has"
                where = f"{what}: {space} {span[0]} to {span[-1]}"
                self.damages.append(replace(self.damage(path, where), foreign=True))
            self.done[commit.rows] = True
            self.commits[shard] = commit

    def _look_for_strays(self) -> None:
        """Files that nothing accounts for: shards without a commit, and what is not of the view."""
        known = set(self.own)
        for shard, commit in self.commits.items():
            known |= {commit_file(self.path, shard).relative_to(self.path).as_posix()}
            known |= set(commit.files)
        blamed = {damage.file for damage in self.damages}
        for folder, _, names in os.walk(self.path):
            for name in names:
                path = Path(folder) / name
                file = path.relative_to(self.path).as_posix()
                if file in known or path.relative_to(self.root).as_posix() in blamed:
                    continue
                if name.endswith(".partial"):
                    continue  # of a killed run; the next one sweeps it
                of = self._shard_of(file)
                if of is None:
                    self._note(path, "does not belong to the view")
                elif of in self.commits:
                    self._note(path, "a shard's file that its commit does not know", of)
                else:
                    self._note(path, "a shard without a commit record", of, self._span(of))

    def _shard_of(self, file: str) -> int | None:
        for name, layout in self.layout.arrays.items():
            parts = file.split("/")
            if parts[0] == name and len(parts) > 2 and parts[2].isdigit():
                shard = int(parts[2])
                if file == layout.file(name, shard):
                    return shard
        return None

    def gone(self, before: int, absent: np.ndarray) -> list[Damage]:
        """Rows that the manifest counts and no commit lists: records and shards lost together."""
        lost = before - int(self.done.sum())
        if lost <= 0 or not len(absent):
            return []
        record = commit_file(self.path, int(absent[0]) // self.layout.shard_rows)
        what = f"is missing, with its shard: {lost} rows that were committed are gone"
        return [self.damage(record, what, None, absent)]

    def look_at(self, shard: int) -> tuple[list[Damage], int]:
        """Damage in the files of one committed shard, and the bytes hashed."""
        commit, span, size = self.commits[shard], self._span(shard), 0
        rows = commit.rows
        damages = []
        for name, layout in self.layout.arrays.items():
            file = layout.file(name, shard)
            path, proof = self.path / file, commit.files.get(file)
            if proof is None:
                continue  # holds only the fill value
            block = layout.empty(len(span))
            try:
                whole = path.is_file() and path.stat().st_size == proof.bytes
                whole = whole and sha256_file(path) == proof.sha256
                size += proof.bytes if whole else 0
                bad = layout.read(path, block, proof.chunks)
            except OSError as error:
                damages.append(self.damage(path, f"cannot be read: {error}", shard, rows))
                continue
            if not whole:
                where = {span[0] + row for start, stop in bad for row in range(start, stop)}
                # Every checksum right and still other bytes: nothing in the file is proven.
                lost = [row for row in rows.tolist() if row in where or not bad]
                damages.append(self.damage(path, _wrong(path, proof), shard, lost))
            else:
                wrong = rows[~_sound(name, layout, block[rows - span[0]])]
                if len(wrong):
                    what = "holds values that are not finite, or statuses that are none"
                    damages.append(self.damage(path, what, shard, wrong))
        return damages, size


def _wrong(path: Path, proof: Proof) -> str:
    if not path.is_file():
        return "is missing"
    size = path.stat().st_size
    if size != proof.bytes:
        return f"has {size} bytes instead of {proof.bytes}"
    return "does not have the SHA-256 of its commit"


def _sound(name: str, layout: ArrayLayout, block: np.ndarray) -> np.ndarray:
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
        what = f"{manifest_file(root)} is missing or damaged: repair writes it anew"
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
