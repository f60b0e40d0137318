"""Shapes named in signatures are checked under test: the hook must stand before any import.

`make test` runs two processes (pytest-xdist). See `pytest_xdist_make_scheduler`.
"""

import os

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from pipelines.process import settle

# Two processes of two threads each would take turns on two cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

settle()  # as the command does, before torch is imported

# Not where whole numbers are taken for others, as pydantic does, and boxes and rows are.
CHECKED = [
    *(f"cache.{name}" for name in ("commits", "shards", "store")),
    *(f"train.{name}" for name in ("checkpoint", "data", "explain", "fit", "head", "heads")),
    *(
        f"train.{name}"
        for name in (
            *("export", "labels", "layers", "losses", "metrics", "ridge", "run", "scores"),
            "whatif",
        )
    ),
    *(
        f"train.uniemox.{name}"
        for name in (
            *("classifier", "descent", "encoder", "fusion", "grids", "logs", "losses", "ranks"),
            "student",
        )
    ),
]
install_import_hook(CHECKED, "beartype.beartype")

# A busy machine is no failure.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


# Files whose tests share the DVC run of tests/pipelines/conftest.py.
ONE_RUN = (
    "test_cli",
    "test_docs",
    "test_dvc",
    "test_evaluation",
    "test_exported",
    "test_predict",
    "test_report",
    "test_scenes",
    "test_sharing",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that share the one run begin, then come those with slow tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.stem not in ONE_RUN, item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay in one process, as all of `ONE_RUN` do; who ends first takes the next.

    Not `--dist loadgroup`, which xdist 3.8 silently loses under pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "one run" if file.endswith(tuple(f"/{name}.py" for name in ONE_RUN)) else file

    config.option.loadscopereorder = False
    return ByFile(config, log)
