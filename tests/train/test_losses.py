import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from train.losses import (
    classification,
    continuous,
    double_constraint,
    label_weights,
    weighted_squared,
)


def test_binary_cross_entropy_by_hand():
    """p = 1/2 and 3/4 against 1 and 0: ln 2 and ln 4, their mean."""
    z = torch.tensor([[0.0, math.log(3)]])
    found = classification(z, z, torch.tensor([[1.0, 0.0]]), "bce")
    assert found.item() == pytest.approx(1.5 * math.log(2))


def test_cross_entropy_against_shares_by_hand():
    """p = 1/4 and 3/4; the label vector (1, 3) counts as (1/4, 3/4), and (2, 0) as (1, 0)."""
    z = torch.tensor([[0.0, math.log(3)]] * 2)
    found = classification(z, z, torch.tensor([[1.0, 3.0], [2.0, 0.0]]), "cross_entropy")
    first, second = math.log(4) / 4 + 3 * math.log(4 / 3) / 4, math.log(4)
    assert found.item() == pytest.approx((first + second) / 2)


def test_label_weights_by_hand():
    """p = 1, 1/2 and 0; above 0.5 counts as having the label."""
    target = torch.tensor([[1.0, 0.6, 0.5], [1.0, 0.0, 0.0]])
    rare = 1 / math.log(1.2)
    by_hand = torch.tensor([1 / math.log(2.2), 1 / math.log(1.7), rare])
    torch.testing.assert_close(label_weights(target), by_hand / by_hand.sum())
    torch.testing.assert_close(label_weights(torch.zeros(3, 4)), torch.full((4,), 1 / 4))


def test_weighted_squared_error_by_hand():
    """Of two persons 1/4 1^2 + 3/4 2^2 = 3.25 and 1/4 2^2 = 1."""
    scores, target = torch.tensor([[1.0, 2.0], [3.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    found = weighted_squared(scores, target, torch.tensor([0.25, 0.75]))
    assert found.item() == pytest.approx((3.25 + 1) / 2)


def test_continuous_by_hand():
    """1^2 and 3^2 over the two that were rated; 0 and no gradient where nothing was."""
    predicted = torch.tensor([[2.0, 5.0], [7.0, 9.0]], requires_grad=True)
    rated = torch.tensor([[1.0, math.nan], [math.nan, 6.0]])
    found = continuous(predicted, rated)
    found.backward()
    assert found.item() == 5
    assert predicted.grad.tolist() == [[1, 0], [0, 3]]  # 2 (p - r) / 2
    predicted.grad = None
    found = continuous(predicted, torch.full((2, 2), math.nan))
    found.backward()
    assert found.item() == 0 and not predicted.grad.any()


def test_binary_cross_entropy_agrees_with_scikit_learn():
    rng = np.random.default_rng(0)
    logits, target = rng.normal(size=(6, 3)), (rng.random((6, 3)) > 0.5).astype(float)
    p = 1 / (1 + np.exp(-logits))
    expected = np.mean([log_loss(target[:, i], p[:, i], labels=[0, 1]) for i in range(3)])
    z, y = torch.from_numpy(logits), torch.from_numpy(target)
    assert classification(z.sigmoid(), z, y, "bce").item() == pytest.approx(expected)


def test_cross_entropy_agrees_with_scikit_learn():
    rng = np.random.default_rng(1)
    logits, label = rng.normal(size=(6, 3)), np.array([0, 1, 2, 2, 1, 0])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    z, y = torch.from_numpy(logits), torch.eye(3, dtype=torch.float64)[label]
    found = classification(z.softmax(-1), z, y, "cross_entropy").item()
    assert found == pytest.approx(log_loss(label, p, labels=[0, 1, 2]))


def test_cross_entropy_of_a_person_without_labels_is_zero():
    z = torch.tensor([[1.0, 2.0]])
    assert classification(z, z, torch.zeros(1, 2), "cross_entropy").item() == 0


def test_squared_error_reads_the_scores():
    scores, target = torch.tensor([[0.5, 2.0]]), torch.tensor([[1.0, 0.0]])
    found = classification(scores, torch.full((1, 2), 9.0), target, "squared")
    assert found.item() == pytest.approx((0.25 + 4) / 2)


def test_double_constraint_by_hand():
    """cos(H^h) = I, A^h = ones: 2 of 4 differ by 1 -> 1/2; cos(H^o) = ones, A^o = ones -> 0."""
    h, o = torch.eye(2), torch.ones(2, 2)
    a = torch.ones(2, 2)
    assert double_constraint([(h, a), (o, a)]).item() == pytest.approx(0.25)
    assert double_constraint([(h, a)]).item() == pytest.approx(0.5)


def test_double_constraint_of_slanted_labels_by_hand():
    """cos = 0.6 off the diagonal against 0.5 and 0.2: (0.01 + 0.16) / 4. However long H is."""
    h, a = torch.tensor([[2.0, 0.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.5], [0.2, 1.0]])
    assert double_constraint([(h, a)]).item() == pytest.approx(0.17 / 4)
    against = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])  # cos = -0.6, against 0.6: 2 of 1.44
    found = double_constraint([(h, a), (against, torch.tensor([[1.0, 0.6], [0.6, 1.0]]))])
    assert found.item() == pytest.approx((0.17 + 2 * 1.44) / 8)


def test_a_label_whose_features_are_cut_to_zero_stays_finite():
    """cos is 0 with a row of zeros, with itself too: A = I is missed by 1 of 4."""
    h = torch.tensor([[1.0, 0.0], [0.0, 0.0]], requires_grad=True)
    found = double_constraint([(h, torch.eye(2))])
    found.backward()
    assert found.item() == pytest.approx(1 / 4) and h.grad.isfinite().all()


def test_double_constraint_moves_the_labels_and_not_the_graph():
    h = torch.rand(3, 2, requires_grad=True)
    a = torch.rand(3, 3, requires_grad=True)
    double_constraint([(h, a)]).backward()
    assert h.grad.abs().sum() > 0 and a.grad is None


def test_gradients():
    torch.manual_seed(0)
    h, o = (torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2))
    a = torch.rand(2, 3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *h: double_constraint(zip(h, a, strict=True)), (h, o))
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    for kind in ("bce", "cross_entropy", "squared"):
        assert torch.autograd.gradcheck(lambda z, k=kind: classification(z, z, y, k), (z,))
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: weighted_squared(z, y, weights), (z,))
    rated = torch.where(y > 0, math.nan, y)
    assert torch.autograd.gradcheck(lambda z: continuous(z, rated), (z,))
