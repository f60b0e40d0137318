"""Emotions of the people in new pictures, by the same views and the same code as extraction."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cache.boxes import Box
from cache.errors import DataError, KeyMismatch
from cache.keys import in_short
from extract import images
from extract.loaded import Networks
from extract.new_pictures import columns, read_views, subjects
from extract.settings import People
from extract.views import Subject, View, make_views
from pipelines.answers import Answering, only_one
from pipelines.exported import ExportedPredictor, is_exported
from pipelines.results import Results, read_csv
from pipelines.settings import Settings
from pipelines.workplace import device_of, networks_of
from train.checkpoint import load_head
from train.data import Features, ViewData, from_arrays
from train.explain import Explanation, explain_features


@dataclass
class Predictor(Answering):
    """A trained head with the networks of the views it reads."""

    settings: Settings
    networks: Networks
    views: dict[str, View]
    model: Any
    info: Mapping[str, Any]
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, settings: Settings, head: Path) -> "Predictor":
        """Raises KeyMismatch when the settings would make other features than the head knows,
        DataError when it reads signals of recordings, which no picture has."""
        device = device_of(settings)
        model, info = load_head(head, device)
        networks = networks_of(settings)
        views = make_views(settings.views, settings.cache.dtype)
        views = read_views(info["views"], views, info["head"])
        for name, view in views.items():
            known = info["views"][name]
            if view.key(networks) != known["key"]:
                why = in_short(known["parts"], view.parts(networks))
                raise KeyMismatch(
                    f"view {name!r} as set here is not what the head was fitted on ({why}): set "
                    "views and weights as they were, or train on features of these settings"
                )
        return cls(settings, networks, views, model, info, thresholds_of(head, info))

    @property
    def finds(self) -> People:
        return self.settings.people

    def see(self, picture: images.Picture, boxes: Sequence[Box]) -> tuple[Explanation, Features]:
        features = self.features(picture, boxes)
        return explain_features(self.model, features, features.rows()), features

    def features(self, picture: images.Picture, boxes: Sequence[Box]) -> Features:
        """The head's views of these people, rounded as the cache rounds them."""
        given = subjects(picture, boxes)
        return from_arrays(
            views={name: self._view(view, given[view.space]) for name, view in self.views.items()},
            boxes=np.asarray(boxes, np.float32).reshape(-1, 4),
            sizes=np.asarray([[picture.width, picture.height]]),
            pictures=np.zeros(len(boxes), np.int64),
            labels=self.info["labels"],
            device=self.networks.device(),
        )

    def _view(self, view: View, seen: Sequence[Subject]) -> ViewData:
        arrays, status = columns(view, seen, self.networks)
        return ViewData(spec=view.spec(self.networks), arrays=arrays, status=status)


def predict(
    settings: Settings,
    head: Path,
    pictures: Sequence[Path],
    boxes: Sequence[Box] = (),
    out: Path | None = None,
    top: int = 5,
) -> dict[str, Any]:
    """See `Answering.predict`. head: of `train`, or a folder of `export`, whose own settings then
    say what views are, and who people; where weights lie and the device are as set."""
    only_one(pictures, boxes)
    return predictor_of(settings, head).predict(pictures, boxes, out, top)


def predictor_of(settings: Settings, head: Path) -> Predictor | ExportedPredictor:
    """The head with its networks, whichever command wrote it."""
    if is_exported(head):
        return ExportedPredictor.load(head, settings.weights, settings.device)
    return Predictor.load(settings, head)


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
