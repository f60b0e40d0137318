"""What a head decides, against the truth: thresholds, F1, Jaccard; accuracy for one label a person.

P persons, C labels. `y_true` (P, C) holds 0 and 1, `predicted` (P, C) too, `y_score` (P, C) any
finite number, higher is more likely. Every refusal is a `DataError`.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from cache.errors import DataError
from train.metrics.ranking import checked


def thresholds(y_true: np.ndarray, y_score: np.ndarray) -> Float[np.ndarray, " C"]:
    """For each label the score at which precision meets recall; use the validation split only.

    Both are equal when as many persons are predicted as are positive, so this is the score at
    which the two counts are nearest (the higher one on a draw). A person is predicted when
    score >= threshold. NaN, which predicts nobody, where a label has no positive.
    """
    true, score = checked(y_true, y_score)
    found = np.full(true.shape[1], np.nan)
    for label in np.flatnonzero(true.any(axis=0)):
        values, counts = np.unique(score[:, label], return_counts=True)
        values, predicted = values[::-1], np.cumsum(counts[::-1])  # from the highest score down
        found[label] = values[np.argmin(np.abs(predicted - true[:, label].sum()))]
    return found


def f1_scores(y_true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """The F1 scores of multi-label work: {"F1_macro", "F1_micro", "C_F1", "O_F1"}.

    F1_macro is the mean over labels of each label's own F1. C_F1 is the harmonic mean
    2 CP CR / (CP + CR) of CP and CR, the means over labels of precision and of recall (Wang et al.,
    CNN-RNN, 2016). They differ: C_F1 is never the smaller one. F1_micro = O_F1 = 2 OP OR / (OP +
    OR) from the precision and recall of all P x C decisions; it stands under both names.

    F1_macro, CP and CR go over the labels with a positive, where a label that nobody is predicted
    to have has precision 0. OP and OR count every label: a prediction of one without a positive is
    wrong. NaN where no label has a positive.
    """
    true, chosen = _decisions(y_true, predicted)
    both = (true & chosen).sum(axis=0)
    positives, predictions = true.sum(axis=0), chosen.sum(axis=0)
    if not positives.any():
        return dict.fromkeys(("F1_macro", "F1_micro", "C_F1", "O_F1"), np.nan)
    kept = positives > 0
    precision = (both / np.maximum(predictions, 1))[kept].mean()
    recall = (both[kept] / positives[kept]).mean()
    overall = float(2 * both.sum() / (positives + predictions).sum())
    return {
        "F1_macro": float((2 * both[kept] / (positives + predictions)[kept]).mean()),
        "F1_micro": overall,
        "C_F1": float(2 * precision * recall / (precision + recall)) if both.any() else 0.0,
        "O_F1": overall,
    }


def jaccard(y_true: np.ndarray, predicted: np.ndarray) -> Float[np.ndarray, " P"]:
    """Jaccard coefficient of each person: labels both true and predicted, of those that are either.

    (P,) in [0, 1]; its mean over persons is what papers report. 0 for a person with no label true
    and none predicted.
    """
    true, chosen = _decisions(y_true, predicted)
    return (true & chosen).sum(axis=1) / np.maximum((true | chosen).sum(axis=1), 1)


def correct(y_true: np.ndarray, y_score: np.ndarray) -> Bool[np.ndarray, " P"]:
    """Whether the label with the highest score is the true one; single-label data.

    Of equal highest scores the first label is taken. Raises DataError where a person has not
    exactly one label.
    """
    true, predicted = _labels(y_true, y_score)
    return true == predicted


def accuracy(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """Share of the persons whose label is predicted; see `correct`."""
    return float(correct(y_true, y_score).mean())


def balanced_accuracy(y_true: np.ndarray, y_score: np.ndarray) -> float:
    """Mean over the labels that occur of the share of their persons predicted (mean recall).

    Scores without information reach 1 / (labels that occur), whatever the labels' rates.
    """
    table = confusion(y_true, y_score)
    persons = table.sum(axis=1)
    return float((np.diag(table)[persons > 0] / persons[persons > 0]).mean())


def majority_accuracy(y_true: np.ndarray) -> float:
    """Accuracy of naming the most frequent label of these persons for each of them."""
    true, _ = checked(y_true, np.zeros(np.shape(y_true)))
    return float(true.mean(axis=0).max())


def confusion(y_true: np.ndarray, y_score: np.ndarray) -> Int[np.ndarray, "C C"]:
    """Persons of each true label (row) by the label predicted (column); see `correct`."""
    true, predicted = _labels(y_true, y_score)
    table = np.zeros((np.shape(y_true)[1],) * 2, dtype=np.int64)
    np.add.at(table, (true, predicted), 1)
    return table


def _labels(
    y_true: np.ndarray, y_score: np.ndarray
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, " P"]]:
    true, score = checked(y_true, y_score)
    wrong = np.flatnonzero(true.sum(axis=1) != 1)
    if len(wrong):
        raise DataError(
            f"Accuracy needs exactly one label a person, and {len(wrong)} of {len(true)} have "
            f"another number, the first one person {wrong[0]}: look at mAP, F1 and Jaccard instead."
        )
    return true.argmax(axis=1), score.argmax(axis=1)


def _decisions(
    y_true: np.ndarray, predicted: np.ndarray
) -> tuple[Bool[np.ndarray, "P C"], Bool[np.ndarray, "P C"]]:
    true, chosen = checked(y_true, predicted)
    if not np.isin(chosen, (0, 1)).all():
        raise DataError("Predictions must be 0 or 1: compare the scores with thresholds first.")
    return true, chosen.astype(bool)
