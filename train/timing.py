"""How long an epoch takes, from a few steps of it."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from train.data import Features
from train.fit import Run, seeded, validate
from train.settings import Train

TIMES = 4  # of which the quickest counts


@dataclass(frozen=True)
class Epoch:
    """Seconds of an epoch: so many steps, one of them, and what comes after the last: scoring val
    and keeping the epoch."""

    steps: int
    step: float
    end: float

    @property
    def all(self) -> float:
        return self.steps * self.step + self.end


def epoch_seconds(features: Features, settings: Train) -> Epoch:
    """How long an epoch takes, from a few steps; a closed form has no step."""
    train, val = features.rows("train"), features.rows("val")
    with seeded(settings.seed, features.device):
        run = Run(features, settings, train)
        steps = 0 if run.closed else math.ceil(len(train) / settings.batch)
        step = quickest(lambda: run.descend(train[: settings.batch]), features) if steps else 0.0

        def end() -> None:
            validate(run.model, features, val)
            run.kept = {name: value.clone() for name, value in run.model.state_dict().items()}

        return Epoch(steps, step, quickest(end, features))


def quickest(work: Callable[[], Any], features: Features) -> float:
    """Seconds of the quickest of some times: what else the machine does only adds to them."""
    times = []
    for _ in range(TIMES + 1):
        started = time.perf_counter()
        work()
        if features.device.type == "cuda":
            torch.cuda.synchronize(features.device)
        times.append(time.perf_counter() - started)
    return min(times[1:])
