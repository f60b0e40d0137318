"""Ridge regression in closed form: the ceiling of a linear head, seconds after extraction."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cache.errors import DataError
from train.data import EVERY, Batch, Features, expand
from train.head import LabelHead, Output
from train.heads import register
from train.layers.side_by_side import side_by_side
from train.ridge import Ridge
from train.settings import Train


@register("linear")
class Linear(LabelHead):
    """y = W x + b, W = argmin |T - X W|^2 + lambda N |W|^2 over the N persons of train.

    x: the views of the cache, or of `train.linear.views`, side by side, each feature scaled to
    deviation 1 over train, and of each view the `components` leading directions; objects count
    alike. lambda: the one of `penalties` that is best on val, by mAP, or by squared error where val
    has no label.
    Scores are y, which is no probability; where labels are distributions, what of y lies above 0,
    scaled to sum 1. Nothing descends: epochs, learning rate and seed change nothing.
    """

    closed = True
    standardised = True
    weight: Tensor
    bias: Tensor
    penalty: Tensor

    def __init__(self, settings: Train, **shapes: Any):
        super().__init__(settings, **shapes)
        self.register_buffer("weight", torch.zeros(self.labels, sum(self.widths.values())))
        self.register_buffer("bias", torch.zeros(self.labels))
        self.register_buffer("penalty", torch.zeros(()))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return tuple(settings.linear.views or [EVERY])

    def learn(self, features: Features, rows: Tensor) -> None:
        own = self.settings.linear
        best = self._ridge(features, rows).solve(list(self.widths), own.penalties)
        self.weight.copy_(best.weight)
        self.bias.copy_(best.bias)
        self.penalty.fill_(best.penalty)

    @classmethod
    def factorise(cls, settings: Train, features: Features, rows: Tensor) -> Ridge:
        """The ridge path over the features of the persons `rows`, for any set of the views."""
        names = expand(cls.views(settings), features.specs)
        widths = {name: features.width(name) for name in names}
        head = cls(settings, widths=widths, labels=len(features.labels), kind=features.kind)
        head.to(features.device).see.measure(features, rows)
        return head._ridge(features, rows)

    def _ridge(self, features: Features, rows: Tensor) -> Ridge:
        val = features.rows("val")
        if not len(val):
            raise DataError(
                "linear chooses its penalty on val, and the index has no val person: prepare data "
                "with a val split, or set train.head to another head"
            )
        own = self.settings.linear
        return Ridge(self.seen, list(self.widths), features, rows, val, own.components)

    def seen(self, name: str, batch: Batch) -> Float[Tensor, "B W"]:
        """(B, W) of one view."""
        return side_by_side(self.see, [name], batch)

    def logits(self, batch: Batch) -> Float[Tensor, "B C"]:
        return side_by_side(self.see, list(self.widths), batch) @ self.weight.T + self.bias

    def scores(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        if self.kind != "distribution":
            return logits
        above = logits.clamp(min=0) + 1e-6  # alike where all are below
        return above / above.sum(-1, keepdim=True)

    def loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        return (output.logits - batch.truth).square().mean()
