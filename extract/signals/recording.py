"""A recording: signals over time that a reader has taken out of a file, and windows of it.

Rows of ready features are a recording too: a sample a second, a row a sample, windows of one
second.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Role = Literal["physiological", "behavioural", ""]


@dataclass(frozen=True, eq=False, slots=True)
class Channel:
    """One signal. values (T, D) float; rate: samples a second."""

    values: np.ndarray
    rate: float

    def between(self, start: float, end: float) -> np.ndarray:
        """The samples (n, D) from `start` on and before `end`, both in seconds."""
        return self.values[round(start * self.rate) : round(end * self.rate)]


Channels = Mapping[str, Channel]  # of one recording, by name; all begin at second 0


@dataclass(frozen=True)
class Modality:
    """One view of signals, as the reader that has it says and the index keeps it.

    role: the side of a body's response that it is of, "" where it has none; channels: the names of
    those it is made from; widths: how many columns each has, one where not given; measure: how a
    window becomes features, a name of `extract.signals.features.MEASURES`; decoder: name of the
    reader whose `decode` takes the channels out of a file.
    """

    role: Role
    channels: tuple[str, ...]
    measure: str
    decoder: str
    widths: tuple[int, ...] = ()

    @property
    def columns(self) -> dict[str, int]:
        """Channel to columns."""
        widths = self.widths or (1,) * len(self.channels)
        return dict(zip(self.channels, widths, strict=True))

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON and for keys."""
        return {
            "role": self.role,
            "channels": list(self.channels),
            "measure": self.measure,
            "decoder": self.decoder,
            "widths": list(self.widths),
        }

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Modality":
        """From such values."""
        names = ("channels", "widths")
        return cls(**{**facts, **{name: tuple(facts[name]) for name in names}})


@dataclass(frozen=True, eq=False, slots=True)
class Recording:
    """One stretch of a file. id: as in the index (see `identity`)."""

    channels: Channels
    id: str


@dataclass(frozen=True, eq=False, slots=True)
class Excerpt:
    """What a view of signals computes one row from: a window, in seconds from the stretch's
    begin."""

    channels: Channels
    start: float
    end: float


def parts_of(path: str) -> tuple[str, str]:
    """The file and the stretch of a path `file#stretch` of the index."""
    file, _, stretch = path.rpartition("#")
    return (file, stretch) if file else (path, "")


def identity(sha256: str, stretch: str) -> str:
    """What a stretch is known by: a hash of the file's bytes and the stretch's name."""
    return hashlib.sha256(f"{sha256}#{stretch}".encode()).hexdigest()
