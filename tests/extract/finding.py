"""People found by what a test says, without weights: a finder whose detectors are functions."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from cache.boxes import Box
from cache.settings import Cache
from extract.detectors import Detections
from extract.loaded import Networks
from extract.people import Finder
from extract.settings import Data, Extract, People
from extract.settings import Weights as WeightsSettings
from extract.weights import Weights
from tests.networks import given

# What is in a picture (H, W, 3) uint8: boxes, each with its score.
Seen = Callable[[np.ndarray], Sequence[tuple[Box, float]]]


def middle(pixels: np.ndarray) -> list[tuple[Box, float]]:
    """One person in the middle half of the picture, either way."""
    height, width = pixels.shape[:2]
    return [((width / 4, height / 4, width * 3 / 4, height * 3 / 4), 0.9)]


def nobody(pixels: np.ndarray) -> list[tuple[Box, float]]:
    return []


def by_size(found: dict[tuple[int, int], list[tuple[Box, float]]]) -> Seen:
    """What is found in a picture of that width and height; nothing in others."""
    return lambda pixels: found.get((pixels.shape[1], pixels.shape[0]), [])


class Detector:
    """Finds what `seen` says, by falling score, all of its first class."""

    def __init__(self, name: str, classes: tuple[str, ...], seen: Seen) -> None:
        self.name, self.classes, self.seen = name, classes, seen
        self.pictures = 0  # how many it was shown

    def __call__(self, pictures: list[torch.Tensor]) -> list[Detections]:
        self.pictures += len(pictures)
        return [self._one(picture.permute(1, 2, 0).numpy()) for picture in pictures]

    def _one(self, pixels: np.ndarray) -> Detections:
        found = sorted(self.seen(pixels), key=lambda one: -one[1])
        boxes = np.array([box for box, _ in found], np.float32).reshape(-1, 4)
        scores = np.array([score for _, score in found], np.float32)
        return Detections(boxes, scores, np.zeros(len(found), np.int64))


class Stubs(Networks):
    """Networks that pass for trained ones, and are the functions of a test."""

    def __init__(self, people: Seen = middle, faces: Seen = nobody) -> None:
        super().__init__(WeightsSettings())
        self.people = Detector("yolo26n", ("person",), people)
        self.faces = Detector("yolo11m-face", ("face",), faces)

    def weights(self, name: str) -> Weights:
        return given(name, Path("no such file"))

    def detector(self, name: str, kind: str) -> Detector:
        return self.faces if kind == "faces" else self.people


def finder(
    data: Data, cache: Path, people: Seen = middle, faces: Seen = nobody, **settings
) -> Finder:
    """A finder for `prepare`, whose detections lie in `cache`; settings: of `People`."""
    networks = Stubs(people, faces)
    return Finder(People(**settings), data, Cache(root=cache), Extract(readers=1), networks)
