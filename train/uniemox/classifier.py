"""The classifier of fine-tuning: a linear layer on the class tokens of an encoder."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from timm.data.mixup import Mixup
from timm.layers.drop import drop_path
from torch import Tensor, nn
from torch.nn import functional
from transformers import ViTModel
from transformers.models.vit.modeling_vit import ViTLayer

from cache.errors import CacheError, DataError, FormatError
from cache.files import discard, make_folder, sync, write_atomic, write_json, writing_to
from cache.paths import aside
from train.uniemox.encoder import MEAN, STD, Statistics, open_encoder, save_vit, statistics_in
from train.uniemox.pictures import Pictures
from train.uniemox.settings import Finetune

FORMAT = 1
TOKENS = ("cls_token", "mask_token", "position_embeddings")
ENCODER, LINEAR, ABOUT = "uniemox", "linear.safetensors", "classifier.json"
AGAIN = "run `emocache finetune` again"


class Classifier(nn.Module):
    """Labels of a person in a picture, from the class tokens t of one encoder.

        logits = W [t(scene); t(person)] + b         of `streams`; first W is normal(0, .01), b 0
        L = -sum_c y_c log softmax(logits)_c         mean over the batch

    In training, pictures are mixed in pairs by mixup or cutmix, both streams of a picture with
    those of the same other one, in the same share and the same box. y is the target, of single
    labels as of shares, smoothed by `smoothing` and then mixed likewise. In evaluation mode it is
    the target.

    drop_path: of the last block, rising from 0 in the first; a block is left out, as a whole, of
    that share of the pictures, h = x + keep / (1 - rate) (block(x) - x). timm draws for attention
    and MLP of a block separately.

    statistics: mean and standard deviation of red, green and blue that the encoder is used to.
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(
        self,
        encoder: ViTModel,
        labels: Sequence[str],
        settings: Finetune,
        statistics: Statistics = (MEAN, STD),
    ):
        super().__init__()
        self.settings, self.labels = settings, tuple(labels)
        self.encoder = encoder
        blocks = [part for part in encoder.modules() if isinstance(part, ViTLayer)]
        self.blocks = len(blocks)
        for place, block in enumerate(blocks):
            if rate := settings.drop_path * place / max(self.blocks - 1, 1):
                block.register_forward_hook(partial(_leave_out, rate))
        if settings.frozen:
            encoder.requires_grad_(False)
        width = int(encoder.config.hidden_size)
        self.linear = nn.Linear(len(settings.streams) * width, len(self.labels))
        draws = torch.Generator().manual_seed(settings.seed)
        nn.init.normal_(self.linear.weight, std=0.01, generator=draws)
        nn.init.zeros_(self.linear.bias)
        self.statistics = statistics
        for name, given in zip(("mean", "std"), statistics, strict=True):
            value = torch.tensor([*given], dtype=torch.float32)
            self.register_buffer(name, value[:, None, None], persistent=False)

    @property
    def size(self) -> int:
        """Side of the square that the encoder sees, in pixels."""
        side = self.encoder.config.image_size
        return int(side if isinstance(side, int) else side[0])

    def train(self, mode: bool = True) -> "Classifier":
        """A frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.settings.frozen:
            self.encoder.eval()
        return self

    def forward(self, pictures: Pictures) -> dict[str, Float[Tensor, ""]]:
        """The loss."""
        pixels, target = self._pixels(pictures), self._target(pictures)
        if self.training:
            target = smoothed(target, self.settings.smoothing)
            target = mix(pixels, target, self.settings.mixup, self.settings.cutmix)
        return {"loss": functional.cross_entropy(self.logits(pixels).float(), target)}

    @torch.no_grad()
    def measure(self, pictures: Pictures) -> dict[str, Float[Tensor, ""]]:
        """Sums over the pictures, as they are: of the cross-entropy, and of those whose most likely
        label is that of the target."""
        self.eval()
        target = self._target(pictures)
        logits = self.logits(self._pixels(pictures)).float()
        return {
            "loss": functional.cross_entropy(logits, target, reduction="sum"),
            "accuracy": (logits.argmax(1) == target.argmax(1)).sum().float(),
        }

    @torch.no_grad()
    def predict(self, pictures: Pictures) -> Float[Tensor, "B C"]:
        """Probabilities of the labels, in float32; leaves it in evaluation mode."""
        self.eval()
        return self.logits(self._pixels(pictures)).float().softmax(1)

    def logits(self, pixels: Float[Tensor, "B K3 S S"]) -> Float[Tensor, "B C"]:
        """Of normalised pixels, the channels of each stream after those of the one before. All
        streams go through the encoder as one batch."""
        streams = len(self.settings.streams)
        seen = self.encoder(pixels.unflatten(1, (streams, 3)).flatten(0, 1)).last_hidden_state
        return self.linear(seen[:, 0].unflatten(0, (-1, streams)).flatten(1))

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for AdamW. With L blocks the learning rate of the i-th (from 1) has the scale
        layer_decay ** (L + 1 - i), that of the embeddings as if i were 0, that of the last norm and
        the linear layer 1. Biases, norms and tokens have no weight decay."""
        found: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            level = self.blocks + 1
            if block := re.search(r"\blayers?\.(\d+)\.", name):
                level = int(block[1]) + 1
            elif ".embeddings." in name:
                level = 0
            plain = parameter.ndim < 2 or name.endswith(TOKENS)
            decay = 0.0 if plain else self.settings.weight_decay
            scale = self.settings.layer_decay ** (self.blocks + 1 - level)
            found.setdefault((scale, decay), []).append(parameter)
        return [
            {"params": some, "weight_decay": decay, "scale": scale}
            for (scale, decay), some in found.items()
        ]

    def save(self, folder: Path | str, about: Mapping[str, Any]) -> None:
        """Write it in place of what the folder held, whole or not at all:

        uniemox/              as `train.uniemox.encoder` writes it, a backbone like any other
        linear.safetensors    weight (C, K W), bias (C)
        classifier.json       labels, streams, settings, size, and `about`: plain values, of which
                              "name" says what it is
        """
        folder = Path(folder)
        made = aside(folder)
        with writing_to(folder):
            make_folder(folder.parent)
            shutil.rmtree(made, ignore_errors=True)
            save_vit(self.encoder, made / ENCODER, self.size, self.statistics, about)
            state = self.linear.state_dict()
            data = save_tensors({name: value.cpu().contiguous() for name, value in state.items()})
            write_atomic(made / LINEAR, data)
            info = {
                **about,
                "format": FORMAT,
                "labels": list(self.labels),
                "streams": list(self.settings.streams),
                "size": self.size,
                "settings": self.settings.model_dump(mode="json"),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            write_json(made / ABOUT, info)
            if folder.exists():
                discard(folder)
            os.rename(made, folder)
            sync(folder.parent)

    @classmethod
    def load(
        cls, folder: Path | str, device: torch.device | str = "cpu"
    ) -> tuple["Classifier", dict[str, Any]]:
        """What `save` wrote, in evaluation mode, and what classifier.json says of it.

        Raises CacheError where a file of it is absent or damaged, WeightsError where it is one of
        the encoder.
        """
        folder = Path(folder)
        about, linear = folder / ABOUT, folder / LINEAR
        for path in (about, linear):
            if not path.exists():
                raise CacheError(f"no {path}: {AGAIN}")
        try:
            info = json.loads(about.read_text())
        except ValueError:
            raise CacheError(f"{about} is damaged: {AGAIN}") from None
        if (found := info.get("format")) != FORMAT:
            raise FormatError.of(about, found, FORMAT, AGAIN)
        data = linear.read_bytes()
        if hashlib.sha256(data).hexdigest() != info["sha256"]:
            raise CacheError(f"{linear} is not the file that {about} describes: {AGAIN}")
        settings = Finetune.model_validate(info["settings"])
        encoder = open_encoder(folder / ENCODER)
        model = cls(encoder, info["labels"], settings, statistics_in(folder / ENCODER))
        model.linear.load_state_dict(load_tensors(data))
        return model.to(device).eval(), info

    def _pixels(self, pictures: Pictures) -> Float[Tensor, "B K3 S S"]:
        streams = [getattr(pictures, name) for name in self.settings.streams]
        return torch.cat([(one / 255 - self.mean) / self.std for one in streams], 1)

    def _target(self, pictures: Pictures) -> Float[Tensor, "B C"]:
        if pictures.target is None:
            raise DataError(
                "these pictures have no labels to fit a classifier on: set data.name to one "
                "that has, and run `emocache prepare`"
            )
        return pictures.target


def smoothed(target: Float[Tensor, "B C"], smoothing: float) -> Float[Tensor, "B C"]:
    """This share of each target goes to all labels alike."""
    return target * (1 - smoothing) + smoothing / target.shape[1]


def mix(
    pixels: Float[Tensor, "B K S S"], target: Float[Tensor, "B C"], mixup: float, cutmix: float
) -> Float[Tensor, "B C"]:
    """Mix the pictures in place, the first with the last and so on, by mixup (Zhang et al. 2018)
    with that alpha, by cutmix (Yun et al. 2019) or by either at random where both are above 0;
    gives their targets. One share and one box for a batch, of NumPy's random numbers; the last of
    an odd batch stays what it is.
    """
    even = len(pixels) // 2 * 2
    if not even or not (mixup or cutmix):
        return target
    mixing = Mixup(mixup, cutmix, label_smoothing=0.0, num_classes=even)
    # timm mixes labels that are numbers; of places as labels it tells the share of each picture.
    _, shares = mixing(pixels[:even], torch.arange(even, device=pixels.device))
    own = shares.diagonal()[:, None].to(target.dtype)
    some = target[:even]
    return torch.cat([own * some + (1 - own) * some.flip(0), target[even:]])


def _leave_out(
    rate: float, block: nn.Module, given: tuple[Any, ...], output: Float[Tensor, "B N W"]
) -> Float[Tensor, "B N W"]:
    """A forward hook: stochastic depth (Huang et al. 2016)."""
    return given[0] + drop_path(output - given[0], rate, block.training)
