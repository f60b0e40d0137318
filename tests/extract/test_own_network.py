"""The network that docs/networks.md shows is one: found by name, keyed, untrained and trained."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from extract.backbones import backbones, load_backbone
from extract.settings import Weights

DOCS = Path(__file__).parents[2] / "docs" / "networks.md"
NAME = "mobilenet_v3_small"


@pytest.fixture
def own(monkeypatch):
    """As a file of extract/backbones, named in the list there."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.S)
    module = ModuleType("extract.backbones.mobilenet")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(backbones, "modules", (*backbones.modules, "mobilenet"))
    monkeypatch.setattr(backbones, "_classes", dict(backbones._classes))
    exec(compile(code, "mobilenet.py", "exec"), module.__dict__)


def test_its_features_are_those_before_torchvisions_classifier(own, tmp_path):
    torch.manual_seed(3)
    model = torchvision.models.mobilenet_v3_small().eval()
    save_file(model.state_dict(), tmp_path / f"{NAME}.safetensors")
    network = load_backbone(NAME, Weights(folder=tmp_path, source=["folder"]))
    assert network.weights.trained and network.width == 576
    pictures = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(network.preprocessing[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        expected = model.avgpool(model.features((pictures / 255 - mean) / std)).flatten(1)
    torch.testing.assert_close(network(pictures), expected, rtol=1e-4, atol=1e-5)
    assert network(pictures[:0]).shape == (0, 576)


def test_untrained_it_says_so_and_is_the_same_everywhere(own, tmp_path):
    settings = Weights(folder=tmp_path, source=["folder"], untrained=[NAME])
    one, other = load_backbone(NAME, settings), load_backbone(NAME, settings)
    assert not one.weights.trained and "untrained" in one.preprocessing
    pictures = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(one(pictures), other(pictures))
