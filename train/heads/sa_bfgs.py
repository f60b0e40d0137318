"""SA-BFGS: the maximum-entropy model of label distributions, solved by a quasi-Newton method (Geng,
TKDE 2016)."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from train.data import EVERY, Batch, Features
from train.head import LabelHead
from train.heads import register
from train.layers.side_by_side import side_by_side
from train.settings import Train

log = logging.getLogger("train")
AT_ONCE = 1024  # persons in one pass
Block = tuple[Tensor, Tensor]  # features (B, W) and label vectors (B, C) of some persons


@register("sa_bfgs")
class SaBfgs(LabelHead):
    """p = softmax(W x + b), (W, b) = argmin mean KL(t || p) + lambda |W|^2 over train.

    x: the views of the cache, or of `train.sa_bfgs.views`, side by side, each feature scaled to
    deviation 1 over train; objects count alike. Single labels are distributions too, and the model
    is logistic regression; labels of which a person can have several get a sigmoid and the binary
    cross-entropy, mean over labels.

    The problem is convex, and L-BFGS (SciPy) walks down from W = 0 in float64: neither seed nor
    order changes anything. `steps` says in how many, `converged` whether the largest number of
    the gradient fell to `tolerance`; where it did not, a warning says so.

    Departures from the paper: the intercept b; lambda, which the paper has not: without it the
    minimum lies at infinity where labels can be told apart, and few persons are learned by heart
    (`train.sa_bfgs.penalty: 0` takes it back); L-BFGS in place of BFGS, whose matrix would have
    (W C)^2 numbers: the same minimum.
    """

    closed = True
    standardised = True
    weight: Tensor
    bias: Tensor
    steps: Tensor
    converged: Tensor

    def __init__(self, settings: Train, **shapes: Any):
        super().__init__(settings, **shapes)
        self.register_buffer("weight", torch.zeros(self.labels, sum(self.widths.values())))
        self.register_buffer("bias", torch.zeros(self.labels))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self.register_buffer("converged", torch.zeros((), dtype=torch.bool))

    @staticmethod
    def views(settings: Train) -> tuple[str, ...]:
        return tuple(settings.sa_bfgs.views or [EVERY])

    def learn(self, features: Features, rows: Tensor) -> None:
        own = self.settings.sa_bfgs

        def blocks() -> list[Block]:
            batches = features.batches(rows, AT_ONCE)
            return [(self._seen(batch), self._wanted(batch)) for batch in batches]

        # Views that lie in files are too large to be held: they are read again for each step.
        held = None if features.block else blocks()
        found = solve(
            lambda: held or blocks(),
            (self.labels, self.weight.shape[1]),
            several=self.kind == "multi",
            penalty=own.penalty,
            steps=own.steps,
            tolerance=own.tolerance,
            device=features.device,
        )
        self.weight.copy_(found.weight)
        self.bias.copy_(found.bias)
        self.steps.fill_(found.steps)
        self.converged.fill_(found.steepest <= own.tolerance)
        if not self.converged:
            log.warning(
                "sa_bfgs did not converge in %d steps: the gradient is still %.1e, more than "
                "train.sa_bfgs.tolerance %.1e. Set train.sa_bfgs.steps (now %d) or "
                "train.sa_bfgs.penalty (now %g) higher",
                found.steps,
                found.steepest,
                own.tolerance,
                own.steps,
                own.penalty,
            )

    def logits(self, batch: Batch) -> Float[Tensor, "B C"]:
        return self._seen(batch) @ self.weight.T + self.bias

    def _seen(self, batch: Batch) -> Float[Tensor, "B W"]:
        return side_by_side(self.see, list(self.widths), batch)

    def _wanted(self, batch: Batch) -> Float[Tensor, "B C"]:
        true = batch.truth
        if self.kind == "multi":
            return true
        return true / true.sum(-1, keepdim=True).clamp(min=1e-6)


@dataclass(frozen=True)
class Solution:
    """weight (C, W), bias (C,), float64; steepest: the largest number of the gradient there."""

    weight: Float[Tensor, "C W"]
    bias: Float[Tensor, " C"]
    steps: int
    steepest: float


def solve(
    blocks: Callable[[], Sequence[Block]],
    shape: tuple[int, int],
    *,
    several: bool,
    penalty: float,
    steps: int,
    tolerance: float,
    device: torch.device,
) -> Solution:
    """The minimum of `value_and_gradient` of these persons over weight and bias, of `shape` (C, W)
    and (C,), from 0."""
    from scipy.optimize import minimize

    labels, width = shape

    def parts(flat: np.ndarray) -> tuple[Tensor, Tensor]:
        both = torch.from_numpy(flat).to(device).reshape(labels, width + 1)
        return both[:, :width], both[:, width]

    def at(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, weight, bias = value_and_gradient(blocks(), *parts(flat), several, penalty)
        slope = torch.cat([weight, bias[:, None]], 1)
        return float(value), slope.cpu().numpy().ravel()

    found = minimize(
        at,
        np.zeros(labels * (width + 1)),
        jac=True,
        method="L-BFGS-B",
        # ends by the gradient alone: what a step gains says little of how far the minimum is
        options={"maxiter": steps, "maxfun": 4 * steps, "gtol": tolerance, "ftol": 0.0},
    )
    weight, bias = parts(found.x)
    return Solution(weight, bias, int(found.nit), float(np.abs(found.jac).max()))


def value_and_gradient(
    blocks: Sequence[Block],
    weight: Float[Tensor, "C W"],
    bias: Float[Tensor, " C"],
    several: bool,
    penalty: float,
) -> tuple[Float[Tensor, ""], Float[Tensor, "C W"], Float[Tensor, " C"]]:
    """Of the mean loss over the persons of `blocks`, and penalty |weight|^2: the value, and its
    gradients by weight and by bias, (p - t)^T x and (p - t)^T 1 over the persons. All in float64.

    several: the binary cross-entropy, mean over labels; else that of the softmax, which is the KL
    divergence and a constant.
    """
    value = penalty * weight.square().sum()
    by_weight, by_bias = 2 * penalty * weight, torch.zeros_like(bias)
    persons = sum(len(seen) for seen, _ in blocks)
    share = 1 / (persons * (len(bias) if several else 1))
    for seen, wanted in blocks:
        seen, wanted = seen.double(), wanted.double()
        logits = torch.addmm(bias, seen, weight.T)
        if several:
            loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
            off = logits.sigmoid() - wanted
        else:
            loss = F.cross_entropy(logits, wanted, reduction="sum")
            off = logits.softmax(-1) - wanted
        value = value + share * loss
        by_weight = by_weight + share * (off.T @ seen)
        by_bias = by_bias + share * off.sum(0)
    return value, by_weight, by_bias
