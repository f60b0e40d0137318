"""Where everything lies below the root of a cache. Nothing else composes these paths.

<root>/index/            pictures, persons, labels: `cache.index`
<root>/<view>.zarr/      one view: `cache.store`
    commits/000003.json  what proves shard 3
<root>/manifest.json     every view in short: `cache.manifest`
<root>/.lock             who writes it: `cache.lock`
"""

from pathlib import Path


def index_folder(root: Path) -> Path:
    """The folder of the index."""
    return Path(root) / "index"


def view_folder(root: Path, name: str) -> Path:
    """The Zarr group of a view."""
    return Path(root) / f"{name}.zarr"


def view_names(root: Path) -> list[str]:
    """Names of the views that a cache holds, sorted."""
    return sorted(path.stem for path in Path(root).glob("*.zarr"))


def commit_file(view: Path, shard: int) -> Path:
    """The commit record of a shard, in the folder of its view."""
    return view / "commits" / f"{shard:06d}.json"


def manifest_file(root: Path) -> Path:
    """The manifest."""
    return Path(root) / "manifest.json"


def lock_file(root: Path) -> Path:
    """The file that a writer locks."""
    return Path(root) / ".lock"


def aside(folder: Path, why: str = "") -> Path:
    """The neighbour of a folder under which it is made, or deleted: a kill leaves no half of it in
    its own place, and `cache.files.sweep` takes away what is left."""
    return folder.with_name(f".{folder.name}.{why}{'.' if why else ''}partial")
