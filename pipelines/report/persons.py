"""The report's cards: a picture of each person with what the head saw, and its answer; and the
persons of whom the distribution is predicted best and worst."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cache.errors import DataError
from extract import images
from pipelines.overlay import ObjectMark, draw
from pipelines.pages import data_url
from pipelines.report.charts import transport
from pipelines.report.data import Person, ReportData, divergences, extremes
from train.labels import LabelKind, is_distribution

PICTURE = 720  # longer side of a person's picture in pixels: sharp on a screen of double density
OBJECTS = 5  # listed with a person
ROWS = 8  # labels listed with a person where each has a share or a probability

Place = Callable[[float], float]  # a score -> how far along its bar, in percent


def cards(data: ReportData, kind: LabelKind) -> list[dict[str, Any]]:
    """What the page shows of each person. Raises DataError for a picture that cannot be read."""
    scores = [score for person in data.persons for score in person.scores.values()]
    scores += [share for person in data.persons for share in (person.shares or {}).values()]
    place = _along(scores)
    limits = {row["label"]: row.get("threshold", math.nan) for row in data.per_class}
    cards = []
    for person in data.persons:
        objects = sorted(person.mark.objects, key=lambda o: -(o.weight or 0))
        if kind == "distribution":
            answer = _both_shares(person.shares or {}, person.scores, place)
        elif kind == "single":
            answer = _one_label(person, place)
        else:
            answer = _decisions(person, place, limits)
        cards.append(
            {
                "name": person.name,
                "notes": list(person.notes),
                "place": person.place,
                "transport": None if person.transport is None else transport(person.transport),
                **_drawn(person),
                "says": _says(person, objects, data.views),
                "objects": objects[:OBJECTS],
                "more": max(0, len(objects) - OBJECTS),
                **answer,
            }
        )
    return cards


def scale(scores: Sequence[float]) -> tuple[float, float]:
    """The scores at both ends of a bar that has room for all of these."""
    low, high = min([0.0, *scores]), max([0.0, *scores])
    # Probabilities are shown on their own scale, other scores from end to end.
    return low, 1.0 if 0.5 <= high <= 1 else high


def _along(scores: Sequence[float]) -> Place:
    """How far along its bar each of these scores reaches."""
    low, high = scale(scores)
    span = high - low or 1.0
    return lambda score: round(100 * min(max((score - low) / span, 0), 1), 1)


def spread(data: ReportData) -> list[dict[str, Any]]:
    """Both distributions of the persons of `extremes`, with the KL divergence and the rank."""
    scores, places = data.scores, extremes(data.scores)
    kl = divergences(scores)
    true, predicted = np.asarray(scores.distribution)[places], scores.y_score[places]
    along = _along([*true.ravel().tolist(), *predicted.ravel().tolist()])
    rank = {int(at): number for number, at in enumerate(np.argsort(kl, kind="stable"), 1)}

    def named(values: Sequence[float]) -> dict[str, float]:
        return dict(zip(scores.labels, values, strict=True))

    found = []
    for at, shares, answer in zip(places.tolist(), true.tolist(), predicted.tolist(), strict=True):
        row = int(scores.person_rows[at])
        found.append(
            {
                "name": f"{data.terms.one} {row}",
                "place": data.places.get(row, ""),
                "rank": rank[at],
                "kl": float(kl[at]),
                **_both_shares(named(shares), named(answer), along),
            }
        )
    return found


def _decisions(person: Person, place: Place, limits: Mapping[str, float]) -> dict[str, Any]:
    """Of any number of labels those that are true or predicted, with the threshold of each."""
    true, predicted = set(person.true), set(person.predicted)
    rows = []
    for label, score in _ranked(person.scores):
        if label in true | predicted:
            limit = limits.get(label, math.nan)
            at = place(limit) if math.isfinite(limit) else None
            rows.append(_row(label, score, true, predicted, place) | {"limit": at})
    found = f"{len(true & predicted)} of {len(true)} true labels among {len(predicted)} predicted"
    return {"rows": rows, "found": found}


def _one_label(person: Person, place: Place) -> dict[str, Any]:
    """The labels with the highest scores, and the true one wherever it stands."""
    true, predicted = set(person.true), set(person.predicted)
    ranked = _ranked(person.scores)
    kept = [
        (label, score)
        for rank, (label, score) in enumerate(ranked)
        if rank < ROWS or label in true | predicted
    ]
    answer = "right" if true == predicted else f"predicted {', '.join(person.predicted)}"
    return {
        "rows": [_row(*one, true, predicted, place) | {"limit": None} for one in kept],
        "found": f"{', '.join(person.true)}, {answer}",
        "others": len(ranked) - len(kept),
    }


def _both_shares(
    true: Mapping[str, float], predicted: Mapping[str, float], place: Place
) -> dict[str, Any]:
    """The labels with the largest shares, true or predicted, and what the others add up to."""
    largest = sorted(predicted, key=lambda label: -max(true[label], predicted[label]))
    kept, others = largest[:ROWS], largest[ROWS:]
    rows = [(label, true[label], predicted[label]) for label in kept]
    rows.sort(key=lambda row: (-row[1], -row[2]))
    if others:
        name = f"{len(others)} other{'s' if len(others) > 1 else ''}"
        shares, found = (sum(part[label] for label in others) for part in (true, predicted))
        rows.append((name, shares, found))
    common = sum(min(true[label], predicted[label]) for label in predicted)
    return {
        "rows": [
            {
                "label": label,
                "true": share,
                "predicted": score,
                "true_bar": place(share),
                "bar": place(score),
            }
            for label, share, score in rows
        ],
        "found": f"intersection {common:.2f}",
    }


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])


def _row(
    label: str, score: float, true: set[str], predicted: set[str], place: Place
) -> dict[str, Any]:
    kinds = {(True, True): "hit", (True, False): "missed", (False, True): "wrong"}
    kind = kinds.get((label in true, label in predicted), "neither")
    return {"label": label, "score": score, "kind": kind, "bar": place(score)}


def _says(person: Person, objects: Sequence[ObjectMark], views: Collection[str]) -> str:
    """The picture in words, for a reader who cannot see it; nothing of what no one looked for."""
    said = f"{person.name}: the picture with the person's box"
    if "head" in views:
        said += ", face found" if person.mark.face else ", no face found"
    if "objects" in views:
        said += f"; objects: {', '.join(mark.name for mark in objects) or 'none'}"
    return said


def _drawn(person: Person) -> dict[str, Any]:
    """The picture with its marks, for the page; nothing where there is no picture."""
    if person.picture is None:
        return {"image": ""}
    drawn = draw(_picture(person.picture), [person.mark], longest=PICTURE, zoom=1.6)
    url = data_url(drawn, quality=78)
    return {"image": url, "width": drawn.width, "height": drawn.height}


def _picture(path: Path) -> Image.Image:
    """RGB, upright."""
    try:
        return Image.fromarray(images.read(path).pixels)
    except images.PictureError as error:
        raise DataError(
            f"the report shows pictures and cannot read {path} ({error.reason}): set data.root to "
            "where they are"
        ) from error


def probabilities(persons: Sequence[Person]) -> bool:
    """Whether the scores of each person shown sum to 1; else they are called no probabilities."""
    return is_distribution(np.array([list(p.scores.values()) for p in persons], ndmin=2))
