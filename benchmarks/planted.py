"""Does each part of HugMe earn its place? Features in which each carries a signal of known worth.

    python benchmarks/planted.py [--persons 8000] [--seeds 5] [--json]

Labels are drawn: y_c ~ Bernoulli(sigmoid(b + sum_v a_v s_vc)), the signals s of each view standard
normal, independent, and hidden in its features by a rotation among as much noise. The signal of
the objects is sum_m alpha_m s_mc with alpha = softmax(1 / distance) between centres, in diagonals.
So the best score a label can have is its logit; without a view, the logit without its term; with
other weights alpha' of the objects, their term regressed on sum_m alpha'_m s_mc. Each is measured
on the same test persons: what a part is worth (`predicted`) stands beside what the head loses
without it (`measured`, a mean over seeds of data and head, with the standard error).

`absent` has the same features, and labels in which head, depth and the distances mean nothing.
Label graphs are not planted here: given the features they tell nothing of a label's logit.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from made import machine  # isort: split

from cache.store import STATUS
from train.data import Features, ViewData, from_arrays
from train.fit import fit, predict
from train.metrics import mean_average_precision, random_order
from train.settings import Train

LABELS, WIDTH, K, GRID = 8, 16, 4, 2
BIAS = -1.5
STRENGTHS = {"body": 1.0, "head": 0.9, "objects": 1.2, "depth": 0.7, "scene": 1.0}
ABSENT = {**STRENGTHS, "head": 0.0, "depth": 0.0}
FACELESS = 0.2
SPLITS = {"train": 0.5, "val": 0.15, "test": 0.35}
PACKAGES = ["torch", "numpy", "scikit-learn"]
# What is taken away, and the settings that do it.
ABLATIONS: dict[str, dict[str, Any]] = {
    **{part: {"without": [part]} for part in STRENGTHS},
    "darn": {"without": ["darn"]},
    "hegl": {"without": ["hegl"]},
    "cooccurrence": {"without": ["cooccurrence"]},
    "similarity": {"without": ["similarity"]},
    "literal distance": {"darn": {"distance": "corner", "unit": "pixel"}},
    "literal output": {"output": "literal"},
}


@dataclass(frozen=True)
class Planted:
    """features: what a head is given; terms: view -> (P, C), its part of the logit; seen: name of a
    weighting -> (P, C), the objects' signal under it."""

    features: Features
    terms: Mapping[str, np.ndarray]
    seen: Mapping[str, np.ndarray]

    def best(self, without: str = "", rows: np.ndarray | None = None) -> np.ndarray:
        """The best scores of a head that lacks a part."""
        terms = dict(self.terms)
        if without in self.seen:
            term, seen = terms["objects"], self.seen[without]
            terms["objects"] = (term * seen).sum() / (seen * seen).sum() * seen
        else:
            terms.pop(without, None)
        whole = sum(terms.values())
        return whole if rows is None else whole[rows]


def plant(persons: int, seed: int, strengths: Mapping[str, float], near: bool = True) -> Planted:
    """near: whether the labels hang on near objects, or on all alike."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(50, 300, (persons, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(40, 120, (persons, 2))], 1)
    centres = rng.uniform(0, [640, 480], (persons, K, 2))
    objects = np.concatenate([centres - 20, centres + 20], -1)
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    gap = np.maximum(np.linalg.norm(centres - middle, axis=-1), 1) / np.hypot(640, 480)
    corners = np.maximum(np.linalg.norm(objects[..., :2] - boxes[:, None, :2], axis=-1), 1)
    weights = {"by distance": _softmax(1 / gap), "literal distance": _softmax(1 / corners)}
    weights["darn"] = np.full((persons, K), 1 / K)

    signals = {view: rng.normal(size=(persons, LABELS)) for view in STRENGTHS if view != "objects"}
    face = rng.random(persons) >= FACELESS
    signals["head"] *= face[:, None]
    each = rng.normal(size=(persons, K, LABELS))
    seen = {name: (w[..., None] * each).sum(1) for name, w in weights.items()}
    signals["objects"] = seen["by distance" if near else "darn"]
    terms = {view: strengths[view] * signals[view] for view in STRENGTHS}
    logit = BIAS + sum(terms.values())
    targets = (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)

    def hide(signal: np.ndarray) -> np.ndarray:
        noise = rng.normal(size=(*signal.shape[:-1], WIDTH - LABELS))
        turn, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
        return (np.concatenate([signal, noise], -1) @ turn).astype(np.float32)

    arrays: dict[str, dict[str, np.ndarray]] = {
        view: {"features": hide(signals[view])} for view in ("body", "head", "depth", "scene")
    }
    arrays["depth"]["map"] = rng.normal(size=(persons, GRID, GRID)).astype(np.float32)
    arrays["objects"] = {
        "features": hide(each),
        "box": objects.astype(np.float32),
        "label": rng.integers(0, 5, (persons, K)).astype(np.int16),
        "count": np.full(persons, K, np.int16),
    }
    arrays["labels"] = {"features": rng.normal(size=(LABELS, 8)).astype(np.float32)}
    rows = {"depth": "pictures", "scene": "pictures", "labels": "labels"}
    facts = {"objects": {"classes": list("abcde")}}
    status = {name: np.ones(len(some["features"]), np.uint8) for name, some in arrays.items()}
    status["head"][~face] = STATUS["no_face"]
    edges = (np.cumsum(list(SPLITS.values())) * persons).astype(int)
    features = from_arrays(
        views={
            name: ViewData(rows.get(name, "persons"), some, status[name], facts=facts.get(name, {}))
            for name, some in arrays.items()
        },
        boxes=boxes.astype(np.float32),
        sizes=np.tile([[640, 480]], (persons, 1)),
        pictures=np.arange(persons),
        labels=[f"label {n}" for n in range(LABELS)],
        targets=targets,
        splits=np.array(list(SPLITS))[np.searchsorted(edges, np.arange(persons), "right")],
    )
    return Planted(features, terms, {name: seen[name] for name in ("darn", "literal distance")})


def _softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def settings_of(seed: int, hugme: Mapping[str, Any]) -> Train:
    small = {"hidden": [256, 128], "object_embedding": 4, "label_width": 16, "graph_width": 32}
    return Train.model_validate(
        {
            "seed": seed,
            "epochs": 40,
            "batch": 128,
            "lr": 2e-3,
            "weight_decay": 0.02,
            "patience": 8,
            "hugme": {**small, "dropout": 0.3, **hugme},
        }
    )


def measure(planted: Planted, seed: int, hugme: Mapping[str, Any]) -> float:
    """mAP on test of the head fitted under these settings."""
    features = planted.features
    rows = features.rows("test")
    model = fit(features, settings_of(seed, hugme)).model
    return mean_average_precision(features.truth(rows).numpy(), predict(model, features, rows))


def compare(
    persons: int, seeds: int, strengths: Mapping[str, float], near: bool, names: list[str]
) -> dict[str, Any]:
    """Predicted and measured loss of each ablation, in points of mAP."""
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in range(seeds):
        planted = plant(persons, seed, strengths, near)
        rows = planted.features.rows("test")
        true = planted.features.truth(rows).numpy()

        def best(
            without: str = "", p: Planted = planted, t: np.ndarray = true, r: Any = rows
        ) -> float:
            return mean_average_precision(t, p.best(without, r.numpy()))

        whole, optimum = measure(planted, seed, {}), best()
        found["whole"].append((optimum, whole))
        found["random"].append((random_order(true), 0.0))
        for name in names:
            lost = whole - measure(planted, seed, ABLATIONS[name])
            found[name].append((optimum - best(name), lost))

    def mean(values: list[float]) -> list[float]:
        spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
        return [round(100 * statistics.mean(values), 2), round(100 * spread, 2)]

    (optimum, whole), chance = zip(*found["whole"], strict=True), found["random"]
    return {
        "optimal_mAP": mean(list(optimum)),
        "hugme_mAP": mean(list(whole)),
        "of_optimum": round(statistics.mean(whole) / statistics.mean(optimum), 4),
        "random_mAP": round(100 * statistics.mean(c for c, _ in chance), 2),
        "losses": {
            name: {
                "predicted": round(100 * statistics.mean(p for p, _ in found[name]), 2),
                "measured": mean([m for _, m in found[name]]),
            }
            for name in names
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    gone = ["head", "depth", "darn"]
    result = {
        "machine": machine(*PACKAGES),
        "persons": asked.persons,
        "seeds": asked.seeds,
        "planted": compare(asked.persons, asked.seeds, STRENGTHS, True, list(ABLATIONS)),
        "absent": compare(asked.persons, asked.seeds, ABSENT, False, gone),
    }
    if asked.json:
        print(json.dumps(result))
        return
    for which in ("planted", "absent"):
        found = result[which]
        print(
            f"{which}: optimum {found['optimal_mAP'][0]}, HugMe {found['hugme_mAP'][0]} "
            f"({found['of_optimum']:.3f} of it), random {found['random_mAP']}"
        )
        for name, row in found["losses"].items():
            low, error = row["measured"]
            print(
                f"  {name:18} predicted {row['predicted']:6.2f}  measured {low:6.2f} +- {error:.2f}"
            )


if __name__ == "__main__":
    main()
