import math

import torch
from torchvision.models import resnet18
from torchvision.ops import SqueezeExcitation

from tests.train.layers.gradients import right
from train.layers.body_attention import ChannelGate


def test_the_gate_by_hand():
    """Between: relu(x1 + x2); gate: sigmoid(ln 3 h) and sigmoid(0) = 1/2."""
    gate = ChannelGate(2, 2)
    first, second = gate.gate[0], gate.gate[2]
    first.weight.data, first.bias.data = torch.tensor([[1.0, 1.0]]), torch.zeros(1)
    second.weight.data, second.bias.data = torch.tensor([[math.log(3)], [0.0]]), torch.zeros(2)
    # h = 1 gives 3/4; h = relu(-1) = 0 gives 1/2
    found = gate(torch.tensor([[2.0, -1.0], [-2.0, 1.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.5, -0.5], [-1.0, 0.5]]))


def test_the_layer_between_is_as_narrow_as_asked_and_never_empty():
    assert ChannelGate(8, 4).gate[0].out_features == 2
    assert ChannelGate(8, 16).gate[0].out_features == 1


def test_on_pooled_features_it_is_squeeze_and_excitation_on_the_map():
    """Against torchvision's, gating the last map of a ResNet and pooling afterwards."""
    torch.manual_seed(0)
    backbone = torch.nn.Sequential(*list(resnet18(weights=None).eval().children())[:-2])
    with torch.no_grad():
        maps = backbone(torch.rand(2, 3, 128, 128)).double()
    assert maps.shape == (2, 512, 4, 4) and maps.std((2, 3)).mean() > 0.1  # places differ
    gate, whole = ChannelGate(512, 16).double(), SqueezeExcitation(512, 32).double()
    for ours, theirs in ((gate.gate[0], whole.fc1), (gate.gate[2], whole.fc2)):
        theirs.weight.data = ours.weight.data[:, :, None, None]
        theirs.bias.data = ours.bias.data
    torch.testing.assert_close(gate(maps.mean((2, 3))), whole(maps).mean((2, 3)))


def test_gradients():
    torch.manual_seed(0)
    pooled = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert right(ChannelGate(4, 2), pooled)
