"""BlazeFace, short range (Bazarevsky et al., 2019): faces in the picture of one person.

The network sees 128 x 128 pixels and was made for a face that fills a good part of them. In the
box of a standing person the face is too small for that, and hands and patterns pass for faces. So
two windows of the picture are searched, `WINDOWS`: its upper half, and (where that is more, as in
a close-up) its upper square; findings of both are blended where they overlap.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.boxes import iou
from extract.detectors import Detections, Detector, detector
from extract.detectors.letterbox import letterbox
from extract.loading import load_state
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch

SIDE = 128
# cells a side, anchors a cell: strides 8 and three times 16, where each stride has two anchors
GRIDS = ((16, 2), (8, 6))
WINDOWS = ("upper half", "upper square")
OVERLAP = 0.3  # boxes that overlap more (IoU) are one face


@detector("blazeface")
class BlazeFace(Detector):
    """Faces: list of uint8 (3,H,W) -> list of Detections, the only class is "face".

    Give it the crop of one person; it searches the parts of it that `WINDOWS` names.
    """

    kind = "faces"
    classes = ("face",)
    cpu_batch = 128  # windows

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        return {
            "side": SIDE,
            "resize": "letterbox, bilinear, anti-aliased",
            "scale": 1 / 127.5,
            "shift": -1.0,
            "windows": list(WINDOWS),
            "nms": f"blended from half the best score, IoU {OVERLAP}",
        }

    def __init__(self, weights: Weights, device: str = "cpu"):
        from extract.detectors.blazeface_net import BlazeFaceNet

        super().__init__(weights, device)
        with seeded():
            model = BlazeFaceNet()
        if weights.trained:
            load_state(model, weights)
        self.model = model.eval().requires_grad_(False).to(self.device)

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        import torch

        squares, places, owners = [], [], []
        for owner, picture in enumerate(pictures):
            for rows in windows(*picture.shape[-2:]):
                square, place = letterbox(picture[:, :rows].to(self.device), SIDE, fill=0)
                squares.append(square)
                places.append(place)
                owners.append(owner)
        found: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in pictures]

        def raw(some: list[torch.Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
            boxes, scores = self.model(torch.stack(some) / 127.5 - 1)
            return list(zip(boxes.cpu().numpy(), scores.cpu().numpy(), strict=True))

        raws = chain.from_iterable(self.batched(squares, raw))
        for owner, place, (raw_boxes, raw_scores) in zip(owners, places, raws, strict=True):
            boxes, scores = decode(raw_boxes, raw_scores)
            kept = scores >= self.score
            found[owner].append((place.back(boxes[kept]), scores[kept]))
        return [self._merge(parts) for parts in found]

    def _merge(self, parts: list[tuple[np.ndarray, np.ndarray]]) -> Detections:
        boxes = np.concatenate([boxes for boxes, _ in parts])
        scores = np.concatenate([scores for _, scores in parts])
        boxes, scores = blend(boxes, scores, OVERLAP)
        boxes, scores = boxes[: self.most], scores[: self.most]
        return Detections(boxes, scores, np.zeros(len(boxes), np.int64))


def windows(height: int, width: int) -> tuple[int, ...]:
    """How many rows from the top each of `WINDOWS` has, in a picture of this size."""
    half = max(1, round(height / 2))
    square = min(height, width)
    return (half, square) if square > half else (half,)


def anchors() -> np.ndarray:
    """(896,2) centres of the anchors in parts of the square, in the order of the outputs."""
    rows = []
    for cells, each in GRIDS:
        middle = (np.arange(cells, dtype=np.float32) + 0.5) / cells
        y, x = np.meshgrid(middle, middle, indexing="ij")
        rows.append(np.repeat(np.stack([x.ravel(), y.ravel()], axis=1), each, axis=0))
    return np.concatenate(rows)


def decode(raw_boxes: np.ndarray, raw_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw (896,16) and (896,1) of one square -> boxes (896,4) in its pixels, scores (896,).

    A raw box is the centre's offset from its anchor, then width and height, all in pixels of the
    square; the twelve numbers after them are facial points, not used here.
    """
    centre = raw_boxes[:, :2] + anchors() * SIDE
    half = raw_boxes[:, 2:4] / 2
    # raw scores reach beyond what exp can hold in float32
    scores = 1 / (1 + np.exp(-np.clip(raw_scores[:, 0], -80, 80)))
    return np.concatenate([centre - half, centre + half], axis=1), scores.astype(np.float32)


def blend(boxes: np.ndarray, scores: np.ndarray, overlap: float) -> tuple[np.ndarray, np.ndarray]:
    """Blended non-maximum suppression, as BlazeFace's paper (section 3.3) has it against jitter:
    boxes that overlap the best one become their mean, weighted by score, with the best's score.
    Those with less than half its score go without a say, so the lowest score kept matters little.
    """
    order = np.argsort(-scores, kind="stable")
    boxes, scores = boxes[order], scores[order]
    out_boxes, out_scores = [], []
    while len(boxes):
        same = iou(boxes[0], boxes) > overlap
        same[0] = True  # a box without area overlaps nothing, itself included
        weight = np.where(scores[same] >= scores[0] / 2, scores[same], 0)[:, None]
        out_boxes.append((boxes[same] * weight).sum(axis=0) / weight.sum())
        out_scores.append(scores[0])
        boxes, scores = boxes[~same], scores[~same]
    return (
        np.array(out_boxes, np.float32).reshape(-1, 4),
        np.array(out_scores, np.float32),
    )
