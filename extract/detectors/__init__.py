"""Frozen networks that find faces and objects in pictures, by name.

    load_detector("blazeface", settings.weights)([picture, ...])     -> [Detections, ...]

A picture is a uint8 tensor (3,H,W), RGB, of any size. The same picture gives the same detections
whatever its neighbours in the list: pictures meet in one tensor only when they are of one size.
Importing this package, and `detectors.describe`, load no network library; building one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.families import Families
from extract.networks import Network
from extract.settings import Weights as WeightsSettings
from extract.weights import find

if TYPE_CHECKING:
    import torch


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
    """A network that finds things: `classes` names its labels, `region_width` is R or 0. Of a
    picture it reports the `most` best detections, none below `score`."""

    classes: tuple[str, ...] = ()
    region_width = 0
    score = 0.05
    most = 100

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        raise NotImplementedError


detectors: Families[Detector] = Families(
    "detector", "extract.detectors", ("blazeface", "faster_rcnn", "yolo")
)
detector = detectors.add


def load_detector(
    name: str, settings: WeightsSettings, device: str = "cpu", kind: str | None = None
) -> Detector:
    """Build a detector and fill it with the weights that `settings` allow.

    `kind` is "faces" or "objects". Raises SettingsError for a name it does not know or of another
    kind, WeightsError where no source has the weights.
    """
    detectors.get(name, kind)  # a wrong name is said before weights are sought
    return detectors.build(find(name, settings), device, kind)
