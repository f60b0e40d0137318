"""Tiny vision transformers and CLIPs, saved as transformers saves them."""

import json
from pathlib import Path

import torch
import transformers

SIDE, PATCH = 32, 8
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
SQUARE = {"image_size": SIDE, "patch_size": PATCH}
DINO = {name: value for name, value in (TINY | SQUARE).items() if name != "intermediate_size"}
NAFLEX = TINY | {"patch_size": PATCH, "num_patches": (SIDE // PATCH) ** 2}
# The number of the token that ends a sentence is the largest, as in the published vocabularies.
END = 55
TEXT = TINY | {
    "vocab_size": END + 1,
    "max_position_embeddings": 12,
    "bos_token_id": END - 1,
    "eos_token_id": END,
    "pad_token_id": END,
}
# Two sides that project to one width, which neither of them says itself.
CLIP = {"vision_config": TINY | SQUARE, "text_config": TEXT, "projection_dim": 24}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "mask_ratio": 0.0,
}
# By architecture: the class that is saved, and its config.
MODELS = {
    "clip": ("CLIPModel", "CLIPConfig", CLIP),
    "siglip": ("SiglipModel", "SiglipConfig", CLIP),
    "siglip2": ("Siglip2Model", "Siglip2Config", CLIP | {"vision_config": NAFLEX}),
    "vit": ("ViTModel", "ViTConfig", TINY | SQUARE),
    "vit_mae": ("ViTMAEForPreTraining", "ViTMAEConfig", TINY | SQUARE | DECODER),
    "dinov2": ("Dinov2Model", "Dinov2Config", DINO),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", "Dinov2WithRegistersConfig", DINO),
    "dinov3_vit": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        TINY | SQUARE | {"num_register_tokens": 4},
    ),
}


def model_of(architecture: str) -> torch.nn.Module:
    """A tiny model with random weights, larger than those that training begins with: else all
    pictures would look alike to it."""
    model, config, shape = MODELS[architecture]
    return stirred(getattr(transformers, model)(getattr(transformers, config)(**shape)))


def stirred(model: torch.nn.Module, seed: int = 4) -> torch.nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "pos_embed" not in name or weight.requires_grad:
                weight.normal_(1.0 if "norm" in name and "weight" in name else 0.0, 0.25)
    return model.eval()


def saved_to(folder: Path, model: torch.nn.Module, **pixels) -> Path:
    """The model in a folder; `pixels`: what its preprocessor_config.json says."""
    model.save_pretrained(folder)
    if pixels:
        (folder / "preprocessor_config.json").write_text(json.dumps(pixels))
    return folder
