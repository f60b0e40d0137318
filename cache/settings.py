"""Settings of the store. None of them but `dtype` changes a number, so only it enters the keys."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


def _local(folder: Path) -> Path:
    """`~` expanded; an address is refused, since a cache is a folder here."""
    if re.match(r"\w+:/", folder.as_posix()):
        raise ValueError("is an address: give a folder, and share it with `dvc push`")
    return folder.expanduser()


class Cache(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Annotated[Path, AfterValidator(_local)] = Path("features")
    shard_rows: Annotated[int, Field(ge=8, le=65536)] = 1024
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["none", "zstd"] = "none"
    # Other caches whose rows are copied instead of computed, where key and picture bytes agree.
    take_from: tuple[Annotated[Path, AfterValidator(_local)], ...] = ()
