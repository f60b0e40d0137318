"""Vision transformers as transformers has them: CLIP, SigLIP, DINOv2 and DINOv3, ViT, the encoders
of masked autoencoders, and `uniemox`, which `emocache pretrain` writes.

What a network is, its folder's `config.json` says; so a folder may have any name, and one that
holds a whole CLIP (pictures and texts) gives the part that is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache.errors import SettingsError, WeightsError, first_line
from cache.keys import key_of
from extract.backbones import backbone
from extract.backbones.midas import HALF
from extract.backbones.resnet import IMAGENET
from extract.loading import load_transformer, processor_of, quiet_transformers
from extract.networks import Network, normalise
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    import numpy as np
    import torch
    from jaxtyping import Float, UInt8
    from torch import Tensor
    from transformers import PreTrainedConfig

SETTING = "views.<view>.network"
CLIP = {
    "scale": 1 / 255,
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
}
CLASS_TOKEN = "class token after the last norm"


@dataclass(frozen=True)
class Tower:
    """What is to be known of an architecture.

    model: its class in transformers; features: what is taken of it, in words; patch: pixels a side
    where a config does not say; usual: done to pixels where a folder does not say; resizes: whether
    it must be told to interpolate its positions to other sizes; more: what else builds it.
    """

    model: str
    features: str
    patch: int
    usual: Mapping[str, Any]
    resizes: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


POOLED = "patch tokens pooled by the tower's attention head"
UNPOOLED = {"add_pooling_layer": False}
TOWERS = {
    "clip": Tower(
        "CLIPVisionModelWithProjection",
        f"{CLASS_TOKEN}, projected beside the texts",
        32,
        CLIP,
        True,
    ),
    "siglip": Tower("SiglipVisionModel", POOLED, 16, HALF, True),
    "siglip2": Tower("Siglip2VisionModel", POOLED, 16, HALF),
    "vit": Tower("ViTModel", CLASS_TOKEN, 16, HALF, True, UNPOOLED),
    "vit_mae": Tower("ViTModel", CLASS_TOKEN, 16, IMAGENET, True, UNPOOLED),
    "dinov2": Tower("Dinov2Model", CLASS_TOKEN, 14, IMAGENET),
    "dinov2_with_registers": Tower("Dinov2WithRegistersModel", CLASS_TOKEN, 14, IMAGENET),
    "dinov3_vit": Tower("DINOv3ViTModel", CLASS_TOKEN, 16, IMAGENET),
}
# What configs call a tower that was saved without its texts.
ALONE = {
    "clip_vision_model": "clip",
    "siglip_vision_model": "siglip",
    "siglip2_vision_model": "siglip2",
}
# A token that only pre-training puts in the place of hidden patches.
UNUSED = ("embeddings.mask_token",)

# The published shapes, so that an untrained network can be built without a hub.
LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
DINOV2 = {"image_size": 518, "patch_size": 14, "num_hidden_layers": 12}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai/clip-vit-base-patch32": ("clip", {"patch_size": 32}),
    "openai/clip-vit-base-patch16": ("clip", {"patch_size": 16}),
    "openai/clip-vit-large-patch14": ("clip", {**LARGE, "patch_size": 14, "projection_dim": 768}),
    "google/siglip-base-patch16-224": ("siglip", {}),
    "facebook/dinov2-small": ("dinov2", {**DINOV2, "hidden_size": 384, "num_attention_heads": 6}),
    "facebook/dinov2-base": ("dinov2", {**DINOV2, "hidden_size": 768, "num_attention_heads": 12}),
    "facebook/dinov2-large": (
        "dinov2",
        {**DINOV2, "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
    ),
    "facebook/vit-mae-base": ("vit_mae", {}),
    "facebook/vit-mae-large": ("vit_mae", LARGE),
    "google/vit-base-patch16-224-in21k": ("vit", {}),
}
FAMILIES = (
    "uniemox*",
    "*/clip-*",
    "*/metaclip-*",
    "*/siglip*",
    "*/dinov2*",
    "*/dinov3-vit*",
    "*/dino-vit*",
    "*/vit-*",
)

AT_ONCE = 4  # pictures looked into: the attentions of all layers are in memory together


@backbone(*SHAPES, *FAMILIES)
class Vision(Network):
    """uint8 (B,3,H,W) RGB -> float32 (B,W). CLIP: the projected class token; SigLIP: what its head
    pools; the others: the class token after the last norm.

    H and W may be others than those of its training, where positions are interpolated. Raises
    SettingsError naming `views.<view>.size` where they are no multiples of its patch.
    """

    kind = "picture"
    looks = True
    cpu_batch = 32  # tokens of a large one at 224 pixels need about 20 MB each

    @classmethod
    def takes(cls, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in {*TOWERS, *ALONE}

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        kind, shape = shape_of(weights)
        tower = TOWERS[kind]
        patch = shape.get("patch_size", tower.patch)
        rule = {
            **(weights.preprocessing or processor_of(weights.path) or tower.usual),
            "features": tower.features,
            "patch": int(patch if isinstance(patch, int) else patch[0]),
        }
        if not weights.trained:
            rule["shape"] = key_of(shape)
        return rule

    def __init__(self, weights: Weights, device: str = "cpu"):
        import transformers

        super().__init__(weights, device)
        self.architecture, shape = shape_of(weights)
        tower = TOWERS[self.architecture]
        built = getattr(transformers, tower.model)
        config = config_for(built, weights, shape, SHAPES)
        if not getattr(config, "vision_use_head", True):
            raise WeightsError(f"{weights.path} has no head that pools its tokens; see {SETTING}")
        if weights.trained:
            model = load_transformer(built, weights, UNUSED, SETTING, config=config, **tower.more)
        else:
            with seeded(), quiet_transformers():
                model = built(config, **tower.more)
        self.model = model.eval().requires_grad_(False).to(self.device)
        self.patch = self.preprocessing["patch"]
        clip = self.architecture == "clip"
        self.width = int(config.projection_dim if clip else config.hidden_size)
        # Tokens before those of the patches: of the class, and registers. SigLIP has none.
        pooled = self.architecture.startswith("siglip")
        self.before = 0 if pooled else 1 + getattr(config, "num_register_tokens", 0)

    def __call__(self, pictures: UInt8[Tensor, "B 3 H W"]) -> Float[Tensor, "B W"]:
        import torch

        self._check(pictures)
        features = self.batched(pictures, self._features)
        return torch.cat(features) if features else torch.zeros((0, self.width))

    def look(
        self, pictures: UInt8[Tensor, "B 3 H W"], toward: Float[Tensor, "B W"]
    ) -> dict[str, Float[np.ndarray, "B h w"]]:
        """Where on each picture the network looked, float32 by patch, the most of a picture is 1.

        rollout: by its attentions alone (Abnar and Zuidema, 2020): mean over heads, plus identity,
        rows scaled to a sum of 1, multiplied from the first layer to the last; of that the class
        token's row over the patches. Networks without a class token (SigLIP) have none.
        gradcam: for one score of these features, `toward` its gradient with respect to them
        (Selvaraju et al., 2017). Of the patches' tokens before the last layer: channels weighted by
        the mean gradient of <features, toward> over patches, summed, what is below 0 left out.
        A picture in which nothing is above 0 has zeros.
        """
        import numpy as np

        self._check(pictures)
        if tuple(toward.shape) != (len(pictures), self.width):
            raise ValueError(
                f"toward must be ({len(pictures)}, {self.width}), not {tuple(toward.shape)}"
            )
        parts = [
            self._look(pictures[start : start + AT_ONCE], toward[start : start + AT_ONCE])
            for start in range(0, len(pictures), AT_ONCE)
        ]
        grid = tuple(side // self.patch for side in pictures.shape[-2:])
        none = [np.zeros((0, *grid), np.float32)]
        names = ("rollout", "gradcam") if self.before else ("gradcam",)
        return {name: np.concatenate(none + [part[name] for part in parts]) for name in names}

    def _check(self, pictures: Tensor) -> None:
        for side in pictures.shape[-2:]:
            check_side(side, self.patch, self.name, "views.<view>.size")

    def _features(self, pictures: Tensor) -> Tensor:
        pixels = normalise(pictures, self.preprocessing, self.device)
        with self.arithmetic():
            return self._vector(self._forward(pixels)).float()

    def _forward(self, pixels: Float[Tensor, "B 3 H W"], **more: Any) -> Any:
        import torch

        if self.architecture == "siglip2":  # which takes pictures of many sizes, cut into patches
            count = len(pixels)
            grid = [side // self.patch for side in pixels.shape[-2:]]
            seen = torch.ones((count, grid[0] * grid[1]), dtype=torch.long, device=self.device)
            return self.model(
                pixel_values=in_patches(pixels, self.patch),
                pixel_attention_mask=seen,
                spatial_shapes=torch.tensor([grid] * count, device=self.device),
                **more,
            )
        if TOWERS[self.architecture].resizes:
            more["interpolate_pos_encoding"] = True
        return self.model(pixel_values=pixels, **more)

    def _vector(self, output: Any) -> Float[Tensor, "B W"]:
        if self.architecture == "clip":
            return output.image_embeds
        return output.last_hidden_state[:, 0] if self.before else output.pooler_output

    def _look(self, pictures: Tensor, toward: Tensor) -> dict[str, np.ndarray]:
        import torch

        last = self._layers()[-1]
        seen: list[torch.Tensor] = []

        def keep(_layer: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
            # The graph begins here: what comes before the last layer needs none.
            seen.append(inputs[0].detach().requires_grad_())
            return seen[0], *inputs[1:]

        hook = last.register_forward_pre_hook(keep)
        try:
            with torch.inference_mode(False), torch.enable_grad(), self._with_attentions():
                pixels = normalise(pictures, self.preprocessing, self.device)
                output = self._forward(pixels, output_attentions=True)
                # A copy: what was made in inference mode cannot be part of a graph.
                direction = toward.to(self.device, torch.float32).clone()
                score = (self._vector(output) * direction).sum()
                (gradient,) = torch.autograd.grad(score, seen[0])
        finally:
            hook.remove()
        tokens = seen[0].detach()[:, self.before :]
        weights = gradient[:, self.before :].mean(dim=1, keepdim=True)
        maps = {"gradcam": (weights * tokens).sum(dim=-1).relu()}
        if self.before:
            maps["rollout"] = rollout(output.attentions)[:, 0, self.before :]
        grid = [side // self.patch for side in pictures.shape[-2:]]
        return {name: _scaled(flat).reshape(-1, *grid) for name, flat in maps.items()}

    def _layers(self) -> Any:
        """The encoder's layers: the only list of modules that is so long."""
        import torch

        count = self.model.config.num_hidden_layers
        lists = (one for one in self.model.modules() if isinstance(one, torch.nn.ModuleList))
        return next(one for one in lists if len(one) == count)

    @contextmanager
    def _with_attentions(self) -> Iterator[None]:
        """The plain form of attention, the only one that tells its weights."""
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation("eager")
        try:
            yield
        finally:
            self.model.set_attn_implementation(usual)


def rollout(attentions: tuple[Float[Tensor, "B heads T T"], ...]) -> Float[Tensor, "B T T"]:
    """How much of each token reaches each token after the last layer: see `Vision.look`."""
    import torch

    flow = torch.eye(attentions[0].shape[-1], device=attentions[0].device)
    identity = flow
    for attention in attentions:
        mixed = attention.detach().float().mean(dim=1) + identity
        flow = mixed / mixed.sum(dim=-1, keepdim=True) @ flow
    return flow


def in_patches(pixels: Float[Tensor, "B C H W"], patch: int) -> Float[Tensor, "B N P"]:
    """A row a patch, from left to right and top to bottom; of each its pixels, channels last."""
    count, channels, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cells = pixels.reshape(count, channels, rows, patch, columns, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(count, rows * columns, -1)


def check_side(side: int, patch: int, network: str, setting: str) -> None:
    """Raises SettingsError where a side is no multiple of the patch, with the nearest that are."""
    if side % patch:
        below = side // patch * patch
        fit = [str(one) for one in (below, below + patch) if one >= 32]  # the least of any view
        raise SettingsError(
            f"{network} sees patches of {patch} pixels, and {setting} = {side} is no multiple of "
            f"that: set it to {' or '.join(fit)}"
        )


def shape_of(weights: Weights) -> tuple[str, dict[str, Any]]:
    """The architecture, a name of `TOWERS`, and what the config says of its part for pictures.

    Raises WeightsError for a folder of another architecture, SettingsError for an untrained
    network of no known shape.
    """
    return tower_of(weights, SHAPES, ALONE, TOWERS, "vision_config")


def tower_of(
    weights: Weights,
    known: Mapping[str, tuple[str, dict[str, Any]]],
    alone: Mapping[str, str],
    towers: Iterable[str],
    part: str,
) -> tuple[str, dict[str, Any]]:
    """As `shape_of`, for either side: the `part` of a config that has parts."""
    name, config = weights.network.lower(), weights.config
    if name in known and (config is None or not weights.trained):
        return known[name]
    if config is None and weights.trained:
        raise WeightsError(
            f"{weights.path} has no config.json, so nothing says what {weights.network} is: put "
            "the folder as transformers saves it into weights.folder"
        )
    if config is None:
        raise SettingsError(
            f"the shape of {weights.network!r} is not known here, so it cannot run untrained: "
            f"choose {SETTING} from {', '.join(known)}, or a folder with its config.json"
        )
    said = str(config.get("model_type", ""))
    architecture = alone.get(said, said)
    if architecture not in towers:
        raise WeightsError(
            f"{weights.path or weights.network} is of the type {said!r}, and none of "
            f"{', '.join(towers)}: see weights.folder and {SETTING}"
        )
    if part not in config and f"{part}_dict" not in config:
        return architecture, dict(config)
    # Older ones say it twice, and the second counts.
    return architecture, {**(config.get(part) or {}), **(config.get(f"{part}_dict") or {})}


def config_for(
    model: Any, weights: Weights, shape: Mapping[str, Any], known: Mapping[str, Any]
) -> PreTrainedConfig:
    """What transformers builds the model of: from the folder, or of a shape that is `known`.

    Raises WeightsError for a folder whose `config.json` does not fit.
    """
    whole = weights.config
    if whole is None or (not weights.trained and weights.network.lower() in known):
        return model.config_class(**shape)
    try:
        with quiet_transformers():
            config = model.config_class.from_pretrained(
                weights.path or weights.network, local_files_only=True
            )
        if whole.get("model_type") == "clip":  # a CLIP projects as it says itself, not its parts
            config.projection_dim = whole.get("projection_dim", 512)
    except Exception as error:  # transformers raises many kinds
        raise WeightsError(
            f"config.json of {weights.path or weights.network} cannot be used: "
            f"{first_line(error)}; see weights.folder and {SETTING}"
        ) from error
    return config


def _scaled(flat: Float[Tensor, "B N"]) -> np.ndarray:
    """Each row divided by its largest number, which is 1 then; rows of zeros stay."""
    most = flat.amax(dim=1, keepdim=True)
    return (flat / most.where(most > 0, most.new_ones(()))).cpu().numpy()
