"""The extraction: each picture is decoded once and serves every stale view of all its persons."""

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache.files import sha256_file
from cache.index import Index
from cache.settings import Cache
from cache.store import Row, ViewWriter, write_manifest
from extract import images
from extract.plan import Plan, Task, make_plan, row_ids
from extract.settings import Data, Extract
from extract.views import Networks, Subject, View

Progress = Callable[[int, int], None]


@dataclass
class Outcome:
    """What an extraction did: statuses of the rows it wrote and why, by view; the networks it
    loaded; and the pictures, by path, that are not what the index knows: no row was written for
    them, so that the next run tries them again."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    skipped: dict[str, str] = field(default_factory=dict)


def extract(
    data: Data,
    cache: Cache,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
    progress: Progress = lambda done, total: None,
) -> Outcome:
    """Bring the cache up to date: compute the missing and the stale rows, nothing else.

    A shard is committed as soon as its rows are complete, so that a stop at any moment loses
    what stands in memory and no more; the next call computes only what is missing.
    """
    index = Index.read(cache.root)
    give_definitions(views, cache.root)
    plan = make_plan(cache.root, index, views, networks)
    outcome = Outcome({name: Counter() for name in views}, dict(plan.reasons))
    writers: dict[str, ViewWriter] = {}
    forgotten: dict[str, set[int]] = {name: set() for name in views}

    def forget(task: Task) -> None:
        for name, rows in task.rows.items():
            for row, _ in rows:
                forgotten[name].add(row)
                if name in writers:
                    writers[name].forget(row)

    def put(name: str, row: int, value: Row) -> None:
        if name not in writers:
            view = views[name]
            writers[name] = ViewWriter(
                cache.root,
                view.spec(networks),
                row_ids(index, view),
                cache.shard_rows,
                cache.compression,
            )
            writers[name].expect(set(plan.rows[name].tolist()) - forgotten[name])
        writers[name].put(row, value)
        outcome.rows[name][value.status] += 1

    with contextlib.ExitStack() as stack:
        # Whatever ends the run, rows that are ready are committed.
        stack.callback(lambda: [writer.close() for writer in writers.values()])
        for row, value in _labels(plan, views, networks):
            put("labels", row, value)
        done = 0
        for tasks, pictures in _decoded(plan, index, data, settings):
            for task in _leave_out(tasks, pictures, index, outcome):
                forget(task)
            for name in views:
                for row, value in _compute(views[name], tasks, pictures, index, networks):
                    put(name, row, value)
            done += len(tasks)
            progress(done + len(outcome.skipped), len(plan.tasks))
    write_manifest(cache.root, index.digest())
    outcome.networks = networks.loaded
    return outcome


def give_definitions(views: Mapping[str, View], root: Path) -> None:
    """Hand the label definitions that `prepare` wrote to the view that reads them."""
    path = root / "index" / "labels.json"
    if "labels" in views and path.exists():
        views["labels"].definitions = json.loads(path.read_text())


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

    blocks = [
        plan.tasks[start : start + settings.block]
        for start in range(0, len(plan.tasks), settings.block)
    ]
    with ThreadPoolExecutor(settings.workers) as pool:
        ahead = [pool.submit(read, task) for task in blocks[0]] if blocks else []
        for number, block in enumerate(blocks):
            reading = ahead
            following = blocks[number + 1] if number + 1 < len(blocks) else []
            ahead = [pool.submit(read, task) for task in following]
            yield block, [future.result() for future in reading]


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
