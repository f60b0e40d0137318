"""What heads see of a batch: the features of a view, standardised, missing ones as zeros."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.data import Batch, Features


class Standardise(nn.Module):
    """(x - mean) / deviation of each view, over the training persons; x itself where it is not on.

    widths: of each view's features; "objects.region" is that array of the view.
    """

    def __init__(self, widths: Mapping[str, int], on: bool = True):
        super().__init__()
        self.names, self.on = tuple(widths) if on else (), on
        for name, width in widths.items() if on else ():
            self.register_buffer(_plain(name, "mean"), torch.zeros(width))
            self.register_buffer(_plain(name, "deviation"), torch.ones(width))

    def measure(self, features: Features, rows: Tensor) -> None:
        for name in self.names:
            mean, deviation = features.moments(rows, *name.split("."))
            self.get_buffer(_plain(name, "mean")).copy_(mean)
            self.get_buffer(_plain(name, "deviation")).copy_(deviation)

    def mean(self, name: str) -> Float[Tensor, " W"]:
        """What a view is standardised by: zeros before `measure`."""
        return self.get_buffer(_plain(name, "mean"))

    def forward(self, name: str, batch: Batch) -> Tensor:
        """(B, W), or (B, k, W) of objects; zeros where there is no face or object."""
        view, _, array = name.partition(".")
        values = batch.views[view][array or "features"]
        if not self.on:  # what is missing stands as zeros in the cache
            return values
        mean, deviation = (self.get_buffer(_plain(name, what)) for what in ("mean", "deviation"))
        values = (values - mean) / deviation
        mask = batch.views[view].get("mask")
        return values if mask is None else values * mask[..., None]


def _plain(name: str, what: str) -> str:
    return f"{name.replace('.', '_')}_{what}"


def mean_object(values: Float[Tensor, "B k W"], mask: Tensor) -> Float[Tensor, "B W"]:
    """The mean of the objects present, all alike; zeros where there is none."""
    return (values * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
