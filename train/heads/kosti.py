"""The fusion network of EMOTIC: the person beside the scene (Kosti et al., TPAMI 2020)."""

import torch
from torch import Tensor, nn

from train.heads import register
from train.layers.label_head import LabelHead, Output
from train.losses import label_weights, weighted_squared
from train.settings import Train


@register("kosti")
class Kosti(LabelHead):
    """y = W dropout(relu(batchnorm(fc [body; scene]))), 256 wide.

        L = sum_j w_j (y_j - t_j)^2,   w_j = 1 / ln(1.2 + p_j), scaled to sum 1

    p_j: how often label j occurs in train (the paper: in each batch), so that a person's loss does
    not hang on its neighbours. Two more departures: both backbones stay frozen, and no valence,
    arousal and dominance is predicted. Scores are y, which is no probability; data with a
    single label a person get the softmax and the cross-entropy.
    """

    weights: Tensor

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
        self.register_buffer("weights", torch.full((self.labels,), 1 / self.labels))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return ("body", "scene")

    def learn(self, features, rows):
        self.weights.copy_(label_weights(features.truth(rows)))

    def logits(self, batch):
        return self.fuse(torch.cat([self.see("body", batch), self.see("scene", batch)], dim=-1))

    def forward(self, batch):
        found = super().forward(batch)
        return Output(found.logits, found.logits) if self.kind == "multi" else found

    def loss(self, output, target):
        if self.kind != "multi":
            return super().loss(output, target)
        return weighted_squared(output.logits, target, self.weights)
