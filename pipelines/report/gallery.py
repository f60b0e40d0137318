"""Everybody who was measured, for the report's gallery: one row a person, in columns that the page
sorts and filters, and a thumbnail of each picture."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cache.index import Index
from cache.progress import Progress, silent
from cache.store import open_view
from extract import images
from pipelines.recordings import Terms, place_of, terms_of
from pipelines.report.what_if import WhatIf, what_if
from pipelines.settings import Settings
from pipelines.wording import UNTRAINED
from train import metrics
from train.labels import LabelKind
from train.scores import Scores

if TYPE_CHECKING:  # these load torch
    from train.explain import Explanation
    from train.run import Opened

BATCH = 512  # persons explained at once: an explanation keeps the features of all of them
TRUE, PREDICTED = 1, 2  # of `Gallery.marks`; both together are a hit
SIDES = {1_000: 480, math.inf: 200}  # up to so many pictures: longer side of a thumbnail in pixels
QUALITY = 70  # of WebP: 5 kB a photograph at 200 pixels
ROOM = 38_000_000  # bytes of all thumbnails at most; a page has a third more, and stays below 60 MB
NO_ROOM = "left out, so that the page stays below 60 MB"

# What is to be said of a box that is not a person's own.
STANDS = {"whole": "nobody found: the whole picture", "face": "the annotated face alone"}
NO_FACE, NO_OBJECT = "no face found", "no object found"


@dataclass(frozen=True)
class Seen:
    """What a head saw of N persons. boxes, faces (N, 4) in pixels, NaN where there is none; objects
    one after another, the heaviest of a person first: those of person n are first[n] to
    first[n + 1], and object_numbers says which of the cache's they are. faces, or first and all of
    objects, are None where the head reads no such view, weights where it weighs nothing; classes:
    the names that `object_classes` counts in."""

    boxes: np.ndarray
    faces: np.ndarray | None = None
    first: np.ndarray | None = None
    object_boxes: np.ndarray | None = None
    object_classes: np.ndarray | None = None
    object_scores: np.ndarray | None = None
    object_numbers: np.ndarray | None = None
    weights: np.ndarray | None = None
    classes: tuple[str, ...] = ()

    def objects_of(self, place: int) -> np.ndarray:
        """The numbers in the cache of the objects of the person at this place, heaviest first."""
        if self.first is None or self.object_numbers is None:
            return np.zeros(0, int)
        return self.object_numbers[self.first[place] : self.first[place + 1]]


@dataclass(frozen=True)
class Gallery:
    """N persons of a split, P pictures, C labels.

    rows (N,): in the index. place (N,): into `places`, which are paths of pictures, or of
    recordings what `place_of` says of each window; sizes (P, 2): width and height, 0 of recordings.
    scores (N, C). marks (N, C): TRUE, PREDICTED or both, by the thresholds (C,) from val, which are
    NaN where there is none; of single labels by the highest score; of distributions by the largest
    share. shares (N, C): the true ones of distributions. measure (N,): Jaccard of true and
    predicted labels, the score of the single true label, or the KL divergence; NaN where nothing is
    decided. noted (N, len(notes)): which of `notes` is to be said of whom. learned: labels
    that a training person had, None where it is not known. depth (P, h, w): the
    maps in the cache, near is more, of a head that reads them; depth_said: of which network.
    thumbnails: WebP by place; without: why there is none, by place. what_if: of some persons.
    """

    kind: LabelKind
    labels: tuple[str, ...]
    terms: Terms
    rows: np.ndarray
    place: np.ndarray
    places: Sequence[str]
    sizes: np.ndarray
    scores: np.ndarray
    marks: np.ndarray
    measure: np.ndarray
    thresholds: np.ndarray
    seen: Seen
    notes: Sequence[str] = ()
    noted: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    shares: np.ndarray | None = None
    learned: Collection[str] | None = None
    depth: np.ndarray | None = None
    depth_said: str = ""
    thumbnails: Mapping[int, bytes] = field(default_factory=dict)
    without: Mapping[int, str] = field(default_factory=dict)
    what_if: WhatIf | None = None

    def worst_first(self) -> np.ndarray:
        """Places of the persons (N,), those of the worst answer first; undecided ones count as 0,
        and of equal ones the first."""
        worst = np.nan_to_num(self.measure) * (-1 if self.kind == "distribution" else 1)
        return np.argsort(worst, kind="stable")


def everybody(
    settings: Settings,
    index: Index,
    opened: "Opened",
    scores: Scores,
    kind: LabelKind,
    thresholds: Mapping[str, float],
    progress: Progress = silent,
    learned: Collection[str] | None = None,
) -> Gallery:
    """All persons of these scores, with what the head saw of them. thresholds: by label. Pictures
    are opened for thumbnails alone; one that cannot be read costs its own. progress: over persons
    that are asked what if, and pictures that are made small."""
    rows = scores.person_rows.tolist()
    limits = np.array([thresholds.get(label, math.nan) for label in scores.labels], float)
    marks, measure = decided(scores, kind, limits)
    if index.modalities:
        places, place = [place_of(index, row) for row in rows], np.arange(len(rows))
        sizes = np.zeros((len(rows), 2), int)
    else:
        pictures, place = np.unique(scores.picture_rows, return_inverse=True)
        table = index.pictures.take(pictures)
        places = table["path"].to_pylist()
        sizes = np.stack([table[side].to_numpy() for side in ("width", "height")], axis=1)
    seen = together(opened.explain(rows[at : at + BATCH]) for at in range(0, len(rows), BATCH))
    notes, noted = _notes(index, rows, seen)
    gallery = Gallery(
        kind=kind,
        labels=scores.labels,
        terms=terms_of(index),
        rows=np.asarray(rows),
        place=place,
        places=places,
        sizes=sizes,
        scores=scores.y_score,
        marks=marks,
        measure=measure,
        thresholds=limits,
        seen=seen,
        notes=notes,
        noted=noted,
        shares=scores.distribution if kind == "distribution" else None,
        learned=learned,
    )
    if not index.modalities and "depth" in opened.info["views"]:
        maps = open_view(settings.cache.root, "depth").read("map")[pictures].astype(np.float32)
        said = _network(opened.info["views"]["depth"])
        gallery = replace(gallery, depth=maps, depth_said=said)
    asked = gallery.worst_first()[: settings.report.what_if]
    wanted = [] if index.modalities else _shown_first(gallery)
    count = len(asked) + min(len(wanted), settings.report.thumbnails)
    if len(asked):
        found = what_if(
            opened, gallery.rows, seen.objects_of, asked, lambda done, _: progress(done, count)
        )
        gallery = replace(gallery, what_if=found)
    return _with_thumbnails(
        gallery, wanted, settings, lambda done, _: progress(len(asked) + done, count)
    )


def decided(
    scores: Scores, kind: LabelKind, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Marks (N, C) and measure (N,), as `Gallery` has them; thresholds (C,). Of equal highest
    scores or shares the first counts."""
    best = _highest(scores.y_score)
    if kind == "distribution" and scores.distribution is not None:
        shares = metrics.distribution_measures(scores.distribution, scores.y_score)
        return TRUE * _highest(scores.distribution) + PREDICTED * best, shares["kl"]
    true = scores.y_true > 0
    if kind == "single":
        return TRUE * true + PREDICTED * best, (scores.y_score * true).sum(axis=1)
    predicted = scores.y_score >= thresholds  # false where there is no threshold
    measure = metrics.jaccard(true, predicted)
    if np.isnan(thresholds).all():
        measure = np.full(len(true), math.nan)
    return TRUE * true + PREDICTED * predicted, measure


def together(parts: Iterable["Explanation"]) -> Seen:
    """What a head saw of all these persons, part after part."""
    found: dict[str, list[np.ndarray]] = {}
    classes: tuple[str, ...] = ()
    for part in parts:
        classes = part.classes
        columns = {"boxes": part.boxes}
        if part.faces is not None:
            columns["faces"] = np.where(part.faces.mask[:, None], part.faces.boxes, math.nan)
        if part.objects is not None:
            mask = part.objects.mask
            weights = np.zeros(mask.shape) if part.attention is None else part.attention
            # The heaviest first, what is padding last; stable, so that equal ones keep their order.
            order = np.argsort(np.where(mask, -weights, math.inf), axis=1, kind="stable")
            kept = np.take_along_axis(mask, order, axis=1)
            columns["first"] = mask.sum(axis=1)
            columns["object_numbers"] = order[kept]
            columns["object_boxes"] = np.take_along_axis(
                part.objects.boxes, order[:, :, None], axis=1
            )[kept]
            for name, values in (
                ("object_classes", part.objects.labels),
                ("object_scores", part.objects.scores),
                ("weights", part.attention),
            ):
                if values is not None:
                    columns[name] = np.take_along_axis(values, order, axis=1)[kept]
        for name, values in columns.items():
            found.setdefault(name, []).append(values)
    arrays = {name: np.concatenate(values) for name, values in found.items()}
    if "first" in arrays:  # how many, so far
        arrays["first"] = np.concatenate([[0], np.cumsum(arrays["first"])])
    return Seen(**arrays, classes=classes)


def thumbnails(
    root: Path,
    paths: Mapping[int, str],
    side: int,
    *,
    follow_links: bool = False,
    readers: int = 2,
    room: int = ROOM,
    progress: Progress = silent,
) -> tuple[dict[int, bytes], dict[int, str]]:
    """Pictures below `root` as WebP, `side` pixels on the longer side at most, and why there is
    none of others, both by the key in `paths`. Once `room` bytes are full, the rest is left out."""
    root = root.expanduser().resolve()

    def small(path: str) -> bytes | str:
        try:
            picture = images.read(images.place(root, path, follow_links))
        except images.PictureError as error:
            return error.reason
        image = Image.fromarray(picture.pixels)
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        held = BytesIO()
        image.save(held, "WEBP", quality=QUALITY, method=2)
        return held.getvalue()

    made: dict[int, bytes] = {}
    without: dict[int, str] = {}
    # Threads are enough: the decoder and the encoder let go of the interpreter.
    with ThreadPoolExecutor(readers) as pool:
        every = zip(paths, pool.map(small, paths.values()), strict=True)
        for number, (key, found) in enumerate(every, 1):
            if isinstance(found, str):
                without[key] = found
            elif len(found) > room:
                without[key] = NO_ROOM
            else:
                made[key] = found
                room -= len(found)
            progress(number, len(paths))
    return made, without


def _shown_first(gallery: Gallery) -> list[int]:
    """Every picture once, those of the worst answers first."""
    ordered = gallery.place[gallery.worst_first()]
    _, first = np.unique(ordered, return_index=True)
    return [int(place) for place in ordered[np.sort(first)]]


def _with_thumbnails(
    gallery: Gallery, wanted: Sequence[int], settings: Settings, progress: Progress
) -> Gallery:
    """With thumbnails of the first `report.thumbnails` of these pictures."""
    most = settings.report.thumbnails
    shown = wanted[:most]
    made, without = thumbnails(
        settings.data.root,
        {place: gallery.places[place] for place in shown},
        next(side for few, side in SIDES.items() if len(shown) <= few),
        follow_links=settings.data.follow_links,
        readers=settings.extract.readers,
        progress=progress,
    )
    without |= {place: "not shown: see report.thumbnails" for place in wanted[most:]}
    return replace(gallery, thumbnails=made, without=without)


def _notes(index: Index, rows: Sequence[int], seen: Seen) -> tuple[list[str], np.ndarray]:
    """What is to be said of any of these persons, and (N, notes) of whom."""
    origins = np.array(index.persons["origin"].take(rows).to_pylist())
    said = {words: origins == origin for origin, words in STANDS.items()}
    if seen.faces is not None:
        said[NO_FACE] = np.isnan(seen.faces[:, 0])
    if seen.first is not None:
        said[NO_OBJECT] = np.diff(seen.first) == 0
    said = {words: whom for words, whom in said.items() if whom.any()}
    return list(said), np.stack(list(said.values()), 1) if said else np.zeros((len(rows), 0), bool)


def _network(view: Mapping[str, Any]) -> str:
    """The network of a view of head.json, and whether it is trained."""
    return ", ".join(
        str(one["network"]) + ("" if one.get("trained", True) else f", {UNTRAINED}")
        for one in view["weights"]
    )


def _highest(scores: np.ndarray) -> np.ndarray:
    """(N, C) true at the highest score of each row, of equal ones the first."""
    return np.eye(scores.shape[1], dtype=bool)[scores.argmax(axis=1)]
