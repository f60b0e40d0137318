"""A data set merged into the tables of an index: rows are known again, and only ever added."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache.boxes import NO_BOX, Box
from cache.index import VAD, Index, Origin, occurrences, person_id, split_order
from extract import images
from extract.datasets import PersonRecord, PictureRecord
from extract.people import Choice
from extract.placing import place
from extract.splits import Splitter

# The person of a picture (row, width and height) that the annotation gives no box for; with the
# annotated face where there is one.
Choose = Callable[[int, tuple[int, int], Box | None], Choice]


@dataclass(frozen=True)
class Probe:
    """What the file of a picture turned out to be."""

    header: images.Header | None
    status: str
    reason: str


class Tables:
    """The two tables of an index while a data set is merged into them, as lists of dicts."""

    def __init__(self, old: Index | None, splitter: Splitter) -> None:
        self.splitter = splitter
        self.pictures: list[dict[str, Any]] = old.pictures.to_pylist() if old else []
        self.persons: list[dict[str, Any]] = old.persons.to_pylist() if old else []
        self.counts: Counter[str] = Counter()
        self.rows: dict[str, Counter[str]] = defaultdict(Counter)
        self._old_pictures = len(self.pictures)
        self._old_persons = len(self.persons)
        known = occurrences(self.persons)
        self._person_rows = {occurrence: row for row, occurrence in enumerate(known)}
        self._rows_of: dict[str, list[int]] = defaultdict(list)
        for row, entry in enumerate(self.persons):
            self._rows_of[entry["id"]].append(row)
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
        self._groups: dict[int, str] = {}  # of a picture: the first by name of its paths' groups

    def add_pictures(
        self, records: list[PictureRecord], probes: dict[str, Probe]
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
            group = self.splitter.group(record.path, record.group)
            known_group = self._groups.get(rows[record.path], "")
            self._groups[rows[record.path]] = min(filter(None, (group, known_group)), default="")
        for record in records:
            if rows[record.path] not in self._seen_pictures:
                self._seen_pictures.add(rows[record.path])
                self._fill_picture(rows[record.path], record, probes[record.path])
        joined = len(rows) - len(self._seen_pictures)
        self.counts["pictures with the bytes of another picture, joined"] = joined
        return rows

    def _fill_picture(self, row: int, record: PictureRecord, probe: Probe) -> None:
        picture, header = self.pictures[row], probe.header
        if header is not None:
            picture.update(id=header.id, width=header.width, height=header.height)
        elif not picture or picture["id"] == _placeholder(record.path):
            picture.update(id=_placeholder(record.path))
            picture.update(width=record.width or 0, height=record.height or 0)
        # else the row is from a time when the file was readable, and keeps its id and size
        group = self._groups[row]
        split = self.splitter.split(record.split, record.path, group, picture["id"])
        attributes = json.dumps(dict(record.attributes)) if record.attributes else ""
        picture.update(path=record.path, split=split, source=record.source)
        picture.update(group=group, attributes=attributes)
        picture.update(status=probe.status, reason=probe.reason)

    def add_persons(
        self,
        records: Sequence[PictureRecord],
        rows: Mapping[str, int],
        probes: Mapping[str, Probe],
        choose: Choose,
    ) -> None:
        """The persons of all pictures, in the annotation's order; rows, probes: by path."""
        found = [
            one
            for record in records
            for one in self._found(record, rows[record.path], probes[record.path], choose)
        ]
        for one in found:
            one.at = self._known_row(one)
        for one in found:
            if one.at is None:
                one.at = self._moved_row(one)
            self._add(one, one.at)

    def _found(
        self, record: PictureRecord, row: int, probe: Probe, choose: Choose
    ) -> Iterator["_Found"]:
        """The persons of one picture, each placed in it."""
        picture = self.pictures[row]
        annotated = (record.width, record.height) if record.width and record.height else None
        header = probe.header
        if header is None and picture["width"]:
            header = images.Header(picture["id"], picture["width"], picture["height"], 1)
        elif header and annotated and annotated != (header.width, header.height):
            self.counts["pictures whose size differs from the annotation"] += 1
        for person in record.persons:
            placed = self._placed(person, row, annotated, header, choose)
            nobody = placed.origin == "whole"
            identity = person_id(picture["id"], placed.box, placed.face, nobody)
            key = identity, self._split(person, record, row, picture["id"])
            time = self._times[key]
            self._times[key] += 1
            self._splits[row].add(key[1])
            yield _Found(record, person, row, placed, key, time, annotated)

    def _known_row(self, one: "_Found") -> int | None:
        """The row that this person had in this split, which nobody else then takes."""
        at = self._person_rows.get((*one.key, one.time))
        path = one.record.path
        if at is None and path in self._now_readable:
            # Annotated before the picture could be read: the row knows the path only.
            header = _annotated_header(one.annotated)
            before, _, _ = place(one.person.box or NO_BOX, one.annotated, header)
            face = None
            if one.person.face is not None:
                face, why, _ = place(one.person.face, one.annotated, header)
                face = None if why else face
            identity = person_id(_placeholder(path), before, face)
            split = self._split(one.person, one.record, one.row, _placeholder(path))
            at = self._person_rows.get((identity, split, one.time))
        if at in self._seen_persons:
            return None
        if at is not None:
            self._seen_persons.add(at)
        return at

    def _moved_row(self, one: "_Found") -> int:
        """The row that this person had in another split, whose features are right in this one as
        well; else a new row. A repeat gets a new row, as it must come after the first."""
        known = () if one.time else self._rows_of[one.key[0]]
        free = (row for row in known if row not in self._seen_persons)
        at = next(free, len(self.persons))
        if at == len(self.persons):
            self.persons.append({})
        self._seen_persons.add(at)
        return at

    def _add(self, one: "_Found", at: int) -> None:
        person, placed, key = one.person, one.placed, one.key
        status, reason = placed.status, placed.reason
        if person.status != "ok":
            status, reason = person.status, person.reason
        if one.time and status in ("ok", "unlabelled"):
            first = self._first[key]
            if status == "ok" and self.persons[first]["status"] == "unlabelled":
                # The copy with labels counts, in the row that the person has.
                self._fill_person(self.persons[first], key, one.row, placed, person, "ok", "")
                self.counts["persons without labels, annotated again with some"] += 1
            status, reason = self._repeated(person, first)
        self._first.setdefault(key, at)
        self.counts["persons with a bad box"] += status == "bad_box"
        picture = self.pictures[one.row]
        if picture["status"] != "ok":
            status, reason = picture["status"], picture["reason"]
        self._fill_person(self.persons[at], key, one.row, placed, person, status, reason)

    def _placed(
        self,
        person: PersonRecord,
        row: int,
        annotated: tuple[int, int] | None,
        header: images.Header | None,
        choose: Choose,
    ) -> "_Placed":
        """Box and face of a person in the upright picture."""
        face = None
        if person.face is not None:
            face, why, notes = place(person.face, annotated, header, "faces")
            self.counts.update(notes)
            if why:
                self.counts["annotated faces that are no box in the picture, left out"] += 1
                face = None
        if person.box is not None:
            box, reason, notes = place(person.box, annotated, header)
            self.counts.update(notes)
            return _Placed(box, face, "annotated", "bad_box" if reason else "ok", reason)
        # Nobody can be looked for; the picture's own status counts.
        if header is None or self.pictures[row]["status"] != "ok":
            return _Placed(NO_BOX, face, "found", "ok", "")
        found = choose(row, (header.width, header.height), face)
        box = NO_BOX if found.box is None else found.box
        return _Placed(box, face, found.origin, found.status, found.reason)

    def _split(self, person: PersonRecord, record: PictureRecord, row: int, identity: str) -> str:
        return self.splitter.split(person.split, record.path, self._groups[row], identity)

    def _repeated(self, person: PersonRecord, first: int) -> tuple[str, str]:
        """Status and reason of a person that stands in the row `first` already."""
        self.counts["persons repeated"] += 1
        if not np.array_equal(self.persons[first]["labels"], person.labels):
            self.counts["persons repeated with other labels (the first ones count)"] += 1
        return "repeated", f"same picture, box and split as row {first}"

    @staticmethod
    def _fill_person(
        entry: dict[str, Any],
        key: tuple[str, str],
        picture: int,
        placed: "_Placed",
        person: PersonRecord,
        status: str,
        reason: str,
    ) -> None:
        votes = None if person.votes is None else person.votes.tolist()
        entry.update(id=key[0], picture=picture, split=key[1])
        entry.update(zip(("x1", "y1", "x2", "y2"), placed.box, strict=True))
        entry.update(origin=placed.origin, face=None if placed.face is None else list(placed.face))
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


@dataclass(slots=True)
class _Found:
    """A person of the annotation. row: of the picture; key: id and split; time: which of its
    repeats there it is; annotated: the size of the picture that boxes were drawn in; at: its
    row."""

    record: PictureRecord
    person: PersonRecord
    row: int
    placed: "_Placed"
    key: tuple[str, str]
    time: int
    annotated: tuple[int, int] | None
    at: int | None = None


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where a person is in the upright picture, and why that is no use."""

    box: Box
    face: Box | None
    origin: Origin
    status: str
    reason: str


def _placeholder(path: str) -> str:
    """The id of a picture whose bytes say nothing."""
    return f"path:{path}"


def _annotated_header(size: tuple[int, int] | None) -> images.Header | None:
    return images.Header("", *size, 1) if size else None
