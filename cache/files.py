"""Files written so that a reader sees the old one or the new one, never half of one."""

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cache.errors import CacheError, EmocacheError


def write_partial(path: Path, data: bytes) -> Path:
    """Write `data` to a temporary neighbour of `path` and flush it to the disk; gives its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    return partial


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to a temporary neighbour, flush it to the disk, then rename it to `path`."""
    os.replace(write_partial(path, data), path)
    sync(path.parent)


def read_bytes(path: Path | str) -> bytes:
    """A small file in one read: a third of the time that `open` takes, which counts where a view
    has many of them."""
    file = os.open(path, os.O_RDONLY)
    try:
        return os.read(file, os.fstat(file).st_size)
    finally:
        os.close(file)


def sync(path: Path) -> None:
    """Flush a file, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn what a disk refuses into a sentence: `path` is what is being written."""
    try:
        yield
    except EmocacheError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CacheError(
                f"no room for {path}: {_free(path)}. What is committed stays; make room, or set "
                "cache.root to another disk, and run the command again to go on"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise CacheError(
                f"{path} may not be written ({error.strerror}): set cache.root to a folder that "
                "is yours"
            ) from error
        if error.errno is not None:
            raise CacheError(f"cannot write {path}: {error.strerror}") from error
        raise


def _free(path: Path) -> str:
    for folder in (path, *path.parents):
        with contextlib.suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 1e6:.0f} MB are free on its disk"
    return "the disk is full"
