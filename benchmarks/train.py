"""Seconds an epoch at EMOTIC's size: every view of HugMe, made-up numbers, side by side in one run.

    python benchmarks/train.py [--persons 23266] [--rounds 2] [--json]

ours        an epoch of `train.fit` on tensors that are on the device
limit       its matrix products and the optimizer step alone: the same layers on one fused batch
dataloader  as it is usually done: a Dataset over rows of an HDF5 file, a DataLoader with workers,
            the same head
end to end  the frozen networks in the loop: as ours, and every person extracted in each epoch,
            by the seconds a person that extraction takes here on some COCO pictures

by blocks   as ours, with `train.memory` a quarter of the views: they come from a file by blocks

With HugMe, and with a linear layer on all views, where reading rules. `over_limit` is ours / limit,
`times_dataloader` dataloader / ours with the linear layer, `times_end_to_end` end to end / ours,
`blocks_over_ours` by blocks / ours.
"""

import argparse
import importlib.util
import json
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made import EMOTIC, ROOT, machine, made_features  # isort: split

import h5py
import torch
from torch.utils.data import DataLoader, Dataset

from pipelines.settings import load
from train import memory as files
from train.data import Batch, Features
from train.fit import fit
from train.heads import get_head
from train.layers.classifier import TwoViewClassifier, combine
from train.losses import classification
from train.settings import Train

PACKAGES = ["torch", "numpy", "h5py"]
LABELS = EMOTIC["labels"]
SKIPPED = {"region"}  # HugMe reads none


def settings_of(head: str, epochs: int) -> Train:
    """The paper's, without early stopping."""
    paper = load(ROOT / "pipelines/profiles/paper.yaml").train
    changes: dict[str, Any] = {"epochs": epochs, "select": "last", "standardise": False}
    if head == "linear layer":
        mlp = paper.mlp.model_copy(update={"hidden": [], "dropout": 0.0})
        return paper.model_copy(update={**changes, "head": "mlp", "mlp": mlp})
    return paper.model_copy(update={**changes, "head": head})


def ours(features: Features, head: str, rounds: int) -> list[float]:
    """Seconds of each epoch but the first, which warms up."""
    ends: list[float] = []
    fit(features, settings_of(head, rounds + 1), lambda row: ends.append(time.perf_counter()))
    return np.diff(ends).tolist()


def by_blocks(features: Features, memory: float) -> Features:
    """The same features with `memory` GB, laid out as `train.data.load` does."""
    arrays = {(v, name): a for v, some in features.views.items() for name, a in some.items()}
    room = files.placement(
        {at: len(array) for at, array in arrays.items()},
        {at: array[0].nbytes for at, array in arrays.items()},
        memory,
    )
    views: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for (view, name), array in arrays.items():
        views[view][name] = array
        if (view, name) in room.away:
            there = files.mapped(tuple(array.shape), array.cpu()[:0].numpy().dtype)
            there[:] = array.cpu().numpy()
            views[view][name] = torch.from_numpy(there)
    return replace(features, views=views, block=room.block)


def limit(features: Features, head: str, steps: int) -> float:
    """Seconds of an epoch's matrix products and optimizer steps."""
    settings = settings_of(head, 1)
    rows = features.rows("train")[: settings.batch]
    model = get_head(settings.head).setup(settings, features, rows)
    target = features.truth(rows)
    if head == "hugme":
        fused = model.fuse(features.batch(rows))[0].detach()
        own = settings.hugme
        net: Any = TwoViewClassifier(fused.shape[1], own.hidden, LABELS, own.graph_width, 0.0)
    else:
        fused = torch.randn(len(rows), model.net[0].in_features, device=features.device)
        net = torch.nn.Linear(fused.shape[1], LABELS)
    net = net.to(features.device)
    parameters = [*net.parameters(), *(model.hegl.parameters() if head == "hugme" else ())]
    fused_step = features.device.type in ("cpu", "cuda")
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=fused_step)

    def step() -> None:
        if head == "hugme":
            found = net(fused, model.hegl(model.text, model.together).nodes)
        else:
            found = net(fused), None
        scores, logits = combine(*found, (0.5, 0.5), "sigmoid")
        optimizer.zero_grad()
        classification(scores, logits, target, "bce").backward()
        optimizer.step()

    for _ in range(5):
        step()
    _wait(features.device)
    started = time.perf_counter()
    for _ in range(steps):
        step()
    _wait(features.device)
    return time.perf_counter() - started


class Rows(Dataset):
    """A row of an HDF5 file a person, opened in each worker."""

    def __init__(self, path: Path, persons: int):
        self.path, self.persons = path, persons
        self.file: h5py.File | None = None

    def __len__(self) -> int:
        return self.persons

    def __getitem__(self, row: int) -> dict[str, np.ndarray]:
        if self.file is None:
            self.file = h5py.File(self.path)
        return {name: np.asarray(array[row]) for name, array in self.file.items()}


def dataloader(features: Features, path: Path, head: str) -> float:
    """Seconds of an epoch over rows of the file."""
    settings = settings_of(head, 1)
    rows = features.rows("train")
    model = get_head(settings.head).setup(settings, features, rows[: settings.batch]).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, fused=True)
    wanted = {name.partition(".")[0] for name in model.views(settings)}
    started = time.perf_counter()
    loader = DataLoader(Rows(path, len(rows)), settings.batch, shuffle=True, num_workers=2)
    for given in loader:
        views: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
        moved = {name: value.to(features.device) for name, value in given.items()}
        for name, value in moved.items():
            view, _, array = name.partition("|")
            if view in wanted:
                plain = value.float() if value.is_floating_point() else value.long()
                views[view][array] = plain.bool() if array == "mask" else plain
        batch = Batch(moved["|box"], moved["|diagonal"], moved["|target"], views)
        optimizer.zero_grad()
        model.loss(model(batch), batch).backward()
        optimizer.step()
    _wait(features.device)
    return time.perf_counter() - started


def write_rows(features: Features, path: Path) -> None:
    """What a batch holds, a row a person."""
    with h5py.File(path, "w") as file:
        for view, arrays in features.views.items():
            for name, values in arrays.items():
                file[f"{view}|{name}"] = values.cpu().numpy()
        for name in ("box", "diagonal", "target"):
            file[f"|{name}"] = getattr(features, name).cpu().numpy()


def seconds_a_person(pictures: int) -> float:
    """Of extraction, networks loaded, with the networks of params.yaml."""
    spec = importlib.util.spec_from_file_location("extraction", ROOT / "benchmarks/extract.py")
    assert spec and spec.loader
    extraction = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extraction)
    extraction.dataset("coco")(extraction.Coco)
    with tempfile.TemporaryDirectory() as folder:
        bench = extraction.Bench(Path(folder), load(ROOT / "params.yaml"), pictures)
        bench.ours(bench.views())  # loads the networks
        started = time.perf_counter()
        bench.ours(bench.views())
        return (time.perf_counter() - started) / bench.persons


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=23_266)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=16, help="of COCO, for end to end")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    features = made_features(asked.persons, skipped=SKIPPED, device=device)
    steps = -(-asked.persons // settings_of("hugme", 1).batch)
    took: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.h5"
        write_rows(features, rows)
        for head in ("linear layer", "hugme"):
            for _ in range(asked.rounds):
                took[f"{head}, limit"].append(limit(features, head, steps))
                took[f"{head}, ours"] += ours(features, head, 1)
            took[f"{head}, dataloader"].append(dataloader(features, rows, head))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(array.nbytes for some in features.views.values() for array in some.values())
    streamed = by_blocks(features, size / 4e9)
    for head in ("linear layer", "hugme"):
        for _ in range(asked.rounds):
            took[f"{head}, by blocks"] += ours(streamed, head, 1)
    median = {name: statistics.median(all_) for name, all_ in took.items()}
    result: dict[str, Any] = {
        "machine": {**machine(*PACKAGES), "device": str(features.device)},
        "persons": asked.persons,
        "over_limit": round(median["hugme, ours"] / median["hugme, limit"], 3),
        "over_limit_linear": round(median["linear layer, ours"] / median["linear layer, limit"], 3),
        "times_dataloader": round(
            median["linear layer, dataloader"] / median["linear layer, ours"], 2
        ),
        "times_dataloader_hugme": round(median["hugme, dataloader"] / median["hugme, ours"], 2),
        "blocks_over_ours": round(median["hugme, by blocks"] / median["hugme, ours"], 3),
        "blocks_over_ours_linear": round(
            median["linear layer, by blocks"] / median["linear layer, ours"], 2
        ),
    }
    if (ROOT.parent / "shared/data/coco").exists():
        person = seconds_a_person(asked.pictures)
        median["end to end, hugme"] = person * asked.persons + median["hugme, ours"]
        result["seconds_a_person"] = round(person, 4)
        result["times_end_to_end"] = round(median["end to end, hugme"] / median["hugme, ours"], 1)
    result["median_s"] = {name: round(value, 2) for name, value in median.items()}
    result["features_MB"] = round(size / 1e6)
    result["peak_MB"] = round(peak)
    if asked.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        print(f"{name:26}{value}")


if __name__ == "__main__":
    main()
