"""train.metrics.ranking against scikit-learn and cases counted by hand."""

import subprocess
import sys
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import average_precision_score

from cache.errors import DataError
from train import metrics
from train.metrics import decisions, distributions, ranking, resampling


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


# ---- curves --------------------------------------------------------------------------------


def test_precision_recall_curve_by_hand():
    recall, precision = metrics.precision_recall(np.array([0, 1, 1, 0]), np.array([4.0, 3, 2, 1]))
    np.testing.assert_allclose(recall, [0, 1 / 2, 1, 1])
    np.testing.assert_allclose(precision, [0, 1 / 2, 2 / 3, 2 / 4])
    with pytest.raises(DataError, match="needs a positive"):
        metrics.precision_recall(np.zeros(3), np.zeros(3))


# ---- the package ---------------------------------------------------------------------------


def test_it_loads_no_torch():
    code = "import sys, train.metrics; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_shapes_are_checked_under_test_in_every_module():
    # the hook of tests/conftest.py names "metrics": it must reach what lies below
    for function in (
        ranking.mean_of_known,
        decisions.jaccard,
        distributions.highest,
        resampling.Resamples.draws,
    ):
        assert hasattr(function, "__wrapped__"), function
