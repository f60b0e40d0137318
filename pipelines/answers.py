"""What a predictor says of pictures, whether its head is one of stage 2 or an exported one: people
found, and each answer as JSON and as a picture has it. Loads nothing of stage 2."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cache.boxes import Box, clip, iou
from cache.contents import weights_summary
from cache.errors import DataError, SettingsError
from cache.files import write_atomic
from extract import images
from extract.loaded import Networks
from extract.new_pictures import people_in
from extract.people import SAME
from extract.settings import People
from pipelines.overlay import PersonMark, draw


class Answering(ABC):
    """A predictor. info: what is known of its head, as head.json has it; networks: frozen ones;
    thresholds: of labels, from val, where they are known; finds: who people are."""

    info: Mapping[str, Any]
    networks: Networks
    thresholds: Mapping[str, float]

    @property
    @abstractmethod
    def finds(self) -> People:
        """How people are found."""

    @abstractmethod
    def see(self, picture: images.Picture, boxes: Sequence[Box]) -> tuple[Any, Any]:
        """A `train.explain.Explanation` of these people, or what has its fields, and the features
        that it rests on."""

    def people(self, picture: images.Picture) -> list[Box]:
        """See `people_in`."""
        return people_in(picture, self.finds, self.networks)

    def answer(
        self,
        source: Path | bytes,
        boxes: Sequence[Box] = (),
        *,
        most: int | None = None,
        limit: int = images.LIMIT,
    ) -> "Answer":
        """What the head says of the people of one picture, a file or its bytes.

        boxes: people, instead of the detector's. most: of these, those of the highest scores.
        limit: the most pixels. Raises `images.PictureError` for a picture that cannot be read,
        DataError for a box outside it.
        """
        picture = images.read(source, limit)
        people = _inside(boxes, picture) or self.people(picture)
        if not people:
            return Answer(picture)
        seen, features = self.see(picture, people[:most])
        learned = self.info["positives"]
        marks, places = [], []
        rows = seen.person_rows.tolist()  # without those of whom a view failed
        for number in range(len(rows)):
            ranked = np.argsort(-seen.y_score[number])
            emotions = [
                (seen.labels[i], round(float(seen.y_score[number, i]), 4))
                for i in ranked
                if learned[seen.labels[i]]
            ]
            name = f"person {number + 1}"
            marks.append(replace(PersonMark.seen(seen, number), name=name, emotions=emotions))
            places.append(by_weight(seen, number))
        return Answer(picture, marks, features, rows, places, len(people) - len(rows))

    def about(self, found: bool = True) -> dict[str, Any]:
        """What all answers rest on. found: whether the people detector was asked."""
        info = self.info
        weights = [one for view in info["views"].values() for one in view["weights"]]
        if found:
            weights.append(self.networks.weights(self.finds.detector).facts())
        return {
            "head": info["head"],
            "dataset": info["dataset"],
            "note": info["note"],
            "views": sorted(info["views"]),
            "not_learned": [label for label, count in info["positives"].items() if not count],
            "thresholds": dict(self.thresholds),
            **weights_summary(weights),
        }

    def predict(
        self,
        pictures: Sequence[Path],
        boxes: Sequence[Box] = (),
        out: Path | None = None,
        top: int = 5,
    ) -> dict[str, Any]:
        """Predict each picture; with `out`, write `<name>.overlay.jpg` for each into that folder
        (`<name>.2.overlay.jpg` for the second picture of one name).

        boxes: people as x1 y1 x2 y2 in pixels, for a single picture, instead of the detector's.
        A picture that cannot be read is a result with a reason, the others go on; every result has
        the same keys. Objects come by falling weight of the head's attention; of a head whose
        `views` are without objects or heads there are none. Labels that no training person had get
        no score, and are named in `not_learned`.
        """
        only_one(pictures, boxes)
        overlays = _overlays(pictures, out) if out is not None else [None] * len(pictures)
        found = [
            self._one(path, boxes, overlay, top)
            for path, overlay in zip(pictures, overlays, strict=True)
        ]
        return {"pictures": found, **self.about(found=not boxes)}

    def _one(
        self, path: Path, boxes: Sequence[Box], overlay: Path | None, top: int
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "picture": str(path),
            "status": "ok",
            "reason": "",
            "people": [],
            "overlay": None,
        }
        try:
            answer = self.answer(path, boxes)
        except images.PictureError as error:
            more = ": name the pictures in it, as FOLDER/*.jpg" if path.is_dir() else ""
            return {**result, "status": error.status, "reason": error.reason + more}
        result |= answer.result(self.finds.score)
        if overlay is not None and answer.marks:
            held = BytesIO()
            answer.drawn(top).save(held, "JPEG", quality=90)
            write_atomic(overlay, held.getvalue())
            result["overlay"] = str(overlay)
        return result


@dataclass(frozen=True)
class Answer:
    """What a head says of the people of one picture.

    marks: each person with all emotions; features, None where there is nobody; rows: of these
    persons in them; places: where the objects of each mark are in their arrays; left_out: people
    found beyond those.
    """

    picture: images.Picture
    marks: Sequence[PersonMark] = ()
    features: Any = None
    rows: Sequence[int] = ()
    places: Sequence[Sequence[int]] = ()
    left_out: int = 0

    def result(self, score: float) -> dict[str, Any]:
        """`status`, `reason` and `people`, as JSON has them; score: what a person had to reach."""
        if not self.marks:
            reason = f"no person above people.score {score}"
            return {"status": "no_person", "reason": reason, "people": []}
        return {"status": "ok", "reason": "", "people": [_described(mark) for mark in self.marks]}

    def drawn(self, top: int, longest: int | None = None) -> Image.Image:
        """The picture with every person, object, and the `top` emotions of each."""
        marks = [replace(mark, emotions=mark.emotions[:top]) for mark in self.marks]
        shown = marks if len(marks) == 1 else _shared(marks)
        return draw(Image.fromarray(self.picture.pixels), shown, longest=longest)


def only_one(pictures: Sequence[Path], boxes: Sequence[Box]) -> None:
    """Raises SettingsError where boxes are given and they could be of several pictures."""
    if boxes and len(pictures) != 1:
        raise SettingsError("--box gives people of one picture: name just one picture")


def by_weight(seen: Any, number: int) -> list[int]:
    """The places of a person's objects in the order of `PersonMark.seen`."""
    if seen.objects is None:
        return []
    there: list[int] = np.flatnonzero(seen.objects.mask[number]).tolist()
    if seen.attention is None:
        return there
    weights = seen.attention[number]
    return sorted(there, key=lambda place: -float(weights[place]))


def _described(mark: PersonMark) -> dict[str, Any]:
    """A person, as JSON has it."""
    return {
        "box": [round(side, 1) for side in mark.box],
        "head": [round(side, 1) for side in mark.face] if mark.face else None,
        "objects": [
            {
                "name": o.name,
                "score": None if o.score is None else round(o.score, 3),
                "weight": o.weight,
                "box": [round(side, 1) for side in o.box],
            }
            for o in mark.objects
        ],
        "emotions": dict(mark.emotions),
    }


def _inside(boxes: Sequence[Box], picture: images.Picture) -> list[Box]:
    """The boxes clipped to the picture. Raises DataError where one is outside."""
    inside = []
    for box in boxes:
        clipped = clip(box, picture.width, picture.height)
        if clipped is None:
            raise DataError(
                f"--box {','.join(f'{side:g}' for side in box)} lies outside the picture, which is "
                f"{picture.width} x {picture.height} pixels"
            )
        inside.append(clipped)
    return inside


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


def _shared(marks: Sequence[PersonMark]) -> list[PersonMark]:
    """For a picture of several people: each object once, with the first who has it, no weights
    (they differ from person to person), and no one's companion as an object."""
    drawn = [mark.box for mark in marks]
    people = []
    for mark in marks:
        own = []
        for thing in mark.objects:
            if (iou(np.array(thing.box), np.array(drawn)) <= SAME).all():
                drawn.append(thing.box)
                own.append(replace(thing, weight=None))
        people.append(replace(mark, objects=own))
    return people
