"""train.metrics.decisions and continuous against scikit-learn and cases counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    precision_score,
    recall_score,
)

from cache.errors import DataError
from tests.train.test_metrics import column, made
from train import metrics
from train.labels import single_label

binary = arrays(np.int8, (9, 4), elements=st.integers(0, 1))


def one_hot(labels, count):
    return np.eye(count)[np.asarray(labels)]


# ---- thresholds ----------------------------------------------------------------------------


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


# ---- many labels a person ------------------------------------------------------------------


@given(binary, binary)
@settings(max_examples=60, deadline=None)
def test_f1_and_jaccard_are_those_of_scikit_learn(true, predicted):
    found = metrics.f1_scores(true, predicted)
    jaccard = metrics.jaccard(true, predicted)
    assert jaccard.mean() == pytest.approx(
        jaccard_score(true, predicted, average="samples", zero_division=0)
    )
    if not true.any():
        assert np.isnan(list(found.values())).all()
        return
    kept = np.flatnonzero(true.any(axis=0))  # labels without a positive stay out of means
    overall = f1_score(true, predicted, average="micro", zero_division=0)
    assert found["F1_micro"] == found["O_F1"] == pytest.approx(overall)
    macro = {"average": "macro", "labels": kept, "zero_division": 0}
    assert found["F1_macro"] == pytest.approx(f1_score(true, predicted, **macro))
    precision = precision_score(true, predicted, **macro)
    recall = recall_score(true, predicted, **macro)
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert found["C_F1"] == pytest.approx(expected)
    assert found["C_F1"] >= found["F1_macro"] - 1e-12


def test_the_two_means_over_labels_differ():
    # Label 0: precision 1, recall 1/2, F1 2/3. Label 1: precision 1/2, recall 1, F1 2/3.
    true = np.array([[1, 1], [1, 0], [0, 0]])
    predicted = np.array([[1, 1], [0, 1], [0, 0]])
    found = metrics.f1_scores(true, predicted)
    assert found["F1_macro"] == pytest.approx(2 / 3)
    assert found["C_F1"] == pytest.approx(3 / 4)  # CP = CR = 3/4
    assert found["O_F1"] == pytest.approx(2 / 3)  # OP = OR = 2/3


def test_a_prediction_of_a_label_that_nobody_has_is_wrong():
    true, predicted = np.array([[1, 0]]), np.array([[1, 1]])
    found = metrics.f1_scores(true, predicted)
    assert (found["F1_macro"], found["C_F1"]) == (1, 1)
    assert found["O_F1"] == pytest.approx(2 / 3)
    assert metrics.jaccard(true, predicted).tolist() == [0.5]


def test_jaccard_of_nothing_is_nothing():
    true, predicted = np.array([[0, 0], [1, 1], [1, 0]]), np.array([[0, 0], [1, 1], [0, 1]])
    assert metrics.jaccard(true, predicted).tolist() == [0, 1, 0]


def test_predictions_must_be_decisions():
    for measure in (metrics.f1_scores, metrics.jaccard):
        with pytest.raises(DataError, match="thresholds first"):
            measure(column(1, 0), column(0.7, 0.2))


# ---- one label a person --------------------------------------------------------------------


@given(
    arrays(np.int64, 14, elements=st.integers(0, 3)),
    arrays(np.float64, (14, 4), elements=st.integers(-3, 3).map(float)),
)
@settings(max_examples=60, deadline=None)
def test_accuracies_and_confusion_are_those_of_scikit_learn(labels, score):
    true, predicted = one_hot(labels, 4), score.argmax(axis=1)
    assert metrics.accuracy(true, score) == pytest.approx(accuracy_score(labels, predicted))
    recall = recall_score(
        labels, predicted, labels=np.unique(labels), average="macro", zero_division=0
    )
    assert metrics.balanced_accuracy(true, score) == pytest.approx(recall)
    if set(predicted) <= set(labels) and len(set(labels)) > 1:
        assert recall == pytest.approx(balanced_accuracy_score(labels, predicted))
    np.testing.assert_array_equal(
        metrics.confusion(true, score), confusion_matrix(labels, predicted, labels=range(4))
    )
    assert metrics.majority_accuracy(true) == np.bincount(labels).max() / 14


def test_one_person_and_equal_scores():
    true = one_hot([1], 3)
    assert metrics.accuracy(true, np.array([[0.1, 0.8, 0.1]])) == 1
    assert metrics.accuracy(true, np.zeros((1, 3))) == 0  # the first of equal labels is taken
    assert metrics.balanced_accuracy(true, np.array([[0.1, 0.8, 0.1]])) == 1
    assert metrics.correct(one_hot([0, 1], 2), np.ones((2, 2))).tolist() == [True, False]


def test_what_is_single_label():
    assert single_label(one_hot([0, 2, 1], 3))
    for other in (
        np.array([[1, 1], [1, 0]]),
        np.array([[0, 0], [1, 0]]),
        np.array([[0.5, 0.5]]),
        np.ones((3, 1)),
        np.zeros((0, 3)),
    ):
        assert not single_label(other)


def test_accuracy_refuses_other_labels_and_broken_scores():
    two, score = np.array([[1, 0], [1, 1]]), np.zeros((2, 2))
    for measure in (metrics.accuracy, metrics.balanced_accuracy, metrics.confusion):
        with pytest.raises(DataError, match=r"1 of 2 have another number, the first one person 1"):
            measure(two, score)
        with pytest.raises(DataError, match="not finite"):
            measure(one_hot([0, 1], 2), np.full((2, 2), np.nan))


# ---- valence, arousal, dominance -----------------------------------------------------------


def test_mean_error_is_that_of_scikit_learn_over_who_was_rated():
    rng = np.random.default_rng(0)
    true, predicted = rng.uniform(1, 10, (20, 3)), rng.uniform(1, 10, (20, 3))
    np.testing.assert_allclose(
        metrics.mean_error(true, predicted),
        mean_absolute_error(true, predicted, multioutput="raw_values"),
    )
    true[:19, 0], true[:, 1] = np.nan, np.nan
    found = metrics.mean_error(true, predicted)
    assert found[0] == pytest.approx(abs(true[19, 0] - predicted[19, 0])) and np.isnan(found[1])
    with pytest.raises(DataError, match="1 predicted values are not finite"):
        metrics.mean_error(column(5.0, 5), column(np.inf, 5))
    with pytest.raises(DataError, match="persons, dimensions"):
        metrics.mean_error(true, predicted[:, :2])
