"""Weights that the user put into `weights.folder`, under the network's name."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cache.errors import WeightsError
from extract import settings as config
from extract.weights.plain import plain_tensors
from extract.weights.record import Absent, Weights, config_in, json_in
from extract.weights.store import folder_sha256, remembered_sha256, safe_name
from extract.weights.word_vectors import begins_with_vector, vectors_from_text

ABOUT = "emocache.json"  # in a folder that emocache wrote itself: `name`, what the network is


def find(network: str, settings: config.Weights) -> Weights:
    """A folder as transformers saves it, a .safetensors, .pth or .pt file, or word vectors as
    text, under the network's whole name (`owner--name`) or its last part. A folder that has an
    `emocache.json` says in it what it is called."""
    if settings.folder is None:
        raise Absent("weights.folder is not set")
    folder = settings.folder.expanduser()
    if not folder.is_dir():
        raise WeightsError(f"weights.folder {folder} is not a folder")
    for stem in _stems(network):
        if found := _under(stem, folder, settings):
            path, sha256 = found
            name = str((json_in(path / ABOUT) or {}).get("name") or path.name)
            return Weights(network, "folder", name, path, sha256, "as its owner states")
    raise Absent(
        f"{folder} has no {safe_name(network)}.safetensors, .pth, .txt of word vectors or folder "
        "of that name"
    )


def config_of(network: str, settings: config.Weights) -> dict[str, Any] | None:
    """The `config.json` of the user's own folder for a network, read before anything is hashed, or
    of the folder that an untrained one is named after; None where there is none."""
    places = []
    if settings.folder is not None and "folder" in settings.source:
        places += [settings.folder.expanduser() / stem for stem in _stems(network)]
    if network in settings.untrained:
        places.append(Path(network))
    found = (config_in(place) for place in places)
    return next((one for one in found if one is not None), None)


def _stems(network: str) -> Iterator[str]:
    """The names that its weights may lie under."""
    return iter(dict.fromkeys((safe_name(network), network.rsplit("/", 1)[-1])))


def _under(stem: str, folder: Path, settings: config.Weights) -> tuple[Path, str] | None:
    """What lies under that name, ready to be loaded; and its SHA-256."""
    hashed = partial(remembered_sha256, settings=settings)
    if (folder / stem / "config.json").exists():
        return folder / stem, folder_sha256(folder / stem, hashed)
    if (path := folder / f"{stem}.safetensors").exists():
        return path, hashed(path)
    for ending in (".pth", ".pt"):
        if (path := folder / f"{stem}{ending}").exists():
            return _converted(path, settings, _unpickle)
    if (path := folder / f"{stem}.txt").exists() and begins_with_vector(path):
        return _converted(path, settings, vectors_from_text)
    return None


def _converted(
    path: Path, settings: config.Weights, save: Callable[[Path, Path], None]
) -> tuple[Path, str]:
    """A file as safetensors in the store, which `save(path, to)` makes; the file's own SHA-256."""
    sha256 = remembered_sha256(path, settings)
    plain = settings.store.expanduser() / "from-folder" / f"{path.stem}-{sha256[:16]}.safetensors"
    if not plain.exists():
        plain.parent.mkdir(parents=True, exist_ok=True)
        unfinished = plain.with_suffix(f".{os.getpid()}.partial")
        save(path, unfinished)
        os.replace(unfinished, plain)
    return plain, sha256


def _unpickle(path: Path, to: Path) -> None:
    from safetensors.torch import save_file

    try:
        state = plain_tensors(path)
    except ValueError as error:
        raise WeightsError(
            f"{path} is not a plain state dict ({error}): save model.state_dict() only, best as "
            ".safetensors"
        ) from error
    save_file(state, to)
