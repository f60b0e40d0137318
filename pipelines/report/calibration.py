"""Whether the head's probabilities are what they say, as plain values for `calibration.html`."""

from typing import Any

import numpy as np

from pipelines.report.charts import Frame, ticks
from pipelines.report.data import ReportData
from train.labels import LabelKind
from train.metrics.calibration import Calibration, Reliability, calibration, no_probabilities

RESAMPLES = 1000


def content(data: ReportData, kind: LabelKind) -> dict[str, Any] | None:
    """What the page says of calibration; `no`: why it says nothing, for a head whose scores are no
    probabilities. None for distributions, of which nothing is decided. Of many labels those that no
    training person had stay out: the head says about 0 of them to everybody, which flatters it."""
    if kind == "distribution":
        return None
    score = np.asarray(data.scores.y_score)
    if why := _squared(data.head, kind) or no_probabilities(score, kind):
        return {"no": f"The scores of {data.head} are no probabilities ({why})"}
    confidence = data.metrics[data.split]["confidence"]
    known = np.array(
        [kind == "single" or data.learned is None or name in data.learned for name in data.labels]
    )
    if not known.any():
        return {"no": f"No training person of {data.head} had any of the labels"}
    found = calibration(
        data.scores.y_true[:, known],
        np.ascontiguousarray(score[:, known]),  # sums of columns round as those of the whole
        data.scores.resampled,
        kind,
        resamples=RESAMPLES,
        confidence=confidence,
    )
    labels = [name for name, one in zip(data.labels, known, strict=True) if one]
    left_out = len(data.labels) - len(labels)
    return {
        "no": "",
        "confidence": confidence,
        "left_out": left_out,
        **values(found, labels, kind),
    }


def values(found: Calibration, labels: Any, kind: LabelKind) -> dict[str, Any]:
    """Curves on one plane, the pooled one first, and labels from the greatest error to the least;
    bars and ends of intervals in percent of the width."""
    frame = Frame(400, 400, (0, 1), (0, 1))
    top = max([one.error for one in found.per_label] + [_end(one) for one in found.per_label])
    top = top or 1.0
    rows: list[dict[str, Any]] = [
        {
            "label": label,
            "number": number,
            "positives": round(float(one.observed @ one.count)),
            "error": one.error,
            "low": one.low,
            "high": one.high,
            "known": bool(np.isfinite(one.high)),
            "bar": _along(one.error, top),
            "floor": _along(min(one.floor, top), top),
            "ends": [_along(end, top) for end in (one.low, one.high)],
            **_curve(one, frame),
        }
        for number, (label, one) in enumerate(zip(labels, found.per_label, strict=True))
    ]
    return {
        "single": kind == "single",
        "frame": frame,
        "ticks": [(tick, *frame.at(tick, tick)) for tick in ticks(0, 1)],
        "error": found.pooled.error,
        "low": found.pooled.low,
        "high": found.pooled.high,
        "floor": found.pooled.floor,
        "brier": found.brier,
        "brier_low": found.brier_low,
        "brier_high": found.brier_high,
        "decisions": int(found.pooled.count.sum()),
        "bins": len(found.pooled.count),
        "most": int(found.pooled.count.max()),
        "says": _says(found.pooled),
        **_curve(found.pooled, frame),
        "rows": sorted(rows, key=lambda row: (-row["error"], row["number"])),
        "scale": [(tick, _along(tick, top)) for tick in ticks(0, top, 4)],
    }


def _squared(head: str, kind: LabelKind) -> str:
    """Why, where the head is known to fit its scores to the labels by squared error."""
    from train.head import SquaredHead
    from train.heads import get_head, names

    if head not in names():
        return ""
    squared = kind == "multi" and issubclass(get_head(head), SquaredHead)
    return "fitted by squared error" if squared or head == "linear" else ""


def _curve(one: Reliability, frame: Frame) -> dict[str, Any]:
    pairs = list(zip(one.predicted.tolist(), one.observed.tolist(), strict=True))
    counted = zip(pairs, one.count.tolist(), strict=True)
    return {
        "path": frame.path(pairs),
        "points": [
            {"at": frame.at(*pair), "predicted": pair[0], "observed": pair[1], "count": count}
            for pair, count in counted
        ],
    }


def _says(one: Reliability) -> str:
    """In words, where the curve lies."""
    gap = float(np.average(one.predicted - one.observed, weights=one.count))
    if one.error <= 1.5 * one.floor:
        return "about what a calibrated head shows on so many decisions"
    if abs(gap) < one.error / 2:
        return "too high in places and too low in others"
    return "probabilities are too high" if gap > 0 else "probabilities are too low"


def _end(one: Reliability) -> float:
    return one.high if np.isfinite(one.high) else 0.0


def _along(value: float, top: float) -> float:
    return round(100 * value / top, 2) if np.isfinite(value) else 0.0
