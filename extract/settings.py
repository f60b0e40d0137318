"""Settings that decide what stage 1 computes; the comments of `params.yaml` say what each does.

Everything under `views` is part of a cache key.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator

from cache.settings import Section

# Detectors report nothing below 0.05, so a lower threshold would promise what cannot be had.
Score = Annotated[float, Field(ge=0.05, le=1)]
Side = Annotated[int, Field(ge=32, le=2048)]
Precision = Literal["float32", "bfloat16", "float16"]
Fit = Literal["squash", "pad"]
Portion = Annotated[float, Field(gt=0, le=1)]
# Of a picture, in the order in which a description names them; `emotion` is its label.
Attribute = Literal[
    "scene",
    "object",
    "brightness",
    "colorfulness",
    "facial_expression",
    "human_action",
    "emotion",
]
Source = Literal["folder", "store", "hub", "packages", "untrained"]


def _one_group(pattern: str | None) -> str | None:
    if pattern is not None:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"should be a regular expression ({error})") from None
        if groups != 1:
            raise ValueError("should have one group in parentheses, as '^(clip[0-9]+)_'")
    return pattern


def _several(value: Any) -> Any:
    """`packages` for `[packages]`."""
    return [value] if isinstance(value, str) else value


Share = Annotated[float, Field(ge=0, le=0.9)]


class Split(Section):
    """Splits that a set has not itself: see `extract.splits`.

    val, test: shares of the pictures; seed: of the draw; group: a regular expression with one
    group that finds film, subject or video in a picture's path; file: CSV of path and split that
    overrules the set's own.
    """

    val: Share = 0.1
    test: Share = 0.1
    seed: Annotated[int, Field(ge=0)] = 0
    group: Annotated[str | None, AfterValidator(_one_group)] = None
    file: Path | None = None


class Window(Section):
    """Of raw signals, in seconds. seconds: how long one is; step: from the begin of one to that of
    the next."""

    seconds: Annotated[float, Field(ge=1, le=3600)] = 60.0
    step: Annotated[float, Field(ge=1, le=3600)] = 30.0


class Data(Section):
    """name: of the reader, a file of `extract.datasets`; root: where the data set lies; file: the
    annotation below it, for readers that may find several; definitions: YAML of labels and the
    sentences that the text encoder reads, in place of the set's; target: what a label vector is,
    see `extract.targets`; follow_links: whether links may lead out of `root`;
    window: of recordings; classes: labels made of the set's own, as {calm: [baseline, meditation]}:
    see `extract.targets`."""

    name: str = "emotic"
    root: Path = Path("data/emotic")
    file: Path | None = None
    definitions: Path | None = None
    target: Literal["auto", "single", "distribution"] = "auto"
    follow_links: bool = False
    split: Split = Split()
    window: Window = Window()
    classes: dict[str, list[str]] | None = None


class People(Section):
    """Persons that the annotation gives no box for, and those of new pictures: see
    `extract.people`.

    detector: of people; score: the least of one; choose: which one has the picture's label; faces:
    the detector of faces that `choose: face` needs, face_score: the least of one; subject: about an
    annotated face, the person, or the face alone; otherwise: where nobody is found, the whole
    picture (or the annotated face) is the person, or the row drops out.
    """

    detector: str = "yolo26n"
    score: Score = 0.4
    choose: Literal["best", "largest", "central", "face"] = "best"
    faces: str = "yolo11m-face"
    face_score: Score = 0.5
    subject: Literal["person", "face"] = "person"
    otherwise: Literal["whole", "drop"] = "whole"


class Detection(Section):
    """Of a view of what a detector finds in whole pictures."""

    detector: str


class Weights(Section):
    """Where weights come from: see `extract.weights`.

    source: tried in this order; folder: the user's own; store: what was fetched before; untrained:
    networks that may run on random numbers; hub_timeout: seconds until a hub is out of reach.
    """

    source: Annotated[list[Source], Field(min_length=1), BeforeValidator(_several)] = [
        "folder",
        "store",
        "hub",
        "packages",
    ]
    folder: Path | None = None
    store: Path = Path("~/.cache/emocache/weights")
    untrained: list[str] = []
    hub_timeout: Annotated[float, Field(gt=0, le=60)] = 3.0


class Body(Section):
    """network: the backbone; size: pixels a side of the square it sees, as in the others; fit: how
    what is cut out becomes that square, see `images.square`."""

    network: str | None = "resnet50"
    size: Side = 128
    fit: Fit = "squash"


class Head(Section):
    """detector: of faces; score: the least of a face; enlarge: side of the head's square, in longer
    sides of the face's box."""

    network: str | None = "resnet50"
    size: Side = 128
    detector: str = "blazeface"
    score: Score = 0.5
    enlarge: Annotated[float, Field(ge=1, le=4)] = 1.6


class Objects(Section):
    """detector: of objects; mask: `subject` paints the person over before objects are sought,
    `drop` leaves out what was found of the person; k: objects kept; score: the least of one."""

    network: str | None = "resnet50"
    size: Side = 128
    detector: str = "fasterrcnn_resnet50_fpn_v2"
    mask: Literal["subject", "drop"] = "subject"
    k: Annotated[int, Field(ge=1, le=100)] = 10
    score: Score = 0.3


class Depth(Section):
    """grid: cells a side that the depth map is shrunk to."""

    network: str | None = "Intel/dpt-hybrid-midas"
    size: Side = 384
    grid: Annotated[int, Field(ge=1, le=64)] = 8


class Scene(Section):
    """Of the whole picture."""

    network: str | None = "resnet50"
    size: Side = 224
    fit: Fit = "squash"


class Labels(Section):
    """network: a text encoder; pooling: over its tokens."""

    network: str | None = "bert-base-uncased"
    pooling: Literal["mean", "cls"] = "mean"


class Words(Section):
    """network: a vocabulary of word vectors; null: the view is left out."""

    network: str | None = None


class TeacherImage(Section):
    """What UniEmoX's student is drawn to. network: a backbone of pictures, null: the view is left
    out; crops: stored random crops a picture, 0: the whole picture alone; scale: least and largest
    share of its area in a crop; seed: of the crops."""

    network: str | None = None
    size: Side = 224
    fit: Fit = "squash"
    crops: Annotated[int, Field(ge=0, le=64)] = 0
    scale: tuple[Portion, Portion] = (0.2, 1.0)
    seed: Annotated[int, Field(ge=0)] = 0

    @field_validator("scale")
    @classmethod
    def _ordered(cls, given: tuple[float, float]) -> tuple[float, float]:
        if given[0] > given[1]:
            raise ValueError("should be [least, largest]")
        return given


class TeacherText(Section):
    """The description composed of a picture's attributes, read by a text encoder. network: null:
    the view is left out; attributes: which of them, see `extract.describe`; pooling: of networks
    that give a vector a token."""

    network: str | None = None
    attributes: Annotated[list[Attribute], Field(min_length=1)] = list(get_args(Attribute))
    pooling: Literal["mean", "cls"] = "mean"


class Views(Section):
    """The views, and the arithmetic of their networks. One whose network is null is left out."""

    body: Body = Body()
    head: Head = Head()
    objects: Objects = Objects()
    depth: Depth = Depth()
    scene: Scene = Scene()
    labels: Labels = Labels()
    words: Words = Words()
    teacher_image: TeacherImage = TeacherImage()
    teacher_text: TeacherText = TeacherText()
    precision: Precision = "float32"


class Extract(Section):
    """How an extraction runs; nothing here is part of a key.

    batch: pictures in a block, and inputs in one forward pass; readers: threads that read and
    decode; workers: processes that compute, 0 for this one alone, or one for each GPU; cluster: a
    Dask scheduler whose workers compute.
    """

    batch: Annotated[int, Field(ge=1)] = 32
    readers: Annotated[int, Field(ge=1, le=256)] = 2
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    cluster: str | None = None
