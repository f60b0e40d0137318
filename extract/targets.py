"""What a label vector is: one contract for every data set, kept in the index, read by every head.

`data.target` auto keeps what the set has: `multi`, 0 and 1 for any number of labels; `single`, 1
for exactly one; `distribution`, shares that sum to 1. Of shares, or votes, either of the last two
can be made; a person for whom that is not possible keeps a row with the status `unlabelled` and a
reason.
"""

from dataclasses import replace
from typing import Literal

import numpy as np

from cache.errors import SettingsError
from cache.index import LabelKind
from extract.datasets import Dataset, PersonRecord


def target_kind(
    dataset: Dataset, target: Literal["auto", "single", "distribution"]
) -> LabelKind | Literal[""]:
    """What label vectors will be. Raises SettingsError where the set cannot give that."""
    if target == "auto" or target == dataset.kind:
        return dataset.kind
    if not dataset.kind:
        raise SettingsError(
            f"data.target is {target}, but the reader {dataset.name} does not say what its labels "
            "are: set `kind` in it, or data.target to auto"
        )
    if target == "single" and dataset.kind == "multi":
        raise SettingsError(
            f"data.target is single, but a person of {dataset.name} may have several labels: "
            "set it to auto or distribution"
        )
    if target == "distribution" and dataset.kind == "single":
        raise SettingsError(
            f"data.target is distribution, but {dataset.name} gives one label and no shares: set "
            "it to auto"
        )
    return target


def as_target(
    person: PersonRecord,
    native: LabelKind | Literal[""],
    kind: LabelKind | Literal[""],
    names: tuple[str, ...],
) -> PersonRecord:
    """The person with label vectors (C,) of the kind asked for; native: what the set has.

    multi to distribution: votes, or labels where there are no votes, / their sum. distribution to
    single: the largest share, if no other is as large.
    """
    if kind == native or person.status == "unlabelled":
        return person
    if kind == "distribution":
        voted = person.votes is not None and person.votes.any()
        some = np.asarray(person.votes if voted else person.labels, np.float64)
        if not some.sum():
            return person
        return replace(person, labels=(some / some.sum()).astype(np.float32))
    if not person.labels.any():
        return person
    best = np.flatnonzero(person.labels == person.labels.max())
    one = np.zeros(len(names), np.float32)
    if len(best) > 1:
        tied = " and ".join(names[i] for i in best)
        reason = f"no label has the largest share alone: {tied}"
        if person.status != "ok":  # what the reader found counts
            return replace(person, labels=one, annotators=0)
        return replace(person, labels=one, annotators=0, status="unlabelled", reason=reason)
    one[best] = 1
    return replace(person, labels=one)
