"""What is known of the weights that a network runs on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class Absent(Exception):
    """A source does not have the weights; says why."""


@dataclass(frozen=True)
class Weights:
    """Which weights a network runs on.

    name: what they are, in words; path: a .safetensors file, or a folder for transformers, None
    for random ones; sha256: of the file, or of the folder's files together; for random weights,
    how they are drawn. preprocessing: what they want done to pixels, where it is not the usual.
    """

    network: str
    source: str
    name: str
    path: Path | None
    sha256: str
    licence: str
    trained: bool = True
    preprocessing: Mapping[str, Any] | None = None

    def facts(self) -> dict[str, Any]:
        """Plain values for cache and reports, no path of this machine; in words:
        `cache.contents.weights_in_words`."""
        return {
            "network": self.network,
            "source": self.source,
            "name": self.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "trained": self.trained,
        }
