"""Why two caches differ: rows by id, keys part by part, and values where the keys agree."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.index import Index
from cache.keys import differences
from cache.paths import view_folder, view_names
from cache.store import StoredView, open_view


def diff(ours: Path, theirs: Path) -> dict[str, Any]:
    """Rows of the two indexes, pictures whose persons have other labels, and for each view the key
    part by part and the rows.

    Rows are matched by id. Where the keys agree, the values of the rows that both have are
    compared: `equal`, `differ`, and the `largest` absolute difference.
    """
    a, b = Index.read(ours), Index.read(theirs)
    names = sorted({*view_names(ours), *view_names(theirs)})
    found: dict[str, Any] = {
        "index": {
            "dataset": [a.dataset, b.dataset],
            "labels": {
                "ours": _without(a.labels, b.labels),
                "theirs": _without(b.labels, a.labels),
            },
            "persons": _counts(a.ids("persons"), b.ids("persons")),
            "pictures": _counts(a.ids("pictures"), b.ids("pictures")),
            "definitions": a.definitions == b.definitions,
            "counted": _counts(*(_counted(index) for index in (a, b))),
            "relabelled": _relabelled(a, b),
        },
        "views": {name: _diff_view(_view(ours, name), _view(theirs, name), a, b) for name in names},
    }
    return {**found, "differs": _differs(found["index"], found["views"].values())}


def _differs(index: dict[str, Any], views: Collection[dict[str, Any]]) -> bool:
    sides = [index[name] for name in ("persons", "pictures", "labels", "counted")]
    sides += [view["rows"] for view in views]
    return (
        bool(index["relabelled"])
        or not index["definitions"]
        or any(side["ours"] or side["theirs"] for side in sides)
        or any(view["key"] != "same" or view["values"]["differ"] for view in views)
    )


def _view(root: Path, name: str) -> StoredView | None:
    return open_view(root, name) if view_folder(root, name).exists() else None


def _without(these: Sequence[str], those: Sequence[str]) -> list[str]:
    return [one for one in these if one not in set(those)]


def _counts(ours: Sequence[str], theirs: Sequence[str]) -> dict[str, int]:
    a, b = set(ours), set(theirs)
    return {"ours": len(a - b), "theirs": len(b - a), "both": len(a & b)}


def _counted(index: Index) -> list[str]:
    """Ids of the persons with the status ok."""
    ids = index.ids("persons")
    return [ids[row] for row in index.wanted("persons").tolist()]


def _relabelled(a: Index, b: Index) -> list[str]:
    """Pictures of the persons that both have in the same split, with other labels or ratings."""
    if a.labels != b.labels:
        return []
    ours, theirs = ({_who(index, row): row for row in index.wanted("persons")} for index in (a, b))
    paths = a.pictures["path"].to_pylist()
    other = [
        paths[a.picture_rows[ours[who]]]
        for who in ours.keys() & theirs.keys()
        if not np.array_equal(a.targets[ours[who]], b.targets[theirs[who]])
        or not np.array_equal(a.vad[ours[who]], b.vad[theirs[who]], equal_nan=True)
    ]
    return sorted(set(other))


def _who(index: Index, row: int) -> tuple[str, str]:
    return index.persons["id"][int(row)].as_py(), str(index.splits[row])


def _diff_view(
    ours: StoredView | None, theirs: StoredView | None, a: Index, b: Index
) -> dict[str, Any]:
    rows = [_rows_by_id(view, index) for view, index in ((ours, a), (theirs, b))]
    found: dict[str, Any] = {"rows": _counts(*(list(one) for one in rows))}
    if ours is None or theirs is None:
        found["key"] = "only in " + ("theirs" if ours is None else "ours")
    elif ours.key != theirs.key:
        found["key"] = differences(ours.spec.parts, theirs.spec.parts)
    else:
        found["key"] = "same"
        common = sorted(rows[0].keys() & rows[1].keys())
        at = [np.array([one[identity] for identity in common], int) for one in rows]
        found["values"] = _diff_values(ours, theirs, *at)
    return found


def _rows_by_id(view: StoredView | None, index: Index) -> dict[str, int]:
    """Row of each id that a view has committed; the first where an id stands twice."""
    if view is None:
        return {}
    ids = index.ids(view.space)
    return {ids[row]: row for row in reversed(np.flatnonzero(view.done).tolist())}


def _diff_values(
    ours: StoredView, theirs: StoredView, rows: np.ndarray, others: np.ndarray
) -> dict[str, Any]:
    differ = ours.status[rows] != theirs.status[others]
    largest = 0.0
    for name in ours.spec.arrays:
        x, y = ours.read(name)[rows], theirs.read(name)[others]
        unequal = (x != y).reshape(len(rows), ours.spec.arrays[name].size).any(axis=1)
        differ |= unequal
        if unequal.any():
            gap = np.abs(x[unequal].astype(np.float64) - y[unequal].astype(np.float64))
            largest = max(largest, float(gap.max()))
    return {"equal": int((~differ).sum()), "differ": int(differ.sum()), "largest": largest}
