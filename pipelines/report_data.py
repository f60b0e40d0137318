"""Gather what the report shows: results of a run, its networks, and some persons with pictures."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cache.errors import DataError
from cache.index import Index
from cache.statuses import STATUS
from cache.store import open_view
from extract import images
from pipelines.evaluation import Kind
from pipelines.overlay import ObjectMark, PersonMark
from pipelines.report import Person, ReportData, read_results
from pipelines.settings import Settings
from pipelines.stages import index_of
from train.checkpoint import cache_key, load_head
from train.run import Explanation, explain


def gather(settings: Settings, results: Path) -> ReportData:
    """Everything for `write_report`, read from `results`, the cache and the pictures.

    Raises DataError where train or evaluate has not run yet, or has on another cache or head.
    """
    tables = read_results(results)
    index = index_of(settings)
    about = tables["metrics"]["provenance"]
    _, info = load_head(results / "head")
    here = cache_key(info, index.digest())
    if (about["head_sha256"], about["cache_key"]) != (info["sha256"], here):
        raise DataError(
            f"{results / 'metrics.json'} is of {about['dataset']} (cache key "
            f"{about['cache_key'][:12]}, head {about['head_sha256'][:12]}), at hand are "
            f"{index.dataset} ({here[:12]}) and head {info['sha256'][:12]}: run `emocache evaluate`"
        )
    scores = pq.read_table(results / "scores.parquet")
    split = scores["split"][0].as_py()
    rows = _choose(scores["person"].to_numpy(), scores["picture"].to_numpy(), settings)
    seen = explain(settings.cache.root, results / "head", rows.tolist(), split)
    kind = tables["metrics"][split]["kind"]
    threshold = {row["label"]: row["threshold"] for row in tables["per_class"]}
    graphs = dict(seen.graphs)
    return ReportData(
        head=about["head"],
        dataset=about["dataset"],
        note=about["note"],
        split=split,
        labels=index.labels,
        networks=[
            {**one, "view": name} for name, view in info["views"].items() for one in view["weights"]
        ],
        persons=[_person(n, seen, index, kind, threshold, settings) for n in range(len(rows))],
        cooccurrence=graphs.get("cooccurrence"),
        similarity=graphs.get("similarity"),
        **tables,
    )


def _choose(persons: np.ndarray, pictures: np.ndarray, settings: Settings) -> np.ndarray:
    """Person rows to show: drawn by seed, one a picture as far as there are enough pictures."""
    order = np.random.default_rng(settings.report.seed).permutation(len(persons))
    _, first = np.unique(pictures[order], return_index=True)
    rest = np.setdiff1d(np.arange(len(order)), first)
    chosen = order[np.concatenate([np.sort(first), rest])][: settings.report.people]
    return np.sort(persons[chosen])


def mark_of(number: int, seen: Explanation) -> PersonMark:
    """Box, head and objects of one explained person, to be drawn: the heaviest object first."""
    objects, head = [], None
    if seen.object_mask is not None:
        for place in np.flatnonzero(seen.object_mask[number]):
            weight = None if seen.attention is None else float(seen.attention[number, place])
            objects.append(
                ObjectMark(
                    box=tuple(seen.object_boxes[number, place].tolist()),
                    name=seen.classes[int(seen.object_labels[number, place])],
                    score=float(seen.object_scores[number, place]),
                    weight=weight,
                )
            )
    objects.sort(key=lambda mark: -(mark.weight or 0))
    if seen.head_mask is not None and seen.head_mask[number]:
        head = tuple(seen.head_boxes[number].tolist())
    return PersonMark(box=tuple(seen.boxes[number].tolist()), face=head, objects=objects)


def _person(
    number: int,
    seen: Explanation,
    index: Index,
    kind: Kind,
    threshold: dict[str, float],
    settings: Settings,
) -> Person:
    from PIL import Image

    row = int(seen.person_rows[number])
    name = index.pictures["path"][int(seen.picture_rows[number])].as_py()
    path = settings.data.root.expanduser() / name
    try:
        picture = Image.fromarray(images.read(path).pixels)
    except images.PictureError as error:
        raise DataError(
            f"the report shows pictures and cannot read {path} ({error.reason}): set data.root to "
            "where they are"
        ) from error
    probabilities = dict(zip(index.labels, seen.y_score[number].tolist(), strict=True))
    truth = dict(zip(index.labels, index.targets[row].tolist(), strict=True))
    true = [label for label, y in truth.items() if y > 0.5]
    if kind == "distribution":
        true, predicted = [], []  # shares are compared, nothing is decided
    elif kind == "single":
        predicted = [max(probabilities, key=probabilities.__getitem__)]  # the first of equal ones
    else:
        predicted = [label for label, p in probabilities.items() if p >= threshold[label]]
    head = open_view(settings.cache.root, "head")
    notes = ["no face found"] if head.status[row] == STATUS["no_face"] else []
    mark = mark_of(number, seen)
    return Person(
        name=f"person {row}",
        picture=picture,
        mark=mark,
        true=true,
        predicted=predicted,
        probabilities=probabilities,
        notes=notes,
        shares=truth if kind == "distribution" else None,
    )
