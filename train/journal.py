"""The journal of a study: one file that many processes append to, that survives their deaths."""

import contextlib
import fcntl
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from cache.errors import CacheError, first_line
from cache.files import writing_to

log = logging.getLogger("train")


def open_journal(journal: Path) -> JournalStorage:
    """Raises CacheError for a journal that is damaged."""
    with writing_to(journal):
        _mend(journal)
        lock: Any = JournalLock(journal)  # in the shape of Optuna's own
        try:
            return JournalStorage(JournalFileBackend(str(journal), lock))
        except (ValueError, KeyError, TypeError) as error:
            raise CacheError(
                f"{journal} is damaged ({first_line(error)}): move it away to begin again"
            ) from error


class JournalLock:
    """One process at a time, by a lock that the system takes back from one that dies; that of
    Optuna's stays behind, and the next process waits half a minute for it."""

    def __init__(self, journal: Path, why: str = "writing"):
        self.path, self._file = f"{journal}.{why}", -1

    def acquire(self) -> bool:
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:  # some network file systems have no locks
            log.warning(
                "%s cannot be locked (%s): let one process at a time use it", self.path, error
            )
        self._file = file
        return True

    def release(self) -> None:
        os.close(self._file)


def _mend(journal: Path) -> None:
    """Cut off a last line that a full disk or a cut of power left unfinished: the next one would
    be written behind it, and neither could be read."""
    if not journal.exists():
        return
    lock = JournalLock(journal)
    lock.acquire()
    try:
        data = journal.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            log.warning("%s: the last line was never finished and is left out", journal)
            os.truncate(journal, whole)
    finally:
        lock.release()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Optuna says less while we call it, and as much as before afterwards."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.ERROR))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
