"""What all settings share, and those of the store: of these only `dtype` changes a number, so only
it enters the keys."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _local(folder: Path) -> Path:
    """`~` expanded; an address is refused, since a cache is a folder here."""
    if re.match(r"\w+:/", folder.as_posix()):
        raise ValueError("is an address: give a folder, and share it with `dvc push`")
    return folder.expanduser()


class Section(BaseModel):
    """A section of `params.yaml`: no unknown key, no NaN, and nobody changes it later."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def sentence(error: Mapping[str, Any], section: str = "", hint: str = "") -> str:
    """One error of pydantic in the words of `params.yaml`; section: what stands before its path;
    hint: the setting that may have been meant, where this one is unknown."""
    path = ".".join(str(part) for part in (section, *error["loc"]) if part != "")
    given = error["input"]
    if error["type"] == "extra_forbidden":
        return f"{path}: unknown setting{f'; did you mean {hint}?' if hint else ''}"
    if error["type"] == "model_type":
        return f"{path}: is a section, and needs its settings below it (got {given!r})"
    if error["type"] in ("tuple_type", "list_type"):
        return f"{path}: should be a list, as [a, b] (got {given!r})"
    if error["type"] == "path_type":
        return f"{path}: should be a path (got {given!r})"
    said = error["msg"].removeprefix("Value error, ").replace("Input should", "should")
    if isinstance(given, Mapping) and error["type"] == "value_error":  # of a section as a whole
        return f"{path}: {said}"
    return f"{path}: {said.replace(' after validation', '')} (got {given!r})"


class Once(yaml.constructor.BaseConstructor):
    """For a YAML loader that refuses a key given twice, of which it would quietly take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: list[Any] = []
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.append(key.value)
        return super().construct_mapping(node, deep)


class Cache(Section):
    root: Annotated[Path, AfterValidator(_local)] = Path("features")
    shard_rows: Annotated[int, Field(ge=8, le=65536)] = 1024
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["none", "zstd"] = "none"
    # Other caches whose rows are copied instead of computed, where key and picture bytes agree.
    take_from: tuple[Annotated[Path, AfterValidator(_local)], ...] = ()
