"""From a data set's annotation to the index of a cache: what is there, and what is wrong.

An index is only ever added to. A picture is known again by its bytes, a person by picture, box
and split, so features that were computed once stay right whatever happens to the annotation.
A picture that is missing or unreadable has no bytes to be known by: its id is `path:<path>`
until it can be read, and its rows keep their numbers then.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cache.boxes import Box, clip, turned
from cache.errors import DataError, KeyMismatch
from cache.index import (
    PERSONS,
    PICTURES,
    VAD,
    Index,
    occurrences,
    person_id,
    recover_index,
    split_order,
)
from cache.lock import only_writer
from cache.paths import index_folder
from extract import images
from extract.datasets import Dataset, PersonRecord, PictureRecord, get_dataset
from extract.settings import Data


@dataclass
class Prepared:
    """What `prepare` found.

    pictures, persons: split to status to count; a picture that two splits share counts in both.
    labels_per_person: split to the mean over persons with labels. rows: table to how many rows
    this call added, kept, revived or removed. oddities: what was clipped, dropped or joined,
    with counts. warnings: sentences that must be seen.
    """

    dataset: str
    note: str
    root: str
    labels: int
    pictures: dict[str, dict[str, int]] = field(default_factory=dict)
    persons: dict[str, dict[str, int]] = field(default_factory=dict)
    labels_per_person: dict[str, float] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    oddities: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Probe:
    """What the file of a picture turned out to be."""

    header: images.Header | None
    status: str
    reason: str


def prepare(data: Data, cache_root: Path, workers: int = 4) -> Prepared:
    """Read the data set into the index below `cache_root`, and write its label definitions.

    data: which reader, and where its files are. workers: threads that hash files and read their
    headers.
    Raises DataError for data that cannot be read or have no persons, SettingsError for an unknown
    `data.name`, and KeyMismatch where the cache holds another set of labels.
    """
    cache_root = Path(cache_root)
    dataset = get_dataset(data.name)(data.root)
    records = list(dataset.records())
    if not any(record.persons for record in records):
        raise DataError(f"the {data.name} annotation in {data.root} has no persons: see data.root")
    with only_writer(cache_root, "prepare"):
        recover_index(cache_root)
        return _prepare(data, dataset, records, cache_root, workers)


def _prepare(
    data: Data,
    dataset: Dataset,
    records: list[PictureRecord],
    cache_root: Path,
    workers: int,
) -> Prepared:
    old = _old_index(cache_root, data.name, dataset.labels)
    paths = list(dict.fromkeys(record.path for record in records))
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda path: _probe(dataset.root / path), paths)
        probes = dict(zip(paths, found, strict=True))

    tables = _Tables(old)
    rows = tables.add_pictures(records, probes)
    for record in records:
        tables.add_persons(record, rows[record.path], probes[record.path])
    tables.finish()
    index = Index(
        data.name,
        dataset.note,
        dataset.labels,
        pa.Table.from_pylist(tables.pictures, PICTURES),
        pa.Table.from_pylist(tables.persons, PERSONS),
        tuple({"label": n, "definition": dataset.definitions[n]} for n in dataset.labels),
    )
    index.write(cache_root)

    done = Prepared(data.name, dataset.note, str(data.root), len(dataset.labels))
    done.rows = {table: dict(tables.rows[table]) for table in ("pictures", "persons")}
    _count(done, index)
    # Counter addition leaves out what occurred 0 times.
    done.oddities = dict(dataset.counts + tables.counts + _overlaps(index))
    done.warnings = _warnings(data.root, index)
    return done


def _old_index(cache_root: Path, name: str, labels: tuple[str, ...]) -> Index | None:
    if not index_folder(cache_root).exists():
        return None
    old = Index.read(cache_root)
    if old.labels != labels:
        raise KeyMismatch(
            f"the cache in {cache_root} holds {old.dataset} with {len(old.labels)} labels "
            f"({', '.join(old.labels[:3])}, ...), {name} has {len(labels)} "
            f"({', '.join(labels[:3])}, ...): set cache.root to another folder"
        )
    return old


def _probe(path: Path) -> _Probe:
    try:
        return _Probe(images.header(path), "ok", "")
    except images.PictureError as error:
        return _Probe(None, error.status, error.reason)


class _Tables:
    """The two tables of an index while a data set is merged into them, as lists of dicts."""

    def __init__(self, old: Index | None) -> None:
        self.pictures: list[dict[str, Any]] = old.pictures.to_pylist() if old else []
        self.persons: list[dict[str, Any]] = old.persons.to_pylist() if old else []
        self.counts: Counter[str] = Counter()
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)
        self._old_pictures = len(self.pictures)
        self._old_persons = len(self.persons)
        known = occurrences(self.persons)
        self._person_rows = {occurrence: row for row, occurrence in enumerate(known)}
        self._was_removed = [
            {row for row, entry in enumerate(table) if entry["status"] == "removed"}
            for table in (self.pictures, self.persons)
        ]
        self._now_readable: set[str] = set()  # paths that had rows before their bytes were known
        self._seen_pictures: set[int] = set()
        self._seen_persons: set[int] = set()
        self._times: Counter[tuple[str, str]] = Counter()
        self._first: dict[tuple[str, str], int] = {}
        self._splits: dict[int, set[str]] = defaultdict(set)

    def add_pictures(
        self, records: list[PictureRecord], probes: dict[str, _Probe]
    ) -> dict[str, int]:
        """A row for every path; paths whose files have equal bytes share one."""
        by_id: dict[str, int] = {}
        by_path: dict[str, int] = {}
        for row, picture in enumerate(self.pictures):
            by_id[picture["id"]] = row
            if picture["path"] not in by_path or picture["status"] != "removed":
                by_path[picture["path"]] = row
        ids = {path: probe.header.id for path, probe in probes.items() if probe.header}
        rows: dict[str, int] = {}

        # Readable pictures choose first: their bytes say who they are.
        for path, identity in ids.items():
            known = by_id.get(identity)
            if known is None and _placeholder(path) in by_id:
                known = by_id[_placeholder(path)]
                self._now_readable.add(path)
            if known is not None:
                rows[path] = by_id[identity] = known
        # The others are known by their path, unless the picture of that row was renamed.
        taken = set(rows.values())
        for path in probes.keys() - ids.keys():
            for known in (by_path.get(path), by_id.get(_placeholder(path))):
                if known is not None and known not in taken and path not in rows:
                    rows[path] = known
        for path in probes:
            if path not in rows:
                identity = ids.get(path, _placeholder(path))
                if identity not in by_id:
                    by_id[identity] = len(self.pictures)
                    self.pictures.append({})
                rows[path] = by_id[identity]

        for record in records:
            if rows[record.path] not in self._seen_pictures:
                self._seen_pictures.add(rows[record.path])
                self._fill_picture(self.pictures[rows[record.path]], record, probes[record.path])
        joined = len(rows) - len(self._seen_pictures)
        self.counts["pictures with the bytes of another picture, joined"] = joined
        return rows

    def _fill_picture(self, picture: dict[str, Any], record: PictureRecord, probe: _Probe) -> None:
        header = probe.header
        if header is not None:
            picture.update(id=header.id, width=header.width, height=header.height)
        elif not picture or picture["id"] == _placeholder(record.path):
            picture.update(id=_placeholder(record.path))
            picture.update(width=record.width or 0, height=record.height or 0)
        # else the row is from a time when the file was readable, and keeps its id and size
        picture.update(path=record.path, split=record.split, source=record.source)
        picture.update(status=probe.status, reason=probe.reason)

    def add_persons(self, record: PictureRecord, row: int, probe: _Probe) -> None:
        """The persons of a picture, in the annotation's order."""
        picture = self.pictures[row]
        annotated = (record.width, record.height) if record.width and record.height else None
        header = probe.header
        if header is None and picture["width"]:
            header = images.Header(picture["id"], picture["width"], picture["height"], 1)
        elif header and annotated and annotated != (header.width, header.height):
            self.counts["pictures whose size differs from the annotation"] += 1
        for person in record.persons:
            box, reason, notes = _place(person.box, annotated, header)
            self.counts.update(notes)
            status = "bad_box" if reason else "ok"
            if person.status != "ok":
                status, reason = person.status, person.reason
            key = person_id(picture["id"], box), person.split
            time = self._times[key]
            self._times[key] += 1
            self._splits[row].add(person.split)
            at = self._row_of((*key, time), person, record.path, annotated)
            if time and status in ("ok", "unlabelled"):
                first = self._first[key]
                if status == "ok" and self.persons[first]["status"] == "unlabelled":
                    # The copy with labels counts, in the row that the person has.
                    self._fill_person(self.persons[first], key[0], row, box, person, "ok", "")
                    self.counts["persons without labels, annotated again with some"] += 1
                status, reason = self._repeated(person, first)
            self._first.setdefault(key, at)
            self.counts["persons with a bad box"] += status == "bad_box"
            if picture["status"] != "ok":
                status, reason = picture["status"], picture["reason"]
            self._fill_person(self.persons[at], key[0], row, box, person, status, reason)

    def _row_of(
        self,
        occurrence: tuple[str, str, int],
        person: PersonRecord,
        path: str,
        annotated: tuple[int, int] | None,
    ) -> int:
        """The row of a person: the one it had, else a new one."""
        at = self._person_rows.get(occurrence)
        if at is None and path in self._now_readable:
            # Annotated before the picture could be read: the row knows the path only.
            before, _, _ = _place(person.box, annotated, _annotated_header(annotated))
            was = person_id(_placeholder(path), before), person.split, occurrence[2]
            at = self._person_rows.get(was)
        if at is None or at in self._seen_persons:
            at = len(self.persons)
            self.persons.append({})
        self._seen_persons.add(at)
        return at

    def _repeated(self, person: PersonRecord, first: int) -> tuple[str, str]:
        """Status and reason of a person that stands in the row `first` already."""
        self.counts["persons repeated"] += 1
        if not np.array_equal(self.persons[first]["labels"], person.labels):
            self.counts["persons repeated with other labels (the first ones count)"] += 1
        return "repeated", f"same picture, box and split as row {first}"

    @staticmethod
    def _fill_person(
        entry: dict[str, Any],
        identity: str,
        picture: int,
        box: Box,
        person: PersonRecord,
        status: str,
        reason: str,
    ) -> None:
        votes = None if person.votes is None else person.votes.tolist()
        entry.update(id=identity, picture=picture, split=person.split)
        entry.update(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        entry.update(labels=person.labels.tolist(), annotators=person.annotators, votes=votes)
        entry.update(zip(VAD, person.vad, strict=True))
        entry.update(gender=person.gender, age=person.age)
        entry.update(status=status, reason=reason or person.reason)

    def finish(self) -> None:
        """Mark what left the data set, join the splits of shared pictures, count rows."""
        for row, splits in self._splits.items():
            self.pictures[row]["split"] = "+".join(sorted(splits, key=split_order))
        tables = (
            ("pictures", self.pictures, self._old_pictures, self._seen_pictures),
            ("persons", self.persons, self._old_persons, self._seen_persons),
        )
        for (name, table, before, seen), gone in zip(tables, self._was_removed, strict=True):
            self.rows[name].update(
                new=len(table) - before,
                kept=sum(row < before and row not in gone for row in seen),
                revived=len(seen & gone),
                removed=sum(row not in seen and row not in gone for row in range(before)),
            )
            for row, entry in enumerate(table):
                if row not in seen:
                    entry.update(status="removed", reason="no longer in the data set")


def _placeholder(path: str) -> str:
    """The id of a picture whose bytes say nothing."""
    return f"path:{path}"


def _annotated_header(size: tuple[int, int] | None) -> images.Header | None:
    return images.Header("", *size, 1) if size else None


def _place(
    box: Box, annotated: tuple[int, int] | None, header: images.Header | None
) -> tuple[Box, str, list[str]]:
    """The annotated box in the upright picture: the box, why it is bad (or ""), what was done.

    The annotation may have been drawn in the stored picture instead of the upright one, or in a
    copy of another size: the box follows where the annotated size proves it, else it is bad.
    """
    notes: list[str] = []
    if not np.isfinite(box).all():
        return box, "the box is not four numbers", notes
    if box[0] >= box[2] or box[1] >= box[3]:
        return box, f"the box {_px(box)} is empty or inverted", notes
    if header is None:
        return box, "", notes
    upright = header.width, header.height
    if annotated is not None and annotated != upright:
        stored = header.stored
        as_stored = header.orientation >= 5
        if as_stored and annotated == stored:
            scale = None
        elif _same_shape(annotated, upright):
            as_stored, scale = False, upright
        elif as_stored and _same_shape(annotated, stored):
            scale = stored
        else:
            return (
                box,
                f"annotated in {annotated[0]}x{annotated[1]}, but the picture has "
                f"{upright[0]}x{upright[1]}: another shape",
                notes,
            )
        if scale is not None:
            across, down = scale[0] / annotated[0], scale[1] / annotated[1]
            box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
            notes.append("boxes scaled to a picture of another size")
        if as_stored:
            box = turned(box, header.orientation, *stored)
            notes.append("boxes turned with a picture's EXIF orientation")
    inside = clip(box, *upright)
    if inside is None:
        return box, f"the box {_px(box)} lies outside the picture", notes
    # As the index keeps it: what is left inside may be no pixel wide then.
    if clip(np.asarray(inside, np.float32), *upright) is None:
        return box, f"the box {_px(box)} has no pixel in the picture", notes
    if inside != tuple(box):
        notes.append("boxes clipped to the picture")
    return inside, "", notes


def _same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether `b` can be `a` resized by one factor, each side rounded up or down."""
    low = max((b[0] - 1) / a[0], (b[1] - 1) / a[1])
    high = min((b[0] + 1) / a[0], (b[1] + 1) / a[1])
    return low <= high


def _px(box: Box) -> str:
    return "(" + ", ".join(f"{side:g}" for side in box) + ")"


def _count(done: Prepared, index: Index) -> None:
    """Counts by split and status; what is removed is no longer part of the data set."""
    status, splits = index.person_status, index.splits
    picture_status = index.pictures["status"].to_pylist()
    for split in sorted(set(splits[status != "removed"]), key=split_order):
        here = (splits == split) & (status != "removed")
        rows = np.unique(index.picture_rows[here])
        done.persons[split] = dict(Counter(status[here].tolist()))
        done.pictures[split] = dict(Counter(picture_status[row] for row in rows))
        labelled = index.targets[here].sum(axis=1)
        labelled = labelled[labelled > 0]
        done.labels_per_person[split] = float(labelled.mean()) if len(labelled) else 0.0


def _overlaps(index: Index) -> Counter[str]:
    """Pictures, and persons with equal boxes, that two splits share: a leak between them."""
    status, splits = index.person_status, index.splits
    live = np.flatnonzero((status != "removed") & (status != "repeated"))
    identities = index.persons["id"].to_pylist()
    found: Counter[str] = Counter()
    for what, names in (
        ("pictures", index.picture_rows.tolist()),
        ("equal boxes", identities),
    ):
        where: dict[Any, set[str]] = defaultdict(set)
        for row in live:
            where[names[row]].add(splits[row])
        found.update(f"{what} in {_both(shared)}" for shared in where.values() if len(shared) > 1)
    return found


def _both(splits: Iterable[str]) -> str:
    return " and ".join(sorted(splits, key=split_order))


def _warnings(root: Path, index: Index) -> list[str]:
    """A sentence for each way in which pictures cannot be used."""
    columns = (index.pictures[name].to_pylist() for name in ("path", "status", "reason"))
    live = [row for row in zip(*columns, strict=True) if row[1] != "removed"]
    found = []
    for status in ("missing", "unreadable"):
        bad = [(path, reason) for path, its, reason in live if its == status]
        if not bad:
            continue
        path, reason = bad[0]
        which = f"the first: {path} ({reason}); all of them: emocache cache ls"
        if len(bad) == len(live):
            found.append(
                f"ALL {len(bad)} pictures are {status} below {root}: the index holds annotation "
                f"only, and nothing can be extracted; set data.root to the pictures; {which}"
            )
        else:
            found.append(f"{len(bad)} of {len(live)} pictures are {status} below {root}; {which}")
    return found
