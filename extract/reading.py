"""Pictures and recordings on their way to the views: read, decoded and cut in threads, a block
ahead.

What waits in memory is bounded: two blocks, each of so many pictures and so many pixels.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cache.spec import Row
from extract import images
from extract.meter import Meter
from extract.plan import Task, Who
from extract.settings import Extract
from extract.signals.files import Files
from extract.signals.recording import Excerpt, Recording
from extract.views import Subject, View

Source = images.Picture | Recording  # what a file became

# Of a block, with a copy for every person: 200 MB of RGB.
PIXELS = 1 << 26


@dataclass
class Inputs:
    """What became of the picture of a task, by view.

    given: the rows that can be computed, each with what the view computes it from; failed: those
    that cannot, each with its status and reason. missing: why there is no row at all, as the
    picture is not the one that the index knows; else "".
    """

    task: Task
    given: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    failed: dict[str, list[tuple[int, Row]]] = field(default_factory=dict)
    missing: str = ""


def blocks_of(tasks: Sequence[Task], most: int) -> list[list[Task]]:
    """Tasks cut into blocks of at most `most` pictures and `PIXELS` pixels; a block ends where a
    group does, so that a stop costs one shard."""
    blocks: list[list[Task]] = []
    pixels = 0
    for task in tasks:
        size = task.pixels * (1 + max((len(rows) for rows in task.rows.values()), default=0))
        last = blocks[-1] if blocks else []
        full = len(last) == most or pixels + size > PIXELS
        if not last or full or last[-1].group != task.group:
            blocks.append([])
            pixels = 0
        blocks[-1].append(task)
        pixels += size
    return blocks


def read_ahead(
    tasks: Sequence[Task], root: Path, settings: Extract, views: Mapping[str, View], meter: Meter
) -> Iterator[list[Inputs]]:
    """Blocks of tasks with what their views need; the next block is made ready meanwhile.

    root: the folder that the pictures' paths start from.
    """
    blocks = blocks_of(tasks, settings.batch)
    with ThreadPoolExecutor(settings.readers) as pool:
        reading: dict[str, Future[Source]] = {}
        read = _reader(root, views, meter)

        def start(block: list[Task]) -> list["Future[Inputs]"]:
            nonlocal reading
            # A picture at the border of two shards is in both blocks, and read once.
            reading = {
                task.path: reading.get(task.path) or pool.submit(read, task.path, task.id)
                for task in block
            }
            # Each waits for a picture that was asked for before it, so none waits for ever.
            return [pool.submit(_inputs, task, reading[task.path], views, meter) for task in block]

        ahead: list[Future[Inputs]] = []
        nothing: list[Task] = []
        for block, following in zip_longest(blocks, blocks[1:], fillvalue=nothing):
            current = ahead or start(block)
            ahead = start(following)
            with meter.measure("wait"):
                done = [one.result() for one in current]
            del current
            yield done


def _reader(root: Path, views: Mapping[str, View], meter: Meter) -> Callable[[str, str], Source]:
    """What reads the file of a task by path and id: as a picture, or as the views have it."""
    decoders = {view.decoder for view in views.values()} - {""}
    if not decoders:
        return lambda path, known: _read(root / path, known, meter)
    files = Files(root, decoders.pop())

    def recording(path: str, known: str) -> Recording:
        with meter.measure("read"):
            return files.read(path, known)

    return recording


def _read(path: Path, known: str, meter: Meter) -> images.Picture:
    """The picture with the id `known`. A file that is gone or changed since `prepare` is
    `missing`: a disk that is not mounted must not fill the cache with failures. Only bytes that
    the index knows can fail for good."""
    changed = "the file has changed since `emocache prepare`"
    try:
        with meter.measure("read"):
            data = images.load(path)
    except images.PictureError as error:
        why = error.reason if error.status == "missing" else f"{changed}: {error.reason}"
        raise images.PictureError(why, "missing") from None
    try:
        with meter.measure("decode"):
            picture = images.read(data)
    except images.PictureError:
        if hashlib.sha256(data).hexdigest() == known:
            raise
        raise images.PictureError(changed, "missing") from None
    if picture.id != known:
        raise images.PictureError(changed, "missing")
    return picture


def _inputs(
    task: Task, reading: "Future[Source]", views: Mapping[str, View], meter: Meter
) -> Inputs:
    done = Inputs(task)
    try:
        source = reading.result()
    except images.PictureError as error:
        if error.status == "missing":
            done.missing = error.reason
        else:
            done.failed = {
                name: [(row, _failed(error)) for row, _ in rows] for name, rows in task.rows.items()
            }
        return done
    with meter.measure("prepare"):
        for name, rows in task.rows.items():
            for row, who in rows:
                try:
                    it = views[name].prepare(_subject(source, who))
                except images.PictureError as error:  # of this box alone: the others go on
                    done.failed.setdefault(name, []).append((row, _failed(error)))
                else:
                    done.given.setdefault(name, []).append((row, it))
    return done


def _subject(source: Source, who: Who) -> Subject | Excerpt:
    if isinstance(source, Recording):
        return Excerpt(source.channels, who.box[0], who.box[2])
    return Subject(source.pixels, who.box, who.face, who.nobody)


def _failed(error: images.PictureError) -> Row:
    return Row(error.status, reason=error.reason)
