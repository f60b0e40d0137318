"""What a view is, before and beside any file: its arrays, what a row is of, its key; and a row."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from cache.keys import key_of
from cache.statuses import StatusWord

RowSpace = Literal["persons", "pictures", "labels"]  # what a row of a view is of


@dataclass(frozen=True)
class ArraySpec:
    """One array of a view: the shape and dtype of a row, the value of a padded one, and what the
    axes of a row are called (`<array>_<axis>` where not given)."""

    shape: tuple[int, ...] = ()
    dtype: str = "float16"
    fill: int | float = 0
    dims: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of a row, uncompressed."""
        return self.size * np.dtype(self.dtype).itemsize

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "ArraySpec":
        """From such values."""
        return cls(
            tuple(facts["shape"]), facts["dtype"], facts["fill"], tuple(facts.get("dims", ()))
        )


STATUS_ARRAY = ArraySpec((), "uint8")


@dataclass(frozen=True)
class ViewSpec:
    """What a view is: its row space, arrays, key parts, the weights it came from, and `facts`
    that readers want to know but that decide no number (the detector's class names)."""

    name: str
    space: RowSpace
    arrays: Mapping[str, ArraySpec]
    parts: Mapping[str, Any]
    weights: Sequence[Mapping[str, Any]] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """The content key: see `cache.keys`."""
        return key_of(self.parts)

    @property
    def all_arrays(self) -> dict[str, ArraySpec]:
        """The arrays with `status`, which every view has."""
        return {**self.arrays, "status": STATUS_ARRAY}

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in all arrays, uncompressed."""
        return sum(array.row_bytes for array in self.all_arrays.values())


@dataclass
class Row:
    """What extraction says of one row: a status, a value an array, a reason if it failed."""

    status: StatusWord = "ok"
    values: dict[str, np.ndarray] = field(default_factory=dict)
    reason: str = ""
