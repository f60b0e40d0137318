"""What UniEmoX is fitted on: batches of pictures, and what can give them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class Pictures:
    """B pictures, each with one of its persons.

    scene, person: squares of RGB, of the whole picture and of the person's box; whole: nobody was
    found, so that both show the same. noise: N numbers a stream (scene, person); the patches with
    the lowest stay visible. image, text: what the teachers say, O and L of width D; described:
    whose text there is (that of the others is zeros). target: shares of the labels. row: in the
    index, of the picture, or of the person where each is one of its own; lost: reasons by row, of
    pictures of this batch that could not be read and are not in it.
    """

    scene: UInt8[Tensor, "B 3 S S"]
    person: UInt8[Tensor, "B 3 S S"]
    noise: Float[Tensor, "B 2 N"]
    whole: Bool[Tensor, " B"]
    row: Int[Tensor, " B"]
    image: Float[Tensor, "B D"] | None = None
    text: Float[Tensor, "B D"] | None = None
    described: Bool[Tensor, " B"] | None = None
    target: Float[Tensor, "B C"] | None = None
    lost: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.row)

    def to(self, device: torch.device | str) -> "Pictures":
        """The same on a device."""
        there: dict[str, Any] = {
            one.name: value.to(device, non_blocking=True)
            for one in fields(self)
            if isinstance(value := getattr(self, one.name), Tensor)
        }
        return replace(self, **there)


@runtime_checkable
class Source(Protocol):
    """Pictures by split and place, from 0 on.

    What is drawn of a picture (which person, crop, mirror, noise) depends on seed, epoch and row
    alone: not on the batch it is in, nor on who reads it. Of held-out splits nothing but the noise
    is drawn, and the same in every epoch.
    """

    def count(self, split: Split) -> int:
        """How many there are."""
        ...

    def read(
        self, split: Split, batches: Sequence[Sequence[int]], epoch: int = 0
    ) -> Iterator[Pictures]:
        """These batches of places, one after the other, on the CPU. A batch may come short of
        pictures that cannot be read, which it names, and be empty."""
        ...
