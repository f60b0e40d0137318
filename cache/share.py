"""Rows from other caches: taken over where key and picture bytes agree, or two caches made one.

Rows are matched by id, never by number: a person's id is of the picture's bytes and the box.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cache.check import require_whole
from cache.errors import CacheError, KeyMismatch, in_few
from cache.files import sweep
from cache.index import PERSONS, PICTURES, VAD, Index, occurrences, recover_index
from cache.keys import in_short
from cache.lock import only_writer
from cache.manifest import write_manifest
from cache.paths import index_folder, view_folder, view_names
from cache.settings import Cache
from cache.shards import Compression
from cache.statuses import FAILED, STATUS, WORDS
from cache.store import StoredView, open_view
from cache.writer import ViewWriter


def take_rows(
    cache: Cache, name: str, key: str, ids: Sequence[str], rows: np.ndarray, donor: Path
) -> np.ndarray:
    """Copy rows of the view `name` from the cache `donor` into the one at `cache.root`.

    key: of the view as it is wanted; another key gives nothing. ids: what names each row of ours;
    rows: those that we lack. Returns the rows that were copied.
    Raises CacheError where the donor is no cache, or what is taken from it is damaged.
    """
    places = offered(cache, name, key, ids, rows, donor)
    if places:
        require_whole(donor, [name])
        theirs = open_view(donor, name)
        _copy(cache.root, theirs, ids, places, cache.shard_rows, cache.compression)
    return np.array(sorted(places), int)


def offered(
    cache: Cache, name: str, key: str, ids: Sequence[str], rows: np.ndarray, donor: Path
) -> dict[int, int]:
    """Rows of ours that the cache `donor` has -> its rows; see `take_rows`. Copies nothing."""
    if not index_folder(donor).exists():
        raise CacheError(f"cache.take_from names {donor}, which holds no cache")
    if Path(donor).resolve() == cache.root.resolve():
        raise CacheError(f"cache.take_from names {donor}, which is cache.root itself")
    if not view_folder(donor, name).exists():
        return {}
    theirs = open_view(donor, name)
    return _pairs(theirs, Index.read(donor), ids, rows) if theirs.key == key else {}


def _pairs(
    theirs: StoredView, index: Index, ids: Sequence[str], rows: Iterable[int]
) -> dict[int, int]:
    """Our row -> their row, where they have one of the same id."""
    have: dict[str, int] = {}
    names = index.ids(theirs.space)
    for row in np.flatnonzero(theirs.done).tolist():
        # A file that was missing there may be here; `path:` stands for unknown bytes.
        if WORDS[int(theirs.status[row])] != "missing" and not names[row].startswith("path:"):
            have.setdefault(names[row], row)
    return {int(row): have[ids[row]] for row in rows if ids[row] in have}


def _copy(
    root: Path,
    theirs: StoredView,
    ids: Sequence[str],
    places: Mapping[int, int],
    shard_rows: int,
    compression: Compression,
) -> None:
    arrays = {name: theirs.read(name) for name in theirs.spec.arrays}
    writer = ViewWriter(root, theirs.spec, ids, shard_rows, compression)
    writer.put_all(places, arrays, theirs.status, theirs.reasons)


# --------------------------------------------------------------------------------------- merge


@dataclass
class Merged:
    """What a merge did: rows added to the index; and by view the rows taken, the rows that both
    caches had, and how many of these differ within rounding, or were kept against theirs."""

    pictures: int = 0
    persons: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    both: dict[str, int] = field(default_factory=dict)
    differ: dict[str, int] = field(default_factory=dict)


def merge(cache: Cache, other: Path, keep_ours: bool = False) -> Merged:
    """Make the cache at `other` part of the one at `cache.root`; row numbers of ours stay.

    keep_ours: where both have a row with other values, keep ours instead of refusing.
    Raises KeyMismatch where a view has another key or the same person other labels, CacheError
    where the same row has other values: both sides are named, and nothing is changed.
    """
    other = Path(other)
    if other.resolve() == cache.root.resolve():
        raise CacheError(f"{other} is the cache itself: name another")
    theirs = Index.read(other)
    require_whole(other, view_names(other))
    with only_writer(cache.root, "cache merge"):
        recover_index(cache.root)
        sweep(cache.root)
        old = Index.read(cache.root) if index_folder(cache.root).exists() else None
        index = _union(old, theirs, cache.root, other) if old else theirs
        _require_same_keys(cache.root, other)
        done = Merged(
            len(index.pictures) - (len(old.pictures) if old else 0),
            len(index.persons) - (len(old.persons) if old else 0),
        )
        for name in view_names(other):  # all of them before anything is written
            _compare(cache.root, other, name, index, theirs, keep_ours, done)
        index.write(cache.root)
        for name in view_names(other):
            view, ids = open_view(other, name), index.ids(open_view(other, name).space)
            lacking = _lacking(cache.root, name, len(ids))
            places = _pairs(view, theirs, ids, lacking) | _better(cache.root, view, theirs, ids)
            done.taken[name] = len(places)
            if places:
                layout = view.layout
                _copy(cache.root, view, ids, places, layout.shard_rows, layout.compression)
        write_manifest(cache.root, index.digest())
    return done


def _lacking(root: Path, name: str, count: int) -> np.ndarray:
    if not view_folder(root, name).exists():
        return np.arange(count)
    return np.flatnonzero(~open_view(root, name).done_of(count))


def _better(
    root: Path, theirs: StoredView, their_index: Index, ids: Sequence[str]
) -> dict[int, int]:
    """Our rows that had failed, and are sound there -> their rows."""
    if not view_folder(root, theirs.name).exists():
        return {}
    ours, failed = open_view(root, theirs.name), [STATUS[word] for word in FAILED]
    pairs = _pairs(theirs, their_index, ids, np.flatnonzero(np.isin(ours.status, failed)))
    return {row: other for row, other in pairs.items() if theirs.status[other] not in failed}


def _require_same_keys(root: Path, other: Path) -> None:
    wrong = []
    for name in set(view_names(root)) & set(view_names(other)):
        a, b = open_view(root, name), open_view(other, name)
        if a.key != b.key:
            keys = f"{a.key[:12]} in {root}, {b.key[:12]} in {other}"
            wrong.append(f"{name} ({keys}: {in_short(a.spec.parts, b.spec.parts)})")
    if wrong:
        raise KeyMismatch(
            f"the caches hold other numbers under the same name: {'; '.join(sorted(wrong))}. "
            "Extract one of them again with the settings of the other"
        )


def _compare(
    root: Path,
    other: Path,
    name: str,
    index: Index,
    their_index: Index,
    keep_ours: bool,
    done: Merged,
) -> None:
    """Rows that both have must agree: statuses exactly, values within rounding of their dtype."""
    if not view_folder(root, name).exists():
        return
    a, b = open_view(root, name), open_view(other, name)
    pairs = _pairs(b, their_index, index.ids(a.space), np.flatnonzero(a.done))
    mended = _better(root, b, their_index, index.ids(a.space))
    pairs = {row: other for row, other in pairs.items() if row not in mended}
    ours, theirs = np.array(list(pairs), int), np.array(list(pairs.values()), int)
    done.both[name] = len(ours)
    differ = a.status[ours] != b.status[theirs]
    apart = differ.copy()  # by more than rounding
    largest = 0.0
    for array, spec in a.spec.arrays.items():
        x, y = (view.read(array)[rows] for view, rows in ((a, ours), (b, theirs)))
        x, y = (values.astype(np.float64).reshape(len(ours), spec.size) for values in (x, y))
        gap = np.abs(x - y)
        differ |= gap.any(axis=1)
        step = 4 * np.finfo(spec.dtype).eps if np.dtype(spec.dtype).kind == "f" else 0.0
        size = np.abs(x).max(axis=1, initial=0.0)
        apart |= gap.max(axis=1, initial=0.0) > step * np.maximum(size, 1.0)
        largest = max(largest, float(gap.max(initial=0.0)))
    done.differ[name] = int(differ.sum())
    if apart.any() and not keep_ours:
        at = int(np.flatnonzero(apart)[0])
        raise CacheError(
            f"view {name!r}: {int(apart.sum())} rows differ under the same key, by {largest:.3g} "
            f"at most; the first is {index.ids(a.space)[ours[at]][:12]}, row {ours[at]} in {root} "
            f"({WORDS[int(a.status[ours[at]])]}) and row {theirs[at]} in {other} "
            f"({WORDS[int(b.status[theirs[at]])]}). --keep-ours keeps those of {root}"
        )


def _union(ours: Index, theirs: Index, root: Path, other: Path) -> Index:
    """Our rows, then what only they have."""
    if ours.dataset != theirs.dataset:
        raise KeyMismatch(
            f"{root} holds {ours.dataset}, {other} holds {theirs.dataset}: a cache says of all its "
            "persons at once where they come from, so caches of other data sets stay apart"
        )
    if ours.kind and theirs.kind and ours.kind != theirs.kind:
        raise KeyMismatch(
            f"the labels of {root} are {ours.kind}, those of {other} {theirs.kind}: set "
            "data.target alike and run `emocache prepare` on one of them"
        )
    if ours.labels != theirs.labels or ours.definitions != theirs.definitions:
        raise KeyMismatch(
            f"{root} holds {ours.dataset} with the labels {in_few(ours.labels)}, {other} "
            f"{theirs.dataset} with {in_few(theirs.labels)}: caches with other labels, or other "
            "definitions of them, stay apart"
        )
    pictures: list[dict[str, Any]] = ours.pictures.to_pylist()
    rows = {picture["id"]: row for row, picture in enumerate(pictures)}
    moved = []
    for picture in theirs.pictures.to_pylist():
        at = rows.setdefault(picture["id"], len(pictures))
        moved.append(at)
        if at == len(pictures):
            pictures.append(picture)
        elif pictures[at]["status"] in FAILED and picture["status"] == "ok":
            pictures[at] = picture
    persons: list[dict[str, Any]] = ours.persons.to_pylist()
    places = {place: row for row, place in enumerate(occurrences(persons))}
    their_persons = theirs.persons.to_pylist()
    their_pictures = [person["picture"] for person in their_persons]
    for number, (person, place) in enumerate(
        zip(their_persons, occurrences(their_persons), strict=True)
    ):
        person["picture"] = moved[person["picture"]]
        row = places.get(place)
        if row is None:
            persons.append(person)
            continue
        mine = persons[row]
        if not _same_answers(mine, person):
            picture = theirs.pictures["path"][their_pictures[number]].as_py()
            raise KeyMismatch(
                f"person {person['id'][:12]} of {picture} has {_named(mine, ours)} in "
                f"{root} (row {row}) and {_named(person, theirs)} in {other}: correct one of the "
                "annotations and run `emocache prepare` there"
            )
        if mine["status"] in FAILED and person["status"] == "ok":
            persons[row] = person
    return replace(
        ours,
        pictures=pa.Table.from_pylist(pictures, PICTURES),
        persons=pa.Table.from_pylist(persons, PERSONS),
    )


def _same_answers(mine: Mapping[str, Any], person: Mapping[str, Any]) -> bool:
    """Whether two rows of one person have the same labels and ratings."""
    ratings = [[one[name] for name in VAD] for one in (mine, person)]
    ours, theirs = (np.array([np.nan if v is None else v for v in some]) for some in ratings)
    return mine["labels"] == person["labels"] and np.array_equal(ours, theirs, equal_nan=True)


def _named(person: Mapping[str, Any], index: Index) -> str:
    labels = in_few([n for n, v in zip(index.labels, person["labels"], strict=True) if v]) or "none"
    known = [name for name in VAD if person[name] is not None and not np.isnan(person[name])]
    rated = [f"{name} {person[name]:g}" for name in known]
    return f"the labels {labels}" + (f", {', '.join(rated)}" if rated else "")
