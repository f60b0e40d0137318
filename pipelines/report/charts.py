"""The report's charts as plain values: places in SVGs, bars in percent, cells and their shades."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from cache.errors import DataError
from train.labels import LabelKind
from train.scores import Scores

PAIRS = 8  # strongest pairs listed with a label graph or a confusion matrix

Row = Mapping[str, Any]  # of a table, by the names of its columns


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


def table(confusion: Sequence[Row], labels: Sequence[str]) -> np.ndarray:
    """(C, C) persons: by their label (row) and the one predicted (column)."""
    at = {label: number for number, label in enumerate(labels)}
    table = np.zeros((len(at), len(at)), dtype=int)
    for row in confusion:
        table[at[row["actual"]], at[row["predicted"]]] += 1
    return table


def confusion(table: np.ndarray, labels: Sequence[str]) -> dict[str, Any]:
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
            for i, j in pairs[:PAIRS]
            if wrong[i, j]
        ],
    }


def shares(scores: Scores) -> dict[str, Any]:
    """Labels from the largest mean true share to the least, with the mean predicted one, the mean
    of |d - p| person by person, and bars in percent of the width."""
    true, predicted = np.asarray(scores.distribution), scores.y_score
    means = (part.mean(axis=0).tolist() for part in (true, predicted, abs(true - predicted)))
    names = ("label", "true", "predicted", "off")
    rows = [dict(zip(names, row, strict=True)) for row in zip(scores.labels, *means, strict=True)]
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


def classes(rows: Iterable[Row], table: np.ndarray | None = None) -> list[dict[str, Any]]:
    """Labels from the best to the worst, those that cannot be measured last; each keeps the
    number it has in the file, by which the page joins its bar and its curve. With the `table` of
    single labels, recall and precision too, NaN where there is nobody to count."""
    known = [dict(row, number=number) for number, row in enumerate(rows)]
    if table is not None:
        for name, persons in (("recall", table.sum(axis=1)), ("precision", table.sum(axis=0))):
            for row, right, all_ in zip(known, np.diag(table), persons, strict=True):
                row[name] = right / all_ if all_ else math.nan
    return sorted(known, key=lambda row: (math.isnan(row["ap"]), -row["ap"], row["number"]))


def pr(rows: Iterable[Row], per_class: Sequence[Row]) -> dict[str, Any]:
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


def training(rows: Sequence[Row], kept: int | None, kind: LabelKind) -> list[dict[str, Any]]:
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
        lines: list[dict[str, Any]] = [
            {
                "name": name,
                "path": frame.path(points),
                "end": frame.at(*points[-1]),
                "best": next((frame.at(*p) for p in points if p[0] == kept), None),
                "value": next((p[1] for p in points if p[0] == kept), None),
            }
            for name, points in series.items()
            if points
        ]
        charts.append(
            {
                "title": title,
                "frame": frame,
                "best": kept,
                "best_x": None if kept is None else frame.at(kept, low)[0],
                "x_ticks": [(t, frame.at(t, low)[0]) for t in ticks(*frame.x) if t == int(t)],
                "y_ticks": [(f"{t:g}", frame.at(first, t)[1]) for t in ticks(*frame.y, 4)],
                "lines": lines,
            }
        )
        _spread(lines)
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


def graphs(
    labels: Sequence[str], cooccurrence: np.ndarray | None, similarity: np.ndarray | None
) -> list[dict[str, Any]]:
    """The (C, C) matrices of a label graph that the head has, as shaded cells, with their strongest
    pairs. Raises DataError for one that is not of these labels."""
    found = []
    for matrix, title, symbol, says, sign in (
        (
            cooccurrence,
            "Co-occurrence",
            "Ao",
            "how often the column's label is there when the row's is, training labels",
            "→",
        ),
        (
            similarity,
            "Similarity",
            "Ah",
            "cosine of the two definitions as the text network reads them, negative ones as 0",
            "·",
        ),
    ):
        if matrix is None:
            continue
        matrix = np.asarray(matrix, dtype=float)
        if matrix.shape != (len(labels), len(labels)):
            raise DataError(f"The graph {title} is {matrix.shape} for {len(labels)} labels.")
        apart = np.where(np.eye(len(labels), dtype=bool) | ~np.isfinite(matrix), 0, matrix)
        top = float(apart.max()) or 1.0
        symmetric = np.allclose(apart, apart.T, atol=1e-4)
        once = np.triu(apart) if symmetric else apart
        order = np.argsort(-once, axis=None, kind="stable")
        pairs = [divmod(int(place), len(labels)) for place in order[:PAIRS]]
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
                    if once[i, j] > 0
                ],
            }
        )
    return found
