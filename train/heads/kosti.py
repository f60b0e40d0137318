"""The fusion network of EMOTIC: the person beside the scene (Kosti et al., TPAMI 2020)."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cache.errors import SettingsError
from train.data import Batch, Features
from train.head import Output, SquaredHead
from train.heads import register
from train.layers.dropout import Dropout
from train.losses import continuous
from train.settings import Train


@register("kosti")
class Kosti(SquaredHead):
    """Labels y and valence, arousal and dominance v from one fused layer, 256 wide.

        f = dropout(relu(batchnorm(fc [body; scene])))      y = W f      v = m + s V f
        L = (1 - c) L_disc + c L_cont                       c = continuous
        L_disc = sum_j w_j (y_j - t_j)^2,   w_j = 1 / ln(1.2 + p_j), scaled to sum 1
        L_cont = mean ((v - r) / s)^2 over the dimensions r that were rated

    Departures from the paper: p_j, how often label j occurs, is counted over train, not in each
    batch, so that a person's loss does not hang on its neighbours; m and s, mean and deviation of
    the ratings over train, put both losses on one scale; both backbones stay frozen. Where nobody
    was rated, or with `continuous: 0`, L is L_disc. Scores are y, which is no probability; data
    with a single label a person get the softmax and the cross-entropy.
    """

    may_differ = ("dropout",)
    mean: Tensor  # of valence, arousal, dominance over train
    deviation: Tensor

    def __init__(self, settings: Train, *, rated: bool, **shapes: Any):
        super().__init__(settings, rated=rated, **shapes)
        own = settings.kosti
        self.fuse = nn.Sequential(
            nn.Linear(sum(self.widths.values()), own.hidden),
            nn.BatchNorm1d(own.hidden),
            nn.ReLU(),
            Dropout(own.dropout),
        )
        self.of_labels = nn.Linear(own.hidden, self.labels)
        self.of_vad = nn.Linear(own.hidden, 3) if rated else None
        if rated:
            self.register_buffer("mean", torch.zeros(3))
            self.register_buffer("deviation", torch.ones(3))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return ("body", "scene")

    @classmethod
    def shapes(cls, settings: Train, features: Features) -> dict[str, Any]:
        train = None if features.vad is None else features.vad[features.rows("train")]
        known = train is not None and bool((~train.isnan()).any(0).all())
        return {"rated": known and settings.kosti.continuous > 0}

    def learn(self, features: Features, rows: Tensor) -> None:
        if len(rows) % self.settings.batch == 1:  # of one person there is no deviation
            raise SettingsError(
                f"train.batch {self.settings.batch} leaves a last batch of one person of "
                f"{len(rows)}, and batch normalisation needs two: set it to another number"
            )
        super().learn(features, rows)
        if self.of_vad is not None and features.vad is not None:
            rated = features.vad[rows]
            self.mean.copy_(rated.nanmean(0))
            self.deviation.copy_((rated - self.mean).square().nanmean(0).sqrt().clamp(min=1e-6))

    def forward(self, batch: Batch) -> Output:
        fused = self.fuse(torch.cat([self.see("body", batch), self.see("scene", batch)], dim=-1))
        logits = self.of_labels(fused)
        vad = None
        if self.of_vad is not None:
            vad = self.mean + self.deviation * self.of_vad(fused)
        return Output(self.scores(logits), logits, vad=vad)

    def loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        labels = super().loss(output, batch)
        if output.vad is None or batch.vad is None:
            return labels
        share = self.settings.kosti.continuous
        apart = continuous(output.vad / self.deviation, batch.vad / self.deviation)
        return (1 - share) * labels + share * apart
