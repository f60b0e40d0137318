"""The extraction: each picture is decoded once and serves every stale view of all its persons."""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cache.files import sweep
from cache.index import Index
from cache.lock import only_writer
from cache.manifest import read_manifest, write_manifest
from cache.progress import Progress, silent
from cache.settings import Cache
from cache.share import take_rows
from cache.spec import ViewSpec
from cache.writer import ViewWriter
from extract.compute import Computed, Work
from extract.loaded import Networks
from extract.meter import Meter
from extract.plan import Plan, Task, make_plan
from extract.settings import Data, Extract
from extract.views import View, give_definitions


@dataclass
class Outcome:
    """What an extraction did: statuses of the rows it wrote and why, by view; the networks it
    loaded; how many rows of each view came from other caches; the pictures, by path, that are
    not what the index knows: no row was written for them, so that the next run tries them again;
    and where the time went."""

    rows: dict[str, Counter[str]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()
    taken: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    speed: dict[str, Any] = field(default_factory=dict)


def extract(
    data: Data,
    cache: Cache,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
    progress: Progress = silent,
    only: Mapping[str, Any] | None = None,
    retry: bool = False,
) -> Outcome:
    """Bring the cache up to date: compute the missing and the stale rows, nothing else.

    A shard is committed as soon as its rows are complete, so that a stop at any moment loses
    what stands in memory and no more; the next call computes only what is missing. Rows that a
    cache of `cache.take_from` has under the same key are copied from there first. With
    `extract.workers` or `extract.cluster` other processes compute, a shard at a time each, and
    this one writes: the cache is the same.
    progress: called with (pictures done, pictures in all); one that is read and described counts
    for two. only: rows by view to compute, whatever else is missing. retry: compute rows again that
    stand in the cache as failed.
    Raises DataError where there are no pictures, WeightsError for a network without weights,
    CacheError where the cache is being written or belongs to another index.
    """
    with only_writer(cache.root, "extract"):
        index = Index.read(cache.root)
        give_definitions(views, index)
        sweep(cache.root)
        work = Work(data, settings, views, networks)
        return update(index, cache, work, progress, only, retry)


def update(
    index: Index,
    cache: Cache,
    work: Work,
    progress: Progress = silent,
    only: Mapping[str, Any] | None = None,
    retry: bool = False,
) -> Outcome:
    """`extract`, for who holds the cache for writing already: the rows of `index` in the views of
    `work`."""
    views, networks = work.views, work.networks

    def planned() -> Plan:
        return make_plan(cache.root, index, views, networks, cache.shard_rows, only, retry)

    plan = planned()
    if read_manifest(cache.root) is None:  # from now on a missing one is damage
        write_manifest(cache.root, index.digest())
    outcome = Outcome(reasons=dict(plan.reasons))
    taken = from_others(take_rows, cache, index, views, networks, plan)
    outcome.taken = {name: len(rows) for name, rows in taken.items()}
    if outcome.taken:
        plan = planned()
    work.require(plan)
    writers = _Writers(cache, index, views, plan)
    networks.meter = meter = Meter()
    try:
        # Whatever ends the run, rows that are ready are committed.
        with (
            contextlib.closing(writers),
            contextlib.closing(_computed(plan, work)) as results,
        ):
            _write_all(plan, views, results, writers, outcome, meter, progress)
    finally:
        write_manifest(cache.root, index.digest())
    outcome.rows = writers.statuses
    outcome.networks = tuple(dict.fromkeys((*outcome.networks, *networks.loaded)))
    outcome.speed = meter.summary()
    return outcome


def _computed(plan: Plan, work: Work) -> Generator[Computed]:
    """Everything that the plan asks for, here or in other processes."""
    if plan.empty:
        return
    workers = _processes(plan, work)
    if work.settings.cluster or workers:
        from extract.cluster import compute_elsewhere  # Dask takes a second to load

        settings = work.settings.model_copy(update={"workers": workers})
        yield from compute_elsewhere(plan, replace(work, settings=settings))
        return
    for rows in plan.parts:
        yield work.pictureless(rows)
    yield from work.compute(plan.tasks)


def _processes(plan: Plan, work: Work) -> int:
    """How many processes compute beside this one; 0 where this one does."""
    settings = work.settings
    if settings.workers or settings.cluster or not plan.tasks or work.networks.device() != "cuda":
        return settings.workers
    import torch

    count = torch.cuda.device_count()
    return count if count > 1 else 0


def _write_all(
    plan: Plan,
    views: Mapping[str, View],
    results: Iterable[Computed],
    writers: "_Writers",
    outcome: Outcome,
    meter: Meter,
    progress: Progress,
) -> None:
    seen: set[int] = set()
    described = [name for name in plan.pictureless if views[name].space == "pictures"]
    steps = plan.pictures + sum(len(plan.pictureless[name]) for name in described)
    for computed in results:
        with meter.measure("write"):
            writers.put(computed)
        seen |= {task.picture for task in computed.tasks}
        meter.add(computed.seconds)
        meter.pictures, meter.rows = len(seen), writers.count
        outcome.skipped |= computed.skipped
        outcome.networks = tuple(dict.fromkeys((*outcome.networks, *computed.networks)))
        if computed.tasks or not computed.rows.keys().isdisjoint(described):
            done = sum(writers.statuses[name].total() for name in described)
            progress(len(seen) + done, steps)


def from_others(
    find: Callable[..., Iterable[int]],
    cache: Cache,
    index: Index,
    views: Mapping[str, View],
    networks: Networks,
    plan: Plan,
) -> dict[str, np.ndarray]:
    """The planned rows, by view, that caches of `cache.take_from` have: the first one that has a
    row gives it. find: `cache.share.take_rows`, which copies them, or `offered` to look only."""
    found: dict[str, np.ndarray] = {}
    for name, rows in plan.rows.items() if cache.take_from else ():
        if not len(rows):
            continue
        key, ids = views[name].key(networks), index.ids(views[name].space)
        left = rows
        for donor in cache.take_from:
            left = np.setdiff1d(left, list(find(cache, name, key, ids, left, donor)))
        if len(left) < len(rows):
            found[name] = np.setdiff1d(rows, left)
    return found


class _Writers:
    """A writer for each view, opened with its first row: only then is its width known."""

    def __init__(self, cache: Cache, index: Index, views: Mapping[str, View], plan: Plan):
        self.cache, self.index = cache, index
        self.expected = {name: set(rows.tolist()) for name, rows in plan.rows.items()}
        self.statuses: dict[str, Counter[str]] = {name: Counter() for name in views}
        self.open: dict[str, ViewWriter] = {}

    @property
    def count(self) -> int:
        """Rows that were put."""
        return sum(sum(counts.values()) for counts in self.statuses.values())

    def put(self, computed: Computed) -> None:
        for task in computed.tasks:
            if task.path in computed.skipped:
                self._forget(task)
        for name, rows in computed.rows.items():
            if name not in self.open:
                self._open(name, computed.specs[name])
            for row, value in rows:
                self.open[name].put(row, value)
                self.statuses[name][value.status] += 1

    def _open(self, name: str, spec: ViewSpec) -> None:
        cache, ids = self.cache, self.index.ids(spec.space)
        self.open[name] = ViewWriter(cache.root, spec, ids, cache.shard_rows, cache.compression)
        self.open[name].expect(self.expected[name])

    def _forget(self, task: Task) -> None:
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
