"""What the labels of some persons are, in one place: as the index declares it (`Index.kind`), or
by their label vectors where it does not.

A label vector (C,) holds 0 and 1 for labels that a person has or has not, or shares that sum to 1.
"""

import numpy as np
from jaxtyping import Bool

from cache.index import LabelKind

HAS = 0.5  # a person has the labels above it; of shares that is at most one
TOLERANCE = 1e-3  # of a sum of shares: labels and scores are kept in 16 or 32 bits


def label_kind(targets: np.ndarray) -> LabelKind:
    """(P, C) -> `single`, each person has exactly one of two or more labels; `distribution`, shares
    that sum to 1 and are not all of one label; else `multi`, any number of labels."""
    if single_label(targets):
        return "single"
    several = np.ndim(targets) == 2 and np.shape(targets)[1] > 1 and len(targets) > 0
    return "distribution" if several and is_distribution(targets) else "multi"


def has(targets: np.ndarray) -> Bool[np.ndarray, "P C"]:
    """Which labels each person has."""
    return np.asarray(targets) > HAS


def single_label(targets: np.ndarray) -> bool:
    """Whether every person has exactly one of two or more labels."""
    true = np.asarray(targets)
    ones = true.ndim == 2 and true.shape[1] > 1 and len(true) > 0 and np.isin(true, (0, 1)).all()
    return bool(ones and (true.sum(axis=1) == 1).all())


def is_distribution(rows: np.ndarray) -> bool:
    """Whether every row of (P, C) is finite, not negative and sums to 1, within `TOLERANCE`."""
    return bool(distributions(rows).all())


def distributions(rows: np.ndarray) -> Bool[np.ndarray, " P"]:
    """Which rows of (P, C) are distributions."""
    values = np.asarray(rows, dtype=np.float64)
    # NaN compares false, so it is no distribution either
    return (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) <= TOLERANCE)


def ranks(kind: LabelKind, val: np.ndarray) -> bool:
    """Whether mAP on val can say which head is better: labels are no shares, and some person of val
    (M, C) has a label."""
    return kind != "distribution" and bool(has(val).any())
