"""The extraction: each picture is decoded once and serves every stale view of all its persons."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path

import numpy as np

from cache.errors import DataError
from cache.files import sha256_file
from cache.index import Index
from cache.keys import key_of
from cache.lock import only_writer
from cache.settings import Cache
from cache.share import take_rows
from cache.store import write_manifest
from cache.writer import Row, ViewWriter, sweep
from extract import images
from extract.plan import Plan, Task, make_plan
from extract.settings import Data, Extract
from extract.views import Networks, Subject, View

Progress = Callable[[int, int], None]


@dataclass
class Outcome:
    """What an extraction did: statuses of the rows it wrote and why, by view; the networks it
    loaded; how many rows of each view came from other caches; and the pictures, by path, that are
    not what the index knows: no row was written for them, so that the next run tries them again."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    taken: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)


def extract(
    data: Data,
    cache: Cache,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
    progress: Progress = lambda done, total: None,
    only: Mapping[str, np.ndarray] | None = None,
) -> Outcome:
    """Bring the cache up to date: compute the missing and the stale rows, nothing else.

    A shard is committed as soon as its rows are complete, so that a stop at any moment loses
    what stands in memory and no more; the next call computes only what is missing. Rows that a
    cache of `cache.take_from` has under the same key are copied from there first.
    only: rows by view to compute, whatever else is missing.
    """
    with only_writer(cache.root, "extract"):
        index = Index.read(cache.root)
        give_definitions(views, index)
        sweep(cache.root)
        plan = make_plan(cache.root, index, views, networks, cache.shard_rows, only)
        outcome = Outcome(reasons=dict(plan.reasons))
        outcome.taken = _take_over(cache, index, views, networks, plan)
        if outcome.taken:
            plan = make_plan(cache.root, index, views, networks, cache.shard_rows, only)
        _refuse_early(data, plan, views, networks)
        writers = _Writers(cache, index, views, networks, plan)
        try:
            # Whatever ends the run, rows that are ready are committed.
            with contextlib.closing(writers):
                blocks = _decoded(plan, index, data, settings)
                _compute_all(plan, index, views, networks, blocks, writers, outcome, progress)
        finally:
            write_manifest(cache.root, index.digest())
        outcome.rows = writers.statuses
        outcome.networks = networks.loaded
        return outcome


def _compute_all(
    plan: Plan,
    index: Index,
    views: Mapping[str, View],
    networks: Networks,
    blocks: Iterator[tuple[list[Task], list["Picture"]]],
    writers: "_Writers",
    outcome: Outcome,
    progress: Progress,
) -> None:
    for row, value in _labels(plan, views, networks):
        writers.put("labels", row, value)
    seen: set[int] = set()
    for tasks, pictures in blocks:
        seen |= {task.picture for task in tasks}
        for task in _leave_out(tasks, pictures, index, outcome):
            writers.forget(task)
        for name, view in views.items():
            for row, value in _compute(view, tasks, pictures, index, networks):
                writers.put(name, row, value)
        progress(len(seen), plan.pictures)


def _take_over(
    cache: Cache,
    index: Index,
    views: Mapping[str, View],
    networks: Networks,
    plan: Plan,
) -> dict[str, int]:
    """Copy what other caches have of the planned rows; gives how many rows of each view."""
    taken: Counter[str] = Counter()
    for donor in cache.take_from:
        for name, rows in plan.rows.items():
            if len(rows):
                key, ids = key_of(views[name].parts(networks)), index.ids(views[name].rows)
                taken[name] += take_rows(cache, name, key, ids, rows, donor)
    return {name: count for name, count in taken.items() if count}


def _refuse_early(data: Data, plan: Plan, views: Mapping[str, View], networks: Networks) -> None:
    """What would stop the run halfway stops it here: no pictures, or a network without weights."""
    if plan.tasks and not data.root.expanduser().is_dir():
        raise DataError(f"there is no folder {data.root}: set data.root to where the pictures are")
    for name, rows in plan.rows.items():
        for network in views[name].network_names() if len(rows) else ():
            networks.weights(network)


class _Writers:
    """A writer for each view, opened with its first row: only then are its networks loaded."""

    def __init__(
        self,
        cache: Cache,
        index: Index,
        views: Mapping[str, View],
        networks: Networks,
        plan: Plan,
    ):
        self.cache, self.index, self.views, self.networks = cache, index, views, networks
        self.expected = {name: set(rows.tolist()) for name, rows in plan.rows.items()}
        self.statuses: dict[str, Counter[str]] = {name: Counter() for name in views}
        self.open: dict[str, ViewWriter] = {}

    def put(self, name: str, row: int, value: Row) -> None:
        if name not in self.open:
            view, cache = self.views[name], self.cache
            spec, ids = view.spec(self.networks), self.index.ids(view.rows)
            self.open[name] = ViewWriter(cache.root, spec, ids, cache.shard_rows, cache.compression)
            self.open[name].expect(self.expected[name])
        self.open[name].put(row, value)
        self.statuses[name][value.status] += 1

    def forget(self, task: Task) -> None:
        """No row of this picture will come."""
        for name, rows in task.rows.items():
            for row, _ in rows:
                self.expected[name].discard(row)
                if name in self.open:
                    self.open[name].forget(row)

    def close(self) -> None:
        with contextlib.ExitStack() as closing:  # one that fails does not keep the others
            for writer in self.open.values():
                closing.callback(writer.close)


def give_definitions(views: Mapping[str, View], index: Index) -> None:
    """Hand the label definitions of the index to the view that reads them."""
    if "labels" in views:
        views["labels"].definitions = [dict(one) for one in index.definitions]


def _leave_out(
    tasks: list[Task], pictures: list["Picture"], index: Index, outcome: Outcome
) -> list[Task]:
    """Take out pictures that are gone or changed since `prepare`: a disk that is not mounted must
    not fill the cache with failures. Gives their tasks."""
    left = []
    for number in reversed(range(len(tasks))):
        picture = pictures[number]
        if isinstance(picture, images.PictureError) and picture.status == "missing":
            path = index.pictures["path"][tasks[number].picture].as_py()
            outcome.skipped[path] = picture.reason
            left.append(tasks.pop(number))
            pictures.pop(number)
    return left


def _labels(plan: Plan, views: Mapping[str, View], networks: Networks) -> Iterator[tuple[int, Row]]:
    rows = plan.rows.get("labels", np.zeros(0, int)).tolist()
    if rows:
        view = views["labels"]
        sentences = [view.definitions[row]["definition"] for row in rows]
        yield from zip(rows, view.compute(sentences, networks), strict=True)


Picture = images.Picture | images.PictureError


def _decoded(
    plan: Plan, index: Index, data: Data, settings: Extract
) -> Iterator[tuple[list[Task], list[Picture]]]:
    """Blocks of tasks with their pictures; the next block is read while this one is computed."""
    root = data.root.expanduser()
    paths, ids = (index.pictures[name].to_pylist() for name in ("path", "id"))

    def read(task: Task) -> Picture:
        path, known = root / paths[task.picture], ids[task.picture]
        changed = images.PictureError("the file has changed since `emocache prepare`", "missing")
        try:
            picture = images.read(path)
        except images.PictureError as error:
            # Only the bytes that the index knows are a failure that lasts.
            lasts = error.status == "missing" or _bytes_of(path) == known
            return error if lasts else changed
        return picture if picture.id == known else changed

    blocks = []
    for _, group in groupby(plan.tasks, key=lambda task: task.shards):
        tasks = list(group)
        size = settings.block
        blocks += [tasks[start : start + size] for start in range(0, len(tasks), size)]
    with ThreadPoolExecutor(settings.workers) as pool:
        reading: dict[int, Future[Picture]] = {}

        def start(block: list[Task]) -> dict[int, "Future[Picture]"]:
            # A picture at the border of two shards is in both blocks, and read once.
            return {
                task.picture: reading.get(task.picture) or pool.submit(read, task) for task in block
            }

        for block, following in zip_longest(blocks, blocks[1:], fillvalue=[]):
            reading = reading or start(block)
            ahead = start(following)
            yield list(block), [reading[task.picture].result() for task in block]
            reading = ahead


def _bytes_of(path: Path) -> str:
    """SHA-256 of a file, or "" where it cannot be read."""
    try:
        return sha256_file(path) if path.is_file() else ""
    except OSError:
        return ""


def _compute(
    view: View, tasks: list[Task], pictures: list[Picture], index: Index, networks: Networks
) -> Iterator[tuple[int, Row]]:
    """The rows of one view for one block; a picture that cannot be read gives rows that say so."""
    rows, subjects = [], []
    for task, picture in zip(tasks, pictures, strict=True):
        for row, person in task.rows.get(view.name, []):
            if isinstance(picture, images.PictureError):
                yield row, Row(picture.status, reason=picture.reason)
            else:
                box = tuple(index.boxes[person].tolist()) if person is not None else None
                rows.append(row)
                subjects.append(Subject(picture.pixels, box))
    if rows:
        yield from zip(rows, view.compute(subjects, networks), strict=True)
