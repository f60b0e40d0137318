"""What does transport cost? Sinkhorn against the matrix products it consists of, and HeLo's epoch.

    python benchmarks/helo.py [--persons 60000] [--heads 4] [--rounds 15] [--json]

products    the 2 x steps products of a kernel (B, n, m) with a vector that Sinkhorn cannot do
            without, as `torch.bmm` on contiguous kernels, results kept where they are
sinkhorn    `train.layers.transport.sinkhorn`: `known` with the greatest cost there is (as HeLo
            calls it), `unknown` without, where kernels are made anew on the way
logsumexp   the plain log-domain iteration, two logsumexp a round, and torch's own gradient of it
pot         POT one sample after another, on NumPy, so many rounds each

`over_products`: sinkhorn's time by that of the products, forward, and forward and backward by
twice the products (the gradient is as many again). Gromov-Wasserstein likewise, by its products
and those of the Sinkhorn within.

An epoch of HeLo at the size of DMER: 60,000 windows of train, views 90, 28, 27 and 768 wide, 10
labels, batch 256, the default widths. `together`: `--heads` heads in step against one after
another, both by a few steps of each and the end of an epoch (`train.timing`). `transport_share`:
what of the epoch of one head goes without transport, by the same head under `without: [transport]`.

Medians of `--rounds` rounds in turn, ratios within a round; one thread where `--threads` says no
other.
"""

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from made import machine

from train.data import Features, ViewData, from_arrays
from train.group import Group
from train.layers.transport import cosine_cost, cut, gromov, sinkhorn
from train.settings import Train
from train.timing import epoch_seconds

PACKAGES = ["torch", "numpy", "pot"]
EPSILON, STEPS, ROUNDS = 0.1, 50, 5
SHAPES = [(60, 8, 8), (256, 8, 8), (1024, 8, 8), (256, 16, 16), (1024, 16, 16)]
WIDTHS = {"eeg": 90, "gsr": 28, "ppg": 27, "face": 768}
LABELS, BATCH = 10, 256


def in_turn(
    work: Mapping[str, Callable[[], Any]], rounds: int, device: str
) -> dict[str, list[float]]:
    """Milliseconds of each, a number a turn; on one core of its own time, not of other programs."""
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter
    took: dict[str, list[float]] = defaultdict(list)
    for turn in range(rounds + 1):
        for name, one in work.items():
            wait(device)
            started = clock()
            one()
            wait(device)
            if turn:  # the first warms up
                took[name].append(1000 * (clock() - started))
    return took


def over(took: Mapping[str, list[float]], name: str, limit: str, times: int = 1) -> float:
    """The median over turns of a time by that of its limit in the same turn."""
    pairs = zip(took[name], took[limit], strict=True)
    return round(statistics.median(one / other / times for one, other in pairs), 2)


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def products(by_rows: torch.Tensor, by_columns: torch.Tensor, rounds: int) -> None:
    count, n, m = by_rows.shape
    rows, columns = by_rows.new_ones(count, n, 1), by_rows.new_ones(count, m, 1)
    for _ in range(rounds):
        torch.bmm(by_rows, columns, out=rows)
        torch.bmm(by_columns, rows, out=columns)


def logsumexp(cost: torch.Tensor) -> torch.Tensor:
    scaled = cost / -EPSILON
    g = torch.zeros_like(cost[:, :1])
    for _ in range(STEPS):
        f = -torch.logsumexp(scaled + g, 2, keepdim=True)
        g = -torch.logsumexp(scaled + f, 1, keepdim=True)
    return (f + g + scaled).exp() / cost.shape[2]


def one_by_one(cost: np.ndarray) -> None:
    import ot

    a, b = (np.full(size, 1 / size) for size in cost.shape[1:])
    for one in cost:
        ot.sinkhorn(a, b, one, EPSILON, numItermax=STEPS, stopThr=0, warn=False)


def of_transport(rounds: int, device: str) -> dict[str, Any]:
    """Milliseconds by shape, and ratios."""
    found = {}
    for count, n, m in SHAPES:
        drawn = torch.Generator().manual_seed(0)
        tokens = [torch.randn(count, size, 128, generator=drawn).to(device) for size in (n, m)]
        cost = cosine_cost(*tokens).requires_grad_()
        # Of products, no number matters but those that grow until arithmetic is slow.
        kernel = torch.rand(count, n, m, generator=drawn).to(device) / m
        other = kernel.mT.contiguous() * m / n
        weights = torch.randn(count, n, m, generator=drawn).to(device)

        def back(plan: Callable[[torch.Tensor], torch.Tensor], cost=cost, weights=weights) -> None:
            torch.autograd.grad((plan(cost) * weights).sum(), cost)

        within = [cut(cosine_cost(t, t), t[..., 0].isfinite()).requires_grad_() for t in tokens]

        def of_gromov(within=within) -> torch.Tensor:
            return gromov(*within, EPSILON, ROUNDS, STEPS)

        def gromov_products(kernel=kernel, other=other, within=within) -> None:
            plan = kernel
            for _ in range(ROUNDS):
                plan = within[0] @ plan @ within[1]
                products(kernel, other, STEPS)

        def gromov_back(of_gromov=of_gromov, within=within, weights=weights) -> None:
            torch.autograd.grad((of_gromov() * weights).sum(), within)

        plain = cost.detach()

        def known(c: torch.Tensor) -> torch.Tensor:
            return sinkhorn(c, EPSILON, STEPS, most=2.0)

        def unknown(c: torch.Tensor) -> torch.Tensor:
            return sinkhorn(c, EPSILON, STEPS)

        limits = {
            "products": lambda k=kernel, o=other: products(k, o, STEPS),
            "gromov_products": gromov_products,
        }
        plans = {"known": known, "unknown": unknown, "logsumexp": logsumexp}
        with torch.no_grad():
            forward = {name: lambda p=p, c=plain: p(c) for name, p in plans.items()}
            took = in_turn({**limits, **forward, "gromov": of_gromov}, rounds, device)
        backward = {name: lambda p=p, b=back: b(p) for name, p in plans.items()}
        both = in_turn({**limits, **backward, "gromov": gromov_back}, rounds, device)
        some = plain.double().cpu().numpy()
        pot = in_turn({"pot": lambda s=some: one_by_one(s), "known": forward["known"]}, 3, device)
        limit_of = {**dict.fromkeys(plans, "products"), "gromov": "gromov_products"}
        found[f"{count} x {n} x {m}"] = {
            "ms": {name: round(statistics.median(value), 3) for name, value in took.items()},
            "ms_with_backward": {
                name: round(statistics.median(both[name]), 3) for name in limit_of
            },
            "over_products": {name: over(took, name, limit) for name, limit in limit_of.items()},
            "over_products_with_backward": {
                name: over(both, name, limit, 2) for name, limit in limit_of.items()
            },
            "times_pot": over(pot, "pot", "known"),
        }
    return found


def dmer(persons: int, device: str) -> Features:
    """So many windows of train and a tenth as many of val."""
    rng = np.random.default_rng(0)
    count = persons + persons // 10
    return from_arrays(
        views={
            name: ViewData.of(
                name,
                "persons",
                {"features": rng.standard_normal((count, width), np.float32).astype(np.float16)},
                facts={"role": "behavioural" if name == "face" else "physiological"},
            )
            for name, width in WIDTHS.items()
        },
        boxes=np.tile(np.float32([0, 0, 9, 9]), (count, 1)),
        sizes=np.full((count, 2), 9),
        pictures=np.arange(count),
        labels=[f"label {n}" for n in range(LABELS)],
        targets=rng.dirichlet(np.ones(LABELS), count).astype(np.float32),
        splits=np.repeat(["train", "val"], [persons, persons // 10]),
        device=device,
        kind="distribution",
    )


def settings_of(seed: int = 0, **helo: Any) -> Train:
    return Train.model_validate({"head": "helo", "batch": BATCH, "seed": seed, "helo": helo})


def of_epoch(persons: int, heads: int, rounds: int, device: str) -> dict[str, Any]:
    """Seconds of an epoch: of one head, of that without transport, and a head of many in step."""
    features = dmer(persons, device)
    took: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        took["alone"].append(epoch_seconds(features, settings_of()).all)
        took["without transport"].append(
            epoch_seconds(features, settings_of(without=["transport"])).all
        )
        took["gromov"].append(epoch_seconds(features, settings_of(transport="gromov")).all)
        group = Group(features, [settings_of(seed) for seed in range(heads)])
        took["in step"].append(group.seconds().all / heads)
    middle = {name: statistics.median(some) for name, some in took.items()}
    alone = middle["alone"]
    return {
        "persons": persons,
        "batch": BATCH,
        "heads": heads,
        "seconds": {name: round(value, 2) for name, value in middle.items()},
        "persons_a_second": round(persons / alone),
        "transport_share": round(1 - middle["without transport"] / alone, 3),
        "gromov_share": round(1 - middle["without transport"] / middle["gromov"], 3),
        "in_step_over_alone": round(middle["in step"] / alone, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=60_000)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1, help="of torch on a CPU")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    # More threads gain little on matrices this small, and wait for each other on a busy machine.
    torch.set_num_threads(asked.threads)
    result = {
        "machine": {**machine(*PACKAGES), "device": device, "threads": asked.threads},
        "steps": STEPS,
        "epsilon": EPSILON,
        "transport": of_transport(asked.rounds, device),
        "epoch": of_epoch(asked.persons, asked.heads, max(1, asked.rounds // 7), device),
    }
    if asked.json:
        print(json.dumps(result))
        return
    for shape, some in result["transport"].items():
        for name, value in some.items():
            print(f"{shape:16} {name:28} {value}")
    for name, value in result["epoch"].items():
        print(f"{name:20}{value}")


if __name__ == "__main__":
    main()
