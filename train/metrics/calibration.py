"""Whether probabilities are what they say: of the decisions given 0.7, 70 % should be right.

P persons, C labels, M pictures, R resamples. Scores must be probabilities; those of a least-squares
head are none. Every refusal is a `DataError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from cache.errors import DataError
from train.labels import LabelKind, is_distribution
from train.metrics.decisions import correct
from train.metrics.ranking import checked
from train.metrics.resampling import Resamples, bootstrap_mean, interval_of

BINS = 15


@dataclass(frozen=True, eq=False)
class Reliability:
    """Some decisions in B bins of about equal count, from the least probability to the greatest.

    predicted, observed, count (B,): mean probability of a bin, share of it that is true, decisions
    in it. error: the expected calibration error, sum_b n_b / n |observed_b - predicted_b|, with
    its interval. floor: about what a perfectly calibrated head would show on these probabilities,
    sum_b sqrt(2 / pi sum_i p_i (1 - p_i)) / n: never 0, since a share of few is never exact; more,
    where decisions of a picture hang together.
    """

    predicted: Float[np.ndarray, " B"]
    observed: Float[np.ndarray, " B"]
    count: Int[np.ndarray, " B"]
    error: float
    low: float
    high: float
    floor: float


@dataclass(frozen=True, eq=False)
class Calibration:
    """pooled: of many labels a person all P x C decisions, of one label a person whether the label
    scored highest is the true one; per_label (C): of each label by itself. brier, brier_low,
    brier_high: see `brier`."""

    pooled: Reliability
    per_label: Sequence[Reliability]
    brier: float
    brier_low: float
    brier_high: float


def calibration(
    y_true: np.ndarray,
    y_score: np.ndarray,
    pictures: np.ndarray,
    kind: LabelKind,
    *,
    bins: int = BINS,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Reliability of probabilities, with basic intervals by resampling pictures.

    Bins are quantiles of the probabilities, as in scikit-learn's `calibration_curve` with
    `strategy="quantile"`: equal ones stay together, so a bin may be empty and is left out. They
    stay the same in every resample. As with AP, a resample shows more error than there is, by
    about what the measured one does: the interval can lie below the measured error.

    y_true (P, C), y_score (P, C), pictures (P,) a picture's row or any name of it; kind: `multi` or
    `single`. Raises DataError for scores that are no probabilities, and for distributions.
    """
    true, score = checked(y_true, y_score)
    if why := no_probabilities(score, kind):
        raise DataError(f"Calibration is of probabilities: {why}.")
    if bins < 1:
        raise DataError(f"Calibration got {bins} bins: give it 1 or more.")
    over = Resamples.over(pictures, len(true), resamples, seed)
    every = np.arange(true.shape[1])
    if kind == "single":
        pooled = _Bins.of(score.max(axis=1)[:, None], correct(true, score)[:, None], bins)
    else:
        pooled = _Bins.of(score, true, bins)
    groups = [pooled, *(_Bins.of(score[:, [c]], true[:, [c]], bins) for c in every)]
    sums = np.hstack([group.sums(over) for group in groups])
    samples = np.empty((resamples, len(groups)))
    for at, counts in over.draws():
        totals = (counts.T @ sums).reshape(counts.shape[1], len(groups), bins + 1)
        samples[at] = np.abs(totals[..., :-1]).sum(-1) / totals[..., -1]
    if over.pictures < 2:  # one alone is drawn each time: that tells nothing of others
        samples[:] = np.nan
    found = [
        group.reliability(one, confidence) for group, one in zip(groups, samples.T, strict=True)
    ]
    spread = bootstrap_mean(
        brier(true, score, kind)[:, None],
        pictures,
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        highest=2.0 if kind == "single" else 1.0,
    )
    return Calibration(found[0], found[1:], *spread.interval(0))


def brier(y_true: np.ndarray, y_score: np.ndarray, kind: LabelKind) -> Float[np.ndarray, " P"]:
    """(y - p)^2 of each person; its mean over persons is the Brier score. Of many labels a person
    the mean over the labels, from 0 to 1; of one label a person the sum over them, as Brier (1950)
    has it, from 0 to 2."""
    true, score = checked(y_true, y_score)
    each = (true - score) ** 2
    return each.sum(axis=1) if kind == "single" else each.mean(axis=1)


def no_probabilities(y_score: np.ndarray, kind: LabelKind) -> str:
    """Why scores (P, C) cannot be calibrated, in words; "" where they can."""
    score = np.asarray(y_score)
    if kind == "distribution":
        return "the labels are shares of a whole, and nothing is decided"
    if score.size and not (score.min() >= 0 and score.max() <= 1):
        return f"scores lie between {score.min():.2f} and {score.max():.2f}, not between 0 and 1"
    if kind == "single" and not is_distribution(score):
        return "the scores of a person do not sum to 1"
    return ""


@dataclass(frozen=True, eq=False)
class _Bins:
    """Decisions (P, D) of persons, in bins: probability, truth and number of the bin of each."""

    probability: Float[np.ndarray, "P D"]
    true: Bool[np.ndarray, "P D"]
    number: Int[np.ndarray, "P D"]
    bins: int

    @classmethod
    def of(
        cls, probability: Float[np.ndarray, "P D"], true: Bool[np.ndarray, "P D"], bins: int
    ) -> "_Bins":
        edges = np.quantile(probability, np.linspace(0, 1, bins + 1))
        return cls(probability, true, np.searchsorted(edges[1:-1], probability), bins)

    def sums(self, over: Resamples) -> Float[np.ndarray, "M B_and_1"]:
        """Of each picture, what is true less what was predicted in each bin, and its decisions."""
        found = np.zeros((over.pictures, self.bins + 1))
        picture = np.broadcast_to(over.picture[:, None], self.number.shape)
        np.add.at(found, (picture, self.number), self.true - self.probability)
        np.add.at(found[:, -1], over.picture, self.number.shape[1])
        return found

    def reliability(self, samples: Float[np.ndarray, " R"], confidence: float) -> Reliability:
        """samples: the error in each resample."""
        number = self.number.ravel()
        count, predicted, observed, spread = (
            np.bincount(number, weights, self.bins)
            for weights in (
                None,
                self.probability.ravel(),
                self.true.ravel().astype(float),
                (self.probability * (1 - self.probability)).ravel(),
            )
        )
        error = float(np.abs(observed - predicted).sum() / count.sum())
        low, high = np.clip(interval_of(error, samples, confidence), 0, 1).tolist()
        some = count > 0
        return Reliability(
            predicted[some] / count[some],
            observed[some] / count[some],
            count[some].astype(np.int64),
            error,
            low,
            high,
            float(np.sqrt(2 / np.pi * spread).sum() / count.sum()),
        )
