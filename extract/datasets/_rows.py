"""Rows of ready features: windows that overlap, labels as they stand in files, faults of rows."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from cache.errors import DataError, first_line
from extract.datasets import PersonRecord
from extract.datasets._reading import OFF
from extract.signals.recording import Channel


@dataclass(frozen=True, eq=False, slots=True)
class Windows(Channel):
    """Features of windows that may overlap. values (n, D); starts (n,) of the windows, in seconds;
    rate: windows a second, on the whole."""

    starts: np.ndarray = field(default_factory=lambda: np.zeros(0))

    def between(self, start: float, end: float) -> np.ndarray:
        """The row (1, D) of the window that begins at `start`; none where none does."""
        return self.values[np.abs(self.starts - start) < 1e-3]


def row_record(
    start: int,
    features: np.ndarray,
    shares: np.ndarray | None,
    count: int,
    fault: str = "",
    seconds: int = 1,
) -> PersonRecord:
    """The row of the window that begins at second `start` of its stretch, as a person.

    features (F,); shares (C,): of the labels, or None where there are none; count: C; fault: why
    there are none; seconds: how long the window is. A row that is not finite is `unreadable`; one
    without labels is `unlabelled`.
    """
    good = shares is not None
    status, reason = ("ok", "") if good else ("unlabelled", fault)
    wrong = int(np.count_nonzero(~np.isfinite(features)))
    if wrong:
        status, reason = "unreadable", f"{wrong} of {len(features)} features are no finite numbers"
    return PersonRecord(
        (start, 0, start + seconds, 1), "",
        shares if shares is not None else np.zeros(count, np.float32),
        annotators=int(good), status=status, reason=reason,
    )  # fmt: skip


def shares_of(given: np.ndarray, off: float = OFF) -> tuple[Float32[np.ndarray, " C"] | None, str]:
    """Amounts (C,) / their sum; or None and what is wrong with them. off: how far from 1 their sum
    may be, infinite for amounts that are no shares yet."""
    amounts = np.asarray(given, np.float64)
    total = float(amounts.sum())
    if not np.isfinite(amounts).all():
        return None, "a share is no finite number"
    if (amounts < 0).any():
        return None, "a share is below 0"
    if total == 0 or abs(total - 1) > off:
        return None, f"the shares sum to {total:g}"
    return (amounts / total).astype(np.float32), ""


def bytes_of(path: Path) -> bytes:
    """What a file holds. Raises DataError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"it cannot be read ({first_line(error)})") from error
