"""What the report says in words: how the head compares with chance, and what must be known."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from cache.index import VAD
from pipelines import wording
from pipelines.recordings import Terms
from pipelines.report.data import ReportData
from pipelines.wording import thousands
from train import metrics
from train.metrics.measures import measure

percent = partial(wording.percent, missing=wording.NONE)
two = partial(wording.number, digits=2, missing=wording.NONE)
four = partial(wording.number, digits=4, missing=wording.NONE)


def untrained(networks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each untrained network once: what must be said of it, and the views that it computed."""
    views: dict[str, list[str]] = {}
    for network in networks:
        if not network.get("trained", True):
            views.setdefault(network["network"], []).append(network["view"])
    return [{"said": wording.untrained(name), "views": found} for name, found in views.items()]


def facts(provenance: Mapping[str, Any]) -> dict[str, str]:
    """What the numbers rest on, a line each."""
    return {_words(key): _text(value) for key, value in provenance.items()}


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_text(inner) for inner in value) or "none"
    return "–" if value is None else str(value)


def verdict(numbers: Mapping[str, Any], data: ReportData) -> str:
    """What the intervals say of the head and of an answer that knows nothing, in sentences."""
    kind, said = numbers["kind"], []
    drawn = data.scores.drawn
    if numbers.get(f"n_{drawn}") == 1:
        said.append(
            f"All {data.terms.many} are of one of the {drawn} that are resampled: there is no "
            "interval, and the head is not shown to be better than chance."
        )
    elif kind == "single":
        often = max(data.per_class, key=lambda row: row["positives"])["label"]
        here = numbers["classes_with_positive"]
        for name, level, chance in (
            ("accuracy", numbers["chance_accuracy"], f"what naming {often} for everybody reaches"),
            ("balanced accuracy", 1 / here, f"the one in {here} that knowing nothing reaches"),
        ):
            side = _side(numbers, name.replace(" ", "_"), level)
            said.append(
                {
                    "above": f"The whole interval of the {name} lies above {chance}.",
                    "around": f"The interval of the {name} includes {chance}: by it the "
                    "head is not shown to be better than chance.",
                    "below": f"The {name} is no better than {chance}.",
                }[side]
            )
    elif kind == "distribution":
        sides: dict[str, list[str]] = {"above": [], "around": [], "below": []}
        for one in map(measure, metrics.MEASURES):
            chance = numbers[f"chance_{one.name}"]
            sides[_side(numbers, one.name, chance, one.more)].append(one.title)
        chance = f"the {numbers['chance_distribution']} predicted for everybody"
        for side, words in (
            ("above", f"The whole interval is better than {chance} by"),
            ("around", f"The head is not shown to be better than {chance} by"),
            ("below", f"The head is no better than {chance} by"),
        ):
            if sides[side]:
                every = len(sides[side]) == len(metrics.MEASURES)
                names = "all six measures" if every else _listed(sides[side])
                said.append(f"{words} {names}.")
    elif numbers["mAP_low"] is not None and numbers["random_mAP"] is not None:
        chance = f"what a random order of these {data.terms.many} reaches"
        said.append(
            {
                "above": f"The whole interval lies above {chance}.",
                "around": f"The interval includes {chance}: on this split the head is not shown to "
                "be better than chance.",
                "below": f"The head does no better here than a random order of these "
                f"{data.terms.many}.",
            }[_side(numbers, "mAP", numbers["random_mAP"])]
        )
    absent = numbers["classes"] - numbers["classes_with_positive"]
    if absent and kind != "distribution" and numbers["mAP"] is not None:
        said.append(
            f"{absent} of {numbers['classes']} labels have no positive on {data.split} and stay "
            "out of every mean."
        )
    return " ".join([*said, *_beside(numbers, data.terms)])


def _beside(numbers: Mapping[str, Any], terms: Terms) -> list[str]:
    """What is measured besides, in sentences: without leaked persons, and ratings."""
    said = []
    if leaked := numbers.get("n_leaked"):
        suffix = "_without_leaked"
        form = four if numbers["kind"] == "distribution" else percent
        without = [
            f"{_words(name.removesuffix(suffix))} {form(value)}"
            for name, value in numbers.items()
            if name.endswith(suffix)
        ]
        people = f"One {terms.one}" if leaked == 1 else f"{thousands(leaked)} {terms.many}"
        said.append(
            f"{people} of this split may have been seen in training; without: {_listed(without)}."
        )
    if "VAD_error" in numbers:
        low, high = (two(numbers[f"VAD_error_{end}"]) for end in ("low", "high"))
        each = [f"{name} {two(numbers[f'{name}_error'])}" for name in VAD]
        said.append(
            f"Ratings of {thousands(numbers['n_rated'])} {terms.many} are missed by "
            f"{two(numbers['VAD_error'])} ({low} to {high}) in the mean: {_listed(each)}; the mean "
            f"of train for everybody misses them by {two(numbers['chance_VAD_error'])}."
        )
    return said


def _side(numbers: Mapping[str, Any], name: str, chance: float, more: bool = True) -> str:
    """Where a measure and its interval lie as seen from chance: on the better side is above."""
    worst = numbers[f"{name}_{'low' if more else 'high'}"]
    sign = 1 if more else -1
    if sign * (worst - chance) > 0:
        return "above"
    return "around" if sign * (numbers[name] - chance) > 0 else "below"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def measures(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of distributions each measure with its names, its interval, and what chance gives."""
    return [
        {
            "title": one.title,
            "formula": one.formula,
            "more": one.more,
            "value": numbers[one.name],
            "low": numbers[f"{one.name}_low"],
            "high": numbers[f"{one.name}_high"],
            "chance": numbers[f"chance_{one.name}"],
        }
        for one in map(measure, metrics.MEASURES)
    ]
