"""Frozen networks that turn pictures, sentences or words into features, found by name.

    load_backbone("resnet50", settings.weights)                          uint8 (B,3,H,W) -> (B,2048)
    load_backbone("Intel/dpt-hybrid-midas", settings.weights)            -> features, depth maps
    load_backbone("openai/clip-vit-base-patch16", settings.weights)      uint8 (B,3,H,W) -> (B,512)
    load_backbone("timm/test_vit", settings.weights)                     uint8 (B,3,H,W) -> (B,W)
    load_backbone("bert-base-uncased", settings.weights)                 list of str -> (B,W)
    load_backbone("openai/clip-vit-base-patch16", settings.weights, kind="text")
    load_backbone("glove-6b-50d", settings.weights)      list of str -> {known word: (50,)}

Importing this package, and `backbones.describe`, load no network library; building one does.
"""

from __future__ import annotations

from extract.families import Families
from extract.networks import Network
from extract.settings import Weights as WeightsSettings
from extract.weights import config_of, find

# Of two classes that a name fits, the first has it.
backbones: Families[Network] = Families(
    "backbone",
    "extract.backbones",
    ("resnet", "midas", "timm_models", "vision", "clip_text", "text", "words"),
)
backbone = backbones.add


def load_backbone(
    name: str, settings: WeightsSettings, device: str = "cpu", kind: str | None = None
) -> Network:
    """Build a backbone and fill it with the weights that `settings` allow.

    `kind` is "picture", "depth", "text" or "words"; with it, depth, text and word networks of any
    name are taken, without it only names the registry knows, and folders whose `config.json` says
    what they are. Raises SettingsError for a name it does not know, WeightsError where no source
    has the weights.
    """
    # A wrong name is said before weights are sought.
    backbones.get(name, kind, config_of(name, settings))
    return backbones.build(find(name, settings), device, kind)
