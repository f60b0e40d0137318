"""Monocular depth: MiDaS in transformers' DPT family (Ranftl et al., 2021), and its relatives.

Gives the depth map and a pooled feature of the encoder. The feature is the mean over space of the
deepest map that the encoder hands to the decoder (for a ViT: over its patch tokens, class token
left out), so it is defined alike for plain, hybrid and hierarchical encoders.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cache.errors import SettingsError, first_line
from extract.backbones import backbone
from extract.loading import config_in, load_transformer, processor_of
from extract.networks import Network, normalise, out_of_memory
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig


HALF = {"scale": 1 / 255, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}

# The first fusion layer has no map to add to: published files leave this part of it out.
UNUSED = ("neck.fusion_stage.layers.0.residual_layer1.",)

# The published shapes, so that an untrained network can be built without a hub.
HYBRID = {
    "is_hybrid": True,
    "image_size": 384,
    "backbone_out_indices": [2, 5, 8, 11],
    "backbone_featmap_shape": [1, 1024, 24, 24],
    "neck_hidden_sizes": [256, 512, 768, 768],
    "neck_ignore_stages": [0, 1],
    "reassemble_factors": [1, 1, 1, 0.5],
    "readout_type": "project",
}
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "image_size": 384,
    "backbone_out_indices": [5, 11, 17, 23],
    "neck_hidden_sizes": [256, 512, 1024, 1024],
    "readout_type": "project",
}


def swinv2(
    embed: int, depths: list[int], heads: list[int], window: int, side: int
) -> dict[str, Any]:
    """A DPT with a Swin V2 encoder: its four maps go to the decoder as they are."""
    return {
        "backbone_config": {
            "model_type": "swinv2",
            "embed_dim": embed,
            "depths": depths,
            "num_heads": heads,
            "window_size": window,
            "image_size": side,
            "patch_size": 4,
            "out_features": ["stage1", "stage2", "stage3", "stage4"],
        },
        "neck_hidden_sizes": [embed, 2 * embed, 4 * embed, 8 * embed],
    }


CONFIGS: dict[str, dict[str, Any]] = {
    "intel/dpt-hybrid-midas": HYBRID,
    "intel/dpt-large": LARGE,
    "intel/dpt-swinv2-tiny-256": swinv2(96, [2, 2, 6, 2], [3, 6, 12, 24], 16, 256),
    "intel/dpt-swinv2-base-384": swinv2(128, [2, 2, 18, 2], [4, 8, 16, 32], 24, 384),
    "intel/dpt-swinv2-large-384": swinv2(192, [2, 2, 18, 2], [6, 12, 24, 48], 24, 384),
}


@backbone(*CONFIGS, "intel/dpt-*", "*dpt*", "*depth-anything*")
class Depth(Network):
    """uint8 (B,3,S,S) RGB -> (features float32 (B,D), depth maps float32 (B,H,W)).

    Depth is relative and inverse (near is large), in no unit, as MiDaS defines it. S must suit the
    network (`size` is what it was made for); raises SettingsError naming `views.depth.size` if not.
    """

    kind = "depth"
    any_name = True
    cpu_batch = 8  # transformers at 384 pixels need about half a GB each

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        facts = weights.preprocessing or processor_of(weights.path) or HALF
        return {**facts, "features": "mean over space of the encoder's deepest map"}

    def __init__(self, weights: Weights, device: str = "cpu"):
        import torch
        from transformers import AutoModelForDepthEstimation

        super().__init__(weights, device)

        if weights.trained:
            model = load_transformer(
                AutoModelForDepthEstimation, weights, UNUSED, "views.depth.network"
            )
        else:
            config = config_of(self.name)
            with seeded():
                model = AutoModelForDepthEstimation.from_config(config, dtype=torch.float32)
        if not hasattr(model, "neck"):
            raise SettingsError(
                f"{self.name} ({type(model).__name__}) has no decoder neck to take features from: "
                f"choose views.depth.network from {', '.join(CONFIGS)}"
            )
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.size = side_of(model.config)
        self.width = width_of(model.config)

    def __call__(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        pairs = self.batched(pictures, self._maps)
        return torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs])

    def _maps(self, pictures: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen: list[torch.Tensor] = []

        def keep(_module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            seen.append(inputs[0][-1])

        pixels = normalise(pictures, self.preprocessing, self.device)
        hook = self.model.neck.register_forward_pre_hook(keep)
        try:
            with self.arithmetic():
                maps = self.model(pixel_values=pixels).predicted_depth
        except (ValueError, RuntimeError) as error:  # the ways in which a wrong size shows
            if isinstance(error, RuntimeError) and out_of_memory(error):
                raise
            side = tuple(pictures.shape[-2:])
            raise SettingsError(
                f"{self.name} refuses pictures of {side}: {first_line(error)}; "
                f"it was made for views.depth.size = {self.size}"
            ) from error
        finally:
            hook.remove()
        return pool(seen[0].float()), maps.float()


def pool(deepest: torch.Tensor) -> torch.Tensor:
    """Mean over space: of a map (B,D,h,w), or of tokens (B,1+n,D) without the class token."""
    if deepest.ndim == 4:
        return deepest.mean(dim=(2, 3))
    return deepest[:, 1:].mean(dim=1)


def config_of(name: str) -> PreTrainedConfig:
    """The shape of an untrained network: of a known name, or from a folder's `config.json`."""
    from transformers import AutoConfig, DPTConfig

    if name.lower() not in CONFIGS:
        return config_in(name, "views.depth.network", CONFIGS)
    known = dict(CONFIGS[name.lower()])
    encoder = known.pop("backbone_config", None)
    if encoder is not None:
        known["backbone_config"] = AutoConfig.for_model(**encoder)
    return DPTConfig(**known)


def side_of(config: PreTrainedConfig) -> int:
    inner = getattr(config, "backbone_config", None)
    if inner is not None and not getattr(config, "is_hybrid", False):
        config = inner
    side = config.image_size
    return int(side if isinstance(side, int) else side[0])


def width_of(config: PreTrainedConfig) -> int:
    """D: channels of the deepest map that the encoder hands to the decoder."""
    inner = getattr(config, "backbone_config", None)
    if inner is None or getattr(config, "is_hybrid", False):
        return int(config.hidden_size)
    if hasattr(inner, "embed_dim"):  # hierarchical: the width doubles from stage to stage
        return int(inner.embed_dim * 2 ** (len(inner.depths) - 1))
    return int(inner.hidden_size)
