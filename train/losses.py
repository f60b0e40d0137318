"""Losses of the heads. All are means over the persons of a batch."""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from train.labels import HAS
from train.layers.label_graph import cosine


def classification(
    scores: Float[Tensor, "B C"],
    logits: Float[Tensor, "B C"],
    target: Float[Tensor, "B C"],
    kind: Literal["bce", "cross_entropy", "squared"],
) -> Float[Tensor, ""]:
    """L_C. bce: binary cross-entropy of the logits, mean over labels as well; cross_entropy: of
    the logits' softmax against the label vector scaled to sum 1; squared: mean (p - y)^2."""
    if kind == "bce":
        return F.binary_cross_entropy_with_logits(logits, target)
    if kind == "cross_entropy":
        share = target / target.sum(-1, keepdim=True).clamp(min=1e-6)
        return F.cross_entropy(logits, share)
    return F.mse_loss(scores, target)


def label_weights(target: Float[Tensor, "N C"]) -> Float[Tensor, " C"]:
    """w_j = 1 / ln(1.2 + p_j), scaled to sum 1; p_j: the share of the training persons with label
    j (Kosti et al. 2020)."""
    rate = (target > HAS).float().mean(0)
    weights = 1 / torch.log(1.2 + rate)
    return weights / weights.sum()


def weighted_squared(
    scores: Float[Tensor, "B C"], target: Float[Tensor, "B C"], weights: Float[Tensor, " C"]
) -> Float[Tensor, ""]:
    """mean over persons of sum_j w_j (y_j - t_j)^2."""
    return ((scores - target).square() * weights).sum(-1).mean()


def continuous(predicted: Float[Tensor, "B D"], rated: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Mean squared error over what was rated; NaN in `rated` counts as not, and 0 where nothing
    was."""
    known = ~rated.isnan()
    gap = torch.where(known, predicted - rated, 0)
    return gap.square().sum() / known.sum().clamp(min=1)


def double_constraint(
    branches: Iterable[tuple[Float[Tensor, "C D"], Float[Tensor, "C C"]]],
    there: Float[Tensor, " N"] | None = None,
) -> Float[Tensor, ""]:
    """L_DC: mean over the N branches (H, A) of mean_ij (cos(H_i, H_j) - A_ij)^2; there: 0 for
    each that counts as absent, else 1.

    A is a target here: no gradient reaches it, or a learned A could simply follow H.
    """
    terms = torch.stack([F.mse_loss(cosine(h), a.detach()) for h, a in branches])
    if there is None:
        return terms.mean()
    return (terms * there).sum() / there.sum().clamp(min=1)
