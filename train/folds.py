"""Which persons fit, select and test a head, fold after fold, by protocols that let nothing
through.

A protocol says what a fold takes as a whole:

subjects   one group (subject, film): leave one out, every group in turn
groups     whole groups, spread over k folds
trials     whole videos, or stretches of each subject: k contiguous runs of them. Every subject
           stands in all parts, no video does
blocks     each stretch cut into k contiguous runs of windows; what overlaps a window of another
           part is left out. For sets of a few long stretches that are no videos
random     whole pictures (samples, for ready features), in an order drawn by the seed
leaking    single windows or persons, drawn as if they had nothing to do with each other. One video,
           and windows that overlap, stand in all parts: figures of this protocol say little of
           anyone new. Some released programs measure so; it is here to compare with them

Validation persons come from what is not tested, by the same rule: the units that follow those
tested.
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Int

from cache.errors import DataError, SettingsError, in_few
from cache.index import Index
from train.data import Features
from train.settings import Folds

# What must not stand in two parts, by protocol.
APART = {
    "subjects": ("persons", "windows", "pictures", "groups"),
    "groups": ("persons", "windows", "pictures", "groups"),
    "trials": ("persons", "windows", "pictures", "videos"),
    "blocks": ("persons", "windows"),
    "random": ("persons", "windows", "pictures", "groups"),
    "leaking": (),
}
LEAKS = (
    "LEAKING protocol: windows or persons that hang together stand in both parts; only to compare "
    "with figures measured so"
)


@dataclass(frozen=True, eq=False)
class Fold:
    """Person rows of each part; left: those of neither, as they overlap a window of another
    part."""

    name: str
    train: Int[np.ndarray, " N"]
    val: Int[np.ndarray, " V"]
    test: Int[np.ndarray, " T"]
    left: Int[np.ndarray, " L"]

    def of(self, features: Features) -> Features:
        """The same features with this fold's splits; nobody else counts."""
        split = np.full(len(features.split), "", dtype=object)
        for name in ("train", "val", "test"):
            split[getattr(self, name)] = name
        return replace(features, split=split.astype(str), kept=features.kept & (split != ""))


def protocol_of(index: Index, settings: Folds) -> str:
    """The protocol asked for; of auto, groups where the index has any, else random."""
    if settings.protocol != "auto":
        return settings.protocol
    return "groups" if any(index.pictures["group"].to_pylist()) else "random"


def make_folds(index: Index, kept: Bool[np.ndarray, " P"], settings: Folds) -> list[Fold]:
    """The folds of the persons `kept`. Each of them is tested in exactly one fold.

    Raises SettingsError where the protocol cannot be had with this index: no groups, fewer units
    than folds, a stretch that is a video cut in blocks; DataError where a fold leaks (see
    `shared`).
    """
    who = _Who.of(index, kept, settings)
    protocol = protocol_of(index, settings)
    if not len(who.rows):
        raise SettingsError("no person counts in folds.splits: name other splits, or null for all")
    if protocol in ("subjects", "groups", "trials") and "" in who.groups:
        raise SettingsError(
            f"folds.protocol {protocol} needs the subject (or film) of each picture, and "
            f"{int((who.groups == '').sum())} of {len(who.rows)} persons have none: set "
            "data.split.group and run `emocache prepare`, or take folds.protocol random"
        )
    folds = [
        who.apart(name, test, val, protocol) for name, test, val in _parts(who, protocol, settings)
    ]
    for fold in folds:
        if not len(fold.train):
            raise SettingsError(
                f"fold {fold.name} of folds.protocol {protocol} leaves nobody to fit on: raise "
                "folds.k, or lower folds.val"
            )
        refuse_leaks(index, fold, protocol)
    return folds


def refuse_leaks(index: Index, fold: Fold, protocol: str) -> None:
    """DataError where two parts of a fold share what the protocol keeps apart."""
    for one, other in (("train", "test"), ("train", "val"), ("val", "test")):
        found = shared(index, getattr(fold, one), getattr(fold, other))
        bad = {what: count for what, count in found.items() if count and what in APART[protocol]}
        if bad:
            counts = ", ".join(f"{count} {what}" for what, count in bad.items())
            mend = "groups" if "groups" in bad else "trials" if "videos" in bad else "random"
            raise DataError(
                f"fold {fold.name} leaks: {counts} stand in both {one} and {other} under "
                f"folds.protocol {protocol}: take folds.protocol {mend}"
            )


def shared(index: Index, a: Int[np.ndarray, " N"], b: Int[np.ndarray, " M"]) -> dict[str, int]:
    """What two sets of person rows have in common: how many persons (equal ids, or rows), windows
    of `a` that overlap one of `b`, pictures or stretches, groups and videos."""
    persons, groups, videos = index.persons["id"].to_pylist(), *_of_pictures(index)
    pictures = index.picture_rows

    def common(names: Sequence[Hashable]) -> int:
        both = {names[row] for row in a} & {names[row] for row in b}
        return len(both - {""})

    return {
        "persons": common(persons),
        "windows": int(_overlaps(index, a, b).sum()) if index.modalities else 0,
        "pictures": common(pictures.tolist()),
        "groups": common([groups[picture] for picture in pictures]),
        "videos": common([videos[picture] for picture in pictures]),
    }


@dataclass(frozen=True, eq=False)
class _Who:
    """The persons that take part. rows: theirs; pictures, groups, videos: of each of them."""

    index: Index
    rows: Int[np.ndarray, " N"]
    pictures: Int[np.ndarray, " N"]
    groups: np.ndarray
    videos: np.ndarray

    @classmethod
    def of(cls, index: Index, kept: np.ndarray, settings: Folds) -> "_Who":
        wanted = np.asarray(kept, bool)
        if settings.splits is not None:
            wanted = wanted & np.isin(index.splits, settings.splits)
        rows = np.flatnonzero(wanted)
        pictures = index.picture_rows[rows]
        groups, videos = (np.array(names, object)[pictures] for names in _of_pictures(index))
        return cls(index, rows, pictures, groups, videos)

    def apart(self, name: str, test: np.ndarray, val: np.ndarray, protocol: str) -> Fold:
        """A fold of these masks (N,) over `rows`; the rest fits, but for what overlaps."""
        tested, selected = self.rows[test], self.rows[val & ~test]
        fitted = self.rows[~test & ~val]
        left = np.zeros(0, int)
        if protocol == "blocks":
            close = _overlaps(self.index, selected, tested)
            left, selected = selected[close], selected[~close]
            # What is left out of val stays out of train as well.
            close = _overlaps(self.index, fitted, np.concatenate([tested, selected]))
            left, fitted = np.concatenate([left, fitted[close]]), fitted[~close]
        return Fold(name, fitted, selected, tested, np.sort(left))


def _parts(
    who: _Who, protocol: str, settings: Folds
) -> list[tuple[str, Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]]:
    """Name, and who is tested and who selects, of each fold."""
    if protocol == "blocks":
        return _blocks(who, settings)
    if protocol == "trials":
        several = _trials(who)
    else:
        units = {"subjects": who.groups, "groups": who.groups, "random": who.pictures}.get(
            protocol, who.rows
        )
        several = [_drawn(units, settings.seed)]
    found = []
    k = len(several[0][0]) if protocol == "subjects" else settings.k
    for number in range(k):
        test, val = np.zeros(len(who.rows), bool), np.zeros(len(who.rows), bool)
        names: list[str] = []
        for order, places in several:
            if len(order) < max(k, 2):
                raise SettingsError(
                    f"folds.protocol {protocol} needs as many units as folds ({max(k, 2)}), and "
                    f"there are {len(order)}: lower folds.k, or take another folds.protocol"
                )
            tested = np.array_split(np.arange(len(order)), k)[number]
            wanted = min(max(1, round(settings.val * len(order))), len(order) - len(tested) - 1)
            after = (tested[-1] + 1 + np.arange(wanted if settings.val else 0)) % len(order)
            test |= np.isin(places, tested)
            val |= np.isin(places, after)
            names += [str(order[place]) for place in tested]
        found.append((names[0] if protocol == "subjects" else str(number + 1), test, val))
    return found


def _drawn(units: np.ndarray, seed: int) -> tuple[list[Hashable], np.ndarray]:
    """The units, each once, in an order drawn by the seed; the place of each row's unit, (N,)."""
    names, places = np.unique(units.astype(str), return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    place = np.empty(len(names), int)
    place[order] = np.arange(len(names))
    return [names[at] for at in order], place[places]


def _trials(who: _Who) -> list[tuple[list[Hashable], np.ndarray]]:
    """Videos in order, the same for all subjects; or the stretches of each subject by themselves.
    With them the place of each row among them, (N,), -1 for rows of other subjects."""
    if (who.videos != "").all():
        names = sorted(set(who.videos), key=lambda name: (len(name), name))
        place = {name: at for at, name in enumerate(names)}
        return [([*names], np.array([place[name] for name in who.videos]))]
    found: list[tuple[list[Hashable], np.ndarray]] = []
    for group in dict.fromkeys(who.groups):
        mine = who.groups == group
        pictures = sorted(set(who.pictures[mine].tolist()))
        places = np.full(len(who.rows), -1)
        places[mine] = np.searchsorted(pictures, who.pictures[mine])
        found.append(([*pictures], places))
    return found


def _blocks(
    who: _Who, settings: Folds
) -> list[tuple[str, Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]]:
    if not who.index.modalities:
        raise SettingsError(
            "folds.protocol blocks cuts recordings; pictures: take random or groups"
        )
    if (who.videos != "").any():
        raise SettingsError(
            "folds.protocol blocks would put one video into two parts: take folds.protocol trials"
        )
    middle = who.index.boxes[who.rows][:, [0, 2]].mean(axis=1)
    block = np.zeros(len(who.rows), int)
    for picture in np.unique(who.pictures):
        mine = who.pictures == picture
        if mine.sum() < settings.k:
            raise SettingsError(
                f"folds.k is {settings.k}, and {who.index.pictures['path'][int(picture)]} has "
                f"{int(mine.sum())} windows: lower folds.k, or data.window.step"
            )
        order = middle[mine].argsort(kind="stable").argsort(kind="stable")
        block[mine] = order * settings.k // mine.sum()
    count = min(max(1, round(settings.val * settings.k)), settings.k - 2) if settings.val else 0
    following = 1 + np.arange(count)
    return [
        (str(number + 1), block == number, np.isin((block - number) % settings.k, following))
        for number in range(settings.k)
    ]


def _of_pictures(index: Index) -> tuple[list[str], list[str]]:
    """Group and video of each picture, "" where it has none."""
    said = index.pictures["attributes"].to_pylist()
    videos = [str(json.loads(one).get("video", "")) if one else "" for one in said]
    return index.pictures["group"].to_pylist(), videos


def _overlaps(index: Index, a: np.ndarray, b: np.ndarray) -> Bool[np.ndarray, " N"]:
    """Which windows `a` share a moment with a window of `b` in the same stretch."""
    found = np.zeros(len(a), bool)
    theirs: dict[int, list[int]] = defaultdict(list)
    for row in b:
        theirs[int(index.picture_rows[row])].append(int(row))
    starts, ends = index.boxes[:, 0], index.boxes[:, 2]
    for place, row in enumerate(a):
        others = theirs.get(int(index.picture_rows[row]))
        if others:
            found[place] = ((starts[others] < ends[row]) & (starts[row] < ends[others])).any()
    return found


def in_words(folds: Sequence[Fold], protocol: str, settings: Folds) -> str:
    """How persons were parted, for every result."""
    of = {
        "subjects": "one group left out at a time",
        "groups": "whole groups",
        "trials": "whole videos or stretches, subjects in all parts",
        "blocks": "contiguous blocks of stretches, subjects in all parts",
        "random": "whole pictures or samples",
        "leaking": LEAKS,
    }[protocol]
    left = sum(len(fold.left) for fold in folds)
    more = f", {left} windows left out for overlapping" if left else ""
    return f"{len(folds)} folds by {protocol} ({of}), seed {settings.seed}{more}"


def unfit(fold: Fold, targets: np.ndarray, labels: Sequence[str]) -> str:
    """Why a fold cannot be fitted, or what it lacks; "" for nothing."""
    if not len(fold.train):
        return "nobody is left to fit on"
    never = [
        name for name, has in zip(labels, targets[fold.train].any(axis=0), strict=True) if not has
    ]
    return f"no training person has {in_few(never)}" if never else ""
