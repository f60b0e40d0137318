"""Where the encoders of scene and person looked, for the report: the networks run once more."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from cache.errors import EmocacheError
from cache.index import Index
from extract import images
from extract.backbones import backbones
from extract.loaded import Networks
from extract.views import Subject, View
from extract.weights import config_of
from pipelines.looks import Look
from pipelines.settings import Settings
from pipelines.workplace import networks_of, views_of
from train.explain import gradients

STREAMS = ("scene", "body")


def looks_of(
    settings: Settings, index: Index, opened: Any, rows: Sequence[int], scores: np.ndarray
) -> tuple[list[Look], str]:
    """Rollout and Grad-CAM of the label scored highest, for these person rows; scores (N, C).

    No looks, and in words why, where the networks cannot say or are not those that the features
    are of; no words either, where neither view is read or their network is no ViT.
    """
    if index.modalities or not len(rows):
        return [], ""
    networks = networks_of(settings)
    views = {name: view for name, view in views_of(settings, index).items() if name in STREAMS}
    views = {name: view for name, view in views.items() if name in opened.info["views"]}
    try:
        views = {name: view for name, view in views.items() if _can_look(view, networks)}
        for name, view in views.items():
            if view.key(networks) != opened.info["views"][name]["key"]:
                return [], (
                    f"views.{name} as set here is not what the head was fitted on, so where its "
                    "network looked is not shown"
                )
        if not views:
            return [], ""
        return _looks(settings, index, opened, rows, scores, views, networks), ""
    except EmocacheError as error:
        return [], f"Where the networks looked cannot be shown: {error}"


def _looks(
    settings: Settings,
    index: Index,
    opened: Any,
    rows: Sequence[int],
    scores: np.ndarray,
    views: Mapping[str, View],
    networks: Networks,
) -> list[Look]:
    features, best = opened.features, scores.argmax(axis=1)
    at = torch.as_tensor(list(rows), device=features.device)
    label = torch.as_tensor(best, device=features.device)
    toward = gradients(opened.model, features, at, label, *views)
    subjects = [_subject(settings, index, row) for row in rows]
    panels: list[dict[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]] = [{} for _ in rows]
    for name, view in views.items():
        squares = np.stack([view.prepare(subject) for subject in subjects])
        pixels = torch.from_numpy(squares).permute(0, 3, 1, 2)
        network = view.backbone(networks)
        by = toward.get(name)
        width = (len(rows), network.width)
        maps = network.look(pixels, torch.zeros(width) if by is None else torch.from_numpy(by))
        if by is None:
            maps.pop("gradcam", None)
        for n, panel in enumerate(panels):
            panel[name] = squares[n], {kind: heat[n] for kind, heat in maps.items()}
    return [
        Look(f"person {row}: {features.labels[best[n]]} {scores[n, best[n]]:.2f}", panels[n])
        for n, row in enumerate(rows)
    ]


def _can_look(view: View, networks: Networks) -> bool:
    network = view.settings.network
    return backbones.get(network, "picture", config_of(network, networks.settings)).looks


def _subject(settings: Settings, index: Index, row: int) -> Subject:
    path = index.pictures["path"][int(index.picture_rows[row])].as_py()
    picture = images.read(settings.data.root.expanduser() / path)
    x1, y1, x2, y2 = index.boxes[row].tolist()
    return Subject(picture.pixels, (x1, y1, x2, y2))
