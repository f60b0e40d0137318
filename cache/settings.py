"""Settings of the store. None of them but `dtype` changes a number, so only it enters the keys."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class Cache(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Path = Path("features")
    shard_rows: Annotated[int, Field(ge=8, le=65536)] = 1024
    dtype: Literal["float16", "float32"] = "float16"
    compression: Literal["none", "zstd"] = "none"
    # Other caches whose rows are copied instead of computed, where key and picture bytes agree.
    take_from: tuple[Path, ...] = ()
