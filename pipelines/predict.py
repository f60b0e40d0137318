"""Emotions of the people in new pictures, by the same views and the same code as extraction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cache.errors import DataError, KeyMismatch, SettingsError
from cache.keys import in_short, key_of
from cache.spec import ArraySpec, Row
from cache.statuses import STATUS
from extract import images
from extract.views import Networks, Subject, View, make_views
from pipelines.overlay import PersonMark, draw
from pipelines.report_data import mark_of
from pipelines.settings import Settings
from pipelines.stages import device_of, in_words, networks_of
from train.checkpoint import load_head
from train.data import Features, ViewData, from_arrays
from train.run import explain_features

Box = tuple[float, float, float, float]
SAME = 0.7  # IoU above which two boxes show the same thing


@dataclass
class Predictor:
    """A trained head with the networks of the views it reads."""

    settings: Settings
    networks: Networks
    views: dict[str, View]
    model: Any
    info: dict[str, Any]

    @classmethod
    def load(cls, settings: Settings, head: Path) -> "Predictor":
        """Raises KeyMismatch when the settings would make other features than the head knows."""
        device = device_of(settings)
        model, info = load_head(head, device)
        networks = networks_of(settings)
        views = make_views(settings.views, settings.cache.dtype)
        # Label features are inside the head; a picture brings nothing new to them.
        views = {
            name: views[name] for name, view in info["views"].items() if view["rows"] != "labels"
        }
        for name, view in views.items():
            known = info["views"][name]
            if key_of(view.parts(networks)) != known["key"]:
                why = in_short(known["parts"], view.parts(networks))
                raise KeyMismatch(
                    f"view {name!r} as set here is not what the head was fitted on ({why}): set "
                    "views and weights as they were, or train on features of these settings"
                )
        return cls(settings, networks, views, model, info)

    def people(self, picture: images.Picture) -> list[Box]:
        """Boxes of the people found, clipped to the picture, by falling score.

        Detectors without non-maximum suppression may report one person twice; of boxes that
        overlap by more than `SAME` (IoU), the better stays.
        """
        import torch
        from torchvision.ops import nms

        detector = self.networks.detector(self.settings.predict.detector, "people")
        pixels = torch.from_numpy(np.ascontiguousarray(picture.pixels.transpose(2, 0, 1)))
        (found,) = detector([pixels])
        sure = found[np.asarray(found.scores) >= self.settings.predict.score]
        once = nms(torch.from_numpy(sure.boxes), torch.from_numpy(sure.scores), SAME)
        boxes = sure.boxes[once.numpy()].tolist()
        inside = [images.clip(box, picture.width, picture.height) for box in boxes]
        return [box for box in inside if box is not None]

    def features(self, picture: images.Picture, boxes: Sequence[Box]) -> Features:
        """The head's views of these people, rounded as the cache rounds them."""
        persons = [Subject(picture.pixels, box) for box in boxes]
        whole = [Subject(picture.pixels)]
        views = {
            name: self._view(view, persons if view.space == "persons" else whole)
            for name, view in self.views.items()
        }
        views["labels"] = None
        return from_arrays(
            views={name: view for name, view in views.items() if view is not None},
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            sizes=np.asarray([[picture.width, picture.height]]),
            pictures=np.zeros(len(boxes), np.int64),
            labels=self.info["labels"],
            device=self.networks.device(),
        )

    def _view(self, view: View, subjects: Sequence[Subject]) -> ViewData:
        rows = view.run(subjects, self.networks)
        spec = view.spec(self.networks)
        return ViewData(
            space=view.space,
            arrays={name: _column(name, array, rows) for name, array in spec.arrays.items()},
            status=np.array([STATUS[row.status] for row in rows], np.uint8),
            key=spec.key,
            parts=spec.parts,
            weights=spec.weights,
            facts=spec.facts,
        )


def _column(name: str, array: ArraySpec, rows: Sequence[Row]) -> np.ndarray:
    column = np.full((len(rows), *array.shape), array.fill, array.dtype)
    for number, row in enumerate(rows):
        if name in row.values:
            column[number] = row.values[name]
    return column


def predict(
    settings: Settings,
    head: Path,
    pictures: Sequence[Path],
    boxes: Sequence[Box] = (),
    out: Path | None = None,
    top: int = 5,
) -> dict[str, Any]:
    """Predict each picture; with `out`, write `<name>.overlay.jpg` for each into that folder
    (`<name>.2.overlay.jpg` for the second picture of one name).

    boxes: people as x1 y1 x2 y2 in pixels, for a single picture, instead of the detector's.
    A picture that cannot be read is a result with a reason, the others go on; every result has the
    same keys. Objects come by falling weight of the head's attention. Labels that no training
    person had get no score, and are named in `not_learned`.
    """
    if boxes and len(pictures) != 1:
        raise SettingsError("--box gives people of one picture: name just one picture")
    predictor = Predictor.load(settings, head)
    info = predictor.info
    overlays = _overlays(pictures, out) if out is not None else [None] * len(pictures)
    found = [
        _one(predictor, path, boxes, overlay, top)
        for path, overlay in zip(pictures, overlays, strict=True)
    ]
    weights = [one for view in info["views"].values() for one in view["weights"]]
    if not boxes:
        weights.append(predictor.networks.weights(settings.predict.detector).facts())
    return {
        "pictures": found,
        "head": info["head"],
        "dataset": info["dataset"],
        "note": info["note"],
        "not_learned": [label for label, count in info["positives"].items() if not count],
        "weights": sorted({in_words(one) for one in weights}),
        "untrained": sorted({one["network"] for one in weights if not one["trained"]}),
    }


def _overlays(pictures: Sequence[Path], folder: Path) -> list[Path]:
    """Where each picture's overlay goes; pictures of equal names get a number."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SettingsError(f"--out {folder} is a file: name a folder") from None
    paths: list[Path] = []
    for picture in pictures:
        path, number = folder / f"{picture.stem}.overlay.jpg", 1
        while path in paths:
            number += 1
            path = folder / f"{picture.stem}.{number}.overlay.jpg"
        paths.append(path)
    return paths


def _one(
    predictor: Predictor, path: Path, boxes: Sequence[Box], overlay: Path | None, top: int
) -> dict[str, Any]:
    result = {"picture": str(path), "status": "ok", "reason": "", "people": [], "overlay": None}
    try:
        picture = images.read(path)
    except images.PictureError as error:
        return {**result, "status": error.status, "reason": error.reason}
    for box in boxes:
        if images.clip(box, picture.width, picture.height) is None:
            raise DataError(
                f"--box {','.join(f'{side:g}' for side in box)} lies outside {path}, which is "
                f"{picture.width} x {picture.height} pixels"
            )
    inside = [images.clip(box, picture.width, picture.height) for box in boxes]
    people = inside or predictor.people(picture)
    if not people:
        reason = f"no person above predict.score {predictor.settings.predict.score}"
        return {**result, "status": "no_person", "reason": reason}
    features = predictor.features(picture, people)
    seen = explain_features(predictor.model, features, features.rows())
    learned = predictor.info["positives"]
    marks, described = [], []
    for number in range(len(people)):
        ranked = np.argsort(-seen.y_score[number])
        emotions = [
            (seen.labels[i], round(float(seen.y_score[number, i]), 4))
            for i in ranked
            if learned[seen.labels[i]]
        ]
        mark = replace(
            mark_of(number, seen), name=f"person {number + 1}", emotions=tuple(emotions[:top])
        )
        marks.append(mark)
        described.append(
            {
                "box": [round(side, 1) for side in mark.box],
                "head": [round(side, 1) for side in mark.face] if mark.face else None,
                "objects": [
                    {
                        "name": o.name,
                        "score": round(o.score, 3),
                        "weight": o.weight,
                        "box": [round(side, 1) for side in o.box],
                    }
                    for o in mark.objects
                ],
                "emotions": dict(emotions),
            }
        )
    result["people"] = described
    if overlay is not None:
        shown = marks if len(marks) == 1 else _shared(marks)
        draw(Image.fromarray(picture.pixels), shown).save(overlay, quality=90)
        result["overlay"] = str(overlay)
    return result


def _shared(marks: Sequence[PersonMark]) -> list[PersonMark]:
    """For a picture of several people: each object once, with the first who has it, no weights
    (they differ from person to person), and no one's companion as an object."""
    drawn = [mark.box for mark in marks]
    people = []
    for mark in marks:
        own = []
        for thing in mark.objects:
            if all(_overlap(thing.box, box) <= SAME for box in drawn):
                drawn.append(thing.box)
                own.append(replace(thing, weight=None))
        people.append(replace(mark, objects=own))
    return people


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    shared = max(width, 0) * max(height, 0)
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return shared / (both - shared) if shared else 0.0
