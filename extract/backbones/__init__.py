"""Frozen networks that turn pictures, sentences or words into features, found by name.

    load_backbone("resnet50", settings.weights)                          uint8 (B,3,H,W) -> (B,2048)
    load_backbone("Intel/dpt-hybrid-midas", settings.weights)            -> features, depth maps
    load_backbone("bert-base-uncased", settings.weights)                 list of str -> (B,W)
    load_backbone("glove-6b-50d", settings.weights)      list of str -> {known word: (50,)}

Importing this package, and `backbones.describe`, load no network library; building one does.
"""

from __future__ import annotations

from extract.families import Families
from extract.networks import Network
from extract.settings import Weights as WeightsSettings
from extract.weights import find

backbones: Families[Network] = Families(
    "backbone", "extract.backbones", ("resnet", "midas", "text", "words")
)
backbone = backbones.add


def load_backbone(
    name: str, settings: WeightsSettings, device: str = "cpu", kind: str | None = None
) -> Network:
    """Build a backbone and fill it with the weights that `settings` allow.

    `kind` is "picture", "depth", "text" or "words"; with it, depth, text and word networks of any
    name are taken, without it only names the registry knows. Raises SettingsError for a name it
    does not know, WeightsError where no source has the weights.
    """
    backbones.get(name, kind)  # a wrong name is said before weights are sought
    return backbones.build(find(name, settings), device, kind)
