"""Fitting many heads: which can go in step, how many at once, and whether that is faster."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from cache.errors import EmocacheError
from cache.keys import key_of
from train.data import Features
from train.fit import Fitted, Row, fit, fit_key, read_state, refuse_empty
from train.group import Done, Group
from train.heads import closed, get_head, may_differ
from train.settings import DESCENT, NO_NUMBER, Train
from train.stack import Unstackable
from train.timing import epoch_seconds

log = logging.getLogger("train")
# Settings in which heads that go in step may differ, whatever head they are.
FREE = (NO_NUMBER | DESCENT) - {"batch", "optimizer"}
TRIED = 4  # heads by which the two ways are timed first
FASTER = 0.75  # the part of its time alone that a head in step may take: below what timing misses
ALIKE = 4  # heads of one seed, which see the same batches, that are worth a group of their own
ROOM = 0.6  # of the memory that is free
SAVING = 0.05  # of the time, at most, goes into keeping fits in progress
Watch = Callable[[int, Row], bool | None]


@dataclass(frozen=True)
class Way:
    """share: the part of its time alone that a head takes in step; at_once: how many go so."""

    share: float
    at_once: int

    def words(self) -> str:
        how = f"{self.at_once} in step" if self.at_once > 1 else "one after another"
        return f"{how} (in step a head takes {self.share:.2f} of its time alone)"


def fit_many(
    features: Features,
    settings: Sequence[Train],
    watch: Watch = lambda number, row: False,
    resume: Path | None = None,
    ways: dict[str, Way] | None = None,
) -> Iterator[Done]:
    """Fit a head for each of the settings; each becomes what `fit` makes of it alone, but for the
    order of sums, and comes as soon as it is done.

    features: with all views that any of them reads; alone each gets its own only.

    Heads that differ in `FREE` and in what their class `may_differ` in go in step, where that is
    faster: a few steps of both ways are timed, and as many go at once as memory has room for
    (`train.together`). Closed forms, heads that cannot be stacked and views that lie in files go
    one after another. A fit that fails, or is refused, does not end the others.

    watch: gets number and row of each epoch; true ends that fit there. resume: a folder for the
    fits in progress, from which they go on after a kill. ways: of heads, as far as they have been
    measured; what is measured now is added.
    """
    ways = {} if ways is None else ways
    refused: dict[int, EmocacheError] = {}
    for number, one in enumerate(settings):
        try:
            refuse_empty(features, one)
        except EmocacheError as error:
            refused[number] = error
    yield from (Done(number, error) for number, error in refused.items())
    left = [number for number in range(len(settings)) if number not in refused]
    for places in groups([settings[number] for number in left]):
        group = [left[place] for place in places]
        shape = key_of({"shape": _shape(settings[group[0]])})
        saved = None if resume is None else resume / f"together-{shape[:16]}.pt"
        for some in _chunks(features, settings, group, saved, ways):
            if len(some) == 1:
                yield _alone(features, settings[some[0]], some[0], watch, resume)
            else:
                yield from _in_step(features, settings, some, watch, saved)


def groups(settings: Sequence[Train]) -> list[list[int]]:
    """Places of the settings whose heads have one shape and can go in step; many of one seed stay
    among themselves."""
    found: dict[str, list[int]] = {}
    for number, one in enumerate(settings):
        found.setdefault(_shape(one), []).append(number)
    parts: list[list[int]] = []
    for group in found.values():
        of_seed: dict[int, list[int]] = {}
        for number in group:
            of_seed.setdefault(settings[number].seed, []).append(number)
        alike = [some for some in of_seed.values() if ALIKE <= len(some) < len(group)]
        rest = [n for n in group if not any(n in some for some in alike)]
        parts += [*alike, *([rest] if rest else [])]
    return parts


def _shape(settings: Train) -> str:
    own = set(may_differ(settings.head))
    return settings.model_dump_json(exclude={**dict.fromkeys(FREE, True), settings.head: own})


def _alone(
    features: Features, settings: Train, number: int, watch: Watch, resume: Path | None
) -> Done:
    started, dropped = time.perf_counter(), False
    file = None if resume is None else resume / f"{fit_key(features, settings)[:16]}.pt"

    def say(row: Row) -> bool:
        nonlocal dropped
        dropped = bool(watch(number, row)) or dropped  # also of an epoch before a kill
        return dropped

    fitted: Fitted | EmocacheError
    try:
        views = get_head(settings.head).views(settings)
        fitted = fit(features.only(views), settings, say, file)
    except EmocacheError as error:
        fitted = error
    return Done(number, fitted, 1, dropped, time.perf_counter() - started)


def _chunks(
    features: Features,
    settings: Sequence[Train],
    group: list[int],
    saved: Path | None,
    ways: dict[str, Way],
) -> Iterator[list[int]]:
    """The group in parts that go in step; parts of one where they do not. Those that a killed run
    has left in `saved` come first, as it had them."""
    left = list(group)
    if saved is not None and saved.exists() and (state := read_state(saved)) is not None:
        keys = {fit_key(features, settings[n]): n for n in group}
        again = [keys[key] for key in state["keys"] if key in keys]
        if len(again) > 1:
            yield again
            left = [n for n in left if n not in again]
    at_once = 1
    if len(left) > 1:
        at_once = _at_once(features, [settings[n] for n in left], ways)
    for at in range(0, len(left), at_once):
        yield left[at : at + at_once]


def _at_once(features: Features, settings: Sequence[Train], ways: dict[str, Way]) -> int:
    """How many of these heads, which have one shape, go in step."""
    head, forced = settings[0].head, settings[0].together
    most = min([len(settings), *(one.together for one in settings if one.together)])
    if most == 1 or closed(head) or features.block:
        return 1
    if forced is None and head in ways and ways[head].at_once == 1:
        return 1
    try:
        few = Group(features, settings[: min(TRIED, most)])
        most = min(most, max(1, int(_room(features.device) / few.cost())))
        if forced is None and head not in ways:
            ways[head] = _way(features, settings, few, most)
    except (Unstackable, RuntimeError) as reason:  # of vmap, where a head looks into its numbers
        log.info("%s: one head after another, %s", head, reason)
        return 1
    return most if forced else min(most, ways[head].at_once)


def _way(features: Features, settings: Sequence[Train], few: Group, most: int) -> Way:
    """Twice as many go in step as long as each takes clearly less of its time so: of 20 heads 4, 8,
    16 and 20 are timed at most, and where 8 gain nothing over 4, 4 go at once."""
    own = features.only(get_head(settings[0].head).views(settings[0]))
    alone = epoch_seconds(own, settings[0]).all
    count, took, chosen = len(few.numbers), few.seconds().all, 1
    # Again, for whatever else the machine does may have come between.
    best = alone = min(alone, epoch_seconds(own, settings[0]).all)
    # The last few may just join, where they do not cost more than they would by themselves.
    while count <= most and took / count <= (FASTER if count >= 2 * chosen else 1) * best:
        chosen, best = count, took / count
        if count == most:
            break
        count = min(2 * count, most)
        took = Group(features, settings[:count]).seconds().all
    least = best if chosen > 1 else took / count
    return Way(least / alone, chosen)


def _room(device: torch.device) -> float:
    """Bytes that heads may take."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return ROOM * (torch.cuda.mem_get_info(device)[0] + kept)
    return ROOM * psutil.virtual_memory().available


def _in_step(
    features: Features,
    settings: Sequence[Train],
    some: list[int],
    watch: Watch,
    saved: Path | None,
) -> Iterator[Done]:
    began = time.perf_counter()
    group = Group(features, [settings[n] for n in some], some)
    group.share_time(time.perf_counter() - began)
    if saved is not None:
        group.load(saved)
    kept = time.monotonic()
    known = zip(group.numbers, group.courses, strict=True)
    said = [(number, watch(number, row)) for number, course in known for row in course.history]
    yield from group.leave({}, {number for number, ended in said if ended}, len(some))
    while group.numbers:
        started = time.perf_counter()
        failed = group.epoch()
        dropped = {
            number
            for number, course in zip(group.numbers, group.courses, strict=True)
            if number not in failed and watch(number, course.history[-1])
        }
        group.share_time(time.perf_counter() - started)
        yield from group.leave(failed, dropped, len(some))
        pause = time.monotonic()
        if saved is None or not group.numbers:
            continue
        if pause - kept >= max(settings[some[0]].save_every, group.saving / SAVING):
            group.save(saved)
            kept = time.monotonic()
    if saved is not None:
        saved.unlink(missing_ok=True)
