"""Which places of a person the channels stand for that RRLA's gate lets through (BPA, its Fig. 11):
the body's network run once more, to its last feature map."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cache.errors import EmocacheError
from cache.index import Index
from extract import images
from extract.loaded import Networks
from extract.views import Subject, View
from pipelines.looks import Look
from pipelines.settings import Settings
from pipelines.wording import UNTRAINED
from pipelines.workplace import networks_of, views_of
from train.data import Batch

STRONGEST = 32  # channels that a map is the mean of
EVERY = "all channels"  # the map that only these looks have


def channels_of(
    settings: Settings,
    index: Index,
    opened: Any,
    rows: Sequence[int],
    gate: Float[np.ndarray, "N W"] | None,
) -> tuple[list[Look], str]:
    """Maps of these person rows, whose gates these are (`Explanation.gate`): the mean of all
    channels as the head sees them, and that of the `STRONGEST` with the largest and the smallest
    gate, each times its gate.

    No looks and no words for a head without a gate (None); no looks, and in words why, where the
    network of the body is not what its features are of, or has no map.
    """
    if index.modalities or not len(rows) or gate is None:
        return [], ""
    try:
        networks, view = networks_of(settings), views_of(settings, index).get("body")
        fitted = opened.info["views"]["body"]
        if view is None or view.key(networks) != fitted["key"]:
            return [], (
                "views.body as set here is not what the head was fitted on, so where the channels "
                "of its gate lie is not shown"
            )
        squares = np.stack([view.prepare(_subject(settings, index, row)) for row in rows])
        maps = last_maps(view, networks, squares)
    except EmocacheError as error:
        return [], f"Where the channels of the body's gate lie cannot be shown: {error}"
    if maps is None:
        return [], f"{view.settings.network} of views.body has no last feature map to show"
    heat = gated(opened.model, maps, torch.from_numpy(gate))
    trained = all(one["trained"] for one in fitted["weights"])
    return [
        Look(
            caption(row, gate[n]) + ("" if trained else f"; {UNTRAINED} network"),
            {"body": (squares[n], {name: one[n] for name, one in heat.items()})},
        )
        for n, row in enumerate(rows)
    ], ""


def said(looks: Sequence[Look]) -> str:
    """What the maps of these looks are, for the page; "" where none of them is of channels."""
    of_channels = [
        maps[EVERY]
        for look in looks
        for _, maps in look.panels.values()
        if EVERY in maps
    ]  # fmt: skip
    if not of_channels:
        return ""
    high, wide = of_channels[0].shape
    return (
        f"The body's crop, and its last feature map, {high} x {wide} places: the mean of all "
        f"channels, and of the {STRONGEST} that the head's gate weighs most and least for this "
        "person, times their weights. Each map is shown from its own least value, dark, to its "
        "greatest, so it says where and not how much; what a channel stands for nobody has told it."
    )


def caption(row: int, gate: Float[np.ndarray, " W"]) -> str:
    """The person, and how far apart the weights are."""
    order = np.sort(gate)
    count = _count(len(gate))
    return (
        f"person {row}: gate {order[0]:.2f} to {order[-1]:.2f}, mean of the {count} strongest "
        f"channels {order[-count:].mean():.2f}, of the {count} weakest {order[:count].mean():.2f}"
    )


def last_maps(
    view: View, networks: Networks, squares: np.ndarray
) -> Float[Tensor, "N W h w"] | None:
    """The last feature map of the view's network on these squares (N, S, S, 3), whose mean over
    places is the feature; None of a network without."""
    network = view.backbone(networks)
    layer = getattr(getattr(network, "model", None), "layer4", None)  # of a ResNet
    if layer is None:
        return None
    found: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, out: found.append(out.float().cpu()))
    try:
        network(torch.from_numpy(squares).permute(0, 3, 1, 2))
    finally:
        hook.remove()
    return torch.cat(found)


def gated(
    model: Any, maps: Float[Tensor, "N W h w"], gate: Float[Tensor, "N W"]
) -> Mapping[str, Float[np.ndarray, "N h w"]]:
    """Heat maps from 0 to 1 by name. Each place is standardised as the head does the feature, which
    is the mean over places: so the mean over places of a gated channel is what the head sees."""
    count, width, high, wide = maps.shape
    places = maps.flatten(2).transpose(1, 2).flatten(0, 1)
    none = torch.zeros(len(places))
    box = torch.zeros(len(places), 4)
    batch = Batch(box, none, None, {"body": {"features": places.to(_device(model))}})
    with torch.no_grad():
        seen = model.see("body", batch).cpu().view(count, high * wide, width)
    weighed = seen * gate[:, None]
    order = gate.argsort(dim=1)
    some = _count(width)

    def mean(channels: Tensor) -> np.ndarray:
        picked = weighed.gather(2, channels[:, None].expand(-1, high * wide, -1))
        return _scaled(picked.mean(2).view(count, high, wide))

    return {
        EVERY: _scaled(seen.mean(2).view(count, high, wide)),
        f"{some} most gated in": mean(order[:, -some:]),
        f"{some} least": mean(order[:, :some]),
    }


def _count(width: int) -> int:
    return min(STRONGEST, max(1, width // 2))


def _scaled(maps: Float[Tensor, "N h w"]) -> Float[np.ndarray, "N h w"]:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return ((maps - low) / (high - low).clamp(min=1e-12)).numpy()


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device


def _subject(settings: Settings, index: Index, row: int) -> Subject:
    path = index.pictures["path"][int(index.picture_rows[row])].as_py()
    picture = images.read(settings.data.root.expanduser() / path)
    x1, y1, x2, y2 = index.boxes[row].tolist()
    return Subject(picture.pixels, (x1, y1, x2, y2))
