"""Many HugMe heads at once against one after another, at EMOTIC's widths, side by side in one run.

    python benchmarks/sweep.py [--heads 1,4,16,64] [--persons N] [--epochs 3] [--rounds 1] [--json]

Heads of the paper's shape that differ in lr, beta, lambda, dropout and weight decay (`settings`),
and beside those in the seed, so that no two see the same batch (`seeds`). For each K, in seconds of
K whole fits of the same number of steps, set-up included:

together        all K in step: `train.fit_many.fit_many` with `train.together` K
one by one      `train.fit`, head after head; where K is above --alone, so many heads times K / n
automatic       `train.together` null: what it takes, and its time with the measuring

`ratio` is one by one / together, `times_one` together / one head; `epoch_ratio` and
`epoch_times_one` are the same of an epoch after the first, without set-up: what a long fit comes
to. `measuring_s` is what the automatic choice spends on measuring, once a shape (with all set-up
where it goes in step and memory has no room for K at once); where it goes one after another, its
time too is taken from --alone heads. `auto_over_one_by_one` is of these short
fits, `auto_paper` the same of EMOTIC's 388 steps and 50 epochs, extrapolated from the epochs and
the measuring. `difference` is that of the scores on val between head 0 of the group and the same
head alone. Goals: on a GPU 64 heads in at most 4 times the time of one; on a CPU the automatic
choice never slower than one after another.
"""

import argparse
import contextlib
import json
import math
import resource
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from made import ROOT, machine, made_features  # isort: split

import torch

from pipelines.settings import load
from train import fit_many as module
from train.data import Features
from train.fit import Fitted, fit, predict
from train.settings import Train

PACKAGES = ["torch", "numpy"]
SKIPPED = {"region"}  # HugMe reads none
EMOTIC_TRAIN = 23_266
PAPER_STEPS = 388 * 50
GOALS = {"cuda": "64 heads in at most 4 times one", "cpu": "automatic never slower than one by one"}
LINE = "{:9}{:>4}  {:>10} {:>11} {:>6} {:>9} {:>11} {:>8}  {}"


@dataclass(frozen=True)
class Took:
    """seconds: of all fits; epoch: of all of them in an epoch after the first; before: what of
    `seconds` went by in no fit; together: how many were in step at the start; measured: how many
    were fitted, the others count as they; fitted: head 0."""

    seconds: float
    epoch: float
    before: float
    together: int
    measured: int
    fitted: Fitted


def varied(count: int, epochs: int, seeds: bool) -> list[Train]:
    """The paper's settings, varied, without early stopping."""
    paper = load(ROOT / "pipelines/profiles/paper.yaml").train
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        own = {
            "beta": float(rng.uniform(0.3, 0.7)),
            "lambda_c": float(rng.uniform(0.6, 1)),
            "dropout": float(rng.uniform(0.05, 0.5)),
        }
        changes: dict[str, Any] = {
            "seed": number if seeds else 0,
            "lr": float(10 ** rng.uniform(-5, -3)),
            "weight_decay": float(10 ** rng.uniform(-5, -2)),
            "epochs": epochs,
            "select": "last",
            "hugme": paper.hugme.model_copy(update=own),
        }
        found.append(paper.model_copy(update=changes))
    return found


def many(features: Features, settings: Sequence[Train], at_once: int | None, alone: int) -> Took:
    """By `fit_many`; where it goes one after another, `alone` of them."""
    asked = [one.model_copy(update={"together": at_once}) for one in settings]
    ends: list[float] = []  # of epochs, head after head
    in_step: list[int] = []
    inside = 0.0
    started = time.perf_counter()
    for done in module.fit_many(
        features, asked, lambda number, row: ends.append(time.perf_counter())
    ):
        if isinstance(done.fitted, Exception):
            raise done.fitted
        inside += done.seconds
        in_step.append(done.together)
        if done.number == 0:
            first = done.fitted
        if done.together == 1 and len(in_step) == alone:
            break
    wait(features.device)
    before = time.perf_counter() - started - inside
    at_start, measured = in_step[0], len(in_step)
    times, epoch = len(settings) / measured, 0.0
    while in_step:  # of those in step an epoch ends once for all
        count = in_step[0]
        ended = ends[: count * settings[0].epochs][count - 1 :: count]
        epoch += each(ended)
        del ends[: count * settings[0].epochs], in_step[:count]
    return Took(before + inside * times, epoch * times, before, at_start, measured, first)


def each(ended: Sequence[float]) -> float:
    """Seconds of an epoch after the first, which warms up."""
    return float(np.median(np.diff(ended)))


def one_by_one(features: Features, settings: Sequence[Train], alone: int) -> Took:
    """By `fit`, `alone` of them at most."""
    epoch, first = 0.0, None
    started = time.perf_counter()
    for one in settings[:alone]:
        ends: list[float] = []
        fitted = fit(features, one, lambda row, ends=ends: ends.append(time.perf_counter()))
        first = first or fitted
        epoch += each(ends)
    wait(features.device)
    seconds = time.perf_counter() - started
    measured = min(alone, len(settings))
    times = len(settings) / measured
    return Took(seconds * times, epoch * times, 0.0, 1, measured, first)


def room(features: Features, settings: Sequence[Train]) -> tuple[int, float]:
    """Heads that memory has room for, and the GB that one is planned to take."""
    free = module._room(features.device)
    cost = module.Group(features, settings[: module.TRIED]).cost()
    return max(1, int(free / cost)), cost / 1e9


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def forget_peak(device: torch.device) -> None:
    """And on a GPU give back what torch holds in store, which counts as taken."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak of this process, on Linux


def peak(device: torch.device) -> float:
    """GB at most since `forget_peak`: on the GPU, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e9
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def compare(
    features: Features, settings: Sequence[Train], alone: int, rounds: int
) -> dict[str, Any]:
    """A row: K heads both ways and as chosen, in turn, the median of the rounds."""
    count = len(settings)
    forget_peak(features.device)
    fits, cost = room(features, settings)
    row: dict[str, Any] = {"K": count, "room": fits, "planned_GB": round(cost * count, 2)}
    group: list[Took] = []
    single: list[Took] = []
    chosen: list[Took] = []
    peaks: list[float] = []
    for _ in range(rounds):
        if count <= fits:
            forget_peak(features.device)
            group.append(many(features, settings, count, count))
            peaks.append(peak(features.device))
        single.append(one_by_one(features, settings, alone))
        forget_peak(features.device)
        chosen.append(many(features, settings, None, alone))
    one, one_epoch = median(single, "seconds"), median(single, "epoch")
    in_step = chosen[-1].together > 1
    measuring = median(chosen, "before")
    if in_step and group:  # before it begins a group is set up, in the automatic choice too
        measuring = max(0.0, measuring - median(group, "before"))
    paper = one_epoch / steps(len(features.rows("train")), settings) * PAPER_STEPS
    row |= {
        "one_by_one_s": one,
        "measured_on": single[0].measured,
        "one_s": one / count,
        "automatic": "in step" if in_step else "one after another",
        "automatic_together": chosen[-1].together,
        "auto_s": median(chosen, "seconds"),
        "auto_measured_on": chosen[-1].measured,
        "measuring_s": measuring,
        "auto_over_one_by_one": median(chosen, "seconds") / one,
        "auto_paper": median(chosen, "epoch") / one_epoch + measuring / paper,
    }
    if not group:
        return row | {"note": f"memory has room for {fits} heads, not for {count}"}
    whole, epoch = median(group, "seconds"), median(group, "epoch")
    val = features.rows("val")
    scores = [predict(took[-1].fitted.model, features, val) for took in (group, single)]
    return row | {
        "together_s": whole,
        "ratio": one / whole,
        "times_one": whole / (one / count),
        "epoch_ratio": one_epoch / epoch,
        "epoch_times_one": epoch / (one_epoch / count),
        "peak_GB": max(peaks),
        "difference": float(np.abs(scores[0] - scores[1]).max()),
    }


def steps(persons: int, settings: Sequence[Train]) -> int:
    """In an epoch."""
    return math.ceil(persons / settings[0].batch)


def median(took: Sequence[Took], name: str) -> float:
    return statistics.median(getattr(one, name) for one in took)


def show(series: str, row: dict[str, Any]) -> None:
    """A line of the table, as soon as it is known."""

    def said(name: str) -> str:
        value = row.get(name)
        return "" if value is None else f"{value:.2f}"

    remarks = [f"automatic: {row['automatic']}, {row['auto_s']:.1f} s"]
    remarks.append(f"{row['measuring_s']:.1f} s of it measuring")
    remarks.append(f"at the paper's length {row['auto_paper']:.2f} of one by one")
    if "difference" in row:
        remarks.append(f"{row['peak_GB']:.1f} GB at the peak, {row['planned_GB']} planned")
        remarks.append(f"head 0 differs by {row['difference']:.1e}")
    else:
        remarks.append(row["note"])
    if row["measured_on"] < row["K"]:
        remarks.append(f"one by one measured on {row['measured_on']} heads")
    cells = [said(n) for n in ("together_s", "one_by_one_s", "ratio", "times_one")]
    more = [said(n) for n in ("epoch_ratio", "epoch_times_one")]
    print(LINE.format(series, row["K"], *cells, *more, "; ".join(remarks)), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--heads", default="1,4,16,64", help="values of K")
    parser.add_argument("--persons", type=int, help="of train; default: 180, on a GPU EMOTIC's")
    parser.add_argument("--epochs", type=int, default=3, help="2 or more")
    parser.add_argument("--rounds", type=int, help="default: 1, on a GPU 2")
    parser.add_argument(
        "--alone", type=int, default=4, help="at most so many are measured one by one"
    )
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    if asked.epochs < 2:
        parser.error("--epochs: the first warms up, so there should be 2 or more")

    device = asked.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    gpu = device == "cuda"
    persons = asked.persons or (EMOTIC_TRAIN if gpu else 180)
    rounds = asked.rounds or (2 if gpu else 1)
    counts = [int(one) for one in asked.heads.split(",")]
    features = made_features(persons, skipped=SKIPPED, device=device)
    fit(features, varied(1, 1, False)[0])  # warms up

    about = machine(*PACKAGES) | {"device": device}
    if gpu:
        about["gpu"] = torch.cuda.get_device_name()
    print(f"{persons} persons, {asked.epochs} epochs. Goal: {GOALS[device]}.")
    names = ("K", "together s", "one by one", "ratio", "times one", "epoch ratio", "times one")
    print(LINE.format("differ in", *names, ""), flush=True)
    rows: dict[str, list[dict[str, Any]]] = {"settings": [], "seeds": []}
    for count in counts:
        for series, found in rows.items():
            some = varied(count, asked.epochs, series == "seeds")
            found.append(compare(features, some, asked.alone, rounds))
            show(series, found[-1])
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    if asked.json:
        result: dict[str, Any] = {"persons": persons, "epochs": asked.epochs, "rounds": rounds}
        result["K"] = counts
        for series, found in rows.items():
            columns = {name: [rounded(row.get(name)) for row in found] for name in names_of(found)}
            result |= columns if series == "settings" else {series: columns}
        print(json.dumps({**result, "goal": GOALS[device], "machine": about}))


def names_of(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [name for name in dict.fromkeys(name for row in rows for name in row) if name != "K"]


def rounded(value: Any) -> Any:
    """Four digits; None for what was not measured."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
