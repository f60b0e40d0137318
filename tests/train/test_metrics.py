"""train.metrics against scikit-learn and cases counted by hand."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from cache.errors import DataError
from train import metrics


def column(*values):
    return np.array(values)[:, None]


def made(persons=120, labels=5, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    true = (rng.random((persons, labels)) < rng.uniform(0.05, 0.7, labels)).astype(np.float32)
    score = rng.normal(size=true.shape) + 0.8 * true
    pictures = np.sort(rng.integers(0, persons // 2, persons))
    return true, score if decimals is None else np.round(score, decimals), pictures


# ---- average precision ---------------------------------------------------------------------


def test_a_case_counted_by_hand():
    # From the top: hit (1/1), miss, hit (2/3), miss, hit (3/5).
    true, score = column(1, 0, 1, 0, 1), column(0.9, 0.8, 0.7, 0.6, 0.5)
    assert metrics.average_precision(true, score)[0] == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert metrics.interpolated_average_precision(true, score)[0] == pytest.approx(
        (1 + 2 / 3 + 3 / 5) / 3
    )


def test_interpolation_takes_the_best_precision_at_a_higher_recall():
    # Miss, hit (1/2), hit (2/3): the first hit is lifted to 2/3.
    true, score = column(0, 1, 1), column(3.0, 2.0, 1.0)
    assert metrics.average_precision(true, score)[0] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metrics.interpolated_average_precision(true, score)[0] == pytest.approx(2 / 3)


def test_equal_scores_are_one_threshold_whatever_their_order():
    for true in ((1, 0, 0, 1), (0, 1, 1, 0)):
        assert metrics.average_precision(column(*true), column(1.0, 1, 1, 1))[0] == 0.5


@pytest.mark.parametrize(
    ("true", "expected"), [((0, 0, 0), np.nan), ((1, 1, 1), 1.0), ((1,), 1.0), ((0,), np.nan)]
)
def test_no_positive_all_positive_one_person(true, expected):
    score = np.linspace(1, 0, len(true))[:, None]
    for form in (metrics.average_precision, metrics.interpolated_average_precision):
        np.testing.assert_equal(form(column(*true), score), [expected])


@given(
    arrays(np.int8, (12, 3), elements=st.integers(0, 1)),
    arrays(np.float64, (12, 3), elements=st.integers(-3, 3).map(float)),
)
@settings(max_examples=60, deadline=None)
def test_scikit_learn_is_the_oracle_and_interpolation_never_lowers(true, score):
    found = metrics.average_precision(true, score)
    better = metrics.interpolated_average_precision(true, score)
    for label in range(3):
        if not true[:, label].any():
            assert np.isnan(found[label]) and np.isnan(better[label])
            continue
        assert found[label] == average_precision_score(true[:, label], score[:, label])
        assert found[label] - 1e-12 <= better[label] <= 1 + 1e-12


def test_mean_is_over_the_labels_with_a_positive():
    true, score, _ = made()
    true[:, 2] = 0
    kept = [0, 1, 3, 4]
    assert metrics.mean_average_precision(true, score) == pytest.approx(
        average_precision_score(true[:, kept], score[:, kept], average="macro")
    )
    assert metrics.chance_level(true) == pytest.approx(true[:, kept].mean())
    assert np.isnan(metrics.mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2))))


def test_random_order_equals_the_mean_over_every_order():
    for true in ((1, 0, 0, 0, 0), (1, 1, 0, 0, 0), (1, 1, 1, 1, 0), (1, 1, 1), (1,)):
        every = [
            metrics.average_precision(column(*true), column(*order).astype(float))[0]
            for order in permutations(range(len(true)))
        ]
        assert metrics.random_order(column(*true)) == pytest.approx(np.mean(every))


# ---- refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("true", "score", "says"),
    [
        (column(1, 0), column(np.nan, 1.0), "person 0, label 0"),
        (column(1, 0), column(1.0, np.inf), "not finite"),
        (column(1, 0), np.zeros((2, 2)), r"\(2, 1\).*\(2, 2\)"),
        (np.array([1, 0]), np.array([1.0, 0.0]), r"persons, labels"),
        (np.zeros((0, 3)), np.zeros((0, 3)), "nothing to measure"),
        (column(0.5, 1), column(0.0, 1.0), "0 or 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(true, score, says):
    for measure in (
        metrics.average_precision,
        metrics.interpolated_average_precision,
        metrics.mean_average_precision,
        metrics.thresholds,
        lambda t, s: metrics.bootstrap(t, s, np.zeros(len(t))),
    ):
        with pytest.raises(DataError, match=says):
            measure(true, score)


def test_bootstrap_refuses_other_lengths_and_senseless_settings():
    true, score, pictures = made()
    with pytest.raises(DataError, match="120 persons"):
        metrics.bootstrap(true, score, pictures[:-1])
    with pytest.raises(DataError, match=r"evaluate\.confidence"):
        metrics.bootstrap(true, score, pictures, confidence=1.0)


# ---- bootstrap -----------------------------------------------------------------------------


@pytest.mark.parametrize("decimals", [None, 0])
def test_each_resample_is_scikit_learn_on_the_persons_of_the_drawn_pictures(decimals):
    true, score, pictures = made(60, 4, decimals=decimals)
    found = metrics.bootstrap(true, score, pictures, resamples=70, seed=5)
    rng = np.random.default_rng(5)
    names = np.unique(pictures)
    for resample in range(70):
        drawn = rng.integers(len(names), size=len(names))
        rows = np.concatenate([np.flatnonzero(pictures == names[place]) for place in drawn])
        for label in range(4):
            if true[rows, label].any():
                expected = average_precision_score(true[rows, label], score[rows, label])
                assert found.samples[resample, label] == pytest.approx(expected)
            else:
                assert np.isnan(found.samples[resample, label])
        assert found.means[resample] == pytest.approx(np.nanmean(found.samples[resample]))


def test_interval_is_the_reflected_one_and_seeded():
    true, score, pictures = made()
    first = metrics.bootstrap(true, score, pictures, resamples=300, confidence=0.9, seed=1)
    again = metrics.bootstrap(true, score, pictures, resamples=300, confidence=0.9, seed=1)
    other = metrics.bootstrap(true, score, pictures, resamples=300, confidence=0.9, seed=2)
    np.testing.assert_array_equal(first.samples, again.samples)
    assert (first.means != other.means).any()
    middle = metrics.mean_average_precision(true, score)
    assert first.mean_low == pytest.approx(2 * middle - np.quantile(first.means, 0.95))
    assert first.mean_high == pytest.approx(2 * middle - np.quantile(first.means, 0.05))
    assert first.mean_low < middle < first.mean_high


def test_persons_of_one_picture_move_together():
    # Two pictures, each of one kind of person: by picture the rate of positives varies a lot
    # more than by person, and so does the precision that all-equal scores reach.
    true = np.repeat([[1], [0]], 50, axis=0)
    score = np.zeros((100, 1))
    by_picture = metrics.bootstrap(true, score, np.repeat([7, 9], 50), resamples=200)
    by_person = metrics.bootstrap(true, score, np.arange(100), resamples=200)
    assert set(by_picture.samples[~np.isnan(by_picture.samples)]) == {0.5, 1.0}
    assert np.nanstd(by_picture.samples) > 4 * np.nanstd(by_person.samples)


def test_a_label_without_a_positive_has_no_interval():
    true, score, pictures = made()
    true[:, 1] = 0
    found = metrics.bootstrap(true, score, pictures, resamples=100)
    assert np.isnan(found.low[1]) and np.isnan(found.high[1])
    assert np.isfinite(np.delete(found.low, 1)).all() and np.isfinite(found.mean_low)


def test_random_scores_seldom_beat_chance_on_a_small_split():
    # The reason for the basic interval: plain percentiles fail this for nearly every seed.
    rng = np.random.default_rng(0)
    above = percentile_above = 0
    for seed in range(40):
        true = (rng.random((40, 12)) < np.linspace(0.05, 0.6, 12)).astype(int)
        found = metrics.bootstrap(true, rng.random(true.shape), np.arange(40), 200, seed=seed)
        above += found.mean_low > metrics.chance_level(true)
        percentile_above += np.quantile(found.means, 0.025) > metrics.chance_level(true)
    assert above <= 6
    assert percentile_above >= 30


@pytest.mark.slow
def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(1)
    rates = np.linspace(0.1, 0.6, 6)
    true = rng.random((200_000, 6)) < rates
    truth = metrics.mean_average_precision(true, rng.normal(size=true.shape) + 0.7 * true)
    covered = 0
    for seed in range(200):
        true = rng.random((500, 6)) < rates
        score = rng.normal(size=true.shape) + 0.7 * true
        found = metrics.bootstrap(true, score, np.arange(500), 300, seed=seed)
        covered += found.mean_low <= truth <= found.mean_high
    assert 0.9 <= covered / 200 <= 0.995


# ---- curves and thresholds -----------------------------------------------------------------


def test_precision_recall_curve_by_hand():
    recall, precision = metrics.precision_recall(np.array([0, 1, 1, 0]), np.array([4.0, 3, 2, 1]))
    np.testing.assert_allclose(recall, [0, 1 / 2, 1, 1])
    np.testing.assert_allclose(precision, [0, 1 / 2, 2 / 3, 2 / 4])
    with pytest.raises(DataError, match="needs a positive"):
        metrics.precision_recall(np.zeros(3), np.zeros(3))


def test_threshold_is_where_precision_meets_recall():
    true, score, _ = made(500)
    for label, threshold in enumerate(metrics.thresholds(true, score)):
        chosen = score[:, label] >= threshold
        hits = (chosen & (true[:, label] == 1)).sum()
        assert hits / chosen.sum() == pytest.approx(hits / true[:, label].sum())


def test_threshold_with_ties_no_positive_and_all_positive():
    true = np.array([[1, 0, 1], [0, 0, 1], [0, 0, 1]])
    score = np.array([[0.5, 1, 3], [0.5, 2, 2], [0.1, 3, 1]])
    np.testing.assert_equal(metrics.thresholds(true, score), [0.5, np.nan, 1.0])
