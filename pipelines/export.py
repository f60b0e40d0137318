"""A fitted head and all that goes with it, as a folder that others can use and share.

<folder>/head.onnx, head.pt2   the head as a function of named features: `train.export`
<folder>/predictor.json        labels, thresholds, inputs, outputs, views with keys, networks
<folder>/settings.yaml         what turns a picture into these features
<folder>/README.md             the model card: `pipelines.model_card`

The weights of the frozen networks are named by their SHA-256 and are not in it: whether they may be
passed on is not for us to say. `pipelines.exported` opens it.
"""

import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from cache.errors import SettingsError, WeightsError
from cache.files import discard, make_folder, sha256_file, sync, write_atomic, write_json
from cache.paths import aside
from extract.settings import Views
from pipelines.exported import ABOUT, CARD, FORMAT, SETTINGS, is_exported
from pipelines.results import Results, read_csv
from pipelines.settings import Settings
from pipelines.workplace import networks_of

if TYPE_CHECKING:
    from train.export import Files

PERSONS = 256  # of the split that both the head and its files score, at most
PACKAGES = ("emocache", "torch", "onnx", "onnxruntime", "onnxscript")
SAYS = {
    "box": "x1 y1 x2 y2 of the person in the picture, in pixels",
    "diagonal": "of the picture, in pixels",
    "scores": "of each label, in the order of predictor.json",
    "attention": "weight of each object; 0 where padded",
    "vad": "valence, arousal and dominance, in the units of the annotation",
    "transport": "plan between the tokens of both sides",
    "features": "features, by the network of the view",
    "region": "the detector's own features of each object; zeros where padded",
    "label": "place of each object's class in the classes of predictor.json; -1 where padded",
    "map": "the depth map, shrunk",
    "count": "how many objects there are",
    "score": "of the detector",
}
ZEROS = {"head": "zeros where no face was found", "objects": "of each object, zeros where padded"}
MASKS = {
    "head": "false where no face was found",
    "objects": "true for each object that is there, false where padded",
}


def export(settings: Settings, head: Path, folder: Path) -> dict[str, Any]:
    """Write the fitted head in `head` and what belongs to it into `folder`, in place of an earlier
    export: what was written, as plain values.

    Same head, cache and results, same bytes. The folder is there whole or not at all. Raises
    SettingsError where `folder` holds something else, or the head cannot be exported; DataError
    where an exported file gives other numbers than the head; and as `train.run.open_head`.
    """
    from pipelines import model_card
    from train.export import write
    from train.run import open_head

    _free(folder)
    _installed()
    opened = open_head(settings.cache.root, head, "cpu", settings.train.memory)
    info, features = opened.info, opened.features
    rows = features.rows(settings.evaluate.split)
    rows = rows if len(rows) else features.rows()
    made = aside(folder)
    make_folder(folder.parent)
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    try:
        carried = {
            "emocache": _versions(PACKAGES[:1])["emocache"],
            **{name: info[name] for name in ("head", "dataset", "note", "labels")},
            "head_sha256": info["sha256"],
        }
        files = write(opened.model, features, rows[:PERSONS], made, info["head"], carried)
        measured = _measured(Results(head.parent), info)
        about = _about(settings, info, features.kind, files, measured, made)
        write_json(made / ABOUT, about)
        write_atomic(made / SETTINGS, _settings(settings, info).encode())
        write_atomic(made / CARD, model_card.write(about, measured).encode())
        if folder.exists():
            discard(folder)
        os.rename(made, folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return {
        "folder": str(folder),
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        "measured": measured["metrics"] is not None,
        "why_not_measured": measured["why"],
        **{name: about[name] for name in ("head", "dataset", "note", "untrained", "checked")},
    }


def _free(folder: Path) -> None:
    """Nothing that is no export is ever taken away."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not is_exported(folder)):
        raise SettingsError(
            f"{folder} holds something that `emocache export` did not write: name a new folder"
        )


def _installed() -> None:
    absent = [name for name, at in _versions(PACKAGES).items() if at == "not installed"]
    if absent:
        raise SettingsError(f"an export needs {', '.join(absent)}: pip install {' '.join(absent)}")


def _about(
    settings: Settings,
    info: Mapping[str, Any],
    kind: str,
    files: "Files",
    measured: Mapping[str, Any],
    made: Path,
) -> dict[str, Any]:
    """What predictor.json holds."""
    from train.checkpoint import fitted_key
    from train.export import LIMIT, OPSET

    networks = _networks(info)
    return {
        "format": FORMAT,
        "head": info["head"],
        "head_sha256": info["sha256"],
        "dataset": info["dataset"],
        "note": info["note"],
        "labels": info["labels"],
        "kind": kind,
        "scale": files.scale,
        "thresholds": measured["thresholds"],
        "positives": info["positives"],
        "classes": info["classes"],
        "inputs": [{**port.as_dict(), "about": _says(port)} for port in files.inputs],
        "outputs": [
            {"name": port.name, "shape": list(port.shape), "about": SAYS[port.name]}
            for port in files.outputs
        ],
        "opset": OPSET,
        "views": info["views"],
        "people": _people(settings),
        "untrained": sorted({one["network"] for one in networks if not one["trained"]}),
        "networks": networks,
        "seed": info["seed"],
        "best_epoch": info["best_epoch"],
        "index": info["index"],
        "cache_key": fitted_key(info, info["index"]),
        "checked": {
            "persons": files.checked.persons,
            "batches": list(files.checked.batches),
            "largest_difference": {n: dict(of) for n, of in files.checked.largest.items()},
            "limit": LIMIT,
        },
        "fitted_with": info["versions"],
        "exported_with": _versions(PACKAGES),
        "files": {
            path.name: {"sha256": sha256_file(path), "bytes": path.stat().st_size}
            for path in sorted(made.iterdir())
            if path.name.startswith("head.")
        },
    }


def _says(port: Any) -> str:
    if port.array == "mask":
        return MASKS.get(port.view, "false where the view has nothing of the person")
    if port.array == "box":
        return "x1 y1 x2 y2 in the picture, in pixels"
    said = SAYS.get(port.array or port.name, "of the view")
    more = ZEROS.get(port.view) if port.array == "features" else None
    return f"{said}; {more}" if more else said


def _networks(info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each network once, with the views that it makes."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for name, view in info["views"].items():
        for one in view["weights"]:
            facts = found.setdefault((one["network"], one["sha256"]), {**one, "views": []})
            facts["views"].append(name)
    return list(found.values())


def _people(settings: Settings) -> dict[str, Any]:
    """Who finds people in new pictures; weights: None where they are not to be had here."""
    detector = settings.people.detector
    try:
        weights = networks_of(settings).weights(detector).facts()
    except WeightsError:
        weights = None
    return {"detector": detector, "score": settings.people.score, "weights": weights}


def _settings(settings: Settings, info: Mapping[str, Any]) -> str:
    """The sections of `params.yaml` that decide what becomes of a picture: of the views what the
    head was fitted on, whatever is set now."""
    views = {n: v["parts"] for n, v in info["views"].items() if v["rows"] != "labels"}
    known = {
        n: parts for n, parts in views.items() if n in Views.model_fields and "settings" in parts
    }
    used = {settings.people.detector, *(one["network"] for one in _networks(info))}
    tree: dict[str, Any] = {
        "device": "auto",
        "people": settings.people.model_dump(mode="json"),
        "weights": {
            "source": list(settings.weights.source),
            "untrained": [name for name in settings.weights.untrained if name in used],
        },
        "extract": {"batch": settings.extract.batch},
    }
    if known:
        first = next(iter(known.values()))
        tree["cache"] = {"dtype": first["dtype"]}
        tree["views"] = {name: parts["settings"] for name, parts in known.items()}
        tree["views"]["precision"] = first["precision"]
    said = (
        "# What a prediction needs of params.yaml. Leave the views as they are: the head was\n"
        "# fitted on these. Where weights of networks lie elsewhere, say so in weights.folder.\n"
    )
    return said + yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


def _measured(results: Results, info: Mapping[str, Any]) -> dict[str, Any]:
    """What is known of how good the head is, where the results beside it are its own: metrics, why
    there are none, thresholds and rows of each label, and of the fit."""
    found: dict[str, Any] = {
        "metrics": None,
        "why": "",
        "thresholds": {},
        "labels": [],
        "fit": None,
    }
    if results.train_json.exists():
        fit = json.loads(results.train_json.read_text("utf-8"))
        keys = {name: view["key"] for name, view in info["views"].items()}
        same = {"head": info["head"], "index": info["index"], "keys": keys, "seed": info["seed"]}
        if all(fit.get(name) == value for name, value in same.items()):
            found["fit"] = fit
    if not (results.metrics.exists() and results.provenance.exists()):
        return found | {"why": f"there is no {results.metrics}: run `emocache evaluate`"}
    metrics = results.read_metrics()
    if metrics["provenance"].get("head_sha256") != info["sha256"]:
        return found | {"why": f"{results.metrics} is of another head: run `emocache evaluate`"}
    found["metrics"] = metrics
    if results.per_class.exists():
        found["labels"] = read_csv(results.per_class)
        found["thresholds"] = {
            row["label"]: row["threshold"]
            for row in found["labels"]
            if row["threshold"] == row["threshold"]
        }
    return found


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
