"""Frozen networks that find faces, objects and people in pictures, by name.

    load_detector("blazeface", settings.weights)([picture, ...])     -> [Detections, ...]

A picture is a uint8 tensor (3,H,W), RGB, of any size. The same picture gives the same detections
whatever its neighbours in the list: pictures meet in one tensor only when they are of one size.
Importing this package, and `describe`, load no network library; `load_detector` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from extract.networks import Network, Registry

if TYPE_CHECKING:
    import torch

    from extract.settings import Weights as WeightsSettings
    from extract.weights import Weights

SCORE = 0.05  # detections below it are not reported
MOST = 100  # detections a picture, the best ones

detectors = Registry("detector", "extract.detectors", ("faces", "objects", "yolo"))
detector = detectors.add


@dataclass(frozen=True)
class Detections:
    """What a detector found in one picture, by falling score.

    `boxes` (n,4) float32, x1 y1 x2 y2 in pixels of the picture, clipped to it; `scores` (n,)
    float32 in 0..1; `labels` (n,) int64, indices into the detector's `classes`; `regions` (n,R)
    float32, the detector's own features of each box, or None where it has none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    regions: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Any) -> Detections:
        regions = None if self.regions is None else self.regions[rows]
        return Detections(self.boxes[rows], self.scores[rows], self.labels[rows], regions)


class Detector(Network):
    """A network that finds things: `classes` names its labels, `region_width` is R or 0."""

    classes: tuple[str, ...] = ()
    region_width = 0

    def __init__(
        self, weights: Weights, device: str = "cpu", score: float = SCORE, most: int = MOST
    ):
        super().__init__(weights, device)
        self.score, self.most = score, most
        self.preprocessing |= {"score": score, "most": most}

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        raise NotImplementedError


def load_detector(
    name: str,
    settings: WeightsSettings,
    device: str = "cpu",
    kind: str | None = None,
    score: float = SCORE,
    most: int = MOST,
) -> Detector:
    """Build a detector and fill it with the weights that `settings` allow.

    `kind` is "faces", "objects" or "people"; any detector of objects that knows the class person
    serves for people. Detections under `score`, and beyond the `most` best of a picture, are left
    out. Raises SettingsError for a name it does not know or of another kind, WeightsError where no
    source has the weights.
    """
    from extract.weights import find

    if kind == "people":
        from extract.detectors.people import People

        return People(load_detector(name, settings, device, "objects", score, most))
    cls = cast(type[Detector], detectors.get(name, kind))
    return cls(find(name, settings), device, score, most)


def describe(name: str, weights: Weights, kind: str | None = None) -> dict[str, Any]:
    """Everything besides the weights that decides a detector's numbers, without building it."""
    return detectors.get(name, "objects" if kind == "people" else kind).describe(weights)
