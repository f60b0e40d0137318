"""Rows from other caches: taken over where key and picture bytes agree, or two caches made one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.settings import Cache


def take_rows(
    cache: Cache, name: str, key: str, ids: Sequence[str], rows: np.ndarray, donor: Path
) -> int:
    """stub"""
    return 0
