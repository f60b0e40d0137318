"""The cache of features: what is stored, under which key, and how it is read."""

from cache.errors import (
    CacheError,
    DataError,
    EmocacheError,
    KeyMismatch,
    SettingsError,
    WeightsError,
)
from cache.index import Index
from cache.store import StoredView, open_view

__all__ = [
    "CacheError",
    "DataError",
    "EmocacheError",
    "Index",
    "KeyMismatch",
    "SettingsError",
    "StoredView",
    "WeightsError",
    "open_view",
]
