"""YOLO: objects (80 COCO classes) and faces. Its network classes are those of ultralytics, which
is AGPL-3.0: see `extract.detectors.ultralytics`."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.detectors import Detections, Detector, detector
from extract.detectors.letterbox import letterbox
from extract.detectors.ultralytics import shape_of, ultralytics_tasks
from extract.loading import load_state
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch

SIDE = 640
FILL = 114  # grey of the border, as in training
OVERLAP = 0.7  # IoU of non-maximum suppression, for the versions that need one

NAMES = tuple(f"yolo{version}{size}" for version in ("26", "11", "v8") for size in "nsmlx")


class Yolo(Detector):
    """List of uint8 (3,H,W) -> list of Detections. Each picture lies in a fixed grey square of
    640 pixels, so that its neighbours cannot change its result."""

    cpu_batch = 8

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        return {
            "side": SIDE,
            "fill": FILL,
            "scale": 1 / 255,
            "resize": "letterbox, bilinear, anti-aliased",
            "nms": f"IoU {OVERLAP} unless end-to-end",
        }

    def __init__(self, weights: Weights, device: str = "cpu"):
        super().__init__(weights, device)
        tasks = ultralytics_tasks()
        with seeded():
            model = tasks.DetectionModel(
                shape_of(self.name, tasks), nc=len(self.classes), verbose=False
            )
        if weights.trained:
            load_state(model, weights)
        # versions with an end-to-end head run it only when told to
        self.end_to_end = model.end2end = bool(model.yaml.get("end2end"))
        # folds batch norms into convolutions and drops the head that is not read
        model = model.eval().fuse(verbose=False).requires_grad_(False)
        self.model = model.to(self.device).to(memory_format=self.memory_format)

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        return list(chain.from_iterable(self.batched(pictures, self._found)))

    def _found(self, pictures: list[torch.Tensor]) -> list[Detections]:
        import torch

        pairs = [letterbox(one.to(self.device), SIDE, FILL) for one in pictures]
        batch = torch.stack([square for square, _ in pairs]) / 255
        raw = self.model(batch.contiguous(memory_format=self.memory_format))
        raw = raw[0] if isinstance(raw, tuple) else raw
        found = []
        for rows, (_, place) in zip(raw, pairs, strict=True):
            boxes, scores, labels = self._kept(rows)
            inside = place.back(boxes.cpu().numpy())
            found.append(Detections(inside, scores.cpu().numpy(), labels.cpu().numpy()))
        return found

    def _kept(self, raw: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Boxes in pixels of the square, scores and labels above the score, best first.

        End-to-end versions give rows of x1 y1 x2 y2 score class, already one a thing; the others
        (4 + classes, anchors) with centre and size, of which each anchor's best class is taken.
        """
        from torchvision.ops import batched_nms, box_convert

        if self.end_to_end:
            boxes, scores, labels = raw[:, :4], raw[:, 4], raw[:, 5].long()
        else:
            boxes = box_convert(raw[:4].T, "cxcywh", "xyxy")
            scores, labels = raw[4:].max(dim=0)
        kept = scores >= self.score
        boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        if self.end_to_end:
            order = scores.argsort(descending=True, stable=True)
        else:
            order = batched_nms(boxes, scores, labels, OVERLAP)
        order = order[: self.most]
        return boxes[order], scores[order], labels[order]


@detector(*NAMES)
class YoloObjects(Yolo):
    """Objects of the 80 COCO classes."""

    kind = "objects"

    def __init__(self, weights: Weights, device: str = "cpu"):
        self.classes = coco_names()
        super().__init__(weights, device)


@detector(*(f"{name}-face" for name in NAMES))
class YoloFaces(Yolo):
    """Faces, in a whole picture or in the crop of a person."""

    kind = "faces"
    classes = ("face",)


def coco_names() -> tuple[str, ...]:
    """The 80 class names, in the order of the network's outputs."""
    import yaml

    path = Path(ultralytics_tasks().__file__).parents[1] / "cfg" / "datasets" / "coco.yaml"
    names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
    return tuple(names[number] for number in range(len(names)))
