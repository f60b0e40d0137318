"""BPA: the channels of the body weighed by the body itself (RRLA)."""

from jaxtyping import Float
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """s = sigmoid(W2 relu(W1 mean(map))), then s * map: squeeze and excitation (Hu et al. 2018).

    A gate that is one number a channel commutes with the mean over places:
    mean(s * map) = s * mean(map). So pooled features are all it needs, and no map is cached.
    squeeze: how many times narrower the layer between is.
    """

    def __init__(self, width: int, squeeze: int):
        super().__init__()
        narrow = max(1, width // squeeze)
        self.gate = nn.Sequential(
            nn.Linear(width, narrow), nn.ReLU(), nn.Linear(narrow, width), nn.Sigmoid()
        )

    def forward(self, pooled: Float[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        """The gated features, from the mean of the map over its places."""
        return self.gate(pooled) * pooled
