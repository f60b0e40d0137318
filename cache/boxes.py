"""Boxes: x1, y1, x2, y2 in pixels of the upright picture; x2 and y2 are the first column and row
outside."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Num

Box = tuple[float, float, float, float]
WHOLE: Box = (0.0, 0.0, math.inf, math.inf)  # round any picture
NO_BOX: Box = (math.nan, math.nan, math.nan, math.nan)  # where one is missing
Corners = Sequence[float | int | np.number] | Num[np.ndarray, "4"]  # the same as any four numbers


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


def clip(box: Corners, width: int, height: int) -> Box | None:
    """The part of the box inside a picture of that size, or None where there is none."""
    if any(math.isnan(side) for side in box):
        return None
    x1, y1, x2, y2 = (float(side) for side in box)
    x1, x2 = max(0.0, x1), min(float(width), x2)
    y1, y2 = max(0.0, y1), min(float(height), y2)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def square_around(box: Corners, enlarge: float | int, width: int, height: int) -> Box:
    """The square about a face: `enlarge` times its longer side, moved to lie in the picture.

    Where the square is larger than the picture it is cut to the picture's side, and is then no
    longer square.
    """
    x1, y1, x2, y2 = box
    side = enlarge * max(x2 - x1, y2 - y1)
    left, right = _shifted((x1 + x2) / 2, side, width)
    top, bottom = _shifted((y1 + y2) / 2, side, height)
    return left, top, right, bottom


def turned(box: Box, orientation: int, width: int, height: int) -> Box:
    """A box drawn in the stored picture (of this width and height), in the upright one.

    orientation: EXIF's 1 to 8.
    """
    x1, y1, x2, y2 = box
    if orientation in (2, 3, 7, 8):
        x1, x2 = width - x2, width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = height - y2, height - y1
    return (y1, x1, y2, x2) if orientation >= 5 else (x1, y1, x2, y2)


def is_subject(box: Num[np.ndarray, "4"], subject: Corners) -> bool:
    """Whether a detected box is the person in the box `subject`: painting the person over would
    have hidden it, since more than half of it lies inside."""
    return bool(shared(box, np.asarray(subject)) > 0.5 * area(box))


def _shifted(centre: float, side: float | int, length: int) -> tuple[float, float]:
    """An interval of that side about the centre, moved and if need be cut to lie in 0..length."""
    side = min(float(side), float(length))
    low = min(max(0.0, centre - side / 2), length - side)
    return low, low + side
