"""RRLA's parts, by hand, and what each ablation leaves out."""

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d

from tests.train import made
from tests.train.heads.test_peers import settings
from train.heads import get_head
from train.layers.body_attention import ChannelGate
from train.layers.label_graph import DependentLabels, conditional, normalise
from train.layers.object_attention import FAINT, NEAR, BodyObjectAttention, embed, geometry


def head(**rrla):
    features = made.features(persons=16)
    torch.manual_seed(0)
    some = settings("rrla", rrla=rrla)
    return get_head("rrla").setup(some, features, features.rows("train")), features


def test_the_gate_commutes_with_the_mean_over_places():
    """BPA on a real map, as in squeeze and excitation, against the gate on pooled features."""
    torch.manual_seed(0)
    gate, maps = ChannelGate(32, 4), torch.rand(5, 32, 7, 7)
    squeezed = adaptive_avg_pool2d(maps, 1).flatten(1)
    gated = gate.gate(squeezed)[:, :, None, None] * maps
    torch.testing.assert_close(gate(squeezed), gated.mean((2, 3)))


def test_geometry_by_hand():
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
    found = embed(torch.tensor([[0.3, -0.2]]), 8)
    angles = [100 * g / 1000 ** (i / 2) for g in (0.3, -0.2) for i in range(2)]
    angles = torch.tensor(angles)
    torch.testing.assert_close(found[0], torch.cat([angles.sin(), angles.cos()]))


def test_attention_by_hand():
    torch.manual_seed(0)
    layer = BodyObjectAttention(3, 5, heads=2, width=4, values=2)
    objects, body = torch.randn(1, 3, 3), torch.randn(1, 5)
    mask, where = torch.tensor([[True, True, False]]), torch.randn(1, 3, 4)
    w1 = layer.of_object.weight.view(2, 4, 3)
    w2 = layer.of_body.weight.view(2, 4, 5)
    value = layer.values.weight.view(2, 2, 3)
    seen = []
    for n in range(2):
        pull = torch.stack([(w1[n] @ o) @ (w2[n] @ body[0]) / 2 for o in objects[0, :2]])
        place = (embed(where[0, :2]) @ layer.of_place.weight[n]).relu().clamp(min=FAINT)
        weights = (pull + place.log()).softmax(0)
        torch.testing.assert_close(layer.weights(objects, mask, body, where)[0, n, :2], weights)
        seen.append(sum(w * value[n] @ o for w, o in zip(weights, objects[0], strict=False)))
    found, weights = layer(objects, mask, body, where)
    torch.testing.assert_close(found, layer.project(torch.cat(seen))[None])
    assert weights[0, 2] == 0 and weights.sum().item() == pytest.approx(1)


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


def test_the_attentions_gradient_is_right():
    torch.manual_seed(0)
    layer = BodyObjectAttention(3, 4, heads=2, width=3, values=2).double()
    mask = torch.tensor([[True, False], [True, True]])
    inputs = (torch.randn(2, 2, 3), torch.randn(2, 4), torch.randn(2, 2, 4))
    objects, body, where = (x.double().requires_grad_() for x in inputs)
    assert torch.autograd.gradcheck(
        lambda o, b: layer(o, mask, b, where.detach())[0], (objects, body)
    )


def test_labels_linked_by_hand():
    """Of ten persons with label 0, three have 1 too and one has 2; threshold 0.2, p = 0.2."""
    targets = torch.zeros(12, 3)
    targets[:10, 0] = 1
    targets[:3, 1] = 1
    targets[3, 2] = 1
    targets[10:, 2] = 1  # label 2 three times, once with 0
    found = conditional(targets, 0.2, 0.2)
    expected = [[0.8, 0.2, 0], [0.2, 0.8, 0], [0.2, 0, 0.8]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_two_convolutions_by_hand():
    torch.manual_seed(0)
    layer, text = DependentLabels(2, 3, 4), torch.randn(2, 2)
    a = torch.tensor([[0.8, 0.2], [0.2, 0.8]])
    torch.testing.assert_close(normalise(a), a)  # its rows sum to 1
    hidden = torch.nn.functional.leaky_relu(a @ text @ layer.first.weight.T, 0.2)
    torch.testing.assert_close(layer(text, a), a @ hidden @ layer.second.weight.T)


def test_the_score_is_the_graph_times_the_fused_features():
    model, features = head()
    batch = features.batch(features.rows("test"))
    fused, weights = model.fuse(batch)
    torch.testing.assert_close(
        model(batch).scores, fused @ model.graph(model.text, model.adjacency).T
    )
    assert fused.shape[1] == 2 * made.WIDTH
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


@pytest.mark.parametrize(
    ("part", "gone"),
    [("boa", "attention."), ("bpa", "gate."), ("eld", "graph."), ("objects", "join.")],
)
def test_an_ablation_takes_its_part_away(part, gone):
    model, features = head(without=[part])
    assert not [name for name, _ in model.named_parameters() if name.startswith(gone)]
    assert [name for name, _ in head()[0].named_parameters() if name.startswith(gone)]
    assert model(features.batch(features.rows("test"))).scores.isfinite().all()


def test_without_geometry_places_change_nothing():
    given = made.arrays(persons=16)
    for part, same in ((["geometry"], True), ([], False)):
        model, features = head(without=part)
        rows = features.rows("test")
        before = model(features.batch(rows)).scores
        features.views["objects"]["box"][:] += torch.arange(made.K)[:, None] * 30.0
        assert torch.allclose(model(features.batch(rows)).scores, before) is same
    assert given


def test_without_boa_objects_count_alike():
    model, features = head(without=["boa"])
    batch = features.batch(features.rows("test"))
    weights = model(batch).attention
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / made.K))


def test_it_reads_region_features_and_words():
    assert get_head("rrla").views(made.settings()) == ("body", "objects.region", "words")
    some = settings("rrla", rrla={"without": ["eld", "objects"]})
    assert get_head("rrla").views(some) == ("body",)
