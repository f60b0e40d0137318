"""How well scores rank the persons of each label: average precision, its mean, its chance level.

P persons, C labels. `y_true` holds 0 and 1, `y_score` any finite number, higher is more likely.
A label without a positive has no average precision: it is NaN and stays out of every mean.
Every refusal is a `DataError`. The checks are made by hand, not by the shape annotations, because
these functions also meet arrays that come from files.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from sklearn.metrics import average_precision_score, precision_recall_curve

from cache.errors import DataError


def average_precision(y_true: np.ndarray, y_score: np.ndarray) -> Float[np.ndarray, " C"]:
    """Average precision of each label: sum over thresholds of (R_n - R_{n-1}) P_n.

    Not interpolated; this is scikit-learn's `average_precision_score`. Equal scores are one
    threshold. y_true (P, C), y_score (P, C) -> (C,) in [0, 1], NaN where a label has no positive.
    """
    true, score = checked(y_true, y_score)
    return _per_label(average_precision_score, true, score)


def interpolated_average_precision(
    y_true: np.ndarray, y_score: np.ndarray
) -> Float[np.ndarray, " C"]:
    """Average precision as PASCAL VOC has counted it since 2010: all-point interpolation.

    Precision at a recall is replaced by the best precision at that or any higher recall, and the
    area is taken over every recall that occurs (not over the 11 fixed ones of VOC 2007). Never
    less than `average_precision`. Shapes as there.
    """
    true, score = checked(y_true, y_score)
    return _per_label(_voc, true, score)


def mean_average_precision(
    y_true: np.ndarray, y_score: np.ndarray, interpolated: bool = False
) -> float:
    """Mean of the average precisions over the labels with a positive; NaN if there is none."""
    form = interpolated_average_precision if interpolated else average_precision
    return float(mean_of_known(form(y_true, y_score)))


def chance_level(y_true: np.ndarray) -> float:
    """Chance mAP as the field states it: mean positive rate of the labels with a positive.

    It is what scores without information tend to for many persons; see `random_order` for few.
    """
    true, _ = checked(y_true, np.zeros(np.shape(y_true)))
    rate = true.mean(axis=0)
    return float(mean_of_known(np.where(rate > 0, rate, np.nan)))


def random_order(y_true: np.ndarray) -> float:
    """Exact mean mAP over every order these persons could be ranked in.

    For R positives among N persons, E[AP] = (H + (R - 1) (N - H) / (N - 1)) / N with
    H = 1 + 1/2 + ... + 1/N. On a small split it is well above the positive rate (one positive
    among 24 persons: 0.157, not 0.042), so it is the level such a split has to beat.
    """
    true, _ = checked(y_true, np.zeros(np.shape(y_true)))
    persons, positives = len(true), true.sum(axis=0)
    harmonic = np.sum(1 / np.arange(1, persons + 1))
    expected = harmonic + (positives - 1) * (persons - harmonic) / max(persons - 1, 1)
    return float(mean_of_known(np.where(positives > 0, expected / persons, np.nan)))


def precision_recall(
    y_true: np.ndarray, y_score: np.ndarray
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """Recall (rising) and precision at each distinct score of one label; (P,), (P,) -> (T,), (T,).

    Refuses a label without a positive. The made-up point (recall 0, precision 1) is left out.
    """
    true, score = checked(np.asarray(y_true)[:, None], np.asarray(y_score)[:, None])
    if not true.any():
        raise DataError("A precision-recall curve needs a positive, and this label has none.")
    precision, recall, _ = precision_recall_curve(true[:, 0], score[:, 0])
    return recall[-2::-1], precision[-2::-1]


def checked(
    y_true: np.ndarray, y_score: np.ndarray
) -> tuple[Bool[np.ndarray, "P C"], Float[np.ndarray, "P C"]]:
    """Both as arrays, the targets as booleans. Raises DataError for what cannot be measured."""
    true, score = np.asarray(y_true), np.asarray(y_score, dtype=np.float64)
    if true.ndim != 2 or true.shape != score.shape:
        raise DataError(
            f"Targets {true.shape} and scores {score.shape} must both be (persons, labels)."
        )
    if true.size == 0:
        raise DataError(f"There is nothing to measure: targets are {true.shape}.")
    if not np.isfinite(score).all():
        person, label = np.argwhere(~np.isfinite(score))[0]
        raise DataError(
            f"{int((~np.isfinite(score)).sum())} scores are not finite, the first one of person "
            f"{person}, label {label}: the head has diverged, lower train.lr."
        )
    if not np.isin(true, (0, 1)).all():
        raise DataError(
            "Targets must be 0 or 1 to be counted, and "
            f"{float(true[~np.isin(true, (0, 1))][0])} was found."
        )
    return true.astype(bool), score


def _per_label(
    form: Callable[[np.ndarray, np.ndarray], float],
    true: Bool[np.ndarray, "P C"],
    score: Float[np.ndarray, "P C"],
) -> Float[np.ndarray, " C"]:
    pairs = zip(true.T, score.T, strict=True)
    return np.array([float(form(t, s)) if t.any() else np.nan for t, s in pairs])


def _voc(true: Bool[np.ndarray, " P"], score: Float[np.ndarray, " P"]) -> float:
    recall, precision = precision_recall(true, score)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * best))


def mean_of_known(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """`np.nanmean` that answers NaN for nothing but NaN without a warning."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)
