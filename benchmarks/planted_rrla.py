"""Does each part of RRLA earn its place? Features in which each carries a signal of known worth.

    python benchmarks/planted_rrla.py [--persons 16000] [--seeds 5] [--json]

Labels are drawn: y_c ~ Bernoulli(sigmoid(b + a body_c + a' sum_m alpha_m s_mc)).

body      one of two sets of signals in the body's features; a third feature says which: a gate of
          the channels (BPA) can choose, a linear layer sees their mean
objects   alpha = softmax(2 q r_m - 2 d_m): whether the kind r_m = +-1 of an object is the one that
          the body's features ask for (q), and its distance d_m in sides of the subject. Equal
          weights (without BOA) see the mean of s, BOA without geometry the mean over distances

ELD and the labels' vectors carry nothing here: planted_labels.py. What a part is worth
(`predicted`) stands beside what the head loses without it (`measured`), as in planted.py.
`absent` has the same features, and labels for which the first set of the body counts and all
objects alike.
"""

from dataclasses import dataclass

import numpy as np
from planted import LABELS, Truth, arguments, compare, drawn, say, softmax, split_of, test_map

from train.data import Features, ViewData, from_arrays
from train.settings import Train

K, NOISE = 6, 6
BIAS, BODY, OBJECTS = -1.5, 1.2, 1.8
KIND, NEAR = 1.5, 2.0  # how much kind and distance of an object decide
DRAWS = 100  # of distances, for the mean over them
SIDE = 2000


@dataclass(frozen=True)
class Planted:
    """body, objects: name of what a head can see -> (P, C), that part of the logit."""

    features: Features
    body: dict[str, np.ndarray]
    objects: dict[str, np.ndarray]

    def best(self, without: str = "") -> np.ndarray:
        body = self.body["linear" if without == "bpa" else "whole"]
        if without == "objects":
            return body
        return body + self.objects.get(without, self.objects["whole"])


def plant(persons: int, seed: int, related: bool) -> Planted:
    """related: whether kind, distance and the third feature of the body mean anything."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, persons, LABELS))
    chosen, asked = rng.choice([-1.0, 1.0], (2, persons, 1))
    body = {
        "whole": BODY * np.where(chosen > 0, first, second),
        "linear": BODY * (first + second) / 2,
    }
    if not related:
        body = {"whole": BODY * first, "linear": BODY * first}
    channels = [first, second, 2 * chosen, 2 * asked, rng.normal(size=(persons, NOISE))]

    corner, sides = rng.uniform(600, 1200, (persons, 2)), rng.uniform(60, 120, (persons, 2))
    apart = np.exp(rng.uniform(-2.5, 1.5, (persons, K, 2))) * rng.choice([-1, 1], (persons, K, 2))
    middle = (corner + sides / 2)[:, None] + apart * sides[:, None]
    distance = np.linalg.norm(apart, axis=-1)
    kind = rng.choice([-1.0, 1.0], (persons, K))
    each = rng.normal(size=(persons, K, LABELS))

    def pull(distance: np.ndarray) -> np.ndarray:
        return softmax(KIND * asked * kind - NEAR * distance)

    others = (rng.permutation(distance.ravel()).reshape(distance.shape) for _ in range(DRAWS))
    equal = np.full((persons, K), 1 / K)
    weights = {
        "whole": pull(distance) if related else equal,
        "geometry": sum(pull(other) for other in others) / DRAWS if related else equal,
        "boa": equal,
    }
    objects = {name: OBJECTS * (w[..., None] * each).sum(1) for name, w in weights.items()}
    targets = drawn(rng, BIAS + body["whole"] + objects["whole"])

    seen = np.concatenate([each, 2 * kind[..., None], rng.normal(size=(persons, K, NOISE + 1))], -1)
    turn, _ = np.linalg.qr(rng.normal(size=(seen.shape[-1], seen.shape[-1])))
    arrays = {
        "body": {"features": np.concatenate(channels, 1)},
        "objects": {
            "features": seen @ turn,
            "box": np.concatenate([middle - 20, middle + 20], -1),
            "label": np.zeros((persons, K), np.int16),
            "count": np.full(persons, K, np.int16),
        },
        "labels": {"features": rng.normal(size=(LABELS, 16))},
    }
    views = {
        name: ViewData.of(
            name,
            "labels" if name == "labels" else "persons",
            {n: a.astype(np.float32) if a.dtype == float else a for n, a in some.items()},
            facts={"classes": ["thing"]} if name == "objects" else {},
        )
        for name, some in arrays.items()
    }
    features = from_arrays(
        views=views,
        boxes=np.concatenate([corner, corner + sides], 1).astype(np.float32),
        sizes=np.full((persons, 2), SIDE),
        pictures=np.arange(persons),
        labels=[f"label {n}" for n in range(LABELS)],
        targets=targets,
        splits=split_of(persons),
    )
    return Planted(features, body, objects)


def measure(truth: Truth, seed: int, without: str) -> float:
    rrla = {
        **{"heads": 2, "width": 8, "values": 16, "squeeze": 2, "graph_width": 64},
        **{"regions": "features", "words": "labels", "without": [without] if without else []},
    }
    how = {"epochs": 15, "batch": 128, "lr": 5e-3, "schedule": "cosine", "weight_decay": 0.3}
    return test_map(
        truth.features, Train.model_validate({"head": "rrla", "seed": seed, **how, "rrla": rrla})
    )


def main() -> None:
    asked = arguments(__doc__, 16_000)
    names = ["objects", "boa", "geometry", "bpa", "eld"]
    found = {
        which: compare(asked.seeds, lambda s, r=related: plant(asked.persons, s, r), measure, some)
        for which, related, some in (
            ("planted", True, names),
            ("absent", False, ["boa", "geometry", "bpa"]),
        )
    }
    say(asked, found)


if __name__ == "__main__":
    main()
