"""Settings that decide what stage 1 computes. Everything under `views` is part of a cache key."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# Detectors report nothing below 0.05, so a lower threshold would promise what cannot be had.
Score = Annotated[float, Field(ge=0.05, le=1)]
Side = Annotated[int, Field(ge=32, le=2048)]
Precision = Literal["float32", "bfloat16", "float16"]
Source = Literal["folder", "store", "hub", "packages", "untrained"]


def _several(value: Any) -> Any:
    """`packages` for `[packages]`."""
    return [value] if isinstance(value, str) else value


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(Settings):
    name: str = "emotic"
    root: Path = Path("data/emotic")


class Weights(Settings):
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


class Body(Settings):
    network: str = "resnet50"
    size: Side = 128


class Head(Settings):
    network: str = "resnet50"
    size: Side = 128
    detector: str = "blazeface"
    score: Score = 0.5
    enlarge: Annotated[float, Field(ge=1, le=4)] = 1.6


class Objects(Settings):
    network: str = "resnet50"
    size: Side = 128
    detector: str = "fasterrcnn_resnet50_fpn_v2"
    mask: Literal["subject", "drop"] = "subject"
    k: Annotated[int, Field(ge=1, le=100)] = 10
    score: Score = 0.3


class Depth(Settings):
    network: str = "Intel/dpt-hybrid-midas"
    size: Side = 384
    grid: Annotated[int, Field(ge=1, le=64)] = 8


class Scene(Settings):
    network: str = "resnet50"
    size: Side = 224


class Labels(Settings):
    network: str = "bert-base-uncased"
    pooling: Literal["mean", "cls"] = "mean"


class Words(Settings):
    network: str | None = None  # none: the view is left out


class Views(Settings):
    body: Body = Body()
    head: Head = Head()
    objects: Objects = Objects()
    depth: Depth = Depth()
    scene: Scene = Scene()
    labels: Labels = Labels()
    words: Words = Words()
    precision: Precision = "float32"


class Extract(Settings):
    block: Annotated[int, Field(ge=1)] = 32
    batch: Annotated[int, Field(ge=1)] = 32
    readers: Annotated[int, Field(ge=1, le=256)] = 2
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    cluster: str | None = None
