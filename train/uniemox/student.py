"""UniEmoX's student: a masked autoencoder over two streams that learns from frozen teachers."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from cache.errors import SettingsError
from train.uniemox.encoder import MEAN, STD, open_start, shape_of, statistics_in
from train.uniemox.fusion import FUSIONS
from train.uniemox.losses import (
    image_loss,
    normalised,
    pixel_errors,
    pixel_loss,
    similarity_loss,
    spread,
)
from train.uniemox.pictures import Pictures
from train.uniemox.settings import Pretrain, Stream

# Of the encoders: width, layers, heads.
SIZES = {
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
}
STREAMS: tuple[Stream, ...] = ("scene", "person")
TAUGHT = {"similarity", "image"}  # those that need teachers
DECODER = (  # what two decoders must share, as `encoder.SHAPE`
    "decoder_hidden_size",
    "decoder_num_hidden_layers",
    "decoder_num_attention_heads",
    "decoder_intermediate_size",
)
Shown = dict[str, UInt8[Tensor, "B 3 S S"]]


class Seen(NamedTuple):
    """What the encoder made of the visible patches of B pictures.

    M = streams x B rows, stream after stream. tokens: the class token first, then the K visible
    patches by rising noise; hidden: 1 for the patches that it did not see, row by row; order: the
    place of each patch in the order of noise.
    """

    pixels: Float[Tensor, "M 3 S S"]
    tokens: Float[Tensor, "M 1+K W"]
    hidden: Float[Tensor, "M N"]
    order: Int[Tensor, "M N"]


class Student(nn.Module):
    """The masked autoencoder of He et al. (2022), of transformers, with both streams through one
    encoder, and a vector Y of both that is drawn to the teachers' width D.

        alpha, beta = P class token of the scene, of the person       P: one linear layer for both
        Y = fusion(alpha, beta)                                       see `train.uniemox.fusion`
        L = w1 L1 + w2 L2 + w3 L3                                     see `train.uniemox.losses`

    A loss is active unless `without` names it or its weight is 0, and what only an inactive one
    needs is not built: the decoder for L1, P and the fusion for L2 and L3. Without the person there
    is one stream, and Y = alpha.

    mean_picture: what `learn_mean` found, in the space of L1.
    """

    mean_picture: Float[Tensor, "2 3 S S"]
    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self, settings: Pretrain, width: int | None = None):
        super().__init__()
        self.settings = settings
        own = settings.weights
        every = {"pixels": own.pixels, "similarity": own.similarity, "image": own.image}
        self.weights = {n: w for n, w in every.items() if w > 0 and n not in settings.without}
        self.active = tuple(self.weights)
        self.streams = tuple(name for name in STREAMS if name not in settings.without)
        self.mae = ViTMAEForPreTraining(config_of(settings))
        begin(self.mae)
        if "pixels" not in self.active:
            del self.mae.decoder
        self.project: nn.Linear | None = None
        self.fuse: nn.Module | None = None
        if TAUGHT & set(self.active):
            if width is None:
                raise SettingsError(
                    f"pretrain descends {' and '.join(sorted(TAUGHT & set(self.active)))} without "
                    "a teacher: set views.teacher_image.network (and views.teacher_text.network), "
                    "or pretrain.without to [similarity, image]"
                )
            self.project = nn.Linear(self.mae.config.hidden_size, width)
            if len(self.streams) > 1:
                self.fuse = FUSIONS[settings.fusion](width, settings.terms)
        side = settings.size
        self.register_buffer("mean_picture", torch.zeros(len(STREAMS), 3, side, side))
        for name, value in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    @classmethod
    def setup(cls, settings: Pretrain, width: int | None) -> "Student":
        """One with its first weights, of torch's random numbers. width: D of the teachers, None
        without. Raises SettingsError where a loss needs them."""
        return cls(settings, width)

    def forward(self, pictures: Pictures) -> dict[str, Float[Tensor, ""]]:
        """Means over the pictures: of "pixels", "similarity" and "image" those that are active, and
        "loss", which is their weighted sum."""
        return self._losses(self.see(pictures), pictures)

    @torch.no_grad()
    def measure(self, pictures: Pictures) -> dict[str, Float[Tensor, ""]]:
        """What `forward` says times the number of pictures, and with pixels the same for two
        guesses that know nothing of what is hidden:

        mean_pixels: for each patch, the mean of all training pictures there (`learn_mean`);
        visible_pixels: for every patch, the mean colour of the picture's visible ones.

        Means are taken in the space of L1, so that with `normalise` they are means of normalised
        patches. Similarity is within the batch; one with fewer than two texts adds 0.
        """
        guesses = ("mean_pixels", "visible_pixels") if "pixels" in self.active else ()
        if not len(pictures):
            return {
                name: self.mean_picture.new_zeros(()) for name in ("loss", *self.active, *guesses)
            }
        seen = self.see(pictures)
        means = self._losses(seen, pictures)
        if guesses:
            target = self.target(seen)
            for name, guess in zip(guesses, self._guesses(target, seen.hidden), strict=True):
                means[name] = pixel_loss(guess, target, seen.hidden)
        return {name: value * len(pictures) for name, value in means.items()}

    @torch.no_grad()
    def errors(self, pictures: Pictures) -> dict[str, Float[Tensor, " B"]]:
        """Picture by picture, pixels, mean_pixels and visible_pixels of `measure`. Empty without a
        decoder."""
        if "pixels" not in self.active:
            return {}
        seen = self.see(pictures)
        target = self.target(seen)
        mean, visible = self._guesses(target, seen.hidden)
        guesses = {"pixels": self.predict(seen), "mean_pixels": mean, "visible_pixels": visible}
        return {
            name: pixel_errors(guess, target, seen.hidden)
            .unflatten(0, (len(self.streams), -1))
            .mean(0)
            for name, guess in guesses.items()
        }

    def groups(self) -> list[dict[str, Any]]:
        """Parameters for AdamW: weight decay for the matrices of linear layers and of the patches,
        none for biases, norms, tokens and the vectors of a fusion."""
        layers = (part for part in self.modules() if isinstance(part, nn.Linear | nn.Conv2d))
        matrices = {id(layer.weight) for layer in layers}
        learned = [one for one in self.parameters() if one.requires_grad]
        decay = {True: self.settings.weight_decay, False: 0.0}
        return [
            {
                "params": [one for one in learned if (id(one) in matrices) is matrix],
                "weight_decay": decay[matrix],
            }
            for matrix in decay
        ]

    @torch.no_grad()
    def load_start(self, folder: Path | str) -> bool:
        """Go on from the encoder of a folder as transformers saves it, of model type vit_mae or
        vit, and from its decoder where that has the same shape; whether it was taken.

        The positions of a picture of another size are computed anew. Raises WeightsError where the
        folder is damaged, SettingsError where it holds another encoder than `pretrain.encoder` and
        `pretrain.patch` name, or one that is used to other pixels.
        """
        start = open_start(folder)
        self._refuse_other(folder, start.encoder)
        _take(self.mae.vit, start.encoder, "embeddings.position_embeddings")
        if start.decoder is None or "pixels" not in self.active:
            return False
        ours, theirs = self.mae.config, start.encoder.config
        if any(getattr(ours, name) != getattr(theirs, name) for name in DECODER):
            return False
        _take(self.mae.decoder, start.decoder, "decoder_pos_embed")
        return True

    @torch.no_grad()
    def learn_mean(self, batches: Iterable[Pictures]) -> None:
        """Take the mean over these pictures, those of train, for `mean_pixels`."""
        total, count = torch.zeros(self.mean_picture.shape, dtype=torch.float64), 0
        for pictures in batches:
            if not len(pictures):
                continue
            patches = self._patches(self._pixels(pictures.to(self.mean_picture.device)))
            squares = self.mae.unpatchify(patches).unflatten(0, (len(self.streams), -1))
            total[: len(self.streams)] += squares.sum(1).cpu()
            count += len(pictures)
        self.mean_picture.copy_(total / max(count, 1))

    @torch.no_grad()
    def reconstruct(self, pictures: Pictures) -> dict[Stream, Shown]:
        """By stream "original", "masked" (what is hidden is grey) and, where there is a decoder,
        "reconstructed": what it says of the hidden patches, among the visible ones.

        With `normalise` the decoder says only how a patch differs from its own mean and by how many
        of its own deviations; both are lent from the true patch, as is usual for such pictures.
        """
        seen = self.see(pictures)
        patches = self.mae.patchify(seen.pixels)
        hidden = self.mae.unpatchify(seen.hidden[..., None].expand_as(patches)) > 0
        original = torch.cat([getattr(pictures, name) for name in self.streams])
        grey = self._shown(torch.zeros_like(seen.pixels))
        found = {"original": original, "masked": torch.where(hidden, grey, original)}
        if "pixels" in self.active:
            said = self.predict(seen).float()
            if self.settings.normalise:
                mean, deviation = spread(patches)
                said = said * deviation + mean
            shown = self._shown(self.mae.unpatchify(said))
            found["reconstructed"] = torch.where(hidden, shown, original)
        halves = {name: value.chunk(len(self.streams)) for name, value in found.items()}
        return {
            stream: {name: value[at] for name, value in halves.items()}
            for at, stream in enumerate(self.streams)
        }

    def see(self, pictures: Pictures) -> Seen:
        """The encoder on the visible patches of all streams, in one pass."""
        pixels = self._pixels(pictures)
        noise = pictures.noise[:, : len(self.streams)].transpose(0, 1).flatten(0, 1)
        output = self.mae.vit(pixels, noise=noise)
        return Seen(pixels, output.last_hidden_state, output.mask, output.ids_restore)

    def predict(self, seen: Seen) -> Float[Tensor, "M N P"]:
        """The decoder: patches row by row, the numbers of a patch by row, column and channel."""
        return self.mae.decoder(seen.tokens, seen.order).logits

    def target(self, seen: Seen) -> Float[Tensor, "M N P"]:
        """What `predict` should say."""
        return self._patches(seen.pixels)

    def fused(self, seen: Seen) -> Float[Tensor, "B D"]:
        """Y, in float32."""
        alpha, *beta = self.projected(seen)
        if self.fuse is None:
            return alpha
        with torch.autocast(alpha.device.type, enabled=False):
            return self.fuse(alpha, *beta)

    def projected(self, seen: Seen) -> Float[Tensor, "streams B D"]:
        """alpha and beta, in float32."""
        assert self.project is not None
        tokens = seen.tokens[:, 0].float()
        with torch.autocast(tokens.device.type, enabled=False):
            return self.project(tokens).unflatten(0, (len(self.streams), -1))

    def _losses(self, seen: Seen, pictures: Pictures) -> dict[str, Tensor]:
        found = {}
        if "pixels" in self.active:
            found["pixels"] = pixel_loss(self.predict(seen), self.target(seen), seen.hidden)
        if self.project is not None:
            fused = self.fused(seen)
            image = _given(pictures.image, "image")
            if "similarity" in self.active:
                text, described = _given(pictures.text, "text"), pictures.described
                assert described is not None
                found["similarity"] = similarity_loss(fused, image, text, described)
            if "image" in self.active:
                found["image"] = image_loss(fused, image)
        terms = [self.weights[name] * value for name, value in found.items()]
        return {"loss": torch.stack(terms).sum(), **found}

    def _guesses(
        self, target: Float[Tensor, "M N P"], hidden: Float[Tensor, "M N"]
    ) -> tuple[Float[Tensor, "M N P"], Float[Tensor, "M N P"]]:
        """Of the mean picture, and of the mean colour of the visible patches."""
        mean = self.mae.patchify(self.mean_picture[: len(self.streams)])
        visible = (1 - hidden)[..., None]
        patch = (target * visible).sum(1, keepdim=True) / visible.sum(1, keepdim=True)
        pixels = patch.unflatten(-1, (-1, 3))
        colour = pixels.mean(2, keepdim=True).expand_as(pixels).flatten(2)
        return (
            mean.repeat_interleave(len(target) // len(self.streams), dim=0),
            colour.expand_as(target),
        )

    def _pixels(self, pictures: Pictures) -> Float[Tensor, "M 3 S S"]:
        """All streams, one below the other, shifted and scaled by MEAN and STD."""
        squares = torch.cat([getattr(pictures, name) for name in self.streams])
        return (squares.float() / 255 - self.mean) / self.std

    def _patches(self, pixels: Tensor) -> Tensor:
        patches = self.mae.patchify(pixels)
        return normalised(patches) if self.settings.normalise else patches

    def _shown(self, pixels: Tensor) -> Tensor:
        """The other way round than `_pixels`."""
        return ((pixels * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)

    def _refuse_other(self, folder: Path | str, encoder: Any) -> None:
        ours, theirs = shape_of(self.mae.config), shape_of(encoder.config)
        if ours != theirs:
            differ = [name for name in ours if ours[name] != theirs[name]]
            said, own = (
                ", ".join(f"{name} {shape[name]}" for name in differ) for shape in (theirs, ours)
            )
            raise SettingsError(
                f"{folder} holds an encoder with {said}; pretrain.encoder "
                f"{self.settings.encoder} with pretrain.patch {self.settings.patch} has {own}: "
                f"{_mend(self.settings, theirs)}"
            )
        mean, std = statistics_in(folder)
        if not torch.allclose(torch.tensor([mean, std]), torch.tensor([MEAN, STD]), atol=1e-3):
            raise SettingsError(
                f"{folder} is used to pixels less {mean} by {std}, pretrain gives it pixels less "
                f"{list(MEAN)} by {list(STD)}: choose another pretrain.start"
            )
        given = encoder.embeddings.position_embeddings
        here = self.mae.vit.embeddings.position_embeddings
        fixed = positions(math.isqrt(given.shape[1] - 1), given.shape[2])
        learned = given.shape != fixed.shape or not torch.allclose(given, fixed, atol=2e-3)
        if given.shape != here.shape and learned:
            size = encoder.config.image_size
            raise SettingsError(
                f"{folder} has learned positions for pictures of {size} pixels: set pretrain.size "
                f"to {size} (now {self.settings.size}), and pretrain.patch as it is"
            )


def config_of(settings: Pretrain) -> ViTMAEConfig:
    """The shape of the autoencoder, in the words of transformers."""
    width, layers, heads = SIZES[settings.encoder]
    decoder = settings.decoder
    return ViTMAEConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        layer_norm_eps=1e-12,
        image_size=settings.size,
        patch_size=settings.patch,
        decoder_hidden_size=decoder.width,
        decoder_num_hidden_layers=decoder.layers,
        decoder_num_attention_heads=decoder.heads,
        decoder_intermediate_size=4 * decoder.width,
        mask_ratio=settings.masked,
        norm_pix_loss=settings.normalise,
    )


@torch.no_grad()
def begin(mae: ViTMAEForPreTraining) -> None:
    """The first weights of He et al. (2022): matrices by Glorot's uniform rule, that of the patches
    as the matrix it is; tokens with a deviation of 0.02; positions fixed.

    Not left to transformers, of which some versions (5.23) leave tokens and positions at zero, so
    that the network cannot tell one place from another.
    """
    for part in mae.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(part.weight.flatten(1))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()
    embeddings, decoder = mae.vit.embeddings, mae.decoder
    for token in (embeddings.cls_token, decoder.mask_token):
        nn.init.normal_(token, std=0.02)
    side = math.isqrt(embeddings.patch_embeddings.num_patches)
    for place in (embeddings.position_embeddings, decoder.decoder_pos_embed):
        place.copy_(positions(side, place.shape[-1]))


def positions(side: int, width: int) -> Float[Tensor, "1 T W"]:
    """Of the class token, zeros, and of side x side patches, row by row: a quarter of the width
    each for sin(x f), cos(x f), sin(y f) and cos(y f), with frequencies f = 10000^(-4 i / width) of
    the column x and the row y."""
    quarter = width // 4
    angles = torch.arange(side).double()[:, None] * 1e4 ** -(
        torch.arange(quarter).double() / quarter
    )
    one = torch.cat([angles.sin(), angles.cos()], dim=1)  # of a column or a row
    across, down = one.repeat(side, 1), one.repeat_interleave(side, dim=0)
    patches = torch.cat([across, down], dim=1).float()
    return torch.cat([patches.new_zeros(1, width), patches])[None]


def _take(part: nn.Module, given: nn.Module, place: str) -> None:
    """All tensors of another such part; not its positions, where they are for another size."""
    own, state = part.get_parameter(place), given.state_dict()
    if state[place].shape != own.shape:
        state[place] = own
    part.load_state_dict(state)


def _mend(settings: Pretrain, shape: dict[str, Any]) -> str:
    """Which encoder has this shape."""
    patch = shape["patch_size"]
    for name in SIZES:
        config = config_of(settings.model_copy(update={"encoder": name, "patch": patch}))
        if shape_of(config) == shape:
            return f"set pretrain.encoder to {name} and pretrain.patch to {patch}"
    return "choose another pretrain.start"


def _given(vectors: Tensor | None, name: str) -> Tensor:
    if vectors is None:
        raise SettingsError(
            f"pretrain needs what views.teacher_{name} says of a picture, and it is not there: "
            f"set views.teacher_{name}.network, or take its losses out by pretrain.without"
        )
    return vectors
