"""New pictures on the way of those of a cache: who is in them, and what the views say of these
people, rounded as the cache rounds it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache.boxes import Box
from cache.errors import DataError
from cache.spec import ArraySpec, Row
from cache.statuses import STATUS
from extract import images
from extract.loaded import Networks
from extract.people import Detected, persons_of
from extract.settings import People
from extract.views import Subject, View, detector_input


def people_in(picture: images.Picture, settings: People, networks: Networks) -> list[Box]:
    """Boxes of the people found, clipped to the picture, by falling score. Raises as
    `extract.people.persons_of`."""
    detector = networks.detector(settings.detector, "objects")
    (found,) = detector([detector_input(picture.pixels)])
    people = persons_of(found, detector, "people.detector")
    boxes, _ = Detected(people.boxes, people.scores).above(
        settings.score, picture.width, picture.height
    )
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in boxes.tolist()]


def subjects(picture: images.Picture, boxes: Sequence[Box]) -> dict[str, list[Subject]]:
    """What views of persons, and those of pictures, compute their rows from."""
    return {
        "persons": [Subject(picture.pixels, box) for box in boxes],
        "pictures": [Subject(picture.pixels)],
    }


def columns(
    view: View, seen: Sequence[Subject], networks: Networks
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays of a view, as a cache would hold them of these subjects, and the status of each
    (codes of `cache.statuses.STATUS`)."""
    rows = view.run(seen, networks)
    arrays = {
        name: _column(name, array, rows) for name, array in view.spec(networks).arrays.items()
    }
    return arrays, np.array([STATUS[row.status] for row in rows], np.uint8)


def _column(name: str, array: ArraySpec, rows: Sequence[Row]) -> np.ndarray:
    column = np.full((len(rows), *array.shape), array.fill, array.dtype)
    for number, row in enumerate(rows):
        if name in row.values:
            column[number] = row.values[name]
    return column


def read_views(
    known: Mapping[str, Mapping[str, Any]], views: Mapping[str, View], head: str
) -> dict[str, View]:
    """Of all views those that a head reads and that a new picture brings something to: those of
    labels are inside the head. known: as in head.json. Raises DataError where one is of signals."""
    read = [name for name, view in known.items() if view["rows"] != "labels"]
    if signals := [name for name in read if name not in views]:
        raise DataError(
            f"predict takes pictures; this cache holds recordings, and {head} was fitted on their "
            f"{', '.join(signals)}: set cache.root and the results to those of a data set of "
            "pictures"
        )
    return {name: views[name] for name in read}
