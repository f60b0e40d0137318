"""`params.yaml` as one checked model: every setting, refused by its path when unknown or wrong."""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cache.errors import SettingsError
from cache.settings import Cache
from extract.settings import Data, Extract, Score, Views, Weights
from pipelines.demo_settings import Demo
from train.settings import Evaluate, Train

Device = Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Report(Section):
    people: Annotated[int, Field(ge=1, le=200)] = 12
    seed: Annotated[int, Field(ge=0)] = 0


class Predict(Section):
    detector: str = "yolo26n"
    score: Score = 0.4


class Settings(Section):
    """The whole of `params.yaml`. Sections are owned by the room that reads them."""

    device: Device = "auto"
    data: Data = Data()
    cache: Cache = Cache()
    weights: Weights = Weights()
    views: Views = Views()
    extract: Extract = Extract()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    report: Report = Report()
    predict: Predict = Predict()
    demo: Demo = Demo()


def load(path: Path = Path("params.yaml"), overrides: Sequence[str] = ()) -> Settings:
    """Read `path` and apply overrides of the form `a.b=value` (the value is YAML).

    Raises SettingsError naming the key's full path and, for an unknown key, the nearest known.
    """
    if not path.exists():
        raise SettingsError(
            f"no {path} here: work in the project's folder, or copy a profile from "
            "pipelines/profiles/ to params.yaml"
        )
    try:
        tree = yaml.safe_load(path.read_text()) or {}
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


def _override(tree: dict[str, Any], text: str) -> None:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise SettingsError(f"--set {text!r}: write it as --set section.key=value")
    *sections, key = path.strip().split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"--set {text!r}: {section} is a value, not a section")
    try:
        tree[key] = yaml.safe_load(value)
    except yaml.YAMLError:
        raise SettingsError(f"--set {text!r}: the value is not valid YAML") from None


def _sentence(error: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg']} (got {error['input']!r})"
    known = list(paths())
    # Nearest by the whole path, or else by the key's own name wherever it stands.
    near = difflib.get_close_matches(path, known, 1) or [
        candidate
        for candidate in known
        if difflib.get_close_matches(str(error["loc"][-1]), [candidate.rsplit(".", 1)[-1]], 1, 0.8)
    ]
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{path}: unknown setting{hint}"


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
