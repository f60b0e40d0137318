"""Classifiers out of a label graph, after ML-GCN (Chen et al., CVPR 2019)."""

import torch
from torch import Tensor

from train.heads import register
from train.layers.label_graph import DependentLabels, conditional
from train.layers.label_head import LabelHead
from train.settings import Train


@register("ml_gcn")
class MlGcn(LabelHead):
    """z = H x, H = GCN(label features, A): the graph gives each label's linear classifier.

    A: P(j | i) in train, binarised at 0.4 and re-weighted with p = 0.2. x: `train.ml_gcn.views`
    side by side (the paper: one picture through one network that is trained as well).
    """

    text: Tensor
    adjacency: Tensor

    def __init__(self, settings: Train, *, text_width: int, **shapes):
        super().__init__(settings, text_width=text_width, **shapes)
        own = settings.ml_gcn
        self.graph = DependentLabels(text_width, own.hidden, sum(self.widths.values()))
        self.register_buffer("text", torch.zeros(self.labels, text_width))
        self.register_buffer("adjacency", torch.eye(self.labels))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return (*settings.ml_gcn.views, settings.ml_gcn.words)

    @classmethod
    def shapes(cls, settings, features):
        return {"text_width": features.label_views[settings.ml_gcn.words].shape[1]}

    def learn(self, features, rows):
        own = self.settings.ml_gcn
        self.text.copy_(features.label_views[own.words])
        self.adjacency.copy_(conditional(features.truth(rows), own.threshold, own.share))

    def logits(self, batch):
        seen = torch.cat([self.see(name, batch) for name in self.widths], dim=-1)
        return seen @ self.graph(self.text, self.adjacency).T

    def graphs(self):
        return {"cooccurrence": self.adjacency}
