"""Boxes: x1, y1, x2, y2 in pixels of the upright picture; x2 and y2 are the first column and row
outside."""

import numpy as np
from jaxtyping import Float

Box = tuple[float, float, float, float]


def area(boxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n"]:
    """Square pixels of each box; 0 for one that is inverted."""
    return np.prod(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None), axis=-1)


def shared(a: Float[np.ndarray, "*n 4"], b: Float[np.ndarray, "*m 4"]) -> Float[np.ndarray, "*k"]:
    """Square pixels that boxes have in common; shapes are broadcast, as in `iou`."""
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    return np.prod(np.clip(high - low, 0, None), axis=-1)


def iou(a: Float[np.ndarray, "*n 4"], b: Float[np.ndarray, "*m 4"]) -> Float[np.ndarray, "*k"]:
    """Intersection over union of boxes: (4,) against (n, 4), or (n, 4) one by one, -> (n,).

    0 where neither has an area; NaN where one is no box.
    """
    both = shared(a, b)
    return both / np.maximum(area(a) + area(b) - both, 1e-9)
