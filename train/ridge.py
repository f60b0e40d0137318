"""The ridge path: one factorisation of the features, then any penalty for a matrix product."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from train.data import Batch, Features
from train.labels import HAS
from train.metrics import mean_average_precision

AT_ONCE = 1024  # persons in one pass
See = Callable[[str, Batch], Tensor]


@dataclass(frozen=True)
class Solution:
    """y = x weight^T + bias on the features x of `views` side by side; penalty: the chosen one,
    a person; merit: on val, higher is better."""

    views: tuple[str, ...]
    penalty: float
    merit: float
    weight: Float[Tensor, "C W"]
    bias: Float[Tensor, " C"]


class Ridge:
    """argmin_W |T - X W|^2 + lambda N |W|^2 for N training persons, any views, any lambda.

    X: centred features of all views side by side, each view in its leading directions over the
    training persons; T: centred labels. X^T X is formed once, in float64; a set of views is a
    block of it, X^T X = Q s Q^T is factorised once a set, and W = Q (Q^T X^T T) / (s + lambda N).

    see: features (B, W) of one view; components: directions kept of a view, 0 for all.
    """

    def __init__(
        self,
        see: See,
        views: Sequence[str],
        features: Features,
        train: Tensor,
        val: Tensor,
        components: int,
    ):
        self.see, self.features = see, features
        self.turn: dict[str, Tensor] = {}
        self.columns: dict[str, Tensor] = {}
        start = 0
        for name in views:
            _, gram, _ = self._moments(train, partial(see, name))
            _, directions = torch.linalg.eigh(gram)
            kept = min(components or len(gram), len(gram), max(len(train) - 1, 1))
            self.turn[name] = directions[:, -kept:].flip(1)
            self.columns[name] = torch.arange(start, start + kept, device=features.device)
            start += kept
        self.count = len(train)
        self.mean, self.gram, self.cross = self._moments(train, self._turned)
        self.rate = features.truth(train).double().mean(0)
        blocks = [self._turned(batch) for batch in features.batches(val, AT_ONCE)]
        self.val = torch.cat(blocks) - self.mean
        self.truth = features.truth(val).double()

    def solve(self, views: Sequence[str], penalties: Sequence[float]) -> Solution:
        """The best of the penalties on val: by mAP, or by squared error where val has no label."""
        columns = torch.cat([self.columns[name] for name in views])
        values, directions = torch.linalg.eigh(self.gram[columns][:, columns])
        turned = directions.T @ self.cross[columns]
        seen = self.val[:, columns] @ directions
        best: tuple[float, float, Tensor] | None = None
        for penalty in penalties:
            solved = turned / (values.clamp(min=0) + penalty * self.count)[:, None]
            merit = self._merit(seen @ solved + self.rate)
            if best is None or merit > best[0]:
                best = merit, penalty, directions @ solved
        assert best is not None
        merit, penalty, solved = best
        at, weights = 0, []
        for name in views:
            width = len(self.columns[name])
            weights.append(self.turn[name] @ solved[at : at + width])
            at += width
        bias = self.rate - self.mean[columns] @ solved
        return Solution(tuple(views), penalty, merit, torch.cat(weights).T.float(), bias.float())

    def scores(self, solution: Solution, rows: Tensor) -> np.ndarray:
        """y of these person rows (N, C), float32."""
        found = []
        for batch in self.features.batches(rows, AT_ONCE):
            seen = torch.cat([self.see(name, batch) for name in solution.views], -1)
            found.append(seen @ solution.weight.T + solution.bias)
        return torch.cat(found).cpu().numpy()

    def _merit(self, scores: Float[Tensor, "M C"]) -> float:
        true = self.truth > HAS
        if true.any():
            return mean_average_precision(true.cpu().numpy(), scores.cpu().numpy())
        return -float((scores - self.truth).square().mean())

    def _turned(self, batch: Batch) -> Tensor:
        return torch.cat([self.see(n, batch).double() @ turn for n, turn in self.turn.items()], -1)

    def _moments(
        self, rows: Tensor, see: Callable[[Batch], Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """mean (S,), and of the centred features X^T X (S, S) and X^T T (S, C)."""
        total = gram = cross = torch.zeros((), dtype=torch.float64, device=rows.device)
        truth = self.features.truth(rows).double()
        rate = truth.mean(0)
        batches = self.features.batches(rows, AT_ONCE)
        for batch, labels in zip(batches, truth.split(AT_ONCE), strict=True):
            values = see(batch).double()
            total = total + values.sum(0)
            gram = gram + values.T @ values
            cross = cross + values.T @ (labels - rate)
        mean = total / len(rows)
        return mean, gram - len(rows) * mean[:, None] * mean[None], cross
