import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from tests.train.layers.gradients import right
from train.layers.label_attention import LabelAttention, correlation, started
from train.layers.label_graph import cosine


def shares(count: int = 40, labels: int = 5) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(labels), count).astype(np.float32)


def test_correlations_are_numpys_and_scikit_learns():
    targets = shares()
    found = correlation(torch.from_numpy(targets), "pearson")
    np.testing.assert_allclose(found, np.corrcoef(targets.T), atol=1e-6)
    found = correlation(torch.from_numpy(targets), "cosine")
    np.testing.assert_allclose(found, cosine_similarity(targets.T), atol=1e-6)


@pytest.mark.parametrize("kind", ["pearson", "cosine"])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_a_label_that_never_changes_is_finite(kind, value):
    """1 / 3 and 0.1 are no float32, and what subtracting the mean leaves of them is no signal."""
    targets = torch.from_numpy(shares())
    targets[:, 2] = value
    found = correlation(targets, kind)
    assert found.isfinite().all() and torch.equal(found.diagonal(), torch.ones(5))
    if kind == "pearson" or not value:
        assert not found[2, [0, 1, 3, 4]].any()
    assert correlation(targets[:1], kind).isfinite().all()
    assert correlation(targets[:0], kind).isfinite().all()


def test_attention_by_hand():
    """Identity projections, width 2. E = (1, 0), (0, 1), so R is the identity; s = 1."""
    layer = LabelAttention(2)
    for part in (layer.query, layer.key, layer.value):
        part.weight.data, part.bias.data = torch.eye(2), torch.zeros(2)
    embedding, tokens = torch.eye(2), torch.tensor([[[1.0, 0], [0, 2]]])
    root = 2**0.5
    logits = torch.tensor([[1 / root + 1, 0], [0, 2 / root + 1]])
    expected = logits.softmax(-1)
    torch.testing.assert_close(layer.weights(embedding, tokens)[0], expected)
    torch.testing.assert_close(
        layer(embedding, tokens)[0], layer.norm(tokens[0] + expected @ tokens[0])
    )


def test_correlated_labels_are_attended_to_more_where_s_is_greater():
    torch.manual_seed(0)
    layer = LabelAttention(4)
    embedding = torch.randn(3, 4)
    embedding[1] = embedding[0] + 0.1 * torch.randn(4)
    tokens = torch.randn(2, 3, 4)
    found = []
    for scale in (0.0, 4.0):
        layer.scale.data = torch.tensor(scale)
        found.append(layer.weights(embedding, tokens)[:, 0, :2].sum(1))
    assert (found[1] > found[0]).all()


def test_gradients():
    torch.manual_seed(0)
    embedding = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    tokens = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert right(LabelAttention(4), embedding, tokens)


@pytest.mark.parametrize(("labels", "width"), [(5, 16), (5, 5), (9, 4)])
def test_a_start_from_text_keeps_its_cosines(labels, width):
    """Exactly where there are as many numbers as components; else it is the nearest there is."""
    text = torch.from_numpy(np.random.default_rng(0).normal(size=(labels, 12))).float()
    found = started(text, width)
    assert found.shape == (labels, width)
    assert float(found.square().mean()) == pytest.approx(1, rel=1e-5)
    expected = cosine(text - text.mean(0))
    if width >= labels - 1:
        torch.testing.assert_close(cosine(found), expected, atol=1e-5, rtol=0)
    assert started(torch.ones(labels, 12), width).isfinite().all()
