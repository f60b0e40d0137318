"""Intervals and paired comparisons by bootstrap over pictures.

Persons in one picture share light, scene and annotators, so the picture is what is drawn, with
replacement, and brings all its persons. P persons, M pictures, R resamples.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cache.errors import DataError
from train.metrics.ranking import average_precision, checked, mean_of_known

_TOGETHER = 64  # resamples in one pass: a (P, 64) int32 table stays small whatever P
_TIE = 1e-12  # differences this near are equal but for the order of their sums


@dataclass(frozen=True, eq=False)
class Resamples:
    """Which pictures are drawn: decided by the persons' pictures, `count` and `seed` alone."""

    picture: Int[np.ndarray, " P"]  # number of each person's picture, from 0
    pictures: int
    count: int
    seed: int

    @classmethod
    def over(cls, pictures: np.ndarray, persons: int, count: int, seed: int) -> "Resamples":
        """Of `pictures` (P,), a picture's row or any name of it. Raises DataError for another
        number of them than `persons`, and for no resample."""
        if np.shape(pictures) != (persons,):
            raise DataError(
                f"bootstrap got {np.shape(pictures)} picture rows for {persons} persons."
            )
        if count < 1:
            raise DataError(f"bootstrap got {count} resamples: set evaluate.bootstrap to 1 or more")
        names, picture = np.unique(pictures, return_inverse=True)
        return cls(picture, len(names), count, seed)

    def draws(self) -> Iterator[tuple[slice, Int[np.ndarray, "M B"]]]:
        """Some resamples at a time: which ones, and how often each picture is in each of them."""
        rng = np.random.default_rng(self.seed)
        for start in range(0, self.count, _TOGETHER):
            stop = min(start + _TOGETHER, self.count)
            drawn = [
                np.bincount(
                    rng.integers(self.pictures, size=self.pictures), minlength=self.pictures
                )
                for _ in range(start, stop)
            ]
            yield slice(start, stop), np.stack(drawn, axis=1).astype(np.int32)

    def same(self, other: "Resamples") -> bool:
        """Whether both draw the same persons in each resample."""
        mine, theirs = (self.count, self.seed), (other.count, other.seed)
        return mine == theirs and np.array_equal(self.picture, other.picture)


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """C numbers measured together (a label each, or a measure each), their mean, and both in R
    resamples. Two heads resampled with one seed on the same persons share every resample: see
    `paired`."""

    measured: Float[np.ndarray, " C"]
    low: Float[np.ndarray, " C"]
    high: Float[np.ndarray, " C"]
    mean: float
    mean_low: float
    mean_high: float
    samples: Float[np.ndarray, "R C"]
    means: Float[np.ndarray, " R"]
    confidence: float
    over: Resamples

    def interval(self, column: int | None = None) -> tuple[float, float, float]:
        """Measured, low and high of one column, or of the mean for None."""
        if column is None:
            return self.mean, self.mean_low, self.mean_high
        return float(self.measured[column]), float(self.low[column]), float(self.high[column])

    def drawn(self, column: int | None = None) -> Float[np.ndarray, " R"]:
        """One column, or the mean for None, in each resample."""
        return self.means if column is None else self.samples[:, column]


def bootstrap(
    y_true: np.ndarray,
    y_score: np.ndarray,
    pictures: np.ndarray,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Intervals of each average precision and of their mean, resampling pictures.

    A label without a positive in a resample is NaN there and stays out of that resample's mean.

    The interval is the basic one, [2 m - q_high, 2 m - q_low] about the measured m, clipped to
    [0, 1]. Average precision comes out too high on few persons, and again in each resample; the
    plain percentiles [q_low, q_high] keep that error twice, and put random scores "above chance"
    in 99 of 100 trials with 24 to 100 persons, where the basic form does in 2 to 7.

    y_true (P, C), y_score (P, C), pictures (P,) a picture's row or any name of it.
    """
    true, score = checked(y_true, y_score)
    over = Resamples.over(pictures, len(true), resamples, seed)
    rankings = [_Ranking.of(t, s) for t, s in zip(true.T, score.T, strict=True)]
    samples = np.empty((resamples, true.shape[1]))
    for at, counts in over.draws():
        weights = counts[over.picture]  # (P, B): times each person is drawn
        for label, ranking in enumerate(rankings):
            samples[at, label] = ranking.average_precision(weights)
    return _bootstrap(average_precision(true, score), samples, confidence, over, np.array(1.0))


def bootstrap_mean(
    values: np.ndarray,
    pictures: np.ndarray,
    weights: np.ndarray | None = None,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    highest: float | np.ndarray = 1.0,
) -> Bootstrap:
    """Intervals of (weighted) means over persons, and of their mean, resampling pictures.

    A resample's mean is sum_m n_m S_m / sum_m n_m W_m, with n_m the times picture m is drawn and
    S_m, W_m the sums of weight x value and of weight over its persons: exact, and one matrix
    product for all resamples. What is a ratio of sums over persons comes out of it: accuracy,
    Jaccard and the distribution measures as they are; the recall of each label, and so balanced
    accuracy, with `weights` the targets; a label's precision with the predictions as weights.

    values (P, C) from 0 to `highest` (one number or (C,)), to which intervals are clipped;
    pictures (P,); weights (P, C) not negative, all 1 by default. NaN where no weight is drawn. The
    interval is the basic one, see `bootstrap`.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise DataError(
            f"Values to average must be finite and (persons, measures), these are {values.shape} "
            f"with {int((~np.isfinite(values)).sum())} that are not finite."
        )
    weights = np.ones(values.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if weights.shape != values.shape or not (weights >= 0).all():
        raise DataError(
            f"Weights {weights.shape} must be as many as the values {values.shape}, from 0 up."
        )
    over = Resamples.over(pictures, len(values), resamples, seed)
    sums = np.zeros((over.pictures, 2 * values.shape[1]))
    np.add.at(sums, over.picture, np.hstack([values * weights, weights]))
    totals = np.empty((resamples, sums.shape[1]))
    for at, counts in over.draws():
        totals[at] = counts.T @ sums
    measured = _ratio(sums.sum(axis=0, keepdims=True))[0]
    return _bootstrap(measured, _ratio(totals), confidence, over, np.asarray(highest))


def bootstrap_f1(
    true: np.ndarray,
    predicted: np.ndarray,
    pictures: np.ndarray,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Bootstrap:
    """Intervals of each label's F1 = 2 TP / (2 TP + FP + FN), and of their mean, the macro F1.

    true, predicted (P, C), 0 or 1; pictures (P,). A label that is neither true nor predicted of
    anyone drawn is NaN and stays out of the mean.
    """
    both = np.asarray(true, bool), np.asarray(predicted, bool)
    if both[0].shape != both[1].shape or both[0].ndim != 2:
        raise DataError(f"F1 got labels {both[0].shape} and predictions {both[1].shape}.")
    over = Resamples.over(pictures, len(both[0]), resamples, seed)
    sums = np.zeros((over.pictures, 2 * both[0].shape[1]))
    hits, named = (both[0] & both[1]).astype(float), both[0].astype(float) + both[1]
    np.add.at(sums, over.picture, np.hstack([2 * hits, named]))
    totals = np.empty((resamples, sums.shape[1]))
    for at, counts in over.draws():
        totals[at] = counts.T @ sums
    measured = _ratio(sums.sum(axis=0, keepdims=True))[0]
    return _bootstrap(measured, _ratio(totals), confidence, over, np.array(1.0))


@dataclass(frozen=True)
class Difference:
    """What `paired` found: difference = b - a, its interval, and the two-sided p-value."""

    a: float
    b: float
    difference: float
    low: float
    high: float
    p: float


def paired(a: Bootstrap, b: Bootstrap, column: int | None = None) -> Difference:
    """The difference b - a of one column of two bootstraps, or of their means for None.

    Both must have drawn the same pictures of the same persons; DataError otherwise. The interval is
    the basic one. p is its counterpart: with d the difference and d* that of a resample, twice the
    smaller share of resamples with d* - d >= d or d* - d <= d, so that p < 0.05 where the 95 %
    interval leaves out 0. It is never below 2 / (R + 1): more resamples show smaller ones. NaN
    where there is nothing to compare.
    """
    if not a.over.same(b.over) or a.confidence != b.confidence:
        raise DataError(
            f"Two heads are compared on shared resamples, these are {a.over.count} of "
            f"{len(a.over.picture)} persons (seed {a.over.seed}) and {b.over.count} of "
            f"{len(b.over.picture)} (seed {b.over.seed}): give both the same persons, "
            "evaluate.bootstrap, evaluate.confidence and evaluate.seed."
        )
    first, second = a.interval(column)[0], b.interval(column)[0]
    found = second - first
    samples = b.drawn(column) - a.drawn(column)
    samples = samples[~np.isnan(samples)]
    if np.isnan(found) or not len(samples):
        return Difference(first, second, found, np.nan, np.nan, np.nan)
    low, high = _basic(np.array([found]), samples[:, None], a.confidence)
    moved = samples - found
    above, below = (moved >= found - _TIE).sum(), (moved <= found + _TIE).sum()
    p = min(1.0, 2 * (1 + int(min(above, below))) / (len(samples) + 1))
    return Difference(first, second, found, float(low[0]), float(high[0]), p)


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


def _bootstrap(
    measured: Float[np.ndarray, " C"],
    samples: Float[np.ndarray, "R C"],
    confidence: float,
    over: Resamples,
    highest: np.ndarray,
) -> Bootstrap:
    means, mean = mean_of_known(samples, axis=1), mean_of_known(measured)
    if over.pictures < 2:  # one alone is drawn each time: that tells nothing of others
        samples, means = np.full_like(samples, np.nan), np.full_like(means, np.nan)
    low, high = np.clip(_basic(measured, samples, confidence), 0, highest)
    mean_low, mean_high = np.clip(_basic(mean[None], means[:, None], confidence), 0, highest.max())
    return Bootstrap(
        measured,
        low,
        high,
        float(mean),
        float(mean_low[0]),
        float(mean_high[0]),
        samples,
        means,
        confidence,
        over,
    )


def _ratio(totals: Float[np.ndarray, "R K"]) -> Float[np.ndarray, "R C"]:
    """The first half of the columns over the second, NaN where nothing was drawn."""
    total, weight = np.hsplit(totals, 2)
    return np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)


def interval_of(
    measured: float, samples: Float[np.ndarray, " R"], confidence: float
) -> tuple[float, float]:
    """Low and high of a number from what it is in R resamples: the reflected quantiles."""
    low, high = _basic(np.array([measured]), samples[:, None], confidence)
    return float(low[0]), float(high[0])


def _basic(
    measured: Float[np.ndarray, " C"], samples: Float[np.ndarray, "R C"], confidence: float
) -> Float[np.ndarray, "2 C"]:
    if not 0 < confidence < 1:
        raise DataError(
            f"bootstrap got confidence {confidence}: set evaluate.confidence between 0 and 1."
        )
    found = np.full((2, samples.shape[1]), np.nan)
    tail = (1 - confidence) / 2
    for column, values in enumerate(samples.T):
        known = values[~np.isnan(values)]
        if len(known):
            found[:, column] = 2 * measured[column] - np.quantile(known, (1 - tail, tail))
    return found
