"""Made features in which one view carries the labels and all the others are noise."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cache.index import PERSONS, PICTURES, Index
from cache.spec import ArraySpec, Row
from cache.statuses import STATUS
from cache.writer import ViewWriter
from train.data import Features, ViewData, from_arrays
from train.settings import Train

WIDTH, K, GRID, TEXT = 8, 3, 2, 6
NAMES = ("calm", "glad", "sad", "tense")


def settings(**changes: Any) -> Train:
    """Small and quick; `hugme` may be given as a dictionary."""
    hugme = {
        "hidden": [32, 16],
        "object_embedding": 4,
        "label_width": 8,
        "graph_width": 16,
        **changes.pop("hugme", {}),
    }
    base = {"lr": 3e-3, "epochs": 40, "batch": 32}
    return Train.model_validate({**base, **changes, "hugme": hugme})


def arrays(plant: str = "body", persons: int = 480, seed: int = 0) -> dict[str, Any]:
    """Keyword arguments of `from_arrays`; two persons a picture, splits by picture.

    The labels hang on hidden signals (P, 4), which are written into the features of `plant`; for
    objects, of the one nearest by centres. In `depth` and `scene` both persons share a signal.
    """
    rng = np.random.default_rng(seed)
    pictures = np.arange(persons) // 2
    count = persons // 2
    signal = rng.normal(size=(persons, 4))
    if plant in ("scene", "depth"):
        signal = rng.normal(size=(count, 4))[pictures]
    targets = (signal > 0.8).astype(np.float32)

    def noise(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float16)

    corner = rng.uniform(0, 100, size=(persons, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(40, 80, size=(persons, 2))], 1)
    object_corner = rng.uniform(0, 600, size=(persons, K, 2))
    objects = np.concatenate([object_corner, object_corner + 40], 2)
    views = {
        "body": {"features": noise(persons, WIDTH)},
        "head": {"features": noise(persons, WIDTH), "box": np.zeros((persons, 4), np.float32)},
        "objects": {
            "features": noise(persons, K, WIDTH),
            "box": objects.astype(np.float32),
            "label": rng.integers(0, 5, size=(persons, K)).astype(np.int16),
            "score": np.ones((persons, K), np.float16),
            "count": np.full(persons, K, np.int16),
        },
        "depth": {"features": noise(count, WIDTH), "map": noise(count, GRID, GRID)},
        "scene": {"features": noise(count, WIDTH)},
        "labels": {"features": noise(4, TEXT)},
    }
    features = views[plant]["features"]
    if plant == "objects":
        centres = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
        gap = np.linalg.norm((objects[..., :2] + objects[..., 2:]) / 2 - centres, axis=-1)
        features[np.arange(persons), gap.argmin(1), :4] = 3 * signal
    elif plant in ("scene", "depth"):
        features[pictures, :4] = 3 * signal
    else:
        features[:, :4] = 3 * signal
    rows = {"depth": "pictures", "scene": "pictures", "labels": "labels"}
    split = np.array(["train", "train", "val", "test"])[pictures % 4]
    return {
        "views": {
            name: ViewData.of(
                name,
                rows.get(name, "persons"),
                some,
                parts={"network": name} if name == "objects" else {},
                facts={"classes": list("abcde")} if name == "objects" else {},
                weights=[{"network": "made", "trained": name != "depth"}],
            )
            for name, some in views.items()
        },
        "boxes": boxes.astype(np.float32),
        "sizes": np.tile([[640, 480]], (count, 1)),
        "pictures": pictures,
        "labels": NAMES,
        "targets": targets,
        "splits": split,
        "status": np.full(persons, "ok", dtype=object),
    }


def features(plant: str = "body", persons: int = 480, seed: int = 0) -> Features:
    return from_arrays(**arrays(plant, persons, seed))


def write_cache(root: Path, given: dict[str, Any]) -> None:
    """The same arrays as a cache on disk, by the store's own writer."""
    persons, pictures = len(given["boxes"]), len(given["sizes"])
    vad = given.get("vad", np.full((persons, 3), np.nan, np.float32))
    index = Index(
        dataset="made",
        note="made-up labels",
        labels=tuple(given["labels"]),
        pictures=pa.table(
            {
                "id": [f"picture{i}" for i in range(pictures)],
                "path": [f"{i}.jpg" for i in range(pictures)],
                "width": given["sizes"][:, 0],
                "height": given["sizes"][:, 1],
                "split": [""] * pictures,
                "source": ["made"] * pictures,
                "group": [""] * pictures,
                "attributes": [""] * pictures,
                "status": ["ok"] * pictures,
                "reason": [""] * pictures,
            },
            schema=PICTURES,
        ),
        persons=pa.table(
            {
                "id": [f"person{i}" for i in range(persons)],
                "picture": given["pictures"],
                **{s: given["boxes"][:, i] for i, s in enumerate(("x1", "y1", "x2", "y2"))},
                "origin": ["annotated"] * persons,
                "face": [None] * persons,
                "split": list(given["splits"]),
                "labels": list(given["targets"]),
                "annotators": [1] * persons,
                "votes": [None] * persons,
                **dict(zip(("valence", "arousal", "dominance"), vad.T, strict=True)),
                "gender": [""] * persons,
                "age": [""] * persons,
                "status": list(given["status"]),
                "reason": [""] * persons,
            },
            schema=PERSONS,
        ),
    )
    index.write(root)
    words = {code: word for word, code in STATUS.items()}
    for name, view in given["views"].items():
        spec = replace(
            view.spec,
            arrays={
                array: ArraySpec(values.shape[1:], str(values.dtype))
                for array, values in view.arrays.items()
            },
            parts={"view": name, **view.spec.parts},
        )
        count = len(view.status)
        writer = ViewWriter(root, spec, [f"{name}{i}" for i in range(count)], shard_rows=64)
        rows = [row for row in range(count) if view.status[row] != STATUS["absent"]]
        writer.expect(rows)
        for row in rows:
            word = words[int(view.status[row])]
            values = {array: some[row] for array, some in view.arrays.items()}
            writer.put(row, Row(word, values, "" if word == "ok" else word))
        writer.close()
