"""What a label vector is: one contract for every data set, kept in the index, read by every head.

`data.target` auto keeps what the set has: `multi`, 0 and 1 for any number of labels; `single`, 1
for exactly one; `distribution`, shares that sum to 1. Of shares, or votes, either of the last two
can be made. Of one label without votes a distribution can be made as well: the label has the whole
share. Heads and measures of distributions take it, and it says no more than the label. A person for
whom that is not possible keeps a row with the status `unlabelled` and a reason.

`data.classes` comes before, and makes labels of the set's own: `{calm: [baseline, meditation],
stress: [stress]}`. Of any number of labels, a class is 1 where one of its members is; of one label,
the class that has it is. Shares are summed, then divided by their sum over all classes; votes are
summed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Bool

from cache.errors import SettingsError, did_you_mean
from cache.index import LabelKind
from extract.datasets import Dataset, PersonRecord


@dataclass(frozen=True, eq=False)
class Classes:
    """Labels made of a set's own.

    labels: the K names, in the order of the setting; definitions: of each, those of its members
    joined; own: the set's C labels; members: which of them each has; kind: what the set's label
    vectors are.
    """

    labels: tuple[str, ...]
    definitions: dict[str, str]
    own: tuple[str, ...]
    members: Bool[np.ndarray, "K C"]
    kind: LabelKind

    def said(self) -> str:
        """What must stand beside a result: `classes calm (baseline, meditation), stress`."""
        told = []
        for row, name in enumerate(self.labels):
            members = [self.own[at] for at in np.flatnonzero(self.members[row])]
            told.append(name if members == [name] else f"{name} ({', '.join(members)})")
        left = [self.own[at] for at in np.flatnonzero(~self.members.any(0))]
        return f"classes {', '.join(told)}" + (f"; left out: {', '.join(left)}" if left else "")


def regroup(
    dataset: Dataset, definitions: Mapping[str, str], classes: Mapping[str, Sequence[str]]
) -> Classes:
    """The classes that `data.classes` makes of a data set's labels.

    definitions: of the set's own labels. Raises SettingsError, with the nearest label, for a member
    that is none; for a class without members, or with one twice; for a label in two classes where a
    person has one label or shares; and for a set that does not say what its label vectors are.
    """
    if not dataset.kind:
        raise SettingsError(
            f"data.classes: the reader {dataset.name} does not say what its labels are: set `kind` "
            "in it, or data.classes to null"
        )
    if not classes:
        raise SettingsError("data.classes names no class: give some, or set it to null")
    members = np.zeros((len(classes), len(dataset.labels)), bool)
    for row, (name, some) in enumerate(classes.items()):
        if not name.strip() or not some:
            raise SettingsError(f"data.classes.{name} has no labels: name those that it is made of")
        for label in some:
            if label not in dataset.labels:
                raise SettingsError(
                    f"data.classes.{name} has {label!r}, which is no label of {dataset.name}"
                    f"{did_you_mean(label, dataset.labels)}"
                )
            if members[row, dataset.labels.index(label)]:
                raise SettingsError(f"data.classes.{name} has {label!r} twice")
            members[row, dataset.labels.index(label)] = True
    if dataset.kind != "multi" and members.sum(0).max() > 1:
        label = dataset.labels[int(members.sum(0).argmax())]
        twice = " and ".join(name for name, some in classes.items() if label in some)
        has = "one label" if dataset.kind == "single" else "shares that sum to 1"
        raise SettingsError(
            f"data.classes has {label!r} in {twice}, but a person of {dataset.name} has {has}: "
            "leave it in one"
        )
    joined = {
        name: "; ".join(_sentence(definitions[one]) for one in classes[name]) for name in classes
    }
    return Classes(tuple(classes), joined, dataset.labels, members, dataset.kind)


def _sentence(definition: str) -> str:
    return definition.strip().removesuffix(".")


def as_classes(person: PersonRecord, classes: Classes) -> PersonRecord:
    """The person with label vectors (K,) of the classes, of the same kind. One whose labels are in
    no class has none and is `unlabelled`, with a reason that names them; valence, arousal and
    dominance stay."""
    if np.shape(person.labels) != (len(classes.own),):
        return person  # `prepare` refuses it
    given = np.asarray(person.labels, np.float64)
    summed = classes.members @ given
    found = summed / (summed.sum() or 1) if classes.kind == "distribution" else summed > 0
    votes = None
    if person.votes is not None:
        votes = (classes.members @ np.asarray(person.votes, np.int64)).astype(person.votes.dtype)
    done = replace(person, labels=found.astype(np.float32), votes=votes)
    if found.any() or not given.any():
        return done
    done = replace(done, annotators=0)
    if person.status != "ok":  # what the reader found counts
        return done
    lost = " and ".join(name for name, has in zip(classes.own, given, strict=True) if has)
    return replace(done, status="unlabelled", reason=f"no class of data.classes has {lost}")


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
    return target


def as_target(
    person: PersonRecord,
    native: LabelKind | Literal[""],
    kind: LabelKind | Literal[""],
    names: tuple[str, ...],
) -> PersonRecord:
    """The person with label vectors (C,) of the kind asked for; native: what the set has.

    multi or single to distribution: votes, or labels where there are no votes, / their sum.
    distribution to single: the largest share, if no other is as large.
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
