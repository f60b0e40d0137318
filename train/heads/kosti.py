"""The fusion network of EMOTIC: the person beside the scene (Kosti et al., TPAMI 2020)."""

import torch
from torch import nn

from train.heads import register
from train.layers.label_head import SquaredHead
from train.settings import Train


@register("kosti")
class Kosti(SquaredHead):
    """y = W dropout(relu(batchnorm(fc [body; scene]))), 256 wide.

        L = sum_j w_j (y_j - t_j)^2,   w_j = 1 / ln(1.2 + p_j), scaled to sum 1

    p_j: how often label j occurs in train (the paper: in each batch), so that a person's loss does
    not hang on its neighbours. Two more departures: both backbones stay frozen, and no valence,
    arousal and dominance is predicted. Scores are y, which is no probability; data with a
    single label a person get the softmax and the cross-entropy.
    """

    def __init__(self, settings: Train, **shapes):
        super().__init__(settings, **shapes)
        own = settings.kosti
        self.fuse = nn.Sequential(
            nn.Linear(sum(self.widths.values()), own.hidden),
            nn.BatchNorm1d(own.hidden),
            nn.ReLU(),
            nn.Dropout(own.dropout),
            nn.Linear(own.hidden, self.labels),
        )

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return ("body", "scene")

    def logits(self, batch):
        return self.fuse(torch.cat([self.see("body", batch), self.see("scene", batch)], dim=-1))
