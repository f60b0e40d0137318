"""How far a predicted emotion distribution is from the true one: the six measures of the field.

P persons, C labels; d true and p predicted, both (P, C), not negative, each row summing to 1.
Each measure is one number a person; papers report the mean over persons.

Where d or p is 0: a term of Clark and Canberra with d + p = 0 is 0; a term of KL with d = 0 is 0,
and p is raised to at least 1e-12 there, so that a label wrongly given nothing costs a lot, about
27.6 d, and not infinity.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from cache.errors import DataError
from train.labels import distributions, is_distribution

KL_FLOOR = 1e-12


def _chebyshev(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.abs(d - p).max(axis=1)


def _clark(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.sqrt((_relative(d, p) ** 2).sum(axis=1))


def _canberra(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    return _relative(d, p).sum(axis=1)


def _kl(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    logs = np.log(np.where(d > 0, d, 1)) - np.log(np.maximum(p, KL_FLOOR))
    return (d * logs).sum(axis=1)


def _cosine(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    return (d * p).sum(axis=1) / np.linalg.norm(d, axis=1) / np.linalg.norm(p, axis=1)


def _intersection(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    return np.minimum(d, p).sum(axis=1)


MEASURES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "chebyshev": _chebyshev,  # max |d - p|; the first four: lower is better
    "clark": _clark,  # sqrt(sum (d - p)^2 / (d + p)^2)
    "canberra": _canberra,  # sum |d - p| / (d + p)
    "kl": _kl,  # sum d ln(d / p), in nats
    "cosine": _cosine,  # d.p / (|d| |p|); higher is better
    "intersection": _intersection,  # sum min(d, p); higher is better
}


def distribution_measures(y_true: np.ndarray, y_score: np.ndarray) -> dict[str, np.ndarray]:
    """Chebyshev, Clark, Canberra, KL, cosine and intersection of each person.

    y_true, y_score (P, C): the true and the predicted distribution -> {name: (P,)}, named as in
    `MEASURES`. Means over persons: Chebyshev, cosine and intersection lie in [0, 1], Clark in
    [0, sqrt(C)], Canberra in [0, C], KL from 0. Raises DataError for a row that is no distribution.
    """
    d, p = np.asarray(y_true, dtype=np.float64), np.asarray(y_score, dtype=np.float64)
    if d.ndim != 2 or d.shape != p.shape or d.size == 0:
        raise DataError(
            f"True distributions {d.shape} and predicted ones {p.shape} must both be (persons, "
            "labels), one person or more."
        )
    for what, rows, mend in (
        ("true", d, "check the votes in the annotation"),
        ("predicted", p, "fit a head that ends in a softmax, as train.hugme.output: softmax"),
    ):
        if not is_distribution(rows):
            bad = int(np.flatnonzero(~distributions(rows))[0])
            raise DataError(
                f"The {what} distribution of person {bad} sums to {rows[bad].sum():.4g} with "
                f"{rows[bad].min():.4g} as its least, and must sum to 1 from 0 up: {mend}."
            )
    return {name: measure(d, p) for name, measure in MEASURES.items()}


def highest(labels: int) -> Float[np.ndarray, " 6"]:
    """The largest value that each of `MEASURES` can take with so many labels."""
    return np.array([1.0, np.sqrt(labels), labels, np.inf, 1.0, 1.0])


def _relative(d: np.ndarray, p: np.ndarray) -> np.ndarray:
    """|d - p| / (d + p), 0 where both are 0."""
    both = d + p
    return np.divide(np.abs(d - p), both, out=np.zeros_like(both), where=both > 0)
