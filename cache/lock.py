"""One writer a cache: a lock that the system itself takes back when its process dies."""

import contextlib
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO

from cache.errors import CacheError
from cache.files import writing_to

log = logging.getLogger("cache")


@contextlib.contextmanager
def only_writer(root: Path, command: str) -> Iterator[None]:
    """Hold the cache at `root` for writing; `command` is what others are told.

    Raises CacheError, naming the holder, when another process holds it. Readers need no lock:
    they read what is committed. The lock is `flock` on `<root>/.lock`; the file stays, a lock of
    a dead process does not.
    """
    root = Path(root)
    with writing_to(root):
        root.mkdir(parents=True, exist_ok=True)
        file = open(root / ".lock", "a+")  # noqa: SIM115 - closed below
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CacheError(
                f"the cache {root} is being written by {_holder(file)}: wait for it or stop it, or "
                "set cache.root to another folder and merge the two afterwards"
            ) from None
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): see that one process writes it", root, error)
        file.truncate(0)
        now = datetime.now().isoformat(" ", "seconds")
        file.write(f"`emocache {command}`, process {os.getpid()} on {socket.gethostname()}, {now}")
        file.flush()
        yield


def writer_of(root: Path) -> str:
    """Who holds the cache at `root` for writing; "" when nobody does."""
    try:
        with open(Path(root) / ".lock") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _holder(file)
    except OSError:  # never written, or no locks here
        pass
    return ""


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip() or "another process"
