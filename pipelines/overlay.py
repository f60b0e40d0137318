"""Draw on a picture what was found in it: persons, faces, objects with their weights, emotions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cache.boxes import Box

if TYPE_CHECKING:  # which loads torch
    from train.explain import Explanation

# One colour a person, told apart also by readers who do not see red and green (after Okabe, Ito).
PEOPLE = ("#ffd23f", "#56c8ff", "#ff9ad5", "#7de38d", "#ff9f5a", "#c3a6ff")
OBJECT = "#f4f4f4"
_INK = "#141414"
_SHORTEST = 560  # a smaller picture is enlarged until its text can be read


@dataclass(frozen=True)
class ObjectMark:
    """An object: its class name, the detector's score, and the weight DARN gave it, if any."""

    box: Box
    name: str
    score: float | None = None
    weight: float | None = None


@dataclass(frozen=True)
class PersonMark:
    """A person: box, face or head box if there is one, objects, most likely emotions first."""

    box: Box
    face: Box | None = None
    objects: Sequence[ObjectMark] = ()
    emotions: Sequence[tuple[str, float]] = ()
    name: str = ""

    @classmethod
    def seen(cls, by: "Explanation", number: int) -> "PersonMark":
        """What a head saw of one of the persons explained: the heaviest object first. No face and
        no object where the head does not read their views."""
        objects, face = [], None
        if there := by.objects:
            for place in np.flatnonzero(there.mask[number]):
                weight = None if by.attention is None else float(by.attention[number, place])
                objects.append(
                    ObjectMark(
                        box=tuple(there.boxes[number, place].tolist()),
                        name=by.classes[int(there.labels[number, place])],
                        score=float(there.scores[number, place]),
                        weight=weight,
                    )
                )
        objects.sort(key=lambda mark: -(mark.weight or 0))
        if by.faces and by.faces.mask[number]:
            face = tuple(by.faces.boxes[number].tolist())
        return cls(box=tuple(by.boxes[number].tolist()), face=face, objects=objects)


def draw(
    picture: Image.Image,
    people: Sequence[PersonMark],
    *,
    longest: int | None = None,
    zoom: float = 1.0,
) -> Image.Image:
    """A new RGB picture with every box and label; the given one is left as it is.

    The picture comes upright (EXIF applied), as the boxes count on it. `longest` resizes its
    longer side to so many pixels; without it the size stays, but for a picture too small to hold
    text, which is enlarged. `zoom` makes text and lines heavier, for a picture that will be shown
    smaller than it is. Objects are drawn with a line as heavy as their weight, which is the only
    number they get, those that several persons share once, under the highest weight. Labels keep
    clear of each other and of the faces where there is room, and inside the picture always.
    """
    factor = _factor(picture.size, longest)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    canvas = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    board = _Board(canvas, zoom)
    people = [_scaled(person, factor) for person in people]
    for person in people:
        if person.face:
            board.keep_clear(person.face)
    shared: dict[tuple[Box, str], ObjectMark] = {}
    for mark in (mark for person in people for mark in person.objects):
        before = shared.get((mark.box, mark.name))
        if before is None or (mark.weight or 0) > (before.weight or 0):
            shared[mark.box, mark.name] = mark
    objects = sorted(shared.values(), key=lambda mark: mark.weight or 0)
    for mark in objects:
        board.box(mark.box, OBJECT, 1 + 2.5 * (mark.weight or 0))
    for number, person in enumerate(people):
        colour = PEOPLE[number % len(PEOPLE)]
        board.box(person.box, colour, 2.2)
        if person.face:
            board.box(person.face, colour, 1.2)
    # Labels last, the most important first, so that the others make room for them.
    for number, person in enumerate(people):
        lines = [person.name] if person.name else []
        lines += [f"{label} {chance:.2f}" for label, chance in person.emotions]
        board.label(person.box, lines, PEOPLE[number % len(PEOPLE)])
    for mark in reversed(objects):
        # Never the detector's score: a number beside an object must mean one thing.
        weight = "" if mark.weight is None else f", weight {mark.weight:.2f}"
        board.label(mark.box, [mark.name + weight], OBJECT)
    return canvas


def _factor(size: tuple[int, int], longest: int | None) -> float:
    if longest is not None:
        return longest / max(size)
    return max(1.0, _SHORTEST / max(size))


def _scaled(person: PersonMark, factor: float) -> PersonMark:
    def grow(box: Box) -> Box:
        x1, y1, x2, y2 = (float(side) * factor for side in box)
        return x1, y1, x2, y2

    return replace(
        person,
        box=grow(person.box),
        face=grow(person.face) if person.face is not None else None,
        objects=[replace(mark, box=grow(mark.box)) for mark in person.objects],
    )


class _Board:
    """A canvas that remembers where its labels are."""

    def __init__(self, canvas: Image.Image, zoom: float) -> None:
        self.size = canvas.size
        # Text grows with the picture; a long thin picture is judged by both its sides.
        self.unit = zoom * max(1.0, (canvas.width + canvas.height) / 1100)
        self.pen = ImageDraw.Draw(canvas, "RGBA")
        self.font = ImageFont.load_default(round(12.5 * self.unit))
        self.taken: list[Box] = []
        self.faces: list[Box] = []

    def keep_clear(self, box: Box) -> None:
        self.faces.append(box)

    def box(self, box: Box, colour: str, width: float) -> None:
        """A line with a dark rim, so that it shows on any ground."""
        width = max(1, round(width * self.unit))
        x1, y1, x2, y2 = box
        x1, x2 = max(0.0, min(x1, x2)), min(self.size[0] - 1.0, max(x1, x2))
        y1, y2 = max(0.0, min(y1, y2)), min(self.size[1] - 1.0, max(y1, y2))
        if x2 <= x1 or y2 <= y1:
            return
        rim = max(1, round(self.unit))
        self.pen.rectangle((x1, y1, x2, y2), outline=(0, 0, 0, 150), width=width + rim)
        self.pen.rectangle((x1, y1, x2, y2), outline=colour, width=width)

    def label(self, box: Box, lines: Sequence[str], colour: str) -> None:
        if not lines:
            return
        pad = round(3 * self.unit)
        step = self.font.getbbox("Ag")[3] + pad / 2
        width = max(self.font.getlength(line) for line in lines) + 2 * pad
        height = step * len(lines) + pad
        x, y = self._place(box, width, height)
        self.taken.append((x, y, x + width, y + height))
        ground = (20, 20, 20, 205) if colour == OBJECT else colour
        self.pen.rectangle((x, y, x + width, y + height), fill=ground)
        for row, line in enumerate(lines):
            at = (x + pad, y + pad / 2 + row * step)
            self.pen.text(at, line, font=self.font, fill=OBJECT if colour == OBJECT else _INK)

    def _place(self, box: Box, width: float, height: float) -> tuple[float, float]:
        """The nearest of some places around the box that covers the least of labels and faces."""
        x1, y1, x2, y2 = box
        edge = 2 * self.unit
        columns = (x1, x2 - width, (x1 + x2 - width) / 2)
        rows = (y1 - height, y1 + edge, y2 - height - edge, y2, (y1 + y2 - height) / 2)
        wished = [(x, y) for y in rows for x in columns]
        wished += [(side, y) for y in (y1, (y1 + y2) / 2) for side in (x2, x1 - width)]
        places = [
            (
                min(max(x, 0.0), max(0.0, self.size[0] - width)),
                min(max(y, 0.0), max(0.0, self.size[1] - height)),
            )
            for x, y in wished
        ]

        def cost(place: tuple[float, float]) -> float:
            mine = (*place, place[0] + width, place[1] + height)
            covered = sum(_overlap(mine, other) for other in self.taken)
            return 4 * covered + sum(_overlap(mine, face) for face in self.faces)

        return min(places, key=cost)  # the first of equals: the order above is the preference


def _overlap(a: Box, b: Box) -> float:
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return wide * high if wide > 0 and high > 0 else 0.0
