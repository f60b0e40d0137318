"""A pre-training or a fine-tuning as one HTML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipelines.looks import Look, sheet
from pipelines.pages import data_url
from pipelines.studies import figures
from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.rendering import Table
from pipelines.wording import NONE, duration

TITLES = {
    "loss": "loss",
    "pixels": "L1, hidden pixels",
    "similarity": "L2, similarities to texts",
    "image": "L3, the teacher's vector",
    "accuracy": "accuracy",
}
Row = Mapping[str, Any]


def pretrained(
    folder: Path, result: Mapping[str, Any], history: Sequence[Row], looks: Sequence[Look]
) -> Path:
    """report.html of what `pretrain` gives."""
    pictures = result["pictures"]
    last = folder / "grids" / f"epoch-{result['epochs']:04}.png"
    shown = []
    if last.exists():
        with Image.open(last) as picture:
            shown.append((_grid(result), data_url(picture.convert("RGB"), 88)))
    return write_page(
        folder / "report.html",
        f"Pre-training on {result['dataset']}",
        [
            ("encoder", result["name"]),
            ("N train", f"{pictures['train']:,} pictures"),
            ("N held out", f"{pictures['val']:,} pictures"),
            *_facts(result),
        ],
        _warnings(result),
        [
            Section(
                "Losses",
                result["said"],
                _losses(result),
                [_curves(history, result["losses"])],
            ),
            *([Section("Held-out pictures", pictures=shown)] if shown else []),
            *_looked(looks),
            Section("Weights", text=result["weights"] or ["No teacher: pixels alone."]),
        ],
    )


def finetuned(
    folder: Path, result: Mapping[str, Any], history: Sequence[Row], looks: Sequence[Look]
) -> Path:
    """report.html of what `finetune` gives."""
    numbers = result["measured"]
    return write_page(
        folder / "report.html",
        f"Fine-tuning on {result['dataset']}",
        [
            ("encoder", result["encoder"]),
            ("N train", f"{result['persons']['train']:,} persons"),
            ("N evaluated", f"{numbers['n_evaluated']:,} of {result['split']}"),
            ("kept epoch", f"{result['best_epoch']} of {result['epochs']}"),
            *_facts(result),
        ],
        _warnings(result),
        [
            Section("Result", text=result["said"]),
            Section("Epochs", figures=[_curves(history, ["loss", "accuracy"])]),
            *_looked(looks),
        ],
    )


def _facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What both say at the top."""
    reasons = {**result["dropped"]}
    if result["lost"]:
        reasons["could not be read"] = len(result["lost"])
    return [
        ("dropped", ", ".join(f"{count:,} {why}" for why, count in reasons.items()) or "none"),
        ("seed", str(result["seed"])),
        ("cache key", result["cache_key"][:12]),
        ("device", f"{result['devices']} x {result['device']}"),
        ("time", duration(result["seconds"])),
    ]


def _warnings(result: Mapping[str, Any]) -> list[str]:
    return [*result["warnings"], *warnings_of(result["note"], result["untrained"])]


def _losses(result: Mapping[str, Any]) -> Table:
    last = result["last"]

    def cell(name: str) -> str:
        return f"{last[name]:.4f}" if name in last else NONE

    rows = [[TITLES[name], cell(name), cell(f"val_{name}")] for name in ("loss", *result["losses"])]
    for name, title in (
        ("val_mean_pixels", "L1 of the mean training picture"),
        ("val_visible_pixels", "L1 of the mean colour of the visible patches"),
    ):
        if name in last:
            rows.append([title, "", cell(name)])
    return Table("losses", "", ["of the last epoch", "train", "held out"], rows)


def _curves(history: Sequence[Row], names: Sequence[str]) -> tuple[str, Any]:
    planes: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for name in dict.fromkeys(("loss", *names)):
        lines = {}
        for label, column in (("train", name), ("held out", f"val_{name}")):
            points = [(row["epoch"], row[column]) for row in history if column in row]
            if points:
                lines[label] = points
        if lines:
            planes[TITLES[name]] = lines
    return "Epoch by epoch.", figures.curves(planes, "epoch")


def _grid(result: Mapping[str, Any]) -> str:
    said = (
        "Each row is one held-out picture: scene and person, what was left visible, and the "
        "reconstruction with the visible patches in their place."
    )
    if result["settings"]["normalise"]:
        said += (
            " pretrain.normalise is on: mean and deviation of each hidden patch are the true ones."
        )
    return said


def _looked(looks: Sequence[Look]) -> list[Section]:
    if not looks:
        return []
    said = ["Rollout: how much each patch reaches the class token, through all layers."]
    if any("gradcam" in maps for look in looks for _, maps in look.panels.values()):
        said.append(
            "Grad-CAM: the patches whose tokens before the last layer raise the score named."
        )
    text = [" ".join([*said, "Each is shown from its own least value to its greatest."])]
    shown = [(look.caption, data_url(sheet(look), 85)) for look in looks]
    return [Section("Where the encoder looks", text=text, pictures=shown)]
