"""Faster R-CNN (Ren et al., 2015) with a feature pyramid, as torchvision has it: 90 COCO classes.

Beside boxes it gives each kept box's region features: the output (1,024) of the box head for
exactly that final box, pooled again from the feature pyramid after the box was regressed. (The
box head's first output belongs to the proposal, a different box.)
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from extract.detectors import Detections, Detector, detector
from extract.loading import load_state
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch

# name -> name of torchvision's weights, whose `meta` has the class names
META = {
    "fasterrcnn_resnet50_fpn_v2": "FasterRCNN_ResNet50_FPN_V2_Weights",
    "fasterrcnn_resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights",
    "fasterrcnn_mobilenet_v3_large_320_fpn": "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights",
}


@detector(*META)
class FasterRCNN(Detector):
    """Objects: list of uint8 (3,H,W) -> list of Detections with `regions` (n,1024).

    Pictures of differing sizes would share one padded tensor, and the padding would change the
    features of the smaller; so pictures run together only when their sizes are equal.
    """

    kind = "objects"
    region_width = 1024
    cpu_batch = 4  # pictures are enlarged to 800 pixels

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        # torchvision's own transform: 0..1, ImageNet mean and deviation, shorter side enlarged
        return {"scale": 1 / 255, "resize": "torchvision", "regions": "box head on final boxes"}

    def __init__(self, weights: Weights, device: str = "cpu"):
        import torch
        from torchvision.models import detection

        super().__init__(weights, device)
        name = self.name.lower()
        with seeded():
            model = getattr(detection, name)(
                weights=None,
                weights_backbone=None,
                box_score_thresh=self.score,
                box_detections_per_img=self.most,
            )
        if weights.trained:
            load_state(model, weights)
        if weights.trained and name == "fasterrcnn_resnet50_fpn":
            # its COCO weights were trained before torchvision's frozen batch norm had an epsilon
            for module in model.backbone.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eps = 0.0
        meta = getattr(detection, META[name]).DEFAULT.meta
        self.classes = tuple(meta["categories"])
        model = model.eval().requires_grad_(False)
        self.model = model.to(self.device, memory_format=self.memory_format)

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        sizes: dict[tuple[int, ...], list[int]] = {}
        for number, picture in enumerate(pictures):
            sizes.setdefault(tuple(picture.shape), []).append(number)
        found: dict[int, Detections] = {}
        for numbers in sizes.values():
            parts = self.batched([pictures[n] for n in numbers], self._same_size)
            found.update(zip(numbers, chain.from_iterable(parts), strict=True))
        return [found[number] for number in range(len(pictures))]

    def _same_size(self, pictures: list[torch.Tensor]) -> list[Detections]:
        model = self.model
        scaled = [picture.to(self.device).float() / 255 for picture in pictures]
        images, _ = model.transform(scaled)
        with self.arithmetic():  # only here: boxes of half precision lie pixels off
            pixels = images.tensors.contiguous(memory_format=self.memory_format)
            features = model.backbone(pixels)
        features = {level: values.float() for level, values in features.items()}
        proposals, _ = model.rpn(images, features)
        found, _ = model.roi_heads(features, proposals, images.image_sizes)
        regions = self._regions(features, [one["boxes"] for one in found], images.image_sizes)
        sizes = [tuple(picture.shape[-2:]) for picture in pictures]
        found = model.transform.postprocess(found, images.image_sizes, sizes)
        return [
            Detections(
                one["boxes"].cpu().numpy(),
                one["scores"].cpu().numpy(),
                one["labels"].cpu().numpy(),
                region.cpu().numpy(),
            )
            for one, region in zip(found, regions, strict=True)
        ]

    def _regions(
        self, features: Any, boxes: list[Any], sizes: list[Any]
    ) -> tuple[torch.Tensor, ...]:
        """Box-head output (n,1024) of each picture's boxes, given in pixels of the network."""
        import torch

        counts = [len(some) for some in boxes]
        if not sum(counts):
            return tuple(torch.zeros((0, self.region_width)) for _ in counts)
        heads = self.model.roi_heads
        return heads.box_head(heads.box_roi_pool(features, boxes, sizes)).split(counts)
