"""A picture of any size inside a fixed square, and boxes back into the picture.

Every picture meets the network at one size, so its neighbours in a batch cannot change its result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Placement:
    """Where the picture lies in the square: pixel = (square - offset) / scale."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int

    def back(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n,4) in pixels of the square -> in pixels of the picture, clipped to it."""
        offset = np.array([self.left, self.top] * 2, np.float32)
        scale = np.array([self.scale_x, self.scale_y] * 2, np.float32)
        limit = np.array([self.width, self.height] * 2, np.float32)
        return np.clip((boxes.astype(np.float32) - offset) / scale, 0, limit)


def letterbox(picture: torch.Tensor, side: int, fill: float) -> tuple[torch.Tensor, Placement]:
    """uint8 (3,H,W) -> float32 (3,side,side) in 0..255, centred, the rest filled.

    Bilinear, anti-aliased when it shrinks.
    """
    import torch
    from torch.nn.functional import interpolate

    if picture.dtype != torch.uint8 or picture.ndim != 3 or 0 in picture.shape:
        shape = tuple(picture.shape)
        raise ValueError(f"a picture must be uint8 (3, H, W), not {picture.dtype} {shape}")
    height, width = picture.shape[1:]
    scale = side / max(height, width)
    new_height, new_width = max(1, round(height * scale)), max(1, round(width * scale))
    resized = interpolate(
        picture[None].float(), (new_height, new_width), mode="bilinear", antialias=True
    )[0]
    top, left = (side - new_height) // 2, (side - new_width) // 2
    square = picture.new_full((3, side, side), fill, dtype=torch.float32)
    square[:, top : top + new_height, left : left + new_width] = resized
    return square, Placement(new_width / width, new_height / height, left, top, width, height)
