"""Settings of `pretrain` and `finetune`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from cache.settings import Section

Share = Annotated[float, Field(gt=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Epochs = Annotated[int, Field(ge=0)]
Part = Literal["pixels", "similarity", "image", "person"]
Stream = Literal["scene", "person"]


class Descent(Section):
    """What both have: how a network is descended, on one device or on several (torchrun)."""

    epochs: Count = 200
    batch: Annotated[int, Field(ge=2)] = Field(
        default=64, description="Pictures in one forward pass of each device."
    )
    accumulate: Count = Field(
        default=1, description="Forward passes whose gradients make one step."
    )
    lr: Annotated[float, Field(gt=0)] = Field(
        default=1e-3,
        description="At 256 pictures a step; scaled by batch x accumulate x devices / 256.",
    )
    warmup: Epochs = Field(default=20, description="Epochs in which the learning rate rises.")
    weight_decay: Weight = Field(default=0.05, description="Of matrices; biases and norms have 0.")
    clip: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="The longest gradient, as a norm over all parameters."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Arithmetic; auto: bfloat16 on a GPU, else float32."
    )
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Decides first weights, order, crops and masks."
    )
    readers: Annotated[int, Field(ge=0, le=256)] = Field(
        default=2, description="Processes that read pictures ahead; 0: this one."
    )
    save_every: Annotated[float, Field(ge=0)] = Field(
        default=300, description="Seconds after which it is saved, to go on if it is killed."
    )
    log: list[Literal["tensorboard", "dvclive"]] = Field(
        default=[], description="Where curves and pictures also go."
    )


class Decoder(Section):
    """Of the masked autoencoder; a linear layer of its own makes pixels of each patch."""

    width: Annotated[int, Field(ge=4, multiple_of=4)] = 512
    layers: Count = 8
    heads: Count = 16

    @model_validator(mode="after")
    def _heads_fit(self) -> "Decoder":
        if self.width % self.heads:
            raise ValueError(f"heads should divide the width {self.width} (got {self.heads})")
        return self


class Weights(Section):
    """Of the three losses."""

    pixels: Weight = 1.0
    similarity: Weight = 1.0
    image: Weight = 1.0


class Pretrain(Descent):
    """The two-stream masked autoencoder, from cached teachers."""

    encoder: Literal["tiny", "small", "base", "large"] = "base"
    size: Annotated[int, Field(ge=16, le=1024)] = Field(
        default=224, description="Side of the square that a stream sees, in pixels."
    )
    patch: Annotated[int, Field(ge=2, le=64)] = Field(default=16, description="Side of a patch.")
    decoder: Decoder = Decoder()
    masked: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.75, description="Share of the patches of each stream that are hidden."
    )
    normalise: bool = Field(
        default=True, description="Pixels of a patch are shifted and scaled by their own mean."
    )
    fusion: Literal["weighted", "scaled", "attended", "gated"] = Field(
        default="weighted", description="Of the two streams: G4, G1, G2 or G3."
    )
    terms: Count = Field(default=3, description="kappa: summands of `scaled` and `attended`.")
    weights: Weights = Weights()
    without: list[Part] = Field(default=[], description="Losses, or the stream of the person.")
    start: str | None = Field(
        default=None, description="A masked autoencoder to go on from, as facebook/vit-mae-base."
    )
    crop: tuple[Share, Share] = Field(
        default=(0.2, 1.0), description="Share of the picture's area that the scene shows."
    )
    person_crop: tuple[Share, Share] = Field(
        default=(0.5, 1.0), description="Share of the person's box that the person stream shows."
    )
    flip: bool = Field(default=True, description="Half of the pictures are mirrored.")
    grid_every: Count = Field(default=10, description="Epochs between pictures of what it sees.")
    pictures: Annotated[int, Field(ge=1, le=64)] = Field(
        default=8, description="Held-out pictures that are shown."
    )

    @field_validator("crop", "person_crop")
    @classmethod
    def _ordered(cls, given: tuple[float, float]) -> tuple[float, float]:
        if given[0] > given[1]:
            raise ValueError("should be [least, most]")
        return given

    @model_validator(mode="after")
    def _can_be(self) -> "Pretrain":
        if self.size % self.patch:
            raise ValueError(f"size should be a multiple of patch {self.patch} (got {self.size})")
        patches = (self.size // self.patch) ** 2
        kept = int(patches * (1 - self.masked))
        if not 0 < kept < patches:
            raise ValueError(
                f"masked {self.masked:g} of {patches} patches leaves {kept} to be seen: raise size "
                "or lower patch"
            )
        active = {"pixels", "similarity", "image"} - set(self.without)
        if not any(getattr(self.weights, name) > 0 for name in active):
            raise ValueError("nothing is left to descend: every loss is off")
        return self


class Finetune(Descent):
    """The encoder with a linear layer on its class tokens, on single labels or shares."""

    epochs: Count = 100
    warmup: Epochs = 5
    encoder: str = Field(
        default="uniemox",
        description="A ViT by name, found as views.scene.network would be: uniemox in "
        "weights.folder, facebook/vit-mae-base ...",
    )
    streams: Annotated[list[Stream], Field(min_length=1, max_length=2)] = Field(
        default=["scene", "person"], description="Whose class tokens are classified, side by side."
    )
    crop: tuple[Share, Share] = (0.35, 1.0)
    person_crop: tuple[Share, Share] = (0.7, 1.0)
    flip: bool = True
    layer_decay: Share = Field(
        default=0.75, description="What each layer's learning rate is of the one above it."
    )
    frozen: bool = Field(default=False, description="Only the linear layer learns.")
    drop_path: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="Stochastic depth of the last layer; less in those below."
    )
    mixup: Weight = Field(default=0.8, description="Alpha of mixup; 0: none.")
    cutmix: Weight = Field(default=1.0, description="Alpha of cutmix; 0: none.")
    smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of a target that goes to all labels."
    )
    select: Literal["val", "last"] = Field(
        default="val", description="The epoch kept: best accuracy on val, or the last."
    )

    @field_validator("streams")
    @classmethod
    def _each_once(cls, given: list[Stream]) -> list[Stream]:
        if len(set(given)) < len(given):
            raise ValueError("names a stream twice")
        return given
