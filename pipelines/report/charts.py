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
TOKENS = 32  # rows and columns of a transport plan that are drawn, at most

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


@dataclass(frozen=True)
class Matrix:
    """Numbers (C, C) of pairs of labels: its title and symbol, and what a number says; directed:
    what row i says of column j is another thing than what j says of i."""

    title: str
    says: str
    values: np.ndarray
    symbol: str = ""
    directed: bool = False


ROWS_HAVE = "how often the column's label is there when the row's is"
# What is known of the graphs of heads, by their names: title, symbol, what a number says.
GRAPHS = {
    "cooccurrence": (
        "Co-occurrence",
        "Ao",
        f"{ROWS_HAVE}, training labels",
    ),
    "similarity": (
        "Similarity",
        "Ah",
        "cosine of the two definitions as the text network reads them, negative ones as 0",
    ),
    "learned": ("Learned by the head", "", "cosine of the two labels' embeddings"),
    "data": ("Training labels", "", "what the embeddings are drawn to"),
}
CORRELATIONS = ("learned", "data")  # those of them that stand beside what they should be like


def graphs(labels: Sequence[str], found: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The (C, C) matrices of a head's label graph, by name, as shaded cells with their strongest
    pairs; one that no name tells of is shown under its own. Raises DataError for one that is not of
    these labels."""
    return [heat(labels, _graph(*one)) for one in found.items()]


def correlations(scores: Scores, found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Pearson's correlation of the shares of each two labels over the persons, true and predicted,
    and what the head has learned of them; `gap`: the mean of |predicted - true| over the pairs for
    which both are known."""
    shares = np.asarray(scores.distribution), scores.y_score
    true, predicted = (correlation(part) for part in shares)
    apart = abs(predicted - true)[np.triu_indices(len(true), 1)]
    known = apart[np.isfinite(apart)]
    matrices = [
        Matrix("True", f"correlation of the true shares on {scores.split}", true),
        Matrix("Predicted", f"correlation of the predicted shares on {scores.split}", predicted),
        *(_graph(name, found[name]) for name in CORRELATIONS if name in found),
    ]
    return {
        "gap": float(known.mean()) if len(known) else math.nan,
        "matrices": [heat(scores.labels, one, _strongest(matrices)) for one in matrices],
    }


def cooccurrences(scores: Scores, thresholds: Sequence[float]) -> dict[str, Any]:
    """How often the persons with one label have each other (RRLA's Fig. 6): by their true labels,
    and by those predicted at these thresholds (C,), NaN where there is none; `gap`: the mean of
    |predicted - true| over the pairs of labels that both occur, true and predicted."""
    true = _given(scores.y_true > 0)
    matrices = [
        Matrix("True", f"{ROWS_HAVE}, true labels of {scores.split}", true, directed=True),
    ]
    gap = math.nan
    limits = np.asarray(thresholds, dtype=float)
    if not np.isnan(limits).all():
        predicted = _given(scores.y_score >= limits)
        apart = abs(predicted - true)
        pairs = np.isfinite(apart + apart.T) & ~np.eye(len(apart), dtype=bool)
        known = apart[pairs]
        gap = float(known.mean()) if len(known) else math.nan
        said = f"{ROWS_HAVE}, labels predicted on {scores.split}"
        matrices.append(Matrix("Predicted", said, predicted, directed=True))
    top = _strongest(matrices)
    return {"gap": gap, "matrices": [heat(scores.labels, one, top) for one in matrices]}


def _given(has: np.ndarray) -> np.ndarray:
    """(C, C) of (N, C): the share of the persons with label i who have j; NaN where nobody has
    i."""
    counts = has.sum(axis=0).astype(float)
    counts[counts == 0] = math.nan
    return (has.T.astype(float) @ has) / counts[:, None]


def _strongest(matrices: Iterable[Matrix]) -> float:
    """The largest number beside the diagonals: one scale for all, so that they can be compared."""
    return max(
        float(np.nan_to_num(abs(values - np.diag(np.diag(values)))).max())
        for values in (np.asarray(one.values, dtype=float) for one in matrices)
    )


def correlation(shares: np.ndarray) -> np.ndarray:
    """Pearson's (C, C) of the columns of (N, C); NaN of a column that never varies."""
    off = shares - np.mean(shares, axis=0, dtype=np.float64)
    size = np.sqrt((off**2).sum(axis=0))
    size[size <= 1e-6 * math.sqrt(len(shares))] = math.nan  # what is left is rounding
    return (off / size).T @ (off / size)


def _graph(name: str, values: np.ndarray) -> Matrix:
    title, symbol, says = GRAPHS.get(name, (name, "", "a graph of this head"))
    return Matrix(title, says, values, symbol, directed=name == "cooccurrence")


def heat(labels: Sequence[str], matrix: Matrix, top: float = 0.0) -> dict[str, Any]:
    """A matrix as shaded cells, full from `top` on, or at the strongest of them, with its strongest
    pairs; each pair once where the matrix is symmetric. Raises DataError where it is not of these
    labels."""
    values = np.asarray(matrix.values, dtype=float)
    if values.shape != (len(labels), len(labels)):
        raise DataError(f"The graph {matrix.title} is {values.shape} for {len(labels)} labels.")
    unknown = np.eye(len(labels), dtype=bool) | ~np.isfinite(values)
    apart = np.where(unknown, 0, values)
    top = top or float(abs(apart).max()) or 1.0
    symmetric = np.allclose(apart, apart.T, atol=1e-4)
    once = np.triu(apart) if symmetric else apart
    order = np.argsort(-abs(once), axis=None, kind="stable")
    pairs = [divmod(int(place), len(labels)) for place in order[:PAIRS]]
    sign = "·" if symmetric and not matrix.directed else "→"
    return {
        "title": matrix.title,
        "symbol": matrix.symbol,
        "says": matrix.says,
        "top": top,
        "low": -top if (apart < 0).any() else 0.0,
        "sign": sign,
        "absent": [label for label, row in zip(labels, unknown, strict=True) if row.all()],
        "cells": [
            {
                "row": int(i),
                "column": int(j),
                "value": float(apart[i, j]),
                "shade": round(abs(float(apart[i, j])) / top, 3),
                "less": bool(apart[i, j] < 0),
            }
            for i, j in np.argwhere(abs(apart) / top >= 0.01)
        ],
        "pairs": [
            (f"{labels[i]} {sign} {labels[j]}", float(apart[i, j])) for i, j in pairs if once[i, j]
        ],
    }


def transport(plan: np.ndarray) -> dict[str, Any]:
    """A transport plan (n, m) as shaded cells, the fullest of them full; of more than `TOKENS` on a
    side, neighbours are added up. `pairs`: where most goes, tokens counted from 1, each as a
    multiple of an even share; none where nothing is moved, as a side is missing."""
    plan = np.asarray(plan, dtype=float)
    drawn = plan
    for axis, size in enumerate(plan.shape):
        if size > TOKENS:
            starts = np.linspace(0, size, TOKENS, endpoint=False).astype(int)
            drawn = np.add.reduceat(drawn, starts, axis=axis)
    top = float(drawn.max()) or 1.0
    even = plan.sum() / plan.size or 1.0
    most = [divmod(int(at), plan.shape[1]) for at in np.argsort(-plan, axis=None, kind="stable")]
    return {
        "tokens": plan.shape,
        "drawn": drawn.shape,
        "added": drawn.shape != plan.shape,
        "cells": [
            {"row": int(i), "column": int(j), "shade": round(float(drawn[i, j]) / top, 3)}
            for i, j in np.argwhere(drawn / top >= 0.01)
        ],
        "pairs": [
            (f"{i + 1} → {j + 1}", float(plan[i, j]) / even) for i, j in most[:3] if plan[i, j] > 0
        ],
    }
