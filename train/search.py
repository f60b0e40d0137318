"""Searching settings of a head: trials that Optuna chooses by batches, in a journal that survives.

A study lies in a journal, one file that many processes append to, and goes on from there.
"""

import contextlib
import json
import logging
import math
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
import psutil
from optuna.trial import FrozenTrial, Trial, TrialState

from cache.files import writing_to
from cache.keys import flatten, key_of
from train.journal import JournalLock, open_journal, quiet
from train.settings import NO_NUMBER, SECTIONS, Choices, Span, Train, Tune
from train.vary import of_another, value_of, vary

log = logging.getLogger("train")
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}
ENDS = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}
OWNER = ("host", "pid", "started")  # what a trial says of the process that asked for it
APART = 2.0  # seconds by which one process's start may seem to differ as its clock is set


@dataclass(frozen=True)
class Asked:
    """A trial. number: its own in the study; settings: to fit with; changes: the searched ones of
    them, by whole name; value: what was told of it, None before."""

    number: int
    settings: Train
    changes: dict[str, Any]
    value: float | None = None


class Study:
    """One search: its trials so far, and the next ones.

    A study is known by its base settings, space, sampler, pruner and `about`: with another of
    them, another study begins in the same journal. `tune.trials`, `batch` and `seeds` may change.
    Each trial draws from `tune.seed` and its own number, so that neither processes that share a
    study nor those that go on with it draw the same points again.

    journal: a file, made where there is none; base: the settings that are not searched; about:
    what else decides the values (JSON), shown beside the study; maximise: whether more is better.
    Trials of processes of this host that have died are asked again first: see `orphans`.
    Raises SettingsError for a space with a setting or value that `train` refuses, CacheError for
    a journal that cannot be read or written.
    """

    def __init__(
        self, journal: Path, base: Train, tune: Tune, about: Mapping[str, Any], maximise: bool
    ):
        self.journal, self.base, self.tune = Path(journal).absolute(), base, tune
        self._sign = 1.0 if maximise else -1.0
        self._axes = {
            key: _Axis(key, tune.space[key], base)
            for key in sorted(tune.space, key=lambda key: (key != "train.head", key))
        }
        heads = self._axes["train.head"].values if "train.head" in self._axes else [base.head]
        for axis in self._axes.values():
            axis.check(heads)
        fixed = self._fixed(heads)
        searched = tune.model_dump(mode="json", exclude={"trials", "batch", "seeds"})
        # By JSON and back, for a tuple is a list to the journal.
        told: dict[str, Any] = json.loads(json.dumps(dict(about)))
        key = key_of({"base": fixed, "tune": searched, "about": told, "maximise": maximise})
        self.name = f"{base.head}-{key[:12]}"
        self._asked: dict[int, tuple[Trial, Train]] = {}
        with writing_to(self.journal):
            self.journal.parent.mkdir(parents=True, exist_ok=True)
        with self._alone(), quiet():
            self._study = optuna.create_study(
                storage=open_journal(self.journal),
                study_name=self.name,
                direction="maximize" if maximise else "minimize",
                pruner=self._pruner(),
                load_if_exists=True,
            )
            shown = {**flatten(told), **{f"train.{k}": v for k, v in flatten(fixed).items()}}
            there = self._study.user_attrs
            for name, value in shown.items():
                if name not in there:
                    self._study.set_user_attr(name, value)
        self.orphans()

    def _fixed(self, heads: list[Any]) -> dict[str, Any]:
        """The base settings that decide a number and are not searched."""
        others = SECTIONS - set(heads)
        tree = self.base.model_dump(mode="json", exclude=NO_NUMBER | others)
        for key in self.tune.space:
            *sections, name = key.split(".")[1:]
            known = tree
            for section in sections:
                known = known.get(section, {})
            known.pop(name, None)
        return tree

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence([self.tune.seed, number]).generate_state(1)[0])
        if self.tune.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        # constant_liar: what is being trained counts as bad, else a batch would be one point.
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=self.tune.startup, multivariate=True, constant_liar=True
        )

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.tune.pruner == "none":
            return optuna.pruners.NopPruner()
        if self.tune.pruner == "halving":
            return optuna.pruners.SuccessiveHalvingPruner()
        epochs = self._axes.get("train.epochs")
        most = max(epochs.values) if epochs else self.base.epochs
        return optuna.pruners.HyperbandPruner(
            min_resource=1, max_resource=int(most), reduction_factor=3
        )

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Others wait, so that counting the trials and asking for more is one step. The system
        takes the lock back from a process that dies."""
        with self._locked("asking"):
            yield

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """One process at a time does what comes after the search; the next finds it done."""
        with self._locked("finishing"):
            yield

    @contextlib.contextmanager
    def _locked(self, why: str) -> Iterator[None]:
        with writing_to(self.journal):
            lock = JournalLock(self.journal, why)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _trials(self) -> list[FrozenTrial]:
        """All but those that were stopped and asked again."""
        found = self._study.get_trials(deepcopy=False)
        return [trial for trial in found if not trial.user_attrs.get("stopped")]

    @property
    def left(self) -> int:
        """How many trials are still to be asked for."""
        begun = [trial for trial in self._trials() if trial.state != TrialState.WAITING]
        return max(0, self.tune.trials - len(begun))

    def ask(self, count: int) -> list[Asked]:
        """The next trials, at most `count` and no more than are left; those of dead processes
        come first. Each is to be told, or comes again when this process has died."""
        with writing_to(self.journal), self._alone(), quiet():
            return [self._ask() for _ in range(min(count, self.left))]

    def _ask(self) -> Asked:
        host, pid = socket.gethostname(), os.getpid()
        owner = dict(zip(OWNER, (host, pid, psutil.Process(pid).create_time()), strict=True))
        found = self._study.get_trials(deepcopy=False)
        waiting = [trial.number for trial in found if trial.state == TrialState.WAITING]
        self._study.sampler = self._sampler(waiting[0] if waiting else len(found))
        if not waiting:
            # Queued with its owner: a trial that runs has one from its first moment.
            self._study.enqueue_trial({}, user_attrs=owner)
        trial = self._study.ask()
        for name, value in owner.items():
            if trial.user_attrs.get(name) != value:
                trial.set_user_attr(name, value)
        changes: dict[str, Any] = {}
        for key, axis in self._axes.items():
            if not of_another(key, changes.get("train.head", self.base.head)):
                changes[key] = axis.suggest(trial)
        settings = vary(self.base, changes)
        self._asked[trial.number] = trial, settings
        return Asked(trial.number, settings, changes)

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note the value on val after an epoch (from 1; each once) of a trial that was asked for
        here; whether the pruner says to drop it, which it never does after the last epoch."""
        trial, settings = self._asked[number]
        with writing_to(self.journal), quiet():
            trial.report(float(value), epoch)
            return epoch < settings.epochs and bool(trial.should_prune())

    def tell(
        self,
        number: int,
        value: float | None,
        state: Literal["complete", "pruned", "failed"],
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        """End a trial. value: only of a complete one; without one, or with NaN, it has failed.
        facts: what else is known of it (JSON)."""
        trial, _ = self._asked[number]
        known = value is not None and not math.isnan(value)
        if state == "complete" and not known:
            state = "failed"
        with writing_to(self.journal), quiet():
            for name, fact in (facts or {}).items():
                trial.set_user_attr(name, fact)
            self._study.tell(number, value if state == "complete" else None, state=ENDS[state])
        del self._asked[number]

    def orphans(self) -> int:
        """Ask again what a process of this host that has died was training; how many there are.

        Each is queued with the same parameters and then ended as failed with `stopped`, which
        counts as no trial. Trials of other hosts and of living processes are left alone.
        """
        with writing_to(self.journal), self._alone(), quiet():
            found = self._study.get_trials(deepcopy=False)
            # Killed in the middle of this very step, a process has queued what it has not ended.
            queued = {trial.user_attrs.get("again") for trial in found}
            lost = [trial for trial in found if _is_orphan(trial)]
            for trial in lost:
                if trial.number not in queued:
                    owner = {name: trial.user_attrs[name] for name in OWNER}
                    self._study.enqueue_trial(
                        trial.params, user_attrs={**owner, "again": trial.number}
                    )
                Trial(self._study, trial._trial_id).set_user_attr("stopped", True)
                self._study.tell(trial.number, state=TrialState.FAIL)
        if lost:
            log.info("%d trials of %s were stopped: they begin again", len(lost), self.name)
        return len(lost)

    def best(self) -> Asked | None:
        """The complete trial with the best value, the first of equal ones; None before any."""
        done = [trial for trial in self._trials() if trial.state == TrialState.COMPLETE]
        if not done:
            return None
        best = max(done, key=lambda trial: self._sign * (trial.value or 0.0))
        changes = self._changes(best)
        return Asked(best.number, vary(self.base, changes), changes, best.value)

    def rows(self) -> list[dict[str, Any]]:
        """One for each trial that was not stopped: number, state (complete, pruned, failed,
        running), value (of a pruned one its last), epochs reported, seconds (None while it runs),
        host, the searched settings by whole name (of its head), and the facts told of it."""
        rows = []
        for trial in self._trials():
            if trial.state not in STATES:
                continue
            facts = dict(trial.user_attrs)
            host = facts.get("host")
            for name in (*OWNER, "again"):
                facts.pop(name, None)
            rows.append(
                {
                    "number": trial.number,
                    "state": STATES[trial.state],
                    "value": trial.value,
                    "epochs": trial.last_step or 0,
                    "seconds": trial.duration.total_seconds() if trial.duration else None,
                    "host": host,
                    **self._changes(trial),
                    "facts": facts,
                }
            )
        return rows

    def _changes(self, trial: FrozenTrial) -> dict[str, Any]:
        return {
            key: axis.decode(trial.params[key])
            for key, axis in self._axes.items()
            if key in trial.params
        }


class _Axis:
    """One searched setting, in the terms of Optuna."""

    def __init__(self, key: str, given: Span | Choices, base: Train):
        self.key, self.given, self.base = key, given, base
        # The ends of a span, or all choices.
        self.values: list[Any]
        if isinstance(given, Span):
            self.values = [given.low, given.high]
            now = value_of(base, key)
            numbers = [*self.values, given.step or 1]
            if isinstance(now, int):
                self.whole = all(float(number).is_integer() for number in numbers)
            else:  # 0 to 1 of a weight is a span, not two numbers; null does not say
                self.whole = now is None and all(isinstance(number, int) for number in numbers)
            # Next to low shows what must be whole, or even.
            between = min(given.low + (given.step or (1 if self.whole else 0)), given.high)
            self.tried = [*self.values, between]
        else:
            self.values = self.tried = list(given.choices)
            plain = all(v is None or isinstance(v, bool | int | float | str) for v in self.values)
            # Optuna knows no lists and takes true for 1: such choices go by their JSON, which the
            # dashboard shows.
            different = plain and len(set(self.values)) == len(self.values)
            texts = self.values if different else [json.dumps(value) for value in self.values]
            self.texts: list[Any] = texts

    def check(self, heads: list[Any]) -> None:
        """Raises SettingsError where `train` refuses an end or a choice, before any trial."""
        head = next((head for head in heads if not of_another(self.key, head)), heads[0])
        for value in self.tried:
            vary(self.base, {"train.head": head, self.key: value})

    def suggest(self, trial: Trial) -> Any:
        if isinstance(self.given, Choices):
            return self.decode(trial.suggest_categorical(self.key, self.texts))
        span = self.given
        if self.whole:
            low, high, step = int(span.low), int(span.high), int(span.step or 1)
            return trial.suggest_int(self.key, low, high, step=step, log=span.log)
        return trial.suggest_float(self.key, span.low, span.high, step=span.step, log=span.log)

    def decode(self, value: Any) -> Any:
        return self.values[self.texts.index(value)] if isinstance(self.given, Choices) else value


def _is_orphan(trial: FrozenTrial) -> bool:
    """Whether a process of this host asked for it and has died, or its number is another's."""
    host, pid, started = (trial.user_attrs.get(name) for name in OWNER)
    if trial.state != TrialState.RUNNING or host != socket.gethostname():
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return True
        return abs(process.create_time() - float(started or 0)) > APART
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:  # it may not be looked at: it lives
        return False
