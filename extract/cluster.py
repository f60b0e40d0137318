"""The same plan on other processes and machines, by Dask: a shard at a time, one process writes.

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
from extract.compute import Computed, Work
from extract.loaded import Networks
from extract.meter import Meter
from extract.plan import Plan, Task
from extract.settings import Extract

NAME = "emocache"
AHEAD = 2  # jobs in flight for each worker: one that runs, one that waits
DEATHS = 3  # of workers over one job, until the job is given up
LOOK = 5.0  # seconds from one look at the worker processes to the next

Rows = Mapping[str, Sequence[int]]  # by view, that need no picture
Job = tuple[Sequence[Task], Rows]  # a group of tasks; or of such rows


class Worker(WorkerPlugin):
    """What each worker keeps: the views, and the networks once they are loaded.

    threads: of torch, 0 for as many as it likes.
    """

    name = NAME

    def __init__(self, work: Work, threads: int):
        self.work, self.threads = work, threads

    def setup(self, worker: Any) -> None:
        """Runs when the worker starts."""
        self.work.networks.meter = Meter()
        self.lock = threading.Lock()  # a worker with several threads still has one set of networks
        if self.threads:
            import torch

            torch.set_num_threads(self.threads)

    def compute(self, tasks: Sequence[Task], rows: Rows) -> Computed:
        """All rows of one job."""
        with self.lock:
            return self._compute(tasks, rows)

    def _compute(self, tasks: Sequence[Task], rows: Rows) -> Computed:
        networks = self.work.networks
        before = Counter(networks.meter.seconds)
        done = Computed(tasks)
        parts = [self.work.pictureless(rows)] if rows else []
        parts += self.work.compute(tasks)
        for part in parts:
            done.specs |= part.specs
            done.skipped |= part.skipped
            for name, some in part.rows.items():
                done.rows.setdefault(name, []).extend(some)
        done.seconds = dict(networks.meter.seconds - before)
        done.networks = networks.loaded
        return done


def run_job(tasks: Sequence[Task], rows: Rows) -> Computed:
    """Runs on a worker."""
    worker: Any = get_worker().plugins[NAME]
    return worker.compute(tasks, rows)


def compute_elsewhere(plan: Plan, work: Work) -> Iterator[Computed]:
    """What `Work` computes, from `extract.workers` processes of this machine or from the workers
    of the Dask scheduler at `extract.cluster`, shard by shard as they are ready.

    Raises SettingsError where there is no scheduler or it has no workers, ClusterError where it is
    lost, or where shards kill one worker after the other: the others are computed before.
    """
    settings, networks = work.settings, work.networks
    with _client(settings, networks) as client:
        workers = len(client.scheduler_info(n_workers=-1)["workers"])
        threads = max(1, (os.cpu_count() or 1) // workers) if settings.workers else 0
        client.register_plugin(Worker(_alone(work), threads), name=NAME)
        networks.meter.processes = workers

        jobs: list[Job] = [([], rows) for rows in plan.parts]
        jobs += [(tasks, {}) for tasks in plan.groups]
        suspects: list[Job] = []
        for job, done in _run_all(client, jobs, AHEAD * workers):
            if isinstance(done, KilledWorker):
                suspects.append(job)
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
                f"else is extracted. Too little memory? Set extract.batch or "
                f"extract.workers lower. ({lost[0]})"
            )


def _alone(work: Work) -> Work:
    """The work as another process does it by itself. What belongs to this process stays here;
    weights are found anew, and loaded, over there."""
    return Work(
        work.data.model_copy(update={"root": work.data.root.expanduser().absolute()}),
        work.settings.model_copy(update={"workers": 0, "cluster": None}),
        work.views,
        replace(work.networks, on_load=_nothing, map=map, _found={}, _loaded={}),
    )


def _run_all(
    client: Client, jobs: Sequence[Job], at_once: int
) -> Iterator[tuple[Job, Computed | KilledWorker]]:
    """Each job with what came of it, as they are ready."""
    left = iter(jobs)
    of: dict[Any, Job] = {}

    def submit(count: int) -> list[Any]:
        futures = {client.submit(run_job, *one, pure=False): one for one in islice(left, count)}
        of.update(futures)
        return list(futures)

    running = as_completed(submit(at_once))
    for future in running:
        job = of.pop(future)
        try:
            done = future.result()
        except KilledWorker as error:
            done = error
        except (FutureCancelledError, CommClosedError) as error:
            raise ClusterError(
                "the Dask scheduler is lost: what is committed stays, run the command again to go "
                f"on ({error})"
            ) from error
        yield job, done
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
    the task it is sent at once; and the cluster closes a nanny whose worker takes more than 15 s to
    come back. With the last of them gone, tasks would wait for ever.
    """
    over = threading.Event()

    def look() -> None:
        dead: set[Any] = set()
        started = set(cluster.workers)  # the cluster lists a worker when it has started
        while not over.wait(LOOK):
            here = dict(cluster.workers)
            started |= here.keys()
            gone = {
                name
                for name in started & set(cluster.worker_spec)
                if name not in here or not here[name].is_alive()
            }
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
