"""Annotated boxes in the upright picture: scaled, turned and clipped where the annotation proves
that they may be, and bad where it does not."""

import numpy as np

from cache.boxes import Box, clip, turned
from extract import images


def place(
    box: Box,
    annotated: tuple[int, int] | None,
    header: images.Header | None,
    what: str = "boxes",
) -> tuple[Box, str, list[str]]:
    """The annotated box in the upright picture: the box, why it is bad (or ""), what was done.

    The annotation may have been drawn in the stored picture instead of the upright one, or in a
    copy of another size: the box follows where the annotated size proves it, else it is bad.
    """
    notes: list[str] = []
    if not np.isfinite(box).all():
        return box, "the box is not four numbers", notes
    if box[0] >= box[2] or box[1] >= box[3]:
        return box, f"the box {_px(box)} is empty or inverted", notes
    if header is None:
        return box, "", notes
    upright = header.width, header.height
    if annotated is not None and annotated != upright:
        stored = header.stored
        as_stored = header.orientation >= 5
        if as_stored and annotated == stored:
            scale = None
        elif _same_shape(annotated, upright):
            as_stored, scale = False, upright
        elif as_stored and _same_shape(annotated, stored):
            scale = stored
        else:
            return (
                box,
                f"annotated in {annotated[0]}x{annotated[1]}, but the picture has "
                f"{upright[0]}x{upright[1]}: another shape",
                notes,
            )
        if scale is not None:
            across, down = scale[0] / annotated[0], scale[1] / annotated[1]
            box = (box[0] * across, box[1] * down, box[2] * across, box[3] * down)
            notes.append(f"{what} scaled to a picture of another size")
        if as_stored:
            box = turned(box, header.orientation, *stored)
            notes.append(f"{what} turned with a picture's EXIF orientation")
    inside = clip(box, *upright)
    if inside is None:
        return box, f"the box {_px(box)} lies outside the picture", notes
    # As the index keeps it: what is left inside may be no pixel wide then.
    if clip(np.asarray(inside, np.float32), *upright) is None:
        return box, f"the box {_px(box)} has no pixel in the picture", notes
    if inside != tuple(box):
        notes.append(f"{what} clipped to the picture")
    return inside, "", notes


def _same_shape(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether `b` can be `a` resized by one factor, each side rounded up or down."""
    low = max((b[0] - 1) / a[0], (b[1] - 1) / a[1])
    high = min((b[0] + 1) / a[0], (b[1] + 1) / a[1])
    return low <= high


def _px(box: Box) -> str:
    return "(" + ", ".join(f"{side:g}" for side in box) + ")"
