"""What a head saw of some persons: its weights of the objects, boxes, label graphs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from train.data import Features
from train.fit import outputs_of


@dataclass(frozen=True)
class Explanation:
    """What a head saw of some persons. Boxes are x1 y1 x2 y2 in pixels of the picture.

    person_rows, picture_rows (N,): rows in the index; boxes (N, 4) of the persons; y_score (N, C);
    attention (N, k): weight of each object, zero where padded, None for a head that weighs none;
    object_boxes (N, k, 4), object_labels (N, k) into classes, object_scores and object_mask
    (N, k): None without the view; head_boxes (N, 4), head_mask (N,): likewise; graphs: name ->
    (C, C), row i is what label i says of each j.
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    person_rows: np.ndarray
    picture_rows: np.ndarray
    boxes: np.ndarray
    y_score: np.ndarray
    attention: np.ndarray | None
    object_boxes: np.ndarray | None
    object_labels: np.ndarray | None
    object_scores: np.ndarray | None
    object_mask: np.ndarray | None
    head_boxes: np.ndarray | None
    head_mask: np.ndarray | None
    graphs: Mapping[str, np.ndarray]


def explain_features(model: Any, features: Features, rows: Int[Tensor, " N"]) -> Explanation:
    """Object weights and label graphs of a head, for these person rows."""
    batches, outputs = [], []
    for batch, output in outputs_of(model, features, rows):
        batches.append(batch)
        outputs.append(output)

    def together(values: list[Tensor | None]) -> np.ndarray | None:
        there = [value for value in values if value is not None]
        return torch.cat(there).cpu().numpy() if there else None

    def array(view: str, name: str) -> np.ndarray | None:
        return together([batch.views.get(view, {}).get(name) for batch in batches])

    scores = together([output.scores for output in outputs])
    return Explanation(
        labels=features.labels,
        classes=features.classes,
        person_rows=rows.cpu().numpy(),
        picture_rows=features.picture[rows].cpu().numpy(),
        boxes=features.box[rows].cpu().numpy(),
        y_score=np.zeros((0, len(features.labels)), np.float32) if scores is None else scores,
        attention=together([output.attention for output in outputs]),
        object_boxes=array("objects", "box"),
        object_labels=array("objects", "label"),
        object_scores=array("objects", "score"),
        object_mask=array("objects", "mask"),
        head_boxes=array("head", "box"),
        head_mask=array("head", "mask"),
        graphs={name: graph.cpu().numpy() for name, graph in model.graphs().items()},
    )
