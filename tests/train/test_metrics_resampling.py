"""train.metrics.resampling against resamples drawn and measured one by one."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_score,
)

from cache.errors import DataError
from tests.train.test_metrics import made
from train import metrics


def resampled_rows(pictures, resamples, seed):
    """The person rows of each resample, drawn the slow way."""
    rng, names = np.random.default_rng(seed), np.unique(pictures)
    for _ in range(resamples):
        drawn = rng.integers(len(names), size=len(names))
        yield np.concatenate([np.flatnonzero(pictures == names[place]) for place in drawn])


# ---- average precision ---------------------------------------------------------------------


def test_bootstrap_refuses_other_lengths_and_senseless_settings():
    true, score, pictures = made()
    with pytest.raises(DataError, match="120 persons"):
        metrics.bootstrap(true, score, pictures[:-1])
    with pytest.raises(DataError, match=r"evaluate\.confidence"):
        metrics.bootstrap(true, score, pictures, confidence=1.0)


@pytest.mark.parametrize("decimals", [None, 0])
def test_each_resample_is_scikit_learn_on_the_persons_of_the_drawn_pictures(decimals):
    true, score, pictures = made(60, 4, decimals=decimals)
    found = metrics.bootstrap(true, score, pictures, resamples=70, seed=5)
    for resample, rows in enumerate(resampled_rows(pictures, 70, 5)):
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


# ---- means over persons --------------------------------------------------------------------


def single_label(persons=80, labels=4, seed=0):
    rng = np.random.default_rng(seed)
    true = np.eye(labels)[rng.integers(labels, size=persons)]
    score = rng.normal(size=true.shape) + 0.8 * true
    return true, score, rng.integers(0, persons // 2, persons)


def test_each_resampled_mean_is_that_of_the_persons_drawn():
    true, score, pictures = single_label()
    hits = metrics.correct(true, score)[:, None].astype(float)
    settings = {"resamples": 70, "seed": 5}
    accuracy = metrics.bootstrap_mean(hits, pictures, **settings)
    recalls = metrics.bootstrap_mean(hits.repeat(4, axis=1), pictures, true, **settings)
    assert accuracy.interval(0)[0] == pytest.approx(metrics.accuracy(true, score))
    assert recalls.interval()[0] == pytest.approx(metrics.balanced_accuracy(true, score))
    for resample, rows in enumerate(resampled_rows(pictures, 70, 5)):
        t, p = true[rows].argmax(axis=1), score[rows].argmax(axis=1)
        assert accuracy.samples[resample, 0] == pytest.approx(accuracy_score(t, p))
        assert recalls.means[resample] == pytest.approx(balanced_accuracy_score(t, p))


def test_f1_and_precision_are_weighted_means_too():
    true, score, pictures = made(60, 4)
    true, predicted = true.astype(int), (score > 0.4).astype(int)
    both = true & predicted
    size = true + predicted
    share = np.divide(2 * both, size, out=np.zeros(both.shape), where=size > 0)
    settings = {"resamples": 20, "seed": 2}
    f1 = metrics.bootstrap_mean(share, pictures, size, **settings)
    precision = metrics.bootstrap_mean(both.astype(float), pictures, predicted, **settings)
    for resample, rows in enumerate(resampled_rows(pictures, 20, 2)):
        for found, oracle in ((f1, f1_score), (precision, precision_score)):
            expected = oracle(true[rows], predicted[rows], average=None, zero_division=np.nan)
            np.testing.assert_allclose(found.samples[resample], expected)


def test_intervals_of_means_keep_to_the_range_of_the_measure():
    values = np.array([[0.0, 0.0], [0.1, 9.0]])
    found = metrics.bootstrap_mean(
        values, np.array([1, 2]), resamples=200, highest=np.array([1.0, np.inf])
    )
    assert (found.low == 0).all() and found.high[0] == pytest.approx(0.1)
    assert found.high[1] == pytest.approx(9)
    one = metrics.bootstrap_mean(np.array([[0.25]]), np.array([3]), resamples=10)
    assert one.mean == 0.25 and np.isnan(one.interval()[1:]).all()  # one alone tells nothing


def test_what_was_not_drawn_stays_out():
    # Label 1 is in one picture only: where that is not drawn its recall is unknown.
    true = np.eye(2)[[0, 0, 0, 1]]
    found = metrics.bootstrap_mean(np.ones((4, 2)), np.arange(4), true, resamples=100)
    missing = np.isnan(found.samples[:, 1])
    assert 20 < missing.sum() < 45 and (found.means == 1).all()


@pytest.mark.parametrize(
    ("values", "weights", "says"),
    [
        (np.full((2, 1), np.nan), None, "2 that are not finite"),
        (np.zeros(2), None, "persons, measures"),
        (np.zeros((2, 1)), np.zeros((2, 2)), "as many as the values"),
        (np.zeros((2, 1)), -np.ones((2, 1)), "from 0 up"),
    ],
)
def test_means_of_nonsense_are_refused(values, weights, says):
    with pytest.raises(DataError, match=says):
        metrics.bootstrap_mean(values, np.arange(2), weights)


# ---- paired comparison ---------------------------------------------------------------------


def test_a_head_against_itself():
    true, score, pictures = made()
    a = metrics.bootstrap(true, score, pictures, resamples=100)
    found = metrics.paired(a, metrics.bootstrap(true, score, pictures, resamples=100))
    assert (found.difference, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert found.a == found.b == a.mean


def test_a_difference_is_signed_and_its_p_is_the_counterpart_of_its_interval():
    rng = np.random.default_rng(3)
    true, score, pictures = made(300)
    for noise in (0.2, 0.5, 1, 3):
        other = score + rng.normal(0, noise, score.shape)
        a, b = (metrics.bootstrap(true, s, pictures, resamples=400) for s in (score, other))
        found, turned = metrics.paired(a, b), metrics.paired(b, a)
        assert found.difference == pytest.approx(
            metrics.mean_average_precision(true, other)
            - metrics.mean_average_precision(true, score)
        )
        assert (turned.difference, turned.p) == (-found.difference, found.p)
        assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
        if found.p < 0.04 or found.p > 0.06:
            assert (found.p < 0.05) == (not found.low <= 0 <= found.high)
    assert found.difference < 0 and found.p == pytest.approx(2 / 401)
    label = metrics.paired(a, b, column=1)
    assert label.a == pytest.approx(average_precision_score(true[:, 1], score[:, 1]))


def test_pairing_sees_what_two_intervals_hide():
    # B is right wherever A is, and on a few persons more: the intervals of both overlap.
    rng = np.random.default_rng(0)
    hits = rng.random((400, 1)) < 0.6
    more = hits | (rng.random((400, 1)) < 0.12)
    a, b = (metrics.bootstrap_mean(h.astype(float), np.arange(400)) for h in (hits, more))
    assert a.high[0] > b.low[0]
    found = metrics.paired(a, b, 0)
    assert found.low > 0 and found.p < 0.01


def test_only_shared_resamples_are_compared():
    true, score, pictures = made()
    a = metrics.bootstrap(true, score, pictures, resamples=100)
    for b in (
        metrics.bootstrap(true, score, pictures, resamples=101),
        metrics.bootstrap(true, score, pictures, resamples=100, seed=1),
        metrics.bootstrap(true, score, pictures, resamples=100, confidence=0.9),
        metrics.bootstrap(true, score, np.arange(120), resamples=100),
        metrics.bootstrap(true[:90], score[:90], pictures[:90], resamples=100),
    ):
        with pytest.raises(DataError, match=r"shared resamples.*evaluate\.seed"):
            metrics.paired(a, b)
    # the same pictures under other names
    assert metrics.paired(a, metrics.bootstrap(true, score, pictures * 7, resamples=100)).p == 1


def test_nothing_to_compare():
    true, score, pictures = made(20)
    nobody = np.zeros_like(true)
    a = metrics.bootstrap(nobody, score, pictures, resamples=100)
    found = metrics.paired(a, a)
    assert np.isnan([found.difference, found.low, found.high, found.p]).all()


@pytest.mark.slow
def test_equal_heads_differ_by_chance_only():
    # Two heads of the same worth: p is below 0.05 in about 5 of 100 trials.
    rng = np.random.default_rng(7)
    below = {"mAP": 0, "accuracy": 0}
    for _ in range(200):
        true = np.eye(4)[rng.integers(4, size=300)]
        heads = [true * 0.8 + rng.normal(size=true.shape) for _ in range(2)]
        pictures = np.arange(300) // 2
        a, b = (metrics.bootstrap(true, score, pictures, 200) for score in heads)
        below["mAP"] += metrics.paired(a, b).p < 0.05
        hits = [metrics.correct(true, score)[:, None].astype(float) for score in heads]
        a, b = (metrics.bootstrap_mean(h, pictures, resamples=200) for h in hits)
        below["accuracy"] += metrics.paired(a, b, 0).p < 0.05
    assert all(2 <= count <= 22 for count in below.values()), below
