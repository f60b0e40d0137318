import pytest
import torch

from tests.train.layers.gradients import right
from train.layers.classifier import CachedLinear, TwoViewClassifier, combine


def by_hand() -> TwoViewClassifier:
    """MLP f -> relu(f) -> relu(2 f) -> (h, -h); fc f -> (f, 1)."""
    mvec = TwoViewClassifier(1, [1, 1], 2, 2, 0.0)
    first, second, third = (mvec.mlp[i] for i in (0, 3, 6))
    for layer, weight in ((first, [[1.0]]), (second, [[2.0]]), (third, [[1.0], [-1.0]])):
        layer.weight.data = torch.tensor(weight)
        layer.bias.data.zero_()
    mvec.fc.weight.data = torch.tensor([[1.0], [0.0]])
    mvec.fc.bias.data = torch.tensor([0.0, 1.0])
    return mvec


def test_both_views_by_hand():
    nodes = torch.tensor([[1.0, 0.0], [2.0, 5.0]])
    first, second = by_hand()(torch.tensor([[3.0], [-3.0]]), nodes)
    assert first.tolist() == [[6.0, -6.0], [0.0, 0.0]]
    assert second.tolist() == [[3.0, 11.0], [-3.0, -1.0]]


def test_combinations_by_hand():
    first, second = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 3.0]])
    mixed = torch.tensor([[0.25 * 2 + 0.75 * 1, 0.75 * 3]])
    scores, logits = combine(first, second, (0.25, 0.75), "sigmoid")
    torch.testing.assert_close(logits, mixed)
    torch.testing.assert_close(scores, 1 / (1 + torch.exp(-mixed)))
    scores, _ = combine(first, second, (0.25, 0.75), "softmax")
    torch.testing.assert_close(scores, torch.exp(mixed) / torch.exp(mixed).sum())
    scores, logits = combine(first, second, (0.25, 0.75), "literal")
    share = torch.exp(first) / torch.exp(first).sum()
    torch.testing.assert_close(scores, 0.25 * share + 0.75 * second)
    assert torch.equal(scores, logits)


def test_without_a_graph_the_first_view_decides_alone():
    mvec = TwoViewClassifier(4, [3, 2], 5, 0, 0.0)
    first, second = mvec(torch.rand(2, 4), None)
    assert mvec.fc is None and second is None
    assert torch.equal(combine(first, second, (0.5, 0.5), "sigmoid")[1], first)


def test_gradients():
    """By features, nodes and all weights."""
    torch.manual_seed(0)
    features = torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    nodes = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)
    for learned in (None, (0, 4)):
        for output in ("sigmoid", "softmax", "literal"):

            class Mixed(TwoViewClassifier):
                mix = output

                def forward(self, features, nodes):
                    return combine(*super().forward(features, nodes), (0.3, 0.7), self.mix)[0]

            assert right(Mixed(4, [3, 2], 5, 6, 0.0, learned), features, nodes)


def test_gradients_by_the_learned_columns():
    """Columns 1 and 2 are inputs, the others given."""
    torch.manual_seed(0)
    given = torch.rand(2, 4, dtype=torch.float64)
    learned = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    nodes = torch.rand(5, 6, dtype=torch.float64, requires_grad=True)

    class Partly(TwoViewClassifier):
        def forward(self, learned, nodes):
            return super().forward(torch.cat([given[:, :1], learned, given[:, 3:]], 1), nodes)

    assert right(Partly(4, [3, 2], 5, 6, 0.0, (1, 3)), learned, nodes)


def test_a_frozen_layers_gradients_by_hand():
    """y = W x for x = (1, 2, 3), slope 1 by each y: back (3, 1, -1), of which column 1 is kept."""
    layer = CachedLinear(3, 2, (1, 2))
    layer.weight.data = torch.tensor([[1.0, 0.0, -1.0], [2.0, 1.0, 0.0]])
    layer.bias.data = torch.tensor([0.5, 0.0])
    features = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    found = layer(features)
    assert found.tolist() == [[-1.5, 4.0]]
    found.sum().backward()
    assert features.grad.tolist() == [[0, 1, 0]]
    assert layer.weight.grad.tolist() == [[1, 2, 3], [1, 2, 3]]
    assert layer.bias.grad.tolist() == [1, 1]


def test_both_views_read_the_features_by_frozen_layers_where_some_are_learned():
    mvec = TwoViewClassifier(4, [3, 2], 5, 6, 0.0, (1, 3))
    assert [layer.learned for layer in (mvec.mlp[0], mvec.fc)] == [(1, 3), (1, 3)]
    features = torch.rand(2, 4, requires_grad=True)
    first, second = mvec(features, torch.rand(5, 6))
    (first.sum() + second.sum()).backward()
    assert features.grad[:, 1:3].all() and not features.grad[:, [0, 3]].any()


@pytest.mark.parametrize("learned", [(1, 3), (0, 0), (0, 5)])
def test_learned_columns_get_the_gradient_and_the_layer_is_linear(learned):
    torch.manual_seed(0)
    layer = CachedLinear(5, 3, learned).double()
    features = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    plain = torch.nn.functional.linear(features, layer.weight, layer.bias)
    torch.testing.assert_close(layer(features), plain)
    expected = torch.autograd.grad(plain.square().sum(), [layer.weight, layer.bias, features])
    layer(features).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, expected[0])
    torch.testing.assert_close(layer.bias.grad, expected[1])
    start, stop = learned
    back = torch.zeros_like(features) if features.grad is None else features.grad
    torch.testing.assert_close(back[:, start:stop], expected[2][:, start:stop])
    assert not back[:, :start].any() and not back[:, stop:].any()


def test_a_wrong_shape_is_caught_by_its_name():
    with pytest.raises(Exception, match=r"(?i)type-check"):
        combine(torch.zeros(2, 3), torch.zeros(3, 2), (0.5, 0.5), "sigmoid")
