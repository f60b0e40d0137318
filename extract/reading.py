"""Pictures on their way to the networks: read, decoded and cut to size in threads, a block ahead.

What waits in memory is bounded: two blocks, each of so many pictures and so many pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cache.files import sha256_file
from extract import images
from extract.meter import Meter
from extract.plan import Task
from extract.settings import Extract
from extract.views import Subject, View

# Of a block, with a copy for every person: 200 MB of RGB.
PIXELS = 1 << 26


@dataclass
class Ready:
    """A task whose picture is ready: for each view its rows, and what the view computes them from;
    or the reason why there is no picture."""

    task: Task
    inputs: dict[str, list[Any]] = field(default_factory=dict)
    error: images.PictureError | None = None


def blocks_of(tasks: Sequence[Task], most: int) -> list[list[Task]]:
    """Tasks cut into blocks of at most `most` pictures and `PIXELS` pixels; a block ends where a
    shard does, so that a stop costs one shard."""
    blocks: list[list[Task]] = []
    pixels = 0
    for task in tasks:
        size = task.pixels * (1 + max((len(rows) for rows in task.rows.values()), default=0))
        last = blocks[-1] if blocks else []
        full = len(last) == most or pixels + size > PIXELS
        if not last or full or last[-1].shards != task.shards:
            blocks.append([])
            pixels = 0
        blocks[-1].append(task)
        pixels += size
    return blocks


def ready(
    tasks: Sequence[Task], root: Path, settings: Extract, views: Mapping[str, View], meter: Meter
) -> Iterator[list[Ready]]:
    """Blocks of tasks with what their views need; the next block is made ready meanwhile.

    root: the folder that the pictures' paths start from.
    """
    blocks = blocks_of(tasks, settings.block)
    with ThreadPoolExecutor(settings.readers) as pool:
        reading: dict[str, Future[images.Picture]] = {}

        def start(block: list[Task]) -> list["Future[Ready]"]:
            nonlocal reading
            # A picture at the border of two shards is in both blocks, and read once.
            reading = {
                task.path: reading.get(task.path)
                or pool.submit(_read, root / task.path, task.id, meter)
                for task in block
            }
            # Each waits for a picture that was asked for before it, so none waits for ever.
            return [pool.submit(_prepare, task, reading[task.path], views, meter) for task in block]

        ahead: list[Future[Ready]] = []
        for block, following in zip_longest(blocks, blocks[1:], fillvalue=[]):
            current = ahead or start(block)
            ahead = start(following)
            with meter.measure("wait"):
                done = [one.result() for one in current]
            del current
            yield done


def _read(path: Path, known: str, meter: Meter) -> images.Picture:
    """The picture with the id `known`. A file that is gone or changed since `prepare` is
    `missing`: a disk that is not mounted must not fill the cache with failures."""
    changed = images.PictureError("the file has changed since `emocache prepare`", "missing")
    try:
        with meter.measure("read"):
            data = images.load(path)
        with meter.measure("decode"):
            picture = images.read(data)
    except images.PictureError as error:
        # Only the bytes that the index knows are a failure that lasts.
        lasts = error.status == "missing" or _bytes_of(path) == known
        raise (error if lasts else changed) from None
    if picture.id != known:
        raise changed
    return picture


def _bytes_of(path: Path) -> str:
    """SHA-256 of a file, or "" where it cannot be read."""
    try:
        return sha256_file(path) if path.is_file() else ""
    except OSError:
        return ""


def _prepare(
    task: Task, reading: "Future[images.Picture]", views: Mapping[str, View], meter: Meter
) -> Ready:
    try:
        picture = reading.result()
    except images.PictureError as error:
        return Ready(task, error=error)
    with meter.measure("prepare"):
        inputs = {
            name: [views[name].prepare(Subject(picture.pixels, box)) for _, box in rows]
            for name, rows in task.rows.items()
        }
    return Ready(task, inputs)
