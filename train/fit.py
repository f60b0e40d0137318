"""Fitting one head: batches gathered on the device, early stopping on val, resumable."""

import io
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from cache.errors import DataError, SettingsError
from cache.files import write_atomic
from cache.keys import key_of
from train.data import Batch, Features
from train.heads import closed, get_head
from train.labels import ranks
from train.metrics.on_device import mean_average_precision
from train.settings import NO_NUMBER, Train, of_others

log = logging.getLogger("train")
AT_ONCE = 1024  # persons in one forward pass without gradient
Row = dict[str, int | float]  # of a fit's history


@dataclass(frozen=True)
class Fitted:
    """model: the head of the kept epoch, in evaluation mode; history: a row an epoch with epoch
    (from 1), train_loss, val_loss and val_map (NaN where val cannot say); best_epoch: the kept
    one; selected_by: "val_map", "val_loss" (val has no positive, or distributions) or "last";
    descended: false for a head with a closed form, which is done in one epoch; resumed: the epoch
    after which a stopped fit went on, 0 for one from the start."""

    model: Any
    history: list[Row]
    best_epoch: int
    selected_by: str
    descended: bool = True
    resumed: int = 0


def fit(
    features: Features,
    settings: Train,
    progress: Callable[[Row], bool | None] | None = None,
    resume: Path | None = None,
) -> Fitted:
    """Fit the head `settings.head` on the train persons; keep the epoch that is best on val.

    Better is a higher val mAP, or at equal mAP a lower val loss; the val loss alone where no val
    person has any label, labels are distributions, or `settings.select` says so. With one seed the
    result is the same to the last bit on CPU. `progress` gets each row of the history, and ends
    the fit there by returning true. resume: a file that holds the fit between two epochs, written
    every `settings.save_every` seconds; a fit of the same settings and features that was killed
    goes on from there and ends as if it had not been. Raises DataError when train or val is empty,
    SettingsError when the loss stops being finite.
    """
    train, val = features.rows("train"), features.rows("val")
    refuse_empty(features, settings)
    say = progress or (lambda row: None)
    with seeded(settings.seed, features.device):
        run = Run(features, settings, train)
        course = run.course
        saved, resumed, ended = time.monotonic(), 0, False
        if resume is not None:
            run.load(resume)
            resumed = len(course.history)
            for row in course.history:
                ended = bool(say(row)) or ended
        while not (course.over or ended):
            row = run.epoch(train, val)
            ended = bool(say(row))
            if resume is not None and time.monotonic() - saved >= settings.save_every:
                run.save(resume)
                saved = time.monotonic()
        if resume is not None:
            resume.unlink(missing_ok=True)
    run.model.load_state_dict(run.kept)
    return course.fitted(run.model.eval(), resumed)


class Course:
    """The epochs of a fit so far, and which of them is the best."""

    def __init__(self, settings: Train, selected_by: str, closed: bool = False):
        self.settings, self.selected_by, self.closed = settings, selected_by, closed
        self.history: list[Row] = []
        self.best: tuple[float, float] = (-math.inf, -math.inf)
        self.best_epoch = 0

    @property
    def over(self) -> bool:
        done = len(self.history)
        if self.closed:  # a head that is solved, not descended, is done in one
            return done == 1
        waited = done - self.best_epoch
        return done >= self.settings.epochs or (done > 0 and waited >= self.settings.patience)

    def add(self, train_loss: float, val_loss: float, val_map: float, val: int) -> bool:
        """One more epoch, with so many persons of val; whether it is the best so far. Raises
        SettingsError where a loss is not finite."""
        epoch = len(self.history) + 1
        unknown = val and math.isnan(val_loss)
        if not math.isfinite(train_loss) or math.isinf(val_loss) or unknown:
            raise SettingsError(
                f"the loss is not finite in epoch {epoch} (train {train_loss}, val {val_loss}): "
                f"lower train.lr (now {self.settings.lr}), or set train.standardise"
            )
        self.history.append(
            {"epoch": epoch, "train_loss": train_loss, "val_loss": val_loss, "val_map": val_map}
        )
        merit = {
            "val_map": (val_map, -val_loss),
            "val_loss": (-val_loss, 0.0),
            "last": (float(epoch), 0.0),
        }[self.selected_by]
        if merit > self.best or epoch == 1:
            self.best, self.best_epoch = merit, epoch
        return self.best_epoch == epoch

    def fitted(self, model: Any, resumed: int = 0) -> Fitted:
        return Fitted(
            model, self.history, self.best_epoch, self.selected_by, not self.closed, resumed
        )

    def state(self) -> dict[str, Any]:
        return {"history": self.history, "best": self.best, "best_epoch": self.best_epoch}

    def load(self, state: dict[str, Any]) -> None:
        self.history, self.best, self.best_epoch = (
            state[name] for name in ("history", "best", "best_epoch")
        )


def selected_by(features: Features, settings: Train) -> str:
    """By what the epoch is chosen: see `Fitted`."""
    if settings.select == "last":
        return "last"
    by_map = ranks(features.kind, features.truth(features.rows("val")).cpu().numpy())
    return "val_map" if by_map and settings.select == "val" else "val_loss"


class Run:
    """A fit between two epochs: all that decides how it goes on."""

    def __init__(self, features: Features, settings: Train, train: Int[Tensor, " N"]):
        self.features, self.settings = features, settings
        self.order = torch.Generator().manual_seed(settings.seed)
        self.model = get_head(settings.head).setup(settings, features, train)
        self.closed = closed(settings.head)
        if not self.closed:
            some = [{"params": list(self.model.parameters())}]
            self.optimizer = optimizer(some, settings, features.device)
            steps = math.ceil(len(train) / settings.batch)
            self.schedule = LambdaLR(self.optimizer, lambda step: pace(step, steps, settings))
        self.course = Course(settings, selected_by(features, settings), self.closed)
        self.kept: dict[str, Tensor] = {}

    def epoch(self, train: Int[Tensor, " N"], val: Int[Tensor, " M"]) -> Row:
        if self.closed:
            train_loss, _ = validate(self.model, self.features, train)
        else:
            drawn = torch.randperm(len(train), generator=self.order).to(train.device)
            train_loss = self.descend(train[drawn])
        val_loss, val_map = validate(self.model, self.features, val)
        if self.course.add(train_loss, val_loss, val_map, len(val)):
            self.kept = {name: value.clone() for name, value in self.model.state_dict().items()}
        return self.course.history[-1]

    def descend(self, rows: Int[Tensor, " N"]) -> float:
        """One pass over the rows; the mean loss a person, read from the device once."""
        self.model.train()
        total = torch.zeros((), device=rows.device)
        for batch in self.features.batches(rows, self.settings.batch):
            loss = self.model.loss(self.model(batch), batch)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.schedule.step()
            total += loss.detach() * len(batch.box)
        return float(total) / len(rows)

    def save(self, path: Path) -> None:
        if self.closed:
            return
        random = [torch.get_rng_state()]
        if self.features.device.type == "cuda":
            random.append(torch.cuda.get_rng_state(self.features.device))
        sink = io.BytesIO()
        state = {
            "key": fit_key(self.features, self.settings),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.last_epoch,
            "order": self.order.get_state(),
            "random": random,
            "kept": self.kept,
            "course": self.course.state(),
        }
        torch.save(state, sink)
        write_atomic(path, sink.getvalue())

    def load(self, path: Path) -> None:
        """Go on from `path`, where it is of this very fit; else begin."""
        if self.closed or not path.exists():
            return
        state = read_state(path)
        if state is None or state["key"] != fit_key(self.features, self.settings):
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.last_epoch = state["schedule"]
        self.order.set_state(state["order"])
        torch.set_rng_state(state["random"][0])
        if self.features.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"][1], self.features.device)
        self.kept = {name: value.to(self.features.device) for name, value in state["kept"].items()}
        self.course.load(state["course"])


def fit_key(features: Features, settings: Train) -> str:
    """Of everything that decides the numbers of a fit but the code."""
    idle = NO_NUMBER | of_others(settings.head)
    return key_of(
        {
            "settings": settings.model_dump(mode="json", exclude=idle),
            "index": features.index_digest,
            "views": features.keys,
            "device": features.device.type,
            "torch": str(torch.__version__),
        }
    )


def read_state(path: Path) -> dict[str, Any] | None:
    """Of a fit in progress; None, and a word, where the file is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # a damaged file raises anything; a fit can begin again
        log.warning("%s is damaged: the fit begins again", path)
        return None


def optimizer(
    some: Sequence[dict[str, Any]], settings: Train, device: torch.device
) -> torch.optim.Optimizer:
    """some: parameter groups; what they do not name comes from the settings."""
    more: dict[str, Any] = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    more["fused"] = device.type in ("cpu", "cuda")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(some, momentum=settings.momentum, **more)
    return torch.optim.AdamW(some, **more)


def pace(step: int, steps: int, settings: Train) -> float:
    """What the learning rate of a step (from 0; `steps` an epoch) is multiplied with: rising over
    the warm-up, then 1, or half a cosine down to 0 at the end of the last epoch."""
    rising = settings.warmup * steps
    if step < rising:
        return (step + 1) / rising
    if settings.schedule == "constant":
        return 1.0
    falling = max(settings.epochs * steps - rising, 1)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / falling)))


def outputs_of(
    model: Any, features: Features, rows: Int[Tensor, " N"]
) -> Iterator[tuple[Batch, Any]]:
    """These person rows and what the head says of them, some at a time."""
    model.eval()
    for batch in features.batches(rows, AT_ONCE):
        with torch.no_grad():  # not around the yield, which would reach the caller
            output = model(batch)
        yield batch, output


def predict(model: Any, features: Features, rows: Int[Tensor, " N"]) -> Float[np.ndarray, "N C"]:
    """Scores of these person rows, float32."""
    scores = [output.scores for _, output in outputs_of(model, features, rows)]
    none = np.zeros((0, len(features.labels)), np.float32)
    return torch.cat(scores).cpu().numpy() if scores else none


def facts_of(fitted: Fitted, features: Features) -> dict[str, Any]:
    """What is said of a fit wherever it is kept, as plain values: the kept epoch and its numbers on
    val (None where val cannot say), how many persons and parameters."""
    kept = fitted.history[fitted.best_epoch - 1]
    on_val = {n: None if math.isnan(kept[n]) else kept[n] for n in ("val_map", "val_loss")}
    return {
        "best_epoch": fitted.best_epoch,
        "selected_by": fitted.selected_by,
        **on_val,
        "epochs": len(fitted.history),
        "parameters": sum(p.numel() for p in fitted.model.parameters()),
        "device": str(features.device),
        "untrained": features.untrained,
    }


@torch.no_grad()
def validate(model: Any, features: Features, rows: Int[Tensor, " N"]) -> tuple[float, float]:
    """Loss and mAP; NaN without rows, the mAP also without a positive."""
    if not len(rows):
        return math.nan, math.nan
    model.eval()
    scores, total = [], 0.0
    for batch in features.batches(rows, AT_ONCE):
        output = model(batch)
        total += float(model.loss(output, batch)) * len(batch.box)
        scores.append(output.scores)
    loss = total / len(rows)
    if not math.isfinite(loss):
        return loss, math.nan
    return loss, float(mean_average_precision(features.has(rows), torch.cat(scores)))


def refuse_empty(features: Features, settings: Train) -> None:
    """Raises DataError where there is no person to fit or to select on."""
    for split in ("train", "val"):
        if len(features.rows(split)) or (split == "val" and settings.select == "last"):
            continue
        reasons = features.dropped.get(split, {})
        said = ", ".join(f"{n} {why}" for why, n in reasons.items())
        why = f"all of it was dropped ({said})" if said else "the index has no such person"
        mend = (
            "run `emocache prepare` on data with a val split, or set train.select to last"
            if split == "val"
            else "check data.root and run `emocache prepare` and `emocache extract`"
        )
        raise DataError(f"no {split} person to fit on: {why}; {mend}")


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own random numbers from `seed`, and afterwards as if nothing had been drawn."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
