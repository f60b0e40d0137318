"""Does each part of HeLo earn its place? Made modalities in which each has something to do.

    python benchmarks/planted_helo.py [--persons 5000] [--few 300] [--seeds 5] [--json]

A pair of modalities that has to be matched: one holds two slots, each with a key (a direction, the
other slot's is opposite) and values of all labels; the other holds the key of the slot that counts.
Values add to the logits of the shares; which slot counts is known from agreement alone. Who cannot
match sees the mean of the slots: `blind` is what that costs at least. Each modality is turned by a
rotation, and some values lie open.

cross       `eeg` asks three other physiological modalities, and together they are wider than the
            tokens that they are joined to, so that what counts should be chosen before
transport   `eeg` asks `face`, which is behavioural
few         24 labels in 6 groups, the weights of a group alike up to a tenth of their variance, and
            `--few` persons of train with the shares of 10 votes, judged by the shares that these
            are drawn from. `blind`: the most probable weights of a multinomial logistic model that
            does not know the groups, against one that has the true prior

The encoder attends over all tokens as well, so that a part is also taken from a head without it
("encoder, cross" against "encoder"). `absent` has the same features, where the mean of the slots
counts whatever is asked, and where labels share no weights.

KL of test is between the true shares and those predicted, in percent of that of the mean of train.
What a part is worth: KL without it less KL with it, mean over seeds of data and head, standard
error, and the 95 % interval of the pairs by Student's t.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
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
LABELS, TEST = 3, 1500
STRENGTH, OPEN = 1.5, 0.7  # deviation of a logit by what is matched, and by what lies open
ASKED = ["gsr", "ppg", "emg"]
ROLES = dict.fromkeys(["eeg", *ASKED], "physiological")
MANY, GROUPS, WIDTH, ALIKE, SCALE, VOTES = 24, 6, 24, 0.9, 2.0, 10
MATCH = {"epochs": 20, "batch": 64, "lr": 3e-3, "weight_decay": 0.01, "patience": 20}
FEW = {"epochs": 60, "batch": 50, "lr": 5e-3, "weight_decay": 1.0, "patience": 15}
NARROW = {"width": 16, "tokens": [2, 2]}
LABELLED = [["alignment"], ["labels"], ["distribution"]]


@dataclass(frozen=True)
class Planted:
    """true (P, C): the shares the labels are drawn from; best: (P, C) the shares that are given
    at best ("", where that is not `true`), and by who is `blind`."""

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


def pair(
    rng: np.random.Generator, persons: int, width: int, related: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features of the slots, the key that is asked for (`width` numbers), the values that count,
    and what can be known of them without matching."""
    key = rng.normal(size=(persons, width))
    key *= width**0.5 / np.linalg.norm(key, axis=1, keepdims=True)
    keys = np.stack([key, -key], 1)
    values = rng.normal(size=(persons, 2, LABELS))
    asked, at = rng.integers(0, 2, persons), np.arange(persons)
    seen = np.concatenate([keys, values], -1).reshape(persons, -1)
    mean = values.mean(1)
    # The mean is as strong as one slot where it is what counts.
    chosen = values[at, asked] if related else 2**0.5 * mean
    return seen, keys[at, asked], chosen, mean if related else chosen


def matched(seed: int, persons: int, asked: Sequence[str], width: int, related: bool) -> Planted:
    """`eeg` asks each of `asked`, whose keys are `width` wide."""
    rng = np.random.default_rng(seed)
    pairs = {name: pair(rng, persons, width, related) for name in asked}
    u = rng.normal(size=(persons, LABELS))
    arrays = {name: turned(rng, seen) for name, (seen, *_) in pairs.items()}
    arrays["eeg"] = turned(rng, np.concatenate([some[1] for some in pairs.values()], 1))
    other = "face" if "face" not in pairs else "gsr"
    arrays[other] = turned(rng, u)
    scale = STRENGTH / len(asked) ** 0.5
    values, blind = (sum(some[n] for some in pairs.values()) for n in (2, 3))
    true, known = (softmax(scale * some + OPEN * u) for some in (values, blind))
    splits = np.repeat(
        ["train", "val", "test"], [persons - TEST - persons // 8, persons // 8, TEST]
    )
    return Planted(features_of(arrays, true, splits), true, {"blind": known})


def few(seed: int, persons: int, alike: float) -> Planted:
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
        for name, k in {"": prior, "blind": np.eye(MANY)}.items()
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


@dataclass(frozen=True)
class Plant:
    """ablations: what is left out -> of which head it is taken; how: it is fitted."""

    make: Callable[..., Planted]
    given: Mapping[str, Any]
    ablations: Mapping[tuple[str, ...], tuple[str, ...]]
    how: Mapping[str, Any]


def plants(persons: int, count: int) -> dict[str, Plant]:
    found = {}
    for part, asked, width, helo in (
        ("cross", ASKED, 4, NARROW),
        ("transport", ["face"], 8, {}),
    ):
        both: dict[tuple[str, ...], tuple[str, ...]] = {(part,): ()}
        more = {("encoder",): (), ("encoder", part): ("encoder",)}
        for name, related in ((part, True), (f"{part}, absent", False)):
            given = {"persons": persons, "asked": asked, "width": width, "related": related}
            ablations = {**both, **more} if related else both
            found[name] = Plant(matched, given, ablations, {**MATCH, "helo": helo})
    for name, alike in (("few", ALIKE), ("few, absent", 0.0)):
        given = {"persons": count, "alike": alike}
        found[name] = Plant(few, given, {tuple(some): () for some in LABELLED}, FEW)
    return found


def of_seed(name: str, seed: int, persons: int, count: int) -> dict[str, float]:
    """KL in percent of that of the mean of train: of who is blind, at best, and of each head, by
    what it lacks."""
    # Matrices this small gain nothing from more threads.
    torch.set_num_threads(1)
    plant = plants(persons, count)[name]
    truth = plant.make(seed, **plant.given)
    test, train = (truth.features.rows(split).numpy() for split in ("test", "train"))
    true = truth.true[test]
    mean = truth.features.truth(torch.from_numpy(train)).numpy().mean(0)
    unit = divergence(true, np.tile(mean, (len(test), 1))) / 100
    optimum = divergence(true, truth.best[""][test]) if "" in truth.best else 0.0
    found = {
        "optimum": optimum / unit,
        "blind": (divergence(true, truth.best["blind"][test]) - optimum) / unit,
    }
    for without in ((), *plant.ablations):
        found[", ".join(without)] = measure(truth, seed, without, plant.how) / unit
    return found


def compared(plant: Plant, each: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """each: what `of_seed` gave, a seed each."""
    of = {name: np.array([one[name] for one in each]) for name in each[0]}
    rows = {}
    for without, rest in plant.ablations.items():
        gap = of[", ".join(without)] - of[", ".join(rest)]
        rows[", ".join(without)] = {
            "against": ", ".join(rest) or "whole",
            "measured": points(gap),
            "interval": interval(gap),
            "each": np.round(gap, 2).tolist(),
        }
    known = {name: round(float(of[name].mean()), 2) for name in ("optimum", "blind")}
    return {**known, "whole": points(of[""]), "losses": rows}


def points(values: np.ndarray) -> list[float | None]:
    """Mean over seeds and its standard error."""
    error = round(float(stats.sem(values)), 2) if len(values) > 1 else None
    return [round(float(values.mean()), 2), error]


def interval(gap: np.ndarray) -> list[float] | None:
    """Of 95 %, by Student's t over seeds."""
    if len(gap) < 2:
        return None
    half = stats.t.ppf(0.975, len(gap) - 1) * stats.sem(gap)
    return [round(float(gap.mean() + side * half), 2) for side in (-1, 1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=5000)
    parser.add_argument("--few", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    sizes = (asked.persons, asked.few)
    made = plants(*sizes)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        jobs = {
            name: [pool.submit(of_seed, name, seed, *sizes) for seed in range(asked.seeds)]
            for name in made
        }
        found = {
            name: compared(made[name], [job.result() for job in some])
            for name, some in jobs.items()
        }
    if asked.json:
        about = {"machine": machine(*PACKAGES), "persons": asked.persons, "few_persons": asked.few}
        print(json.dumps({**about, "seeds": asked.seeds, **found}))
        return
    for which, some in found.items():
        whole, error = some["whole"]
        print(
            f"{which}: at best {some['optimum']}, blind +{some['blind']}, whole {whole} +- {error}"
        )
        for name, row in some["losses"].items():
            mean, error = row["measured"]
            print(
                f"  without {name:20} against {row['against']:8} {mean:6.2f} +- {error}  "
                f"95 % {row['interval']}"
            )


if __name__ == "__main__":
    main()
