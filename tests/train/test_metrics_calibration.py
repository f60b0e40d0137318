"""Calibration: scikit-learn's curve, errors by hand, and intervals over pictures."""

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from cache.errors import DataError
from train.metrics import bootstrap_mean
from train.metrics.calibration import brier, calibration, no_probabilities

QUICK = {"resamples": 200}


def decisions(persons=300, labels=4, seed=0, pull=1.0):
    """Labels drawn with probability p, and p sharpened by `pull`: 1 is calibrated."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-0.5, 1.5, (persons, labels))
    true = rng.random((persons, labels)) < 1 / (1 + np.exp(-logit))
    return true.astype(int), 1 / (1 + np.exp(-pull * logit)), np.arange(persons) // 2


def softmax(persons=400, labels=5, seed=0, pull=1.0):
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 1.5, (persons, labels))
    p = np.exp(logit) / np.exp(logit).sum(1, keepdims=True)
    true = np.array([rng.multinomial(1, row) for row in p])
    sharp = p**pull
    return true, sharp / sharp.sum(1, keepdims=True), np.arange(persons) // 2


def test_bins_are_scikit_learns_quantiles():
    true, score, pictures = decisions()
    score = score.round(2)  # with ties
    found = calibration(true, score, pictures, "multi", bins=7, **QUICK)
    for one, t, s in [
        (found.pooled, true.ravel(), score.ravel()),
        *((found.per_label[c], true[:, c], score[:, c]) for c in range(4)),
    ]:
        observed, predicted = calibration_curve(t, s, n_bins=7, strategy="quantile")
        np.testing.assert_allclose(one.observed, observed)
        np.testing.assert_allclose(one.predicted, predicted)
        assert one.count.sum() == t.size
        assert np.ptp(one.count) < 0.2 * t.size / 7
        by_hand = (one.count * np.abs(observed - predicted)).sum() / t.size
        assert one.error == pytest.approx(by_hand)


def test_an_error_by_hand():
    """Two bins of two: (0.1, 0.3) of which one is true, (0.6, 0.8) of which both are:
    (2 |0.5 - 0.2| + 2 |1 - 0.7|) / 4."""
    true, score = np.array([[0], [1], [1], [1]]), np.array([[0.1], [0.3], [0.6], [0.8]])
    found = calibration(true, score, np.arange(4), "multi", bins=2, **QUICK)
    assert found.pooled.count.tolist() == [2, 2]
    assert found.pooled.error == pytest.approx(0.3)
    floor = np.sqrt(2 / np.pi * np.array([0.09 + 0.21, 0.24 + 0.16])).sum() / 4
    assert found.pooled.floor == pytest.approx(floor)
    assert found.brier == pytest.approx((0.01 + 0.49 + 0.16 + 0.04) / 4)


def test_of_one_label_a_person_the_highest_is_looked_at():
    true, score, pictures = softmax()
    found = calibration(true, score, pictures, "single", bins=5, **QUICK)
    right = true.argmax(1) == score.argmax(1)
    observed, predicted = calibration_curve(right, score.max(1), n_bins=5, strategy="quantile")
    np.testing.assert_allclose(found.pooled.observed, observed)
    np.testing.assert_allclose(found.pooled.predicted, predicted)
    assert len(found.per_label) == 5
    np.testing.assert_allclose(brier(true, score, "single").mean(), found.brier)


def test_the_brier_score_is_scikit_learns():
    true, score, _ = decisions()
    pooled = brier_score_loss(true.ravel(), score.ravel())
    assert brier(true, score, "multi").mean() == pytest.approx(pooled)
    true, score, _ = softmax()
    every = brier_score_loss(true.argmax(1), score, labels=range(5), scale_by_half=False)
    assert brier(true, score, "single").mean() == pytest.approx(every)


def test_a_resample_is_what_it_would_be_of_the_pictures_drawn():
    """The samples behind the interval, drawn anew by hand with the bins of all persons."""
    from train.metrics.resampling import Resamples, interval_of

    true, score, pictures = decisions(persons=60, labels=2)
    found = calibration(true, score, pictures, "multi", bins=3, resamples=70, seed=3).pooled
    edges = np.quantile(score, [0, 1 / 3, 2 / 3, 1])
    errors = []
    for _, counts in Resamples.over(pictures, 60, 70, 3).draws():
        for drawn in counts.T:
            rows = np.repeat(np.arange(60), drawn[pictures])
            t, s = true[rows].ravel(), score[rows].ravel()
            number = np.searchsorted(edges[1:-1], s)
            gaps = [abs((t - s)[number == b].sum()) for b in range(3)]
            errors.append(sum(gaps) / len(t))
    low, high = interval_of(found.error, np.array(errors), 0.95)
    assert (found.low, found.high) == (pytest.approx(max(low, 0)), pytest.approx(high))


def test_the_brier_interval_is_that_of_a_mean():
    true, score, pictures = decisions()
    found = calibration(true, score, pictures, "multi", **QUICK)
    mean = bootstrap_mean(brier(true, score, "multi")[:, None], pictures, **QUICK).interval(0)
    assert (found.brier, found.brier_low, found.brier_high) == pytest.approx(mean)


def test_sharpened_probabilities_show_error_and_calibrated_ones_little_more_than_the_floor():
    fair = [calibration(*decisions(seed=s), "multi", **QUICK).pooled for s in range(20)]
    ratio = np.mean([one.error / one.floor for one in fair])
    assert 0.9 < ratio < 1.1  # what the floor says of a calibrated head
    sharp = calibration(*decisions(pull=3), "multi", **QUICK).pooled
    assert sharp.error > 3 * sharp.floor and sharp.low > sharp.floor
    assert calibration(*softmax(pull=3), "single", **QUICK).pooled.low > 0.05


def test_equal_probabilities_are_one_bin():
    true = np.array([[1], [0], [0], [0]])
    found = calibration(true, np.full((4, 1), 0.25), np.arange(4), "multi", **QUICK).pooled
    assert found.count.tolist() == [4] and found.error == pytest.approx(0)


def test_one_picture_gives_no_interval():
    true, score, _ = decisions(persons=8)
    found = calibration(true, score, np.zeros(8), "multi", **QUICK).pooled
    assert np.isnan([found.low, found.high]).all() and np.isfinite(found.error)


@pytest.mark.parametrize(
    ("scores", "kind", "why"),
    [
        ([[-0.1, 0.5]], "multi", "between -0.10 and 0.50"),
        ([[0.2, 1.2]], "multi", "between 0.20 and 1.20"),
        ([[0.5, 0.9]], "single", "do not sum to 1"),
        ([[0.5, 0.5]], "distribution", "shares of a whole"),
    ],
)
def test_what_is_no_probability_is_refused(scores, kind, why):
    assert why in no_probabilities(np.array(scores), kind)
    with pytest.raises(DataError, match=why):
        calibration(np.array([[0, 1]]), np.array(scores), np.zeros(1), kind)
    assert no_probabilities(np.array([[0.4, 0.6]]), "single") == ""
    assert no_probabilities(np.array([[0.5, 0.9]]), "multi") == ""


def test_no_bin_is_refused():
    with pytest.raises(DataError, match="0 bins"):
        calibration(*decisions(8), "multi", bins=0)
