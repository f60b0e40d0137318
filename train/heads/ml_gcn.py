"""Classifiers out of a label graph, after ML-GCN (Chen et al., CVPR 2019)."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from train.data import Batch, Features
from train.head import LabelHead
from train.heads import register
from train.layers.label_classifiers import LabelClassifiers, reweighted
from train.settings import Train


@register("ml_gcn")
class MlGcn(LabelHead):
    """z = H x, H = GCN(label features, A): the graph gives each label's linear classifier.

    A: P(j | i) in train, binarised at 0.4 and re-weighted with p = 0.2. x: `train.ml_gcn.views`
    side by side (the paper: one picture through one network that is trained as well).
    """

    text: Tensor
    adjacency: Tensor

    def __init__(self, settings: Train, *, text_width: int, **shapes: Any):
        super().__init__(settings, text_width=text_width, **shapes)
        own = settings.ml_gcn
        self.graph = LabelClassifiers(text_width, own.hidden, sum(self.widths.values()))
        self.register_buffer("text", torch.zeros(self.labels, text_width))
        self.register_buffer("adjacency", torch.eye(self.labels))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return (*settings.ml_gcn.views, settings.ml_gcn.words)

    @classmethod
    def shapes(cls, settings: Train, features: Features) -> dict[str, Any]:
        return {"text_width": features.label_views[settings.ml_gcn.words].shape[1]}

    def learn(self, features: Features, rows: Tensor) -> None:
        own = self.settings.ml_gcn
        self.text.copy_(features.label_views[own.words])
        self.adjacency.copy_(reweighted(features.truth(rows), own.threshold, own.share))

    def logits(self, batch: Batch) -> Float[Tensor, "B C"]:
        seen = torch.cat([self.see(name, batch) for name in self.widths], dim=-1)
        return seen @ self.graph(self.text, self.adjacency).T

    def graphs(self) -> Mapping[str, Float[Tensor, "C C"]]:
        return {"cooccurrence": self.adjacency}
