"""What the server is asked, answered by a predictor: pictures, what if, and what all rests on."""

import importlib.metadata
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from cache.errors import DataError, SettingsError, did_you_mean
from extract import images
from pipelines.answers import Answer, by_weight
from pipelines.exported import ExportedPredictor
from pipelines.overlay import PEOPLE, PersonMark
from pipelines.pages import data_url
from pipelines.predict import Predictor
from pipelines.serve.persons import Persons
from pipelines.settings import Serve
from train.data import Features
from train.explain import explain_features
from train.whatif import Edge, Without, edges_of, views_of, what_if

# What stands above every answer.
CAUTION = (
    "What is predicted is what annotators would say of the picture, not what anyone feels. It is "
    "often wrong, and what it says differs with light, culture and camera. The law restricts such "
    "systems: in the European Union, inferring emotions at work and in education is forbidden but "
    "for medical or safety reasons. Decide nothing about anyone by it"
)
SHOWN = 1024  # longer side of a picture that goes back, in pixels
TOP = 5  # emotions of a person written into it
SHOWS = ("none", "plain", "marked")

NO_WHAT_IF = (
    "what if is not answered by an exported head, which says its scores alone: serve the head that "
    "was exported, with its cache"
)
NO_PERSONS = "no cache was opened"
NO_PICTURE = images.Picture(np.zeros((0, 0, 3), np.uint8), "")


@dataclass(frozen=True)
class Kept:
    """The features of a picture's people; rows: of each person in them; places: of each person's
    objects, as the answer lists them, in the arrays."""

    features: Features
    rows: Sequence[int]
    places: Sequence[Sequence[int]]


class Desk:
    """A predictor at work. `predict` is for one thread at a time; `what_if` and `person` for
    another one. persons: of the cache that the head was fitted on, or why there are none."""

    def __init__(
        self,
        predictor: Predictor | ExportedPredictor,
        settings: Serve,
        persons: Persons | str = NO_PERSONS,
    ) -> None:
        self.predictor, self.settings, self.persons = predictor, settings, persons
        self.grounds = predictor.about()
        self._removable, self._edges = self._warm()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def kind(self) -> str:
        """What the labels are: see `train.labels`."""
        info = self.predictor.info
        return str(info.get("kind") or info.get("spec", {}).get("kind", "multi"))

    def about(self) -> dict[str, Any]:
        """The head and what it can be asked, as `schema.About`."""
        labels, persons = self.predictor.info["labels"], self.persons
        why_not = persons if isinstance(persons, str) else ""
        return {
            **self.grounds,
            "labels": labels,
            "kind": self.kind,
            "removable": list(self._removable),
            "edges": [(labels[i], labels[j]) for i, j in self._edges],
            "no_what_if": "" if isinstance(self.predictor, Predictor) else NO_WHAT_IF,
            "splits": {} if isinstance(persons, str) else persons.splits,
            "no_persons": why_not,
            "colours": list(PEOPLE),
            "limits": self.settings.model_dump(),
            "caution": CAUTION,
            "version": importlib.metadata.version("emocache"),
        }

    def predict(self, name: str, data: bytes, *, keep: bool, show: str = "none") -> dict[str, Any]:
        """One picture, as `schema.Found`; keep: with a token; show: one of SHOWS. Raises
        `images.PictureError`."""
        answer = self.predictor.answer(data, most=self.settings.people, limit=self.settings.pixels)
        result = {
            "picture": name,
            **answer.result(self.predictor.finds.score),
            "left_out": answer.left_out,
            "width": answer.picture.width,
            "height": answer.picture.height,
        }
        if show != "none":
            result["shown"] = _shown(answer, show)
        if keep and answer.features is not None and isinstance(self.predictor, Predictor):
            result["token"] = self._keep(answer)
        return result

    def person(self, row: int, show: str = "none") -> dict[str, Any]:
        """A person of the cache by its row, as `schema.CachedPerson`; show: one of SHOWS.

        Raises DataError where there is no such person, or no cache; CacheError where it is no
        longer what it was.
        """
        persons = self._persons()
        features = persons.features(row)
        seen = explain_features(self._model, features, features.rows())
        scores = seen.y_score[0]
        mark = replace(
            PersonMark.seen(seen, 0),
            name=f"person {row}",
            emotions=list(self._named(scores, np.argsort(-scores)).items()),
        )
        picture, why_not = NO_PICTURE, ""
        if show != "none":
            try:
                picture = persons.picture(row)
            except images.PictureError as error:
                why_not = f"the picture is not shown: {error.reason}"
        answer = Answer(picture, [mark], features, [0], [by_weight(seen, 0)])
        known = persons.known(row)
        return {
            **known,
            "shares": known["shares"] if self.kind == "distribution" else None,
            **answer.result(0),
            "no_picture": why_not,
            "shown": None if picture is NO_PICTURE else _shown(answer, show),
            "token": self._keep(answer),
        }

    def rows(self, split: str | None = None) -> dict[str, Any]:
        """The persons of a split, of all where none is named, as `schema.CachedPersons`. Raises
        DataError where there is no such split, or no cache."""
        persons = self._persons()
        if split is not None and split not in persons.splits:
            raise DataError(f"no split {split!r}: the cache has {', '.join(persons.splits)}")
        return {"splits": persons.splits, "rows": persons.of(split)}

    def what_if(
        self,
        token: str,
        person: int,
        views: Sequence[str] = (),
        objects: Sequence[int] = (),
        edges: Sequence[tuple[str, str]] = (),
    ) -> dict[str, Any]:
        """The scores of a person with everything, and without these; as `schema.WhatIf`.

        Raises KeyError for a token that is not kept, DataError for a person that is not there,
        SettingsError for what cannot be taken away, or a head of which nothing can.
        """
        model = self._model
        with self._lock:
            kept = self._kept[token]
            self._kept.move_to_end(token)
        if person >= len(kept.rows):
            raise DataError(f"no person {person}: there are {len(kept.rows)}, numbered from 0")
        places = kept.places[person]
        if wrong := [number for number in objects if not 0 <= number < len(places)]:
            raise SettingsError(
                f"person {person} has no object {wrong[0]}: there are {len(places)}, from 0"
            )
        case = Without(
            tuple(views),
            tuple(places[number] for number in objects),
            tuple((self._label(a), self._label(b)) for a, b in edges),
        )
        whole, without = what_if(model, kept.features, kept.rows[person], [Without(), case])
        order = np.argsort(-whole)
        return {
            "person": person,
            "scores": self._named(whole, order),
            "without": self._named(without, order),
            "note": self.grounds["note"],
            "untrained": self.grounds["untrained"],
        }

    def _named(self, scores: np.ndarray, order: np.ndarray) -> dict[str, float]:
        """The scores of the labels that were learned, rounded as those of a prediction."""
        labels, learned = self.predictor.info["labels"], self.predictor.info["positives"]
        return {labels[i]: round(float(scores[i]), 4) for i in order.tolist() if learned[labels[i]]}

    def _label(self, name: str) -> int:
        labels = self.predictor.info["labels"]
        if name not in labels:
            raise SettingsError(f"no label {name!r}{did_you_mean(name, labels)}")
        return int(labels.index(name))

    @property
    def _model(self) -> Any:
        if not isinstance(self.predictor, Predictor):
            raise SettingsError(NO_WHAT_IF)
        return self.predictor.model

    def _persons(self) -> Persons:
        if isinstance(self.persons, str):
            raise DataError(f"persons of the cache are not shown: {self.persons}")
        return self.persons

    def _keep(self, answer: Answer) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = Kept(answer.features, answer.rows, answer.places)
            while len(self._kept) > self.settings.kept:
                self._kept.popitem(last=False)
        return token

    def _warm(self) -> tuple[Sequence[str], Sequence[Edge]]:
        """Loads every network, so that what is wrong with one is said before anybody asks; gives
        the views and the edges that can be taken away."""
        grey = images.Picture(np.full((96, 96, 3), 128, np.uint8), "")
        self.predictor.people(grey)
        _, features = self.predictor.see(grey, [(8.0, 8.0, 88.0, 88.0)])
        if not isinstance(self.predictor, Predictor):
            return (), ()
        return views_of(self.predictor.model, features), edges_of(self.predictor.model)


def _shown(answer: Answer, show: str) -> str:
    """The picture, small, as the address of itself."""
    picture = Image.fromarray(answer.picture.pixels)
    longest = min(SHOWN, max(picture.size))
    if show == "marked" and answer.marks:
        return data_url(answer.drawn(TOP, longest), quality=80)
    picture.thumbnail((longest, longest))
    return data_url(picture, quality=80)
