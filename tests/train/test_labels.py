"""What kind labels are is one decision, whoever asks."""

import numpy as np
import pytest

from tests.train import made
from train.data import from_arrays
from train.labels import has, label_kind, ranks

ONE = np.eye(3)
SHARES = np.array([[0.5, 0.3, 0.2], [0.0, 0.6, 0.4]])


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (ONE, "single"),
        (SHARES, "distribution"),
        (np.concatenate([ONE, SHARES]), "distribution"),
        (np.array([[1, 1, 0], [0, 1, 0]]), "multi"),
        (np.array([[0, 0, 0], [0, 1, 0]]), "multi"),  # nobody said that this one has none
        (np.array([[1.0], [1.0]]), "multi"),  # of one label there is nothing to choose
        (np.zeros((0, 3)), "multi"),
        (np.array([[0.5, np.nan, 0.5]]), "multi"),
        (np.array([[1.2, -0.2, 0.0]]), "multi"),
    ],
)
def test_the_kind_of_labels(targets, kind):
    assert label_kind(targets) == kind


def test_features_say_the_same_of_train_and_val():
    given = made.arrays(persons=24)
    assert from_arrays(**given).kind == label_kind(given["targets"]) == "multi"
    shares = given["targets"] + 0.5
    given["targets"] = (shares / shares.sum(1, keepdims=True)).astype(np.float32)
    assert from_arrays(**given).kind == label_kind(given["targets"]) == "distribution"


def test_map_on_val_chooses_only_where_somebody_of_val_has_a_label():
    several = np.array([[1, 1, 0], [0, 1, 0]])
    assert ranks("multi", several[:1]) and not ranks("multi", several[:0])
    assert not ranks("multi", np.zeros((2, 3))) and not ranks("distribution", SHARES[:1])
    assert not ranks("distribution", several[1:])  # one label has all, and they are shares still
    assert has(SHARES).sum() == 1
