"""Extraction by other processes: the same cache, whoever dies on the way."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

import pytest
from distributed import Client
from distributed.core import Status

from cache.errors import ClusterError, SettingsError
from cache.settings import Cache
from extract import cluster, run
from extract import settings as config
from extract.loaded import Networks
from tests.extract.test_crash import committed, files
from tests.extract.test_run import Place
from tests.made_views import Colour, made_views
from tests.shared import quick_folder

pytestmark = pytest.mark.slow

SHARD_ROWS = 8


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = quick_folder(tmp_path_factory, "cluster")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def undisturbed(quick):
    place = Place(quick / "whole", pictures=60)
    broken = place.data / "p" / "003.png"
    broken.write_bytes(broken.read_bytes()[:-40])
    place.prepare()
    place.extract()
    return place


class Deadly(Colour):
    """Kills its worker: once for each file it finds below `fuses`, which it takes away, when it
    comes to a picture; or always, at the picture with the mean colour `always`."""

    def __init__(self, fuses: Path, always: float | None = None):
        super().__init__(pause=0.002)
        self.fuses, self.always = fuses, always

    def compute(self, subjects, networks):
        for fuse in sorted(self.fuses.iterdir()):
            try:
                fuse.unlink()
            except FileNotFoundError:
                continue  # the other worker was quicker
            os.kill(os.getpid(), signal.SIGKILL)
        if self.always in [float(subject.pixels.mean()) for subject in subjects]:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().compute(subjects, networks)


def extract(place: Place, root: Path, views=None, **settings) -> run.Outcome:
    if not root.exists():
        shutil.copytree(place.cache / "index", root / "index")
    return run.extract(
        config.Data(root=place.data),
        Cache(root=root, shard_rows=SHARD_ROWS),
        config.Extract(batch=4, **settings),
        views or made_views(),
        Networks(config.Weights()),
    )


def test_two_processes_give_the_cache_of_one(undisturbed, quick):
    outcome = extract(undisturbed, quick / "two", workers=2)
    assert files(quick / "two") == files(undisturbed.cache)
    assert outcome.rows["colour"] == {"ok": 59, "unreadable": 1}
    assert outcome.speed["processes"] == 2 and outcome.speed["pictures"] == 40
    assert {"read", "decode", "prepare", "write"} <= outcome.speed["parts"].keys()
    assert extract(undisturbed, quick / "two", workers=2).speed["rows"] == 0


def test_workers_that_are_killed_cost_their_shard_and_nothing_else(undisturbed, quick):
    fuses = quick / "fuses"
    fuses.mkdir()
    for number in range(2):
        (fuses / str(number)).touch()
    views = made_views()
    views["colour"] = Deadly(fuses)
    extract(undisturbed, quick / "killed", views, workers=2)
    assert not list(fuses.iterdir())
    assert files(quick / "killed") == files(undisturbed.cache)


def test_a_picture_that_kills_every_worker_leaves_out_its_shard_only(
    undisturbed, quick, monkeypatch
):
    monkeypatch.setattr(cluster, "DEATHS", 2)  # each costs a new process its start
    (quick / "none").mkdir()
    views = made_views()
    deadly = float(undisturbed.pixels(30).mean())
    views["colour"] = Deadly(quick / "none", always=deadly)
    with pytest.raises(ClusterError, match="1 shards killed 2 workers each"):
        extract(undisturbed, quick / "deadly", views, workers=1)
    lost = committed(undisturbed.cache) - committed(quick / "deadly")
    assert 0 < max(lost.values()) <= SHARD_ROWS
    extract(undisturbed, quick / "deadly")
    assert files(quick / "deadly") == files(undisturbed.cache)


def test_a_worker_that_dies_while_it_starts_is_replaced(monkeypatch):
    """Its nanny leaves it dead; distributed 2026.8 does."""
    monkeypatch.setattr(cluster, "LOOK", 0.5)
    with cluster._Local(1, "cpu") as local, Client(local) as client:
        (nanny,) = local.workers.values()
        first = client.submit(os.getpid, pure=False).result()
        nanny.status = Status.starting
        os.kill(first, signal.SIGKILL)
        with cluster._kept(local, 1):
            assert client.submit(os.getpid, pure=False).result(timeout=120) != first
        assert len(local.worker_spec) == 1  # the dead one is not asked for any more


def test_a_worker_that_the_cluster_gives_up_is_replaced(monkeypatch):
    """As it does with one that takes more than 15 s to come back (`lost-worker-timeout`)."""
    monkeypatch.setattr(cluster, "LOOK", 0.5)
    with cluster._Local(1, "cpu") as local, Client(local) as client:
        ((name, nanny),) = local.workers.items()
        first = client.submit(os.getpid, pure=False).result()
        with cluster._kept(local, 1):
            del local.workers[name]
            local.sync(nanny.close)
            assert client.submit(os.getpid, pure=False).result(timeout=120) != first
        assert len(local.worker_spec) == 1


def test_a_scheduler_of_ones_own_and_one_that_is_lost(undisturbed, quick):
    """The scheduler is killed in the middle: what was committed stays, and the rest is added."""
    code = """
        import time
        from distributed import LocalCluster
        if __name__ == "__main__":
            cluster = LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None)
            print(cluster.scheduler_address, flush=True)
            time.sleep(600)
    """
    script = quick / "scheduler.py"
    script.write_text(textwrap.dedent(code))
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    scheduler = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        start_new_session=True,
    )
    try:
        address = scheduler.stdout.readline().strip()
        slow = """
            import sys
            from pathlib import Path
            from cache.settings import Cache
            from extract import run
            from extract import settings as config
            from extract.loaded import Networks
            from tests.made_views import made_views
            data, root, address = sys.argv[1:]
            run.extract(config.Data(root=data), Cache(root=root, shard_rows=8),
                        config.Extract(batch=4, cluster=address), made_views(pause=0.01),
                        Networks(config.Weights()))
        """
        root = quick / "lost"
        shutil.copytree(undisturbed.cache / "index", root / "index")
        command = [sys.executable, "-c", textwrap.dedent(slow)]
        process = subprocess.Popen(
            [*command, str(undisturbed.data), str(root), address],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        end = time.monotonic() + 60
        while len(list(root.glob("colour.zarr/commits/0*.json"))) < 2 and time.monotonic() < end:
            time.sleep(0.01)
    finally:
        os.killpg(scheduler.pid, signal.SIGKILL)
        scheduler.communicate()
    _, said = process.communicate(timeout=120)
    assert process.returncode != 0, said
    assert "the Dask scheduler is lost" in said and "go on" in said
    before = committed(root)
    assert 0 < before["colour"] < 60
    extract(undisturbed, root)
    assert files(root) == files(undisturbed.cache)


def test_no_scheduler_is_a_sentence(undisturbed, quick, monkeypatch):
    def impatient(address, timeout):
        assert timeout == "10s"
        return Client(address, timeout="1s")

    monkeypatch.setattr(cluster, "Client", impatient)
    with pytest.raises(SettingsError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        extract(undisturbed, quick / "none_there", cluster="tcp://127.0.0.1:9")
    assert committed(quick / "none_there") == Counter()
