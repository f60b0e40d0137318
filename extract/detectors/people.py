"""People, from any detector of objects that knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cache.errors import SettingsError
from extract.detectors import Detections, Detector

if TYPE_CHECKING:
    import torch


class People(Detector):
    """Only the persons that another detector finds; the only class is "person"."""

    kind = "people"
    classes = ("person",)

    def __init__(self, objects: Detector):
        # no network of its own: weights, device and preprocessing are those of `objects`
        if "person" not in objects.classes:
            raise SettingsError(
                f"{objects.name} does not know the class person, so it cannot find people"
            )
        self.objects = objects
        self.person = objects.classes.index("person")
        self.name, self.weights, self.device = objects.name, objects.weights, objects.device
        self.score, self.most = objects.score, objects.most
        self.region_width = objects.region_width
        self.preprocessing = objects.preprocessing | {"only": "person"}

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        persons = []
        for found in self.objects(pictures):
            some = found[found.labels == self.person]
            persons.append(
                Detections(some.boxes, some.scores, np.zeros(len(some), np.int64), some.regions)
            )
        return persons
