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
Label graphs are not planted here, given the features they tell nothing of a label's logit; what
they are worth where persons are few: planted_labels.py. RRLA's parts: planted_rrla.py.
"""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from made import machine  # isort: split

from cache.statuses import STATUS
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

    def best(self, without: str = "") -> np.ndarray:
        """(P, C) the best scores of a head that lacks a part."""
        terms = dict(self.terms)
        if without in self.seen:
            term, seen = terms["objects"], self.seen[without]
            terms["objects"] = (term * seen).sum() / (seen * seen).sum() * seen
        else:
            terms.pop(without, None)
        return sum(terms.values())


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
    weights = {"by distance": softmax(1 / gap), "literal distance": softmax(1 / corners)}
    weights["darn"] = np.full((persons, K), 1 / K)

    signals = {view: rng.normal(size=(persons, LABELS)) for view in STRENGTHS if view != "objects"}
    face = rng.random(persons) >= FACELESS
    signals["head"] *= face[:, None]
    each = rng.normal(size=(persons, K, LABELS))
    seen = {name: (w[..., None] * each).sum(1) for name, w in weights.items()}
    signals["objects"] = seen["by distance" if near else "darn"]
    terms = {view: strengths[view] * signals[view] for view in STRENGTHS}
    logit = BIAS + sum(terms.values())
    targets = drawn(rng, logit)

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
    features = from_arrays(
        views={
            name: ViewData.of(
                name, rows.get(name, "persons"), some, status[name], facts=facts.get(name, {})
            )
            for name, some in arrays.items()
        },
        boxes=boxes.astype(np.float32),
        sizes=np.tile([[640, 480]], (persons, 1)),
        pictures=np.arange(persons),
        labels=[f"label {n}" for n in range(LABELS)],
        targets=targets,
        splits=split_of(persons),
    )
    return Planted(features, terms, {name: seen[name] for name in ("darn", "literal distance")})


def split_of(persons: int) -> np.ndarray:
    edges = (np.cumsum(list(SPLITS.values())) * persons).astype(int)
    return np.array(list(SPLITS))[np.searchsorted(edges, np.arange(persons), "right")]


def drawn(rng: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    """Labels 0 or 1 with these logits."""
    return (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(np.float32)


def softmax(values: np.ndarray) -> np.ndarray:
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


class Truth(Protocol):
    """Made persons, and what is known of their labels."""

    @property
    def features(self) -> Features: ...

    def best(self, without: str = "") -> np.ndarray:
        """(P, C) the best scores of a head that lacks a part."""
        ...


def test_map(features: Features, settings: Train) -> float:
    """mAP on test of the head fitted under these settings."""
    rows = features.rows("test")
    model = fit(features, settings).model
    return mean_average_precision(features.truth(rows).numpy(), predict(model, features, rows))


def compare(
    seeds: int,
    plant: Callable[[int], Truth],
    measure: Callable[[Truth, int, str], float],
    names: Sequence[str],
) -> dict[str, Any]:
    """Predicted and measured loss of each part, in points of mAP on test.

    plant: the persons of a seed; measure: mAP of the head that lacks a part, "" for the whole one.
    """
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in range(seeds):
        truth = plant(seed)
        rows = truth.features.rows("test")
        true = truth.features.truth(rows).numpy()
        best = {
            name: mean_average_precision(true, truth.best(name)[rows.numpy()])
            for name in ("", *names)
        }
        whole = measure(truth, seed, "")
        found["whole"].append((best[""], whole))
        found["random"].append((random_order(true), 0.0))
        for name in names:
            found[name].append((best[""] - best[name], whole - measure(truth, seed, name)))
    (optimum, whole_), chance = zip(*found["whole"], strict=True), found["random"]
    return {
        "optimal_mAP": points(optimum),
        "head_mAP": points(whole_),
        "of_optimum": round(statistics.mean(whole_) / statistics.mean(optimum), 4),
        "random_mAP": points([c for c, _ in chance])[0],
        "losses": {
            name: {
                "predicted": points([p for p, _ in found[name]])[0],
                "measured": points([m for _, m in found[name]]),
            }
            for name in names
        },
    }


def points(values: Sequence[float]) -> list[float]:
    """Mean over seeds and its standard error, in percent."""
    spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
    return [round(100 * statistics.mean(values), 2), round(100 * spread, 2)]


def arguments(about: str, persons: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--persons", type=int, default=persons)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    return parser.parse_args()


def say(asked: argparse.Namespace, found: Mapping[str, dict[str, Any]]) -> None:
    """Print what `compare` gave, by name."""
    if asked.json:
        about = {"machine": machine(*PACKAGES), "persons": asked.persons, "seeds": asked.seeds}
        print(json.dumps({**about, **found}))
        return
    for which, some in found.items():
        print(
            f"{which}: optimum {some['optimal_mAP'][0]}, the head {some['head_mAP'][0]} "
            f"({some['of_optimum']:.3f} of it), random {some['random_mAP']}"
        )
        for name, row in some["losses"].items():
            low, error = row["measured"]
            print(
                f"  {name:18} predicted {row['predicted']:6.2f}  measured {low:6.2f} +- {error:.2f}"
            )


def measure(truth: Truth, seed: int, without: str) -> float:
    return test_map(truth.features, settings_of(seed, ABLATIONS.get(without, {})))


def main() -> None:
    asked = arguments(__doc__, 8000)

    def of(strengths: Mapping[str, float], near: bool) -> Callable[[int], Truth]:
        return lambda seed: plant(asked.persons, seed, strengths, near)

    planted = compare(asked.seeds, of(STRENGTHS, True), measure, list(ABLATIONS))
    absent = compare(asked.seeds, of(ABSENT, False), measure, ["head", "depth", "darn"])
    say(asked, {"planted": planted, "absent": absent})


if __name__ == "__main__":
    main()
