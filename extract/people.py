"""Who is in a picture that the annotation gives no box for: found by a detector, chosen by a rule.

Detections are views of pictures like any other, `people` and `faces`, so they are computed once,
survive a kill, and are shared. Their key is of the detector alone: all that it found is kept, and
score and rule choose among it anew, in no time. What was chosen is part of a person's id.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from cache.boxes import Box, area, clip, shared
from cache.errors import SettingsError
from cache.index import Index, Origin
from cache.progress import Progress, silent
from cache.settings import Cache
from cache.spec import ArraySpec, Row
from cache.statuses import WORDS, StatusWord
from cache.store import open_view
from extract.compute import Work
from extract.detectors import Detections, Detector, detectors
from extract.families import Families
from extract.loaded import Networks
from extract.run import Outcome, update
from extract.settings import Data, Detection, Extract, People
from extract.views import Subject, View, detector_input

SAME = 0.7  # IoU above which two boxes show the same thing
KEPT = 32  # detections of a picture
OWNED = 0.6  # the least part of a face that lies in the box of the person whose face it is


class Found(View):
    """What a detector finds in whole pictures: the boxes by falling score, and how many."""

    space = "pictures"

    def _networks(self) -> list[tuple[Families[Any], str, str]]:
        return [(detectors, self.settings.detector, self.finds)]

    def parts(self, networks: Networks) -> dict[str, Any]:
        more = self.settings.model_dump() | {"kept": KEPT, "same": SAME}
        return super().parts(networks) | {"settings": more, "dtype": "float32"}

    def facts(self, networks: Networks) -> dict[str, Any]:
        return {"partial": "pictures in which `prepare` looked for people"}

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        return {
            "box": ArraySpec((KEPT, 4), "float32", dims=("detection", "side")),
            "score": ArraySpec((KEPT,), "float32", dims=("detection",)),
            "count": ArraySpec((), "int16"),
        }

    def prepare(self, subject: Subject) -> Any:
        return detector_input(subject.pixels)

    def compute(self, inputs: Sequence[Any], networks: Networks) -> list[Row]:
        detector = self.detector(networks)
        return [self._row(self.wanted(found, detector)) for found in detector(list(inputs))]

    def wanted(self, found: Detections, detector: Detector) -> Detections:
        """Those of the detections that are of the kind sought."""
        return found

    def _row(self, found: Detections) -> Row:
        some = found[np.arange(min(len(found), KEPT))]
        boxes, scores = np.zeros((KEPT, 4), np.float32), np.zeros(KEPT, np.float32)
        boxes[: len(some)], scores[: len(some)] = some.boxes, some.scores
        return Row("ok", {"box": boxes, "score": scores, "count": np.asarray(len(some), np.int16)})


class PeopleView(Found):
    """Persons: see `persons_of`."""

    name, finds = "people", "objects"

    def wanted(self, found: Detections, detector: Detector) -> Detections:
        return persons_of(found, detector, "people.detector")


class FacesView(Found):
    """Faces."""

    name, finds = "faces", "faces"


def persons_of(found: Detections, detector: Detector, setting: str) -> Detections:
    """The people among an object detector's findings in a picture, by falling score.

    Detectors without non-maximum suppression may report one person twice; of boxes that overlap by
    more than `SAME` (IoU), the better stays. Raises SettingsError, naming `setting`, for a detector
    that does not know the class person.
    """
    import torch
    from torchvision.ops import nms

    if "person" not in detector.classes:
        raise SettingsError(
            f"{setting}: {detector.name} does not know the class person, so it cannot find "
            "people: name another detector of objects"
        )
    people = found[found.labels == detector.classes.index("person")]
    once = nms(torch.from_numpy(people.boxes), torch.from_numpy(people.scores), SAME)
    return people[once.numpy()]


def people_views(settings: People) -> dict[str, View]:
    """The views that these settings ask for."""
    views: dict[str, View] = {"people": PeopleView(Detection(detector=settings.detector))}
    if settings.choose == "face":
        views["faces"] = FacesView(Detection(detector=settings.faces))
    return views


@dataclass(frozen=True)
class Choice:
    """A person's box, where it comes from, and the score it was found with; no box, and a status
    and reason, where nobody was found or looked for."""

    box: Box | None
    origin: Origin
    score: float = float("nan")
    status: StatusWord | str = "ok"
    reason: str = ""


def choose(
    people: "Detected",
    faces: "Detected | None",
    settings: People,
    size: tuple[int, int],
    face: Box | None = None,
) -> Choice:
    """One person of a picture of width and height `size`, by `settings.choose`.

    best: of the highest score; largest: of the largest box; central: whose box's centre is nearest
    to that of the picture; face: the owner of the largest face in `faces`, and the largest person
    where no face has one. Equal ones: the higher score. With an annotated `face` its owner is the
    person, whatever the rule. Where there is none: `settings.otherwise`.
    """
    width, height = size
    boxes, scores = people.above(settings.score, width, height)
    if face is not None:
        at = owner(face, boxes)
        if at is None and settings.otherwise == "whole":
            return Choice(face, "face")
    elif not len(boxes):
        at = None
        if settings.otherwise == "whole":
            return Choice((0.0, 0.0, float(width), float(height)), "whole")
    else:
        at = _chosen(boxes, scores, faces, settings, size)
    if at is None:
        where = " about the annotated face" if face is not None else ""
        reason = f"no person above people.score {settings.score:g}{where}"
        return Choice(None, "found", status="no_person", reason=reason)
    x1, y1, x2, y2 = boxes[at].tolist()
    return Choice((x1, y1, x2, y2), "found", float(scores[at]))


def _chosen(
    boxes: np.ndarray,
    scores: np.ndarray,
    faces: "Detected | None",
    settings: People,
    size: tuple[int, int],
) -> int:
    if settings.choose == "best":
        return int(scores.argmax())
    if settings.choose == "central":
        off = (boxes[:, :2] + boxes[:, 2:]) / 2 - np.array(size) / 2
        return int(np.hypot(*off.T).argmin())
    if faces is not None:
        seen, _ = faces.above(settings.face_score, *size)
        for one in seen[np.argsort(-area(seen), kind="stable")]:
            at = owner(tuple(one.tolist()), boxes)
            if at is not None:
                return at
    return int(area(boxes).argmax())


def owner(face: Box, boxes: np.ndarray) -> int | None:
    """Which person's box (n, 4) a face belongs to: of those that hold at least `OWNED` of it, the
    smallest, as larger ones are of people before or behind. None where none does."""
    here = np.asarray(face)
    inside = shared(here, boxes) >= OWNED * max(float(area(here)), 1e-9)
    if not inside.any():
        return None
    return int(np.where(inside, area(boxes), np.inf).argmin())


@dataclass(frozen=True)
class Detected:
    """What was found in one picture: boxes (n, 4) and scores (n,), by falling score."""

    boxes: np.ndarray
    scores: np.ndarray
    status: StatusWord = "ok"
    reason: str = ""

    def above(self, score: float, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of at least that score with a pixel in the picture, clipped to it."""
        kept = [
            (inside, found)
            for box, found in zip(self.boxes, self.scores, strict=True)
            if found >= score and (inside := clip(tuple(box), width, height)) is not None
        ]
        boxes = np.array([box for box, _ in kept], np.float32).reshape(-1, 4)
        return boxes, np.array([found for _, found in kept], np.float32)


@dataclass
class Finder:
    """Looks for people in pictures of an index, once each. untrained: as `weights_summary` has it.

    What it finds lies in the cache at `cache.root`; the index must be written there before.
    """

    settings: People
    data: Data
    cache: Cache
    extract: Extract
    networks: Networks
    progress: Progress = silent
    outcome: Outcome = field(default_factory=Outcome)

    @cached_property
    def views(self) -> dict[str, View]:
        return people_views(self.settings)

    def missing(self, index: Index) -> bool:
        """Whether pictures of the index have not been looked at."""
        from extract.plan import make_plan

        rows = self.cache.shard_rows
        return not make_plan(self.cache.root, index, self.views, self.networks, rows).empty

    def look(self, index: Index) -> None:
        """Compute what is missing. Raises as `extract.run.extract` does."""
        work = Work(self.data, self.extract, self.views, self.networks)
        self.outcome = update(index, self.cache, work, self.progress)

    def found(self, rows: Sequence[int]) -> Mapping[str, Mapping[int, Detected]]:
        """By view, what was found in these pictures."""
        return {name: self._of(name, rows) for name in self.views}

    def _of(self, name: str, rows: Sequence[int]) -> dict[int, Detected]:
        view = open_view(self.cache.root, name)
        boxes, scores, counts = (view.read(array) for array in ("box", "score", "count"))
        found = {}
        for row in rows:
            done = row < len(view) and view.done[row]
            if not done:
                found[row] = Detected(np.zeros((0, 4)), np.zeros(0), "missing", "gone meanwhile")
                continue
            some = slice(int(counts[row]))
            found[row] = Detected(
                boxes[row][some],
                scores[row][some],
                WORDS[int(view.status[row])],
                view.reasons.get(row, ""),
            )
        return found

    def said(self, about_faces: bool, chosen: bool) -> str:
        """How people were found, in words, for every result; about_faces: some about annotated
        ones; chosen: some by `people.choose`."""
        names = [name for view in self.views.values() for name in view.network_names()]
        noise = [name for name in names if not self.networks.weights(name).trained]
        rules = ["about the annotated faces"] if about_faces else []
        if chosen:
            faces = f", faces by {names[1]}" if len(names) > 1 else ""
            rules.append(f"choose {self.settings.choose}{faces}")
        rule = ", else ".join(rules)
        said = f"people found by {names[0]} ({rule})"
        return said + (f", UNTRAINED, random weights: {', '.join(noise)}" if noise else "")
