"""What a head saw of some persons: its weights of the objects, boxes, label graphs, transport; and
what of their features a label rests on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from train.data import Features
from train.fit import outputs_of


@dataclass(frozen=True)
class Objects:
    """The objects of N persons: boxes (N, k, 4), labels (N, k) into the classes, scores (N, k), and
    mask (N, k), false where padded."""

    boxes: Float[np.ndarray, "N k 4"]
    labels: Int[np.ndarray, "N k"]
    scores: Float[np.ndarray, "N k"]
    mask: Bool[np.ndarray, "N k"]


@dataclass(frozen=True)
class Faces:
    """Head squares of N persons: boxes (N, 4), and mask (N,), false where no face was found."""

    boxes: Float[np.ndarray, "N 4"]
    mask: Bool[np.ndarray, " N"]


@dataclass(frozen=True)
class Explanation:
    """What a head saw of some persons. Boxes are x1 y1 x2 y2 in pixels of the picture.

    person_rows, picture_rows (N,): rows in the index; boxes (N, 4) of the persons; y_score (N, C);
    attention (N, k): weight of each object, zero where padded, None for a head that weighs none;
    objects, faces: None for a head that does not read their view; graphs: name -> (C, C), row i is
    what label i says of each j; transport (N, n, m): what goes from each token of the head's first
    side to each of the second, None for a head that transports nothing; gate (N, W): what each
    channel of the body is multiplied with, None for a head without such a gate.
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    person_rows: np.ndarray
    picture_rows: np.ndarray
    boxes: np.ndarray
    y_score: np.ndarray
    attention: np.ndarray | None
    objects: Objects | None
    faces: Faces | None
    graphs: Mapping[str, np.ndarray]
    transport: np.ndarray | None = None
    gate: np.ndarray | None = None


def explain_features(model: Any, features: Features, rows: Int[Tensor, " N"]) -> Explanation:
    """Object weights, transport plans and label graphs of a head, for these person rows."""
    batches, outputs = [], []
    for batch, output in outputs_of(model, features, rows):
        batches.append(batch)
        outputs.append(output)

    def together(values: list[Tensor | None]) -> np.ndarray | None:
        there = [value for value in values if value is not None]
        return torch.cat(there).cpu().numpy() if there else None

    def arrays(view: str, *names: str) -> list[np.ndarray]:
        """All of them, or none."""
        every = [together([b.views.get(view, {}).get(name) for b in batches]) for name in names]
        there = [one for one in every if one is not None]
        return there if len(there) == len(names) else []

    objects, faces = (
        arrays("objects", "box", "label", "score", "mask"),
        arrays("head", "box", "mask"),
    )

    scores = together([output.scores for output in outputs])
    return Explanation(
        labels=features.labels,
        classes=features.classes,
        person_rows=rows.cpu().numpy(),
        picture_rows=features.picture[rows].cpu().numpy(),
        boxes=features.box[rows].cpu().numpy(),
        y_score=np.zeros((0, len(features.labels)), np.float32) if scores is None else scores,
        attention=together([output.attention for output in outputs]),
        objects=Objects(*objects) if objects else None,
        faces=Faces(*faces) if faces else None,
        graphs={name: graph.detach().cpu().numpy() for name, graph in model.graphs().items()},
        transport=together([output.transport for output in outputs]),
        gate=together([output.gate for output in outputs]),
    )


def gradients(
    model: Any, features: Features, rows: Int[Tensor, " N"], label: Int[Tensor, " N"], *views: str
) -> dict[str, Float[np.ndarray, "N W"]]:
    """By view, the gradient of each person's logit of a label (its column) by the features of that
    view. Empty for a head through which none flows, as one of nearest neighbours."""
    model.eval()
    batch = features.batch(rows)
    inputs = {
        name: batch.views[name]["features"].detach().requires_grad_()
        for name in views
        if name in batch.views
    }
    seen = {name: {**batch.views[name], "features": values} for name, values in inputs.items()}
    logits = model(replace(batch, views={**batch.views, **seen})).logits
    if not inputs or not logits.requires_grad:
        return {}
    chosen = logits.gather(1, label[:, None]).sum()
    found = torch.autograd.grad(chosen, list(inputs.values()), allow_unused=True)
    return {
        name: gradient.cpu().numpy()
        for name, gradient in zip(inputs, found, strict=True)
        if gradient is not None
    }
