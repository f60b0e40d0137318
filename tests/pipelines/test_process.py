"""What the command tells its process: memory that is freed stays, threads that wait sleep."""

import os
import subprocess
import sys

import pytest

FAULTS = """
    import ctypes, os, resource, sys
    from pipelines.process import settle
    if sys.argv[1] == "settled":
        settle()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        ctypes.create_string_buffer(64 << 20)  # which writes zeros, or has new pages
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(faults, os.environ.get("MALLOC_MMAP_MAX_"))
"""


def told(how: str, **more: str) -> tuple[int, str]:
    names = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
    env = {name: value for name, value in os.environ.items() if name not in names}
    code = "\n".join(line[4:] for line in FAULTS.splitlines())
    done = subprocess.run(
        [sys.executable, "-c", code, how],
        env={**env, **more},
        text=True,
        capture_output=True,
        check=True,
    )
    faults, variable = done.stdout.split()
    return int(faults), variable


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator only")
def test_freed_memory_is_used_again():
    usual, _ = told("as it is")
    kept, variable = told("settled")
    assert kept < usual / 4
    assert variable == "0"  # workers that are started by it do the same


def test_what_the_environment_says_stands():
    faults, variable = told("settled", MALLOC_MMAP_MAX_="65536")
    assert variable == "65536" and faults >= told("settled")[0]
    assert told("settled", GLIBC_TUNABLES="glibc.malloc.arena_max=4")[1] == "None"
