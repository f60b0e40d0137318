"""The manifest: every view of a cache in short. Stages of DVC depend on it, so that they notice a
changed cache without hashing it whole, and `cache.check` holds the views to what it counted."""

import hashlib
import json
from pathlib import Path
from typing import Any

from cache.files import json_bytes, write_atomic, writing_to
from cache.keys import is_sealed, sealed
from cache.paths import commit_file, manifest_file, view_names
from cache.store import FORMAT, open_view


def manifest_of(root: Path, index_digest: str) -> dict[str, Any]:
    """Per view its key and the hash of its commits, with the index's digest; small and stable."""
    views = {}
    for name in view_names(root):
        view = open_view(root, name)
        commits = hashlib.sha256()
        for shard in sorted(view.commits):
            commits.update(commit_file(view.path, shard).read_bytes())
        views[name] = {
            "key": view.key,
            "rows": int(view.done.sum()),
            "trained": view.trained,
            "commits": commits.hexdigest(),
        }
    return sealed({"format": FORMAT, "index": index_digest, "views": views})


def write_manifest(root: Path, index_digest: str) -> dict[str, Any]:
    """Write the manifest of the cache at `root`; gives what it says."""
    manifest, file = manifest_of(root, index_digest), manifest_file(root)
    with writing_to(file):
        write_atomic(file, json_bytes(manifest))
    return manifest


def read_manifest(root: Path) -> dict[str, Any] | None:
    """The manifest as it was written last; None where it is missing or damaged."""
    try:
        data = manifest_file(root).read_bytes()
        manifest = json.loads(data)
        whole = is_sealed(manifest) and json_bytes(manifest) == data
        whole &= manifest["format"] == FORMAT and "index" in manifest
        whole &= all({"key", "rows"} <= view.keys() for view in manifest["views"].values())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
    return manifest if whole else None
