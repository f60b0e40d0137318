"""A plain network on the views side by side: what the structure of other heads has to beat."""

from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from train.data import EVERY, Batch
from train.head import LabelHead
from train.heads import register
from train.layers.dropout import Dropout
from train.layers.side_by_side import side_by_side
from train.settings import Train


@register("mlp")
class Mlp(LabelHead):
    """z = MLP([body; head; mean object; depth; scene]), two hidden ReLU layers with dropout: early
    fusion of all views of the cache, or of those of `train.mlp.views`. Objects count alike,
    whatever their distance.
    """

    may_differ = ("dropout",)

    def __init__(self, settings: Train, **shapes: Any):
        super().__init__(settings, **shapes)
        own = settings.mlp
        widths = [sum(self.widths.values()), *own.hidden]
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), Dropout(own.dropout)]
        self.net = nn.Sequential(*layers, nn.Linear(widths[-1], self.labels))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return tuple(settings.mlp.views or [EVERY])

    def logits(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self.net(side_by_side(self.see, list(self.widths), batch))
