"""YOLO through ultralytics: objects (80 COCO classes) and faces. The only file that imports it.

ultralytics is AGPL-3.0; who distributes a program with it, or serves one, takes on its terms. Only
its network classes are used: its loaders would fetch weights and send usage data. Its import
tests the network, writes a settings file into the home folder and changes printing, warnings and
environment for everybody; `ultralytics_tasks` keeps all of that in.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.errors import SettingsError
from extract.detectors import Detections, Detector, detector
from extract.detectors.letterbox import letterbox
from extract.networks import load_state, seeded

if TYPE_CHECKING:
    import torch

    from extract.weights import Weights

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

    def __init__(self, weights: Weights, device: str = "cpu", *limits: Any, **more: Any):
        super().__init__(weights, device, *limits, **more)
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

    def __init__(self, weights: Weights, device: str = "cpu", *limits: Any, **more: Any):
        self.classes = coco_names()
        super().__init__(weights, device, *limits, **more)


@detector(*(f"{name}-face" for name in NAMES))
class YoloFaces(Yolo):
    """Faces, in a whole picture or in the crop of a person."""

    kind = "faces"
    classes = ("face",)


def shape_of(name: str, tasks: Any) -> dict[str, Any]:
    """The shape of `yolo26n`, `yolov8n-face` ..., out of the package's own description."""
    import yaml

    base = name.lower().removesuffix("-face")
    version, size = base[:-1], base[-1]
    models = Path(tasks.__file__).parents[1] / "cfg" / "models"
    path = models / version.removeprefix("yolo") / f"{version}.yaml"
    if not path.exists():
        raise SettingsError(
            f"the installed ultralytics has no shape for {name!r} (it would be {path}): upgrade "
            "ultralytics, or choose another views.objects.detector or views.head.detector"
        )
    return yaml.safe_load(path.read_text(encoding="utf-8")) | {"scale": size}


def coco_names() -> tuple[str, ...]:
    """The 80 class names, in the order of the network's outputs."""
    import yaml

    path = Path(ultralytics_tasks().__file__).parents[1] / "cfg" / "datasets" / "coco.yaml"
    names = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
    return tuple(names[number] for number in range(len(names)))


def ultralytics_tasks() -> Any:
    """`ultralytics.nn.tasks`, imported once, offline, without a trace outside this process."""
    if "ultralytics.nn.tasks" not in sys.modules:
        with tempfile.TemporaryDirectory() as folder, contained(folder):
            importlib.import_module("ultralytics.nn.tasks")
            from ultralytics.utils import SETTINGS

            # in memory only: its own way of setting would write the file again
            dict.update(SETTINGS, sync=False)
    return sys.modules["ultralytics.nn.tasks"]


@contextmanager
def contained(folder: str) -> Iterator[None]:
    """Offline, with its settings file in `folder`; afterwards environment, warnings, printing,
    OpenCV's threads, and the functions it replaces in Pillow and torch are as before."""
    import numpy as np
    import torch
    from PIL import Image

    environment = dict(os.environ)
    import cv2  # it, too, writes into the environment

    numpy_print, threads = np.get_printoptions(), cv2.getNumThreads()
    torch_print = vars(torch._tensor_str.PRINT_OPTS).copy()
    # Its Image.open would try to install a package for every file that is no picture.
    image_open, torch_save = Image.open, torch.save
    os.environ.update(
        YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false", YOLO_CONFIG_DIR=folder
    )
    try:
        with warnings.catch_warnings():
            yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        Image.open, torch.save = image_open, torch_save
        np.set_printoptions(**numpy_print)
        cv2.setNumThreads(threads)
        vars(torch._tensor_str.PRINT_OPTS).update(torch_print)
