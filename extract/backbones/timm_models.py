"""Any model of timm, by `timm/` and timm's own name for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cache.errors import SettingsError, WeightsError, did_you_mean, first_line
from extract.backbones import backbone
from extract.backbones.resnet import IMAGENET
from extract.backbones.vision import SETTING, check_side
from extract.loading import load_state
from extract.networks import Network, normalise, out_of_memory
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, UInt8
    from torch import Tensor

OWNER = "timm/"


@backbone(f"{OWNER}*")
class Timm(Network):
    """uint8 (B,3,H,W) RGB -> float32 (B,W): what timm's classifier would get, pooled as the model
    pools.

    Weights are a folder as timm's hub has it: `config.json` with `architecture` and
    `pretrained_cfg`, and `model.safetensors`, of which the classifier is left out. Raises
    SettingsError naming `views.<view>.size` for a size that the model cannot take.
    """

    kind = "picture"
    cpu_batch = 32

    @classmethod
    def takes(cls, config: Mapping[str, Any]) -> bool:
        return "architecture" in config and "model_type" not in config

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        said = pretrained(weights)
        usual = IMAGENET | {name: list(said[name]) for name in ("mean", "std") if said.get(name)}
        facts = weights.preprocessing or usual
        return {**facts, "features": "before the classifier, pooled as the model pools"}

    def __init__(self, weights: Weights, device: str = "cpu"):
        super().__init__(weights, device)
        with seeded():
            model: Any = created(weights)
        if weights.trained:
            load_state(model, weights, _classifiers(weights))
        self.width = int(getattr(model, "head_hidden_size", model.num_features))
        patches = getattr(getattr(model, "patch_embed", None), "patch_size", (1,))
        self.patch = int(patches[0])
        self.model = model.eval().requires_grad_(False).to(self.device)

    def __call__(self, pictures: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B W"]:
        import torch

        for side in pictures.shape[-2:]:
            check_side(side, self.patch, self.name, "views.<view>.size")
        features = self.batched(pictures, self._features)
        return torch.cat(features) if features else torch.zeros((0, self.width))

    def _features(self, pictures: Tensor) -> Tensor:
        pixels = normalise(pictures, self.preprocessing, self.device)
        try:
            with self.arithmetic():
                return self.model(pixels).float()
        except (AssertionError, ValueError, RuntimeError) as error:  # how a wrong size shows
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            raise SettingsError(
                f"{self.name} refuses pictures of {tuple(pictures.shape[-2:])}: "
                f"{first_line(error)}; see views.<view>.size"
            ) from error


def created(weights: Weights) -> torch.nn.Module:
    """The model without a classifier, for pictures of any size where it can. Raises SettingsError
    for a name that timm does not know, WeightsError for a folder that it cannot build."""
    import timm

    config = weights.config or {}
    name = str(config.get("architecture") or weights.network)
    name = name.removeprefix(OWNER).split(".")[0]
    if not timm.is_model(name):
        raise SettingsError(
            f"timm has no model {name!r}{did_you_mean(name, timm.list_models())}; see {SETTING}"
        )
    arguments = {**(config.get("model_args") or {}), "pretrained": False, "num_classes": 0}
    try:
        try:
            return timm.create_model(name, **(arguments | {"dynamic_img_size": True}))
        except TypeError:  # one that does not know what that is
            return timm.create_model(name, **arguments)
    except Exception as error:  # timm's models raise many kinds
        raise WeightsError(
            f"config.json of {weights.path or weights.network} builds no {name}: "
            f"{first_line(error)}; see weights.folder"
        ) from error


def pretrained(weights: Weights) -> Mapping[str, Any]:
    """What timm says of the weights: in older folders the config itself."""
    config = weights.config or {}
    return config.get("pretrained_cfg") or config


def _classifiers(weights: Weights) -> tuple[str, ...]:
    """How the names of the classifier's tensors begin."""
    said = pretrained(weights).get("classifier") or ()
    return tuple(f"{name}." for name in ([said] if isinstance(said, str) else said))
