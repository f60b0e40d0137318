"""Settings of the embedded demo data set."""

from typing import Annotated

from pydantic import Field

from cache.settings import Section

Share = Annotated[float, Field(gt=0, lt=0.5)]
Rate = Annotated[float, Field(ge=0, lt=0.5)]


class Demo(Section):
    """How the made-up scenes are drawn."""

    seed: Annotated[int, Field(ge=0)] = 0
    pictures: Annotated[int, Field(ge=12, le=10_000)] = 160
    val: Share = 0.18  # parts of the pictures; the rest is for training
    test: Share = 0.27
    missed: Rate = 0.10  # an annotator overlooks a label that the rules plant
    added: Rate = 0.02  # an annotator gives a label that the rules do not plant
