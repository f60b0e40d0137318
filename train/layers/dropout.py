"""Dropout whose mask can be drawn outside, so that heads fitted together drop what each alone
would."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """x m / (1 - share), m zero with probability `share`, in training; the very numbers of
    `torch.nn.Dropout` on a CPU. mask: m / (1 - share) where it is given, of x's shape."""

    def __init__(self, share: float):
        super().__init__()
        self.share = share
        self.mask: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mask is not None:
            return x * self.mask
        if not self.training or not self.share:
            return x
        return x * draw(self.share, x.shape, x.device)


def draw(
    share: float,
    shape: torch.Size,
    device: torch.device,
    generator: torch.Generator | None = None,
) -> Tensor:
    """m / (1 - share) of this shape, from the generator or from torch's own numbers."""
    kept = 1 - share
    return torch.empty(shape, device=device).bernoulli_(kept, generator=generator).div_(kept)
