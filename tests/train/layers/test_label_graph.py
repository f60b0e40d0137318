import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from tests.train.layers.gradients import right
from train.layers.label_classifiers import LabelClassifiers, reweighted
from train.layers.label_graph import (
    Branch,
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


def test_a_label_without_features_is_like_itself_and_no_other():
    """cos is 0 with a row of zeros, with itself too; D must not be 0."""
    found = similarity(torch.tensor([[0.0, 0.0], [3.0, 4.0]]))
    torch.testing.assert_close(found, torch.eye(2))


def test_cooccurrence_by_hand():
    """m = (3, 2, 0); labels 0 and 1 together once; label 2 never occurs."""
    targets = torch.tensor([[1.0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 1, 0]])
    expected = torch.tensor([[1, 1 / 3, 0], [1 / 2, 1, 0], [0, 0, 1]])
    torch.testing.assert_close(cooccurrence(targets), expected)


def test_a_label_counts_as_had_above_one_half():
    targets = torch.tensor([[0.6, 0.5], [0.6, 0.7]])  # m = (2, 1), together once
    torch.testing.assert_close(cooccurrence(targets), torch.tensor([[1, 1 / 2], [1, 1]]))


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


def people(*having: tuple[int, ...]) -> torch.Tensor:
    """Label vectors of 4 labels, a person for each set of them."""
    return torch.stack([torch.eye(4)[list(some)].sum(0) for some in having])


def test_conditional_by_hand():
    """m = (4, 2, 1, 0). P(1 | 0) = 1/2 and P(2 | 0) = 1/4, just at the threshold, share 0.2 of
    the row; P(0 | 1) = P(0 | 2) = 1 take it whole; label 3 never occurs and has no neighbour."""
    targets = people((0, 1), (0, 1), (0, 2), (0,))
    expected = [[0.8, 0.1, 0.1, 0], [0.2, 0.8, 0, 0], [0.2, 0, 0.8, 0], [0, 0, 0, 0.8]]
    torch.testing.assert_close(reweighted(targets, 0.25, 0.2), torch.tensor(expected))
    expected[0] = [0.8, 0.2, 0, 0]
    torch.testing.assert_close(reweighted(targets, 0.3, 0.2), torch.tensor(expected))


def test_two_convolutions_by_hand():
    """A is its own normal form, for its rows sum to 1. X W = (5, -5), A X W = (3, -3), the leaky
    ReLU gives (3, -0.6), A of that (2.28, 0.12)."""
    layer, adjacency = LabelClassifiers(1, 1, 2), torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    layer.first.weight.data = torch.tensor([[5.0]])
    layer.second.weight.data = torch.tensor([[2.0], [-1.0]])
    found = layer(torch.tensor([[1.0], [-1.0]]), adjacency)
    torch.testing.assert_close(found, torch.tensor([[4.56, -2.28], [0.24, -0.12]]))


def test_a_label_without_neighbours_goes_its_own_way():
    """Its row of A is 0.8 on the diagonal, D^-1/2 A D^-1/2 is 1: leaky(2 * 3) and leaky(-2 * 3)."""
    layer = LabelClassifiers(1, 1, 1)
    layer.first.weight.data, layer.second.weight.data = torch.tensor([[3.0]]), torch.ones(1, 1)
    found = layer(torch.tensor([[2.0], [-2.0]]), reweighted(torch.zeros(5, 2), 0.2, 0.2))
    torch.testing.assert_close(found, torch.tensor([[6.0], [-1.2]]))


def test_gradients():
    """By nodes and weights; some cosines are negative, so that the ReLU in A^h cuts."""
    torch.manual_seed(0)
    nodes = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    together = cooccurrence(people((0, 1), (1, 2), (1,))).double()  # label 3 never occurs
    assert (cosine(nodes) < 0).any()
    for function in (cosine, similarity, lambda h: normalise(similarity(h))):
        assert torch.autograd.gradcheck(function, (nodes,))
    for layer in (GraphConvolution(3, 2), Branch(3, 2), LabelClassifiers(3, 2, 5)):
        assert right(layer, nodes, together)

    class Nodes(LabelGraph):
        def forward(self, text, together):
            return super().forward(text, together).nodes

    for branches in (("similarity",), ("similarity", "cooccurrence")):
        assert right(Nodes(3, 4, 2, branches), nodes, together)


def test_the_gradient_goes_through_the_similarity_too():
    """H0 is learned: with a lone label in each direction, A^h is what ties them together."""
    nodes = torch.tensor([[1.0, 0.0], [0.6, 0.8]], requires_grad=True)
    similarity(nodes)[0, 1].backward()  # cos = 0.6; its slope by the first: (0, 0.8)
    torch.testing.assert_close(nodes.grad[0], torch.tensor([0.0, 0.8]))
