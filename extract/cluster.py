"""The same plan on other processes and machines, by Dask: one task a shard, one process writes.

Workers read pictures and run networks; rows come back to the process that holds the cache, which
commits them as it does its own. So the cache needs no shared disk and no second writer, a worker
that dies costs its shard and nothing else, and a lost scheduler leaves a cache that goes on.
Pictures must be found under `data.root` on every machine.
"""

import contextlib
import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, islice
from typing import Any

import dask
from distributed import (
    Client,
    KilledWorker,
    Nanny,
    Scheduler,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_worker,
)
from distributed.client import FutureCancelledError
from distributed.comm import CommClosedError

from cache.errors import ClusterError, SettingsError
from extract.meter import Meter
from extract.plan import Plan, Task
from extract.run import Computed, compute, labels
from extract.settings import Data, Extract
from extract.views import Networks, View

NAME = "emocache"
AHEAD = 2  # tasks in flight for each worker: one that runs, one that waits
DEATHS = 3  # of workers over one task, until the task is given up
LOOK = 5.0  # seconds from one look at the worker processes to the next

Labels = Mapping[str, Sequence[int]]  # rows by view
Shard = tuple[Sequence[Task], Labels]  # its tasks; and the rows of labels, which are a shard too


class Extractor(WorkerPlugin):
    """What each worker keeps: the views, and the networks once they are loaded."""

    name = NAME

    def __init__(
        self,
        data: Data,
        settings: Extract,
        views: Mapping[str, View],
        networks: Networks,
        threads: int,
    ):
        self.data, self.settings, self.views = data, settings, views
        self.networks, self.threads = networks, threads

    def setup(self, worker: Any) -> None:
        self.networks.meter = Meter()
        self.lock = threading.Lock()  # a worker with several threads still has one set of networks
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)

    def run(self, tasks: Sequence[Task], label_rows: Labels) -> Computed:
        """All rows of one shard."""
        with self.lock:
            return self._run(tasks, label_rows)

    def _run(self, tasks: Sequence[Task], label_rows: Labels) -> Computed:
        before = Counter(self.networks.meter.seconds)
        done = Computed(tasks)
        parts: list[Computed] = []
        if label_rows:
            parts.append(labels(label_rows, self.views, self.networks))
        parts += compute(tasks, self.data, self.settings, self.views, self.networks)
        for part in parts:
            done.specs |= part.specs
            done.skipped |= part.skipped
            for name, rows in part.rows.items():
                done.rows.setdefault(name, []).extend(rows)
        done.seconds = dict(self.networks.meter.seconds - before)
        done.networks = self.networks.loaded
        return done


def run_shard(tasks: Sequence[Task], label_rows: Labels) -> Computed:
    """Runs on a worker."""
    return get_worker().plugins[NAME].run(tasks, label_rows)


def compute_elsewhere(
    plan: Plan,
    data: Data,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
) -> Iterator[Computed]:
    """What `extract.run.compute` gives, from `extract.workers` processes of this machine or from
    the workers of the Dask scheduler at `extract.cluster`, shard by shard as they are ready.

    Raises SettingsError where there is no scheduler or it has no workers, ClusterError where it is
    lost, or where shards kill one worker after the other: the others are computed before.
    """
    with _client(settings, networks) as client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        threads = max(1, (os.cpu_count() or 1) // workers) if settings.workers else 0
        # What belongs to this process stays here; weights are found anew, and loaded, over there.
        bare = replace(networks, on_load=_nothing, map=map, _found={}, _loaded={})
        data = data.model_copy(update={"root": data.root.expanduser().absolute()})
        alone = settings.model_copy(update={"workers": 0, "cluster": None})
        client.register_plugin(Extractor(data, alone, views, bare, threads), name=NAME)
        networks.meter.processes = workers

        shards: list[Shard] = [(tasks, {}) for tasks in plan.shards]
        if plan.labels:
            shards.insert(0, ([], plan.labels))
        suspects: list[Shard] = []
        for shard, done in _run_all(client, shards, AHEAD * workers):
            if isinstance(done, KilledWorker):
                suspects.append(shard)
            else:
                yield done
        # Who waited at a worker that died is blamed as well: each is tried once more, alone.
        lost: list[str] = []
        for _, done in _run_all(client, suspects, 1):
            if isinstance(done, KilledWorker):
                lost.append(str(done))
            else:
                yield done
        if lost:
            raise ClusterError(
                f"{len(lost)} shards killed {DEATHS} workers each, and are left out; everything "
                f"else is extracted. Too little memory? Set extract.block, extract.batch or "
                f"extract.workers lower. ({lost[0]})"
            )


def _run_all(
    client: Client, shards: Sequence[Shard], at_once: int
) -> Iterator[tuple[Shard, Computed | KilledWorker]]:
    """Each shard with what came of it, as they are ready."""
    left = iter(shards)
    of: dict[Any, Shard] = {}

    def submit(count: int) -> list[Any]:
        futures = {client.submit(run_shard, *one, pure=False): one for one in islice(left, count)}
        of.update(futures)
        return list(futures)

    running = as_completed(submit(at_once))
    for future in running:
        shard = of.pop(future)
        try:
            done = future.result()
        except KilledWorker as error:
            done = error
        except (FutureCancelledError, CommClosedError) as error:
            raise ClusterError(
                "the Dask scheduler is lost: what is committed stays, run the command again to go "
                f"on ({error})"
            ) from error
        yield shard, done
        future.release()
        running.update(submit(1))


def _nothing(weights: Any) -> None:
    """Workers say nothing."""


@contextlib.contextmanager
def _client(settings: Extract, networks: Networks) -> Iterator[Any]:
    """A client of the scheduler that the settings name, or of one that lives as long as this."""
    with contextlib.ExitStack() as closing:
        log = logging.getLogger("distributed")
        closing.callback(log.setLevel, log.level)
        log.setLevel(logging.ERROR)
        limits = {"distributed.scheduler.allowed-failures": DEATHS - 1}
        closing.enter_context(dask.config.set(limits))
        if settings.cluster:
            try:
                client = closing.enter_context(Client(settings.cluster, timeout="10s"))
            except (OSError, ValueError, TimeoutError) as error:
                raise SettingsError(
                    f"no Dask scheduler answers at {settings.cluster} ({error}): start one with "
                    "`dask scheduler`, or set extract.cluster"
                ) from error
            if not client.scheduler_info(n_workers=-1)["workers"]:
                raise SettingsError(
                    f"the Dask scheduler at {settings.cluster} has no workers: start some with "
                    f"`dask worker {settings.cluster}` where emocache is installed"
                )
        else:
            cluster = closing.enter_context(_Local(settings.workers, networks.device()))
            client = closing.enter_context(Client(cluster))
            closing.enter_context(_kept(cluster, settings.workers))
        yield client


class _Local(SpecCluster):
    """A scheduler and `workers` processes here; on GPUs, one GPU each in turn."""

    def __init__(self, workers: int, device: str):
        self.gpus: list[str] = []
        if device == "cuda":
            import torch

            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            every = [str(number) for number in range(torch.cuda.device_count())]
            self.gpus = visible.split(",") if visible else every
        self.numbers = count()
        first = [self.new_worker_spec() for _ in range(workers)]
        super().__init__(
            workers={number: options for one in first for number, options in one.items()},
            scheduler={"cls": Scheduler, "options": {"dashboard": False, "host": "127.0.0.1"}},
            silence_logs=logging.ERROR,
        )

    def new_worker_spec(self) -> dict[int, dict[str, Any]]:
        number = next(self.numbers)
        made: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "silence_logs": logging.ERROR}
        made |= {"host": "127.0.0.1", "dashboard": False}  # a worker runs what it is sent
        if self.gpus:
            made["env"] = {"CUDA_VISIBLE_DEVICES": self.gpus[number % len(self.gpus)]}
        return {number: {"cls": Nanny, "options": made}}


@contextlib.contextmanager
def _kept(cluster: SpecCluster, workers: int) -> Iterator[None]:
    """Put another worker in the place of one that stays dead.

    Its nanny starts a worker that dies again, but not one that dies while it starts, as it may of
    the task it is sent at once: with the last of them gone, tasks would wait for ever.
    """
    over = threading.Event()

    def look() -> None:
        dead: set[Any] = set()
        while not over.wait(LOOK):
            gone = {name for name, one in list(cluster.workers.items()) if not one.is_alive()}
            for name in gone & dead:
                cluster.worker_spec.pop(name, None)
            if gone & dead:
                cluster.scale(workers)
            dead = gone

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
