"""Numbers of a head: how well it ranks, decides and spreads, with intervals over pictures.

Importing this loads no torch. What each number is, and its traps: docs/metrics.md.
"""

from train.metrics.continuous import mean_error
from train.metrics.decisions import (
    accuracy,
    balanced_accuracy,
    confusion,
    correct,
    f1_scores,
    jaccard,
    majority_accuracy,
    thresholds,
)
from train.metrics.distributions import MEASURES, distribution_measures, highest
from train.metrics.ranking import (
    average_precision,
    chance_level,
    interpolated_average_precision,
    mean_average_precision,
    precision_recall,
    random_order,
)
from train.metrics.resampling import (
    Bootstrap,
    Difference,
    bootstrap,
    bootstrap_f1,
    bootstrap_mean,
    interval_of,
    paired,
)

__all__ = [
    "MEASURES",
    "Bootstrap",
    "Difference",
    "accuracy",
    "average_precision",
    "balanced_accuracy",
    "bootstrap",
    "bootstrap_f1",
    "bootstrap_mean",
    "chance_level",
    "confusion",
    "correct",
    "distribution_measures",
    "f1_scores",
    "highest",
    "interpolated_average_precision",
    "interval_of",
    "jaccard",
    "majority_accuracy",
    "mean_average_precision",
    "mean_error",
    "paired",
    "precision_recall",
    "random_order",
    "thresholds",
]
