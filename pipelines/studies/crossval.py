"""Heads on the same folds: every person is tested once, by a head that never saw what hangs
together with them. Numbers of all folds together, with intervals, and differences between heads.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cache.errors import DataError, EmocacheError, SettingsError
from cache.files import write_json
from cache.keys import key_of
from pipelines.evaluation import Evaluation, averaged_by, measure, ranked_by
from pipelines.results import Results, plain
from pipelines.settings import Settings
from pipelines.studies.crossval_page import shown, write
from pipelines.studies.trials import Progress, code_of, own, quiet
from pipelines.workplace import device_of, index_of
from train import metrics
from train.heads import get_head
from train.heads import names as known_heads
from train.scores import Scores
from train.settings import Train
from train.vary import vary

if TYPE_CHECKING:
    from train.data import Features
    from train.fit_many import Way
    from train.folds import Fold


def entries(settings: Settings) -> dict[str, Train]:
    """What is compared: name -> settings. Raises SettingsError as `vary`, and for a name in
    `folds.settings` that `folds.heads` has not."""
    some = settings.folds
    names = some.heads or [settings.train.head]
    if stray := [name for name in some.settings if name not in names]:
        raise SettingsError(f"folds.settings has {stray[0]!r}, which folds.heads has not: add it")
    if len(set(names)) < len(names):
        raise SettingsError("folds.heads names one head twice")
    found = {}
    for name in names:
        if name not in known_heads() and "train.head" not in some.settings.get(name, {}):
            raise SettingsError(
                f"folds.heads has {name!r}, which is no head ({', '.join(known_heads())}): say in "
                "folds.settings which it is, as {" + name + ": {train.head: mlp, train.lr: 0.001}}"
            )
        changes = {"train.head": name} | some.settings.get(name, {})
        found[name] = vary(settings.train, changes)
    return found


def crossval(settings: Settings, progress: Progress = quiet) -> dict[str, Any]:
    """Fit every head on every fold and measure all test persons together; write crossval.html,
    table.md, table.tex, table.csv, folds.csv and each head's scores below results/crossval/<the
    protocol>. Fits are kept in results/crossval/fits and taken again.

    Gives rows, a head each: its measures with _low and _high, chance_<measure>, and its differences
    from the first head; kind, protocol, folds in words, N evaluated and dropped, notes.
    Raises SettingsError and DataError as `train.folds.make_folds`.
    """
    from train.data import load
    from train.folds import LEAKS, in_words, make_folds, protocol_of, shared, unfit

    index = index_of(settings)
    asked = entries(settings)
    views = [name for one in asked.values() for name in get_head(one.head).views(one)]
    device, root = device_of(settings), settings.cache.root
    features = load(root, list(dict.fromkeys(views)), device, settings.train.memory)
    folds = make_folds(index, features.kept, settings.folds)
    protocol = protocol_of(index, settings.folds)
    lacks = {fold.name: unfit(fold, index.targets, index.labels) for fold in folds}
    folder = Results().crossval
    runs = _Runs(features, folds, asked, folder / "fits", progress)
    found = {name: runs.scores(name) for name in asked}
    evaluations = {
        name: measure(scores, settings.evaluate, _provenance(features, asked[name], name))
        for name, scores in found.items()
    }
    said = in_words(folds, protocol, settings.folds)
    if protocol != "trials" and shared(index, folds[0].train, folds[0].test)["videos"]:
        said += "; the same videos stand in all parts"
    kind = next(iter(evaluations.values())).metrics["test"]["kind"]
    result = {
        "kind": kind,
        "protocol": protocol,
        "folds": said,
        "leaking": LEAKS if protocol == "leaking" else "",
        "rows": _rows(evaluations, kind, settings),
        "fitted": runs.fitted,
        "kept": runs.kept,
        "lacks": {name: why for name, why in lacks.items() if why},
        "drawn": index.drawn,
        "dataset": features.dataset,
        "note": _without_splits(features.note),
        "dropped": dict(next(iter(evaluations.values())).metrics["test"]["dropped"]),
        "untrained": features.untrained,
        "device": device,
        "seed": settings.train.seed,
        "confidence": settings.evaluate.confidence,
        "chance": next(iter(evaluations.values())).metrics["test"].get("chance_distribution", ""),
    }
    place = folder / protocol
    shutil.rmtree(place / "scores", ignore_errors=True)  # none of other heads beside these
    for name, one in evaluations.items():
        one.scores.write(place / "scores" / f"{name.replace('/', '-')}.parquet")
    result["report"] = str(write(result, runs.about, place))
    return plain(result)


def _without_splits(note: str) -> str:
    """What must be said of the data, but for how `prepare` parted them: here folds do."""
    said = note.split("; ")
    return "; ".join(one for one in said if not one.startswith(("splits ", "val is ")))


def plan(settings: Settings) -> dict[str, Any]:
    """What `crossval` would fit: folds in words, and persons of each part; fits nothing."""
    from train.data import load
    from train.folds import in_words, make_folds, protocol_of, unfit

    index, asked = index_of(settings), entries(settings)
    views = [name for one in asked.values() for name in get_head(one.head).views(one)]
    features = load(settings.cache.root, list(dict.fromkeys(views)), "cpu", settings.train.memory)
    folds = make_folds(index, features.kept, settings.folds)
    lacks = {fold.name: unfit(fold, index.targets, index.labels) for fold in folds}
    return {
        "folds": in_words(folds, protocol_of(index, settings.folds), settings.folds),
        "lacks": {name: why for name, why in lacks.items() if why},
        "heads": list(asked),
        "fits": len(folds) * len(asked),
        "parts": [
            {
                "fold": fold.name,
                "train": len(fold.train),
                "val": len(fold.val),
                "test": len(fold.test),
                "left_out": len(fold.left),
            }
            for fold in folds
        ],
    }


@dataclass
class _Runs:
    """The fits of some heads on some folds: found in `folder`, or made now."""

    features: "Features"
    folds: "Sequence[Fold]"
    asked: Mapping[str, Train]
    folder: Path
    progress: Progress

    def __post_init__(self) -> None:
        self.fitted = self.kept = 0
        self.ways: dict[str, Way] = {}  # of heads that can go in step
        self.about: list[dict[str, Any]] = []
        self.parts: dict[str, list[Scores]] = {name: [] for name in self.asked}
        total, done = len(self.folds) * len(self.asked), 0
        for fold in self.folds:
            here = fold.of(self.features)
            new: list[str] = []
            for name in self.asked:
                if self._found(name, fold, here):
                    done += 1
                    self.kept += 1
                else:
                    new.append(name)
            self.progress(done, total, f"fold {fold.name}")
            if new:
                self._fit(fold, here, new)
            done += len(new)
            self.fitted += len(new)
            self.progress(done, total, f"fold {fold.name}")

    def scores(self, name: str) -> Scores:
        """Of all persons that were tested, in the order of their rows."""
        parts = self.parts[name]
        first = parts[0]
        rows = np.concatenate([one.person_rows for one in parts])
        order = rows.argsort()

        def together(what: str) -> Any:
            values = [getattr(one, what) for one in parts]
            return None if values[0] is None else np.concatenate(values)[order]

        names = ("person_rows", "picture_rows", "units", "y_true", "y_score", "distribution")
        found = {what: together(what) for what in (*names, "vad", "y_vad", "train_mean")}
        dropped: dict[str, int] = {}
        for of_split in self.features.dropped.values():
            for why, count in of_split.items():
                dropped[why] = dropped.get(why, 0) + count
        return replace(first, **found, dropped=dropped)

    def _fit(self, fold: "Fold", here: "Features", names: Sequence[str]) -> None:
        from train.fit_many import fit_many
        from train.run import scores_of

        asked = [self.asked[name] for name in names]
        for done in fit_many(here, asked, ways=self.ways):
            name = names[done.number]
            if isinstance(done.fitted, EmocacheError):
                raise DataError(f"{name}, fold {fold.name}: {done.fitted}") from done.fitted
            scores = scores_of(done.fitted.model, {}, here, "test")
            path = self._path(name, fold, here)
            scores.write(path.with_suffix(".parquet"))
            # Last: it says that the scores are whole.
            write_json(path.with_suffix(".json"), {"best_epoch": done.fitted.best_epoch})
            self._add(name, fold, here, scores, done.fitted.best_epoch)

    def _found(self, name: str, fold: "Fold", here: "Features") -> bool:
        path = self._path(name, fold, here)
        if not (path.with_suffix(".json").exists() and path.with_suffix(".parquet").exists()):
            return False
        scores = Scores.read(path.with_suffix(".parquet"))
        epoch = json.loads(path.with_suffix(".json").read_text())["best_epoch"]
        self._add(name, fold, here, scores, epoch)
        return True

    def _add(
        self, name: str, fold: "Fold", here: "Features", scores: Scores, best_epoch: int
    ) -> None:
        if scores.distribution is not None:
            mean = here.truth(here.rows("train")).mean(0).cpu().numpy()
            mean = np.broadcast_to(mean, scores.distribution.shape)
            scores = replace(scores, train_mean=mean)
        self.parts[name].append(scores)
        sizes = {part: len(getattr(fold, part)) for part in ("train", "val", "test")}
        about = {"head": name, "fold": fold.name, **sizes, "left_out": len(fold.left)}
        main, value = _main(scores)
        self.about.append({**about, "best_epoch": best_epoch, "measure": main, "value": value})

    def _path(self, name: str, fold: "Fold", here: "Features") -> Path:
        from train.fit import fit_key

        one = self.asked[name]
        some = here.only(get_head(one.head).views(one))
        parts = {part: getattr(fold, part).tolist() for part in ("train", "val", "test")}
        key = key_of({"fit": fit_key(some, one), "fold": parts, "code": code_of(one.head)})
        return self.folder / key[:32]


def _main(scores: Scores) -> tuple[str, float]:
    """The measure that heads are compared by, over these persons alone."""
    kind = scores.kind()
    if kind == "distribution":
        each = metrics.distribution_measures(np.asarray(scores.distribution), scores.y_score)
        return "kl", float(each["kl"].mean())
    if kind == "single":
        return "accuracy", metrics.accuracy(scores.y_true, scores.y_score)
    return "mAP", metrics.mean_average_precision(scores.y_true, scores.y_score)


def _provenance(features: "Features", one: Train, name: str) -> dict[str, Any]:
    about = {
        "dataset": features.dataset,
        "note": features.note,
        "cache_key": features.only(get_head(one.head).views(one)).cache_key,
    }
    return {**about, "fitted_on": about, "seed": one.seed, "head": name, "settings": own(one)}


def _rows(
    evaluations: Mapping[str, Evaluation], kind: Any, settings: Settings
) -> list[dict[str, Any]]:
    """A head each, with its differences from the first."""
    drawn = {name: _drawn(one, kind, settings) for name, one in evaluations.items()}
    first = next(iter(evaluations))
    rows = []
    for name, one in evaluations.items():
        numbers = one.metrics["test"]
        row: dict[str, Any] = {"head": name}
        for what in shown(kind, numbers):
            row |= {f"{what}{end}": numbers[f"{what}{end}"] for end in ("", "_low", "_high")}
            if f"chance_{what}" in numbers:
                row[f"chance_{what}"] = numbers[f"chance_{what}"]
            if name != first:
                found, column = drawn[name][what]
                row[f"{what}_less_first"] = asdict(
                    metrics.paired(drawn[first][what][0], found, column)
                )
        some = ("n_evaluated", "n_dropped", "n_pictures", "cache_key", "seed")
        rows.append(row | {what: numbers[what] for what in some})
    return rows


def _drawn(
    one: Evaluation, kind: Any, settings: Settings
) -> dict[str, tuple[metrics.Bootstrap, int | None]]:
    found = averaged_by(kind, one.scores, settings.evaluate)
    if kind != "distribution":
        found = {"mAP": (ranked_by(one.scores, settings.evaluate), None), **found}
    return found
