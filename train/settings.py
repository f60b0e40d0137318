"""Settings of stage 2: which head, how it is fitted, how it is scored."""

import json
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

from cache.settings import Section

Unit = Annotated[float, Field(ge=0, le=1)]
Width = Annotated[int, Field(ge=1)]
Part = Literal[
    "objects", "scene", "head", "depth", "body", "cooccurrence", "similarity", "darn", "hegl"
]


class Darn(Section):
    """How far an object is from its subject. The paper: corner, pixel."""

    distance: Literal["corner", "centre"] = Field(
        default="centre",
        description="Between the top-left corners or the centres of the two boxes.",
    )
    unit: Literal["pixel", "diagonal"] = Field(
        default="diagonal",
        description="Distances in pixels, or as a share of the picture's diagonal.",
    )


class HugMe(Section):
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


# Views by name; null: all that a cache has.
Seen = Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)] | None
Dropout = Annotated[float, Field(ge=0, lt=1)]
Words = Literal["words", "labels"]


class Rrla(Section):
    heads: Width = Field(default=16, description="Attentions of BOA.")
    width: Width = Field(default=128, description="Of W1 and W2 in each of them.")
    values: Annotated[int, Field(ge=0)] = Field(
        default=128, description="Numbers of an object in each of them; 0: all, the paper's."
    )
    squeeze: Width = Field(default=16, description="How many times narrower BPA's middle is.")
    graph_width: Width = Field(default=2048, description="Between ELD's two convolutions.")
    threshold: Unit = Field(default=0.2, description="P(j | i) from which labels are linked.")
    share: Unit = Field(default=0.2, description="p: what a label takes from those linked to it.")
    regions: Literal["region", "features"] = Field(
        default="region",
        description="Objects: the detector's region features, or the backbone's on the region.",
    )
    words: Words = Field(default="words", description="The view of label vectors.")
    without: list[Literal["boa", "geometry", "bpa", "eld", "objects"]] = Field(
        default=[], description="Ablations; boa: objects count alike, objects: there are none."
    )


HeloPart = Literal["cross", "transport", "encoder", "alignment", "labels", "distribution"]
Side = list[Annotated[str, Field(min_length=1)]] | None


class Helo(Section):
    physiological: Side = Field(
        default=None,
        description=(
            "Views of the first side; null: by their role, or in a cache of pictures those of the "
            "person. Both sides are named or neither; [] leaves one empty."
        ),
    )
    behavioural: Side = Field(
        default=None,
        description="Views of the other side; null: by their role, in a cache of pictures context.",
    )
    width: Width = Field(default=128, description="Of a token, and of a label's embedding.")
    tokens: Annotated[list[Width], Field(min_length=2, max_length=2)] = Field(
        default=[8, 8], description="n of each physiological, m of each behavioural modality."
    )
    heads: Width = Field(default=4, description="Parts of each attention; they divide the width.")
    hidden: Width = Field(default=256, description="Of the encoder's MLP.")
    transport: Literal["sinkhorn", "gromov"] = Field(
        default="sinkhorn",
        description="Of costs between the sides, or of those within each (Gromov-Wasserstein).",
    )
    epsilon: Annotated[float, Field(ge=0.005)] = Field(
        default=0.1, description="Weight of the plan's entropy."
    )
    steps: Width = Field(default=50, description="Rounds of Sinkhorn.")
    rounds: Width = Field(default=5, description="Of gromov, each with `steps` rounds of Sinkhorn.")
    start: Literal["random", "text"] = Field(
        default="random", description="Of the label embedding; text: the view labels."
    )
    correlation: Literal["pearson", "cosine"] = Field(
        default="pearson", description="R_data, of the label vectors of train."
    )
    alignment: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="Weight of the correlation loss."
    )
    dropout: Dropout = Field(default=0.1, description="In the encoder's MLP and the last one.")
    without: list[HeloPart] = Field(
        default=[],
        description=(
            "Ablations. cross: physiological cross-attention; transport; encoder; alignment: the "
            "correlation loss; labels: label-driven attention, and with it the label embedding; "
            "distribution: independent sigmoids, scaled to sum 1 afterwards."
        ),
    )

    @model_validator(mode="after")
    def _fitting(self) -> "Helo":
        if self.width % self.heads:
            raise ValueError(f"heads should divide the width {self.width}, not be {self.heads}")
        first, other = self.physiological, self.behavioural
        if (first is None) != (other is None):
            given, absent = "physiological", "behavioural"
            if first is None:
                given, absent = absent, given
            raise ValueError(f"{absent} should be given where {given} is; [] leaves it empty")
        if first is not None and other is not None:
            if not first and not other:
                raise ValueError("physiological or behavioural should name a view")
            names = [name.partition(".")[0] for name in (*first, *other)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"view {twice[0]!r} should be named once, on one side")
        return self


class Kosti(Section):
    hidden: Width = 256
    dropout: Dropout = 0.5
    continuous: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5,
        description=(
            "Weight of valence, arousal and dominance in the loss, where persons of train were "
            "rated; 1 - continuous is that of the labels. 0: they are not predicted."
        ),
    )


class CaerNet(Section):
    hidden: Width = 128
    dropout: Dropout = 0.5


class MlGcn(Section):
    views: Annotated[list[Literal["body", "head", "depth", "scene"]], Field(min_length=1)] = Field(
        default=["body", "scene"], description="Side by side."
    )
    hidden: Width = Field(default=1024, description="Between the two convolutions.")
    threshold: Unit = Field(default=0.4, description="P(j | i) from which labels are linked.")
    share: Unit = Field(default=0.2, description="p: what a label takes from those linked to it.")
    words: Words = Field(default="words", description="The view of label vectors.")


class Mlp(Section):
    views: Seen = Field(default=None, description="Null: all of the cache.")
    hidden: list[Width] = Field(default=[1024, 512], description="None: a linear layer.")
    dropout: Dropout = 0.2


class Linear(Section):
    views: Seen = Field(default=None, description="Null: all of the cache.")
    components: Annotated[int, Field(ge=0)] = Field(
        default=512, description="Leading directions kept of each view; 0: all."
    )
    penalties: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        default=[0.01, 0.1, 1.0, 10.0, 100.0, 1000.0],
        description="Tried on val; of squared weights, a person.",
    )


class AaKnn(Section):
    views: Seen = Field(default=None, description="Null: all of the cache.")
    k: Annotated[int, Field(ge=1)] = Field(
        default=5, description="Training persons that a person is compared with."
    )
    standardise: bool = Field(
        default=True,
        description=(
            "Compare features scaled by their deviation over train; the paper takes them as they "
            "are."
        ),
    )


class SaBfgs(Section):
    views: Seen = Field(default=None, description="Null: all of the cache.")
    penalty: Annotated[float, Field(ge=0)] = Field(
        default=1e-3, description="Of squared weights; 0: none, the paper's."
    )
    steps: Annotated[int, Field(ge=1)] = Field(default=1000, description="Of L-BFGS, at most.")
    tolerance: Annotated[float, Field(gt=0)] = Field(
        default=1e-5, description="The largest number of the gradient at which it ends."
    )


class Train(Section):
    head: str = Field(default="hugme", description="Which head: a file of train/heads.")
    seed: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Decides first weights, order of persons and dropout."
    )
    epochs: Annotated[int, Field(ge=1)] = Field(default=50, description="At most so many.")
    batch: Annotated[int, Field(ge=1)] = Field(default=60, description="Persons in one step.")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(default=0.9, description="Of sgd.")
    lr: Annotated[float, Field(gt=0)] = Field(default=1e-4, description="Learning rate.")
    schedule: Literal["constant", "cosine"] = Field(
        default="constant", description="Of the learning rate; cosine: down to 0 at the last epoch."
    )
    warmup: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Epochs in which the learning rate rises."
    )
    weight_decay: Annotated[float, Field(ge=0)] = 2.5e-4
    patience: Annotated[int, Field(ge=1)] = Field(
        default=10, description="Stop after so many epochs without a better one on val."
    )
    select: Literal["val", "val_loss", "last"] = Field(
        default="val",
        description=(
            "Which epoch to keep: the best on val by mAP (by loss where val has no positive, or "
            "labels are distributions), by loss, or the last (no early stopping; for data without "
            "a val split)."
        ),
    )
    save_every: Annotated[float, Field(ge=0)] = Field(
        default=60, description="Seconds after which a fit is saved, to go on if it is killed."
    )
    memory: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description=(
            "GB that views may take on the device. Larger ones go to a temporary file, and blocks "
            "of persons come from it: the same numbers, later. null: all are held."
        ),
    )
    together: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description=(
            "Heads of one shape that sweep, tune and tables fit at once, at most; 1: one after "
            "another. null: whichever is faster in a few steps of both, as many as memory holds."
        ),
    )
    tensorboard: bool = Field(
        default=False, description="Also write the curves where TensorBoard finds them."
    )
    standardise: bool = Field(
        default=False,
        description="Shift and scale each feature by its mean and deviation over train.",
    )
    hugme: HugMe = HugMe()
    rrla: Rrla = Rrla()
    helo: Helo = Helo()
    kosti: Kosti = Kosti()
    caer_net: CaerNet = CaerNet()
    ml_gcn: MlGcn = MlGcn()
    mlp: Mlp = Mlp()
    linear: Linear = Linear()
    aa_knn: AaKnn = AaKnn()
    sa_bfgs: SaBfgs = SaBfgs()
    options: dict[str, Any] = Field(
        default={}, description="Settings of a head of your own, which reads and checks them."
    )


class Span(Section):
    """Numbers from low to high; whole ones where the setting is one."""

    low: int | float = Field(description="The least, itself included.")
    high: int | float = Field(description="The greatest, itself included.")
    log: bool = Field(default=False, description="Whether each tenfold is as likely as the next.")
    step: Annotated[int | float, Field(gt=0)] | None = Field(
        default=None,
        description="Between neighbours, from low on; null: none, of whole ones 1.",
    )

    @model_validator(mode="after")
    def _possible(self) -> "Span":
        if not self.low < self.high:
            raise ValueError("low should be less than high")
        if self.log and self.low <= 0:
            raise ValueError("low should be greater than 0 where log is true")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other")
        return self


class Choices(Section):
    """One of these values, in no order."""

    choices: Annotated[list[Any], Field(min_length=1)] = Field(description="Lists too.")

    @field_validator("choices")
    @classmethod
    def _different(cls, choices: list[Any]) -> list[Any]:
        try:
            spelt = {json.dumps(choice, sort_keys=True, allow_nan=False) for choice in choices}
        except (TypeError, ValueError):
            raise ValueError("should be numbers, words, true, false, null or lists") from None
        if len(spelt) < len(choices):
            raise ValueError("should differ from each other")
        return choices


def _kind(axis: Any) -> str:
    """So that a refusal names what is wrong with the one that was meant, not with both."""
    given = axis if isinstance(axis, dict) else getattr(axis, "__dict__", {})
    return "choices" if "choices" in given else "span"


Axis = Annotated[
    Annotated[Span, Tag("span")] | Annotated[Choices, Tag("choices")], Discriminator(_kind)
]


class Tune(Section):
    space: Annotated[dict[str, Axis], Field(min_length=1)] = Field(
        default={
            "train.lr": Span(low=1e-5, high=1e-2, log=True),
            "train.weight_decay": Span(low=1e-6, high=1e-1, log=True),
        },
        description=(
            "What is searched: settings by their whole name, as train.hugme.beta, each with "
            "{low, high, log, step} or {choices}."
        ),
    )
    trials: Annotated[int, Field(ge=1)] = Field(
        default=40, description="How many the study shall have in all; more later goes on."
    )
    batch: Annotated[int, Field(ge=1)] = Field(
        default=8, description="Trials chosen at a time, without knowing how the others end."
    )
    sampler: Literal["tpe", "random"] = Field(
        default="tpe", description="tpe: near what was good so far; random: anywhere."
    )
    startup: Annotated[int, Field(ge=0)] = Field(
        default=10, description="Trials that have ended before tpe learns from them."
    )
    pruner: Literal["hyperband", "halving", "none"] = Field(
        default="hyperband",
        description=(
            "Which trials end early: those that are behind others after as many epochs. halving: "
            "from the first epoch on, hyperband: some only later, none: none."
        ),
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="Of the sampler.")
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = Field(
        default=[0, 1, 2], description="Values of train.seed with which the best is fitted again."
    )

    @field_validator("space")
    @classmethod
    def _of_train(cls, space: dict[str, Any]) -> dict[str, Any]:
        if wrong := [key for key in space if not key.startswith("train.")]:
            raise ValueError(f"{wrong[0]} should be a setting below train., as train.lr")
        return space


# The sections of heads: each of them is read by the head of that name alone.
SECTIONS = {
    name
    for name, field in Train.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
}


def of_others(head: str) -> set[str]:
    """The sections that the head of this name does not read."""
    return SECTIONS - {head}


# Those that change no number of a fit; `together` none but by the order of sums.
NO_NUMBER = {"save_every", "memory", "tensorboard", "together"}
# Those of a descent, which decide nothing of a closed form.
DESCENT = {
    "seed",
    "epochs",
    "batch",
    "optimizer",
    "momentum",
    "lr",
    "schedule",
    "warmup",
    "weight_decay",
    "patience",
    "select",
}


class Folds(Section):
    protocol: Literal["auto", "subjects", "groups", "trials", "blocks", "random", "leaking"] = (
        Field(
            default="auto",
            description=(
                "What a fold takes as a whole: see train.folds. auto: groups where pictures have "
                "any, else random."
            ),
        )
    )
    k: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=10, description="Folds; `subjects` has one a subject instead."
    )
    val: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.1, description="Share of the units that choose the epoch; at least one, or 0."
    )
    seed: Annotated[int, Field(ge=0)] = Field(default=0, description="Of the order of units.")
    splits: list[str] | None = Field(
        default=None, description="Splits of the index that take part; null: all."
    )
    heads: list[str] = Field(
        default=[], description="Compared on the same folds, against the first; none: train.head."
    )
    settings: dict[str, dict[str, Any]] = Field(
        default={},
        description=(
            "Of single ones of them: name -> settings by whole name. A name that is no head says "
            "which it is: {no transport: {train.head: helo, train.helo.without: [transport]}}."
        ),
    )


class Evaluate(Section):
    split: Literal["train", "val", "test"] = "test"
    bootstrap: Annotated[int, Field(ge=100)] = 1000
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    seed: Annotated[int, Field(ge=0)] = 0
