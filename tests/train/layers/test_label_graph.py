import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from train.layers.label_graph import (
    GraphConvolution,
    LabelGraph,
    cooccurrence,
    cosine,
    normalise,
    similarity,
)


def test_cosine_agrees_with_scikit_learn():
    rows = np.random.default_rng(0).normal(size=(5, 7))
    ours = cosine(torch.from_numpy(rows)).numpy()
    np.testing.assert_allclose(ours, cosine_similarity(rows), atol=1e-9)


def test_a_row_of_zeros_has_cosine_zero_and_a_finite_gradient():
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
    found = cosine(rows)
    assert found.tolist() == [[0.0, 0.0], [0.0, pytest.approx(1.0)]]
    found.sum().backward()
    assert torch.isfinite(rows.grad).all()


def test_similarity_by_hand():
    nodes = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.0]])
    half = 2**-0.5
    expected = torch.tensor([[1, half, 0], [half, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(similarity(nodes), expected)


def test_cooccurrence_by_hand():
    """m = (3, 2, 0); labels 0 and 1 together once; label 2 never occurs."""
    targets = torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 2, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(cooccurrence(targets), expected)


def test_normalise_by_hand():
    adjacency = torch.tensor([[1.0, 3.0], [0.0, 1.0]])  # D = (4, 1)
    torch.testing.assert_close(normalise(adjacency), torch.tensor([[0.25, 1.5], [0.0, 1.0]]))


def test_labels_that_never_occur_stay_finite_through_two_layers():
    graph = LabelGraph(4, 3, 2, ("cooccurrence",))
    found = graph(torch.ones(5, 4), cooccurrence(torch.zeros(6, 5)))
    assert torch.isfinite(found.nodes).all()


def test_convolution_on_two_nodes_by_hand():
    """A = all ones, so the normalised A is 1/2 everywhere: both nodes get the mean of H W."""
    layer = GraphConvolution(2, 2)
    layer.weight.data = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
    nodes = torch.tensor([[2.0, 0.0], [4.0, 1.0]])  # H W = [[2, -2], [4, -2]]
    found = layer(nodes, torch.ones(2, 2))
    torch.testing.assert_close(found, torch.tensor([[3.0, 0.0], [3.0, 0.0]]))


def test_two_layers_and_both_branches_by_hand():
    graph = LabelGraph(2, 2, 1, ("similarity", "cooccurrence"))
    graph.project.weight.data = torch.eye(2)
    for branch in graph.branches.values():
        branch.first.weight.data = torch.tensor([[1.0], [2.0]])
        branch.second.weight.data = torch.tensor([[3.0]])
    together = torch.tensor([[1.0, 1.0], [0.0, 1.0]])  # D = (2, 1)
    found = graph(torch.eye(2), together)
    # similarity: A = I, H = 3 relu(H0 W) = (3, 6).
    torch.testing.assert_close(found.outputs["similarity"], torch.tensor([[3.0], [6.0]]))
    # co-occurrence: A = [[1/2, 1/sqrt 2], [0, 1]]; first layer (1/2 + sqrt 2, 2).
    first = torch.tensor([[0.5 + 2**0.5], [2.0]])
    second = 3 * (torch.tensor([[0.5, 2**-0.5], [0.0, 1.0]]) @ first)
    torch.testing.assert_close(found.outputs["cooccurrence"], second)
    torch.testing.assert_close(found.nodes, torch.cat([torch.tensor([[3.0], [6.0]]), second], 1))


def test_gradients():
    torch.manual_seed(0)
    layer = GraphConvolution(3, 2).double()
    nodes = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda h: layer(h, similarity(h)), (nodes,))
    assert torch.autograd.gradcheck(cosine, (nodes,))
