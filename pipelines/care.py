"""What the `emocache cache` commands do: settings in, plain values out."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cache.index import Index, index_damage
from cache.keys import flatten
from cache.paths import index_folder, view_names
from cache.statuses import FAILED, WORDS
from cache.store import StoredView, open_view
from pipelines.settings import Settings
from pipelines.stages import networks_of

Progress = Callable[[int, int], None]


def contents(settings: Settings) -> dict[str, Any]:
    """Each view: rows by status, why rows failed, key and its settings, size, weights; and the
    index beside them."""
    root = settings.cache.root
    views = {name: open_view(root, name) for name in view_names(root)}
    about = {name: _about(view) for name, view in views.items()}
    if not index_folder(root).exists() and views:  # as after `dvc pull` of one view
        found = {"root": str(root), "dataset": "no index here", "note": index_damage(root)}
        return {**found, "persons": {}, "pictures": 0, "views": about, "quarantined": []}
    index = Index.read(root)
    status, counts = np.unique(index.person_status, return_counts=True)
    return {
        "root": str(root),
        "dataset": index.dataset,
        "note": index.note,
        "persons": {str(s): int(n) for s, n in zip(status, counts, strict=True)},
        "pictures": len(index.pictures),
        "views": about,
        "quarantined": quarantined(views.values(), index),
    }


def quarantined(views: Iterable[StoredView], index: Index) -> list[dict[str, str]]:
    """The pictures that could not be used, each once, with the first reason: `prepare` could not
    read their header, or `extract` their pixels. `extract --retry` tries them again."""
    columns = (index.pictures[name].to_pylist() for name in ("path", "status", "reason"))
    pictures = list(zip(*columns, strict=True))
    found: dict[int, dict[str, str]] = {
        row: {"by": "prepare", "status": status, "reason": reason}
        for row, (_, status, reason) in enumerate(pictures)
        if status in FAILED
    }
    for view in views:
        if view.space == "labels":  # which have no picture
            continue
        for row, reason in view.reasons.items():
            picture = int(index.picture_rows[row]) if view.space == "persons" else row
            if pictures[picture][1] == "removed":
                continue
            status = WORDS[int(view.status[row])]
            found.setdefault(picture, {"by": "extract", "status": status, "reason": reason})
    return [{"picture": pictures[row][0], **facts} for row, facts in sorted(found.items())]


def _about(view: StoredView) -> dict[str, Any]:
    codes, counts = np.unique(view.status, return_counts=True)
    files = [file.stat().st_size for file in view.path.rglob("*") if file.is_file()]
    reasons, times = np.unique(list(view.reasons.values()), return_counts=True)
    return {
        "key": view.key,
        "in_words": flatten(view.spec.parts.get("settings", {}))
        | {"dtype": view.spec.parts.get("dtype")},
        "parts": view.spec.parts,
        "weights": view.spec.weights,
        "trained": view.trained,
        "rows": {WORDS[int(c)]: int(n) for c, n in zip(codes, counts, strict=True)},
        "reasons": {str(why): int(n) for why, n in zip(reasons, times, strict=True)},
        "shards": len(view.commits),
        "compression": view.layout.compression,
        "bytes": sum(files),
        "files": len(files),
    }


def verify(
    settings: Settings,
    names: Sequence[str],
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    from cache.check import verify as look

    return look(settings.cache.root, list(names) or None, progress).as_dict()


def repair(
    settings: Settings,
    progress: Progress = lambda done, total: None,
    on_load: Callable[[Any], None] = lambda weights: None,
) -> dict[str, Any]:
    from extract.repair import repair as mend
    from extract.views import make_views

    networks = networks_of(settings, on_load)
    views = make_views(settings.views, settings.cache.dtype)
    done = mend(settings.data, settings.cache, settings.extract, views, networks, progress)
    return {
        "damages": [asdict(damage) for damage in done.damages],
        "rows": done.rows,
        "skipped": done.outcome.skipped,
        "left": [asdict(damage) for damage in done.left],
    }


def diff(ours: Path, theirs: Path) -> dict[str, Any]:
    from cache.diff import diff as compare

    return compare(ours, theirs)


def audit(
    settings: Settings, near: float, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    from cache.audit import audit as compare

    return compare(settings.cache.root, near, progress).as_dict()


def merge(settings: Settings, others: Sequence[Path], keep_ours: bool) -> dict[str, Any]:
    from cache.share import merge as join

    return {str(other): asdict(join(settings.cache, other, keep_ours)) for other in others}


def export(
    settings: Settings,
    file: Path,
    names: Sequence[str],
    overwrite: bool,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    from cache.hdf5 import export_hdf5

    rows = export_hdf5(settings.cache.root, file, list(names) or None, overwrite, progress)
    return {"file": str(file), "bytes": file.stat().st_size, "rows": rows}


def take_in(
    settings: Settings, file: Path, progress: Progress = lambda done, total: None
) -> dict[str, Any]:
    from cache.hdf5 import import_hdf5

    return {str(file): import_hdf5(settings.cache, file, progress)}
