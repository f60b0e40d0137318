"""How well scores rank labels: average precision, its mean, chance, intervals, thresholds.

P persons, C labels. `y_true` holds 0 and 1, `y_score` any finite number, higher is more likely.
A label without a positive has no average precision: it is NaN and stays out of every mean.
Every refusal is a `DataError`. The checks are made by hand, not by the shape annotations, because
these functions also meet arrays that come from files.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import average_precision_score, precision_recall_curve

from cache.errors import DataError

_TOGETHER = 64  # resamples in one pass: a (P, 64) int32 table stays small whatever P


def average_precision(y_true: np.ndarray, y_score: np.ndarray) -> Float[np.ndarray, " C"]:
    """Average precision of each label: sum over thresholds of (R_n - R_{n-1}) P_n.

    Not interpolated; this is scikit-learn's `average_precision_score`. Equal scores are one
    threshold. y_true (P, C), y_score (P, C) -> (C,) in [0, 1], NaN where a label has no positive.
    """
    true, score = _checked(y_true, y_score)
    return _per_label(average_precision_score, true, score)


def interpolated_average_precision(
    y_true: np.ndarray, y_score: np.ndarray
) -> Float[np.ndarray, " C"]:
    """Average precision as PASCAL VOC has counted it since 2010: all-point interpolation.

    Precision at a recall is replaced by the best precision at that or any higher recall, and the
    area is taken over every recall that occurs (not over the 11 fixed ones of VOC 2007). Never
    less than `average_precision`. Shapes as there.
    """
    true, score = _checked(y_true, y_score)
    return _per_label(_voc, true, score)


def mean_average_precision(
    y_true: np.ndarray, y_score: np.ndarray, interpolated: bool = False
) -> float:
    """Mean of the average precisions over the labels with a positive; NaN if there is none."""
    form = interpolated_average_precision if interpolated else average_precision
    return float(_nanmean(form(y_true, y_score)))


def chance_level(y_true: np.ndarray) -> float:
    """Chance mAP as the field states it: mean positive rate of the labels with a positive.

    It is what scores without information tend to for many persons; see `random_order` for few.
    """
    true, _ = _checked(y_true, np.zeros(np.shape(y_true)))
    rate = true.mean(axis=0)
    return float(_nanmean(np.where(rate > 0, rate, np.nan)))


def random_order(y_true: np.ndarray) -> float:
    """Exact mean mAP over every order these persons could be ranked in.

    For R positives among N persons, E[AP] = (H + (R - 1) (N - H) / (N - 1)) / N with
    H = 1 + 1/2 + ... + 1/N. On a small split it is well above the positive rate (one positive
    among 24 persons: 0.157, not 0.042), so it is the level such a split has to beat.
    """
    true, _ = _checked(y_true, np.zeros(np.shape(y_true)))
    persons, positives = len(true), true.sum(axis=0)
    harmonic = np.sum(1 / np.arange(1, persons + 1))
    expected = harmonic + (positives - 1) * (persons - harmonic) / max(persons - 1, 1)
    return float(_nanmean(np.where(positives > 0, expected / persons, np.nan)))


@dataclass(frozen=True)
class Bootstrap:
    """What `bootstrap` found. Two heads resampled with one seed on the same persons share every
    resample, so the difference of their `means` is a paired comparison."""

    low: Float[np.ndarray, " C"]
    high: Float[np.ndarray, " C"]
    mean_low: float
    mean_high: float
    samples: Float[np.ndarray, "R C"]
    means: Float[np.ndarray, " R"]


def bootstrap(
    y_true: np.ndarray,
    y_score: np.ndarray,
    pictures: np.ndarray,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Intervals of each average precision and of their mean, resampling pictures.

    Persons in one picture share light, scene and annotators, so the picture is what is drawn,
    with replacement, and brings all its persons. A label without a positive in a resample is NaN
    there and stays out of that resample's mean.

    The interval is the basic one, [2 m - q_high, 2 m - q_low] about the measured m, clipped to
    [0, 1]. Average precision comes out too high on few persons, and again in each resample; the
    plain percentiles [q_low, q_high] keep that error twice, and put random scores "above chance"
    in 99 of 100 trials with 24 to 100 persons, where the basic form does in 2 to 7.

    y_true (P, C), y_score (P, C), pictures (P,) a picture's row or any name of it.
    """
    true, score = _checked(y_true, y_score)
    pictures = np.asarray(pictures)
    if pictures.shape != (len(true),):
        raise DataError(f"bootstrap got {pictures.shape} picture rows for {len(true)} persons.")
    if resamples < 1 or not 0 < confidence < 1:
        raise DataError(
            f"bootstrap got {resamples} resamples at confidence {confidence}: "
            "set evaluate.bootstrap to 1 or more and evaluate.confidence between 0 and 1."
        )
    _, picture = np.unique(pictures, return_inverse=True)
    count = int(picture.max()) + 1
    rankings = [_Ranking.of(t, s) for t, s in zip(true.T, score.T, strict=True)]
    samples = np.empty((resamples, true.shape[1]))
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _TOGETHER):
        stop = min(start + _TOGETHER, resamples)
        drawn = [
            np.bincount(rng.integers(count, size=count), minlength=count)
            for _ in range(start, stop)
        ]
        weights = np.stack(drawn, axis=1).astype(np.int32)[picture]  # (P, B): times each is drawn
        for label, ranking in enumerate(rankings):
            samples[start:stop, label] = ranking.average_precision(weights)
    means = _nanmean(samples, axis=1)
    measured = average_precision(true, score)
    low, high = _basic(measured, samples, confidence)
    mean_low, mean_high = _basic(_nanmean(measured)[None], means[:, None], confidence)
    return Bootstrap(low, high, float(mean_low[0]), float(mean_high[0]), samples, means)


def precision_recall(
    y_true: np.ndarray, y_score: np.ndarray
) -> tuple[Float[np.ndarray, " T"], Float[np.ndarray, " T"]]:
    """Recall (rising) and precision at each distinct score of one label; (P,), (P,) -> (T,), (T,).

    Refuses a label without a positive. The made-up point (recall 0, precision 1) is left out.
    """
    true, score = _checked(np.asarray(y_true)[:, None], np.asarray(y_score)[:, None])
    if not true.any():
        raise DataError("A precision-recall curve needs a positive, and this label has none.")
    precision, recall, _ = precision_recall_curve(true[:, 0], score[:, 0])
    return recall[-2::-1], precision[-2::-1]


def thresholds(y_true: np.ndarray, y_score: np.ndarray) -> Float[np.ndarray, " C"]:
    """For each label the score at which precision meets recall; use the validation split only.

    Both are equal when as many persons are predicted as are positive, so this is the score at
    which the two counts are nearest (the higher one on a draw). A person is predicted when
    score >= threshold. NaN, which predicts nobody, where a label has no positive.
    """
    true, score = _checked(y_true, y_score)
    found = np.full(true.shape[1], np.nan)
    for label in np.flatnonzero(true.any(axis=0)):
        values, counts = np.unique(score[:, label], return_counts=True)
        values, predicted = values[::-1], np.cumsum(counts[::-1])  # from the highest score down
        found[label] = values[np.argmin(np.abs(predicted - true[:, label].sum()))]
    return found


@dataclass(frozen=True)
class _Ranking:
    """One label's persons from the highest score down, ready to be weighted.

    Average precision only changes at thresholds that gain a positive, so only those are kept.
    """

    order: Int[np.ndarray, " P"]
    positives: Int[np.ndarray, " N"]  # their places in `order`
    first: Int[np.ndarray, " T"]  # where each threshold starts among `positives`
    last: Int[np.ndarray, " T"]  # the last place in `order` at each threshold

    @classmethod
    def of(cls, true: Bool[np.ndarray, " P"], score: Float[np.ndarray, " P"]) -> "_Ranking":
        order = np.argsort(-score, kind="stable")
        ends = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
        positives = np.flatnonzero(true[order])
        last = ends[np.searchsorted(ends, positives)]
        last, first = np.unique(last, return_index=True)
        return cls(order, positives, first, last)

    def average_precision(self, weights: Int[np.ndarray, "P B"]) -> Float[np.ndarray, " B"]:
        """(P, B) times each person counts in each of B resamples -> (B,)."""
        if not len(self.positives):
            return np.full(weights.shape[1], np.nan)
        ranked = weights[self.order]
        predicted = np.cumsum(ranked, axis=0, dtype=np.int32)[self.last]
        gained = np.add.reduceat(ranked[self.positives], self.first, axis=0)
        hits = np.cumsum(gained, axis=0, dtype=np.int32)
        area = (gained * (hits / np.maximum(predicted, 1))).sum(axis=0)
        total = hits[-1]
        return np.divide(area, total, out=np.full(len(total), np.nan), where=total > 0)


def _checked(
    y_true: np.ndarray, y_score: np.ndarray
) -> tuple[Bool[np.ndarray, "P C"], Float[np.ndarray, "P C"]]:
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
            "Targets must be 0 or 1 to count average precision, and "
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


def _nanmean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """`np.nanmean` that answers NaN for nothing but NaN without a warning."""
    known = ~np.isnan(values)
    total, count = np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _basic(
    measured: Float[np.ndarray, " C"], samples: Float[np.ndarray, "R C"], confidence: float
) -> Float[np.ndarray, "2 C"]:
    found = np.full((2, samples.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    for column, values in enumerate(samples.T):
        known = values[~np.isnan(values)]
        if len(known):
            found[:, column] = 2 * measured[column] - np.quantile(known, (1 - tail, tail))
    return np.clip(found, 0, 1)
