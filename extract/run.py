"""The extraction: each picture is decoded once and serves every stale view of all its persons."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.errors import DataError
from cache.files import sweep
from cache.index import Index
from cache.keys import key_of
from cache.lock import only_writer
from cache.manifest import read_manifest, write_manifest
from cache.settings import Cache
from cache.share import take_rows
from cache.spec import Row, ViewSpec
from cache.writer import ViewWriter
from extract.meter import Meter
from extract.plan import Plan, Task, make_plan
from extract.reading import Ready, ready
from extract.settings import Data, Extract
from extract.views import Networks, View

Progress = Callable[[int, int], None]


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


@dataclass
class Computed:
    """What came of some tasks: rows by view with what each view is, the pictures left out and why;
    and, where another process computed it, the seconds it took and the networks it has loaded."""

    tasks: Sequence[Task] = ()
    rows: dict[str, list[tuple[int, Row]]] = field(default_factory=dict)
    specs: dict[str, ViewSpec] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    networks: tuple[str, ...] = ()


def extract(
    data: Data,
    cache: Cache,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
    progress: Progress = lambda done, total: None,
    only: Mapping[str, Any] | None = None,
    retry: bool = False,
) -> Outcome:
    """Bring the cache up to date: compute the missing and the stale rows, nothing else.

    A shard is committed as soon as its rows are complete, so that a stop at any moment loses
    what stands in memory and no more; the next call computes only what is missing. Rows that a
    cache of `cache.take_from` has under the same key are copied from there first. With
    `extract.workers` or `extract.cluster` other processes compute, a shard at a time each, and
    this one writes: the cache is the same.
    only: rows by view to compute, whatever else is missing. retry: compute rows again that stand
    in the cache as failed.
    """
    with only_writer(cache.root, "extract"):
        index = Index.read(cache.root)
        give_definitions(views, index)
        sweep(cache.root)

        def planned() -> Plan:
            return make_plan(cache.root, index, views, networks, cache.shard_rows, only, retry)

        plan = planned()
        if read_manifest(cache.root) is None:  # from now on a missing one is damage
            write_manifest(cache.root, index.digest())
        outcome = Outcome(reasons=dict(plan.reasons))
        outcome.taken = _take_over(cache, index, views, networks, plan)
        if outcome.taken:
            plan = planned()
        refuse_early(data, plan, views, networks)
        writers = _Writers(cache, index, views, plan)
        networks.meter = meter = Meter()
        try:
            # Whatever ends the run, rows that are ready are committed.
            with (
                contextlib.closing(writers),
                contextlib.closing(_computed(plan, data, settings, views, networks)) as results,
            ):
                _write_all(plan, results, writers, outcome, meter, progress)
        finally:
            write_manifest(cache.root, index.digest())
        outcome.rows = writers.statuses
        outcome.networks = tuple(dict.fromkeys((*outcome.networks, *networks.loaded)))
        outcome.speed = meter.summary()
        return outcome


def _computed(
    plan: Plan,
    data: Data,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
) -> Iterator[Computed]:
    """Everything that the plan asks for, here or in other processes."""
    if plan.empty:
        return
    settings = settings.model_copy(update={"workers": _processes(plan, settings, networks)})
    if settings.cluster or settings.workers:
        from extract.cluster import compute_elsewhere

        yield from compute_elsewhere(plan, data, settings, views, networks)
        return
    if plan.labels:
        yield labels(plan.labels, views, networks)
    yield from compute(plan.tasks, data, settings, views, networks)


def _processes(plan: Plan, settings: Extract, networks: Networks) -> int:
    """How many processes compute beside this one; 0 where this one does."""
    if settings.workers or settings.cluster or not plan.tasks or networks.device() != "cuda":
        return settings.workers
    import torch

    count = torch.cuda.device_count()
    return count if count > 1 else 0


def compute(
    tasks: Sequence[Task],
    data: Data,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
) -> Iterator[Computed]:
    """The rows of some tasks, block by block, from pictures that are made ready meanwhile."""
    root = data.root.expanduser()
    with ThreadPoolExecutor(settings.readers) as pool:
        networks.map = pool.map
        try:
            for block in ready(tasks, root, settings, views, networks.meter):
                yield _of_block(block, views, networks)
        finally:
            networks.map = map


def labels(
    rows: Mapping[str, Sequence[int]], views: Mapping[str, View], networks: Networks
) -> Computed:
    """The rows of the views of labels, by view, which need no picture."""
    done = Computed()
    for name, numbers in rows.items():
        view = views[name]
        found = view.run([view.subject(view.definitions[row]) for row in numbers], networks)
        done.rows[name] = list(zip(numbers, found, strict=True))
        done.specs[name] = view.spec(networks)
    return done


def _of_block(block: list[Ready], views: Mapping[str, View], networks: Networks) -> Computed:
    done = Computed([one.task for one in block])
    for one in block:
        if one.error is not None and one.error.status == "missing":
            done.skipped[one.task.path] = one.error.reason
    for name, view in views.items():
        rows, inputs = [], []
        failed: list[tuple[int, Row]] = []
        for one in block:
            served = [row for row, _ in one.task.rows.get(name, ())]
            if one.error is None:
                rows += served
                inputs += one.inputs.get(name, [])
            elif one.task.path not in done.skipped:
                row = Row(one.error.status, reason=one.error.reason)
                failed += [(number, row) for number in served]
        found = view.compute(inputs, networks) if rows else []
        if rows or failed:
            done.rows[name] = failed + list(zip(rows, found, strict=True))
            done.specs[name] = view.spec(networks)
    return done


def _write_all(
    plan: Plan,
    results: Iterable[Computed],
    writers: "_Writers",
    outcome: Outcome,
    meter: Meter,
    progress: Progress,
) -> None:
    seen: set[int] = set()
    for computed in results:
        with meter.measure("write"):
            writers.put(computed)
        seen |= {task.picture for task in computed.tasks}
        meter.add(computed.seconds)
        meter.pictures, meter.rows = len(seen), writers.count
        outcome.skipped |= computed.skipped
        outcome.networks = tuple(dict.fromkeys((*outcome.networks, *computed.networks)))
        if computed.tasks:
            progress(len(seen), plan.pictures)


def _take_over(
    cache: Cache,
    index: Index,
    views: Mapping[str, View],
    networks: Networks,
    plan: Plan,
) -> dict[str, int]:
    """Copy what other caches have of the planned rows; gives how many rows of each view."""
    return {
        name: len(rows)
        for name, rows in from_others(take_rows, cache, index, views, networks, plan).items()
    }


def from_others(
    find: Callable[..., Iterable[int]],
    cache: Cache,
    index: Index,
    views: Mapping[str, View],
    networks: Networks,
    plan: Plan,
) -> dict[str, np.ndarray]:
    """The planned rows, by view, that caches of `cache.take_from` have: the first one that has a
    row gives it. find: `cache.share.take_rows`, or `offered` to look only."""
    found: dict[str, np.ndarray] = {}
    for name, rows in plan.rows.items() if cache.take_from else ():
        if not len(rows):
            continue
        key, ids = key_of(views[name].parts(networks)), index.ids(views[name].rows)
        left = rows
        for donor in cache.take_from:
            left = np.setdiff1d(left, list(find(cache, name, key, ids, left, donor)))
        if len(left) < len(rows):
            found[name] = np.setdiff1d(rows, left)
    return found


def refuse_early(data: Data, plan: Plan, views: Mapping[str, View], networks: Networks) -> None:
    """What would stop the run halfway stops it here: no pictures, or a network without weights."""
    if plan.tasks and not data.root.expanduser().is_dir():
        raise DataError(f"there is no folder {data.root}: set data.root to where the pictures are")
    for network in networks_needed(plan, views):
        networks.weights(network)


def networks_needed(plan: Plan, views: Mapping[str, View]) -> list[str]:
    """The networks, each once, of the views that have rows to compute."""
    stale = [views[name] for name, rows in plan.rows.items() if len(rows)]
    return list(dict.fromkeys(network for view in stale for network in view.network_names()))


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


def give_definitions(views: Mapping[str, View], index: Index) -> None:
    """Hand the labels of the index, with their definitions, to the views that read them."""
    for view in views.values():
        if view.space == "labels":
            view.definitions = [dict(one) for one in index.definitions]
