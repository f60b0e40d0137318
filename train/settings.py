"""Settings of stage 2: which head, how it is fitted, how it is scored."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Unit = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=1)]
Part = Literal[
    "objects", "scene", "head", "depth", "body", "cooccurrence", "similarity", "darn", "hegl"
]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Darn(Settings):
    """How far an object is from its subject. The paper: corner, pixel."""

    distance: Literal["corner", "centre"] = Field(
        default="centre",
        description="Between the top-left corners or the centres of the two boxes.",
    )
    unit: Literal["pixel", "diagonal"] = Field(
        default="diagonal",
        description="Distances in pixels, or as a share of the picture's diagonal.",
    )


class HugMe(Settings):
    beta: Unit = Field(
        default=0.5, description="Weight of the classifier p1 against the label view p2."
    )
    lambda_c: Unit = Field(default=0.8, description="Weight of L_C; 1 - lambda_c is that of L_DC.")
    hidden: Annotated[list[Width], Field(min_length=2, max_length=2)] = Field(
        default=[1024, 512], description="Widths of the two hidden layers of p1."
    )
    object_embedding: Width = Field(
        default=300, description="Width of emb(label) of an object's class."
    )
    label_width: Width = Field(
        default=300, description="Width of H0, the projected label definitions."
    )
    graph_width: Annotated[int, Field(ge=2, multiple_of=2)] = Field(
        default=512, description="Width of H: half of it for each of the two label graphs."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0, description="After each hidden layer of p1; the paper names none."
    )
    output: Literal["auto", "sigmoid", "softmax", "literal"] = Field(
        default="auto",
        description=(
            "sigmoid or softmax of beta z1 + (1 - beta) z2; literal: beta softmax(z1) + "
            "(1 - beta) z2, the paper's. auto: softmax when every train and val person has exactly "
            "one label, sigmoid otherwise."
        ),
    )
    loss: Literal["auto", "bce", "cross_entropy", "squared"] = Field(
        default="auto",
        description="L_C. auto: bce for sigmoid, cross_entropy for softmax, squared for literal.",
    )
    darn: Darn = Darn()
    without: list[Part] = Field(
        default=[],
        description=(
            "Ablations. objects, scene, head, depth, body: leave that part out of f_I; darn: equal "
            "object weights; cooccurrence, similarity: leave that label graph out; hegl: both, so "
            "that p1 alone decides and L_DC is gone."
        ),
    )


class Train(Settings):
    head: str = Field(default="hugme", description="Which head: a file of train/heads.")
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Decides first weights, order of persons and dropout."
    )
    epochs: Annotated[int, Field(ge=1)] = Field(default=50, description="At most so many.")
    batch: Annotated[int, Field(ge=1)] = Field(default=60, description="Persons in one step.")
    lr: Annotated[float, Field(gt=0)] = Field(default=1e-4, description="Learning rate of AdamW.")
    weight_decay: Annotated[float, Field(ge=0)] = 2.5e-4
    patience: Annotated[int, Field(ge=1)] = Field(
        default=10, description="Stop after so many epochs without a better one on val."
    )
    select: Literal["val", "last"] = Field(
        default="val",
        description=(
            "Which epoch to keep: the best on val, or the last (no early stopping; for data "
            "without a val split)."
        ),
    )
    standardise: bool = Field(
        False, description="Shift and scale each feature by its mean and deviation over train."
    )
    hugme: HugMe = HugMe()


class Evaluate(Settings):
    split: Literal["train", "val", "test"] = "test"
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
