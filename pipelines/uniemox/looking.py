"""Runs an encoder over some pictures again, to see where it looked."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cache.index import Index
from extract.backbones import load_backbone
from pipelines.looks import Look
from pipelines.settings import Settings
from pipelines.uniemox.pictures import PictureSource
from train.uniemox.classifier import Classifier
from train.uniemox.pictures import Pictures
from train.uniemox.student import Student

NAME = "uniemox"


def encoder_in(settings: Settings, folder: Path) -> Any:
    """The encoder below `folder`/uniemox, as stage 1 runs it."""
    weights = settings.weights.model_copy(update={"folder": folder, "source": ["folder"]})
    return load_backbone(NAME, weights, kind="picture")


def looks_of_student(
    settings: Settings, index: Index, source: PictureSource, student: Student, folder: Path
) -> list[Look]:
    """Of the first held-out pictures: rollout, and Grad-CAM of cos(Y, O) where there is a teacher
    of the picture."""
    pictures = _first(source, "val", min(settings.pretrain.pictures, settings.report.looks))
    if pictures is None:
        return []
    network = encoder_in(settings, folder)
    streams = ["scene", *([] if "person" in settings.pretrain.without else ["person"])]
    tokens = {name: network(getattr(pictures, name)) for name in streams}
    toward, caption = _toward_teacher(student, tokens, pictures)
    paths = index.pictures["path"].to_pylist()
    captions = [f"{paths[row]}{caption}" for row in pictures.row.tolist()]
    return _looks(network, pictures, toward, captions, bool(caption))


def _toward_teacher(
    student: Student, tokens: Mapping[str, Tensor], pictures: Pictures
) -> tuple[dict[str, Tensor], str]:
    """The gradient of cos(Y, O) by the class token of each stream; zeros without a teacher."""
    if pictures.image is None or student.project is None:
        return {name: torch.zeros_like(token) for name, token in tokens.items()}, ""
    device = next(student.parameters()).device
    inputs = {n: t.detach().clone().to(device).requires_grad_() for n, t in tokens.items()}
    said = [student.project(token) for token in inputs.values()]
    y = said[0] if student.fuse is None else student.fuse(*said)
    cosine_similarity(y, pictures.image.to(device)).sum().backward()
    toward = {n: t.grad.cpu() for n, t in inputs.items() if t.grad is not None}
    return toward, "; Grad-CAM of the nearness to the teacher's vector of the picture"


def looks_of_classifier(
    settings: Settings,
    index: Index,
    source: PictureSource,
    model: Classifier,
    folder: Path,
    split: str,
) -> list[Look]:
    """Of the first persons of a split: rollout, and Grad-CAM of the label scored highest."""
    pictures = _first(source, split, settings.report.looks)
    if pictures is None:
        return []
    device = next(model.parameters()).device
    scores = model.predict(pictures.to(device)).cpu()
    best = scores.argmax(dim=1)
    # A linear layer: the gradient of a logit by the class tokens is a row of its weight.
    rows = model.linear.weight.detach().cpu()[best]
    parts = rows.chunk(len(settings.finetune.streams), dim=1)
    toward: dict[str, Tensor] = dict(zip(settings.finetune.streams, parts, strict=True))
    labels, paths = index.labels, index.pictures["path"].to_pylist()
    captions = []
    for n, row in enumerate(pictures.row.tolist()):
        true = labels[int(np.argmax(index.targets[row]))]
        found = labels[int(best[n])]
        path = paths[int(index.picture_rows[row])]
        captions.append(f"{path}: {true}, predicted {found} {float(scores[n, best[n]]):.2f}")
    return _looks(encoder_in(settings, folder), pictures, toward, captions, True)


def _first(source: Any, split: str, count: int) -> Pictures | None:
    some = range(min(source.count(split), count))
    return next(source.read(split, [some]), None) if len(some) else None


def _looks(
    network: Any,
    pictures: Pictures,
    toward: Mapping[str, Tensor],
    captions: Sequence[str],
    graded: bool,
) -> list[Look]:
    maps = {name: network.look(getattr(pictures, name), by) for name, by in toward.items()}
    if not graded:
        maps = {
            name: {k: m for k, m in some.items() if k != "gradcam"} for name, some in maps.items()
        }
    return [
        Look(
            caption,
            {
                name: (
                    getattr(pictures, name)[n].permute(1, 2, 0).numpy(),
                    {kind: heat[n] for kind, heat in some.items()},
                )
                for name, some in maps.items()
            },
        )
        for n, caption in enumerate(captions)
    ]
