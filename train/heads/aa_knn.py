"""AA-kNN: what the persons most alike were said to feel (Geng, TKDE 2016)."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cache.errors import SettingsError
from train.data import EVERY, Batch, Features
from train.head import LabelHead, Output
from train.heads import register
from train.layers.inputs import Standardise
from train.layers.side_by_side import side_by_side
from train.settings import Train

AT_ONCE = 1024  # persons whose features are read in one pass
CHUNK = 8192  # training persons that a batch is compared with at once


@register("aa_knn")
class AaKnn(LabelHead):
    """p(x) = 1/k sum of the label vectors of the k training persons nearest to x.

    x: the views of the cache, or of `train.aa_knn.views`, side by side; objects count alike; near
    by Euclidean distance. Distributions are averaged into a distribution, single labels into votes,
    labels of which a person can have several into how many of the k have each.

    Departure from the paper: each feature is scaled to deviation 1 over train first, or views of
    large numbers alone would say who is near; `train.aa_knn.standardise: false` takes it back.

    Nothing is fitted: the training persons themselves are the head, so that its file is as large as
    their features in float32. A training person is its own nearest neighbour: the train loss says
    little. The losses count a label that no neighbour has as one in a million.
    """

    closed = True
    near: Tensor
    said: Tensor

    def __init__(self, settings: Train, *, persons: int = 0, **shapes: Any):
        super().__init__(settings, persons=persons, **shapes)
        self.see = Standardise(self.widths, settings.aa_knn.standardise)
        self.register_buffer("near", torch.zeros(persons, sum(self.widths.values())))
        self.register_buffer("said", torch.zeros(persons, self.labels))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return tuple(settings.aa_knn.views or [EVERY])

    def learn(self, features: Features, rows: Tensor) -> None:
        k = self.settings.aa_knn.k
        if k > len(rows):
            raise SettingsError(
                f"train.aa_knn.k {k} is more than the {len(rows)} training persons: set it to at "
                "most so many"
            )
        batches = features.batches(rows, AT_ONCE)
        self.near = torch.cat([self._seen(batch) for batch in batches])
        self.said = features.truth(rows).clone()
        self.spec["persons"] = len(rows)

    def neighbours(self, seen: Float[Tensor, "B W"]) -> Int[Tensor, "B k"]:
        """Places of the k nearest training persons, the nearest first; never more than B x `CHUNK`
        distances are held."""
        k = self.settings.aa_knn.k
        gaps = seen.new_zeros(seen.shape[0], 0)
        places = torch.zeros(seen.shape[0], 0, dtype=torch.long, device=seen.device)
        for start in range(0, len(self.near), CHUNK):
            some = self.near[start : start + CHUNK]
            # |x - y|^2 but for |x|^2, which is one number for all of them
            here = torch.addmm(some.square().sum(1), seen, some.T, alpha=-2)
            there = torch.arange(start, start + len(some), device=seen.device)
            gaps = torch.cat([gaps, here], 1)
            places = torch.cat([places, there.expand(seen.shape[0], -1)], 1)
            gaps, best = gaps.topk(min(k, gaps.shape[1]), dim=1, largest=False)
            places = places.gather(1, best)
        return places

    def forward(self, batch: Batch) -> Output:
        scores = self.said[self.neighbours(self._seen(batch))].mean(1)
        if self.kind == "multi":
            return Output(scores, scores.logit(1e-6))
        scores = scores / scores.sum(-1, keepdim=True).clamp(min=1e-6)
        return Output(scores, scores.clamp(min=1e-6).log())

    def _seen(self, batch: Batch) -> Float[Tensor, "B W"]:
        return side_by_side(self.see, list(self.widths), batch)
