"""Many fits on one cache, each kept: what has been fitted is never fitted again.

A trial is one file, named by the key of all that decides its numbers: settings of its own head,
index, views, code, how it is measured. Sweeps, studies and tables share them.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

import train
from cache.errors import CacheError, DataError, EmocacheError
from cache.files import write_atomic
from cache.index import Index
from cache.keys import flatten, is_sealed, key_of, sealed
from cache.paths import view_names
from cache.store import open_view
from pipelines import evaluation
from pipelines.settings import Settings
from pipelines.stages import RESULTS, device_of, index_of
from train.settings import DESCENT, NO_NUMBER, Train

FORMAT = 1
Watch = Callable[[int, Mapping[str, float]], bool | None]


@dataclass(frozen=True)
class Trial:
    """What came of one fit.

    status: ok; failed: it was tried and has no numbers (a loss that is not finite), which is kept;
    refused: it could not begin (a view that the cache lacks), and is tried again; dropped: ended
    before its time, and not kept. reason: in words, for all but ok. new: fitted now, not found.

    record: of an ok or dropped one: key, head, seed, settings (dotted, of its own head), measured
    (split -> numbers of `pipelines.evaluation.measure`), per_class (split -> rows), drawn (split
    -> the measure of `evaluation.MAIN` in each resample; trials on the same persons share them),
    best_epoch,
    epochs, selected_by, val_map, val_loss, parameters, seconds, together, device, versions,
    cache_key, dataset, note, untrained, persons, dropped.
    """

    settings: Train
    key: str
    status: str
    reason: str = ""
    record: Mapping[str, Any] | None = None
    new: bool = True

    def measured(self, split: str) -> dict[str, Any]:
        return {} if self.record is None else self.record.get("measured", {}).get(split, {})


class Trials:
    """The trials below `folder` on the cache of the settings, measured on these splits, as far as
    the data have them. A search measures val alone: what it does not know it cannot choose by."""

    def __init__(
        self,
        settings: Settings,
        index: Index,
        device: str,
        folder: Path,
        splits: Sequence[str] = ("val",),
    ):
        self.settings, self.index, self.device, self.folder = settings, index, device, folder
        self.root = settings.cache.root
        self.measuring = settings.evaluate.model_dump(mode="json", exclude={"split"})
        self.digest = index.digest()
        self.views: dict[str, str] = {}  # keys, as far as they were asked for
        self.ways: dict[str, Any] = {}  # see `fit_many`
        here = index.splits[index.person_status == "ok"]
        self.splits = [split for split in dict.fromkeys(splits) if bool((here == split).any())]

    def key(self, one: Train) -> str:
        """Raises CacheError for a view that the cache lacks."""
        from train.heads import get_head, may_differ

        views = [name.partition(".")[0] for name in get_head(one.head).views(one)]
        for name in set(views) - set(self.views):
            if name not in view_names(self.root):
                raise CacheError(f"{self.root} has no view {name!r}, which {one.head} reads")
            self.views[name] = open_view(self.root, name).key
        idle = NO_NUMBER | (DESCENT if may_differ(one.head) is None else set())
        return key_of(
            {
                "format": FORMAT,
                "settings": {n: v for n, v in own(one).items() if n not in idle},
                "index": self.digest,
                "views": {name: self.views[name] for name in views},
                "evaluate": {**self.measuring, "splits": self.splits},
                "device": self.device.partition(":")[0],
                "code": code_of(one.head),
            }
        )

    def find(self, one: Train) -> Trial | None:
        """A trial that was kept."""
        try:
            key = self.key(one)
        except EmocacheError as error:
            return Trial(one, "", "refused", str(error))
        path = self._path(key)
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_text("utf-8"))
        except ValueError:
            return None
        if not is_sealed(record):  # damaged: it is fitted again
            return None
        status = "failed" if record["reason"] else "ok"
        return Trial(one, key, status, record["reason"], record, new=False)

    def run(
        self, asked: Sequence[Train], watch: Watch = lambda number, row: False
    ) -> Iterator[tuple[int, Trial]]:
        """A trial for each of the settings with its place among them, as soon as there is one:
        first those that were kept, then the others as they are fitted. watch: see `fit_many`."""
        waiting: dict[str, list[int]] = {}
        for number, one in enumerate(asked):
            found = self.find(one)
            if found is not None:
                yield number, found
            else:
                waiting.setdefault(self.key(one), []).append(number)
        from train.heads import get_head

        groups: dict[Any, list[int]] = {}
        for numbers in waiting.values():
            one = asked[numbers[0]]
            head = get_head(one.head)
            # Ablations that can be stretched to one shape go in step, on the views of all of them.
            alike = one.head if hasattr(head, "stretched") else tuple(head.views(one))
            groups.setdefault(alike, []).append(numbers[0])
        same = {numbers[0]: numbers for numbers in waiting.values()}
        for numbers in groups.values():
            for number, trial in self._fit([asked[n] for n in numbers], numbers, watch):
                yield from ((also, trial) for also in same[number])

    def words(self) -> list[str]:
        """How heads of one shape were fitted, where that was measured."""
        return [f"{head} {way.words()}" for head, way in self.ways.items()]

    def plan(self, asked: Sequence[Train]) -> dict[str, Any]:
        """What `run` would do, equal settings counted once: asked, kept, refused, left; reasons of
        those refused; groups of one shape with head, fits, epochs, steps an epoch and seconds a
        step, measured now; and seconds, of all that is left one after another if none stops
        early."""
        from train.data import load
        from train.fit import epoch_seconds
        from train.heads import get_head
        from train.together import groups

        found = [(one, self.find(one)) for one in asked]
        left = {self.key(one): one for one, trial in found if trial is None}
        refused = [trial.reason for _, trial in found if trial and trial.status == "refused"]
        some = list(left.values())
        shapes: list[dict[str, Any]] = []
        by_views: dict[tuple[str, ...], list[list[int]]] = {}
        for group in groups(some):
            one = some[group[0]]
            by_views.setdefault(tuple(get_head(one.head).views(one)), []).append(group)
        for views, several in by_views.items():
            try:
                features = load(self.root, views, self.device, self.settings.train.memory)
            except EmocacheError as error:
                refused += [str(error)] * sum(map(len, several))
                continue
            for group in several:
                first = some[group[0]]
                epoch = epoch_seconds(features, first)
                epochs = [some[n].epochs if epoch.steps else 1 for n in group]
                shapes.append(
                    {
                        "head": first.head,
                        "fits": len(group),
                        "epochs": max(epochs),
                        "steps": epoch.steps,
                        "step_s": epoch.step,
                        "seconds": epoch.all * sum(epochs),
                    }
                )
        kept = {trial.key for _, trial in found if trial and trial.status != "refused"}
        fits = sum(shape["fits"] for shape in shapes)
        return {
            "asked": len(kept) + fits + len(refused),
            "kept": len(kept),
            "refused": len(refused),
            "left": fits,
            "reasons": sorted(set(refused)),
            "groups": shapes,
            "seconds": sum(shape["seconds"] for shape in shapes),
            "device": self.device,
        }

    def _fit(
        self, asked: list[Train], numbers: list[int], watch: Watch
    ) -> Iterator[tuple[int, Trial]]:
        from train.data import load
        from train.heads import get_head
        from train.together import fit_many

        of_each = [get_head(one.head).views(one) for one in asked]
        views = tuple(dict.fromkeys(name for names in of_each for name in names))
        try:
            features = load(self.root, views, self.device, self.settings.train.memory)
        except EmocacheError as error:
            for number, one in zip(numbers, asked, strict=True):
                yield number, Trial(one, "", "refused", str(error))
            return
        if not _same_persons(features, of_each):
            by_views: dict[Any, list[int]] = {}
            for place, names in enumerate(of_each):
                by_views.setdefault(names, []).append(place)
            for places in by_views.values():
                some = [asked[p] for p in places], [numbers[p] for p in places]
                yield from self._fit(*some, watch)
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        running = self.folder / "running"
        for done in fit_many(
            features, asked, lambda n, row: watch(numbers[n], row), running, self.ways
        ):
            one = asked[done.number]
            key = self.key(one)
            if isinstance(done.fitted, EmocacheError):
                record = {"key": key, "reason": str(done.fitted), "settings": own(one)}
                self._keep(key, record)
                yield numbers[done.number], Trial(one, key, "failed", str(done.fitted), record)
                continue
            own_views = features.only(of_each[done.number])
            record = self._record(one, key, own_views, done)
            status = "dropped" if done.dropped else "ok"
            if not done.dropped:
                self._keep(key, record)
            yield numbers[done.number], Trial(one, key, status, "", record)

    def _record(self, one: Train, key: str, features: Any, done: Any) -> dict[str, Any]:
        from train.run import scores_of, untrained, versions

        fitted = done.fitted
        cache_key = key_of({"index": features.index_digest, **features.keys})
        about = {"dataset": features.dataset, "note": features.note, "cache_key": cache_key}
        provenance = {**about, "fitted_on": about, "seed": one.seed, "head": one.head}
        scores = {split: scores_of(fitted.model, {}, features, split) for split in self.splits}
        found = {
            split: evaluation.measure(
                some,
                features.labels,
                self.settings.evaluate,
                provenance,
                val=scores.get("val") if split != "val" else None,
                mean_distribution=some.train_mean,
            )
            for split, some in scores.items()
        }
        row = fitted.history[fitted.best_epoch - 1]
        return evaluation.plain(
            {
                "key": key,
                "reason": "",
                "head": one.head,
                "seed": one.seed,
                "settings": own(one),
                **about,
                "measured": {split: one.metrics[split] for split, one in found.items()},
                "per_class": {split: one.per_class for split, one in found.items()},
                "drawn": {split: _drawn(one) for split, one in found.items()},
                "best_epoch": fitted.best_epoch,
                "epochs": len(fitted.history),
                "selected_by": fitted.selected_by,
                "val_map": row["val_map"],
                "val_loss": row["val_loss"],
                "parameters": sum(p.numel() for p in fitted.model.parameters()),
                "seconds": round(done.seconds, 3),
                "together": done.together,
                "device": str(features.device),
                "versions": versions(),
                "untrained": untrained(features.weights),
                "persons": {s: len(features.rows(s)) for s in ("train", *self.splits)},
                "dropped": {s: dict(features.dropped.get(s, {})) for s in ("train", *self.splits)},
            }
        )

    def _keep(self, key: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(sealed(record), ensure_ascii=False, allow_nan=False)
        write_atomic(self._path(key), text.encode())

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"


def _same_persons(features: Any, of_each: Sequence[Sequence[str]]) -> bool:
    """Whether each of these sets of views counts the persons that all of them together do: nobody
    is dropped for a view that one of them does not read."""
    reasons = {why for of_split in features.dropped.values() for why in of_split}
    blamed = {why.partition(": ")[0] for why in reasons} & set(features.spaces)
    return all(blamed <= {name.partition(".")[0] for name in names} for names in of_each)


def _drawn(found: evaluation.Evaluation) -> list[float]:
    """The measure that heads are compared by, in each resample."""
    main, _ = evaluation.MAIN[found.metrics[found.scores.split]["kind"]]
    return np.round(found.drawn[main], 6).tolist()


def searching(settings: Settings) -> Trials:
    """Trials of these settings that know val alone. Raises DataError where there is no val to
    choose by."""
    trials = measuring(settings, ["val"])
    if not trials.splits:
        raise DataError(
            "a search chooses by val, and the index has no val person: run `emocache prepare` on "
            "data with a val split"
        )
    return trials


def measuring(settings: Settings, splits: Sequence[str]) -> Trials:
    """Trials of these settings that know these splits."""
    index = index_of(settings)
    return Trials(settings, index, device_of(settings), RESULTS / "trials", splits)


def own(one: Train) -> dict[str, Any]:
    """The settings that reach its head, dotted, without `train.`: those of other heads do not."""
    from train.heads import names

    tree = one.model_dump(mode="json", exclude=set(names()) - {one.head})
    options = tree.pop("options")
    return flatten(tree) | ({"options": options} if options else {})


@functools.cache
def code_of(head: str) -> str:
    """SHA-256 of the code that a trial of this head runs, other heads' files left out."""
    from train.heads import names

    folder = Path(train.__path__[0])
    others = {folder / "heads" / f"{name}.py" for name in names() if name != head}
    files = [*sorted({*folder.rglob("*.py")} - others), Path(evaluation.__file__)]
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()
