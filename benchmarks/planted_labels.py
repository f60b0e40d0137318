"""What do label graphs know that few persons do not? Labels that share weights, of known worth.

    python benchmarks/planted_labels.py [--persons 500] [--seeds 5] [--json]

24 labels in 6 groups: y_c ~ Bernoulli(sigmoid(b + w_c . x)), the weights of a group alike up to a
tenth of their variance. Given all weights, the other labels tell nothing; but weights have to be
learned from `--persons` persons of train, and who knows the groups can learn a label from the
others of its group. What that is worth has a closed prior, w ~ N(0, K): `predicted` is the mAP of
the most probable weights (logistic regression with that prior) under the true K, less that of

cooccurrence   no groups, K = 1: the head without that graph, where definitions are random vectors
eld            the same of RRLA, in whose graph labels that occur together are linked
link           RRLA's graph without its links: each label for itself, from its vector
definitions    wrong groups: the head without co-occurrence, given definitions that tell the groups,
               against the same definitions dealt to other labels
hegl           no groups: the head without both graphs

`absent` has labels that share nothing, so that all of these are worth nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from planted import Truth, arguments, compare, drawn, say, test_map
from torch.nn import functional as F

from train.data import Features, ViewData, from_arrays
from train.settings import Train

LABELS, GROUPS, WIDTH, TEXT = 24, 6, 24, 64
BIAS, SCALE, ALIKE = -3.0, 2.5, 0.9  # of a label's weights, the share that is its group's
NOISE = 0.3  # of a definition, beside its group's vector of deviation 1
TEST = 3000
OTHERS = ["head", "objects", "depth", "scene"]


@dataclass(frozen=True)
class Planted:
    """x (P, D) and what a prior K of the labels' weights makes of them; dealt: the features with
    definitions of other labels."""

    features: Features
    dealt: Features
    scores: Mapping[str, np.ndarray]

    def best(self, without: str = "") -> np.ndarray:
        return self.scores[{"": "true", "definitions": "dealt"}.get(without, "none")]


def plant(persons: int, seed: int, alike: float, told: bool) -> Planted:
    """alike: the share of a label's weights that its group has; told: whether definitions tell the
    groups."""
    rng = np.random.default_rng(seed)
    count, group = 2 * persons + TEST, np.arange(LABELS) % GROUPS
    x = rng.normal(size=(count, WIDTH))
    of_group, own = rng.normal(size=(GROUPS, WIDTH)), rng.normal(size=(LABELS, WIDTH))
    weights = np.sqrt(alike) * of_group[group] + np.sqrt(1 - alike) * own
    targets = drawn(rng, BIAS + SCALE / WIDTH**0.5 * x @ weights.T)
    text = rng.normal(size=(LABELS, TEXT))
    if told:
        text = rng.normal(size=(GROUPS, TEXT))[group] + NOISE * text
    deal = rng.permutation(LABELS)
    prior = alike * (group[:, None] == group) + (1 - alike) * np.eye(LABELS)
    priors = {"true": prior, "dealt": prior[deal][:, deal], "none": np.eye(LABELS)}
    # A feature that is always 1, as those of networks are above 0: RRLA's labels have no bias.
    body = np.concatenate([x, np.ones((count, 1))], 1).astype(np.float32)

    def of(text: np.ndarray) -> Features:
        views = {"body": ("persons", body), "labels": ("labels", text.astype(np.float32))}
        return from_arrays(
            views={
                name: ViewData.of(name, rows, {"features": some})
                for name, (rows, some) in views.items()
            },
            boxes=np.tile(np.float32([0, 0, 9, 9]), (count, 1)),
            sizes=np.full((count, 2), 99),
            pictures=np.arange(count),
            labels=[f"label {n}" for n in range(LABELS)],
            targets=targets,
            splits=np.repeat(["train", "val", "test"], [persons, persons, TEST]),
        )

    scores = {
        name: x @ most_probable(x[:persons], targets[:persons], k).T for name, k in priors.items()
    }
    return Planted(of(text), of(text[deal]), scores)


def most_probable(x: np.ndarray, targets: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(C, D) weights of the logistic model, w_cd ~ N(0, prior) over c, a free bias a label."""
    seen, true = torch.from_numpy(x), torch.from_numpy(targets).double()
    inverse = torch.linalg.inv(torch.from_numpy(prior) * SCALE**2 / WIDTH)
    weights = torch.zeros(LABELS, WIDTH, dtype=torch.float64, requires_grad=True)
    bias = torch.full((LABELS,), BIAS, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrong = F.binary_cross_entropy_with_logits(seen @ weights.T + bias, true, reduction="sum")
        total = wrong + torch.einsum("cd,ce,ed->", weights, inverse, weights) / 2
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach().numpy()


def settings_of(head: str, seed: int, own: Mapping[str, Any]) -> Train:
    how = {"epochs": 60, "batch": 50, "lr": 3e-3, "weight_decay": 0.1, "patience": 12}
    small = {
        "hugme": {"hidden": [64, 32], "label_width": 64, "graph_width": 128, "dropout": 0.2},
        "rrla": {"words": "labels", "graph_width": 64},
    }
    some = {head: {**small[head], **own}}
    return Train.model_validate({"head": head, "seed": seed, **how, **some})


def with_hugme(truth: Truth, seed: int, without: str) -> float:
    gone = [*OTHERS, without] if without else OTHERS
    return test_map(truth.features, settings_of("hugme", seed, {"without": gone}))


def with_definitions(truth: Any, seed: int, without: str) -> float:
    features = truth.dealt if without else truth.features
    own = {"without": [*OTHERS, "cooccurrence"]}
    return test_map(features, settings_of("hugme", seed, own))


def with_rrla(truth: Truth, seed: int, without: str) -> float:
    own: dict[str, Any] = {"without": ["objects", "bpa"]}
    if without == "link":
        own |= {"threshold": 1.0, "share": 0.0}
    elif without:
        own["without"] = [*own["without"], without]
    return test_map(truth.features, settings_of("rrla", seed, own))


def main() -> None:
    asked = arguments(__doc__, 500)
    # Matrices this small gain nothing from more threads, and wait for each other on a busy machine.
    torch.set_num_threads(1)
    found = {}
    for which, alike in (("planted", ALIKE), ("absent", 0.0)):
        for head, told, measure, names in (
            ("hugme", False, with_hugme, ["cooccurrence", "hegl"]),
            ("hugme, definitions", True, with_definitions, ["definitions"]),
            ("rrla", False, with_rrla, ["eld", "link"]),
        ):

            def make(seed: int, alike: float = alike, told: bool = told) -> Planted:
                return plant(asked.persons, seed, alike, told)

            found[f"{which}, {head}"] = compare(asked.seeds, make, measure, names)
    say(asked, found)


if __name__ == "__main__":
    main()
