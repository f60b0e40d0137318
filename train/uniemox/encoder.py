"""The student's encoder as a folder that transformers reads, and such folders opened."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from transformers import (
    PreTrainedConfig,
    ViTConfig,
    ViTMAEForPreTraining,
    ViTModel,
)
from transformers.utils import logging as transformers_logging

from cache.errors import WeightsError, first_line
from cache.files import discard, make_folder, sync, write_atomic, writing_to
from cache.paths import aside
from train.uniemox.settings import Pretrain

# Of red, green and blue in ImageNet, by which pixels between 0 and 1 are shifted and scaled.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Statistics = tuple[Sequence[float], Sequence[float]]
ABOUT = "emocache.json"
BILINEAR = 2  # as Pillow counts
TYPES = ("vit", "vit_mae")
# What two encoders must share for the tensors of one to mean the same in the other.
SHAPE = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "patch_size",
    "num_channels",
    "qkv_bias",
)


@runtime_checkable
class HasEncoder(Protocol):
    """A `train.uniemox.student.Student`."""

    mae: ViTMAEForPreTraining
    settings: Pretrain


def save_encoder(student: HasEncoder, folder: Path | str, about: Mapping[str, Any]) -> None:
    """Write the encoder, which sees whole pictures, in place of what the folder held:

    config.json, model.safetensors    `transformers.ViTModel.from_pretrained(folder)` reads them
    preprocessor_config.json          size, mean and deviation of what it sees
    emocache.json                     `about`: plain values, of which "name" says what it is

    Same weights and `about`, same bytes (with one version of transformers). It is there whole or
    not at all: it is made beside its place.
    """
    if not about.get("name"):
        raise ValueError("about has no name: a sentence that says what this encoder is")
    folder = Path(folder)
    made = aside(folder)
    with writing_to(folder):
        make_folder(folder.parent)
        shutil.rmtree(made, ignore_errors=True)
        save_vit(_as_vit(student), made, student.settings.size, (MEAN, STD), about)
        if folder.exists():
            discard(folder)
        os.rename(made, folder)
        sync(folder.parent)


def save_vit(
    model: ViTModel, folder: Path, size: int, statistics: Statistics, about: Mapping[str, Any]
) -> None:
    """The files of `save_encoder` into a folder that is being made. size: of what it sees, in
    pixels; statistics: mean and standard deviation of red, green and blue, between 0 and 1."""
    _write(model, folder)
    _write_json(folder / "preprocessor_config.json", _preprocessing(size, statistics))
    _write_json(folder / ABOUT, about)


def open_encoder(folder: Path | str) -> ViTModel:
    """The encoder of a folder as transformers saves it, in float32: of model type vit, or the one
    within vit_mae, which then sees whole pictures. Its positions learn, too.

    Nothing is fetched. Raises WeightsError naming the folder and what is wrong with it.
    """
    _type(folder)
    return _read(ViTModel, folder, add_pooling_layer=False)


class Start(NamedTuple):
    """What pre-training can go on from: the encoder and, of a masked autoencoder, the decoder."""

    encoder: Any
    decoder: Any | None


def open_start(folder: Path | str) -> Start:
    """What a folder as transformers saves it holds. Raises as `open_encoder`."""
    if _type(folder) != "vit_mae":
        return Start(open_encoder(folder), None)
    try:
        both = _read(ViTMAEForPreTraining, folder)
    except _Lacks as error:
        if not all(name.startswith("decoder.") for name in error.names):
            raise
        return Start(open_encoder(folder), None)  # which was saved alone
    return Start(both.vit, both.decoder)


def statistics_in(folder: Path | str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of red, green and blue that the pixels, between 0 and 1, of an
    encoder are shifted and scaled by; ImageNet's where its folder does not say."""
    path = Path(folder) / "preprocessor_config.json"
    known = _json(path) if path.exists() else {}
    return list(known.get("image_mean", MEAN)), list(known.get("image_std", STD))


def shape_of(config: PreTrainedConfig) -> dict[str, Any]:
    """The part of it that SHAPE names."""
    return {name: getattr(config, name) for name in SHAPE}


class _Lacks(WeightsError):
    """names: the tensors that a folder lacks."""

    def __init__(self, said: str, names: list[str]):
        super().__init__(said)
        self.names = names


def _as_vit(student: HasEncoder) -> ViTModel:
    """The encoder without its masking; the tensors of both have the same names."""
    config = student.mae.config
    more = {name: getattr(config, name) for name in ("image_size", "layer_norm_eps")}
    model = ViTModel(ViTConfig(**shape_of(config), **more), add_pooling_layer=False)
    model.load_state_dict(student.mae.vit.state_dict())
    return model


def _write(model: ViTModel, folder: Path) -> None:
    """By transformers, which gives tensors the names that all of its versions read; then again by
    us: on the disk for sure, and with the rights of any other file."""
    with _quiet():
        model.save_pretrained(folder)
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        path.unlink()
        write_atomic(path, data)


def _preprocessing(size: int, statistics: Statistics) -> dict[str, Any]:
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size},
        "resample": BILINEAR,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(statistics[0]),
        "image_std": list(statistics[1]),
    }


def _write_json(path: Path, record: Mapping[str, Any]) -> None:
    text = json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode())


def _type(folder: Path | str) -> str:
    """The model type of a folder; WeightsError where it is none that is read here."""
    path = Path(folder) / "config.json"
    if not path.exists():
        raise WeightsError(
            f"{folder} has no config.json: give a folder as transformers saves it; see "
            "weights.folder, pretrain.start and finetune.encoder"
        )
    kind = _json(path).get("model_type")
    if kind not in TYPES:
        raise WeightsError(
            f"{folder} holds a network of type {kind!r}, not {' or '.join(TYPES)}: choose another "
            "pretrain.start or finetune.encoder"
        )
    return str(kind)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise WeightsError(f"{path} is damaged: {first_line(error)}; copy it anew") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} is damaged: it should hold names and values; copy it anew")
    return found


def _read(model: Any, folder: Path | str, **more: Any) -> Any:
    """A network, every tensor of which the folder has: transformers fills the others at random."""
    try:
        with _quiet():
            network, report = model.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                **more,
            )
    except Exception as error:  # a damaged file raises anything
        raise WeightsError(
            f"{folder} does not hold a network as transformers saves it: {first_line(error)}; see "
            "weights.folder, pretrain.start and finetune.encoder"
        ) from error
    if missing := sorted(report["missing_keys"]):
        raise _Lacks(
            f"{folder} lacks {len(missing)} tensors of the network that its config.json describes "
            f"{missing[:3]}; see weights.folder, pretrain.start and finetune.encoder",
            missing,
        )
    return network


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and reports of transformers; what is missing we say ourselves."""
    logs = transformers_logging
    bars, level = logs.is_progress_bar_enabled(), logs.get_verbosity()
    logs.disable_progress_bar()
    logs.set_verbosity_error()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if bars:
            logs.enable_progress_bar()
