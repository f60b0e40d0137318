"""Views that do not fit into memory: which stay in files, and how many persons come at once."""

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cache.errors import SettingsError

GB = 10**9
Array = tuple[str, str]  # view, array


@dataclass(frozen=True)
class Placement:
    """away: arrays that stay in files; block: persons whose rows are held at once, 0 for all."""

    away: frozenset[Array] = frozenset()
    block: int = 0


def placement(
    rows: Mapping[Array, int], row_bytes: Mapping[Array, int], memory: float | None
) -> Placement:
    """What fits into `memory` GB, of arrays with so many rows of so many bytes each.

    The largest go to files until the others fill half of it; two blocks, one in use and one that
    comes, share the rest. Raises SettingsError where not even one person fits, or where the disk
    of temporary files has no room.
    """
    size = {array: rows[array] * row_bytes[array] for array in rows}
    if memory is None or sum(size.values()) <= memory * GB:
        return Placement()
    held = dict(size)
    for array in sorted(size, key=lambda array: -size[array]):
        if sum(held.values()) <= memory * GB / 2:
            break
        del held[array]
    away = frozenset(size) - frozenset(held)
    block = int((memory * GB - sum(held.values())) / (2 * sum(row_bytes.values())))
    if block < 1:
        person = sum(row_bytes.values())
        raise SettingsError(
            f"train.memory {memory} GB is too little: set it to {4 * person / GB:g} or more (a "
            f"person has {person} bytes), or to null"
        )
    needed, free = sum(size[array] for array in away), shutil.disk_usage(tempfile.gettempdir()).free
    if needed > free:
        raise SettingsError(
            f"views of {needed / GB:.1f} GB go to a temporary file under train.memory {memory}, "
            f"and {tempfile.gettempdir()} has {free / GB:.1f} GB: set TMPDIR to a larger disk"
        )
    return Placement(away, block)


def mapped(shape: tuple[int, ...], dtype: np.dtype) -> np.memmap:
    """An array in a temporary file that has no name, and goes with the last that uses it."""
    with tempfile.TemporaryFile(prefix="emocache-") as file:
        return np.memmap(file, dtype, "w+", shape=shape)
