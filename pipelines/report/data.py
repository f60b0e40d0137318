"""What the report shows: results of a run, its networks, and some persons with their pictures."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DataError
from cache.index import Index
from cache.progress import Progress, silent
from pipelines.looks import Look
from pipelines.overlay import PersonMark
from pipelines.recordings import PEOPLE, Terms, place_of, terms_of
from pipelines.report import gallery
from pipelines.report.gallery import NO_FACE, STANDS, Gallery
from pipelines.results import Results, read_csv
from pipelines.settings import Settings
from pipelines.studies.page import Section
from pipelines.workplace import index_of
from train.labels import LabelKind
from train.metrics import distribution_measures
from train.scores import Scores


@dataclass(frozen=True)
class Person:
    """One person of the split, or a window of a recording, which has no picture.

    Single labels: one in `true` and one in `predicted`. Distributions: neither, but `shares`.
    """

    name: str  # e.g. "person 41"
    picture: Path | None
    mark: PersonMark  # in pixels of the upright picture
    true: Sequence[str]
    predicted: Sequence[str]
    scores: Mapping[str, float]  # of every label
    notes: Sequence[str] = ()  # e.g. "no face found"
    shares: Mapping[str, float] | None = None  # of every label, the true ones
    place: str = ""  # where it comes from, see `pipelines.recordings.place_of`
    transport: np.ndarray | None = None  # (n, m), from the tokens of one side to the other's


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. `metrics`, `per_class`, `pr`, `confusion`, `curves` and `scores` are
    the files of a results folder; `networks` are `Weights.facts()` with their `view` (keys view,
    network, name, source, licence, sha256, trained); `views` are the names of those that the head
    reads: of others nothing is said; `graphs` are label graphs (C, C) by name, as `Head.graphs` has
    them; `places`: where the persons of `extremes` come from, by their row; `terms`: what rows are
    called."""

    head: str
    dataset: str
    note: str
    split: str
    labels: Sequence[str]
    scores: Scores
    metrics: Mapping[str, Any]
    per_class: Sequence[Mapping[str, Any]]
    pr: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    networks: Sequence[Mapping[str, Any]]
    views: Collection[str]
    persons: Sequence[Person]
    confusion: Sequence[Mapping[str, Any]] = ()  # actual, predicted: a row a person
    graphs: Mapping[str, np.ndarray] = field(default_factory=dict)
    places: Mapping[int, str] = field(default_factory=dict)
    terms: Terms = PEOPLE
    learned: Sequence[str] | None = None  # labels that a training person had; None: not known
    looks: Sequence[Look] = ()  # where the encoders of scene and body looked, of some persons
    no_looks: str = ""  # why not, where one would expect them
    sides: tuple[str, str] = ("the first side", "the second")  # what is transported, and to where
    gallery: Gallery | None = None  # everybody, to look through
    studies: Sequence[Section] = ()  # other runs beside this one, and what `tables` found


def read_results(results: Results) -> dict[str, Any]:
    """The files of a results folder, ready for `ReportData(**read_results(results), ...)`."""
    tables = {
        "per_class": results.per_class,
        "pr": results.pr,
        "confusion": results.confusion,
        "curves": results.curves,
    }
    paths = [results.metrics, results.provenance, results.scores, *tables.values()]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise DataError(
            f"The report needs {', '.join(missing)}: run `emocache train` and `emocache evaluate`."
        )
    return {
        "metrics": results.read_metrics(),
        "scores": Scores.read(results.scores),
        **{name: read_csv(path) for name, path in tables.items()},
    }


def gather(settings: Settings, results: Results, progress: Progress = silent) -> ReportData:
    """Everything for the page, read from the results folder and the cache. The scores shown are
    those that were measured; the head runs again only to tell what it saw. progress: see
    `gallery.everybody`, which takes the time.

    Raises DataError where train or evaluate has not run yet, or has on another cache or head.
    """
    from pipelines.report.channels import channels_of
    from pipelines.report.looks import looks_of
    from pipelines.report.studies import studies_of
    from train.checkpoint import fitted_key
    from train.run import open_head

    files = read_results(results)
    index = index_of(settings)
    about, scores = files["metrics"]["provenance"], files["scores"]
    opened = open_head(settings.cache.root, results.head, memory=settings.train.memory)
    info = opened.info
    here = fitted_key(info, index.digest())
    if (about["head_sha256"], about["cache_key"]) != (info["sha256"], here):
        raise DataError(
            f"{results.metrics} is of {about['dataset']} (cache key "
            f"{about['cache_key'][:12]}, head {about['head_sha256'][:12]}), at hand are "
            f"{index.dataset} ({here[:12]}) and head {info['sha256'][:12]}: run `emocache evaluate`"
        )
    shown = scores.of(choose(scores, settings.report.people, settings.report.seed))
    seen = opened.explain(shown.person_rows.tolist())
    kind = files["metrics"][scores.split]["kind"]
    thresholds = {row["label"]: row["threshold"] for row in files["per_class"]}
    furthest = scores.of(extremes(scores) if kind == "distribution" else np.arange(0))
    terms = terms_of(index)
    positives = info.get("positives")
    learned = None if positives is None else [name for name, count in positives.items() if count]
    few = slice(settings.report.looks)
    looks, no_looks = looks_of(
        settings, index, opened, shown.person_rows.tolist()[few], shown.y_score[few]
    )
    gate = None if seen.gate is None else seen.gate[few]
    gated, no_gate = channels_of(settings, index, opened, shown.person_rows.tolist()[few], gate)
    looks, no_looks = [*looks, *gated], no_looks or ("" if looks else no_gate)
    return ReportData(
        head=about["head"],
        dataset=about["dataset"],
        note=about["note"],
        split=scores.split,
        labels=scores.labels,
        networks=[
            {**one, "view": name} for name, view in info["views"].items() for one in view["weights"]
        ],
        views=tuple(info["views"]),
        persons=[
            Person(
                name=f"{terms.one} {row}",
                picture=None
                if index.modalities
                else _path(index, int(shown.picture_rows[n]), settings),
                mark=(mark := PersonMark.seen(seen, n)),
                notes=[
                    *([NO_FACE] if seen.faces and not mark.face else []),
                    *filter(None, [STANDS.get(index.persons["origin"][int(row)].as_py())]),
                ],
                place=place_of(index, row),
                transport=None if seen.transport is None else seen.transport[n],
                **_answer(shown, n, kind, thresholds),
            )
            for n, row in enumerate(shown.person_rows.tolist())
        ],
        graphs=seen.graphs,
        places={row: place_of(index, row) for row in furthest.person_rows.tolist()},
        terms=terms,
        learned=learned,
        looks=looks,
        no_looks=no_looks,
        studies=studies_of(settings, index, results),
        gallery=gallery.everybody(
            settings, index, opened, scores, kind, thresholds, progress, learned
        ),
        **files,
        **_sides(info["spec"]),
    )


def choose(scores: Scores, people: int, seed: int) -> np.ndarray:
    """Places of persons to show, by rising row: drawn by seed, one a picture as far as there are
    enough pictures."""
    order = np.random.default_rng(seed).permutation(len(scores.person_rows))
    _, first = np.unique(scores.picture_rows[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    chosen = order[np.concatenate([np.sort(first), rest])][:people]
    return chosen[np.argsort(scores.person_rows[chosen])]


def _sides(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The views of the two sides of a head, where its spec names them."""
    named = [", ".join(views) for views in spec.get("sides", {}).values()]
    return {"sides": (named[0], named[1])} if len(named) == 2 and all(named) else {}


def divergences(scores: Scores) -> np.ndarray:
    """KL divergence of each person's predicted distribution from the true one."""
    return distribution_measures(np.asarray(scores.distribution), scores.y_score)["kl"]


def extremes(scores: Scores) -> np.ndarray:
    """Places of six persons by their KL divergence, the least first: the two with the least, the
    two in the middle of the ranking and the two with the greatest; of equal ones the first. All,
    where there are no more."""
    order = np.argsort(divergences(scores), kind="stable")
    last, middle = len(order) - 1, (len(order) - 1) // 2
    ranks = np.unique([0, 1, middle, middle + 1, last - 1, last])
    return order[ranks[(ranks >= 0) & (ranks <= last)]]


def _path(index: Index, picture: int, settings: Settings) -> Path:
    return settings.data.root.expanduser() / index.pictures["path"][picture].as_py()


def _answer(
    scores: Scores, at: int, kind: LabelKind, thresholds: Mapping[str, float]
) -> dict[str, Any]:
    """What the head says of one person, and what is true, as `Person` has it."""
    found = dict(zip(scores.labels, scores.y_score[at].tolist(), strict=True))
    if kind == "distribution" and scores.distribution is not None:
        shares = dict(zip(scores.labels, scores.distribution[at].tolist(), strict=True))
        return {"scores": found, "true": [], "predicted": [], "shares": shares}  # none is decided
    true = [label for label, y in zip(scores.labels, scores.y_true[at], strict=True) if y]
    if kind == "single":
        predicted = [max(found, key=found.__getitem__)]  # the first of equal ones
    else:
        predicted = [label for label, score in found.items() if score >= thresholds[label]]
    return {"scores": found, "true": true, "predicted": predicted}
