"""Settings of the embedded demo data set."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Demo(BaseModel):
    """How the made-up scenes are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Annotated[int, Field(ge=0)] = 0
    pictures: Annotated[int, Field(ge=12, le=10_000)] = 160
