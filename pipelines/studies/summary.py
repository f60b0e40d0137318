"""A head under some settings over a few seeds, as numbers: their means, how much other seeds would
change them, and how much other pictures would."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from pipelines.studies.trials import Trial
from train import metrics
from train.metrics.measures import MAIN
from train.settings import Train


@dataclass(frozen=True)
class Entry:
    """A head under some settings, to be fitted over the seeds. without: its ablation, or ""."""

    head: str
    without: str
    settings: tuple[Train, ...]

    @property
    def name(self) -> str:
        return f"{self.head} without {self.without}" if self.without else self.head


@dataclass(frozen=True)
class Summary:
    """An entry over its seeds, on one split. All numbers are fractions.

    missing: why it has no numbers, in words, else ""; main: the measure that heads are compared by.
    mean, half: of each measure its mean over the seeds and half of its t interval, NaN for one
    seed; low, high: of the main measure's mean, by resampling pictures, with the seeds held;
    drawn: that mean in each resample; resampled: see `trials.resampled`, "" where it is not known;
    per_class: label -> its AP for each seed; positives: label -> persons; numbers: all of the first
    seed, for N and its like; keys: of the trials.
    """

    entry: Entry
    missing: str = ""
    main: str = ""
    mean: Mapping[str, float] = field(default_factory=dict)
    half: Mapping[str, float] = field(default_factory=dict)
    low: float = math.nan
    high: float = math.nan
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(0))
    resampled: str = ""
    per_class: Mapping[str, np.ndarray] = field(default_factory=dict)
    positives: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)
    keys: Sequence[str] = ()


def summarise(entry: Entry, trials: Sequence[Trial], split: str, confidence: float) -> Summary:
    """One entry from its trials, a seed each. One that failed, or could not be measured, leaves the
    entry without numbers: a mean over the seeds that went well would be another number."""
    for trial, one in zip(trials, entry.settings, strict=True):
        if trial.status != "ok":
            seed = f"seed {one.seed}: " if trial.status == "failed" else ""
            return Summary(entry, f"{trial.status}, {seed}{trial.reason}")
    records = [trial.record for trial in trials if trial.record is not None]
    measured = [trial.measured(split) for trial in trials]
    main = MAIN[measured[0]["kind"]].name
    mean, half = {}, {}
    for name in measured[0]:
        values = [value for one in measured if isinstance(value := one.get(name), float)]
        if len(values) == len(measured):
            mean[name] = float(np.mean(values))
            # A closed form has no seeds: one fit stands for all.
            fits = values if len({trial.key for trial in trials}) > 1 else values[:1]
            half[name] = half_width(np.array(fits), confidence)
    if main not in mean:
        return Summary(entry, f"no {main} on {split}: no person of it has a label")
    drawn = np.mean([record["drawn"][split] for record in records], axis=0)
    low, high = metrics.interval_of(mean[main], drawn, confidence)
    # Trials that an older emocache kept do not say.
    resamples = {record.get("resampled", {}).get(split, "") for record in records}
    rows = [record["per_class"][split] for record in records]
    return Summary(
        entry,
        main=main,
        mean=mean,
        half=half,
        low=low,
        high=high,
        drawn=drawn,
        resampled=resamples.pop() if len(resamples) == 1 else "",
        per_class={
            row["label"]: np.array([_number(one[at]["ap"]) for one in rows])
            for at, row in enumerate(rows[0])
        },
        positives={row["label"]: row["positives"] for row in rows[0]},
        numbers=measured[0],
        keys=[trial.key for trial in trials],
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def half_width(values: np.ndarray, confidence: float) -> float:
    """Half of the t interval of the mean of a few seeds; NaN for one."""
    if len(values) < 2:
        return math.nan
    reach = stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return float(reach * values.std(ddof=1) / math.sqrt(len(values)))


def difference(full: Summary, other: Summary, confidence: float) -> tuple[float, float, float]:
    """other - full of the main measure with low and high, by the resamples that both share: NaN
    where they were measured on other persons."""
    gap = other.mean[other.main] - full.mean[full.main]
    if not full.resampled or full.resampled != other.resampled:
        return gap, math.nan, math.nan
    return gap, *metrics.interval_of(gap, other.drawn - full.drawn, confidence)
