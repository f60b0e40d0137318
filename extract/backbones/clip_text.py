"""The text side of CLIP and SigLIP: sentences into the space that they share with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from extract.backbones import backbone
from extract.backbones.text import HashedWords, token_counts, tokenizer_in
from extract.backbones.vision import SETTING, config_for, tower_of
from extract.loading import load_transformer, quiet_transformers
from extract.networks import Network
from extract.weights import Weights
from extract.weights.untrained import seeded

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Classes of transformers, and how many tokens they take where a config does not say.
TOWERS = {
    "clip": ("CLIPTextModelWithProjection", 77),
    "siglip": ("SiglipTextModel", 64),
    "siglip2": ("Siglip2TextModel", 64),
}
# What configs call a tower that was saved without its pictures.
ALONE = {
    "clip_text_model": "clip",
    "siglip_text_model": "siglip",
    "siglip2_text_model": "siglip2",
}
# The published shapes, so that an untrained network can be built without a hub.
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "openai/clip-vit-base-patch32": ("clip", {}),
    "openai/clip-vit-base-patch16": ("clip", {}),
    "openai/clip-vit-large-patch14": (
        "clip",
        {
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "projection_dim": 768,
        },
    ),
    "google/siglip-base-patch16-224": ("siglip", {}),
}
FAMILIES = ("*/clip-*", "*/metaclip-*", "*/siglip*")


@backbone(*SHAPES, *FAMILIES)
class ClipText(Network):
    """List of B sentences -> float32 (B,W), beside the vectors of pictures of the same network.

    CLIP: the last token, projected; SigLIP: the last of always equally many tokens, in lower case,
    as both were trained. A longer sentence is cut. `pooling` is ignored: such a network has one
    way.
    """

    kind = "text"

    @classmethod
    def takes(cls, config: Mapping[str, Any]) -> bool:
        return config.get("model_type") in {*TOWERS, *ALONE}

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        architecture, shape = shape_of(weights)
        longest = shape.get("max_position_embeddings", TOWERS[architecture][1])
        if architecture == "clip":
            rule = {"longest": longest, "features": "last token, projected beside the pictures"}
        else:
            rule = {"longest": longest, "features": "last token of all", "letters": "lower case"}
        return rule | ({} if weights.trained else {"tokens": "hashed words"})

    def __init__(self, weights: Weights, device: str = "cpu"):
        import transformers

        super().__init__(weights, device)
        self.architecture, shape = shape_of(weights)
        built = getattr(transformers, TOWERS[self.architecture][0])
        config = config_for(built, weights, shape, SHAPES)
        if weights.trained:
            model = load_transformer(built, weights, (), SETTING, config=config)
            self.tokenizer = tokenizer_in(weights.path)
        else:
            with seeded(), quiet_transformers():
                model = built(config)
            self.tokenizer = HashedWords(config.vocab_size)
        self.tokenizer.padding_side = "right"  # as in their training, whatever a tokenizer says
        clip = self.architecture == "clip"
        self.width = int(config.projection_dim if clip else config.projection_size)
        self.longest = min(self.tokenizer.model_max_length, config.max_position_embeddings)
        self.model = model.eval().requires_grad_(False).to(self.device)

    def __call__(self, sentences: list[str], pooling: str = "mean") -> Float[Tensor, "B W"]:
        import torch

        parts = self.batched(self._spelt(sentences), self._features)
        return torch.cat(parts) if parts else torch.zeros((0, self.width), device=self.device)

    def lengths(self, sentences: list[str]) -> list[int]:
        """How many tokens each sentence has, before it is cut; those of begin and end are
        counted."""
        return token_counts(self.tokenizer, self._spelt(sentences))

    def _spelt(self, sentences: list[str]) -> list[str]:
        """As the network has read them in training; some tokenizers of SigLIP leave it to us."""
        return list(sentences) if self.architecture == "clip" else [s.lower() for s in sentences]

    def _features(self, sentences: list[str]) -> Tensor:
        import torch

        tokens = self.tokenizer(
            sentences,
            padding=True if self.architecture == "clip" else "max_length",
            truncation=True,
            max_length=self.longest,
            return_attention_mask=True,
            return_tensors="pt",
        )
        tokens = {name: value.to(self.device) for name, value in tokens.items()}
        if self.architecture != "clip":  # it was trained to attend to the padding too
            with self.arithmetic():
                return self.model(input_ids=tokens["input_ids"]).pooler_output.float()
        mask = tokens["attention_mask"]
        # The end of a sentence is found by the mask: some configs name another token than the
        # tokenizer's, and then transformers looks for the largest number.
        places = torch.arange(mask.shape[1], device=self.device)
        last = (mask * places).argmax(dim=1)
        with self.arithmetic():
            hidden = self.model(
                input_ids=tokens["input_ids"], attention_mask=mask
            ).last_hidden_state
            ends = hidden[torch.arange(len(hidden), device=self.device), last]
            return self.model.text_projection(ends).float()


def shape_of(weights: Weights) -> tuple[str, dict[str, Any]]:
    """The architecture, a name of `TOWERS`, and what the config says of its part for texts: see
    `extract.backbones.vision.shape_of`."""
    return tower_of(weights, SHAPES, ALONE, TOWERS, "text_config")
