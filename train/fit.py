"""Fitting one head: AdamW over batches gathered on the device, early stopping on val."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from cache.errors import DataError, SettingsError
from train.data import Features
from train.heads import get_head
from train.metrics import mean_average_precision
from train.settings import Train

AT_ONCE = 1024  # persons in one forward pass without gradient


@dataclass(frozen=True)
class Fitted:
    """model: the head of the kept epoch, in evaluation mode; history: a row an epoch with epoch
    (from 1), train_loss, val_loss and val_map (NaN where val cannot say); best_epoch: the kept
    one; selected_by: "val_map", "val_loss" (val has no positive) or "last"."""

    model: Any
    history: list[dict[str, int | float]]
    best_epoch: int
    selected_by: str


def fit(
    features: Features,
    settings: Train,
    progress: Callable[[dict[str, int | float]], None] | None = None,
) -> Fitted:
    """Fit the head `settings.head` on the train persons; keep the epoch that is best on val.

    Better is a higher val mAP, or at equal mAP a lower val loss; the val loss alone where no val
    person has any label. With one seed the result is the same to the last bit on CPU. `progress`
    gets each row of the history. Raises DataError when train or val is empty, SettingsError when
    the loss stops being finite.
    """
    train, val = features.rows("train"), features.rows("val")
    _refuse_empty(features, settings, len(train), len(val))
    device = features.device
    if settings.select == "last":
        selected_by = "last"
    else:
        selected_by = "val_map" if bool((features.truth(val) > 0.5).any()) else "val_loss"
    history: list[dict[str, int | float]] = []
    best: tuple[float, float] = (-math.inf, -math.inf)
    best_epoch = 0
    kept: dict[str, Tensor] = {}
    with _seeded(settings.seed, device):
        order = torch.Generator().manual_seed(settings.seed)
        model = get_head(settings.head).setup(settings, features, train)
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
        for epoch in range(1, settings.epochs + 1):
            shuffled = train[torch.randperm(len(train), generator=order).to(device)]
            train_loss = _epoch(model, optimizer, features, shuffled, settings.batch)
            val_loss, val_map = _validate(model, features, val)
            if (
                not math.isfinite(train_loss)
                or math.isinf(val_loss)
                or (len(val) and math.isnan(val_loss))
            ):
                raise SettingsError(
                    f"the loss is not finite in epoch {epoch} (train {train_loss}, val "
                    f"{val_loss}): lower train.lr (now {settings.lr}), or set train.standardise"
                )
            row: dict[str, int | float] = {
                "epoch": epoch,
                "train_loss": train_loss,
                "val_loss": val_loss,
                "val_map": val_map,
            }
            history.append(row)
            if progress is not None:
                progress(row)
            merit = {
                "val_map": (val_map, -val_loss),
                "val_loss": (-val_loss, 0.0),
                "last": (float(epoch), 0.0),
            }[selected_by]
            if merit > best or not kept:
                best, best_epoch = merit, epoch
                kept = {name: value.clone() for name, value in model.state_dict().items()}
            elif epoch - best_epoch >= settings.patience:
                break
    model.load_state_dict(kept)
    return Fitted(model.eval(), history, best_epoch, selected_by)


@torch.no_grad()
def predict(model: Any, features: Features, rows: Int[Tensor, " N"]) -> np.ndarray:
    """Scores (N, C) of these person rows, float32."""
    model.eval()
    scores = [model(features.batch(some)).scores for some in rows.split(AT_ONCE)]
    return torch.cat(scores).cpu().numpy() if scores else np.zeros((0, len(features.labels)))


def _epoch(
    model: Any,
    optimizer: torch.optim.Optimizer,
    features: Features,
    rows: Int[Tensor, " N"],
    size: int,
) -> float:
    """One pass over the rows; the mean loss a person, read from the device once."""
    model.train()
    total = torch.zeros((), device=rows.device)
    for some in rows.split(size):
        batch = features.batch(some)
        loss = model.loss(model(batch), batch.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.detach() * len(some)
    return float(total) / len(rows)


@torch.no_grad()
def _validate(model: Any, features: Features, rows: Int[Tensor, " N"]) -> tuple[float, float]:
    """Loss and mAP; NaN without rows, the mAP also without a positive."""
    if not len(rows):
        return math.nan, math.nan
    model.eval()
    scores, total = [], 0.0
    for some in rows.split(AT_ONCE):
        batch = features.batch(some)
        output = model(batch)
        total += float(model.loss(output, batch.target)) * len(some)
        scores.append(output.scores)
    true = (features.truth(rows) > 0.5).cpu().numpy()
    loss = total / len(rows)
    if not true.any() or not math.isfinite(loss):
        return loss, math.nan
    return loss, mean_average_precision(true, torch.cat(scores).cpu().numpy())


def _refuse_empty(features: Features, settings: Train, train: int, val: int) -> None:
    for split, count in (("train", train), ("val", val)):
        if count or (split == "val" and settings.select == "last"):
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
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch's own random numbers from `seed`, and afterwards as if nothing had been drawn."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
