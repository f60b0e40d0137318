"""A fitted head on disk: head.safetensors and head.json, no pickle."""

import hashlib
import inspect
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from cache.errors import CacheError, FormatError, KeyMismatch
from cache.files import write_atomic, write_json
from cache.keys import in_short
from train.data import Features, cache_key
from train.heads import get_head
from train.settings import Train

FORMAT = 3
log = logging.getLogger("train")


def save_head(
    folder: Path | str,
    model: Any,
    settings: Train,
    features: Features,
    versions: Mapping[str, str],
    about: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the head and all it needs to be used again; gives what head.json holds.

    labels, object classes, view keys with their parts, and weights come from the features it was
    fitted on; code is the hash of the file that the head's class stands in; `about` adds plain JSON
    values (seed, kept epoch, ...). Same head, same bytes.
    """
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    data = save_tensors(tensors)
    info = {
        **(about or {}),
        "format": FORMAT,
        "head": settings.head,
        "code": code_of(settings.head),
        "settings": settings.model_dump(mode="json"),
        "spec": model.spec,
        "dataset": features.dataset,
        "note": features.note,
        "labels": list(features.labels),
        "classes": list(features.classes),
        "index": features.index_digest,
        "views": {
            name: {
                "rows": spec.space,
                "key": spec.key,
                "parts": spec.parts,
                "weights": [dict(w) for w in spec.weights],
            }
            for name, spec in features.specs.items()
        },
        "versions": dict(versions),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    folder = Path(folder)
    write_atomic(folder / "head.safetensors", data)
    write_json(folder / "head.json", info)
    return info


def load_head(folder: Path | str, device: torch.device | str = "cpu") -> tuple[Any, dict[str, Any]]:
    """The head in evaluation mode, and what head.json says of it.

    Warns where the file of the head's class is not what it was then: the same weights may score
    otherwise. Raises CacheError when a file is absent, damaged or of a newer format.
    """
    folder = Path(folder)
    if not folder.exists():
        raise CacheError(
            f"there is no folder {folder}: run `emocache train` first, or name one that is there"
        )
    about, weights = folder / "head.json", folder / "head.safetensors"
    for path in (about, weights):
        if not path.exists():
            raise CacheError(f"no {path}: run `emocache train` first")
    try:
        info = json.loads(about.read_text())
    except ValueError:
        raise CacheError(f"{about} is damaged: run `emocache train` again") from None
    if (found := info.get("format")) != FORMAT:
        raise FormatError.of(about, found, FORMAT, "run `emocache train` again")
    data = weights.read_bytes()
    if hashlib.sha256(data).hexdigest() != info["sha256"]:
        raise CacheError(
            f"{weights} is not the file that {about} describes: run `emocache train` again"
        )
    settings = Train.model_validate(info["settings"])
    if info.get("code") and info["code"] != code_of(info["head"]):
        log.warning(
            "the code of the head %s has changed since %s was fitted: the same weights may score "
            "otherwise; `emocache train` fits it anew",
            info["head"],
            folder,
        )
    model = get_head(info["head"])(settings, **info["spec"])
    model.load_state_dict(load_tensors(data))
    return model.to(device).eval(), info


def code_of(head: str) -> str:
    """SHA-256 of the source file of this head's class, whatever its line ends; "" where there is
    none. What the file imports does not count."""
    source = inspect.getsourcefile(get_head(head))
    if source is None:
        return ""
    return hashlib.sha256(Path(source).read_text("utf-8").encode()).hexdigest()


def fitted_key(info: Mapping[str, Any], index: str) -> str:
    """`Features.cache_key` of the views that the head reads, with the index of that digest."""
    return cache_key(index, {name: view["key"] for name, view in info["views"].items()})


def check_keys(info: Mapping[str, Any], features: Features) -> None:
    """Refuse features that the head was not fitted on: KeyMismatch names both sides.

    The head holds the labels' definitions itself, so features of new persons may leave them out.
    """
    if tuple(info["labels"]) != features.labels:
        raise KeyMismatch(
            f"the head was fitted on {info['dataset'] or 'persons'} with the labels "
            f"{', '.join(info['labels'])}; the index holds {features.dataset or 'persons'} with "
            f"{', '.join(features.labels)}: run `emocache train` on this cache"
        )
    for name, view in info["views"].items():
        spec = features.specs.get(name)
        if view["rows"] == "labels" and spec is None:
            continue
        here, parts = (spec.key, spec.parts) if spec else ("", {})
        if here != view["key"]:
            why = in_short(view["parts"], parts)
            raise KeyMismatch(
                f"view {name!r}: the head was fitted on key {view['key'][:12]}, the cache holds "
                f"{here[:12] or 'none'} ({why or 'parts agree'}): run `emocache train` on this "
                "cache, or `emocache extract` with the head's settings"
            )
