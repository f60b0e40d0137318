"""A made-up gallery of everybody, and a report that shows it: no picture of anyone is needed."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from pipelines.recordings import PEOPLE, WINDOWS
from pipelines.report.data import ReportData, read_results
from pipelines.report.gallery import NO_FACE, Gallery, Seen, decided
from pipelines.report.what_if import WhatIf
from pipelines.results import Results
from tests.pipelines.report_data import MADE, networks, results
from train.scores import Scores

CLASSES = ("chair", "cup", "dog")
WIDE, HIGH = 640, 480
SIZE = np.array((WIDE, HIGH))


def made_picture(seed: int, width: int = WIDE, height: int = HIGH) -> Image.Image:
    """Noise with less of the fine and more of the coarse, as photographs have: as many bytes."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None]
    fall = np.maximum(np.hypot(rows, columns), 1 / width) ** -1.455
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4, height, width))) * fall).real
    noise /= noise.std(axis=(1, 2), keepdims=True)
    pixels = 128 + 55 * (noise[:1] + 0.25 * noise[1:])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


@cache
def made_thumbnail(seed: int) -> bytes:
    image = made_picture(seed)
    image.thumbnail((200, 200))
    held = BytesIO()
    image.save(held, "WEBP", quality=70)
    return held.getvalue()


def made_seen(persons: int, objects: int, seed: int = 0) -> Seen:
    """A face for four of five persons, and from none to `objects` objects each."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.5, (persons, 2)) * SIZE
    boxes = np.concatenate([corner, corner + 0.45 * SIZE], axis=1)
    faces = np.concatenate([corner + 20, corner + 100], axis=1)
    faces[::5] = np.nan
    counts = rng.integers(0, objects + 1, persons)
    many = int(counts.sum())
    place = rng.uniform(0, 0.7, (many, 2)) * SIZE
    weights = [np.sort(rng.dirichlet(np.ones(count)))[::-1] for count in counts if count]
    return Seen(
        boxes=boxes,
        faces=faces,
        first=np.concatenate([[0], np.cumsum(counts)]),
        object_boxes=np.concatenate([place, place + 0.3 * SIZE], axis=1),
        object_classes=rng.integers(0, len(CLASSES), many),
        object_scores=rng.uniform(0.3, 1, many),
        object_numbers=np.concatenate([rng.permutation(count) for count in counts]),
        weights=np.concatenate(weights) if many else np.zeros(0),
        classes=CLASSES,
    )


def made_what_if(scores: np.ndarray, seen: Seen, asked: np.ndarray, seed: int = 0) -> WhatIf:
    """Scores of the persons at these places, moved at random, but not without their faces."""
    rng = np.random.default_rng(seed)
    counts = np.diff(seen.first)[asked]

    def moved(some: np.ndarray) -> np.ndarray:
        return (some + rng.normal(0, 0.15, some.shape)).clip(0, 1)

    mine = scores[asked]
    return WhatIf(
        asked=asked,
        views=("body", "head", "objects"),
        without_view=np.stack([moved(mine), mine, moved(mine)], axis=1),
        first=np.concatenate([[0], np.cumsum(counts)]),
        without_object=moved(np.repeat(mine, counts, axis=0)),
        edges=True,
    )


def made_gallery(
    scores: Scores,
    kind: str,
    thresholds: np.ndarray,
    *,
    objects: int = 4,
    distinct: int = 8,
    recorded: bool = False,
) -> Gallery:
    """Of these scores; `distinct` thumbnails over and over. One of the pictures has none."""
    marks, measure = decided(scores, kind, thresholds)
    pictures, place = np.unique(scores.picture_rows, return_inverse=True)
    count, persons = len(pictures), len(scores.person_rows)
    seen = made_seen(persons, objects)
    if recorded:
        return Gallery(
            kind, scores.labels, WINDOWS, scores.person_rows, np.arange(persons),
            [f"window {n} to {n + 60} s of S1.pkl#1" for n in range(persons)],
            np.zeros((persons, 2), int), scores.y_score, marks, measure, thresholds,
            Seen(seen.boxes), shares=scores.distribution if kind == "distribution" else None,
        )  # fmt: skip
    gallery = Gallery(
        kind=kind,
        labels=scores.labels,
        terms=PEOPLE,
        rows=scores.person_rows,
        place=place,
        places=[f"folder/picture_{row:05}.jpg" for row in pictures.tolist()],
        sizes=np.tile([[WIDE, HIGH]], (count, 1)),
        scores=scores.y_score,
        marks=marks,
        measure=measure,
        thresholds=thresholds,
        seen=seen,
        notes=[NO_FACE],
        noted=np.isnan(seen.faces[:, :1]),
        shares=scores.distribution if kind == "distribution" else None,
        depth=np.random.default_rng(5).normal(size=(count, 8, 8)).astype(np.float32),
        depth_said="a made network, UNTRAINED",
        learned=[name for name in scores.labels if name != "Pain"],
        thumbnails={n: made_thumbnail(n % distinct) for n in range(count) if n != 1},
        without={1: "the picture is damaged or truncated"},
    )
    asked = gallery.worst_first()[: persons // 2]
    return replace(gallery, what_if=made_what_if(scores.y_score, seen, asked))


def gallery_report(
    folder: Path, kind: str = "multi", persons: int = 400, recorded: bool = False, **more
) -> ReportData:
    """A report of made-up scores with everybody in it, and without cards."""
    scores = MADE[kind]("test", persons=persons)
    found = read_results(Results(results(folder, kind=kind, persons=persons)))
    thresholds = {row["label"]: row["threshold"] for row in found["per_class"]}
    limits = np.array([thresholds[label] for label in scores.labels])
    views: Sequence[str] = ("eeg",) if recorded else ("body", "head", "objects", "scene")
    return ReportData(
        head="HugMe",
        dataset="emotic",
        note="made-up scores, boxes and pictures",
        split="test",
        labels=scores.labels,
        networks=networks(),
        views=views,
        persons=[],
        terms=WINDOWS if recorded else PEOPLE,
        gallery=made_gallery(scores, kind, limits, recorded=recorded, **more),
        **found,
    )
