"""Fitting many heads: which can go in step, how many at once, and whether that is faster."""

import copy
import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from cache.errors import EmocacheError, SettingsError
from cache.files import write_atomic
from cache.keys import key_of
from train.data import Batch, Features
from train.fit import (
    AT_ONCE,
    Course,
    Fitted,
    Row,
    fit,
    fit_key,
    optimizer,
    pace,
    read_state,
    refuse_empty,
    seeded,
    selected_by,
)
from train.heads import get_head, may_differ
from train.metrics.on_device import mean_average_precision
from train.settings import Train
from train.stack import Stack, Unstackable

log = logging.getLogger("train")
# Settings in which heads that go in step may differ, whatever head they are.
FREE = {
    *("seed", "lr", "weight_decay", "momentum", "schedule", "warmup", "epochs", "patience"),
    *("select", "save_every", "memory", "tensorboard", "together"),
}
TRIED = 4  # heads by which the two ways are timed, and steps of each
FASTER = 0.9  # the part of its time alone that a head in step may take: below what timing misses
ALIKE = 4  # heads of one seed, which see the same batches, that are worth a group of their own
ROOM = 0.6  # of the memory that is free
# Copies of a head's parameters: themselves, gradient (twice for a moment), two moments, the kept
# epoch's, and the fitted head's.
COPIES = 7
SAVING = 0.05  # of the time, at most, goes into keeping fits in progress
Watch = Callable[[int, Row], bool | None]


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


@dataclass(frozen=True)
class Way:
    """share: the part of its time alone that a head takes in step; at_once: how many go so."""

    share: float
    at_once: int

    def words(self) -> str:
        how = f"{self.at_once} in step" if self.at_once > 1 else "one after another"
        return f"{how} (in step a head takes {self.share:.2f} of its time alone)"


def fit_many(
    features: Features,
    settings: Sequence[Train],
    watch: Watch = lambda number, row: False,
    resume: Path | None = None,
    ways: dict[str, Way] | None = None,
) -> Iterator[Done]:
    """Fit a head for each of the settings; each becomes what `fit` makes of it alone, but for the
    order of sums, and comes as soon as it is done.

    features: with all views that any of them reads; alone each gets its own only.

    Heads that differ in `FREE` and in what their class `may_differ` in go in step, where that is
    faster: a few steps of both ways are timed, and as many go at once as memory has room for
    (`train.together`). Closed forms, heads that cannot be stacked and views that lie in files go
    one after another. A fit that fails does not end the others.

    watch: gets number and row of each epoch; true ends that fit there. resume: a folder for the
    fits in progress, from which they go on after a kill. ways: of heads, as far as they have been
    measured; what is measured now is added.
    """
    ways = {} if ways is None else ways
    refuse_empty(features, settings[0])
    for group in groups(settings):
        shape = key_of({"shape": _shape(settings[group[0]])})
        saved = None if resume is None else resume / f"together-{shape[:16]}.pt"
        for some in _chunks(features, settings, group, saved, ways):
            if len(some) == 1:
                yield _alone(features, settings[some[0]], some[0], watch, resume)
            else:
                yield from _in_step(features, settings, some, watch, saved)


def groups(settings: Sequence[Train]) -> list[list[int]]:
    """Places of the settings whose heads have one shape and can go in step; many of one seed stay
    among themselves."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(settings):
        found.setdefault(_shape(one), []).append(number)
    parts: list[list[int]] = []
    for group in found.values():
        of_seed: dict[int, list[int]] = {}
        for number in group:
            of_seed.setdefault(settings[number].seed, []).append(number)
        alike = [some for some in of_seed.values() if ALIKE <= len(some) < len(group)]
        rest = [n for n in group if not any(n in some for some in alike)]
        parts += [*alike, *([rest] if rest else [])]
    return parts


def _shape(settings: Train) -> str:
    own = set(may_differ(settings.head) or ())
    return settings.model_dump_json(exclude={**dict.fromkeys(FREE, True), settings.head: own})


def _alone(
    features: Features, settings: Train, number: int, watch: Watch, resume: Path | None
) -> Done:
    started, dropped = time.perf_counter(), False
    file = None if resume is None else resume / f"{fit_key(features, settings)[:16]}.pt"

    def say(row: Row) -> bool:
        nonlocal dropped
        dropped = bool(watch(number, row))
        return dropped

    fitted: Fitted | EmocacheError
    try:
        views = get_head(settings.head).views(settings)
        fitted = fit(features.only(views), settings, say, file)
    except EmocacheError as error:
        fitted = error
    return Done(number, fitted, 1, dropped, time.perf_counter() - started)


def _chunks(
    features: Features,
    settings: Sequence[Train],
    group: list[int],
    saved: Path | None,
    ways: dict[str, Way],
) -> Iterator[list[int]]:
    """The group in parts that go in step; parts of one where they do not. Those that a killed run
    has left in `saved` come first, as it had them."""
    left = list(group)
    if saved is not None and saved.exists() and (state := read_state(saved)) is not None:
        keys = {fit_key(features, settings[n]): n for n in group}
        again = [keys[key] for key in state["keys"] if key in keys]
        if len(again) > 1:
            yield again
            left = [n for n in left if n not in again]
    at_once = 1
    if len(left) > 1:
        at_once = _at_once(features, [settings[n] for n in left], ways)
    for at in range(0, len(left), at_once):
        yield left[at : at + at_once]


def _at_once(features: Features, settings: Sequence[Train], ways: dict[str, Way]) -> int:
    """How many of these heads, which have one shape, go in step."""
    head, forced = settings[0].head, settings[0].together
    most = min([len(settings), *(one.together for one in settings if one.together)])
    if most == 1 or may_differ(head) is None or features.block:
        return 1
    if forced is None and head in ways and ways[head].at_once == 1:
        return 1
    try:
        few = _Group(features, settings[: min(TRIED, most)])
        most = min(most, max(1, int(_room(features.device) / few.cost())))
        if forced is None and head not in ways:
            ways[head] = _way(features, settings, few, most)
    except (Unstackable, RuntimeError) as reason:  # of vmap, where a head looks into its numbers
        log.info("%s: one head after another, %s", head, reason)
        return 1
    return most if forced else min(most, ways[head].at_once)


def _way(features: Features, settings: Sequence[Train], few: "_Group", most: int) -> Way:
    """Twice as many go in step as long as each takes clearly less of its time so."""
    own = features.only(get_head(settings[0].head).views(settings[0]))
    alone = seconds_alone(own, settings[0])
    count, took, chosen = len(few.numbers), few.seconds(), 1
    # Again, for whatever else the machine does may have come between.
    best = alone = min(alone, seconds_alone(own, settings[0]))
    while count <= most and took / count <= FASTER * best:
        chosen, best = count, took / count
        if count == most:
            break
        count = min(2 * count, most)
        took = _Group(features, settings[:count]).seconds()
    least = best if chosen > 1 else took / count
    return Way(least / alone, chosen)


def _room(device: torch.device) -> float:
    """Bytes that heads may take."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return ROOM * (torch.cuda.mem_get_info(device)[0] + kept)
    return ROOM * psutil.virtual_memory().available


def seconds_alone(features: Features, settings: Train) -> float:
    """A step of one head by itself; 0 for a closed form, which takes none."""
    train = features.rows("train")
    with seeded(settings.seed, features.device):
        head = get_head(settings.head).setup(settings, features, train)
        if not any(p.requires_grad for p in head.parameters()):
            return 0.0
        steps = optimizer([{"params": list(head.parameters())}], settings, features.device)
        head.train()

        def step() -> None:
            batch = features.batch(train[: settings.batch])
            loss = head.loss(head(batch), batch)
            steps.zero_grad()
            loss.backward()
            steps.step()

        return _quickest(step, features.device)


def _quickest(step: Callable[[], Any], device: torch.device) -> float:
    """Seconds of the quickest of some steps: what else the machine does only adds to them."""
    times = []
    for _ in range(TRIED + 1):
        started = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times[1:])


def _in_step(
    features: Features,
    settings: Sequence[Train],
    some: list[int],
    watch: Watch,
    saved: Path | None,
) -> Iterator[Done]:
    began = time.perf_counter()
    group = _Group(features, [settings[n] for n in some], some)
    group.share_time(time.perf_counter() - began)
    if saved is not None:
        group.load(saved)
    kept = time.monotonic()
    for number, course in zip(group.numbers, group.courses, strict=True):
        for row in course.history:
            watch(number, row)
    while group.numbers:
        started = time.perf_counter()
        failed = group.epoch()
        dropped = {
            number
            for number, course in zip(group.numbers, group.courses, strict=True)
            if number not in failed and watch(number, course.history[-1])
        }
        group.share_time(time.perf_counter() - started)
        yield from group.leave(failed, dropped, len(some))
        pause = time.monotonic()
        if saved is None or not group.numbers:
            continue
        if pause - kept >= max(settings[some[0]].save_every, group.saving / SAVING):
            group.save(saved)
            kept = time.monotonic()
    if saved is not None:
        saved.unlink(missing_ok=True)


class _Group:
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
        total = torch.zeros(len(self.numbers), dtype=torch.float64, device=self.val.device)
        scores = []
        for batch in self.features.batches(self.val, AT_ONCE):
            loss, found = self.stack.validate(batch)
            total += loss.double() * len(batch.box)
            scores.append(found)
        true = self.features.truth(self.val) > 0.5
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

    def seconds(self) -> float:
        """A step of all."""
        some = self.train[: self.first.batch]
        rows = some if self.shared else some.repeat(len(self.numbers))
        return _quickest(
            lambda: self.step(self.features.batch(rows), self.shared), self.features.device
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
