"""One run as one HTML file: plain data in, a page out that opens anywhere and asks no network.

Charts are SVG written here and in `templates/report.html`, without a script: the page holds no
JavaScript, so nothing in it can fail, and a page of 26 labels and 12 persons is about 1 MB.
"""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cache.errors import DataError
from pipelines.evaluation import fitted_elsewhere, read_csv, read_metrics
from pipelines.overlay import ObjectMark, PersonMark, draw

_PICTURE = 720  # longer side of a person's picture in pixels: sharp on a screen of double density
_OBJECTS = 5  # objects listed with a person
_PAIRS = 8  # strongest pairs listed with a label graph


@dataclass(frozen=True)
class Person:
    """One person of the split, everything in pixels of the upright picture."""

    name: str  # e.g. "person 41"
    picture: Path | Image.Image
    mark: PersonMark  # box, face and objects; its emotions are not drawn here
    true: Sequence[str]
    predicted: Sequence[str]
    probabilities: Mapping[str, float]  # every label -> score
    notes: Sequence[str] = ()  # e.g. "no face found"


@dataclass(frozen=True)
class ReportData:
    """All that a report shows. `metrics`, `per_class`, `pr` and `curves` are the files of
    `results/` as `read_results` gives them; `networks` are `Weights.facts()` with their `view`
    (keys view, network, name, source, licence, sha256, trained)."""

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
        "curves": folder / "curves.csv",
    }
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise DataError(
            f"The report needs {', '.join(missing)}: run `emocache train` and `emocache evaluate`."
        )
    tables: dict[str, Any] = {name: read_csv(paths[name]) for name in ("per_class", "pr", "curves")}
    return {"metrics": read_metrics(folder), **tables}


def write_report(data: ReportData, path: Path) -> Path:
    """Write the page to `path` and return it.

    Raises DataError when the metrics are not of `data.split`, and for a graph that is not (C, C).
    """
    from jinja2 import Environment

    template = files("pipelines").joinpath("templates", "report.html").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "thousands": thousands, "two": two}
    page = environment.from_string(template).render(**_content(data))
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


# ---- what the template is given ------------------------------------------------------------


def _content(data: ReportData) -> dict[str, Any]:
    if data.split not in data.metrics:
        raise DataError(
            f"The report is of {data.split}, but the metrics are of "
            f"{', '.join(k for k in data.metrics if k != 'provenance')}: set evaluate.split."
        )
    provenance = dict(data.metrics["provenance"]) | dict(data.facts)
    return {
        "data": data,
        "numbers": data.metrics[data.split],
        "facts": {_words(key): _text(value) for key, value in provenance.items()},
        "elsewhere": fitted_elsewhere(provenance),
        "untrained": _untrained(data.networks),
        "classes": _classes(data.per_class),
        "pr": _pr(data.pr, data.per_class),
        "training": _training(data.curves, provenance.get("best_epoch")),
        "graphs": _graphs(data),
        "persons": _persons(data),
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


def _classes(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Labels from the best to the worst, those that cannot be measured last; each keeps the
    number it has in the file, by which the page joins its bar and its curve."""
    known = [dict(row, number=number) for number, row in enumerate(rows)]
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


def _training(rows: Sequence[Mapping[str, Any]], kept: int | None) -> list[dict[str, Any]]:
    """Two charts, loss and validation mAP, with the epoch whose weights were kept."""
    if not rows:
        return []
    charts = []
    for title, wanted in (
        ("Loss", {"train": "train_loss", "val": "val_loss"}),
        ("mAP on val", {"val": "val_map"}),
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


def _persons(data: ReportData) -> list[dict[str, Any]]:
    limits = {row["label"]: row.get("threshold", math.nan) for row in data.per_class}
    every = [score for person in data.persons for score in person.probabilities.values()]
    low, high = min([0.0, *every]), max([0.0, *every])
    if 0.5 <= high <= 1:
        high = 1.0  # probabilities are shown on their own scale, other scores from end to end
    span = high - low or 1.0

    def place(score: float) -> float:
        return round(100 * min(max((score - low) / span, 0), 1), 1)

    cards = []
    for person in data.persons:
        true, predicted = set(person.true), set(person.predicted)
        ranked = sorted(person.probabilities.items(), key=lambda item: -item[1])
        rows = []
        for label, score in ranked:
            if label not in true | predicted:
                continue
            limit = limits.get(label, math.nan)
            rows.append(
                {
                    "label": label,
                    "score": score,
                    "kind": "hit"
                    if label in true & predicted
                    else "missed"
                    if label in true
                    else "wrong",
                    "bar": place(score),
                    "limit": place(limit) if math.isfinite(limit) else None,
                }
            )
        objects = sorted(person.mark.objects, key=lambda o: -(o.weight or 0))
        picture = _upright(person.picture)
        mark = replace(person.mark, emotions=(), name="")
        drawn = draw(picture, [mark], longest=_PICTURE, zoom=1.6)
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
                "rows": rows,
                "hits": len(true & predicted),
                "true": len(true),
                "predicted": len(predicted),
            }
        )
    return cards


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
