"""DARN: objects attended by their distance from the subject (HugMe)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

PIXEL = 1.0  # places within a pixel of each other are one place: keeps 1 / distance finite


def distances(
    subject: Float[Tensor, "B 4"],
    objects: Float[Tensor, "B k 4"],
    diagonal: Float[Tensor, " B"],
    between: Literal["corner", "centre"] = "centre",
    unit: Literal["pixel", "diagonal"] = "diagonal",
) -> Float[Tensor, "B k"]:
    """Distance of each object from its subject, never less than one pixel.

    subject, objects: boxes x1 y1 x2 y2 in pixels; diagonal: of the picture, in pixels.
    between: top-left corners (the paper) or centres; unit: pixels (the paper) or diagonals.
    """
    if between == "corner":
        a, b = subject[:, None, :2], objects[..., :2]
    else:
        a = (subject[:, None, :2] + subject[:, None, 2:]) / 2
        b = (objects[..., :2] + objects[..., 2:]) / 2
    pixels = (a - b).square().sum(-1).clamp(min=PIXEL**2).sqrt()  # clamped before: finite slope
    return pixels if unit == "pixel" else pixels / diagonal[:, None]


def weights(
    distance: Float[Tensor, "B k"],
    mask: Bool[Tensor, "B k"],
    equal: bool | Bool[Tensor, ""] = False,
) -> Float[Tensor, "B k"]:
    """alpha = softmax(1 / distance) over the objects present; all zeros where there is none.

    equal: the same weight for every object present (the ablation without DARN).
    """
    even = torch.as_tensor(equal, device=distance.device)
    closeness = torch.where(even, torch.zeros_like(distance), distance.reciprocal())
    absent = torch.finfo(distance.dtype).min  # not -inf: a row without objects stays finite
    return closeness.masked_fill(~mask, absent).softmax(-1) * mask


def attend(weight: Float[Tensor, "B k"], features: Float[Tensor, "B k D"]) -> Float[Tensor, "B D"]:
    """f_o = sum over objects of alpha F_o."""
    return torch.einsum("bk,bkd->bd", weight, features)
