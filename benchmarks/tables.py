"""How long the papers' tables take on EMOTIC: every head, ablation and point of the figure.

    python benchmarks/tables.py [--persons 23266] [--epochs-run 20] [--run] [--json]

A cache of made numbers in EMOTIC's shapes is written to a temporary folder: the views of
`pipelines/profiles/paper.yaml` (10 objects, their region features too) and word vectors. What
`emocache tables --plan` says of it, from a step of each shape measured here: fits, steps, seconds a
step, and EXTRAPOLATED hours one after another, if none stops early (`hours_at_most`) and if each
runs --epochs-run epochs. With fewer --persons the steps are still EMOTIC's. Closed forms take no
steps: one fit of each is timed, and multiplied. Set-up, val after each epoch and measuring the
heads that are done are not in these hours.

--run fits all of it, as `emocache tables` does, and gives minutes with the measuring; made numbers
carry nothing, so that fits stop early: `epochs_run` says after how many epochs. Goal: on a GPU 3
seeds of everything in less than 5 minutes.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from made import EMOTIC, ROOT, fill, machine, make_index, paper_specs, size_of  # isort: split

import torch

from cache.index import Index
from cache.manifest import write_manifest
from cache.spec import ArraySpec, ViewSpec
from pipelines.settings import Settings, load
from pipelines.studies.paper import entries, grid
from pipelines.studies.trials import Trials
from train import data
from train.fit import fit
from train.fit_many import groups
from train.heads import get_head
from train.settings import Train

PACKAGES = ["torch", "numpy", "zarr"]
SPLITS = {"train": 23_266, "val": 3_315, "test": 7_203}  # EMOTIC's CSV release
WORDS = 50  # width of glove-6b-50d
GOAL = "3 seeds of everything in less than 5 minutes on a GPU"
LINE = "{:28}{:>6}{:>8}{:>8}{:>10}{:>10}{:>9}"


def made_cache(root: Path, persons: int) -> Index:
    """A cache of so many persons of train, and of val and test in EMOTIC's proportion."""
    counts = {name: max(1, number * persons // SPLITS["train"]) for name, number in SPLITS.items()}
    total = sum(counts.values())
    pictures = total * EMOTIC["pictures"] // EMOTIC["persons"] + 1
    index = make_index({"persons": total, "pictures": pictures, "labels": EMOTIC["labels"]})
    splits = pa.array(np.repeat(list(counts), list(counts.values())).tolist())
    at = index.persons.schema.get_field_index("split")
    index = Index(
        index.dataset,
        index.note,
        index.labels,
        index.pictures,
        index.persons.set_column(at, index.persons.schema.field(at), splits),
    )
    index.write(root)
    words = ViewSpec("words", "labels", {"features": ArraySpec((WORDS,), "float16")}, {"made": ""})
    for spec in (*paper_specs().values(), words):
        fill(root, spec, index.ids(spec.space))
    write_manifest(root, index.digest())
    return index


def all_fits(settings: Settings) -> list[Train]:
    """Those of `emocache tables`: every entry over its seeds, and the figure."""
    rows = entries(settings.train, settings.tables)
    points = grid(settings.train, settings.tables)
    return [one for row in rows for one in row.settings] + [one for _, _, one in points]


def closed_forms(trials: Trials, asked: Sequence[Train], heads: set[str]) -> dict[str, float]:
    """Seconds of one fit of each of these heads."""
    found = {}
    for one in asked:
        if one.head in heads and one.head not in found:
            features = data.load(trials.root, get_head(one.head).views(one), trials.device)
            started = time.perf_counter()
            fit(features, one)
            found[one.head] = time.perf_counter() - started
    return found


def planned(trials: Trials, asked: Sequence[Train], epochs_run: int) -> dict[str, Any]:
    """What is measured of a step, and the hours that follow."""
    started = time.perf_counter()
    plan = trials.plan(asked)
    planning = time.perf_counter() - started
    if plan["refused"]:
        raise SystemExit("; ".join(plan["reasons"]))
    solved = closed_forms(trials, asked, {g["head"] for g in plan["groups"] if not g["step_s"]})
    shapes, most, typical = [], 0.0, 0.0
    alike = [asked[some[0]] for some in groups(asked)]  # the first of each shape, in plan's order
    for group, first in zip(plan["groups"], alike, strict=True):
        steps = math.ceil(SPLITS["train"] / first.batch)
        epoch = group["fits"] * steps * group["step_s"]
        own = group["fits"] * solved.get(group["head"], 0.0)
        hours = (own + epoch * group["epochs"]) / 3600
        most += hours
        typical += (own + epoch * min(epochs_run, group["epochs"])) / 3600
        without = ", ".join(getattr(getattr(first, first.head), "without", []))
        shape = {name: group[name] for name in ("head", "fits", "epochs", "step_s")}
        shapes.append({**shape, "without": without, "steps": steps, "hours_at_most": hours})
    return {
        "fits": plan["left"],
        "shapes": shapes,
        "closed_form_s": solved,
        "hours_at_most": most,
        "epochs_run": epochs_run,
        "hours_typical": typical,
        "planning_s": planning,
    }


def really(trials: Trials, asked: Sequence[Train]) -> dict[str, Any]:
    """All of it, in minutes."""
    started = time.perf_counter()
    records = [trial.record for _, trial in trials.run(asked) if trial.status == "ok"]
    minutes = (time.perf_counter() - started) / 60
    return {
        "run_minutes": minutes,
        "run_fits": len(records),
        "run_fitting_minutes": sum(record["seconds"] for record in records) / 60,
        "run_in_step": sum(record["together"] > 1 for record in records),
        "run_epochs": statistics.median(record["epochs"] for record in records),
    }


def show(result: dict[str, Any], persons: int) -> None:
    print(f"{persons:,} persons of train. Goal: {GOAL}.")
    if persons != SPLITS["train"]:
        print(f"Steps are those of EMOTIC's {SPLITS['train']:,}; closed forms are of {persons:,}.")
    print(LINE.format("head", "fits", "epochs", "steps", "step ms", "hours", "share"))
    for shape in result["shapes"]:
        hours = shape["hours_at_most"]
        cells = [shape["fits"], shape["epochs"], shape["steps"], f"{1e3 * shape['step_s']:.1f}"]
        share = f"{hours / max(result['hours_at_most'], 1e-12):.1%}"
        name = f"{shape['head']}{' without ' if shape['without'] else ''}{shape['without']}"
        print(LINE.format(name, *cells, f"{hours:.2f}", share))
    for head, seconds in result["closed_form_s"].items():
        print(f"{head} is solved, not descended: one fit in {seconds:.1f} s")
    print(f"EXTRAPOLATED, {result['fits']} fits one after another:")
    print(f"  {result['hours_at_most']:.2f} h if none stops early")
    print(f"  {result['hours_typical']:.2f} h if each runs {result['epochs_run']} epochs")
    print(f"measured in {result['planning_s']:.0f} s")
    if "run_minutes" in result:
        print(
            f"run: {result['run_fits']} fits in {result['run_minutes']:.1f} min, of which fitting "
            f"{result['run_fitting_minutes']:.1f}; {result['run_in_step']} in step; "
            f"{result['run_epochs']:.0f} epochs each, by the median"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=SPLITS["train"], help="of train")
    parser.add_argument("--epochs-run", type=int, default=20, help="of a fit that stops early")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--grid", type=int, default=11, help="steps of the figure; 0: none")
    parser.add_argument("--heads", default="", help="only these, as hugme,rrla; none: all")
    parser.add_argument("--run", action="store_true", help="fit all of it")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    device = asked.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = load(ROOT / "pipelines/profiles/paper.yaml")
    heads = [name for name in asked.heads.split(",") if name]
    changes = {"seeds": list(range(asked.seeds)), "grid": asked.grid, "heads": heads}
    settings = settings.model_copy(
        update={"tables": settings.tables.model_copy(update=changes), "device": device}
    )
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "features"
        index = made_cache(root, asked.persons)
        cache = settings.cache.model_copy(update={"root": root})
        settings = settings.model_copy(update={"cache": cache})
        trials = Trials(settings, index, device, Path(folder) / "trials", ["val", "test"])
        fits = all_fits(settings)
        result: dict[str, Any] = {
            "persons": asked.persons,
            "cache_GB": size_of(root)["bytes"] / 1e9,
        }
        result |= planned(trials, fits, asked.epochs_run)
        if asked.run:
            result |= really(trials, fits)
    about = machine(*PACKAGES) | {"device": device}
    if device == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    show(result, asked.persons)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    if asked.json:
        print(json.dumps(rounded({**result, "goal": GOAL, "machine": about})))


def rounded(value: Any) -> Any:
    """Four digits."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main()
