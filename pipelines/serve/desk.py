"""What the server is asked, answered by a predictor: pictures, what if, and what all rests on."""

import importlib.metadata
import math
import secrets
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cache.errors import DataError, SettingsError, did_you_mean
from extract import images
from pipelines.answers import Answer
from pipelines.overlay import PEOPLE
from pipelines.pages import data_url
from pipelines.predict import Predictor
from pipelines.results import Results, read_csv
from pipelines.settings import Serve
from train.data import Features
from train.whatif import Without, edges_of, views_of, what_if

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


@dataclass(frozen=True)
class Kept:
    """The features of a picture's people; rows: of each person in them; places: of each person's
    objects, as the answer lists them, in the arrays."""

    features: Features
    rows: Sequence[int]
    places: Sequence[Sequence[int]]


class Desk:
    """A predictor at work. `predict` is for one thread at a time; `what_if` for another one."""

    def __init__(self, predictor: Predictor, settings: Serve, head: Path | None = None) -> None:
        self.predictor, self.settings = predictor, settings
        self.grounds = predictor.about()
        self.thresholds = thresholds_of(head, predictor.info) if head is not None else {}
        self._edges = edges_of(predictor.model)
        self._removable = self._warm()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """The head and what it can be asked, as `schema.About`."""
        info, labels = self.predictor.info, self.predictor.info["labels"]
        return {
            **self.grounds,
            "labels": labels,
            "kind": info["spec"].get("kind", "multi"),
            "thresholds": self.thresholds,
            "removable": list(self._removable),
            "edges": [(labels[i], labels[j]) for i, j in self._edges],
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
            **answer.result(self.predictor.settings.people.score),
            "left_out": answer.left_out,
            "width": answer.picture.width,
            "height": answer.picture.height,
        }
        if show != "none":
            result["shown"] = _shown(answer, show)
        if keep and answer.features is not None:
            result["token"] = self._keep(answer, answer.features)
        return result

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
        SettingsError for what cannot be taken away.
        """
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
        whole, without = what_if(
            self.predictor.model, kept.features, kept.rows[person], [Without(), case]
        )
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

    def _keep(self, answer: Answer, features: Features) -> str:
        token = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[token] = Kept(features, answer.rows, answer.places)
            while len(self._kept) > self.settings.kept:
                self._kept.popitem(last=False)
        return token

    def _warm(self) -> tuple[str, ...]:
        """Loads every network, so that what is wrong with one is said before anybody asks; gives
        the views that can be taken away."""
        grey = images.Picture(np.full((96, 96, 3), 128, np.uint8), "")
        self.predictor.people(grey)
        features = self.predictor.features(grey, [(8.0, 8.0, 88.0, 88.0)])
        return views_of(self.predictor.model, features)


def thresholds_of(head: Path, info: Mapping[str, Any]) -> dict[str, float]:
    """The scores from which on each label is decided, where `evaluate` took them from val for this
    very head: of the results folder that the head lies in, else none."""
    results = Results(head.parent)
    try:
        if results.read_metrics()["provenance"].get("head_sha256") != info["sha256"]:
            return {}
        rows = read_csv(results.per_class)
    except (DataError, OSError, ValueError):
        return {}
    found = {row["label"]: row.get("threshold", math.nan) for row in rows}
    return {label: value for label, value in found.items() if math.isfinite(value)}


def _shown(answer: Answer, show: str) -> str:
    """The picture, small, as the address of itself."""
    picture = Image.fromarray(answer.picture.pixels)
    longest = min(SHOWN, max(picture.size))
    if show == "marked" and answer.marks:
        return data_url(answer.drawn(TOP, longest), quality=80)
    picture.thumbnail((longest, longest))
    return data_url(picture, quality=80)
