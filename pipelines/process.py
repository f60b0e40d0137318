"""How a process that runs networks waits and keeps memory; measured in docs/benchmarks.md."""

import contextlib
import ctypes
import os
import sys

# glibc's numbers of what `mallopt` sets, and the variables that say the same to a new process.
KEEP = {
    -4: ("MALLOC_MMAP_MAX_", 0),  # M_MMAP_MAX: none that goes back by itself
    -1: ("MALLOC_TRIM_THRESHOLD_", -1),  # M_TRIM_THRESHOLD: none from the end, either
}


def settle() -> None:
    """Call it before torch is loaded; processes that are started later do the same. What the
    environment says already stands.

    Threads that have nothing to do leave the cores to others. Memory that was freed is kept for
    the next layer: to give it back to the system and take it again, page by page, costs a third of
    a network's time.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.platform.startswith("linux") or "GLIBC_TUNABLES" in os.environ:
        return
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such thing
        mallopt = ctypes.CDLL(None).mallopt
        for number, (variable, value) in KEEP.items():
            if variable not in os.environ:
                os.environ[variable] = str(value % 2**63)
                mallopt(number, value)
