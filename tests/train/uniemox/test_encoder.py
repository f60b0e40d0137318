"""The encoder's folder, as transformers and timm read it, and folders opened."""

import json
import logging
import os
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoImageProcessor, AutoModel, ViTMAEModel, ViTModel

from cache.errors import WeightsError
from tests.train.uniemox.small import PATCH, SIZE, N, nano, pictures, student
from train.uniemox.encoder import MEAN, STD, open_encoder, open_start, save_encoder, statistics_in
from train.uniemox.student import Student

__all__ = ["nano"]
pytestmark = pytest.mark.usefixtures("nano")

ABOUT = {"name": "UniEmoX, tiny, a test", "epochs": 2, "data": {"b": [1, 2.5], "a": "ä"}}
FILES = ["config.json", "emocache.json", "model.safetensors", "preprocessor_config.json"]


@pytest.fixture
def learned() -> Student:
    """One whose biases and norms are not those it begins with."""
    model = student()
    for one in model.parameters():
        if one.requires_grad:
            torch.nn.init.normal_(one, std=0.2)
    return model


@pytest.fixture
def folder(learned, tmp_path) -> Path:
    save_encoder(learned, tmp_path / "uniemox", ABOUT)
    return tmp_path / "uniemox"


def squares() -> torch.Tensor:
    mean, std = (torch.tensor(some)[:, None, None] for some in (MEAN, STD))
    return (pictures(4).scene / 255 - mean) / std


def unmasked(model: Student, noise: torch.Tensor) -> torch.Tensor:
    """The masked autoencoder's own encoder on all patches, in the order of noise."""
    encoder = ViTMAEModel(model.mae.config)
    encoder.config.mask_ratio = 0.0
    encoder.load_state_dict(model.mae.vit.state_dict())
    with torch.no_grad():
        return encoder(squares(), noise=noise).last_hidden_state[:, 0]


def as_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names that timm has for the tensors of transformers' ViTModel."""
    found = {}
    for name, value in state.items():
        if "q_proj" in name:
            value = torch.cat([state[name.replace("q_proj", f"{x}_proj")] for x in "qkv"])
        elif "k_proj" in name or "v_proj" in name:
            continue
        for old, new in {
            "embeddings.cls_token": "cls_token",
            "embeddings.position_embeddings": "pos_embed",
            "embeddings.patch_embeddings.projection": "patch_embed.proj",
            "layers.": "blocks.",
            "attention.q_proj": "attn.qkv",
            "attention.o_proj": "attn.proj",
            "layernorm_before": "norm1",
            "layernorm_after": "norm2",
            "layernorm.": "norm.",
        }.items():
            name = name.replace(old, new)
        found[name] = value
    return found


def test_transformers_reads_it_and_its_class_token_is_the_autoencoders_with_nothing_masked(
    learned, folder
):
    model, report = ViTModel.from_pretrained(
        folder, add_pooling_layer=False, local_files_only=True, output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with torch.no_grad():
        tokens = model(squares()).last_hidden_state[:, 0]
    assert tokens.std(0).min() > 1e-3
    for seed in (0, 1):  # in any order
        noise = torch.rand((4, N), generator=torch.Generator().manual_seed(seed))
        assert torch.allclose(tokens, unmasked(learned, noise), atol=1e-5)


def test_timm_says_the_same_of_the_same_weights(folder):
    model = open_encoder(folder)
    other = timm.models.VisionTransformer(
        img_size=SIZE,
        patch_size=PATCH,
        embed_dim=32,
        depth=2,
        num_heads=2,
        num_classes=0,
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-12),
    )
    other.load_state_dict(as_timm(model.state_dict()))
    with torch.no_grad():
        expected = other.eval().forward_features(squares())
        assert torch.allclose(model(squares()).last_hidden_state, expected, atol=1e-4)


def test_any_program_finds_out_what_it_is_and_what_it_sees(folder):
    assert sorted(os.listdir(folder)) == FILES
    config = AutoConfig.from_pretrained(folder)
    assert (config.model_type, config.architectures) == ("vit", ["ViTModel"])
    assert (config.image_size, config.patch_size) == (SIZE, PATCH)
    assert isinstance(AutoModel.from_pretrained(folder), ViTModel)
    processor = AutoImageProcessor.from_pretrained(folder)
    scene = pictures(4).scene
    seen = processor(images=list(scene), return_tensors="pt")["pixel_values"]
    assert torch.allclose(seen, squares(), atol=1e-5)
    large = torch.zeros(3, 50, 70, dtype=torch.uint8)
    assert processor(images=large, return_tensors="pt")["pixel_values"].shape == (1, 3, SIZE, SIZE)
    about = (folder / "emocache.json").read_text()
    assert json.loads(about) == ABOUT
    assert list(json.loads(about)) == sorted(ABOUT)


def test_its_tensors_have_the_names_that_every_version_of_transformers_reads(folder):
    names = load_file(folder / "model.safetensors")
    assert "encoder.layer.1.attention.attention.query.weight" in names


def test_the_same_student_gives_the_same_bytes_with_the_rights_of_other_files(
    learned, folder, tmp_path
):
    save_encoder(learned, tmp_path / "again", dict(reversed(ABOUT.items())))
    (tmp_path / "plain").touch()
    for name in FILES:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (folder / name).stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_it_takes_the_place_of_what_was_there_whole_or_not_at_all(
    learned, folder, tmp_path, monkeypatch
):
    (folder / "left over").touch()
    before = (folder / "model.safetensors").read_bytes()
    torch.nn.init.ones_(learned.mae.vit.layernorm.weight)
    with monkeypatch.context() as broken:
        broken.setattr(
            "train.uniemox.encoder._preprocessing", lambda size, statistics: {"size": float("nan")}
        )
        with pytest.raises(ValueError, match="Out of range"):
            save_encoder(learned, folder, ABOUT)
    assert (folder / "model.safetensors").read_bytes() == before
    save_encoder(learned, folder, ABOUT)
    assert sorted(os.listdir(folder)) == FILES
    assert (folder / "model.safetensors").read_bytes() != before
    assert os.listdir(tmp_path) == ["uniemox"]


def test_an_encoder_without_a_name_is_not_written(learned, tmp_path):
    with pytest.raises(ValueError, match="about has no name"):
        save_encoder(learned, tmp_path / "uniemox", {})
    assert not (tmp_path / "uniemox").exists()


def test_transformers_says_nothing_of_its_own(learned, folder, tmp_path, capfd, monkeypatch):
    learned.mae.save_pretrained(tmp_path / "mae")
    logger, said = logging.getLogger("transformers"), []
    monkeypatch.setattr(logger, "handlers", [Keep(said)])
    monkeypatch.setattr(logger, "level", logging.INFO)
    capfd.readouterr()
    save_encoder(learned, folder, ABOUT)
    open_encoder(folder)
    open_encoder(tmp_path / "mae")  # of which it has much to say
    assert not said
    assert capfd.readouterr() == ("", "")
    assert logger.level == logging.INFO


class Keep(logging.Handler):
    """Keeps what is logged."""

    def __init__(self, said: list[str]):
        super().__init__()
        self.said = said

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


# -------------------------------------------------------------------------- opened


def test_the_encoder_within_a_masked_autoencoder_sees_whole_pictures(learned, tmp_path):
    learned.mae.save_pretrained(tmp_path / "mae")
    learned.mae.vit.save_pretrained(tmp_path / "alone")
    expected = unmasked(learned, torch.rand(4, N))
    for name in ("mae", "alone"):
        model = open_encoder(tmp_path / name)
        assert isinstance(model, ViTModel)
        with torch.no_grad():
            tokens = model(squares()).last_hidden_state[:, 0]
        assert torch.allclose(tokens, expected, atol=1e-5)
        assert all(one.dtype == torch.float32 for one in model.parameters())
    assert open_start(tmp_path / "mae").decoder is not None
    assert open_start(tmp_path / "alone").decoder is None


def test_a_half_precision_folder_is_opened_in_float32(learned, tmp_path):
    learned.mae.half().save_pretrained(tmp_path / "half")
    assert {one.dtype for one in open_encoder(tmp_path / "half").parameters()} == {torch.float32}


def test_the_pixels_it_is_used_to_are_those_its_folder_says(folder, tmp_path):
    assert statistics_in(folder) == (list(MEAN), list(STD))
    assert statistics_in(tmp_path) == (list(MEAN), list(STD))
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.5, 0.4, 0.3]}')
    assert statistics_in(tmp_path) == ([0.5, 0.4, 0.3], list(STD))


def refused(folder: Path) -> str:
    with pytest.raises(WeightsError) as error:
        open_encoder(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_a_folder_that_cannot_be_opened_says_why(folder, tmp_path):
    assert "has no config.json" in refused(tmp_path)
    config, weights = folder / "config.json", folder / "model.safetensors"
    good = config.read_text()
    config.write_text(good.replace('"vit"', '"bert"'))
    assert "a network of type 'bert', not vit or vit_mae" in refused(folder)
    config.write_text("{")
    assert "is damaged" in refused(folder)
    config.write_text("[]")
    assert "is damaged" in refused(folder)
    config.write_text(good.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    assert "lacks 16 tensors" in refused(folder)
    config.write_text(good.replace('"hidden_size": 32', '"hidden_size": 64'))
    assert "does not hold a network" in refused(folder)
    config.write_text(good)
    weights.write_bytes(weights.read_bytes()[:-100])
    assert "does not hold a network" in refused(folder)
    weights.unlink()
    assert "does not hold a network" in refused(folder)
