"""What is known of the weights that a network runs on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.errors import WeightsError, first_line


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

    @property
    def config(self) -> dict[str, Any] | None:
        """The `config.json` of a folder, or of the folder that gives an untrained network its name
        and shape: see `config_in`."""
        folder = Path(self.network) if self.path is None else self.path
        return config_in(folder)

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


def config_in(folder: Path) -> dict[str, Any] | None:
    """What a folder's `config.json` says of the network; None where there is none.

    Raises WeightsError where it is no JSON object.
    """
    return json_in(folder / "config.json")


def json_in(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file beside weights; None where there is no file.

    Raises WeightsError where it is no object.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{path} cannot be read as JSON: {first_line(error)}; see weights.folder"
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds no JSON object; see weights.folder")
    return found
