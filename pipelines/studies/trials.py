"""Many fits on one cache, each kept: what has been fitted is never fitted again.

A trial is one file, named by the key of all that decides its numbers: settings of its own head,
index, views, code, how it is measured. Sweeps, studies and tables share them.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import train
from cache.errors import CacheError, DataError, EmocacheError
from cache.files import write_atomic
from cache.index import Index
from cache.keys import flatten, is_sealed, key_of, sealed
from cache.paths import view_names
from cache.store import open_view
from pipelines import evaluation
from pipelines.results import Results, plain
from pipelines.settings import Settings
from pipelines.workplace import device_of, index_of
from train.metrics.measures import MAIN
from train.scores import Scores
from train.settings import DESCENT, NO_NUMBER, Evaluate, Train

if TYPE_CHECKING:  # what is only looked up needs no torch
    from train.data import Features
    from train.fit import Fitted
    from train.fit_many import Way
    from train.group import Done

FORMAT = 1
Watch = Callable[[int, Mapping[str, float]], bool | None]
Progress = Callable[[int, int, str], None]  # how many are done, of how many, and a note


def quiet(done: int, total: int, note: str) -> None:
    """The progress that nobody looks at."""


@dataclass(frozen=True)
class Trial:
    """What came of one fit.

    status: ok; failed: it was tried and has no numbers (a loss that is not finite), which is kept;
    refused: it could not begin (a view that the cache lacks), and is tried again; dropped: ended
    before its time, and not kept. reason: in words, for all but ok. new: fitted now, not found.

    record: of an ok or dropped one: key, head, seed, settings (dotted, of its own head); dataset,
    note and cache_key; split by split measured (numbers of `pipelines.evaluation.measure`),
    per_class (rows), drawn (the measure that heads are compared by in each resample) and resampled
    (see `resampled`: trials that agree in it share every resample); best_epoch, selected_by,
    val_map, val_loss, epochs, parameters, device, untrained; seconds, together, versions, persons,
    dropped. Of a failed one: key, reason and settings.
    """

    settings: Train
    key: str
    status: str
    reason: str = ""
    record: Mapping[str, Any] | None = None
    new: bool = True

    @property
    def fitted_now(self) -> bool:
        return self.new and self.status != "refused"

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
        self.digest = index.digest()
        self.views: dict[str, str] = {}  # keys, as far as they were asked for
        self.ways: dict[str, Way] = {}  # see `fit_many`
        here = index.splits[index.person_status == "ok"]
        self.splits = [split for split in dict.fromkeys(splits) if bool((here == split).any())]

    def key(self, one: Train) -> str:
        """Raises CacheError for a view that the cache lacks."""
        from train.data import absent_view, view_of, views_in
        from train.heads import closed, get_head

        named = get_head(one.head).views(one)
        views = [view_of(name) for name in views_in(self.root, named)]
        for name in set(views) - set(self.views):
            if name not in view_names(self.root):
                mend = f", with views.{name}.network set" if name == "words" else ""
                reads = f", which {one.head} reads"
                raise CacheError(absent_view(name, self.root, self.index, mend, reads))
            self.views[name] = open_view(self.root, name).key
        idle = NO_NUMBER | (DESCENT if closed(one.head) else set())
        measuring = self.settings.evaluate.model_dump(mode="json", exclude={"split"})
        return key_of(
            {
                "format": FORMAT,
                "settings": {n: v for n, v in own(one).items() if n not in idle},
                "index": self.digest,
                "views": {name: self.views[name] for name in views},
                "evaluate": {**measuring, "splits": self.splits},
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

    def collect(self, asked: Sequence[Train], progress: Progress = quiet) -> list[Trial]:
        """A trial for each of the settings, in their order. What is one fit counts once."""
        fits = [self._fit_of(one) for one in asked]
        total = len(set(fits))
        found: dict[int, Trial] = {}

        def done() -> int:
            return len({fits[number] for number in found})

        def watch(number: int, row: Mapping[str, float]) -> None:
            progress(done(), total, f"{asked[number].head}, epoch {row['epoch']:.0f}")

        progress(0, total, "")
        for number, trial in self.run(asked, watch):
            found[number] = trial
            progress(done(), total, "")
        return [found[number] for number in range(len(asked))]

    def _fit_of(self, one: Train) -> str:
        """What settings that are one fit have in common."""
        try:
            return self.key(one)
        except EmocacheError:
            return one.model_dump_json()

    def run(
        self, asked: Sequence[Train], watch: Watch = lambda number, row: False
    ) -> Iterator[tuple[int, Trial]]:
        """A trial for each of the settings with its place among them, as soon as there is one:
        first those that were kept, then the others as they are fitted. watch: see `fit_many`."""
        from train.heads import get_head

        waiting: dict[str, list[int]] = {}
        for number, one in enumerate(asked):
            found = self.find(one)
            if found is not None:
                yield number, found
            else:
                waiting.setdefault(self.key(one), []).append(number)
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

    def _fit(
        self, asked: list[Train], numbers: list[int], watch: Watch
    ) -> Iterator[tuple[int, Trial]]:
        """`run` of some that were not kept, on the views of all of them."""
        from train.data import load
        from train.fit_many import fit_many
        from train.heads import get_head

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
            record = self._record(one, key, own_views, done, done.fitted)
            status = "dropped" if done.dropped else "ok"
            if not done.dropped:
                self._keep(key, record)
            yield numbers[done.number], Trial(one, key, status, "", record)

    def _record(
        self, one: Train, key: str, features: "Features", done: "Done", fitted: "Fitted"
    ) -> dict[str, Any]:
        from train.fit import facts_of
        from train.run import scores_of, versions

        about = {
            "dataset": features.dataset,
            "note": features.note,
            "cache_key": features.cache_key,
        }
        provenance = {**about, "fitted_on": about, "seed": one.seed, "head": one.head}
        how = self.settings.evaluate
        scores = {split: scores_of(fitted.model, {}, features, split) for split in self.splits}
        val = scores.get("val")
        found = {
            split: evaluation.measure(some, how, provenance, val=val if split != "val" else None)
            for split, some in scores.items()
        }
        splits = ("train", *self.splits)
        return plain(
            {
                "key": key,
                "reason": "",
                "head": one.head,
                "seed": one.seed,
                "settings": own(one),
                **about,
                "measured": {split: of.metrics[split] for split, of in found.items()},
                "per_class": {split: of.per_class for split, of in found.items()},
                "drawn": {split: _drawn(of) for split, of in found.items()},
                "resampled": {split: resampled(of, how) for split, of in scores.items()},
                **facts_of(fitted, features),
                "seconds": round(done.seconds, 3),
                "together": done.together,
                "versions": versions(),
                "persons": {split: len(features.rows(split)) for split in splits},
                "dropped": {split: dict(features.dropped.get(split, {})) for split in splits},
            }
        )

    def _keep(self, key: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(sealed(record), ensure_ascii=False, allow_nan=False)
        write_atomic(self._path(key), text.encode())

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.json"

    def words(self) -> list[str]:
        """How heads of one shape were fitted, where that was measured."""
        return [f"{head} {way.words()}" for head, way in self.ways.items()]

    def plan(self, asked: Sequence[Train]) -> dict[str, Any]:
        """What `run` would do, what is one fit counted once: asked, kept, refused, left; reasons of
        those refused; groups of one shape with head, fits, epochs, steps an epoch and seconds a
        step, measured now; and seconds, of all that is left one after another if none stops
        early."""
        every = {self._fit_of(one): one for one in asked}
        found = [(one, self.find(one)) for one in every.values()]
        new = [one for one, trial in found if trial is None]
        refused = [trial.reason for _, trial in found if trial and trial.status == "refused"]
        kept = len(every) - len(new) - len(refused)
        shapes: list[dict[str, Any]] = []
        for shape, reasons in self._shapes(new):
            shapes += shape
            refused += reasons
        return {
            "asked": len(every),
            "kept": kept,
            "refused": len(refused),
            "left": sum(shape["fits"] for shape in shapes),
            "reasons": sorted(set(refused)),
            "groups": shapes,
            "seconds": sum(shape["seconds"] for shape in shapes),
            "device": self.device,
        }

    def _shapes(self, asked: Sequence[Train]) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
        """For each set of views the groups of `plan`, or the reason why each of its fits is
        refused."""
        from train.data import load
        from train.fit_many import groups
        from train.heads import get_head
        from train.timing import epoch_seconds

        by_views: dict[tuple[str, ...], list[list[int]]] = {}
        for group in groups(asked):
            one = asked[group[0]]
            by_views.setdefault(tuple(get_head(one.head).views(one)), []).append(group)
        for views, several in by_views.items():
            try:
                features = load(self.root, views, self.device, self.settings.train.memory)
            except EmocacheError as error:
                yield [], [str(error)] * sum(map(len, several))
                continue
            shapes = []
            for group in several:
                first = asked[group[0]]
                epoch = epoch_seconds(features, first)
                epochs = [asked[n].epochs if epoch.steps else 1 for n in group]
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
            yield shapes, []


def _same_persons(features: "Features", of_each: Sequence[Sequence[str]]) -> bool:
    """Whether each of these sets of views counts the persons that all of them together do: nobody
    is dropped for a view that one of them does not read."""
    from train.data import expand, view_of

    reasons = {why for of_split in features.dropped.values() for why in of_split}
    blamed = {why.partition(": ")[0] for why in reasons} & set(features.specs)
    return all(blamed <= set(map(view_of, expand(names, features.specs))) for names in of_each)


def _drawn(found: evaluation.Evaluation) -> list[float]:
    """The measure that heads are compared by, in each resample."""
    main = MAIN[found.metrics[found.scores.split]["kind"]]
    return np.round(found.drawn[main.name], 6).tolist()


def resampled(scores: Scores, how: Evaluate) -> str:
    """SHA-256 of the persons, their pictures, how often these are resampled and by which seed: what
    `train.metrics.paired` needs two heads to have in common."""
    about = np.array([how.bootstrap, how.seed, len(scores.person_rows)])
    parts = [about, scores.person_rows, scores.resampled]
    return sha256(b"".join(part.astype(np.int64).tobytes() for part in parts)).hexdigest()


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
    return Trials(settings, index, device_of(settings), Results().trials, splits)


def untrained_of(trials: Iterable[Trial]) -> list[str]:
    """The networks with random weights that any of these rests on."""
    records = [trial.record for trial in trials if trial.record]
    return sorted({name for record in records for name in record.get("untrained", [])})


def fits_of(trials: Iterable[Trial]) -> int:
    """How many fits they are: several may be one, as those of a closed form over seeds."""
    return len({trial.key for trial in trials if trial.key})


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
    others |= {*(folder / "uniemox").rglob("*.py")}  # which no head knows
    files = [*sorted({*folder.rglob("*.py")} - others), Path(evaluation.__file__)]
    return sha256(b"".join(sha256(file.read_bytes()).digest() for file in files)).hexdigest()
