import math

import pytest
import torch
from torch.autograd import gradcheck

from tests.train.layers.gradients import right
from train.layers.object_attention import (
    FAINT,
    GEOMETRY,
    NEAR,
    BodyObjectAttention,
    embed,
    geometry,
)


def test_geometry_by_hand():
    """The subject is 20 by 40 about (20, 40); the first object 10 by 20 about (35, 30)."""
    subject = torch.tensor([[10.0, 20, 30, 60]])
    objects = torch.tensor([[[30.0, 20, 40, 40], [10, 20, 30, 60]]])
    found = geometry(subject, objects)
    expected = torch.tensor([[15 / 20, 10 / 40, 10 / 20, 20 / 40], [NEAR, NEAR, 1, 1]]).log()
    torch.testing.assert_close(found[0], expected)


def test_geometry_of_boxes_without_a_side_is_finite():
    subject = torch.tensor([[10.0, 20, 10, 20]], requires_grad=True)
    found = geometry(subject, torch.zeros(1, 2, 4))
    found.sum().backward()
    assert found.isfinite().all() and subject.grad.isfinite().all()


def test_the_embedding_is_sines_and_cosines():
    """Width 8 of two numbers: two frequencies each, 100 and 100 / sqrt(1000)."""
    found = embed(torch.tensor([[0.3, -0.2]]), 8)
    slow = 100 / math.sqrt(1000)
    angles = torch.tensor([30.0, 0.3 * slow, -20.0, -0.2 * slow])
    torch.testing.assert_close(found[0], torch.cat([angles.sin(), angles.cos()]))


def by_hand() -> tuple[BodyObjectAttention, tuple[torch.Tensor, ...]]:
    """Two heads, 4 wide, of objects and a body that are one number each.

    W1 is 1 in the first head and -1 in the second, W2 1: w_A = +-4 o b / sqrt 4. W_G is 2 at the
    first sine for the first head; for the second -1, which relu cuts. V is 1 and 10.
    """
    layer = BodyObjectAttention(1, 1, heads=2, width=4, values=1)
    layer.of_object.weight.data = torch.tensor([[1.0]] * 4 + [[-1.0]] * 4)
    layer.of_body.weight.data = torch.ones(8, 1)
    layer.of_place.weight.data = torch.zeros(2, GEOMETRY)
    layer.of_place.weight.data[:, 0] = torch.tensor([2.0, -1.0])
    layer.values.weight.data = torch.tensor([[1.0], [10.0]])
    layer.project.weight.data = torch.tensor([[1.0, 0.1]])
    layer.project.bias.data = torch.tensor([0.5])
    objects = torch.tensor([[[1.0], [2.0], [100.0]]])  # the third is padding
    where = torch.zeros(1, 3, 4)
    where[0, :, 0] = torch.tensor([math.pi / 6, math.pi / 2, 0.0]) / 100  # sines 1/2, 1, 0
    mask = torch.tensor([[True, True, False]])
    return layer, (objects, mask, torch.tensor([[0.5]]), where)


def test_attention_by_hand():
    """w_A = (1, 2) and (-1, -2); w_G = (1, 2) and the least there is, twice."""
    layer, inputs = by_hand()
    e = math.e
    first = [1 / (1 + 2 * e), 2 * e / (1 + 2 * e), 0]  # e : 2 e^2
    second = [e / (e + 1), 1 / (e + 1), 0]  # 1/e : 1/e^2
    torch.testing.assert_close(layer.weights(*inputs)[0], torch.tensor([first, second]))
    found, weights = layer(*inputs)
    sums = (first[0] + 2 * first[1]) + (second[0] + 2 * second[1])  # 10 of V, a tenth of W
    torch.testing.assert_close(found, torch.tensor([[sums + 0.5]]))
    mean = [(a + b) / 2 for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(weights, torch.tensor([mean]))


def test_a_place_without_weight_counts_faintly_and_not_never():
    """sin 0 = 0: of two equal objects, the one at geometry 0 gets 1e-6 to the other's 2."""
    layer, (objects, mask, body, where) = by_hand()
    objects[:], where[0, 0, 0] = 1.0, 0.0
    found = layer.weights(objects, mask, body, where)[0, 0]
    assert found.tolist() == pytest.approx([FAINT / (2 + FAINT), 2 / (2 + FAINT), 0], rel=1e-3)


def test_one_object_gets_all_weight_wherever_it_is():
    layer, (objects, _, body, where) = by_hand()
    mask = torch.tensor([[False, True, False]])
    found, weights = layer(objects, mask, body, where)
    assert weights.tolist() == [[0, 1, 0]]
    torch.testing.assert_close(found, torch.tensor([[2 + 2 + 0.5]]))


def test_without_geometry_body_and_object_alone_decide():
    layer, inputs = by_hand()
    layer.of_place = None
    e = math.e
    expected = [[1 / (1 + e), e / (1 + e), 0], [e / (1 + e), 1 / (1 + e), 0]]
    torch.testing.assert_close(layer.weights(*inputs)[0], torch.tensor(expected))


def test_whole_values_are_the_papers_sums():
    torch.manual_seed(0)
    layer = BodyObjectAttention(3, 5, heads=2, width=4, values=0, placed=False)
    objects, body = torch.randn(2, 3, 3), torch.randn(2, 5)
    mask, where = torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, 4)
    weights = layer.weights(objects, mask, body, where)
    sums = torch.einsum("bhk,bko->bho", weights, objects).flatten(1)
    torch.testing.assert_close(layer(objects, mask, body, where)[0], layer.project(sums))


def test_no_object_gives_zeros_and_a_finite_gradient():
    layer = BodyObjectAttention(3, 5, heads=2, width=4, values=2)
    objects = torch.randn(1, 2, 3, requires_grad=True)
    mask = torch.zeros(1, 2, dtype=torch.bool)
    found, weights = layer(objects, mask, torch.randn(1, 5), torch.zeros(1, 2, 4))
    found.sum().backward()
    assert not weights.any() and objects.grad.isfinite().all()
    torch.testing.assert_close(found[0], layer.project.bias)


def test_gradients_of_geometry_and_embedding():
    torch.manual_seed(0)
    corner = torch.rand(2, 4, 2, dtype=torch.float64) * 100
    boxes = torch.cat([corner, corner + 20 + corner.flip(1)], -1)
    subject, objects = (boxes[:, 0].requires_grad_(), boxes[:, 1:].detach().requires_grad_())
    assert gradcheck(geometry, (subject, objects))
    values = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: embed(x, 16), (values,))


def test_gradients():
    """By W1, W2, W_G, V and the projection too, with a padded object and a person without any."""
    torch.manual_seed(0)
    mask = torch.tensor([[True, False], [True, True], [False, False]])
    shapes = ((3, 2, 3), (3, 4), (3, 2, 4))
    objects, body, where = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes
    )
    for values in (0, 2):
        layer = BodyObjectAttention(3, 4, heads=2, width=3, values=values)
        assert right(layer, objects, mask, body, where.detach())
