"""RRLA: body, objects and labels by their relations (Li, Dong, Wang)."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.data import Batch, Features
from train.head import Output, SquaredHead
from train.heads import register
from train.layers.body_attention import ChannelGate
from train.layers.inputs import mean_object
from train.layers.label_classifiers import LabelClassifiers, reweighted
from train.layers.object_attention import BodyObjectAttention, geometry
from train.settings import Train


@register("rrla")
class Rrla(SquaredHead):
    """RRLA.

        B_A = gate(f_s) f_s                                       BPA, channels of the body
        O_B = sum_m w^m O_A^m, w = softmax(w_A + log w_G)         BOA, 16 times, projected
        F = [B_A; W3 O_B]
        H = GCN(word vectors, A), y = H F                         ELD
        L = sum_j w_j (y_j - t_j)^2, w_j = 1 / ln(1.2 + p_j)

    Departures from the paper, and the setting (below train.rrla) that takes each back:

    1. Each of the 16 attentions gives 128 numbers of an object, so that together they are as wide
       as the body; the paper's sums of whole objects need 16 times the weights. `values: 0`.
    2. Objects are the detector's region features, as in the paper, where the detector has any
       (`regions: region`), else the backbone's on the region (`features`).
    3. Label vectors are the view `words`; `words: labels` takes the text encoder's definitions.
    4. p_j is counted over train, not over each batch.
    5. Data with a single label a person get the cross-entropy, as in the paper, which then goes
       without ELD (`without: [eld]`). For multi-label data scores are y, which is no probability.

    `without`: boa (objects count alike), geometry (w_G), bpa, eld (a linear layer), objects.
    The paper fits with `train.optimizer: sgd`, lr 0.01, momentum 0.9, batch 200.
    """

    text: Tensor
    adjacency: Tensor

    def __init__(self, settings: Train, *, text_width: int, **shapes: Any):
        super().__init__(settings, text_width=text_width, **shapes)
        own = settings.rrla
        body = self.widths["body"]
        self.objects = next((name for name in self.widths if name.startswith("objects")), None)
        self.gate = nn.Identity() if "bpa" in own.without else ChannelGate(body, own.squeeze)
        self.attention = self.join = None
        if self.objects is not None:
            width = self.widths[self.objects]
            if "boa" not in own.without:
                self.attention = BodyObjectAttention(
                    width, body, own.heads, own.width, own.values, "geometry" not in own.without
                )
                width = body
            self.join = nn.Linear(width, body)
        fused = body if self.join is None else 2 * body
        self.graph = self.linear = None
        if text_width:
            self.graph = LabelClassifiers(text_width, own.graph_width, fused)
            self.register_buffer("text", torch.zeros(self.labels, text_width))
            self.register_buffer("adjacency", torch.eye(self.labels))
        else:
            self.linear = nn.Linear(fused, self.labels)

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        own = settings.rrla
        objects = ("objects.region",) if own.regions == "region" else ("objects",)
        return (
            "body",
            *(() if "objects" in own.without else objects),
            *(() if "eld" in own.without else (own.words,)),
        )

    @classmethod
    def shapes(cls, settings: Train, features: Features) -> dict[str, Any]:
        if "eld" in settings.rrla.without:
            return {"text_width": 0}
        return {"text_width": features.label_views[settings.rrla.words].shape[1]}

    def learn(self, features: Features, rows: Tensor) -> None:
        own = self.settings.rrla
        super().learn(features, rows)
        if self.graph is not None:
            self.text.copy_(features.label_views[own.words])
            self.adjacency.copy_(reweighted(features.truth(rows), own.threshold, own.share))

    def fuse(self, batch: Batch) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B k"] | None]:
        """F (B, W), and the weights of the objects (B, k), mean over the attentions."""
        body = self.gate(self.see("body", batch))
        if self.objects is None or self.join is None:
            return body, None
        values, mask = self.see(self.objects, batch), batch.views["objects"]["mask"]
        if self.attention is None:
            objects = mean_object(values, mask)
            weights = mask.float() / mask.sum(1, keepdim=True).clamp(min=1)
        else:
            where = geometry(batch.box, batch.views["objects"]["box"])
            objects, weights = self.attention(values, mask, body, where)
        return torch.cat([body, self.join(objects)], dim=-1), weights

    def forward(self, batch: Batch) -> Output:
        fused, weights = self.fuse(batch)
        if self.graph is not None:
            logits = fused @ self.graph(self.text, self.adjacency).T
        else:
            assert self.linear is not None  # one of the two
            logits = self.linear(fused)
        gate = None if self.training else self.channels(batch)
        return Output(self.scores(logits), logits, weights, gate=gate)

    def channels(self, batch: Batch) -> Float[Tensor, "B W"] | None:
        """BPA's weight of each channel of the body, from 0 to 1; None without it."""
        if not isinstance(self.gate, ChannelGate):
            return None
        return self.gate.gate(self.see("body", batch))

    def graphs(self) -> Mapping[str, Float[Tensor, "C C"]]:
        return {} if self.graph is None else {"cooccurrence": self.adjacency}
