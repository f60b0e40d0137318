"""What an extraction has to do: for each view, the rows that are missing or stale, and why."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from cache.boxes import WHOLE, Box
from cache.errors import CacheError
from cache.index import Index
from cache.keys import in_short
from cache.paths import view_folder
from cache.statuses import FAILED, STATUS
from cache.store import open_view
from extract.loaded import Networks
from extract.views import View

# What a second of signals counts for, in pixels, when blocks are cut: ten or so numbers at 700 Hz.
SECOND = 10_000


@dataclass(frozen=True)
class Who:
    """Whom a row is of. box: the person's, `cache.boxes.WHOLE` of a whole picture; face: as
    annotated, or None; nobody: the whole picture stands for a person, as none was found."""

    box: Box = WHOLE
    face: Box | None = None
    nobody: bool = False


@dataclass(frozen=True)
class Task:
    """One picture to decode and the rows it serves: view name -> [(row, who)].

    group: the shard of the persons it serves, and that of the picture itself. A picture with
    persons in two shards has two tasks: shards are finished one after the other, and a stop costs
    one of each view at most. picture: its row; path: relative to `data.root`; id: SHA-256 that its
    bytes must have; pixels: how many it has.
    """

    group: tuple[int, int]
    picture: int
    path: str
    id: str
    pixels: int
    rows: Mapping[str, list[tuple[int, Who]]]


@dataclass
class Plan:
    """rows: the rows to compute for each view; reasons: why, a sentence a view; tasks: the same
    rows by picture, shard after shard; pictureless: those of views that need no picture;
    shard_rows: rows of a shard."""

    rows: dict[str, np.ndarray] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    pictureless: dict[str, list[int]] = field(default_factory=dict)
    shard_rows: int = 1024

    @property
    def groups(self) -> list[list[Task]]:
        """The tasks of equal `group`, in order: what one process computes in one go."""
        return [list(tasks) for _, tasks in groupby(self.tasks, key=lambda task: task.group)]

    @property
    def parts(self) -> list[dict[str, list[int]]]:
        """The rows of `pictureless`, a shard of a view each: what one process computes in one go,
        so that a stop costs one shard."""
        return [
            {name: list(some)}
            for name, rows in self.pictureless.items()
            for _, some in groupby(rows, key=lambda row: row // self.shard_rows)
        ]

    @property
    def empty(self) -> bool:
        """Whether there is nothing to compute."""
        return not any(len(rows) for rows in self.rows.values())

    @property
    def pictures(self) -> int:
        """How many pictures have to be read."""
        return len({task.picture for task in self.tasks})


def make_plan(
    root: Path,
    index: Index,
    views: Mapping[str, View],
    networks: Networks,
    shard_rows: int = 1024,
    only: Mapping[str, np.ndarray] | None = None,
    retry: bool = False,
) -> Plan:
    """Compare the cache at `root` with what index, settings and weights ask for. Loads no network.

    only: rows by view to look at, the others are left as they are. retry: compute rows again that
    stand in the cache as failed.
    Raises CacheError when the cache holds rows under other ids than the index: they would be
    read as the wrong persons.
    """
    plan = Plan(shard_rows=shard_rows)
    persons = index.wanted("persons")
    first = np.zeros(len(index.pictures), int)  # person of each picture
    first[index.picture_rows[persons[::-1]]] = persons[::-1]
    tasks: dict[Any, dict[str, list[tuple[int, Who]]]] = defaultdict(lambda: defaultdict(list))
    people = [
        Who(tuple(box), face, origin == "whole")
        for box, face, origin in zip(
            index.boxes.tolist(), index.faces, index.persons["origin"].to_pylist(), strict=True
        )
    ]
    for name, view in views.items():
        rows, reason = _missing(root, index, view, networks, retry)
        if only is not None:
            rows = rows[np.isin(rows, only.get(name, ()))]
        plan.rows[name], plan.reasons[name] = rows, reason
        if view.pictureless:
            if len(rows):
                plan.pictureless[name] = rows.tolist()
            continue
        for row in rows.tolist():
            person = row if view.space == "persons" else int(first[row])
            picture = int(index.picture_rows[person])
            group = person // shard_rows, picture // shard_rows
            who = people[person] if view.space == "persons" else Who()
            tasks[group, picture][name].append((row, who))
    weight = SECOND if index.modalities else 1
    columns = ("path", "id", "width", "height")
    paths, ids, widths, heights = (index.pictures[name].to_pylist() for name in columns)
    plan.tasks = [
        Task(
            group,
            picture,
            paths[picture],
            ids[picture],
            weight * (widths[picture] or 0) * (heights[picture] or 0),
            dict(rows),
        )
        for (group, picture), rows in sorted(tasks.items())
    ]
    return plan


def networks_needed(plan: Plan, views: Mapping[str, View]) -> list[str]:
    """The networks, each once, of the views that have rows to compute."""
    stale = [views[name] for name, rows in plan.rows.items() if len(rows)]
    return list(dict.fromkeys(network for view in stale for network in view.network_names()))


def _missing(
    root: Path, index: Index, view: View, networks: Networks, retry: bool
) -> tuple[np.ndarray, str]:
    """The rows of one view to compute, and why."""
    wanted = index.wanted(view.space)
    if not view_folder(root, view.name).exists():
        return wanted, "not extracted yet"
    stored = open_view(root, view.name)
    if stored.key != view.key(networks):
        why = in_short(stored.spec.parts, view.parts(networks))
        return wanted, f"other key: {why}; replaces {int(stored.done.sum())} rows"
    ids = index.ids(view.space)
    if len(stored) > len(ids):
        raise CacheError(
            f"{stored.path} has {len(stored)} rows but the index {len(ids)}: it belongs to another "
            "index; set cache.root to a new folder"
        )
    for commit in stored.commits.values():
        if not commit.fits(ids):
            first, last = commit.rows[[0, -1]]
            raise CacheError(
                f"{stored.path} holds other {view.space} than the index in its rows {first} to "
                f"{last}: it belongs to another index; set cache.root to a new folder"
            )
    rows = wanted[~stored.done_of(len(ids))[wanted]]
    reasons = [f"{len(rows)} rows are not there yet"] if len(rows) else []
    if retry:
        codes = [STATUS[word] for word in FAILED]
        failed = wanted[wanted < len(stored)]
        failed = failed[np.isin(stored.status[failed], codes)]
        rows = np.union1d(rows, failed)
        reasons += [f"{len(failed)} rows that had failed"] if len(failed) else []
    return rows, ", ".join(reasons) or "up to date"
