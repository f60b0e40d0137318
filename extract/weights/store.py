"""The store of weights on this disk: what was fetched once, checked by its hash at every use.

<weights.store>/<network>/<source>/    the files that a source gave, with `source.json` about them
<weights.store>/from-folder/           what `weights.folder` has in other forms, as safetensors
<weights.store>/hashes.json            hashes of files by path, size and time
"""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cache.errors import WeightsError
from cache.files import sha256_file, write_atomic
from extract import settings as config
from extract.weights.record import Absent, Weights

ABOUT = "source.json"
PLAIN = "weights.safetensors"


def find(network: str, settings: config.Weights) -> Weights:
    """What was fetched before, from the hub rather than from packages."""
    for source in ("hub", "packages"):
        if found := kept(network, source, settings):
            return found
    raise Absent(f"{settings.store.expanduser()} does not have it yet")


def kept(network: str, source: str, settings: config.Weights) -> Weights | None:
    """The store's copy of what a source gave, None where there is none.

    Raises WeightsError where it is damaged, with what to delete.
    """
    folder = _place(network, source, settings)
    if not (folder / ABOUT).exists():
        return None
    try:
        facts = json.loads((folder / ABOUT).read_text())
        path = folder / facts.pop("file")
        sizes = facts.pop("files")
        found = Weights(**facts, path=path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{folder / ABOUT} is damaged: delete {folder} to fetch it again"
        ) from error
    for name, size in sizes.items():
        if not (folder / name).exists() or (folder / name).stat().st_size != size:
            raise WeightsError(f"{folder / name} is damaged: delete {folder} to fetch it again")
    hashed = partial(remembered_sha256, settings=settings)
    if found.sha256 != (folder_sha256(path, hashed) if path.is_dir() else hashed(path)):
        raise WeightsError(
            f"{folder} is damaged, its SHA-256 is not {found.sha256[:12]} any more: delete it to "
            "fetch it again"
        )
    return found


def keep(
    network: str, source: str, settings: config.Weights, made: Path, facts: dict[str, Any]
) -> Weights:
    """Move a folder of converted files into the store, whole or not at all.

    made: holds `PLAIN`, or the files of a transformers folder. facts: name and licence, perhaps
    preprocessing.
    """
    plain = made / PLAIN
    sha256 = sha256_file(plain) if plain.exists() else folder_sha256(made)
    facts = {"network": network, "source": source, "sha256": sha256, **facts}
    for path in made.iterdir():
        path.chmod(0o644)  # a team may share the store
    sizes = {path.name: path.stat().st_size for path in made.iterdir()}
    facts |= {"file": plain.name if plain.exists() else ".", "files": sizes}
    (made / ABOUT).write_text(json.dumps(facts, indent=1))
    target = _place(network, source, settings)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Where another process was quicker, both fetched the same, and its copy is used.
    with contextlib.suppress(OSError):
        os.rename(made, target)
    found = kept(network, source, settings)
    if found is None:
        raise WeightsError(f"cannot write {target}: see weights.store")
    return found


def workplace(settings: config.Weights) -> tempfile.TemporaryDirectory[str]:
    """A folder on the store's disk to fetch into, gone when its block ends."""
    store = settings.store.expanduser()
    try:
        store.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(
            prefix=".fetching-", dir=store, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise Absent(f"weights.store {store} cannot be written ({error.strerror})") from error


def safe_name(network: str) -> str:
    """A file name for a network's name."""
    return network.replace("/", "--")


def remembered_sha256(path: Path, settings: config.Weights) -> str:
    """SHA-256 of a file, remembered by path, size and time so that the next call is quick."""
    known_path = settings.store.expanduser() / "hashes.json"
    try:
        known = json.loads(known_path.read_text())
    except (OSError, ValueError):
        known = {}
    stat = path.stat()
    mark = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    if mark not in known:
        known[mark] = sha256_file(path)
        with contextlib.suppress(OSError):  # a store that others own is read all the same
            write_atomic(known_path, json.dumps(known, indent=1).encode())
    return known[mark]


def folder_sha256(folder: Path, hashed: Callable[[Path], str] = sha256_file) -> str:
    """SHA-256 over names and hashes of the files directly in a folder, `source.json` left out."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    lines = [f"{path.name} {hashed(path)}" for path in files if path.name != ABOUT]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _place(network: str, source: str, settings: config.Weights) -> Path:
    return settings.store.expanduser() / safe_name(network) / source
