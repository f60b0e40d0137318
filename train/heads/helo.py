"""HeLo: distributions of emotions from two sides of modalities, by transport and by what labels
have to do with each other."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cache.errors import SettingsError
from cache.spec import ViewSpec
from train.data import EVERY, Batch, Features, expand, view_of
from train.head import LabelHead, Output
from train.heads import register
from train.layers.cross_attention import (
    Attention,
    CrossModal,
    EncoderLayer,
    expanded,
)
from train.layers.dropout import Dropout
from train.layers.inputs import mean_object
from train.layers.label_attention import LabelAttention, correlation, started
from train.layers.label_graph import cosine
from train.layers.transport import cosine_cost, cut, gromov, sinkhorn
from train.losses import classification
from train.settings import Train

SIDES = ("physiological", "behavioural")
CONTEXT = ("objects", "depth", "scene")  # the other side of a cache of pictures
COSINES = 2.0  # the greatest cost 1 - cosine


@register("helo")
class Helo(LabelHead):
    """HeLo.

        X_i = linear(x_i)                        n tokens of each modality i, 128 wide
        X_i' = LayerNorm(X_i + attention(X_i; the X_j of all others))       physiological alone
        P = LayerNorm(linear([X_1'; X_2'; ...])), Q of the other side       (n, 128), (m, 128)
        T = transport of P to Q                  sinkhorn: of 1 - cos(P_i, Q_j); or gromov
        P' = P + linear(n T Q), Q' = Q + linear(m T' P)
        Z = encoder([P'; Q'])                    one layer
        F_c = attention(query_c; Z)              a token a label
        G = LayerNorm(F + softmax(q(E) k(F)' / sqrt(d) + s R_learn) v(F))
        p = softmax(w_c . relu(W G_c) + b_c)
        L = KL(d || p) + alignment MSE(R_learn, R_data)

    E (C, 128) is a parameter, R_learn the cosine matrix of its rows, R_data the correlation of the
    label vectors of train. The loss on val is KL alone, so that it is the prediction by which the
    epoch is chosen; it is 0 where prediction and truth agree.

    Sides: `physiological` and `behavioural` below train.helo name views, and where they do not
    (null), views go by their role; those of no role to the first side, but for objects, depth,
    scene and other views of whole pictures, which are the context of a person. With a side empty
    there is no transport, with one physiological view no cross-attention; `notes` says so.

    Only the abstract is published. What it leaves open, and the setting (below train.helo):

    1. Widths, how many tokens, heads, rounds of transport and weights of the losses.
    2. Where a modality is missing (no face, no signal) its tokens are zeros that nobody attends to,
       and a side without any has no mass in the transport, whose plan then is zeros.
    3. Objects count alike, as their mean.
    4. gromov: costs within a side are 1 - cosine, cut off at their mean in the sample, below which
       all are 0; `rounds` gradient steps.
    5. What a label's token is, attention of a learned query to all tokens; and that the last layer
       has weights for each label, without which it learns much less from few persons.
    6. Labels of which a person can have several get a sigmoid and the binary cross-entropy; a
       single label is a distribution.

    `without`: cross, transport, encoder, alignment (the correlation loss), labels (label-driven
    attention, and with it E), distribution (independent sigmoids by binary cross-entropy, scaled
    to sum 1 afterwards).
    """

    may_differ = ("alignment", "dropout")
    data: Tensor
    weight: Tensor

    def __init__(self, settings: Train, *, sides: Mapping[str, Sequence[str]], **shapes: Any):
        super().__init__(settings, sides={name: list(sides[name]) for name in SIDES}, **shapes)
        own = settings.helo
        if self.kind == "multi" and "distribution" in own.without:
            raise SettingsError(
                "train.helo.without has distribution, but a person can have several of these "
                "labels, which are no distribution: leave it out"
            )
        self.sides = {name: tuple(sides[name]) for name in SIDES if sides[name]}
        count = dict(zip(SIDES, own.tokens, strict=True))
        self.tokens = nn.ModuleDict(
            {
                plain(name): nn.Linear(self.widths[name], count[side] * own.width)
                for side, names in self.sides.items()
                for name in names
            }
        )
        several = len(self.sides.get(SIDES[0], ()))
        self.cross = None
        if several > 1 and "cross" not in own.without:
            self.cross = CrossModal(several, own.width, own.heads)
        self.join = nn.ModuleDict(
            {
                side: nn.Sequential(
                    nn.Linear(len(names) * own.width, own.width), nn.LayerNorm(own.width)
                )
                for side, names in self.sides.items()
            }
        )
        self.couple = None
        if len(self.sides) == 2 and "transport" not in own.without:
            # No bias: where nothing is transported, nothing is added.
            self.couple = nn.ModuleList(nn.Linear(own.width, own.width, bias=False) for _ in SIDES)
        self.encoder = None
        if "encoder" not in own.without:
            self.encoder = EncoderLayer(own.width, own.heads, own.hidden, own.dropout)
        self.queries = nn.Parameter(torch.randn(self.labels, own.width))
        self.pool = Attention(own.width, own.heads)
        self.labelled = None
        if "labels" not in own.without:
            self.embedding = nn.Parameter(torch.randn(self.labels, own.width))
            self.labelled = LabelAttention(own.width)
        self.classify = nn.Sequential(
            nn.Linear(own.width, own.width), nn.ReLU(), Dropout(own.dropout)
        )
        self.last = nn.Parameter(torch.randn(self.labels, own.width) / own.width**0.5)
        self.bias = nn.Parameter(torch.zeros(self.labels))
        self.aligned = self.labelled is not None and "alignment" not in own.without
        self.register_buffer("data", torch.eye(self.labels))
        self.register_buffer("weight", torch.tensor(own.alignment), persistent=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What it goes without, since the features have none of it."""
        found = [
            f"no {side} view: one side alone, and nothing is transported"
            for side in SIDES
            if side not in self.sides
        ]
        if len(self.sides.get(SIDES[0], ())) == 1:
            found.append("one physiological view: there is no other to attend to")
        return tuple(found)

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        own = settings.helo
        named = [EVERY]
        if own.physiological is not None and own.behavioural is not None:
            named = [*own.physiological, *own.behavioural]
        return (*named, *(("labels",) if _reads_text(settings) else ()))

    @classmethod
    def shapes(cls, settings: Train, features: Features) -> dict[str, Any]:
        own = settings.helo
        if own.physiological is not None and own.behavioural is not None:
            return {"sides": {SIDES[0]: own.physiological, SIDES[1]: own.behavioural}}
        names = expand((EVERY,), features.specs)
        sides = {name: side_of(features.specs[view_of(name)]) for name in names}
        return {"sides": {side: [n for n in names if sides[n] == side] for side in SIDES}}

    def learn(self, features: Features, rows: Tensor) -> None:
        own = self.settings.helo
        self.data.copy_(correlation(features.truth(rows), own.correlation))
        if self.labelled is not None and _reads_text(self.settings):
            self.embedding.copy_(started(features.label_views["labels"], own.width))

    def forward(self, batch: Batch) -> Output:
        tokens, masks = [], []
        for side in self.sides:
            some, mask = self._side(side, batch)
            tokens.append(some)
            masks.append(mask)
        plan = None
        if self.couple is not None:
            plan = self.transport(*tokens, *masks)
            tokens = self._coupled(plan, *tokens)
        joined, mask = torch.cat(tokens, dim=1), torch.cat(masks, dim=1)
        if self.encoder is not None:
            joined = self.encoder(joined, mask)
        found = self.pool(self.queries, joined, mask)
        if self.labelled is not None:
            found = self.labelled(self.embedding, found)
        logits = (self.classify(found) * self.last).sum(-1) + self.bias
        return Output(self.scores(logits), logits, transport=plan)

    def _side(self, side: str, batch: Batch) -> tuple[Float[Tensor, "B n D"], Bool[Tensor, "B n"]]:
        """The tokens of a side, and in which samples it has any."""
        tokens, there = [], []
        for name in self.sides[side]:
            values, present = self._seen(name, batch)
            some = self.tokens[plain(name)](values).unflatten(-1, (-1, self.settings.helo.width))
            tokens.append(some * present[:, None, None])
            there.append(present)
        if side == SIDES[0] and self.cross is not None:
            tokens = [
                some * present[:, None, None]
                for some, present in zip(self.cross(tokens, there), there, strict=True)
            ]
        some = self.join[side](torch.cat(tokens, dim=-1))
        return some, expanded(torch.stack(there).any(0), some)

    def _seen(self, name: str, batch: Batch) -> tuple[Float[Tensor, "B W"], Bool[Tensor, " B"]]:
        """A view's features, and which samples have it."""
        values, mask = self.see(name, batch), batch.views[view_of(name)].get("mask")
        if mask is None:
            return values, torch.ones_like(values[:, 0], dtype=torch.bool)
        if mask.ndim == 1:
            return values, mask
        return mean_object(values, mask), mask.any(1)

    def transport(
        self,
        first: Float[Tensor, "B n D"],
        other: Float[Tensor, "B m D"],
        first_mask: Bool[Tensor, "B n"],
        other_mask: Bool[Tensor, "B m"],
    ) -> Float[Tensor, "B n m"]:
        """T between the tokens of both sides; zeros where a side is absent."""
        own = self.settings.helo
        a, b = (
            mask.to(some.dtype) / some.shape[1]
            for some, mask in ((first, first_mask), (other, other_mask))
        )
        least = 1 / (first.shape[1] * other.shape[1])  # masses are even, or 0
        if own.transport == "sinkhorn":
            cost = cosine_cost(first, other)
            return sinkhorn(cost, own.epsilon, own.steps, a, b, COSINES, least)
        within = cut(cosine_cost(first, first), first_mask)
        beside = cut(cosine_cost(other, other), other_mask)
        return gromov(within, beside, own.epsilon, own.rounds, own.steps, a, b, least)

    def _coupled(
        self,
        plan: Float[Tensor, "B n m"],
        first: Float[Tensor, "B n D"],
        other: Float[Tensor, "B m D"],
    ) -> list[Float[Tensor, "B _ D"]]:
        """Each token and what the plan brings it from the other side."""
        assert self.couple is not None
        to_first, to_other = self.couple
        n, m = plan.shape[1:]
        return [first + to_first(n * plan @ other), other + to_other(m * plan.mT @ first)]

    def scores(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        if "distribution" not in self.settings.helo.without:
            return super().scores(logits)
        apart = logits.sigmoid()
        return apart / apart.sum(-1, keepdim=True).clamp(min=1e-12)

    def loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        """KL, the binary cross-entropy where a person can have several labels or without
        `distribution`; in training with the correlation loss."""
        if self.kind == "multi" or "distribution" in self.settings.helo.without:
            fits = classification(output.scores, output.logits, batch.truth, "bce")
        else:
            fits = divergence(output.logits, batch.truth)
        if not (self.aligned and self.training):
            return fits
        return fits + self.weight * (cosine(self.embedding) - self.data).square().mean()

    @torch.no_grad()
    def graphs(self) -> Mapping[str, Float[Tensor, "C C"]]:
        """R_data as "data", and R_learn as "learned" where there is E."""
        learned = {} if self.labelled is None else {"learned": cosine(self.embedding)}
        return {**learned, "data": self.data}


def side_of(spec: ViewSpec) -> str:
    """The side of a view, where the settings name none: see `Helo`."""
    role = spec.facts.get("role")
    if role is None:
        return SIDES[spec.name in CONTEXT or spec.space == "pictures"]
    return SIDES[role == SIDES[1]]


def divergence(logits: Float[Tensor, "B C"], target: Float[Tensor, "B C"]) -> Float[Tensor, ""]:
    """KL(d || softmax of the logits), mean over the batch; d: the label vector scaled to sum 1."""
    share = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
    return (torch.xlogy(share, share) - share * logits.log_softmax(-1)).sum(-1).mean()


def plain(name: str) -> str:
    """A view's name as that of a layer."""
    return name.replace(".", "_")


def _reads_text(settings: Train) -> bool:
    return settings.helo.start == "text" and "labels" not in settings.helo.without
