"""Frozen networks that turn pictures, sentences or words into features, found by name.

    load_backbone("resnet50", settings.weights)                          uint8 (B,3,H,W) -> (B,2048)
    load_backbone("Intel/dpt-hybrid-midas", settings.weights)            -> features, depth maps
    load_backbone("bert-base-uncased", settings.weights)                 list of str -> (B,W)
    load_backbone("glove-6b-50d", settings.weights)      list of str -> {known word: (50,)}

Importing this package, and `describe`, load no network library; `load_backbone` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from extract.networks import Network, Registry

if TYPE_CHECKING:
    from extract.settings import Weights as WeightsSettings
    from extract.weights import Weights

backbones = Registry("backbone", "extract.backbones", ("resnet", "midas", "text", "words"))
backbone = backbones.add


def load_backbone(
    name: str,
    settings: WeightsSettings,
    device: str = "cpu",
    kind: str | None = None,
) -> Network:
    """Build a backbone and fill it with the weights that `settings` allow.

    `kind` is "picture", "depth", "text" or "words"; with it, depth, text and word networks of any
    name are taken, without it only names the registry knows. Raises SettingsError for a name it
    does not know, WeightsError where no source has the weights.
    """
    from extract.weights import find

    return backbones.get(name, kind)(find(name, settings), device)


def describe(name: str, weights: Weights, kind: str | None = None) -> dict[str, Any]:
    """Everything besides the weights that decides a backbone's numbers, without building it."""
    return backbones.get(name, kind).describe(weights)
