"""Kill the extractor wherever it stands: the cache that comes of it is the undisturbed one."""

import json
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from cache.errors import CacheError
from cache.lock import only_writer
from cache.paths import view_names
from cache.statuses import STATUS
from cache.store import open_view
from tests.extract.test_run import Place
from tests.shared import quick_folder

KILLS, SHARD_ROWS = 50, 8

# Forks an extraction, kills it after so many seconds, and says how it ended: "killed" or "whole".
# What was computed is written to a log as it happens; it outlives the kill.
SERVER = """
    import json, os, signal, sys, time
    from cache.settings import Cache
    from extract import run
    from extract import settings as config
    from extract.loaded import Networks
    from pathlib import Path
    from tests.made_views import made_views

    def extract(data, root, log):
        views = made_views(pause=0.001)
        for name, view in views.items():
            def compute(subjects, networks, name=name, inner=view.compute):
                os.write(log, f"{name} {len(subjects)}\\n".encode())
                return inner(subjects, networks)
            view.compute = compute
        run.extract(config.Data(root=data), Cache(root=root, shard_rows=8),
                    config.Extract(batch=4), views, Networks(config.Weights()))

    for line in sys.stdin:
        data, root, log, seconds = json.loads(line)
        child = os.fork()
        if not child:
            extract(Path(data), Path(root), os.open(log, os.O_APPEND | os.O_CREAT | os.O_WRONLY))
            os._exit(0)
        ended, end = 0, time.monotonic() + seconds
        while not ended and time.monotonic() < end:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.001)
        if not ended:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        print("killed" if os.WIFSIGNALED(status) else "whole", flush=True)
"""


def files(root: Path) -> dict[str, bytes]:
    """Every file of a cache; the lock says who wrote last, and is not part of it."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def committed(root: Path) -> Counter:
    return Counter({name: int(open_view(root, name).done.sum()) for name in view_names(root)})


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = quick_folder(tmp_path_factory, "crash")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def undisturbed(quick):
    place = Place(quick / "whole", pictures=120)
    place.extract()
    return place


@pytest.mark.slow
def test_fifty_kills_at_random_moments_leave_the_undisturbed_cache(undisturbed, quick):
    moments, kills, caches = random.Random(11), 0, 0
    command = [sys.executable, "-c", textwrap.dedent(SERVER)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    expected = files(undisturbed.cache)
    with server:
        while kills < KILLS:
            caches += 1
            root, log = quick / f"cache{caches}", quick / f"log{caches}"
            shutil.copytree(undisturbed.cache / "index", root / "index")
            ended = "killed"
            while ended == "killed":
                before = committed(root)
                size = log.stat().st_size if log.exists() else 0
                seconds = moments.uniform(0.0, 0.3) if kills < KILLS else 60
                order = [str(undisturbed.data), str(root), str(log), seconds]
                server.stdin.write(json.dumps(order) + "\n")
                server.stdin.flush()
                ended = server.stdout.readline().strip()
                kills += ended == "killed"
                computed: Counter = Counter()
                for line in log.read_text()[size:].splitlines() if log.exists() else ():
                    computed[line.split()[0]] += int(line.split()[1])
                lost = computed - (committed(root) - before)
                assert max(lost.values(), default=0) <= SHARD_ROWS, lost
                for name in view_names(root):
                    view = open_view(root, name)
                    assert (view.status[view.done] != STATUS["absent"]).all()
            assert ended == "whole"
            assert files(root) == expected
        server.stdin.close()
    assert kills >= KILLS


@pytest.mark.slow
def test_killed_at_every_step_of_a_commit(undisturbed, quick):
    """The steps are the calls that change the disk: each rename, each deletion, each flush."""
    expected = files(undisturbed.cache)
    step, ended = 0, "killed"
    while ended == "killed":
        root = quick / f"step{step}"
        shutil.copytree(undisturbed.cache, root)
        for file in ("commits/000002.json", "features/c/2/0", "status/c/2"):
            (root / "colour.zarr" / file).unlink()
        child = os.fork()
        if not child:
            try:
                _die_at(step)
                _extract(undisturbed, root)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        ended = "killed" if os.WIFSIGNALED(status) else "whole"
        _extract(undisturbed, root)
        assert files(root) == expected, step
        shutil.rmtree(root)
        step += 1
    assert step > 10


def _extract(place: Place, root: Path) -> None:
    other = Place.__new__(Place)
    other.root, other.data, other.cache = place.root, place.data, root
    other.extract()


def _die_at(step: int) -> None:
    left = [step]
    for name in ("replace", "rename", "unlink", "fsync"):
        setattr(os, name, _counted(getattr(os, name), left))


def _counted(call, left: list[int]):
    def dying(*args, **more):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return call(*args, **more)

    return dying


def test_a_second_writer_is_refused_and_told_who_holds_the_cache(undisturbed, tmp_path):
    shutil.copytree(undisturbed.cache, tmp_path / "cache")
    with only_writer(tmp_path / "cache", "extract"):
        with pytest.raises(CacheError, match=rf"`emocache extract`, process {os.getpid()} on "):
            _extract(undisturbed, tmp_path / "cache")
        assert open_view(tmp_path / "cache", "colour").read().any()  # readers need no lock
    _extract(undisturbed, tmp_path / "cache")


def test_the_lock_of_a_dead_process_holds_nobody(undisturbed, tmp_path):
    code = """
        import os, sys
        from pathlib import Path
        from cache.lock import only_writer
        with only_writer(Path(sys.argv[1]), "extract"):
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "cache")])
    assert done.returncode == -9 and (tmp_path / "cache" / ".lock").read_text()
    with only_writer(tmp_path / "cache", "extract"):
        pass
