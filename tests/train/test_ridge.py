import numpy as np
import pytest
import torch

from train import ridge
from train.data import Features, ViewData, from_arrays
from train.ridge import Ridge

TRAIN, VAL = torch.arange(3), torch.arange(3, 5)


def features(views: dict[str, list], targets: list) -> Features:
    """Persons with these features; the first three are for training, the others for val."""
    count = len(targets)
    return from_arrays(
        views={
            name: ViewData.of(name, "persons", {"features": np.array(rows, np.float32)})
            for name, rows in views.items()
        },
        boxes=np.tile(np.array([[0, 0, 1, 1]], np.float32), (count, 1)),
        sizes=np.array([[9, 9]]),
        pictures=np.zeros(count, np.int64),
        labels=["a", "b"][: len(targets[0])],
        targets=np.array(targets, np.float32),
    )


def fitted(some: Features, views: list[str], components: int = 0) -> Ridge:
    def see(name, batch):
        return batch.views[name]["features"]

    return Ridge(see, views, some, TRAIN, VAL, components)


ONE = features({"x": [[1], [2], [3], [4], [0]]}, [[0], [0], [1], [0.4], [0]])


@pytest.mark.parametrize(("penalty", "slope"), [(0.0, 1 / 2), (1 / 3, 1 / 3), (2.0, 1 / 8)])
def test_one_feature_by_hand(penalty, slope):
    """x = -1, 0, 1 about 2; t about 1/3: x x = 2, x t = 1, W = 1 / (2 + 3 lambda)."""
    path = fitted(ONE, ["x"])
    found = path.solve(["x"], [penalty])
    assert found.weight.tolist() == [[pytest.approx(slope)]]
    assert found.bias.item() == pytest.approx(1 / 3 - 2 * slope)
    assert found.penalty == penalty and found.views == ("x",)
    expected = [[1 / 3 + slope * (x - 2)] for x in (4, 0)]
    np.testing.assert_allclose(path.scores(found, VAL), expected, atol=1e-6)


def test_the_penalty_is_the_one_with_the_least_error_on_val():
    """True 0.4 and 0 at x = 2 and -2 about 2: 1/3 +- 2 w errs least, of these, at w = 1/8."""
    found = fitted(ONE, ["x"]).solve(["x"], [0.0, 1 / 3, 2.0])
    assert found.penalty == 2.0
    errors = (1 / 3 + 1 / 4 - 0.4, 1 / 3 - 1 / 4)
    assert found.merit == pytest.approx(-(errors[0] ** 2 + errors[1] ** 2) / 2)


def test_where_val_has_labels_the_penalty_is_the_one_with_the_best_order():
    """W = (1/2, 1/6) puts 5 above 20/6; (1/302, 1/306) errs far less, and turns them over."""
    views = {"x": [[-1, 1], [0, -2], [1, 1], [10, 0], [0, 20]]}
    path = fitted(features(views, [[0], [0], [1], [1], [0]]), ["x"])
    assert path.solve(["x"], [100.0]).merit == 1 / 2  # the only positive is second
    found = path.solve(["x"], [100.0, 0.0])
    assert found.merit == 1 and found.penalty == 0


def test_two_views_by_hand_and_each_alone():
    """Centred columns (-1, 0, 1) and (1, -2, 1), which are orthogonal: 2 and 6 on the diagonal of
    X X, and 1 and 1 of X t for t = (0, 0, 1). W = 1 / (2 + 3 lambda) and 1 / (6 + 3 lambda)."""
    views = {"x": [[-1], [0], [1], [0], [0]], "y": [[1], [-2], [1], [0], [0]]}
    path = fitted(features(views, [[0], [0], [1], [0], [0]]), ["x", "y"])
    both = path.solve(["x", "y"], [1.0])
    np.testing.assert_allclose(both.weight, [[1 / 5, 1 / 9]], atol=1e-6)
    turned = path.solve(["y", "x"], [1.0])
    np.testing.assert_allclose(turned.weight, [[1 / 9, 1 / 5]], atol=1e-6)
    np.testing.assert_allclose(path.solve(["y"], [1.0]).weight, [[1 / 9]], atol=1e-6)
    np.testing.assert_allclose(path.scores(turned, VAL), path.scores(both, VAL), atol=1e-6)


def test_one_component_is_the_direction_that_varies_most():
    """Of the two columns above in one view, the second has three times the variance."""
    some = features({"x": [[-1, 1], [0, -2], [1, 1], [0, 0], [0, 0]]}, [[0], [0], [1], [0], [0]])
    found = fitted(some, ["x"], components=1).solve(["x"], [1.0])
    np.testing.assert_allclose(found.weight, [[0, 1 / 9]], atol=1e-6)


def test_more_directions_than_persons_carry_are_left_out():
    """Three persons span two directions, however many features they have."""
    rows = np.random.default_rng(0).normal(size=(5, 6)).tolist()
    path = fitted(features({"x": rows}, [[0, 1], [0, 0], [1, 0], [0, 0], [0, 0]]), ["x"])
    assert path.gram.shape == (2, 2)
    found = path.solve(["x"], [0.0])
    fit = path.scores(found, TRAIN)
    np.testing.assert_allclose(fit, [[0, 1], [0, 0], [1, 0]], atol=1e-5)  # passes through them all


def test_persons_in_several_passes_are_the_same_sums(monkeypatch):
    rows = np.random.default_rng(0).normal(size=(5, 2)).tolist()
    some = features({"x": rows}, [[0], [0], [1], [0], [0]])
    whole = fitted(some, ["x"]).solve(["x"], [0.1])
    monkeypatch.setattr(ridge, "AT_ONCE", 1)
    path = fitted(some, ["x"])
    again = path.solve(["x"], [0.1])
    np.testing.assert_allclose(again.weight, whole.weight, rtol=1e-5)
    np.testing.assert_allclose(again.bias, whole.bias, rtol=1e-5)
    assert path.scores(again, VAL).shape == (2, 1)
