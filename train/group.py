"""Heads in step between two epochs: one shape, and each its own course."""

import copy
import io
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cache.errors import EmocacheError, SettingsError
from cache.files import write_atomic
from train.data import Batch, Features
from train.fit import (
    AT_ONCE,
    Course,
    Fitted,
    fit_key,
    optimizer,
    pace,
    read_state,
    seeded,
    selected_by,
)
from train.heads import get_head
from train.metrics.on_device import mean_average_precision
from train.settings import Train
from train.stack import Stack, Unstackable
from train.timing import Epoch, quickest

# Copies of a head's parameters: themselves, gradient (twice for a moment), two moments, the kept
# epoch's, and the fitted head's.
COPIES = 7


@dataclass(frozen=True)
class Done:
    """One of many fits. number: its place among the settings; fitted: what came of it, or the
    reason why nothing did; together: how many heads were in step with it at the start, itself
    included; dropped: whether `watch` ended it, so that `fitted` is the best until then; seconds:
    its share of the time."""

    number: int
    fitted: Fitted | EmocacheError
    together: int = 1
    dropped: bool = False
    seconds: float = 0.0


class Group:
    """Heads in step, between two epochs."""

    def __init__(
        self, features: Features, settings: Sequence[Train], numbers: Sequence[int] | None = None
    ):
        self.features, self.first = features, settings[0]
        self.numbers = list(range(len(settings)) if numbers is None else numbers)
        self.settings = list(settings)
        self.train, self.val = features.rows("train"), features.rows("val")
        models, drawn = [], []
        for one in settings:
            with seeded(one.seed, features.device):
                models.append(get_head(one.head).setup(one, features, self.train))
                drawn.append(_generator(one.seed, features.device))
        self.narrow: list[Any] = []  # as they are alone, where in step they are stretched
        if any(model.spec != models[0].spec for model in models[1:]):
            if not hasattr(models[0], "stretched"):
                raise Unstackable("their shapes are not the same")
            wide = [model.stretched(features, self.train) for model in models]
            self.narrow, models = [model.to("meta") for model in models], wide
        self.wide = copy.deepcopy(models[0]).to("meta")
        self.stack = Stack(models, drawn)
        self.orders = [torch.Generator().manual_seed(one.seed) for one in settings]
        self.courses = [Course(one, selected_by(features, one)) for one in settings]
        self.kept = [self.stack.state(k) for k in range(len(models))]
        self.times = [0.0] * len(models)
        self.steps = 0  # of the optimizer so far
        self.saving = 0.0  # seconds that it took to save this
        self.resumed = 0
        self._optimizer()

    @property
    def shared(self) -> bool:
        """Whether all see the same persons in the same order."""
        return len({one.seed for one in self.settings}) == 1

    def _optimizer(self, states: Sequence[dict[str, Any]] | None = None) -> None:
        """One fused step for each row of the stack; states: of the optimizer that goes."""
        rows = list(self.stack.weights)
        for row, gradient in zip(rows, self.stack.gradient, strict=True):
            row.grad = gradient
        self.optimizer = optimizer(
            [
                {"params": [row], "lr": one.lr, "weight_decay": one.weight_decay}
                | ({"momentum": one.momentum} if one.optimizer == "sgd" else {})
                for row, one in zip(rows, self.settings, strict=True)
            ],
            self.first,
            self.features.device,
        )
        for row, state in zip(rows, states or [], strict=False):
            self.optimizer.state[row] = state

    def states(self) -> list[dict[str, Any]]:
        """Of the optimizer, one a head."""
        groups = self.optimizer.param_groups
        return [self.optimizer.state.get(group["params"][0], {}) for group in groups]

    def epoch(self) -> dict[int, EmocacheError]:
        """One pass over train for all, then val; those that failed, by number."""
        orders = torch.stack(
            [torch.randperm(len(self.train), generator=drawn) for drawn in self.orders]
        ).to(self.train.device)
        shared = self.shared
        total = torch.zeros(len(self.numbers), device=self.train.device)
        batches = (
            self.features.batches(self.train[orders[0]], self.first.batch)
            if shared
            else (
                self.features.batch(self.train[some].flatten())
                for some in orders.split(self.first.batch, dim=1)
            )
        )
        for batch in batches:
            count = len(batch.box) if shared else len(batch.box) // len(self.numbers)
            total += self.step(batch, shared) * count
        val_loss, val_map = self.validate()
        failed: dict[int, EmocacheError] = {}
        for k, found in enumerate(
            zip((total / len(self.train)).tolist(), val_loss, val_map, strict=True)
        ):
            try:
                if self.courses[k].add(*found, len(self.val)):
                    self.kept[k] = self.stack.state(k)
            except SettingsError as error:
                failed[self.numbers[k]] = error
        return failed

    def step(self, batch: Batch, shared: bool) -> Tensor:
        """One step of each head; the losses before it (K,)."""
        losses = self.stack.descend(batch, shared)
        steps = math.ceil(len(self.train) / self.first.batch)
        for group, one in zip(self.optimizer.param_groups, self.settings, strict=True):
            group["lr"] = one.lr * pace(self.steps, steps, one)
        self.optimizer.step()
        self.steps += 1
        return losses

    def validate(self) -> tuple[list[float], list[float]]:
        """Loss and mAP of each on val, as `fit` has them."""
        unknown = [math.nan] * len(self.numbers)
        if not len(self.val):
            return unknown, unknown
        total = torch.zeros(len(self.numbers), dtype=torch.float64)
        scores = []
        for batch in self.features.batches(self.val, AT_ONCE):
            loss, found = self.stack.validate(batch)
            total += loss.cpu().double() * len(batch.box)
            scores.append(found)
        true = self.features.has(self.val)
        together = torch.cat(scores, dim=1)
        ranked = mean_average_precision(true, together.nan_to_num())
        ranked[~together.isfinite().all(-1).all(-1)] = math.nan
        return (total / len(self.val)).tolist(), ranked.tolist()

    def share_time(self, seconds: float) -> None:
        self.times = [time + seconds / len(self.times) for time in self.times]

    def leave(
        self, failed: dict[int, EmocacheError], dropped: set[int], together: int
    ) -> Iterator[Done]:
        """Those that are done; the others go on without them."""
        over = [
            k
            for k, number in enumerate(self.numbers)
            if number in failed or number in dropped or self.courses[k].over
        ]
        done = [
            Done(
                self.numbers[k],
                failed.get(self.numbers[k]) or self._fitted(k),
                together,
                self.numbers[k] in dropped and not self.courses[k].over,
                self.times[k],
            )
            for k in over
        ]
        if over:
            self._keep([k for k in range(len(self.numbers)) if k not in over])
        yield from done

    def _keep(self, some: list[int]) -> None:
        states = self.states()
        for name in ("numbers", "settings", "orders", "courses", "kept", "times", "narrow"):
            values = getattr(self, name)
            setattr(self, name, [values[k] for k in some] if values else values)
        if some:
            self.stack.keep(some)
            self._optimizer([states[k] for k in some])

    def _fitted(self, k: int) -> Fitted:
        one = self.settings[k]
        alone = self.narrow[k] if self.narrow else self.wide
        with seeded(one.seed, self.features.device):
            model = get_head(one.head)(one, **alone.spec)
        state = alone.shrunk(self.kept[k], self.wide) if self.narrow else self.kept[k]
        model.load_state_dict(state)
        return self.courses[k].fitted(model.to(self.features.device).eval(), self.resumed)

    def cost(self) -> float:
        """Bytes that one more head takes: its numbers, and what a step holds for its gradient."""
        held = 0
        own = {self.stack.weights.untyped_storage().data_ptr()}

        def count(tensor: Tensor) -> Tensor:
            nonlocal held
            if tensor.untyped_storage().data_ptr() not in own:
                own.add(tensor.untyped_storage().data_ptr())
                held += tensor.untyped_storage().nbytes()
            return tensor

        some = self.train[: self.first.batch]
        rows = some if self.shared else some.repeat(len(self.numbers))
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            self.stack.losses(self.features.batch(rows), self.shared)
        return COPIES * self.stack.weights[0].nbytes + 2 * held / len(self.numbers)

    def seconds(self) -> Epoch:
        """How long an epoch of all takes, as `epoch_seconds`."""
        some = self.train[: self.first.batch]
        rows = some if self.shared else some.repeat(len(self.numbers))

        def end() -> None:
            self.validate()
            self.kept = [self.stack.state(k) for k in range(len(self.numbers))]

        return Epoch(
            math.ceil(len(self.train) / self.first.batch),
            quickest(lambda: self.step(self.features.batch(rows), self.shared), self.features),
            quickest(end, self.features),
        )

    def save(self, path: Path) -> None:
        started = time.monotonic()
        sink = io.BytesIO()
        state = {
            "keys": [fit_key(self.features, one) for one in self.settings],
            "weights": self.stack.weights,
            "buffers": self.stack.buffers,
            "random": [drawn.get_state() for drawn in self.stack.generators],
            "orders": [drawn.get_state() for drawn in self.orders],
            "optimizer": self.states(),
            "courses": [course.state() for course in self.courses],
            "kept": self.kept,
            "times": self.times,
            "steps": self.steps,
        }
        torch.save(state, sink)
        write_atomic(path, sink.getvalue())
        self.saving = time.monotonic() - started

    def load(self, path: Path) -> None:
        """Go on from `path`, where it is of these very heads; else begin."""
        state = read_state(path) if path.exists() else None
        keys = [fit_key(self.features, one) for one in self.settings]
        if state is None or not set(keys) <= set(state["keys"]):
            return
        at = [state["keys"].index(key) for key in keys]
        device = self.features.device
        with torch.no_grad():
            self.stack.weights.copy_(state["weights"][at])
            for name, values in self.stack.buffers.items():
                values.copy_(state["buffers"][name][at])
        for k, saved in enumerate(at):
            self.stack.generators[k].set_state(state["random"][saved])
            self.orders[k].set_state(state["orders"][saved])
            self.courses[k].load(state["courses"][saved])
            self.kept[k] = {n: v.to(device) for n, v in state["kept"][saved].items()}
        self.times = [state["times"][saved] for saved in at]
        self.steps = state["steps"]
        self.resumed = len(self.courses[0].history)
        moved = [
            {
                n: v.to(device) if n != "step" or v.ndim else v
                for n, v in state["optimizer"][k].items()
            }
            for k in at
        ]
        self._optimizer(moved)


def _generator(seed: int, device: torch.device) -> torch.Generator:
    """Torch's own random numbers on the device as they stand."""
    drawn = torch.Generator(device).manual_seed(seed)
    if device.type == "cpu":
        drawn.set_state(torch.get_rng_state())
    return drawn
