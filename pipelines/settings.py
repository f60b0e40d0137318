"""`params.yaml` as one checked model: every setting, refused by its path when unknown or wrong."""

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from cache.errors import SettingsError
from cache.settings import Cache, Once, Section, sentence
from extract.settings import Data, Extract, People, Views, Weights
from pipelines.demo.settings import Demo
from train.settings import Evaluate, Folds, Train, Tune
from train.uniemox.settings import Finetune, Pretrain


def _device(name: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("should be auto, cpu, mps, cuda or cuda:N")
    return name


Device = Annotated[str, AfterValidator(_device)]


class Report(Section):
    people: Annotated[int, Field(ge=1, le=200)] = 12
    looks: Annotated[int, Field(ge=0, le=200)] = 4
    thumbnails: Annotated[int, Field(ge=0)] = 5000
    what_if: Annotated[int, Field(ge=0)] = 500
    beside: list[Path] = []
    tables: Path | None = None
    seed: Annotated[int, Field(ge=0)] = 0


class Serve(Section):
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8517
    upload_mb: Annotated[float, Field(gt=0, le=1000)] = 16
    pixels: Annotated[int, Field(ge=1, le=89_478_485)] = 40_000_000
    people: Annotated[int, Field(ge=1)] = 20
    batch: Annotated[int, Field(ge=1, le=1000)] = 16
    batch_mb: Annotated[float, Field(gt=0, le=4000)] = 64
    queue: Annotated[int, Field(ge=1)] = 64
    at_once: Annotated[int, Field(ge=1)] = 4
    upload_seconds: Annotated[float, Field(gt=0)] = 20
    seconds: Annotated[float, Field(gt=0)] = 120
    kept: Annotated[int, Field(ge=1)] = 16


def _below_train(name: str) -> str:
    if not name.startswith("train."):
        raise ValueError("should be a setting below train, as train.lr")
    return name


Name = Annotated[str, AfterValidator(_below_train)]


class Sweep(Section):
    over: dict[Name, Annotated[list[Any], Field(min_length=1)]] = {"train.lr": [3e-5, 1e-4, 3e-4]}
    points: list[dict[Name, Any]] = []


class Tables(Section):
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0, 1, 2]
    heads: list[str] = []
    grid: Annotated[int, Field(ge=0)] = 11
    settings: dict[str, dict[Name, Any]] = {}


FEW = 3  # settings of one name that are all offered where another is unknown


class Settings(Section):
    """The whole of `params.yaml`. Sections are owned by the room that reads them."""

    device: Device = "auto"
    data: Data = Data()
    people: People = People()
    cache: Cache = Cache()
    weights: Weights = Weights()
    views: Views = Views()
    extract: Extract = Extract()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    folds: Folds = Folds()
    sweep: Sweep = Sweep()
    tune: Tune = Tune()
    tables: Tables = Tables()
    pretrain: Pretrain = Pretrain()
    finetune: Finetune = Finetune()
    report: Report = Report()
    serve: Serve = Serve()
    demo: Demo = Demo()


def load(path: Path = Path("params.yaml"), overrides: Sequence[str] = ()) -> Settings:
    """Read `path` and apply overrides of the form `a.b=value` (the value is YAML).

    Raises SettingsError naming the key's full path and, for an unknown key, the nearest known.
    """
    if not path.is_file():
        raise SettingsError(
            f"no {path} here: work in the project's folder, or copy a profile from "
            "pipelines/profiles/ to params.yaml"
        )
    try:
        with path.open("rb") as file:
            tree = yaml.load(file, _Loader) or {}
    except yaml.YAMLError as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise SettingsError(f"{path} must hold sections such as `train:`, not a {kind}")
    for override in overrides:
        _override(tree, override)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(part) for part in error.errors())) from None


class _Loader(Once, yaml.SafeLoader):
    pass


def _override(tree: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    *sections, key = path.strip().split(".")
    if not equals or not all((*sections, key)):
        raise SettingsError(f"--set {text!r}: write it as --set section.key=value")
    for section in sections:
        if tree.get(section) is None:
            tree[section] = {}
        tree = tree[section]
        if not isinstance(tree, dict):
            raise SettingsError(f"--set {text!r}: {section} is a value, not a section")
    try:
        tree[key] = yaml.load(value, _Loader)
    except yaml.YAMLError:
        raise SettingsError(f"--set {text!r}: the value is not valid YAML") from None


def _sentence(error: Mapping[str, Any]) -> str:
    """One error of pydantic in the words of `params.yaml`, with the setting that was meant."""
    path = ".".join(str(part) for part in error["loc"])
    return sentence(error, hint=_nearest(path) or "")


def _nearest(path: str) -> str | None:
    """The setting that was meant: a neighbour of like spelling, else those of that name below the
    section, or the one of that name elsewhere."""
    section, _, key = path.rpartition(".")
    names: dict[str, list[str]] = {}
    every = list(paths())
    for known in every:
        names.setdefault(known.rpartition(".")[2], []).append(known)
    here = [name for name in names if f"{section}.{name}".lstrip(".") in names[name]]
    if near := difflib.get_close_matches(key, here, 1, 0.6):
        return f"{section}.{near[0]}".lstrip(".")
    if near := difflib.get_close_matches(key, names, 1, 0.8):
        below = [known for known in names[near[0]] if known.startswith(f"{section}.")]
        if len(below) > 1:  # as the dropout of each head
            return " or ".join(below)
        values = [one for one in names[near[0]] if not any(p.startswith(f"{one}.") for p in every)]
        if 1 < len(values) <= FEW:  # as the lr of whatever is trained
            return " or ".join(values)
        return difflib.get_close_matches(path, values or names[near[0]], 1, 0)[0]
    return None


def paths(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[str]:
    """Every setting and section as a dotted path."""
    for name, field in model.model_fields.items():
        yield prefix + name
        for inner in _models(field.annotation):
            yield from paths(inner, f"{prefix}{name}.")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        return [m for arg in typing.get_args(annotation) for m in _models(arg)]
    return []
