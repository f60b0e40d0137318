"""What the papers fit and what they have published: the rows of their tables, the points of their
figure, and the values that stand beside ours."""

import math
from collections.abc import Iterable
from importlib.resources import files
from typing import Any, NamedTuple, get_args

import numpy as np
import yaml

from cache.errors import SettingsError, did_you_mean
from cache.settings import Section
from pipelines.settings import Tables
from pipelines.studies.summary import Entry
from train.heads import names
from train.settings import HugMe, Rrla, Train
from train.vary import vary


def _parts(section: type[Section]) -> tuple[str, ...]:
    """What a head can be fitted without, as its settings list it."""
    (part,) = get_args(section.model_fields["without"].annotation)
    return get_args(part)


# The heads whose parts the papers leave out one by one, in the order of their tables.
ABLATIONS = {"hugme": _parts(HugMe), "rrla": _parts(Rrla)}
CHOSEN = (0.5, 0.8)  # HugMe's beta and lambda


def entries(base: Train, asked: Tables) -> list[Entry]:
    """Every row of the tables: the heads, then the ablations of HugMe and of RRLA."""
    for name in (*asked.heads, *asked.settings):
        if name not in names():
            raise SettingsError(f"tables names the head {name!r}{did_you_mean(name, names())}")
    heads = asked.heads or names()
    found = [_entry(base, asked, head) for head in heads]
    for head, parts in ABLATIONS.items():
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


class Point(NamedTuple):
    """One of the sensitivity figure."""

    beta: float
    lambda_c: float
    settings: Train


def grid(base: Train, asked: Tables) -> list[Point]:
    """Each point of the sensitivity figure, for the first seed."""
    if not asked.grid or (asked.heads and "hugme" not in asked.heads):
        return []
    steps = [round(float(step), 6) for step in np.linspace(0, 1, asked.grid)]
    start = {"train.head": "hugme", **asked.settings.get("hugme", {}), "train.seed": asked.seeds[0]}
    return [
        Point(
            beta,
            lambda_c,
            vary(base, {**start, "train.hugme.beta": beta, "train.hugme.lambda_c": lambda_c}),
        )
        for beta in steps
        for lambda_c in steps
    ]


def published() -> dict[str, Any]:
    return yaml.safe_load(files("pipelines.studies").joinpath("published.yaml").read_text("utf-8"))


class Papers:
    """The published values that stand beside data of this kind."""

    def __init__(self, dataset: str, kind: str):
        self.dataset = dataset
        self.of = {"multi": "emotic", "single": "caers"}.get(kind, "")
        self.title = {"emotic": "published, EMOTIC", "caers": "published, CAER-S"}.get(self.of, "")
        self.values: dict[str, Any] = published().get(self.of, {})

    @property
    def alike(self) -> bool:
        """Whether ours are on the same data."""
        return self.dataset == self.of

    def value(self, head: str, without: str, measure: str) -> float:
        """In per cent, NaN where no paper has it."""
        found = self.values.get(head, {}) if without else self.values.get("heads", {})
        return found.get(without or head, {}).get(measure, math.nan)

    def note(self, heads: Iterable[str] = ()) -> list[str]:
        """What is to be said of the published values beside these heads, or beside all."""
        if not self.values:
            return []
        here = set(heads)
        sources = [
            f"{head}: {one['source']}"
            for head, one in self.values.get("heads", {}).items()
            if not here or head in here
        ]
        said = "Published values are those of the papers, which name neither release nor N."
        if not self.alike:
            said += f" Ours are on {self.dataset}: they cannot be compared with them."
        return [f"{said} Sources: {'; '.join(sources)}." if sources else said]
