"""What the server takes and gives, as its OpenAPI page names it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Box = Annotated[list[float], Field(description="x1, y1, x2, y2 in pixels of the upright picture")]
Scores = Annotated[dict[str, float], Field(description="a score for each label, highest first")]


class Thing(BaseModel):
    """An object: the detector's score, and the weight the head gave it, if it weighs any."""

    name: str
    score: float | None
    weight: float | None
    box: Box


class Person(BaseModel):
    """A person: box, head where a face was found, objects by falling weight, emotions."""

    box: Box
    head: Box | None
    objects: list[Thing]
    emotions: Scores


class Found(BaseModel):
    """What was found in one picture."""

    picture: Annotated[str, Field(description="the file's name, as it was sent")]
    status: Annotated[str, Field(description="ok, no_person, or why not: unreadable ...")]
    reason: Annotated[str, Field(description='in a sentence; "" where all is well')]
    people: list[Person]
    left_out: Annotated[int, Field(description="people found beyond serve.people")] = 0
    width: int | None = None
    height: int | None = None


class Grounds(BaseModel):
    """What every answer rests on."""

    head: str
    dataset: str
    note: Annotated[str, Field(description="what must be said of the data, as made-up labels")]
    views: list[str]
    not_learned: Annotated[list[str], Field(description="labels without a score")]
    thresholds: Annotated[
        dict[str, float], Field(description="from val, where this head was evaluated")
    ]
    weights: Annotated[list[str], Field(description="of each network, with source and licence")]
    untrained: Annotated[list[str], Field(description="networks that run on random weights")]
    differs: Annotated[
        list[str], Field(description="libraries of other versions than an exported head's")
    ] = []


class Prediction(Found, Grounds):
    """One picture."""

    token: Annotated[str | None, Field(description="to ask what if, while it is kept")] = None
    shown: Annotated[str | None, Field(description="the picture as a data: address, if wished")] = (
        None
    )


class CachedPerson(Prediction):
    """A person of the cache, as `people` of one; picture: its path below `data.root`."""

    row: Annotated[int, Field(description="in the index: the report's person of that number")]
    split: str
    true: Annotated[list[str], Field(description="labels that the person has")]
    shares: Annotated[
        dict[str, float] | None, Field(description="true shares, where labels are distributions")
    ] = None
    no_picture: Annotated[str, Field(description='why it is not shown; "" where all is well')] = ""


class CachedPersons(BaseModel):
    """Persons of the cache whom the head can be asked about."""

    splits: Annotated[dict[str, int], Field(description="how many of each")]
    rows: Annotated[list[int], Field(description="of the split asked for, or of all")]


class Predictions(Grounds):
    """Several pictures, in the order in which they were sent."""

    pictures: list[Found]


class Question(BaseModel):
    """What to take away: see `train.whatif`."""

    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(max_length=64)]
    person: Annotated[int, Field(ge=0, description="number in `people`, from 0")]
    views: Annotated[list[str], Field(max_length=64)] = []
    objects: Annotated[list[int], Field(max_length=1000, description="numbers in `objects`")] = []
    edges: Annotated[list[tuple[str, str]], Field(max_length=1000, description="of labels")] = []


class WhatIf(BaseModel):
    """The head's scores of one person, and what they are without what was taken away."""

    person: int
    scores: Scores
    without: dict[str, float]
    note: str
    untrained: list[str]


class Limits(BaseModel):
    """What is refused: larger files and pictures, more pictures in a batch."""

    upload_mb: float
    pixels: int
    people: int
    batch: int
    batch_mb: float


class About(Grounds):
    """The head, what it can be asked, and what must be said of it."""

    labels: list[str]
    kind: Annotated[str, Field(description="multi, single or distribution")]
    removable: Annotated[list[str], Field(description="views that what-if can take away")]
    edges: Annotated[list[tuple[str, str]], Field(description="of label graphs, strongest first")]
    no_what_if: Annotated[str, Field(description='why nothing can be; "" where it can')]
    splits: Annotated[dict[str, int], Field(description="persons of the cache, of each split")]
    no_persons: Annotated[str, Field(description='why there are none; "" where there are')]
    colours: Annotated[list[str], Field(description="of the persons, in this order and again")]
    limits: Limits
    caution: str
    version: str


class Health(BaseModel):
    """It answers; waiting: requests in line."""

    status: str
    waiting: int


class Refusal(BaseModel):
    """Why not, in a sentence."""

    detail: str
