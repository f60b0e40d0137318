"""HugMe: the subject, its face, the objects around it, depth and scene, under a label graph."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cache.errors import SettingsError
from train import head
from train.data import Batch, Features
from train.heads import register
from train.labels import LabelKind
from train.layers import darn
from train.layers.classifier import TwoViewClassifier, combine
from train.layers.inputs import Standardise
from train.layers.label_graph import GraphOutput, LabelGraph, cooccurrence
from train.losses import classification, double_constraint
from train.settings import HugMe as HugMeSettings
from train.settings import Train

PARTS = ("body", "head", "objects", "depth", "scene")  # the order of f_I
GRAPHS = ("similarity", "cooccurrence")  # the order of H
Scale = Literal["sigmoid", "softmax", "literal"]
LossKind = Literal["bce", "cross_entropy", "squared"]
LOSS_OF: dict[Scale, LossKind] = {
    "sigmoid": "bce",
    "softmax": "cross_entropy",
    "literal": "squared",
}


@dataclass(frozen=True)
class Output(head.Output):
    """scores: p; logits: what p was made from (p itself in the literal form);
    attention: DARN's alpha, zero for padded objects; graphs: of HEGL, None without it."""

    graphs: GraphOutput | None = None


@register("hugme")
class HugMe(nn.Module):
    """HugMe.

        alpha = softmax(1 / dist)           F_o = [visual; emb(class)]     f_o = sum alpha F_o
        f_I = [f_s; f_h; f_o; f_d; f_g]     body, head, objects, depth, scene
        H0 = project(label definitions)     A^h = relu(cos(H0, H0))        A^o_ij = O_ij / m_i
        H = [GCN2(H0, A^h); GCN2(H0, A^o)]
        z1 = MLP(f_I)                       z2 = fc(f_I) . H^T
        p = output(beta z1 + (1 - beta) z2)
        L = lambda L_C + (1 - lambda) L_DC

    Departures from the paper, and the setting (below train.hugme) that takes each back:

    1. Distance is between centres, in picture diagonals. The paper's corner distance in pixels
       hardly attends. On 148 subjects of COCO with 2 to 10 annotated objects around them, the
       entropy of alpha is 0.9999 to 1.0000 of that of equal weights (5th to 95th percentile) and
       the strongest object has 1.01 times an equal share (median); with the default these are
       0.00 to 0.87 (median 0.20) and 7.3 times. `darn.distance: corner`, `darn.unit: pixel`.
    2. A distance below one pixel counts as one pixel, so that 1 / dist is finite.
    3. The two views are mixed before the output function, not after: beta softmax(z1) +
       (1 - beta) z2 adds an unbounded product to a probability, and a softmax over labels cannot
       reach 1 for two labels at once. Sigmoid when persons can have several labels, softmax when
       each has one. `output: literal`.
    4. L_C is the binary cross-entropy (sigmoid), the cross-entropy (softmax), or the squared error
       (literal, where p is no probability). `loss`.
    5. f_d is the pooled depth features and the shrunk map, the map shifted and scaled to mean 0
       and deviation 1 by itself, since MiDaS predicts depth up to an unknown shift and scale.
    6. f_h is zeros where no face was found.
    7. A^h and A^o have 1 on the diagonal and no second self-loop; A^o is not symmetric, and D in
       D^-1/2 A D^-1/2 is its row sum. Convolutions have no bias.
    8. H0 is learned, so A^h moves with it; in L_DC both A are targets, without gradient.
    9. Without one label graph, H is the other's half and L_DC its one term; without HEGL, p comes
       from z1 alone and L is L_C.

    train.standardise shifts and scales visual features by their mean and deviation over train.
    """

    closed = False
    may_differ = ("beta", "lambda_c", "dropout", "without")
    text: Tensor
    together: Tensor
    beta: Tensor
    lambda_c: Tensor
    even: Tensor
    columns: Tensor
    nodes: Tensor
    terms: Tensor

    def __init__(
        self,
        settings: Train,
        *,
        widths: dict[str, int],
        classes: int,
        labels: int,
        text_width: int,
        output: Scale,
        wide: bool = False,
    ):
        super().__init__()
        own = settings.hugme
        self.spec: dict[str, Any] = {
            "widths": widths,
            "classes": classes,
            "labels": labels,
            "text_width": text_width,
            "output": output,
        }
        self.asked, self.settings, self.output, self.wide = settings, own, output, wide
        self.loss_kind = _loss_kind(own, output)
        self.parts = PARTS if wide else _parts(own)
        graphs = GRAPHS if wide else _graphs(own)
        self.see = Standardise({part: widths[part] for part in self.parts}, settings.standardise)
        fused = sum(widths[part] for part in self.parts)
        learned = (0, 0)  # the columns of f_I that are not cached: emb(class)
        if "objects" in self.parts:
            self.embedding = nn.Embedding(max(classes, 1), own.object_embedding)
            before = PARTS[: PARTS.index("objects") + 1]
            start = sum(widths[part] for part in self.parts if part in before)
            learned = (start, start + own.object_embedding)
            fused += own.object_embedding
        if "depth" in self.parts:
            fused += widths["depth_map"]
        self.hegl = None
        if graphs:
            self.hegl = LabelGraph(text_width, own.label_width, own.graph_width // 2, graphs)
            self.register_buffer("text", torch.zeros(labels, text_width))
            self.register_buffer("together", torch.eye(labels))
        graph_width = self.hegl.width if self.hegl else 0
        self.mvec = TwoViewClassifier(fused, own.hidden, labels, graph_width, own.dropout, learned)
        self._switches(fused, graph_width)

    def _switches(self, fused: int, graph_width: int) -> None:
        """What heads in step may differ in, as buffers: see `stretched`."""
        own, graphs = self.settings, _graphs(self.settings)
        has = (
            {"beta": own.beta, "lambda_c": own.lambda_c}
            if graphs
            else {"beta": 1.0, "lambda_c": 1.0}
        )
        switches = {name: torch.tensor([share, 1 - share]) for name, share in has.items()}
        switches["even"] = torch.tensor("darn" in own.without)
        if self.wide:
            switches["columns"] = torch.zeros(fused)
            switches["columns"][self._columns(_parts(own))] = 1
            switches["nodes"] = torch.zeros(graph_width)
            switches["nodes"][self._nodes(graphs)] = 1
            switches["terms"] = torch.tensor([float(name in graphs) for name in GRAPHS])
        for name, value in switches.items():
            self.register_buffer(name, value, persistent=False)

    def _columns(self, parts: Sequence[str]) -> Tensor:
        """Where these parts stand in the f_I of this head."""
        widths = {part: self.spec["widths"][part] for part in self.parts}
        if "objects" in widths:
            widths["objects"] += self.settings.object_embedding
        if "depth" in widths:
            widths["depth"] += self.spec["widths"]["depth_map"]
        spans = torch.arange(sum(widths.values())).split(list(widths.values()))
        return torch.cat([span for part, span in zip(widths, spans, strict=True) if part in parts])

    def _nodes(self, graphs: Sequence[str]) -> Tensor:
        """Where these label graphs stand in the H of this head."""
        if self.hegl is None:
            return torch.arange(0)
        spans = torch.arange(self.hegl.width).split(self.settings.graph_width // 2)
        there = zip(self.hegl.branches, spans, strict=True)
        return torch.cat([torch.arange(0), *(span for name, span in there if name in graphs)])

    @torch.no_grad()
    def stretched(self, features: Features, rows: Tensor) -> "HugMe":
        """This head in the shape of one without ablations, so that heads of all ablations go in
        step: parameters that it has not are zeros, and switches keep them so."""
        wide = type(self).setup(self.asked, features, rows, wide=True)
        for parameter in wide.parameters():
            parameter.zero_()
        for name, parameter in self.named_parameters():
            wide.get_parameter(name)[self._place(name, wide)] = parameter
        return wide

    def shrunk(self, state: Mapping[str, Tensor], wide: "HugMe") -> dict[str, Tensor]:
        """The state dict of this head out of that of its stretched self."""
        own = dict(self.named_parameters())
        return {
            name: state[name][self._place(name, wide)] if name in own else state[name]
            for name in self.state_dict()
        }

    def _place(self, name: str, wide: "HugMe") -> tuple[Tensor | slice, ...]:
        """Where a parameter of this head lies in that of its stretched self."""
        columns, nodes = wide._columns(self.parts), wide._nodes(_graphs(self.settings))
        places: dict[str, tuple[Tensor | slice, ...]] = {
            "mvec.mlp.0.weight": (slice(None), columns),
            "mvec.fc.weight": (nodes[:, None], columns),
            "mvec.fc.bias": (nodes,),
        }
        return places.get(name, (slice(None),))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        """The views it reads: those of its parts, and the labels' definitions for HEGL."""
        graphs = _graphs(settings.hugme)
        return (*_parts(settings.hugme), *(("labels",) if graphs else ()))

    @classmethod
    def setup(
        cls, settings: Train, features: Features, rows: Tensor, wide: bool = False
    ) -> "HugMe":
        """A new head; co-occurrence and standardisation come from the train rows alone. wide: see
        `stretched`."""
        parts = PARTS if wide else _parts(settings.hugme)
        views = (*PARTS, "labels") if wide else cls.views(settings)
        features.require(views, "hugme")
        widths = {part: features.width(part) for part in parts}
        if "depth" in parts:
            widths["depth_map"] = features.views["depth"]["map"][0].numel()
        text = features.label_views.get("labels") if "labels" in views else None
        head = cls(
            settings,
            widths=widths,
            classes=len(features.classes),
            labels=len(features.labels),
            text_width=0 if text is None else text.shape[1],
            output=_output(settings.hugme, features.kind),
            **({"wide": True} if wide else {}),
        ).to(features.device)
        if text is not None and head.hegl is not None:
            head.text.copy_(text)
            head.together.copy_(cooccurrence(features.truth(rows)))
        head.see.measure(features, rows)
        return head

    def forward(self, batch: Batch) -> Output:
        fused, attention = self.fuse(batch)
        graphs = self.hegl(self.text, self.together) if self.hegl is not None else None
        nodes = None if graphs is None else graphs.nodes
        if self.wide and nodes is not None:
            fused, nodes = fused * self.columns, nodes * self.nodes
        first, second = self.mvec(fused, nodes)
        scores, logits = combine(first, second, self.beta, self.output)
        return Output(scores, logits, attention, graphs=graphs)

    def fuse(self, batch: Batch) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B k"] | None]:
        """f_I, and DARN's weights where objects are part of it."""
        attention = None
        found = []
        for part in self.parts:
            values = self.see(part, batch)
            if part == "objects":
                attention = self._attention(batch)
                named = self.embedding(batch.views[part]["label"].clamp(min=0))
                values = darn.attend(attention, torch.cat([values, named], dim=-1))
            found.append(values)
            if part == "depth":
                found.append(_own_scale(batch.views[part]["map"].flatten(1)))
        return torch.cat(found, dim=-1), attention

    def loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        """L = lambda L_C + (1 - lambda) L_DC, or L_C where there is no label graph."""
        main = classification(output.scores, output.logits, batch.truth, self.loss_kind)
        graphs = output.graphs
        if graphs is None:
            return main
        pairs = [(graphs.outputs[name], graphs.adjacencies[name]) for name in graphs.outputs]
        return self.lambda_c[0] * main + self.lambda_c[1] * double_constraint(
            pairs, self.terms if self.wide else None
        )

    @torch.no_grad()
    def graphs(self) -> dict[str, Tensor]:
        """A^h as "similarity" and A^o as "cooccurrence", (C, C), as far as it has them."""
        return {} if self.hegl is None else self.hegl(self.text, self.together).adjacencies

    def _attention(self, batch: Batch) -> Float[Tensor, "B k"]:
        objects, own = batch.views["objects"], self.settings
        distance = darn.distances(
            batch.box, objects["box"], batch.diagonal, own.darn.distance, own.darn.unit
        )
        return darn.weights(distance, objects["mask"], self.even)


def _parts(settings: HugMeSettings) -> tuple[str, ...]:
    left = tuple(part for part in PARTS if part not in settings.without)
    if not left:
        raise SettingsError(f"train.hugme.without leaves nothing to see: keep one of {PARTS}")
    return left


def _graphs(settings: HugMeSettings) -> tuple[str, ...]:
    if "hegl" in settings.without:
        return ()
    return tuple(graph for graph in GRAPHS if graph not in settings.without)


def _output(settings: HugMeSettings, kind: LabelKind) -> Scale:
    if settings.output != "auto":
        return settings.output
    return "sigmoid" if kind == "multi" else "softmax"


def _loss_kind(settings: HugMeSettings, output: Scale) -> LossKind:
    kind = LOSS_OF[output] if settings.loss == "auto" else settings.loss
    if kind not in ("squared", LOSS_OF[output]):
        raise SettingsError(
            f"train.hugme.loss {kind} does not go with the output {output}: set it to "
            f"{LOSS_OF[output]}, squared or auto"
        )
    return kind


def _own_scale(maps: Float[Tensor, "B G"]) -> Float[Tensor, "B G"]:
    """Each map with mean 0 and deviation 1; zeros for a flat one."""
    centred = maps - maps.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True).sqrt() + 1e-6)
