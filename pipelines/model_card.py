"""The model card of an exported predictor: what it was made of, how good it is, and what it is not
for. The header is the one that model hubs read."""

from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from pipelines.wording import Scale, between, counts, number, percent

TEMPLATE = "model_card.md"
SCALES = {
    "shares": "probabilities that sum to 1 over the labels",
    "probabilities": "a probability for each label by itself",
    "scores": "no probabilities: a higher one says that the label is likelier",
}
KINDS = {
    "multi": "a person can have several",
    "single": "each person has one",
    "distribution": "each person has a share of each",
}
# What naming the same for everybody gives, beside a measure.
CHANCE = {"mAP": ("random_mAP", "random order"), "accuracy": ("chance_accuracy", "most frequent")}


def write(about: Mapping[str, Any], measured: Mapping[str, Any]) -> str:
    """The text of the card. about: what predictor.json holds; measured: see
    `pipelines.export._measured`."""
    from jinja2 import Environment, StrictUndefined

    # Markdown, not HTML: names out of data and settings go through `plain`.
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"plain": plain, "shape": _shape, "percent": percent, "number": number}
    text = resources.files("pipelines").joinpath("templates", TEMPLATE).read_text("utf-8")
    metrics = measured["metrics"]
    split = None if metrics is None else _split(metrics)
    numbers = None if metrics is None else metrics[split]
    return environment.from_string(text).render(
        header=_header(about, numbers, split),
        about=about,
        fit=measured["fit"],
        why=measured["why"],
        split=split,
        numbers=numbers,
        provenance=None if metrics is None else metrics["provenance"],
        measures=[] if numbers is None else _measures(numbers),
        labels=[
            {**row, "interval": between(row["low"], row["high"], percent)}
            for row in measured["labels"]
        ],
        scale=SCALES[about["scale"]],
        kind=KINDS[about["kind"]],
        not_learned=[label for label, count in about["positives"].items() if not count],
        dropped=counts,
        pictures=any(view["rows"] == "pictures" for view in about["views"].values())
        or "body" in about["views"],
        worst={n: max(of.values()) for n, of in about["checked"]["largest_difference"].items()},
    )


def plain(text: object) -> str:
    """Text on one line that Markdown takes for nothing else, within a table too."""
    line = " ".join(str(text).split())
    for sign in "\\`*_[]<>|":
        line = line.replace(sign, f"\\{sign}")
    return line


def _shape(of_person: Sequence[int]) -> str:
    return " x ".join(["N", *map(str, of_person)])


def _split(metrics: Mapping[str, Any]) -> str:
    return next((name for name in metrics if name not in ("val", "provenance")), "val")


def _measures(numbers: Mapping[str, Any]) -> list[dict[str, str]]:
    """The measures that have an interval, as text."""
    rows = []
    for key, value in numbers.items():
        if f"{key}_low" not in numbers:
            continue
        scale = Scale.of(key)

        def shown(one: float | None, scale: Scale = scale) -> str:
            return scale.number(one, missing="none", unit=scale.unit)

        ends = numbers[f"{key}_low"], numbers[f"{key}_high"]
        chance, called = CHANCE.get(key, (f"chance_{key}", "the same for all"))
        beside = f"{shown(numbers[chance])} ({called})" if chance in numbers else ""
        rows.append(
            {
                "name": key,
                "value": shown(value),
                "interval": between(*ends, shown),
                "chance": beside,
            }
        )
    return rows


def _header(about: Mapping[str, Any], numbers: Mapping[str, Any] | None, split: str | None) -> str:
    """YAML between the lines of dashes."""
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if numbers is not None:
        note = f" ({numbers['note']})" if numbers["note"] else ""
        rests = (
            f"; rests on UNTRAINED {', '.join(about['untrained'])}" if about["untrained"] else ""
        )
        for key, value in numbers.items():
            if f"{key}_low" not in numbers or value is None:
                continue
            ends = between(numbers[f"{key}_low"], numbers[f"{key}_high"], _four)
            results.append(
                EvalResult(
                    task_type="other",
                    task_name="emotion recognition",
                    dataset_type=numbers["dataset"],
                    dataset_name=numbers["dataset"] + note,
                    dataset_split=split,
                    metric_type=key,
                    metric_name=f"{key}, {numbers['confidence']:.0%} interval: {ends}{rests}",
                    metric_value=round(value, 6),
                )
            )
    data = ModelCardData(
        license="other",
        license_name="to-be-stated",
        library_name="emocache",
        tags=["emotion-recognition", "onnx", "emocache", about["head"]],
        model_name=f"{about['head']} on {about['dataset']}",
        eval_results=results or None,
    )
    return str(data.to_yaml())


def _four(value: float) -> str:
    return number(value, 4)
