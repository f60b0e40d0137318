"""From a data set's annotation to the index of a cache: what is there, and what is wrong.

An index is only ever added to. A picture is known again by its bytes, a person by picture, box
and annotated face, so features that were computed once stay right whatever happens to the
annotation, splits and rules.
A picture that is missing or unreadable has no bytes to be known by: its id is `path:<path>`
until it can be read, and its rows keep their numbers then.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cache.boxes import Box
from cache.contents import dropped_persons
from cache.errors import DataError, KeyMismatch, first_line, in_few
from cache.files import sha256_file, sweep
from cache.index import PERSONS, PICTURES, VAD, Index, LabelKind, recover_index, split_order
from cache.lock import only_writer
from cache.manifest import write_manifest
from cache.paths import index_folder
from cache.progress import Progress, silent
from cache.statuses import USABLE
from extract import images
from extract.datasets import NAN, Dataset, PersonRecord, PictureRecord, open_dataset
from extract.datasets._reading import misspelt
from extract.definitions import definitions_of
from extract.merging import Choose, Probe, Tables
from extract.people import Choice, Detected, Finder, choose
from extract.settings import Data
from extract.signals.recording import identity, parts_of
from extract.splits import Splitter
from extract.targets import as_classes, as_target, regroup, target_kind


@dataclass
class Prepared:
    """What `prepare` found.

    kind: of the labels. pictures, persons: split to status to count; a picture that two splits
    share counts in both. labels_per_person: split to the mean over persons with labels.
    persons_per_label: label to split to how many persons that count have it, or a share of it.
    origins: where the boxes of the persons that count come from. rows: table to how many rows this
    call added, kept, revived or removed. oddities: what was clipped, dropped or joined, with
    counts. warnings: sentences that must be seen. dropped: who does not count, though the picture
    is there: see `cache.contents.dropped_persons`. groups: split to how many groups count there,
    where groups are known; recordings: whether rows are windows of recordings.
    """

    dataset: str
    note: str
    root: str
    labels: int
    kind: str = ""
    pictures: dict[str, dict[str, int]] = field(default_factory=dict)
    persons: dict[str, dict[str, int]] = field(default_factory=dict)
    labels_per_person: dict[str, float] = field(default_factory=dict)
    persons_per_label: dict[str, dict[str, int]] = field(default_factory=dict)
    origins: dict[str, int] = field(default_factory=dict)
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    oddities: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    dropped: list[dict[str, str]] = field(default_factory=list)
    groups: dict[str, int] = field(default_factory=dict)
    recordings: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Source:
    """A data set as it was read, and what its files are."""

    data: Data
    dataset: Dataset
    kind: LabelKind | Literal[""]
    labels: tuple[str, ...]  # those of the index: the set's own, or those of `data.classes`
    definitions: dict[str, str]
    said: str  # of the classes
    records: list[PictureRecord]
    probes: dict[str, Probe]


# Looks for the persons of these rows of the tables; gives who says which they are.
Look = Callable[[_Source, Tables, Sequence[int]], Choose]


def prepare(
    data: Data,
    cache_root: Path,
    workers: int = 4,
    finder: Finder | None = None,
    progress: Progress = silent,
) -> Prepared:
    """Read the data set into the index below `cache_root`, and write its label definitions.

    data: which reader, and where its files are. workers: threads that hash files and read their
    headers. finder: who looks for persons that the annotation gives no box for; progress: called
    with (pictures hashed, pictures in all).
    Raises DataError for data that cannot be read or have no persons, or have no boxes where there
    is no finder; SettingsError for an unknown `data.name`, or a `data.target` that the set cannot
    give; KeyMismatch where the cache holds another set of labels; and as `extract.run.extract`.
    """
    cache_root = Path(cache_root)
    source = _read(data, workers, progress)
    with only_writer(cache_root, "prepare"):
        recover_index(cache_root)
        old = _old_index(cache_root, data.name, source.labels)

        def look(source: _Source, tables: Tables, rows: Sequence[int]) -> Choose:
            return _look(source, tables, rows, cache_root, finder)

        index, done = _merge(source, old, look, finder)
        index.write(cache_root)
        if finder is not None and finder.outcome.rows:
            write_manifest(finder.cache.root, index.digest())
    return done


def check(data: Data, workers: int = 4, progress: Progress = silent) -> Prepared:
    """What `prepare` would find for a new cache. Nothing is written, and nobody is looked for.
    Raises as `prepare`."""

    def nobody(source: _Source, tables: Tables, rows: Sequence[int]) -> Choose:
        tables.counts["pictures in which the person will be looked for"] += len(rows)
        return lambda row, size, face: Choice(face or (0.0, 0.0, *size), "found")

    done = _merge(_read(data, workers, progress), None, nobody, None)[1]
    done.rows.clear()  # of no cache
    done.origins = {"annotated": done.origins["annotated"]} if "annotated" in done.origins else {}
    return done


def _read(data: Data, workers: int, progress: Progress) -> _Source:
    window = data.window.seconds, data.window.step
    dataset = open_dataset(data.name, data.root, data.file, data.follow_links, window)
    kind = target_kind(dataset, data.target)
    own = dataset.definitions
    definitions = definitions_of(data.name, dataset.labels, own, data.definitions)
    labels, said = dataset.labels, ""
    classes = None if data.classes is None else regroup(dataset, definitions, data.classes)
    records = list(dataset.records())
    _require_widths(data.name, len(labels), records)
    if classes is not None:
        labels, definitions, said = classes.labels, classes.definitions, classes.said()
        records = [
            replace(record, persons=[as_classes(person, classes) for person in record.persons])
            for record in records
        ]
    if not any(record.persons for record in records):
        raise DataError(f"the {data.name} annotation in {data.root} has no persons: see data.root")
    paths = list(dict.fromkeys(record.path for record in records))
    sizes = {record.path: (record.width or 0, record.height or 0) for record in records}
    for path in paths:
        if path.encode(errors="ignore").decode() != path:
            raise DataError(f"the picture {path!r} has a name that is no UTF-8: rename it")
    root = dataset.root.resolve()
    probes: dict[str, Probe] = {}
    with ThreadPoolExecutor(workers) as pool:
        if dataset.modalities:
            found = _probe_recordings(root, sizes, data.follow_links, pool)
        else:
            found = pool.map(lambda path: _probe(root, path, data.follow_links), paths)
        for path, probe in zip(paths, found, strict=True):
            probes[path] = probe
            progress(len(probes), len(paths))
    return _Source(data, dataset, kind, labels, definitions, said, records, probes)


def _probe(root: Path, path: str, follow_links: bool) -> Probe:
    try:
        return Probe(images.header(images.place(root, path, follow_links)), "ok", "")
    except images.PictureError as error:
        return Probe(None, error.status, error.reason)


def _probe_recordings(
    root: Path, sizes: Mapping[str, tuple[int, int]], follow_links: bool, pool: ThreadPoolExecutor
) -> Iterator[Probe]:
    """One for each path, of stretches of that size; each file is hashed once."""

    def hashed(file: str) -> tuple[str, images.PictureError | None]:
        try:
            place = images.place(root, file, follow_links)
            if not place.is_file():
                return "", images.PictureError("no such file", "missing")
            return sha256_file(place), None
        except images.PictureError as error:
            return "", error
        except OSError as error:
            return "", images.PictureError(f"the file cannot be read: {first_line(error)}")

    files = dict.fromkeys(parts_of(path)[0] for path in sizes)
    known = {file: pool.submit(hashed, file) for file in files}
    for path, size in sizes.items():
        file, stretch = parts_of(path)
        sha256, error = known[file].result()
        if error is not None:
            yield Probe(None, error.status, error.reason)
        else:
            yield Probe(images.Header(identity(sha256, stretch), *size, 1), "ok", "")


def _old_index(cache_root: Path, name: str, labels: tuple[str, ...]) -> Index | None:
    if not index_folder(cache_root).exists():
        return None
    old = Index.read(cache_root)
    if old.labels != labels:
        new = [label for label in labels if label not in old.labels]
        told = f"; new: {in_few(new)}" if new else ""
        raise KeyMismatch(
            f"the cache in {cache_root} holds {old.dataset} with {len(old.labels)} labels "
            f"({in_few(old.labels)}), {name} has {len(labels)} ({in_few(labels)}{told}): set "
            "cache.root to another folder; with cache.take_from, features are copied from this one"
        )
    return old


def _merge(
    source: _Source, old: Index | None, look: Look, finder: Finder | None
) -> tuple[Index, Prepared]:
    """The index of what was known and what was read, and what is to be said of it."""
    dataset = source.dataset
    splitter = Splitter(source.data.split, dataset.splits)
    if dataset.modalities and not dataset.splits and not source.data.split.file:
        splitter.deal(
            record.group
            for record in source.records
            if record.group and any(person.status == "ok" for person in record.persons)
        )
    tables = Tables(old, splitter)
    rows = tables.add_pictures(source.records, source.probes)
    faces_do = finder is not None and finder.settings.subject == "face"
    boxless = {
        rows[record.path]
        for record in source.records
        if tables.pictures[rows[record.path]]["status"] == "ok"
        and any(_sought(person, faces_do) for person in record.persons)
    }
    chosen = look(source, tables, sorted(boxless))
    records = [
        replace(
            record,
            persons=[
                as_target(person, dataset.kind, source.kind, source.labels)
                for person in record.persons
            ],
        )
        for record in source.records
    ]
    tables.add_persons(records, rows, source.probes, chosen)
    tables.finish()
    about_faces = any(p.face and p.box is None for r in source.records for p in r.persons)
    said = [dataset.note, source.said, splitter.said()]
    if finder and boxless:
        looked = [p for r in source.records for p in r.persons if _sought(p, faces_do)]
        said.append(finder.said(any(p.face for p in looked), not all(p.face for p in looked)))
    if faces_do and about_faces:
        said.append("the annotated face alone stands for the person")
    index = _index(source, tables, "; ".join(one for one in said if one))
    done = Prepared(index.dataset, index.note, str(source.data.root), len(index.labels), index.kind)
    done.rows = {table: dict(tables.rows[table]) for table in ("pictures", "persons")}
    _count(done, index)
    # Counter addition leaves out what occurred 0 times.
    found = dataset.counts + splitter.counts + tables.counts + splitter.mismatches()
    found += _overlaps(index)
    done.oddities = dict(found)
    done.warnings = _warnings(source.data.root, index) + _empty_splits(splitter, index)
    done.warnings += _misspelt(source, index)
    done.dropped = dropped_persons(index)
    done.recordings = bool(index.modalities)
    return index, done


def _require_widths(name: str, count: int, records: Iterable[PictureRecord]) -> None:
    """A reader of one's own may get label vectors wrong."""
    for record in records:
        for person in record.persons:
            if np.shape(person.labels) != (count,):
                raise DataError(
                    f"the reader {name} gives {record.path} a label vector of "
                    f"{np.shape(person.labels)}, and has {count} labels"
                )


def _sought(person: PersonRecord, faces_do: bool) -> bool:
    """Whether a person has to be looked for; faces_do: an annotated face stands for its person."""
    return person.box is None and person.status == "ok" and not (faces_do and person.face)


def _index(source: _Source, tables: Tables, note: str) -> Index:
    labels = source.labels
    return Index(
        source.data.name,
        note,
        labels,
        pa.Table.from_pylist(tables.pictures, PICTURES),
        pa.Table.from_pylist(tables.persons, PERSONS),
        tuple({"label": n, "definition": source.definitions[n]} for n in labels),
        source.kind,
        {name: one.as_dict() for name, one in source.dataset.modalities.items()},
    )


def _look(
    source: _Source,
    tables: Tables,
    rows: Sequence[int],
    cache_root: Path,
    finder: Finder | None,
) -> Choose:
    """Have the finder look at these pictures, where it has not yet."""
    if finder is None:
        if rows:
            raise DataError(f"{source.data.name} has pictures without boxes: give a finder")
        return _no_one
    found: Mapping[str, Mapping[int, Detected]] = {}
    if rows:
        found = _found(source, tables, rows, cache_root, finder)

    def choice(row: int, size: tuple[int, int], face: Box | None) -> Choice:
        if face is not None and finder.settings.subject == "face":
            return Choice(face, "face")
        if row not in found.get("people", {}):
            reason = "the annotated face is no box in the picture"
            return Choice(None, "found", status="bad_box", reason=reason)
        people = found["people"][row]
        if people.status not in USABLE:
            return Choice(None, "found", status=people.status, reason=people.reason)
        faces = found["faces"][row] if "faces" in found else None
        return choose(people, faces, finder.settings, size, face)

    return choice


def _found(
    source: _Source, tables: Tables, rows: Sequence[int], cache_root: Path, finder: Finder
) -> Mapping[str, Mapping[int, Detected]]:
    """What there is in these pictures, by view; the finder looks where it has not yet."""
    sweep(finder.cache.root)
    # What is found is kept by row, so the rows must be known before.
    known = _index(source, tables, "pictures only: `emocache prepare` was stopped here")
    sought = replace(known, persons=_anyone(rows, known))
    if finder.missing(sought):
        if Path(finder.cache.root) == cache_root:
            known.write(cache_root)
        finder.look(sought)
    return finder.found(rows)


def _no_one(row: int, size: tuple[int, int], face: Box | None) -> Choice:
    return Choice(None, "found", status="no_person", reason="nobody was looked for")


def _anyone(rows: Sequence[int], index: Index) -> pa.Table:
    """A person for each of these pictures, so that a plan asks for it."""
    nobody: dict[str, Any] = dict.fromkeys(PERSONS.names)
    nobody |= dict.fromkeys(("x1", "y1", "x2", "y2", *VAD), NAN)
    nobody |= {"split": "", "labels": [0.0] * len(index.labels), "status": "ok"}
    people = [{**nobody, "id": f"picture {row}", "picture": row} for row in rows]
    return pa.Table.from_pylist(people, PERSONS)


def _count(done: Prepared, index: Index) -> None:
    """Counts by split and status; what is removed is no longer part of the data set."""
    status, splits = index.person_status, index.splits
    picture_status = index.pictures["status"].to_pylist()
    names = index.pictures["group"].to_pylist()
    has = index.targets > 0
    done.persons_per_label = {label: {} for label in index.labels}
    for split in sorted(set(splits[status != "removed"]), key=split_order):
        here = (splits == split) & (status != "removed")
        rows = np.unique(index.picture_rows[here])
        done.persons[split] = _ok_first(Counter(status[here].tolist()))
        done.pictures[split] = _ok_first(Counter(picture_status[row] for row in rows))
        named = {names[row] for row in index.picture_rows[here & (status == "ok")]} - {""}
        if named:
            done.groups[split] = len(named)
        having = has[here & (status == "ok")].sum(axis=0).tolist()
        for label, count in zip(index.labels, having, strict=True):
            done.persons_per_label[label][split] = count
        labelled = index.targets[here].sum(axis=1)
        labelled = labelled[labelled > 0]
        done.labels_per_person[split] = float(labelled.mean()) if len(labelled) else 0.0
    done.origins = dict(
        Counter(index.persons["origin"].filter(pa.array(status == "ok")).to_pylist())
    )


def _ok_first(found: Counter[str]) -> dict[str, int]:
    return dict(sorted(found.items(), key=lambda item: item[0] != "ok"))


def _overlaps(index: Index) -> Counter[str]:
    """Pictures, and persons with equal boxes, that two splits share: a leak between them."""
    status, splits = index.person_status, index.splits
    live = np.flatnonzero((status != "removed") & (status != "repeated"))
    identities = index.persons["id"].to_pylist()
    groups = index.pictures["group"].to_pylist()
    found: Counter[str] = Counter()
    for what, names in (
        ("pictures", index.picture_rows.tolist()),
        ("equal boxes", identities),
        ("groups", [groups[row] for row in index.picture_rows]),
    ):
        where: dict[Any, set[str]] = defaultdict(set)
        for row in live:
            if names[row] != "":
                where[names[row]].add(splits[row])
        found.update(f"{what} in {_both(shared)}" for shared in where.values() if len(shared) > 1)
    return found


def _empty_splits(splitter: Splitter, index: Index) -> list[str]:
    """A sentence for each split that is not the set's own and has no person that counts."""
    there = set(index.splits[index.person_status == "ok"].tolist())
    return [
        f"no person that counts is in {split}: raise data.split.{split}, take another "
        "data.split.seed, or give splits yourself, as in data.split.file"
        for split in splitter.drawn()
        if there and split not in there
    ]


def _misspelt(source: _Source, index: Index) -> list[str]:
    """Sentences about labels that are none but those in use: without definitions, which the sets of
    the papers have, and not listed by the user in `labels.yaml` or `data.classes`."""
    listed = source.data.classes is not None or (source.dataset.root / "labels.yaml").is_file()
    if listed:
        return []
    annotated = (index.targets > 0)[index.person_status != "removed"].sum(axis=0).tolist()
    persons = dict(zip(index.labels, annotated, strict=True))
    return misspelt({n: count for n, count in persons.items() if source.definitions[n] == n})


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
        which = f"the first: {path} ({reason}); `emocache cache ls` names all after `prepare`"
        if len(bad) == len(live):
            found.append(
                f"ALL {len(bad)} pictures are {status} below {root}: the index holds annotation "
                f"only, and nothing can be extracted; set data.root to the pictures; {which}"
            )
        else:
            found.append(f"{len(bad)} of {len(live)} pictures are {status} below {root}; {which}")
    return found
