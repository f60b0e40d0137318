"""The rows of the papers' tables: heads and their ablations, each over some seeds, as numbers, and
the values that the papers have published."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np
import yaml
from scipy import stats

from cache.errors import SettingsError
from pipelines.evaluation import MAIN
from pipelines.settings import Tables
from pipelines.studies.trials import Trial
from train import metrics
from train.heads import names
from train.settings import Train
from train.vary import vary

# Ablations in the order of the papers' tables.
HUGME = ("objects", "scene", "head", "depth", "body", "cooccurrence", "similarity", "darn", "hegl")
RRLA = ("boa", "geometry", "bpa", "eld", "objects")


@dataclass(frozen=True)
class Entry:
    """A head under some settings, to be fitted over the seeds. without: its ablation, or ""."""

    head: str
    without: str
    settings: tuple[Train, ...]


def entries(base: Train, asked: Tables) -> list[Entry]:
    """Every row of the tables: the heads, then the ablations of HugMe and of RRLA."""
    unknown = sorted({*asked.heads, *asked.settings} - set(names()))
    if unknown:
        raise SettingsError(f"tables names the head {unknown[0]!r}: there are {', '.join(names())}")
    heads = asked.heads or names()
    found = [_entry(base, asked, head) for head in heads]
    for head, parts in (("hugme", HUGME), ("rrla", RRLA)):
        if head in heads:
            found += [_entry(base, asked, head, part) for part in parts]
    return found


def _entry(base: Train, asked: Tables, head: str, part: str = "") -> Entry:
    changes = {"train.head": head, **asked.settings.get(head, {})}
    if part:
        kept = getattr(vary(base, changes), head).without
        changes[f"train.{head}.without"] = [*kept, part]
    return Entry(
        head, part, tuple(vary(base, {**changes, "train.seed": seed}) for seed in asked.seeds)
    )


def grid(base: Train, asked: Tables) -> list[tuple[float, float, Train]]:
    """beta, lambda and settings of each point of the sensitivity figure, for the first seed."""
    if not asked.grid or (asked.heads and "hugme" not in asked.heads):
        return []
    steps = [round(float(step), 6) for step in np.linspace(0, 1, asked.grid)]
    start = {"train.head": "hugme", **asked.settings.get("hugme", {}), "train.seed": asked.seeds[0]}
    return [
        (
            beta,
            share,
            vary(base, {**start, "train.hugme.beta": beta, "train.hugme.lambda_c": share}),
        )
        for beta in steps
        for share in steps
    ]


@dataclass(frozen=True)
class Summary:
    """An entry over its seeds, on one split. All numbers are fractions.

    mean, half: of each measure its mean over the seeds and half of its t interval, NaN for one
    seed; low, high: of the main measure's mean, by resampling pictures, with the seeds held;
    drawn: that mean in each resample; per_class: label -> its AP for each seed; missing: why it
    has no numbers, in words, else "".
    """

    entry: Entry
    missing: str = ""
    main: str = ""
    mean: Mapping[str, float] = field(default_factory=dict)
    half: Mapping[str, float] = field(default_factory=dict)
    low: float = math.nan
    high: float = math.nan
    drawn: np.ndarray = field(default_factory=lambda: np.zeros(0))
    per_class: Mapping[str, np.ndarray] = field(default_factory=dict)
    positives: Mapping[str, int] = field(default_factory=dict)
    numbers: Mapping[str, Any] = field(default_factory=dict)  # of the first seed: N and its like
    keys: Sequence[str] = ()  # of its trials


def summarise(entry: Entry, trials: Sequence[Trial], split: str, confidence: float) -> Summary:
    """One entry from its trials, a seed each. One that failed leaves the entry without numbers:
    a mean over the seeds that went well would be another number."""
    for trial, one in zip(trials, entry.settings, strict=True):
        if trial.status != "ok":
            seed = f"seed {one.seed}: " if trial.status == "failed" else ""
            return Summary(entry, f"{trial.status}, {seed}{trial.reason}")
    records = [trial.record for trial in trials if trial.record is not None]
    measured = [trial.measured(split) for trial in trials]
    main, _ = MAIN[measured[0]["kind"]]
    mean, half = {}, {}
    for name, value in measured[0].items():
        values = [one.get(name) for one in measured]
        if isinstance(value, float) and all(isinstance(v, float) for v in values):
            mean[name] = float(np.mean(values))
            # A closed form has no seeds: one fit stands for all.
            fits = values if len({trial.key for trial in trials}) > 1 else values[:1]
            half[name] = half_width(np.array(fits), confidence)
    drawn = np.mean([record["drawn"][split] for record in records], axis=0)
    low, high = metrics.interval_of(mean[main], drawn, confidence)
    rows = [record["per_class"][split] for record in records]
    return Summary(
        entry,
        main=main,
        mean=mean,
        half=half,
        low=low,
        high=high,
        drawn=drawn,
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
    """other - full of the main measure with low and high, by shared resamples of the pictures."""
    gap = other.mean[other.main] - full.mean[full.main]
    shared = full.numbers["n_evaluated"] == other.numbers["n_evaluated"]
    if not shared or full.drawn.shape != other.drawn.shape:
        return gap, math.nan, math.nan
    return gap, *metrics.interval_of(gap, other.drawn - full.drawn, confidence)


def published() -> dict[str, Any]:
    return yaml.safe_load(files("pipelines.studies").joinpath("published.yaml").read_text("utf-8"))


class Papers:
    """The published values that stand beside data of this kind."""

    def __init__(self, dataset: str, kind: str):
        found = published()
        self.of = {"multi": "emotic", "single": "caers"}.get(kind, "")
        self.values: dict[str, Any] = found.get(self.of, {})
        self.title = {"emotic": "published, EMOTIC", "caers": "published, CAER-S"}.get(self.of, "")
        self.alike = dataset == self.of

    def value(self, head: str, without: str, measure: str) -> float:
        """In per cent, NaN where no paper has it."""
        found = self.values.get(head, {}) if without else self.values.get("heads", {})
        return found.get(without or head, {}).get(measure, math.nan)

    def note(self, dataset: str, rows: Sequence[Summary] = ()) -> list[str]:
        """What is to be said of the published values beside these rows."""
        if not self.values:
            return []
        here = {one.entry.head for one in rows}
        sources = [
            f"{head}: {one['source']}"
            for head, one in self.values.get("heads", {}).items()
            if not here or head in here
        ]
        said = "Published values are those of the papers, which name neither release nor N."
        if not self.alike:
            said += f" Ours are on {dataset}: they cannot be compared with them."
        return [f"{said} Sources: {'; '.join(sources)}." if sources else said]
