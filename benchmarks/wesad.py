"""Stress from wrist signals: HeLo, plain heads and a random forest, one subject left out at a time.

    python benchmarks/wesad.py [--tasks three ...] [--stride 60] [--trees 500] [--seed 0]
                               [--epochs 60] [--keep FOLDER] [--json]

WESAD's wrist features of 15 subjects, windows 30 or 60 s apart. Tasks, `three` if none is named:

stress   stress against baseline and amusement
three    baseline, stress, amusement
soft     the three as a distribution: each window's shares are the mean of the conditions of all
         windows of its subject, weighed by exp(-(t - s)^2 / 2 (300 s)^2) in time. These shares
         are ours, made for this benchmark; WESAD has no such labels

Windows of meditation are left out, as in the set's own publication. Every subject is tested once,
by heads that were fitted on the 12 or 13 others but two, which choose the epoch. The random
forest sees the same features of the same training subjects, and of those two as well, as it has
no epochs to choose.

Features with `z_` in the table are in units of the subject's own baseline: they use labels of the
subject tested. That favours all heads alike, and no wearer of a watch has it.
"""

import argparse
import contextlib
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from distributions import HEADS, SHARED, measured, parsed, ready, settings_of, show
from made import machine  # isort: split

from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from extract.datasets import dataset, get_dataset
from pipelines import evaluation
from pipelines.settings import Settings
from pipelines.studies.crossval_page import SHOWN
from pipelines.workplace import index_of
from train import metrics
from train.data import load
from train.folds import make_folds
from train.scores import Scores

WIDE = 300.0  # seconds: deviation of the weights of `soft`
CLASSES = {
    "stress": {"calm": ["baseline", "amusement"], "stress": ["stress"]},
    "three": {name: [name] for name in ("baseline", "stress", "amusement")},
    "soft": {name: [name] for name in ("baseline", "stress", "amusement")},
}
SIDES = [  # of HeLo: what the body does, and what the wearer does
    "train.helo.physiological=[cardiac, electrodermal, temperature]",
    "train.helo.behavioural=[motion]",
]


@dataset("wesad_soft")
class Soft(get_dataset("wesad_features")):
    """The same windows with shares of conditions for labels: see `soft` above."""

    kind = "distribution"

    def records(self):
        every = list(super().records())
        for subject in dict.fromkeys(record.group for record in every):
            mine = [record for record in every if record.group == subject]
            ends = np.concatenate([self.ends(record) for record in mine])
            labels = np.concatenate([[p.labels for p in record.persons] for record in mine])
            labels[:, self.labels.index("meditation")] = 0
            for record in mine:
                persons = []
                for person, end in zip(record.persons, self.ends(record), strict=True):
                    shares = np.exp(-((ends - end) ** 2) / (2 * WIDE**2)) @ labels
                    if record.source != "meditation":
                        shares = (shares / shares.sum()).astype(np.float32)
                        person = replace(person, labels=shares)
                    persons.append(person)
                yield replace(record, persons=persons)

    @staticmethod
    def ends(record) -> np.ndarray:
        """Of each window, in seconds of the session; `S10 baseline 180-1290` has the first's."""
        first = float(record.path.rsplit(" ", 1)[1].split("-")[0])
        starts = np.array([person.box[0] for person in record.persons])
        return first + starts


def forest(settings: Settings, trees: int) -> Scores:
    """A random forest's scores in the folds that the heads had."""
    index, features = index_of(settings), load(settings.cache.root, ["*"])
    inputs = np.concatenate([view["features"].numpy() for view in features.views.values()], axis=1)
    predicted = np.zeros(index.targets.shape)
    rows = []
    for fold in make_folds(index, features.kept, settings.folds):
        train = np.concatenate([fold.train, fold.val])
        rows.append(fold.test)
        if index.kind == "distribution":
            made = RandomForestRegressor(trees, random_state=settings.train.seed, n_jobs=-1)
            predicted[fold.test] = made.fit(inputs[train], index.targets[train]).predict(
                inputs[fold.test]
            )
            continue
        made = RandomForestClassifier(trees, random_state=settings.train.seed, n_jobs=-1)
        labels = index.targets[train].argmax(axis=1)
        given = made.fit(inputs[train], labels).predict_proba(inputs[fold.test])
        predicted[np.ix_(fold.test, made.classes_)] = given
    scored = Scores.read(Path("results/crossval/subjects/scores/helo.parquet"))
    assert sorted(np.concatenate(rows).tolist()) == scored.person_rows.tolist()
    return replace(scored, y_score=predicted[scored.person_rows])


def beside(settings: Settings, result: dict[str, Any], scores: Scores) -> dict[str, Any]:
    """The forest's row, with its differences from HeLo."""
    how = settings.evaluate
    helo = Scores.read(Path("results/crossval/subjects/scores/helo.parquet"))
    mine, theirs = (evaluation.averaged_by(result["kind"], one, how) for one in (scores, helo))
    if result["kind"] != "distribution":
        for found, one in ((mine, scores), (theirs, helo)):
            found["mAP"] = (evaluation.ranked_by(one, how), None)
    row: dict[str, Any] = {"head": "random forest"}
    for name in SHOWN[result["kind"]]:
        if name not in mine:
            continue
        found, column = mine[name]
        value, low, high = found.interval(column)
        row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        gap = metrics.paired(theirs[name][0], found, column)
        row[f"{name}_less_first"] = vars(gap)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=list(CLASSES), default=["three"])
    parser.add_argument("--stride", type=int, choices=(30, 60), default=60)
    parser.add_argument("--trees", type=int, default=500)
    given = parsed(parser, epochs=60)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        base = (given.keep or Path(temporary)).resolve()
        for task in given.tasks:
            folder = base / f"{task}-{given.stride}"
            folder.mkdir(parents=True, exist_ok=True)
            with contextlib.chdir(folder):
                data = [
                    f"data.name={'wesad_soft' if task == 'soft' else 'wesad_features'}",
                    f"data.root={SHARED / 'wesad'}",
                    f"data.file=WESAD_causal_features_stride{given.stride}.csv",
                    f"data.classes={json.dumps(CLASSES[task])}",
                ]
                more = [
                    "folds.protocol=subjects",
                    f"folds.heads={json.dumps(HEADS)}",
                    f"train.seed={given.seed}",
                    f"folds.seed={given.seed}",
                    *SIDES,
                ]
                settings = settings_of(folder, data, more)
                train = settings.train.model_copy(update={"epochs": given.epochs})
                settings = settings.model_copy(update={"train": train})
                ready(settings)
                result = measured(settings)
                result["rows"].append(beside(settings, result, forest(settings, given.trees)))
                found[task] = result
                if not given.json:
                    for name in result["rows"][0]:
                        result["rows"][-1].setdefault(name, result["rows"][0][name])
                    show(task, result)
    if given.json:
        print(json.dumps({"machine": machine(), "tasks": found}))
    else:
        print(f"\n{machine()}")


if __name__ == "__main__":
    main()
