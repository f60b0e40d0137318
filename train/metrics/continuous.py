"""How far predicted valence, arousal and dominance are from the annotated ones."""

import numpy as np
from jaxtyping import Float

from cache.errors import DataError


def mean_error(y_true: np.ndarray, y_predicted: np.ndarray) -> Float[np.ndarray, " D"]:
    """Mean absolute error of each dimension, in the annotation's own units (EMOTIC: 1 to 10).

    y_true (P, D), NaN where a person was not rated, who then stays out of that dimension;
    y_predicted (P, D) -> (D,), NaN where nobody was rated. The mean over D is what Kosti et al.
    report. Raises DataError for other shapes and predictions that are not finite.
    """
    true, predicted = np.asarray(y_true, np.float64), np.asarray(y_predicted, np.float64)
    if true.ndim != 2 or true.shape != predicted.shape or true.size == 0:
        raise DataError(
            f"Annotated {true.shape} and predicted values {predicted.shape} must both be "
            "(persons, dimensions), one person or more."
        )
    if not np.isfinite(predicted).all():
        raise DataError(
            f"{int((~np.isfinite(predicted)).sum())} predicted values are not finite: the head has "
            "diverged, lower train.lr."
        )
    rated = ~np.isnan(true)
    total = np.where(rated, np.abs(predicted - true), 0).sum(axis=0)
    count = rated.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
