import pytest
import torch
from torch import nn

from tests.train.layers.gradients import right
from train.layers.cross_attention import (
    Attention,
    CrossModal,
    EncoderLayer,
    expanded,
    masked_softmax,
)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_torchs(heads):
    """`torch.nn.MultiheadAttention` with the same weights, and tokens that are padded."""
    torch.manual_seed(0)
    ours, theirs = Attention(8, heads), nn.MultiheadAttention(8, heads, batch_first=True)
    layers = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data = torch.cat([layer.weight for layer in layers]).detach()
    theirs.in_proj_bias.data = torch.cat([layer.bias for layer in layers]).detach()
    theirs.out_proj.load_state_dict(ours.project.state_dict())
    asking, asked = torch.randn(3, 5, 8), torch.randn(3, 4, 8)
    mask = torch.tensor([[True] * 4, [True, False, True, False], [False, False, False, True]])
    expected, _ = theirs(asking, asked, asked, key_padding_mask=~mask)
    torch.testing.assert_close(ours(asking, asked, mask), expected)


def test_the_encoder_layer_is_torchs():
    torch.manual_seed(0)
    ours = EncoderLayer(8, 2, 12, 0.0)
    theirs = nn.TransformerEncoderLayer(8, 2, 12, 0.0, batch_first=True).train()
    attend = ours.attend
    layers = (attend.query, attend.key, attend.value)
    theirs.self_attn.in_proj_weight.data = torch.cat([one.weight for one in layers]).detach()
    theirs.self_attn.in_proj_bias.data = torch.cat([one.bias for one in layers]).detach()
    theirs.self_attn.out_proj.load_state_dict(attend.project.state_dict())
    theirs.linear1.load_state_dict(ours.mlp[0].state_dict())
    theirs.linear2.load_state_dict(ours.mlp[3].state_dict())
    tokens = torch.randn(3, 5, 8)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2, [False] * 4 + [True]])
    expected = theirs(tokens, src_key_padding_mask=~mask)
    torch.testing.assert_close(ours(tokens, mask), expected)


def test_the_same_questions_in_all_samples():
    torch.manual_seed(0)
    layer = Attention(8, 2)
    asking, asked = torch.randn(5, 8), torch.randn(3, 4, 8)
    mask = torch.ones(3, 4, dtype=torch.bool)
    found = layer(asking, asked, mask)
    torch.testing.assert_close(found, layer(asking.expand(3, 5, 8), asked, mask))


def test_nothing_to_attend_to_is_zeros_and_finite():
    layer = Attention(4, 2)
    asked = torch.randn(1, 3, 4, requires_grad=True)
    found = layer(torch.randn(1, 2, 4), asked, torch.zeros(1, 3, dtype=torch.bool))
    found.sum().backward()
    torch.testing.assert_close(found, layer.project.bias.expand(1, 2, 4))
    assert not asked.grad.any()
    assert not masked_softmax(torch.randn(2, 3), torch.zeros(2, 3, dtype=torch.bool)).any()


def test_a_modality_asks_all_others_and_not_itself():
    torch.manual_seed(0)
    layer = CrossModal(3, 4, 2)
    tokens = [torch.randn(2, n, 4) for n in (2, 3, 1)]
    there = [torch.ones(2, dtype=torch.bool)] * 3
    found = layer(tokens, there)
    asked = torch.cat(tokens[1:], 1)
    mask = torch.ones(2, 4, dtype=torch.bool)
    expected = layer.norm[0](tokens[0] + layer.attend[0](tokens[0], asked, mask))
    torch.testing.assert_close(found[0], expected)
    assert [one.shape for one in found] == [one.shape for one in tokens]


def test_an_absent_modality_is_not_asked():
    torch.manual_seed(0)
    layer = CrossModal(3, 4, 2)
    tokens = [torch.randn(2, 2, 4) for _ in range(3)]
    there = [torch.tensor([True, True]), torch.tensor([True, False]), torch.tensor([True, True])]
    before = layer(tokens, there)
    tokens[1] = tokens[1] + 9
    after = layer(tokens, there)
    for n in (0, 2):
        torch.testing.assert_close(before[n][1], after[n][1])
        assert not torch.allclose(before[n][0], after[n][0])


def test_gradients():
    torch.manual_seed(0)
    mask = torch.tensor([[True, False, True], [True, True, True]])
    asking, asked = (torch.randn(2, n, 4, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    assert right(Attention(4, 2), asking, asked, mask)
    assert right(EncoderLayer(4, 2, 3, 0.0), asked, mask)


def test_expanded():
    mask = expanded(torch.tensor([True, False]), torch.zeros(2, 3, 4))
    assert mask.tolist() == [[True] * 3, [False] * 3]
