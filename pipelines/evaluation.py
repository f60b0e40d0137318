"""A trained head's scores -> metrics.json, provenance.json, per_class.csv, pr.csv, scores.parquet.

The numbers go through `train.metrics`; here they are named, put beside how many persons they
stand on and where they come from, and written where DVC looks for metrics and plots.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import DataError
from train import metrics
from train.settings import Evaluate

if TYPE_CHECKING:  # train.run loads torch, and nothing here needs it
    from train.run import Scores

PER_CLASS = ("label", "ap", "low", "high", "chance", "positives", "threshold")
PR = ("label", "recall", "precision")
_POINTS = 100  # of a precision-recall curve that are kept


@dataclass(frozen=True)
class Evaluation:
    """What is measured on one split, and the tables behind it."""

    scores: "Scores"
    metrics: dict[str, Any]
    per_class: list[dict[str, Any]] = field(repr=False)
    pr: list[dict[str, Any]] = field(repr=False)

    def write(self, folder: Path) -> None:
        """Write metrics.json, which DVC shows a line a run, provenance.json, plots/per_class.csv,
        plots/pr.csv and scores.parquet."""
        plots = folder / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        numbers = {split: found for split, found in self.metrics.items() if split != "provenance"}
        for name, content in (("metrics", numbers), ("provenance", self.metrics["provenance"])):
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        _write_csv(plots / "per_class.csv", PER_CLASS, self.per_class)
        _write_csv(plots / "pr.csv", PR, self.pr)
        write_scores(folder / "scores.parquet", self.scores)


def evaluate(
    scores: "Scores",
    labels: Sequence[str],
    settings: Evaluate,
    provenance: Mapping[str, Any],
    *,
    val: "Scores | None" = None,
    folder: Path = Path("results"),
) -> dict[str, Any]:
    """Measure `scores`, write the results into `folder`, return what `read_metrics` reads."""
    evaluation = measure(scores, labels, settings, provenance, val=val)
    evaluation.write(folder)
    return evaluation.metrics


def measure(
    scores: "Scores",
    labels: Sequence[str],
    settings: Evaluate,
    provenance: Mapping[str, Any],
    *,
    val: "Scores | None" = None,
) -> Evaluation:
    """Every number of one split, as fractions (mAP 0.3147, not 31.47).

    metrics = {<split>: {mAP, mAP_low, mAP_high, confidence, mAP_interpolated, chance_mAP,
    random_mAP, n_evaluated, n_dropped, dropped: {reason: persons}, n_pictures, classes,
    classes_with_positive, dataset, note, cache_key, fitted_on, seed, [F1_macro, F1_micro,
    jaccard]}, [val: {mAP, chance_mAP, n_evaluated}], provenance: {...}}. NaN is written as null.

    `provenance` is kept as given, and in short beside the numbers. It must have dataset, note,
    cache_key, fitted_on (the same three of the data that the head was fitted on) and seed.
    Thresholds, and with them F1 and Jaccard, need the scores of the validation split: `val`.
    Measuring val itself gives neither.

    Raises DataError for scores that are not finite, of other widths than `labels`, or when
    `val` is not the validation split.
    """
    true, score = np.asarray(scores.y_true), np.asarray(scores.y_score)
    if true.ndim != 2 or true.shape[1] != len(labels):
        raise DataError(
            f"The {scores.split} scores are {true.shape}, but the index has {len(labels)} labels: "
            "fit the head again on this cache."
        )
    if val is not None and val.split != "val":
        raise DataError(f"Thresholds come from val only, and these scores are of {val.split}.")
    average = metrics.average_precision(true, score)
    interval = metrics.bootstrap(
        true,
        score,
        np.asarray(scores.picture_rows),
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=settings.seed,
    )
    numbers = {
        "mAP": metrics.mean_average_precision(true, score),
        "mAP_low": interval.mean_low,
        "mAP_high": interval.mean_high,
        "confidence": settings.confidence,
        "mAP_interpolated": metrics.mean_average_precision(true, score, interpolated=True),
        "chance_mAP": metrics.chance_level(true),
        "random_mAP": metrics.random_order(true),
        "n_evaluated": len(true),
        "n_dropped": int(sum(scores.dropped.values())),
        "dropped": {reason: int(count) for reason, count in sorted(scores.dropped.items())},
        "n_pictures": len(np.unique(scores.picture_rows)),
        "classes": len(labels),
        "classes_with_positive": int(np.isfinite(average).sum()),
        **_in_short(provenance),
    }
    found: dict[str, Any] = {scores.split: numbers}
    limits = np.full(len(labels), np.nan)
    if val is not None and scores.split != "val":
        limits = metrics.thresholds(val.y_true, val.y_score)
        numbers |= _decided(true, score >= limits)  # nothing reaches a threshold that is NaN
        found["val"] = {
            "mAP": metrics.mean_average_precision(val.y_true, val.y_score),
            "chance_mAP": metrics.chance_level(val.y_true),
            "n_evaluated": len(val.y_true),
        }
    found["provenance"] = {
        **provenance,
        "interval": f"{settings.confidence:.0%} basic bootstrap over pictures, "
        f"{settings.bootstrap} resamples, seed {settings.seed}",
    }
    per_class = [
        {
            "label": label,
            "ap": average[row],
            "low": interval.low[row],
            "high": interval.high[row],
            "chance": true[:, row].mean(),
            "positives": int(true[:, row].sum()),
            "threshold": limits[row],
        }
        for row, label in enumerate(labels)
    ]
    return Evaluation(scores, _plain(found), per_class, _curves(true, score, labels))


def _in_short(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What stands beside a number wherever it is shown: each fits a column of a table."""
    key, fitted = provenance["cache_key"], provenance["fitted_on"]
    other = f"{fitted['dataset']} {fitted['cache_key'][:12]}"
    return {
        "dataset": provenance["dataset"],
        "note": provenance["note"],
        "cache_key": key[:12],
        "fitted_on": "the same" if fitted["cache_key"] == key else other,
        "seed": provenance["seed"],
    }


def fitted_elsewhere(provenance: Mapping[str, Any]) -> str:
    """Both data sets in words, where the head was fitted on other data than these; "" where not."""
    here, fitted = provenance["cache_key"], provenance["fitted_on"]
    if fitted["cache_key"] == here:
        return ""
    return (
        f"fitted on {fitted['dataset']} (cache key {fitted['cache_key'][:12]}), "
        f"evaluated on {provenance['dataset']} (cache key {here[:12]})"
    )


def write_scores(path: Path, scores: "Scores") -> None:
    """person, picture (rows in the index), split, y_true and y_score (lists), one row a person."""
    person_rows = np.asarray(scores.person_rows)
    table = pa.table(
        {
            "person": pa.array(person_rows, pa.int32()),
            "picture": pa.array(np.asarray(scores.picture_rows), pa.int32()),
            "split": [scores.split] * len(person_rows),
            "y_true": pa.array(np.asarray(scores.y_true).tolist(), pa.list_(pa.float32())),
            "y_score": pa.array(np.asarray(scores.y_score).tolist(), pa.list_(pa.float32())),
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def read_metrics(folder: Path) -> dict[str, Any]:
    """What `evaluate` returned: metrics.json with provenance.json beside the splits."""
    paths = {name: folder / f"{name}.json" for name in ("metrics", "provenance")}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise DataError(f"no {', '.join(missing)}: run `emocache evaluate` first")
    metrics, provenance = (json.loads(path.read_text("utf-8")) for path in paths.values())
    return {**metrics, "provenance": provenance}


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a results table; what reads as a number is one, an empty cell is NaN."""

    def cell(text: str) -> Any:
        try:
            return float(text) if text else math.nan
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: text if name == "label" else cell(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def _decided(true: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """F1, the mean over labels and over all decisions, and Jaccard, the mean over persons.

    Over the labels with a positive. A person with nothing true or predicted counts 0.
    """
    kept = true.any(axis=0)
    true, predicted = true[:, kept].astype(bool), predicted[:, kept]
    both, either = true & predicted, true | predicted
    size = true.sum(axis=0) + predicted.sum(axis=0)  # 0 for no label: each has a positive
    return {
        "F1_macro": np.mean(2 * both.sum(axis=0) / size) if kept.any() else math.nan,
        "F1_micro": 2 * both.sum() / size.sum() if kept.any() else math.nan,
        "jaccard": np.mean(both.sum(axis=1) / np.maximum(either.sum(axis=1), 1)),
    }


def _curves(true: np.ndarray, score: np.ndarray, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Precision and recall of each label with a positive, thinned evenly along recall."""
    rows = []
    for label, t, s in zip(labels, true.T, score.T, strict=True):
        if not t.any():
            continue
        recall, precision = metrics.precision_recall(t, s)
        at = np.searchsorted(recall, np.linspace(0, 1, _POINTS))
        kept = np.unique(np.clip([0, *at, len(recall) - 1], 0, len(recall) - 1))
        rows += [
            {"label": label, "recall": round(r, 5), "precision": round(p, 5)}
            for r, p in zip(recall[kept].tolist(), precision[kept].tolist(), strict=True)
        ]
    return rows


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        for row in rows:
            writer.writerow({name: _cell(row[name]) for name in columns})


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"


def _plain(value: Any) -> Any:
    """Only what JSON and DVC know: numpy numbers as Python's, NaN as null, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
