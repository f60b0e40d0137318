"""What a head is, and what most of them share: views in, logits out, scores and loss by the kind of
labels. A head of one's own: docs/heads.md."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.data import Batch, Features, array_of, expand, view_of
from train.labels import LabelKind
from train.layers.inputs import Standardise
from train.losses import classification, label_weights, weighted_squared
from train.settings import Train


@dataclass(frozen=True)
class Output:
    """scores: probabilities, or what the head calls its scores; logits: what they were made from;
    attention: of the objects, None where none are weighed; vad: valence, arousal and dominance in
    the annotation's units, None where they are not predicted; transport: the plan between the
    tokens of two modalities, None for a head that transports nothing; gate: of each channel of the
    body, what it is multiplied with, from 0 to 1, None for a head without, and in training."""

    scores: Float[Tensor, "B C"]
    logits: Float[Tensor, "B C"]
    attention: Float[Tensor, "B k"] | None = None
    vad: Float[Tensor, "B 3"] | None = None
    transport: Float[Tensor, "B n m"] | None = None
    gate: Float[Tensor, "B W"] | None = None


class Head(Protocol):
    """What `fit`, `save_head` and `open_head` need; a head is a torch Module besides.

    Everything it learned from the training persons, standardisation and label statistics too, is
    in its state dict, so that `Class(settings, **spec)` with the state dict is the whole head.
    """

    spec: dict[str, Any]  # shapes and choices that depend on the data; plain JSON values
    closed: bool  # solved and not descended: nothing of how a head descends matters to it
    # Settings below train.<head> in which heads that are fitted together may differ: they decide
    # no shape and no branch, and the head keeps them in buffers (see `train.stack`).
    may_differ: tuple[str, ...]

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        """The views it reads under these settings."""
        ...

    @classmethod
    def setup(cls, settings: Train, features: Features, rows: Tensor) -> Any:
        """A new head for these features, its facts from the training persons `rows` alone."""
        ...

    def __call__(self, batch: Batch) -> Any:
        """An `Output`."""
        ...

    def loss(self, output: Any, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss over the batch."""
        ...

    def graphs(self) -> Mapping[str, Float[Tensor, "C C"]]:
        """Label graphs by name; empty for a head without."""
        ...


class LabelHead(nn.Module):
    """A head below `train/heads` needs `views`, layers made in `__init__`, and `logits`, or
    `forward` where it gives more than scores.

    Labels that a person can have several of get a sigmoid and the binary cross-entropy; a single
    label, or a distribution over labels, gets a softmax and the cross-entropy, which for a
    distribution is the Kullback-Leibler divergence and a constant.
    """

    standardised = False  # whether it always is, whatever `train.standardise` says
    closed = False  # these two: see `Head`
    may_differ: tuple[str, ...] = ()

    def __init__(
        self, settings: Train, *, widths: dict[str, int], labels: int, kind: LabelKind, **more: Any
    ):
        super().__init__()
        self.settings, self.labels, self.kind = settings, labels, kind
        self.widths = widths
        self.spec: dict[str, Any] = {"widths": widths, "labels": labels, "kind": kind, **more}
        self.see = Standardise(widths, settings.standardise or self.standardised)

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        """The views it reads under these settings."""
        raise NotImplementedError

    def logits(self, batch: Batch) -> Float[Tensor, "B C"]:
        """What scores are made from."""
        raise NotImplementedError

    @classmethod
    def shapes(cls, settings: Train, features: Features) -> dict[str, Any]:
        """More arguments of `__init__` that depend on the data; plain JSON values."""
        return {}

    def learn(self, features: Features, rows: Tensor) -> None:
        """Fill buffers with facts of the training persons `rows`, or of the labels."""

    @classmethod
    def setup(cls, settings: Train, features: Features, rows: Tensor) -> "LabelHead":
        """A new head for these features; what it learns of them comes from `rows` alone."""
        names = expand(cls.views(settings), features.specs)
        features.require(names, settings.head)
        seen = [name for name in names if features.specs[view_of(name)].space != "labels"]
        head = cls(
            settings,
            widths={name: features.width(view_of(name), array_of(name)) for name in seen},
            labels=len(features.labels),
            kind=features.kind,
            **cls.shapes(settings, features),
        ).to(features.device)
        head.see.measure(features, rows)
        with torch.no_grad():
            head.learn(features, rows)
        return head

    def forward(self, batch: Batch) -> Output:
        logits = self.logits(batch)
        return Output(self.scores(logits), logits)

    def scores(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        """Probabilities, or what the head calls its scores."""
        return logits.sigmoid() if self.kind == "multi" else logits.softmax(-1)

    def loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        """The mean loss over the batch."""
        return classification(
            output.scores,
            output.logits,
            batch.truth,
            "bce" if self.kind == "multi" else "cross_entropy",
        )

    def graphs(self) -> Mapping[str, Float[Tensor, "C C"]]:
        """Label graphs by name; empty for a head without."""
        return {}


class SquaredHead(LabelHead):
    """A head that fits labels, of which a person can have several, by weighted squared error.

        L = sum_j w_j (y_j - t_j)^2,   w_j = 1 / ln(1.2 + p_j), scaled to sum 1

    p_j: how often label j occurs in train. Scores are y, which is no probability.
    """

    weights: Tensor

    def __init__(self, settings: Train, *, labels: int, **shapes: Any):
        super().__init__(settings, labels=labels, **shapes)
        self.register_buffer("weights", torch.full((labels,), 1 / labels))

    def learn(self, features: Features, rows: Tensor) -> None:
        self.weights.copy_(label_weights(features.truth(rows)))

    def scores(self, logits: Float[Tensor, "B C"]) -> Float[Tensor, "B C"]:
        return logits if self.kind == "multi" else super().scores(logits)

    def loss(self, output: Output, batch: Batch) -> Float[Tensor, ""]:
        if self.kind != "multi":
            return super().loss(output, batch)
        return weighted_squared(output.logits, batch.truth, self.weights)
