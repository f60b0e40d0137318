"""What a cache holds, in plain values: rows by status, keys, sizes, weights, and what failed."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cache.index import Index, index_damage
from cache.keys import flatten
from cache.paths import index_folder, view_names
from cache.statuses import FAILED, USABLE, WORDS
from cache.store import StoredView, open_view


def contents(root: Path) -> dict[str, Any]:
    """Each view: rows by status, why rows failed, key and its settings, size, weights; and the
    index beside them.

    {root, dataset, note, persons: {status: count}, pictures, views: {name: ...}, quarantined,
    dropped}.
    Raises CacheError where there is no cache, or a view is damaged.
    """
    views = {name: open_view(root, name) for name in view_names(root)}
    about = {name: _about(view) for name, view in views.items()}
    if not index_folder(root).exists() and views:  # as after `dvc pull` of one view
        found = {"root": str(root), "dataset": "no index here", "note": index_damage(root)}
        return {
            **found,
            "persons": {},
            "pictures": 0,
            "views": about,
            "quarantined": [],
            "dropped": [],
        }
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
        "dropped": dropped_persons(index),
    }


def quarantined(views: Iterable[StoredView], index: Index) -> list[dict[str, str]]:
    """The pictures that could not be used, each once, with the first reason: `prepare` could not
    read their header, or `extract` their pixels. `extract --retry` tries them again.

    [{picture: its path, by: the command, status, reason}], in the order of the index.
    """
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
            if status in USABLE:  # an answer, with a reason
                continue
            found.setdefault(picture, {"by": "extract", "status": status, "reason": reason})
    return [{"picture": pictures[row][0], **facts} for row, facts in sorted(found.items())]


def dropped_persons(index: Index) -> list[dict[str, str]]:
    """Who does not count though the picture is there, in the order of the index: a bad box, no
    labels, nobody found, a repeat. [{picture: its path, split, status, reason}]."""
    status = index.person_status
    pictures = index.pictures["status"].to_pylist()
    paths, reasons = index.pictures["path"].to_pylist(), index.persons["reason"].to_pylist()
    rows = np.flatnonzero((status != "ok") & (status != "removed")).tolist()
    return [
        {
            "picture": paths[index.picture_rows[row]],
            "split": str(index.splits[row]),
            "status": str(status[row]),
            "reason": reasons[row],
        }
        for row in rows
        if pictures[index.picture_rows[row]] == "ok"
    ]


def weights_in_words(facts: Mapping[str, Any]) -> str:
    """The weights of one network in a line: of a `ViewSpec.weights`."""
    if not facts["trained"]:
        return f"{facts['network']}: UNTRAINED, random weights ({facts['sha256']})"
    return (
        f"{facts['network']}: {facts['name']} from {facts['source']}, "
        f"SHA-256 {facts['sha256'][:12]}, {facts['licence']}"
    )


def weights_summary(weights: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """{weights: a line of each network, untrained: names of those that run on random weights}."""
    some = list(weights)
    return {
        "weights": sorted({weights_in_words(one) for one in some}),
        "untrained": sorted({one["network"] for one in some if not one["trained"]}),
    }


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
