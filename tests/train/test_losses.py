import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from train.losses import classification, double_constraint


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


def test_double_constraint_moves_the_labels_and_not_the_graph():
    h = torch.rand(3, 2, requires_grad=True)
    a = torch.rand(3, 3, requires_grad=True)
    double_constraint([(h, a)]).backward()
    assert h.grad.abs().sum() > 0 and a.grad is None


def test_gradients():
    torch.manual_seed(0)
    h = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    a = torch.rand(3, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda h: double_constraint([(h, a)]), (h,))
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.eye(3, dtype=torch.float64)[[0, 1, 2, 0]]
    for kind in ("bce", "cross_entropy", "squared"):
        assert torch.autograd.gradcheck(lambda z, k=kind: classification(z, z, y, k), (z,))
