"""One run as one HTML file: plain data in, a page out that opens anywhere and asks no network.

Charts are SVG written here and in `templates/report.html`, without a script: the page holds no
JavaScript, so nothing in it can fail, and a page of 26 labels and 12 persons is about 1 MB.
"""

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cache.errors import DataError
from cache.index import VAD
from pipelines.evaluation import (
    Kind,
    SavedScores,
    fitted_elsewhere,
    read_csv,
    read_metrics,
    read_scores,
)
from pipelines.overlay import ObjectMark, PersonMark, draw
from train.metrics import is_distribution

_PICTURE = 720  # longer side of a person's picture in pixels: sharp on a screen of double density
_OBJECTS = 5  # objects listed with a person
_PAIRS = 8  # strongest pairs listed with a label graph or a confusion matrix
_ROWS = 8  # labels listed with a person where each has a share or a probability

# Measure of distributions: its name and formula, and whether more of it is better.
_MEASURES = {
    "chebyshev": ("Chebyshev", "max |d − p|", False),
    "clark": ("Clark", "√ Σ (d − p)² / (d + p)²", False),
    "canberra": ("Canberra", "Σ |d − p| / (d + p)", False),
    "kl": ("KL divergence", "Σ d ln (d / p), in nats", False),
    "cosine": ("Cosine", "d·p / (|d| |p|)", True),
    "intersection": ("Intersection", "Σ min(d, p)", True),
}


@dataclass(frozen=True)
class Person:
    """One person of the split, everything in pixels of the upright picture.

    Single labels: one in `true` and one in `predicted`. Distributions: neither, but `shares`.
    """

    name: str  # e.g. "person 41"
    picture: Path | Image.Image
    mark: PersonMark  # box, face and objects; its emotions are not drawn here
    true: Sequence[str]
    predicted: Sequence[str]
    probabilities: Mapping[str, float]  # every label -> score
    notes: Sequence[str] = ()  # e.g. "no face found"
    shares: Mapping[str, float] | None = None  # every label -> its true share


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. `metrics`, `per_class`, `pr`, `confusion`, `curves` and `shares`
    come from the files of `results/` as `read_results` gives them; `networks` are
    `Weights.facts()` with their `view` (keys view, network, name, source, licence, sha256,
    trained)."""

    head: str
    dataset: str
    note: str
    split: str
    labels: Sequence[str]
    metrics: Mapping[str, Any]
    per_class: Sequence[Mapping[str, Any]]
    pr: Sequence[Mapping[str, Any]]
    curves: Sequence[Mapping[str, Any]]
    networks: Sequence[Mapping[str, Any]]
    persons: Sequence[Person]
    confusion: Sequence[Mapping[str, Any]] = ()  # actual, predicted: a row a person
    shares: Sequence[Mapping[str, Any]] = ()  # label, true, predicted, off: means over persons
    cooccurrence: np.ndarray | None = None  # (C, C): how often label j is there when i is
    similarity: np.ndarray | None = None  # (C, C): cosine of the definitions, from 0
    facts: Mapping[str, Any] = field(default_factory=dict)  # beside metrics["provenance"]


def read_results(folder: Path) -> dict[str, Any]:
    """The tables of a results folder, ready for `ReportData(**read_results(folder), ...)`."""
    paths = {
        "metrics": folder / "metrics.json",
        "provenance": folder / "provenance.json",
        "per_class": folder / "plots" / "per_class.csv",
        "pr": folder / "plots" / "pr.csv",
        "confusion": folder / "plots" / "confusion.csv",
        "curves": folder / "curves.csv",
        "scores": folder / "scores.parquet",
    }
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise DataError(
            f"The report needs {', '.join(missing)}: run `emocache train` and `emocache evaluate`."
        )
    tables: dict[str, Any] = {
        name: read_csv(path) for name, path in paths.items() if path.suffix == ".csv"
    }
    shares = _mean_shares(read_scores(paths["scores"]))
    return {"metrics": read_metrics(folder), "shares": shares, **tables}


def _mean_shares(scores: SavedScores) -> list[dict[str, Any]]:
    """Of each label the mean true share, the mean predicted one and the mean of |d - p|; nothing
    where labels are no shares."""
    if scores.distribution is None:
        return []
    true, predicted = scores.distribution, scores.y_score
    means = (values.mean(axis=0).tolist() for values in (true, predicted, abs(true - predicted)))
    names = ("label", "true", "predicted", "off")
    return [dict(zip(names, row, strict=True)) for row in zip(scores.labels, *means, strict=True)]


def write_report(data: ReportData, path: Path) -> Path:
    """Write the page to `path` and return it.

    Raises DataError when the metrics are not of `data.split`, and for a graph that is not (C, C).
    """
    from jinja2 import Environment, PackageLoader

    templates = PackageLoader("pipelines", "templates")
    environment = Environment(
        loader=templates, autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "thousands": thousands, "two": two, "four": four}
    page = environment.get_template("report.html").render(**_content(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


# ---- numbers as text -----------------------------------------------------------------------


def percent(value: float | None, digits: int = 1) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def thousands(value: float) -> str:
    return f"{value:,.0f}"


def two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def four(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


# ---- what the template is given ------------------------------------------------------------


def _content(data: ReportData) -> dict[str, Any]:
    if data.split not in data.metrics:
        raise DataError(
            f"The report is of {data.split}, but the metrics are of "
            f"{', '.join(k for k in data.metrics if k != 'provenance')}: set evaluate.split."
        )
    provenance = dict(data.metrics["provenance"]) | dict(data.facts)
    numbers = data.metrics[data.split]
    kind: Kind = numbers["kind"]
    table = _table(data) if kind == "single" else None
    return {
        "data": data,
        "numbers": numbers,
        "kind": kind,
        "verdict": _verdict(numbers, data),
        "measures": _measures(numbers) if kind == "distribution" else [],
        "facts": {_words(key): _text(value) for key, value in provenance.items()},
        "elsewhere": fitted_elsewhere(provenance),
        "untrained": _untrained(data.networks),
        "classes": _classes(data.per_class, table),
        "confusion": None if table is None else _confusion(table, data.labels),
        "shares": _shares(data.shares) if kind == "distribution" else None,
        "pr": _pr(data.pr, data.per_class),
        "training": _training(data.curves, provenance.get("best_epoch"), kind),
        "graphs": _graphs(data),
        "persons": _persons(data, kind),
        "thresholds": any(row["threshold"] == row["threshold"] for row in data.per_class),
        "probabilities": _probabilities(data.persons),
    }


def _untrained(networks: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each untrained network once, with the views it computed."""
    views: dict[str, list[str]] = {}
    for network in networks:
        if not network.get("trained", True):
            views.setdefault(network["network"], []).append(network["view"])
    return [{"network": network, "views": found} for network, found in views.items()]


def _words(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{key}: {_text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_text(inner) for inner in value) or "none"
    return "–" if value is None else str(value)


def _verdict(numbers: Mapping[str, Any], data: ReportData) -> str:
    """What the intervals say of the head and of an answer that knows nothing, in sentences."""
    kind, said = numbers["kind"], []
    if kind == "single":
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
        for name, (title, _, more) in _MEASURES.items():
            sides[_side(numbers, name, numbers[f"chance_{name}"], more)].append(title)
        chance = f"the {numbers['chance_distribution']} predicted for everybody"
        for side, words in (
            ("above", f"The whole interval is better than {chance} by"),
            ("around", f"The head is not shown to be better than {chance} by"),
            ("below", f"The head is no better than {chance} by"),
        ):
            if sides[side]:
                every = len(sides[side]) == len(_MEASURES)
                names = "all six measures" if every else _listed(sides[side])
                said.append(f"{words} {names}.")
    elif numbers["mAP_low"] is not None and numbers["random_mAP"] is not None:
        chance = "what a random order of these persons reaches"
        said.append(
            {
                "above": f"The whole interval lies above {chance}.",
                "around": f"The interval includes {chance}: on this split the head is not shown to "
                "be better than chance.",
                "below": "The head does no better here than a random order of these persons.",
            }[_side(numbers, "mAP", numbers["random_mAP"])]
        )
    absent = numbers["classes"] - numbers["classes_with_positive"]
    if absent and kind != "distribution" and numbers["mAP"] is not None:
        said.append(
            f"{absent} of {numbers['classes']} labels have no positive on {data.split} and stay "
            "out of every mean."
        )
    return " ".join([*said, *_beside(numbers)])


def _beside(numbers: Mapping[str, Any]) -> list[str]:
    """What is measured besides, in sentences: without leaked persons, and ratings."""
    said = []
    if leaked := numbers.get("n_leaked"):
        suffix = "_without_leaked"
        form = four if numbers["kind"] == "distribution" else lambda value: f"{percent(value)} %"
        without = [
            f"{_words(name.removesuffix(suffix))} {form(value)}"
            for name, value in numbers.items()
            if name.endswith(suffix)
        ]
        people = "One person" if leaked == 1 else f"{thousands(leaked)} persons"
        said.append(
            f"{people} of this split may have been seen in training; without: {_listed(without)}."
        )
    if "VAD_error" in numbers:
        low, high = (two(numbers[f"VAD_error_{end}"]) for end in ("low", "high"))
        each = [f"{name} {two(numbers[f'{name}_error'])}" for name in VAD]
        said.append(
            f"Ratings of {thousands(numbers['n_rated'])} persons are missed by "
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


def _measures(numbers: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "title": title,
            "formula": formula,
            "more": more,
            "value": numbers[name],
            "low": numbers[f"{name}_low"],
            "high": numbers[f"{name}_high"],
            "chance": numbers[f"chance_{name}"],
        }
        for name, (title, formula, more) in _MEASURES.items()
    ]


def _table(data: ReportData) -> np.ndarray:
    """(C, C) persons: by their label (row) and the one predicted (column)."""
    at = {label: number for number, label in enumerate(data.labels)}
    table = np.zeros((len(at), len(at)), dtype=int)
    for row in data.confusion:
        table[at[row["actual"]], at[row["predicted"]]] += 1
    return table


def _confusion(table: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
    """The table by rows with the share of each cell in its row, and where most persons go wrong."""
    persons = table.sum(axis=1)
    wrong = np.where(np.eye(len(labels), dtype=bool), 0, table)
    pairs = [divmod(int(at), len(labels)) for at in np.argsort(-wrong, axis=None, kind="stable")]
    return {
        "rows": [
            {
                "label": labels[i],
                "persons": int(persons[i]),
                "cells": [
                    {"label": labels[j], "count": int(n), "share": n / persons[i], "right": i == j}
                    for j, n in enumerate(table[i])
                ]
                if persons[i]
                else [],
            }
            for i in range(len(labels))
        ],
        "predicted": table.sum(axis=0).tolist(),
        "pairs": [
            (f"{labels[i]} → {labels[j]}", int(wrong[i, j]), wrong[i, j] / persons[i])
            for i, j in pairs[:_PAIRS]
            if wrong[i, j]
        ],
    }


def _shares(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Labels from the largest mean true share to the least, with bars in percent of the width."""
    top = max((row[name] for row in rows for name in ("true", "predicted")), default=0) or 1
    bars = [
        {
            **row,
            **{f"{name}_bar": round(100 * row[name] / top, 2) for name in ("true", "predicted")},
        }
        for row in sorted(rows, key=lambda row: -row["true"])
    ]
    return {
        "rows": bars,
        "ticks": [(tick, round(100 * tick / top, 2)) for tick in ticks(0, top, 4)],
    }


def _probabilities(persons: Sequence[Person]) -> bool:
    """Whether the scores of each person shown sum to 1; else they are called no probabilities."""
    return is_distribution(np.array([list(p.probabilities.values()) for p in persons], ndmin=2))


def _classes(
    rows: Iterable[Mapping[str, Any]], table: np.ndarray | None = None
) -> list[dict[str, Any]]:
    """Labels from the best to the worst, those that cannot be measured last; each keeps the
    number it has in the file, by which the page joins its bar and its curve. With the `table` of
    single labels, recall and precision too, NaN where there is nobody to count."""
    known = [dict(row, number=number) for number, row in enumerate(rows)]
    if table is not None:
        for name, persons in (("recall", table.sum(axis=1)), ("precision", table.sum(axis=0))):
            for row, right, all_ in zip(known, np.diag(table), persons, strict=True):
                row[name] = right / all_ if all_ else math.nan
    return sorted(known, key=lambda row: (math.isnan(row["ap"]), -row["ap"], row["number"]))


@dataclass(frozen=True)
class Frame:
    """A chart's plane: (x, y) in data to (x, y) in the SVG, whose y runs down."""

    width: float
    height: float
    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, x: float, y: float) -> tuple[float, float]:
        return (
            round((x - self.x[0]) / (self.x[1] - self.x[0]) * self.width, 1),
            round((1 - (y - self.y[0]) / (self.y[1] - self.y[0])) * self.height, 1),
        )

    def path(self, points: Iterable[tuple[float, float]]) -> str:
        return "M" + "L".join("{:g} {:g}".format(*self.at(*point)) for point in points)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten apart) within [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / count))
    step = next(s * power for s in (1, 2, 5, 10) if span / (s * power) <= count)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def _pr(rows: Iterable[Mapping[str, Any]], per_class: Sequence[Mapping[str, Any]]) -> dict:
    frame = Frame(400, 400, (0, 1), (0, 1))
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        points.setdefault(row["label"], []).append((row["recall"], row["precision"]))
    curves = [
        {
            **row,
            "number": number,
            "path": frame.path(points[row["label"]]) if row["label"] in points else "",
            "chance_y": frame.at(0, row["chance"])[1],
        }
        for number, row in enumerate(per_class)
    ]
    return {"frame": frame, "curves": curves, "ticks": ticks(0, 1)}


def _training(
    rows: Sequence[Mapping[str, Any]], kept: int | None, kind: Kind
) -> list[dict[str, Any]]:
    """Two charts, loss and validation mAP, with the epoch whose weights were kept."""
    if not rows:
        return []
    charts = []
    ranked = "mAP on val" + (", labels above one half" if kind == "distribution" else "")
    for title, wanted in (
        ("Loss", {"train": "train_loss", "val": "val_loss"}),
        (ranked, {"val": "val_map"}),
    ):
        series = {
            name: [(row["epoch"], row[key]) for row in rows if math.isfinite(row[key])]
            for name, key in wanted.items()
        }
        values = [value for points in series.values() for _, value in points]
        if not values:
            continue
        low, high = min(values), max(values)
        margin = (high - low or abs(high) or 1) * 0.06
        first, last = rows[0]["epoch"], rows[-1]["epoch"]
        frame = Frame(440, 190, (first, max(last, first + 1)), (low - margin, high + margin))
        charts.append(
            {
                "title": title,
                "frame": frame,
                "best": kept,
                "best_x": None if kept is None else frame.at(kept, low)[0],
                "x_ticks": [(t, frame.at(t, low)[0]) for t in ticks(*frame.x) if t == int(t)],
                "y_ticks": [(f"{t:g}", frame.at(first, t)[1]) for t in ticks(*frame.y, 4)],
                "lines": [
                    {
                        "name": name,
                        "path": frame.path(points),
                        "end": frame.at(*points[-1]),
                        "best": next((frame.at(*p) for p in points if p[0] == kept), None),
                        "value": next((p[1] for p in points if p[0] == kept), None),
                    }
                    for name, points in series.items()
                    if points
                ],
            }
        )
        _spread(charts[-1]["lines"])
    return charts


def _spread(lines: list[dict[str, Any]], least: float = 13) -> None:
    """Give the names at the right end of the lines heights that do not touch."""
    ordered = sorted(lines, key=lambda line: line["end"][1])
    for line in ordered:
        line["name_y"] = line["end"][1]
    for above, below in pairwise(ordered):
        gap = below["name_y"] - above["name_y"]
        if gap < least:
            above["name_y"] -= (least - gap) / 2
            below["name_y"] = above["name_y"] + least


def _graphs(data: ReportData) -> list[dict[str, Any]]:
    found = []
    for matrix, title, symbol, says, sign in (
        (
            data.cooccurrence,
            "Co-occurrence",
            "Ao",
            "how often the column's label is there when the row's is, training labels",
            "→",
        ),
        (
            data.similarity,
            "Similarity",
            "Ah",
            "cosine of the two definitions as the text network reads them, negative ones as 0",
            "·",
        ),
    ):
        if matrix is None:
            continue
        matrix = np.asarray(matrix, dtype=float)
        labels = list(data.labels)
        if matrix.shape != (len(labels), len(labels)):
            raise DataError(f"The graph {title} is {matrix.shape} for {len(labels)} labels.")
        apart = np.where(np.eye(len(labels), dtype=bool) | ~np.isfinite(matrix), 0, matrix)
        top = float(apart.max()) or 1.0
        symmetric = np.allclose(apart, apart.T, atol=1e-4)
        order = np.argsort(-(np.triu(apart) if symmetric else apart), axis=None, kind="stable")
        pairs = [divmod(int(place), len(labels)) for place in order[:_PAIRS]]
        found.append(
            {
                "title": title,
                "symbol": symbol,
                "says": says,
                "top": top,
                "cells": [
                    {
                        "row": int(i),
                        "column": int(j),
                        "value": float(apart[i, j]),
                        "shade": round(float(apart[i, j]) / top, 3),
                    }
                    for i, j in np.argwhere(apart / top >= 0.01)
                ],
                "pairs": [
                    (f"{labels[i]} {sign} {labels[j]}", float(apart[i, j]))
                    for i, j in pairs
                    if apart[i, j] > 0
                ],
            }
        )
    return found


Place = Callable[[float], float]  # a score -> how far along its bar, in percent


def _persons(data: ReportData, kind: Kind) -> list[dict[str, Any]]:
    scores = [score for person in data.persons for score in person.probabilities.values()]
    scores += [share for person in data.persons for share in (person.shares or {}).values()]
    low, high = min([0.0, *scores]), max([0.0, *scores])
    if 0.5 <= high <= 1:
        high = 1.0  # probabilities are shown on their own scale, other scores from end to end
    span = high - low or 1.0

    def place(score: float) -> float:
        return round(100 * min(max((score - low) / span, 0), 1), 1)

    limits = {row["label"]: row.get("threshold", math.nan) for row in data.per_class}
    cards = []
    for person in data.persons:
        objects = sorted(person.mark.objects, key=lambda o: -(o.weight or 0))
        picture = _upright(person.picture)
        mark = replace(person.mark, emotions=(), name="")
        drawn = draw(picture, [mark], longest=_PICTURE, zoom=1.6)
        if kind == "distribution":
            answer = _both_shares(person, place)
        elif kind == "single":
            answer = _one_label(person, place)
        else:
            answer = _decisions(person, place, limits)
        cards.append(
            {
                "name": person.name,
                "notes": list(person.notes),
                "image": _data_url(drawn),
                "width": drawn.width,
                "height": drawn.height,
                "says": _says(person, objects),
                "objects": objects[:_OBJECTS],
                "more": max(0, len(objects) - _OBJECTS),
                **answer,
            }
        )
    return cards


def _decisions(person: Person, place: Place, limits: Mapping[str, float]) -> dict[str, Any]:
    """Of any number of labels those that are true or predicted, with the threshold of each."""
    true, predicted = set(person.true), set(person.predicted)
    rows = []
    for label, score in _ranked(person.probabilities):
        if label in true | predicted:
            limit = limits.get(label, math.nan)
            at = place(limit) if math.isfinite(limit) else None
            rows.append(_row(label, score, true, predicted, place) | {"limit": at})
    found = f"{len(true & predicted)} of {len(true)} true labels among {len(predicted)} predicted"
    return {"rows": rows, "found": found}


def _one_label(person: Person, place: Place) -> dict[str, Any]:
    """The labels with the highest scores, and the true one wherever it stands."""
    true, predicted = set(person.true), set(person.predicted)
    ranked = _ranked(person.probabilities)
    kept = [
        (label, score)
        for rank, (label, score) in enumerate(ranked)
        if rank < _ROWS or label in true | predicted
    ]
    answer = "right" if true == predicted else f"predicted {', '.join(person.predicted)}"
    return {
        "rows": [_row(*one, true, predicted, place) | {"limit": None} for one in kept],
        "found": f"{', '.join(person.true)}, {answer}",
        "others": len(ranked) - len(kept),
    }


def _both_shares(person: Person, place: Place) -> dict[str, Any]:
    """The labels with the largest shares, true or predicted, and what the others add up to."""
    true, predicted = person.shares or {}, person.probabilities
    largest = sorted(predicted, key=lambda label: -max(true[label], predicted[label]))
    kept, others = largest[:_ROWS], largest[_ROWS:]
    rows = [(label, true[label], predicted[label]) for label in kept]
    rows.sort(key=lambda row: (-row[1], -row[2]))
    if others:
        name = f"{len(others)} other{'s' if len(others) > 1 else ''}"
        rows.append((name, *(sum(part[label] for label in others) for part in (true, predicted))))
    common = sum(min(true[label], predicted[label]) for label in predicted)
    return {
        "rows": [
            {
                "label": label,
                "true": share,
                "predicted": score,
                "true_bar": place(share),
                "bar": place(score),
            }
            for label, share, score in rows
        ],
        "found": f"intersection {common:.2f}",
    }


def _ranked(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(scores.items(), key=lambda item: -item[1])


def _row(
    label: str, score: float, true: set[str], predicted: set[str], place: Place
) -> dict[str, Any]:
    kinds = {(True, True): "hit", (True, False): "missed", (False, True): "wrong"}
    kind = kinds.get((label in true, label in predicted), "neither")
    return {"label": label, "score": score, "kind": kind, "bar": place(score)}


def _says(person: Person, objects: Sequence[ObjectMark]) -> str:
    """The picture in words, for a reader who cannot see it."""
    names = ", ".join(mark.name for mark in objects) or "none"
    face = "face found" if person.mark.face else "no face found"
    return f"{person.name}: the picture with the person's box, {face}; objects: {names}"


def _upright(picture: Path | Image.Image) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    try:
        with Image.open(picture) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise DataError(f"The report cannot open {picture}: {error}") from None


def _data_url(picture: Image.Image) -> str:
    held = BytesIO()
    picture.save(held, "WEBP", quality=78, method=4)
    return "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode("ascii")
