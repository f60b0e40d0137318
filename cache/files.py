"""Files written so that a reader sees the old one or the new one, never half of one."""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cache.errors import CacheError, EmocacheError
from cache.paths import aside


def write_partial(path: Path, data: bytes) -> Path:
    """Write `data` to a temporary neighbour of `path` and flush it to the disk; gives its path."""
    make_folder(path.parent)
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


def make_folder(folder: Path) -> None:
    """Make a folder and those it lies in, and flush the names of the new ones to the disk."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to a temporary neighbour, flush it to the disk, then rename it to `path`."""
    os.replace(write_partial(path, data), path)
    sync(path.parent)


def json_bytes(record: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON file of a cache: the same ones for the same content."""
    return json.dumps(record, indent=1).encode()


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write a JSON file for people and programs, as `write_atomic`. Raises ValueError for NaN."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


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


def delete(path: Path) -> None:
    """Delete a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def discard(folder: Path) -> None:
    """Delete a folder that must be there whole or not at all: out of its place first."""
    gone = aside(folder, "gone")
    shutil.rmtree(gone, ignore_errors=True)
    os.rename(folder, gone)
    shutil.rmtree(gone)


def sweep(folder: Path) -> None:
    """Delete what a killed writer left half-written in a view or a whole cache."""
    for partial in list(folder.rglob("*.partial")):
        delete(partial)


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
