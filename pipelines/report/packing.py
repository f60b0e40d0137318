"""The gallery as the page's script reads it: columns of numbers in base64, and what they mean."""

import base64
import math
from typing import Any

import numpy as np

from pipelines.report.gallery import Gallery
from train.labels import is_distribution


def packed(gallery: Gallery, scale: tuple[float, float]) -> dict[str, Any]:
    """What the page's script reads, ready for JSON. scale: the scores at both ends of a bar.

    columns: name -> (type, base64 of little-endian values). Boxes are in 65,535ths of the picture's
    width and height, all four 0 where there is none; scores and weights of objects in 65,535ths;
    depth in 255ths of each map's span; scores without a view or an object in 65,535ths of the span
    that `whatIf` names.
    """
    seen, scores = gallery.seen, gallery.scores
    sizes = np.tile(np.maximum(gallery.sizes[gallery.place], 1), 2)  # (N, 4)
    columns: dict[str, tuple[str, np.ndarray | None]] = {
        "rows": ("i4", gallery.rows),
        "place": ("i4", gallery.place),
        "sizes": ("i4", gallery.sizes),
        "scores": ("f4", scores),
        "shares": ("f4", gallery.shares),
        "marks": ("u1", gallery.marks),
        "measure": ("f4", gallery.measure),
        "noted": ("u1", _bits(gallery.noted, len(gallery.rows))),
    }
    if gallery.sizes.any():
        columns["boxes"] = ("u2", _shares_of(seen.boxes, sizes))
        if seen.faces is not None:
            columns["faces"] = ("u2", _shares_of(seen.faces, sizes))
        if seen.first is not None and seen.object_boxes is not None:
            owner = np.repeat(sizes, np.diff(seen.first), axis=0)
            columns |= {
                "first": ("i4", seen.first),
                "objectBoxes": ("u2", _shares_of(seen.object_boxes, owner)),
                "objectClasses": ("u2", seen.object_classes),
                "objectScores": ("u2", _shares_of(seen.object_scores, 1)),
                "weights": ("u2", _shares_of(seen.weights, 1)),
            }
        columns["depth"] = ("u1", None if gallery.depth is None else _levels(gallery.depth))
    said, found = _what_if(gallery)
    columns |= found
    return {
        "kind": gallery.kind,
        "one": gallery.terms.one,
        "many": gallery.terms.many,
        "labels": gallery.labels,
        "learned": [gallery.learned is None or name in gallery.learned for name in gallery.labels],
        "thresholds": [None if math.isnan(one) else one for one in gallery.thresholds.tolist()],
        "measure": _measure_words(gallery),
        "score": _score_word(gallery),
        "scale": scale,
        "notes": gallery.notes,
        "places": gallery.places,
        "classes": seen.classes,
        "without": {str(place): why for place, why in gallery.without.items()},
        "depth": None
        if gallery.depth is None
        else {"grid": gallery.depth.shape[1:], "said": gallery.depth_said},
        "whatIf": said,
        "columns": {name: [k, _base64(k, v)] for name, (k, v) in columns.items() if v is not None},
    }


def lines(gallery: Gallery) -> str:
    """The thumbnails as base64, a line a place, empty where there is none."""
    empty = b""
    return "\n".join(
        base64.b64encode(gallery.thumbnails.get(place, empty)).decode("ascii")
        for place in range(len(gallery.places))
    )


def _levels(maps: np.ndarray) -> np.ndarray:
    """(P, h, w) each from its own least value, 0, to its greatest, 255."""
    low, high = (end(axis=(1, 2), keepdims=True) for end in (maps.min, maps.max))
    return np.rint(255 * (maps - low) / np.maximum(high - low, 1e-12))


def _what_if(
    gallery: Gallery,
) -> tuple[dict[str, Any] | None, dict[str, tuple[str, np.ndarray | None]]]:
    """What the page is told of `Gallery.what_if`, and its columns; asked (N,): the place of each
    person among those who were asked, -1 of others."""
    found = gallery.what_if
    if found is None:
        return None, {}
    every = np.concatenate([found.without_view.ravel(), found.without_object.ravel()])
    low, high = (float(every.min()), float(every.max())) if every.size else (0.0, 1.0)
    asked = np.full(len(gallery.rows), -1)
    asked[found.asked] = np.arange(len(found.asked))
    span = max(high - low, 1e-12)
    said = {"views": found.views, "persons": len(found.asked), "edges": found.edges}
    said |= {"low": low, "span": span}
    return said, {
        "asked": ("i4", asked),
        "withoutView": ("u2", _shares_of(found.without_view - low, span)),
        "withoutFirst": ("i4", found.first),
        "withoutObject": ("u2", _shares_of(found.without_object - low, span)),
    }


def _measure_words(gallery: Gallery) -> dict[str, Any]:
    """How the page calls the measure, whether more is better, and its digits."""
    if gallery.kind == "distribution":
        return {"name": "KL", "more": False, "digits": 4}
    name = "true label" if gallery.kind == "single" else "Jaccard"
    return {"name": name, "more": True, "digits": 2}


def _score_word(gallery: Gallery) -> str:
    if gallery.kind == "distribution":
        return "share"
    sums = gallery.kind == "single" and is_distribution(gallery.scores)
    return "probability" if sums else "score"


def _shares_of(values: np.ndarray | None, whole: np.ndarray | float) -> np.ndarray | None:
    """Values from 0 to `whole`, in 65,535ths of it; what is not there is 0."""
    if values is None:
        return None
    return np.rint(65_535 * np.clip(np.nan_to_num(values) / whole, 0, 1))


def _bits(noted: np.ndarray, rows: int) -> np.ndarray:
    """(N,): note number n is bit n."""
    bits = 1 << np.arange(noted.shape[1])
    return noted @ bits if noted.size else np.zeros(rows, int)


def _base64(kind: str, values: np.ndarray) -> str:
    packed = np.ascontiguousarray(values).astype(f"<{kind}")
    return base64.b64encode(packed.tobytes()).decode("ascii")
