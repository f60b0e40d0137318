"""Face and context weighed against each other, after CAER-Net-S (Lee et al., ICCV 2019)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.data import Batch
from train.head import LabelHead
from train.heads import register
from train.layers.dropout import Dropout
from train.settings import Train


@register("caer_net")
class CaerNet(LabelHead):
    """[a_F; a_C] = softmax([g_F(x_F); g_C(x_C)])     z = MLP([a_F x_F; a_C x_C])

    x_F: the head view, x_C: the scene; g: two layers to one number. The paper trains two small
    convolutional networks and hides the face from the context stream; here both streams are frozen
    features, and the scene shows the face. Without a face the context has all the weight.
    """

    may_differ = ("dropout",)

    def __init__(self, settings: Train, **shapes: Any):
        super().__init__(settings, **shapes)
        own = settings.caer_net
        self.weigh = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(width, own.hidden), nn.ReLU(), nn.Linear(own.hidden, 1)
                )
                for name, width in self.widths.items()
            }
        )
        self.classify = nn.Sequential(
            nn.Linear(sum(self.widths.values()), own.hidden),
            nn.ReLU(),
            Dropout(own.dropout),
            nn.Linear(own.hidden, self.labels),
        )

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return ("head", "scene")

    def attend(self, batch: Batch) -> Float[Tensor, "B 2"]:
        """Weights of face and context, (B, 2), which sum to 1."""
        pulls = torch.cat([self.weigh[n](self.see(n, batch)) for n in self.widths], dim=-1)
        faceless = ~batch.views["head"]["mask"]
        mask = torch.stack([faceless, torch.zeros_like(faceless)], dim=-1)
        return pulls.masked_fill(mask, -torch.inf).softmax(-1)

    def logits(self, batch: Batch) -> Float[Tensor, "B C"]:
        weights = self.attend(batch)
        streams = [self.see(name, batch) for name in self.widths]
        return self.classify(
            torch.cat([w[:, None] * x for w, x in zip(weights.T, streams, strict=True)], dim=-1)
        )
