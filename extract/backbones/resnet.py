"""ResNet on RGB pictures: the pooled features before the classifier (He et al., 2015)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extract.backbones import backbone
from extract.loading import load_state
from extract.networks import Network, normalise
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch
    from torchvision.models import ResNet as ResNetModule

# What torchvision's own weights expect. Weights from elsewhere bring their own numbers along
# (those converted from Keras want RGB in 0..255 minus the mean, no division, and blocks that
# halve the map in their first convolution).
IMAGENET = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


@backbone("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
class ResNet(Network):
    """uint8 (B,3,H,W) RGB -> float32 (B,W): mean over space of the last map; W is 2048 from
    ResNet-50 on, 512 before."""

    kind = "picture"

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        return dict(weights.preprocessing or IMAGENET)

    def __init__(self, weights: Weights, device: str = "cpu"):
        import torch
        import torchvision

        super().__init__(weights, device)
        with seeded():
            model = getattr(torchvision.models, self.name.lower())(weights=None)
        if weights.trained:
            load_state(model, weights)
        if self.preprocessing.get("stride") == "first convolution":
            stride_first(model)
        self.width = model.fc.in_features
        model.fc = torch.nn.Identity()
        model = model.eval().requires_grad_(False)
        self.model = model.to(self.device, memory_format=self.memory_format)

    def __call__(self, pictures: torch.Tensor) -> torch.Tensor:
        import torch

        features = self.batched(pictures, self._features)
        return torch.cat(features) if features else torch.zeros((0, self.width))

    def _features(self, pictures: torch.Tensor) -> torch.Tensor:
        pixels = normalise(pictures, self.preprocessing, self.device)
        pixels = pixels.contiguous(memory_format=self.memory_format)
        with self.arithmetic():
            return self.model(pixels).float()


def stride_first(model: ResNetModule) -> None:
    """Halve the map in a block's first 1 x 1 convolution, as the first ResNets did; torchvision
    does it in the 3 x 3 after it."""
    for layer in (model.layer2, model.layer3, model.layer4):
        block: Any = layer[0]
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
