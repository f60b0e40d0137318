"""Does each part of HeLo earn its place? Made modalities in which each has something to do.

    python benchmarks/planted_helo.py [--persons 8000] [--few 300] [--seeds 5] [--json]

matching  What counts can only be known from two modalities: one has 4 slots, each with a kind (a
          permutation in each person) and values of all labels, and another says which kind counts.
          The shares are softmax(a v + b w + c u): v, the values of the slot of `gsr` that `eeg` asks
          for, both physiological, so that cross-attention can bring it; w, of `face`, which is
          behavioural, so that transport can; u lies open in `ppg`. Who cannot match sees the mean of
          the slots: `predicted` is what that costs at least. Each modality is turned by a rotation.
          The encoder attends over both sides too, so that each part is also taken from a head
          without it ("encoder, cross" against "encoder").
few       24 labels in 6 groups, the weights of a group alike up to a tenth of their variance, and
          `--few` persons of train with the shares of 10 votes, judged by the shares that these are
          drawn from. `predicted` is what knowing the groups is worth to the most probable weights
          of a multinomial logistic model: with the true prior, against one without groups.

`absent` has the same features where these mean nothing: the mean of the slots counts whatever is
asked, and labels share no weights.

KL of test is between the true shares and those predicted, in percent of that of the mean of train.
What a part is worth: KL without it less KL with it, mean over seeds of data and head, standard
error, and the 95 % interval of the pairs by Student's t.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from planted import machine, softmax
from scipy import stats

from train.data import Features, ViewData, from_arrays
from train.fit import fit, predict
from train.settings import Train

PACKAGES = ["torch", "numpy", "scipy"]
LABELS, SLOTS = 6, 4
CROSS, TRANSPORT, OPEN = 1.5, 1.5, 0.7  # deviation of a logit by v, w and u
MANY, GROUPS, WIDTH, ALIKE, SCALE, VOTES = 24, 6, 24, 0.9, 2.0, 10
TEST = 2000
ROLES = {"eeg": "physiological", "gsr": "physiological", "ppg": "physiological"}
MATCHING = [
    *(["cross"], ["transport"], ["encoder"], ["alignment"], ["labels"], ["distribution"]),
    *(["encoder", "cross"], ["encoder", "transport"], ["encoder", "cross", "transport"]),
]
FEW = [["alignment"], ["labels"], ["distribution"]]


@dataclass(frozen=True)
class Planted:
    """true (P, C): the shares the labels are drawn from; best: what is left out -> (P, C), the
    shares that the best head without it could give."""

    features: Features
    true: np.ndarray
    best: Mapping[str, np.ndarray]


def features_of(
    arrays: Mapping[str, np.ndarray], targets: np.ndarray, splits: np.ndarray
) -> Features:
    count = len(targets)
    return from_arrays(
        views={
            name: ViewData.of(
                name,
                "persons",
                {"features": values.astype(np.float32)},
                facts={"role": ROLES.get(name, "behavioural")},
            )
            for name, values in arrays.items()
        },
        boxes=np.tile(np.float32([0, 0, 9, 9]), (count, 1)),
        sizes=np.full((count, 2), 9),
        pictures=np.arange(count),
        labels=[f"label {n}" for n in range(targets.shape[1])],
        targets=targets.astype(np.float32),
        splits=splits,
        kind="distribution",
    )


def matching(persons: int, seed: int, related: bool) -> Planted:
    """related: whether what is asked for counts, or the mean of the slots."""
    rng = np.random.default_rng(seed)
    at = np.arange(persons)

    def slots() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Features of the slots, of the question, the values that count, and their mean."""
        values = rng.normal(size=(persons, SLOTS, LABELS))
        kinds = rng.permuted(np.tile(np.arange(SLOTS), (persons, 1)), axis=1)
        asked = rng.integers(0, SLOTS, persons)
        chosen = values[at, (kinds == asked[:, None]).argmax(1)]
        mean = values.mean(1)
        eye = 2 * np.eye(SLOTS)
        seen = np.concatenate([values, eye[kinds]], -1).reshape(persons, -1)
        # Slots that do not count are as strong as one that does.
        return seen, eye[asked], chosen if related else SLOTS**0.5 * mean, mean

    first, first_asked, v, v_mean = slots()
    other, other_asked, w, w_mean = slots()
    u = rng.normal(size=(persons, LABELS))
    arrays = {
        "eeg": turned(rng, np.concatenate([first_asked, other_asked], 1)),
        "gsr": turned(rng, first),
        "ppg": turned(rng, np.concatenate([u, rng.normal(size=(persons, LABELS))], 1)),
        "face": turned(rng, other),
    }
    a, b = CROSS * v, TRANSPORT * w
    blind_a, blind_b = (CROSS * v_mean, TRANSPORT * w_mean) if related else (a, b)
    true = softmax(a + b + OPEN * u)
    best = {
        "cross": softmax(blind_a + b + OPEN * u),
        "transport": softmax(a + blind_b + OPEN * u),
        "cross, transport": softmax(blind_a + blind_b + OPEN * u),
    }
    splits = np.repeat(
        ["train", "val", "test"],
        [persons - TEST - persons // 8, persons // 8, TEST],
    )
    return Planted(features_of(arrays, true, splits), true, best)


def few(persons: int, seed: int, alike: float) -> Planted:
    """alike: the share of a label's weights that its group has."""
    rng = np.random.default_rng(seed)
    count, group = 2 * persons + TEST, np.arange(MANY) % GROUPS
    x = rng.normal(size=(count, WIDTH))
    of_group, own = rng.normal(size=(GROUPS, WIDTH)), rng.normal(size=(MANY, WIDTH))
    weights = np.sqrt(alike) * of_group[group] + np.sqrt(1 - alike) * own
    true = softmax(SCALE / WIDTH**0.5 * x @ weights.T)
    votes = rng.multinomial(VOTES, true) / VOTES
    prior = alike * (group[:, None] == group) + (1 - alike) * np.eye(MANY)
    fitted = {
        name: softmax(x @ most_probable(x[:persons], votes[:persons], k).T)
        for name, k in {"": prior, "labels": np.eye(MANY)}.items()
    }
    half = WIDTH // 2
    arrays = {"eeg": x[:, : half // 2], "gsr": x[:, half // 2 : half], "face": x[:, half:]}
    splits = np.repeat(["train", "val", "test"], [persons, persons, TEST])
    return Planted(features_of(arrays, votes, splits), true, fitted)


def most_probable(x: np.ndarray, shares: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """(C, D) weights of the multinomial logistic model, w_cd ~ N(0, prior) over c."""
    seen, true = torch.from_numpy(x), VOTES * torch.from_numpy(shares)
    inverse = torch.linalg.inv(torch.from_numpy(prior) * SCALE**2 / WIDTH)
    weights = torch.zeros(MANY, WIDTH, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        wrong = -(true * (seen @ weights.T).log_softmax(-1)).sum()
        total = wrong + torch.einsum("cd,ce,ed->", weights, inverse, weights) / 2
        total.backward()
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weights.detach().numpy()


def turned(rng: np.random.Generator, values: np.ndarray) -> np.ndarray:
    turn, _ = np.linalg.qr(rng.normal(size=(values.shape[1], values.shape[1])))
    return values @ turn


def divergence(true: np.ndarray, found: np.ndarray) -> float:
    """Mean KL(true || found)."""
    return float((true * np.log(true / found.clip(1e-12))).sum(1).mean())


def measure(truth: Planted, seed: int, without: Sequence[str], how: Mapping[str, Any]) -> float:
    helo = {"width": 32, "tokens": [4, 4], "heads": 2, "hidden": 64, "steps": 20, "dropout": 0.0}
    settings = {"head": "helo", "seed": seed, "schedule": "cosine", **how}
    settings["helo"] = {**helo, **how.get("helo", {}), "without": list(without)}
    features = truth.features
    model = fit(features, Train.model_validate(settings)).model
    rows = features.rows("test")
    return divergence(truth.true[rows.numpy()], predict(model, features, rows))


def compare(
    seeds: int,
    plant: Callable[[int], Planted],
    ablations: Sequence[Sequence[str]],
    how: Mapping[str, Any],
) -> dict[str, Any]:
    """KL of the head, and what is added to it, in percent of that of the mean of train."""
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(seeds):
        truth = plant(seed)
        test, train = (truth.features.rows(split).numpy() for split in ("test", "train"))
        true = truth.true[test]
        mean = truth.features.truth(torch.from_numpy(train)).numpy().mean(0)
        unit = divergence(true, np.tile(mean, (len(test), 1))) / 100
        optimum = divergence(true, truth.best[""][test]) if "" in truth.best else 0.0
        for name, shares in truth.best.items():
            found[f"best {name}"].append((divergence(true, shares[test]) - optimum) / unit)
        found["optimum"].append(optimum / unit)
        for without in ([], *ablations):
            found[", ".join(without)].append(measure(truth, seed, without, how) / unit)
    rows = {}
    for without in ablations:
        name = ", ".join(without)
        # A part beside the encoder is compared with a head that has none either.
        rest = "encoder" if len(without) > 1 and without[0] == "encoder" else ""
        part = ", ".join(w for w in without if w != rest)
        gap = np.subtract(found[name], found[rest])
        known = found.get(f"best {part}")
        rows[name] = {
            "against": rest or "whole",
            "predicted": None if known is None else round(float(np.mean(known)), 2),
            "measured": [round(float(gap.mean()), 2), round(float(stats.sem(gap)), 2)]
            if seeds > 1
            else [round(float(gap.mean()), 2), None],
            "interval": interval(gap),
            "each": [round(float(one), 2) for one in gap],
        }
    whole = found[""]
    return {
        "optimum": round(float(np.mean(found["optimum"])), 2),
        "whole": [round(float(np.mean(whole)), 2), round(float(np.std(whole)), 2)],
        "losses": rows,
    }


def interval(gap: np.ndarray) -> list[float] | None:
    """Of 95 %, by Student's t over seeds."""
    if len(gap) < 2:
        return None
    half = stats.t.ppf(0.975, len(gap) - 1) * stats.sem(gap)
    return [round(float(gap.mean() + side * half), 2) for side in (-1, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=8000)
    parser.add_argument("--few", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", default="", help="of the plants, those whose name begins so")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    # Matrices this small gain nothing from more threads, and wait for each other on a busy machine.
    torch.set_num_threads(1)
    quick = {"epochs": 20, "batch": 128, "lr": 3e-3, "weight_decay": 0.01, "patience": 20}
    small = {"epochs": 60, "batch": 50, "lr": 2e-3, "weight_decay": 0.1, "patience": 15}
    plants: dict[str, tuple[Callable[[int], Planted], Any, Any]] = {
        "matching": (lambda s: matching(asked.persons, s, True), MATCHING, quick),
        "matching, absent": (lambda s: matching(asked.persons, s, False), MATCHING[:3], quick),
        "few": (lambda s: few(asked.few, s, ALIKE), FEW, small),
        "few, absent": (lambda s: few(asked.few, s, 0.0), FEW, small),
    }
    found = {
        name: compare(asked.seeds, *some)
        for name, some in plants.items()
        if name.startswith(asked.only)
    }
    if asked.json:
        about = {"machine": machine(*PACKAGES), "persons": asked.persons, "few": asked.few}
        print(json.dumps({**about, "seeds": asked.seeds, **found}))
        return
    for which, some in found.items():
        print(f"{which}: optimum {some['optimum']}, the head {some['whole'][0]} % of the mean's KL")
        for name, row in some["losses"].items():
            known = "    --" if row["predicted"] is None else f"{row['predicted']:6.2f}"
            mean, error = row["measured"]
            print(
                f"  {name:26} against {row['against']:8} predicted {known}  "
                f"measured {mean:6.2f} +- {error}  95 % {row['interval']}"
            )


if __name__ == "__main__":
    main()
