"""Descending a network on batches of pictures: resumable, on one device or on several."""

import io
import logging
import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from cache.errors import CacheError, DataError, SettingsError, in_few
from cache.files import write_atomic, writing_to
from train.fit import read_state
from train.uniemox.pictures import Pictures, Source, Split
from train.uniemox.ranks import World, apart, joined
from train.uniemox.settings import Descent

log = logging.getLogger("train")
LEAST = 2  # pictures of a forward pass that learns: losses compare them
LOOK = 16  # steps between two looks at the loss, for which a GPU has to be waited for
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Row = dict[str, int | float]  # of the history
Places = list[int]  # of pictures in a split: a batch


@runtime_checkable
class Task(Protocol):
    """A module (nn.Module) that learns from pictures.

    A parameter that requires a gradient must have a part in every loss; where that cannot be, an
    attribute `unused` that is true has several devices look for the others, which takes time.
    """

    def __call__(self, pictures: Pictures) -> Mapping[str, Float[Tensor, ""]]:
        """Means over the batch: "loss", which is descended, and others, which are told."""
        ...

    def measure(self, pictures: Pictures) -> Mapping[str, Float[Tensor, ""]]:
        """The same and more of held-out pictures, in evaluation mode: sums over the batch."""
        ...

    def groups(self) -> list[dict[str, Any]]:
        """Groups of parameters for AdamW, each with "params", "weight_decay" and, if it is not 1,
        "scale", the factor of its learning rate."""
        ...

    # What every nn.Module has.
    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def to(self, device: torch.device) -> Any: ...
    def train(self, mode: bool = True) -> Any: ...
    def eval(self) -> Any: ...


@dataclass(frozen=True)
class Course:
    """history: a row an epoch with epoch (from 1), loss and the other means over the pictures of
    train, val_loss ... over those of val where there are any, lr (of scale 1, in the last step),
    pictures (learned from), seconds, waited (of these, for pictures); best_epoch: the kept one;
    lost: reasons by row of pictures that could not be read; skipped: forward passes that were left
    out, having come with fewer than 2 pictures; resumed: steps that a stopped run had made before.
    """

    history: list[Row]
    best_epoch: int
    lost: dict[int, str]
    skipped: int = 0
    resumed: int = 0


def descend(
    task: Task,
    source: Source,
    settings: Descent,
    device: torch.device | str,
    *,
    key: str,
    resume: Path | None = None,
    select: Callable[[Row], float] | None = None,
    progress: Callable[[int, int, str], Any] | None = None,
    after: Callable[[int, Row], Any] | None = None,
) -> Course:
    """Descend the loss of `task` on the train pictures; it ends on `device`, in evaluation mode,
    with the weights of the epoch of which `select` gives most, or of the last.

    A step has batch x accumulate x devices pictures of a permutation that seed and epoch decide;
    those that fill no step wait for another epoch. AdamW, betas (.9, .95), with the learning rate

        settings.lr * pictures of a step / 256 * scale of the group * pace(step)

    One process with accumulate 2 makes the steps of two with accumulate 1, to rounding. What a task
    draws of torch's or NumPy's own random numbers depends on seed, epoch, step and batch alone.

    resume: a file, written by the first process every `settings.save_every` seconds between two
    steps, after the last epoch, and on Ctrl-C in a run of one process. A run of the same key, which
    should hold everything that decides the numbers, goes on from there and ends as if it had not
    been stopped, on one CPU to the last bit. The file stays: delete it once the result is safe.
    progress: gets steps done, steps in all and words on how it goes, after each step; after: gets
    each epoch with its row, the task in evaluation mode; both in the first process, and `after`
    again for an epoch that is made again.

    Raises DataError where there are too few pictures or all of an epoch are lost, SettingsError
    where the loss stops being finite or the device cannot do the arithmetic, CacheError where
    several processes do not find the same `resume`.
    """
    with joined(device) as world, _own_random_numbers(world.device):
        run = Run(task, source, settings, world, key, resume, select)
        run.load()
        try:
            while run.epoch <= settings.epochs:
                run.make_epoch(progress, after)
        except KeyboardInterrupt:
            run.save_alone()
            raise
        return run.end()


def pace(step: int, steps: int, settings: Descent) -> float:
    """What the learning rate of a step (from 0; `steps` an epoch) is multiplied with: rising over
    the warm-up, then half a cosine down to 0 at the end of the last epoch."""
    rising = settings.warmup * steps
    if step < rising:
        return (step + 1) / rising
    falling = max(settings.epochs * steps - rising, 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / falling))


def plan(count: int, settings: Descent, world: int, epoch: int) -> list[list[Places]]:
    """Of each step of an epoch its batches, of which the m-th goes to process m % world.

    Where the pictures fill no step, all of them make one, in as few batches as hold them; the
    others are empty.
    """
    order = np.random.default_rng([settings.seed, epoch]).permutation(count)
    batches = settings.accumulate * world
    if steps := count // (settings.batch * batches):
        whole = order[: steps * batches * settings.batch]
        return whole.reshape(steps, batches, settings.batch).tolist()
    few = min(math.ceil(count / settings.batch), count // LEAST)
    parts = [part.tolist() for part in np.array_split(order, few)]
    return [parts + [[] for _ in range(batches - few)]]


@dataclass
class Tally:
    """Sums over what one process has seen of an epoch."""

    sums: dict[str, Tensor] = field(default_factory=dict)  # in float64, on the device
    pictures: int = 0
    skipped: int = 0
    seconds: float = 0.0
    waited: float = 0.0

    def add(self, sums: Mapping[str, Tensor], pictures: int) -> None:
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value.detach().double()
        self.pictures += pictures

    def join(self, other: "Tally") -> None:
        self.add(other.sums, other.pictures)
        self.skipped += other.skipped
        self.waited += other.waited

    def state(self) -> dict[str, Any]:
        """The same as plain values."""
        return {**vars(self), "sums": {name: float(value) for name, value in self.sums.items()}}

    @classmethod
    def of(cls, state: Mapping[str, Any], device: torch.device) -> "Tally":
        sums = {
            name: torch.tensor(value, dtype=torch.float64, device=device)
            for name, value in state["sums"].items()
        }
        return cls(**{**state, "sums": sums})


class Run:
    """A descent between two steps: all that decides how it goes on."""

    def __init__(
        self,
        task: Task,
        source: Source,
        settings: Descent,
        world: World,
        key: str,
        resume: Path | None,
        select: Callable[[Row], float] | None,
    ):
        self.settings, self.section = settings, type(settings).__name__.lower()
        self.source, self.world, self.resume, self.select = source, world, resume, select
        self.dtype = self._arithmetic()
        self.count = self._count()
        self.steps = len(plan(self.count, settings, world.size, 1))
        self.key = f"{key} {world.size} x {world.device.type} {self.dtype}"
        self.task = task
        task.to(world.device)
        self.model = world.wrap(Learning(task), getattr(task, "unused", False))
        self.base = settings.lr * settings.batch * settings.accumulate * world.size / 256
        self.optimizer = torch.optim.AdamW(
            [{"scale": 1.0, **group} for group in task.groups()],
            lr=self.base,
            betas=(0.9, 0.95),
            weight_decay=settings.weight_decay,
            fused=world.device.type in ("cpu", "cuda"),
        )
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=self.dtype is torch.float16)
        self.epoch, self.step = 1, 0  # the next step to make
        self.tally = Tally()  # of this epoch
        self.history: list[Row] = []
        self.lost: dict[int, str] = {}
        self.skipped = self.resumed = 0
        self.best, self.best_epoch = -math.inf, 0
        self.kept: dict[str, Tensor] = {}
        self.whole = True  # nothing of a step is half done
        self.said = ""
        self.saved = self.clock = time.monotonic()

    def _arithmetic(self) -> torch.dtype:
        name, kind = self.settings.precision, self.world.device.type
        if name == "auto":
            name = "bfloat16" if kind == "cuda" else "float32"
        if name == "float16" and kind == "cpu":
            raise SettingsError(
                f"{self.section}.precision is float16, for which a CPU has no arithmetic: set it "
                "to auto, float32 or bfloat16"
            )
        return DTYPES[name]

    def _count(self) -> int:
        count, settings = self.source.count("train"), self.settings
        if count < LEAST:
            raise DataError(
                f"{count or 'no'} train picture{'s' * (count != 1)} to learn from, and a batch "
                f"needs {LEAST} ({self.section}.batch is {settings.batch}): check data.root and "
                "run `emocache prepare`"
            )
        whole = settings.batch * settings.accumulate * self.world.size
        if count < whole:
            log.warning(
                "%d train pictures make no whole step of %d: all of them make one; lower %s.batch",
                count,
                whole,
                self.section,
            )
        return count

    @property
    def done(self) -> int:
        """Steps made."""
        return (self.epoch - 1) * self.steps + self.step

    def make_epoch(
        self,
        progress: Callable[[int, int, str], Any] | None,
        after: Callable[[int, Row], Any] | None,
    ) -> None:
        """The steps that are left of an epoch, and its row."""
        self.clock = time.monotonic() - self.tally.seconds
        steps = plan(self.count, self.settings, self.world.size, self.epoch)[self.step :]
        own = [step[self.world.rank :: self.world.size] for step in steps]
        self.task.train()
        with closing(self._read("train", [some for step in own for some in step])) as reader:
            for step, batches in zip(steps, own, strict=True):
                # A mean over the batches of all processes that have pictures.
                share = self.world.size / sum(map(bool, step))
                self.make_step(batches, share, reader)
                said = self.look()
                if progress is not None and self.world.first:
                    progress(self.done, self.settings.epochs * self.steps, said)
        self.task.eval()
        row = self._row()
        if after is not None and self.world.first:
            after(self.epoch, row)
        self._close(row)
        if self._due(self.epoch > self.settings.epochs):
            self.save()

    def make_step(
        self, batches: Sequence[Places], share: float, reader: Iterator[Pictures | None]
    ) -> None:
        """One step of the optimizer. A process goes through as many backward passes as the others,
        also where it has no pictures, and a step of none at all is a step of zero gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(self.done) * group["scale"]
        found = Tally()
        self.optimizer.zero_grad()
        for turn, _ in enumerate(batches):
            begun = time.monotonic()
            pictures = next(reader)
            found.waited += time.monotonic() - begun
            if pictures is not None:
                self.lost |= pictures.lost
                if len(pictures) < LEAST:
                    found.skipped += 1
                    pictures = None
                else:
                    pictures = pictures.to(self.world.device)
            batch = turn * self.world.size + self.world.rank
            reseed(self.settings.seed, self.epoch, self.step, batch)
            last = turn == len(batches) - 1
            with nullcontext() if last else apart(self.model):
                with self._autocast():
                    means = self.model(pictures)
                self.scaler.scale(means["loss"] * share).backward()
            if pictures is not None:
                count = len(pictures)
                found.add({n: mean.detach() * count for n, mean in means.items()}, count)
        self.whole = False
        if self.settings.clip is not None:
            self.scaler.unscale_(self.optimizer)
            every = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(every, self.settings.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.tally.join(found)
        self.step += 1
        self.whole = True

    def _rate(self, step: int) -> float:
        return self.base * pace(step, self.steps, self.settings)

    def _autocast(self) -> AbstractContextManager[Any]:
        kind, on = self.world.device.type, self.dtype is not torch.float32
        return torch.autocast(kind, self.dtype, enabled=on)

    def _read(
        self, split: Split, batches: Sequence[Places]
    ) -> Generator[Pictures | None, None, None]:
        """What there is at these places; None for none, for which the source is not asked."""
        asked = [some for some in batches if some]
        found = self.source.read(split, asked, self.epoch) if asked else iter(())
        try:
            for some in batches:
                yield next(found) if some else None
        finally:
            # Not left to the collector: the source may have processes that read ahead.
            if (close := getattr(found, "close", None)) is not None:
                close()

    def look(self) -> str:
        """Every few steps: refuse a loss that is not finite, save if it is time. Gives words."""
        on_gpu = self.world.device.type != "cpu"
        if self.step == self.steps or not on_gpu or self.done % LOOK == 0:
            self._refuse({name: float(value) for name, value in self.tally.sums.items()})
            if self._due():
                self.save()
            if self.tally.pictures:
                self.said = f", loss {float(self.tally.sums['loss']) / self.tally.pictures:.4g}"
        return f"epoch {self.epoch} of {self.settings.epochs}{self.said}"

    def _refuse(self, sums: Mapping[str, float], where: str = "") -> None:
        wrong = {name: value for name, value in sums.items() if not math.isfinite(value)}
        if not wrong:
            return
        name, value = next(iter(wrong.items()))
        mend = f"lower {self.section}.lr (now {self.settings.lr:g})"
        if self.dtype is not torch.float32:
            mend += f", or set {self.section}.precision to float32"
        raise SettingsError(
            f"the {where}{name} is not finite in epoch {self.epoch}, after {self.done} steps "
            f"({value}): {mend}"
        )

    def _row(self) -> Row:
        """Of the epoch, whose steps are made: the same in every process."""
        tallies = self._gather(self.tally)
        means, pictures = self._means(tallies, "train", self.count)
        return {
            "epoch": self.epoch,
            **means,
            **self._held_out(),
            "lr": self._rate(self.done - 1),
            "pictures": pictures,
            "seconds": self.world.agree(time.monotonic() - self.clock),
            "waited": max(one["waited"] for one in tallies),
        }

    @torch.no_grad()
    def _held_out(self) -> Row:
        count, batch = self.source.count("val"), self.settings.batch
        if not count:
            return {}
        batches = [[*range(first, min(first + batch, count))] for first in range(0, count, batch)]
        tally = Tally()
        reseed(self.settings.seed, 0, 0, self.world.rank)
        with closing(self._read("val", batches[self.world.rank :: self.world.size])) as reader:
            for pictures in reader:
                assert pictures is not None
                self.lost |= pictures.lost
                if len(pictures):
                    with self._autocast():
                        sums = self.task.measure(pictures.to(self.world.device))
                    tally.add(sums, len(pictures))
        means, _ = self._means(self._gather(tally), "val", count)
        self._refuse(means, "val ")
        return {f"val_{name}": value for name, value in means.items()}

    def _gather(self, tally: Tally) -> list[dict[str, Any]]:
        """The tally of every process, and in each what any of them has lost."""
        found = self.world.gather((tally.state(), self.lost))
        self.lost = {row: why for _, lost in found for row, why in lost.items()}
        return [state for state, _ in found]

    def _means(
        self, tallies: Sequence[Mapping[str, Any]], split: str, count: int
    ) -> tuple[dict[str, float], int]:
        pictures = sum(one["pictures"] for one in tallies)
        if not pictures:
            raise DataError(
                f"no batch of the {count} {split} pictures could be read in epoch {self.epoch} "
                f"({in_few(sorted(set(self.lost.values()))) or 'no reason given'}): check data.root"
            )
        sums: dict[str, float] = {}
        for one in tallies:
            for name, value in one["sums"].items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: value / pictures for name, value in sums.items()}, pictures

    def _close(self, row: Row) -> None:
        """Take the epoch into the history, and its weights where they are the best."""
        self.whole = False
        self.history.append(row)
        if self.select is None:
            self.best_epoch = self.epoch
        elif (merit := self.select(row)) > self.best or not self.kept:
            self.best, self.best_epoch = merit, self.epoch
            state = self.task.state_dict()
            self.kept = {name: value.detach().cpu().clone() for name, value in state.items()}
        self.skipped += sum(self.world.gather(self.tally.skipped))
        self.epoch, self.step, self.tally = self.epoch + 1, 0, Tally()
        self.whole = True

    def end(self) -> Course:
        if self.kept:
            self.task.load_state_dict(self.kept)
        self.task.eval()
        return Course(self.history, self.best_epoch, self.lost, self.skipped, self.resumed)

    def _due(self, now: bool = False) -> bool:
        """Whether to save: the first process says so, and all of them take part."""
        if self.resume is None:
            return False
        return self.world.agree(now or time.monotonic() - self.saved >= self.settings.save_every)

    def save(self) -> None:
        assert self.resume is not None
        self.tally.seconds = time.monotonic() - self.clock
        tallies = self._gather(self.tally)
        if self.world.first:
            sink = io.BytesIO()
            state = {
                "key": self.key,
                "epoch": self.epoch,
                "step": self.step,
                "tallies": tallies,
                "model": self.task.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "history": self.history,
                "lost": self.lost,
                "skipped": self.skipped,
                "best": self.best,
                "best_epoch": self.best_epoch,
                "kept": self.kept,
            }
            torch.save(state, sink)
            with writing_to(self.resume):
                write_atomic(self.resume, sink.getvalue())
        self.saved = time.monotonic()

    def save_alone(self) -> None:
        """Save if it takes no other process, and nothing is half done."""
        if self.resume is not None and self.world.size == 1 and self.whole:
            self.save()

    def load(self) -> None:
        """Go on from `resume`, where it is of this very run; else begin."""
        if self.resume is None:
            return
        state = read_state(self.resume) if self.resume.exists() else None
        if state is not None and state.get("key") != self.key:
            log.warning(
                "%s is of a run with other settings, data or devices: this one begins at the "
                "beginning",
                self.resume,
            )
            state = None
        places = self.world.gather(None if state is None else (state["epoch"], state["step"]))
        if len(set(places)) > 1:
            raise CacheError(
                f"the processes do not all find the same {self.resume}: put it on a disk that all "
                "machines share, or delete it to begin again"
            )
        if state is None:
            return
        self.task.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.tally = Tally.of(state["tallies"][self.world.rank], self.world.device)
        for name in ("epoch", "step", "history", "lost", "skipped", "best", "best_epoch", "kept"):
            setattr(self, name, state[name])
        self.resumed = self.done


class Learning(nn.Module):
    """The task in training; of no pictures it makes a loss of 0, so that every process has a
    gradient for every parameter."""

    def __init__(self, task: Any):
        super().__init__()
        self.task = task

    def forward(self, pictures: Pictures | None) -> Mapping[str, Tensor]:
        if pictures is not None:
            return self.task(pictures)
        learning = [one.sum() for one in self.parameters() if one.requires_grad]
        return {"loss": 0 * torch.stack(learning).sum()}


def reseed(*numbers: int) -> None:
    """Torch's own random numbers, and NumPy's (of which timm's mixup draws), from these."""
    low, high = (int(some) for some in np.random.SeedSequence(numbers).generate_state(2))
    torch.manual_seed(high << 32 | low)
    np.random.seed(low)


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Afterwards torch and NumPy are as if nothing had been drawn."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            np.random.set_state(before)
