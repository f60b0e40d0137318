"""A head's scores -> every number of a split, and the tables behind them.

The numbers go through `train.metrics`; here they are named, and put beside how many persons they
stand on and where they come from. What each of them means: docs/metrics.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cache.errors import DataError
from cache.index import VAD
from pipelines.results import Results, plain, write_csv
from train import metrics
from train.labels import LabelKind
from train.scores import Scores
from train.settings import Evaluate

PER_CLASS = ("label", "ap", "low", "high", "chance", "positives", "threshold")
PR = ("label", "recall", "precision")
CONFUSION = ("actual", "predicted")
_POINTS = 100  # of a precision-recall curve that are kept


@dataclass(frozen=True)
class Evaluation:
    """What is measured on one split, and the tables behind it."""

    scores: Scores
    metrics: dict[str, Any]
    per_class: list[dict[str, Any]] = field(repr=False)
    pr: list[dict[str, Any]] = field(repr=False)
    confusion: list[dict[str, Any]] = field(default_factory=list, repr=False)
    drawn: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # (R,) of each measure

    def write(self, results: Results) -> None:
        """Write scores.parquet, the tables that DVC plots, metrics.json, and last provenance.json,
        without which nobody reads the others: a kill leaves no numbers beside scores that they are
        not of."""
        results.provenance.unlink(missing_ok=True)
        self.scores.write(results.scores)
        write_csv(results.per_class, PER_CLASS, self.per_class)
        write_csv(results.pr, PR, self.pr)
        # Only single labels have rows. Without rows too: DVC says that it failed where a plot of
        # dvc.yaml has no file.
        write_csv(results.confusion, CONFUSION, self.confusion)
        results.write_metrics(self.metrics)


def measure(
    scores: Scores,
    settings: Evaluate,
    provenance: Mapping[str, Any],
    *,
    val: Scores | None = None,
    leaked: np.ndarray | None = None,
) -> Evaluation:
    """Every number of one split, as fractions (mAP 0.3147, not 31.47).

    metrics = {<split>: {mAP, mAP_low, mAP_high, confidence, mAP_interpolated, chance_mAP,
    random_mAP, kind, n_evaluated, n_dropped, dropped: {reason: persons}, n_pictures, classes,
    classes_with_positive, dataset, note, cache_key, fitted_on, seed, [F1_macro, F1_micro, C_F1,
    O_F1, jaccard]}, [val: {mAP, chance_mAP, n_evaluated}], provenance: {...}}. NaN is written as
    null. By the kind of the labels (see `train.labels`) there are beside them:

    single: accuracy, balanced_accuracy and macro_F1 of the label scored highest, each with _low and
    _high, and chance_accuracy, that of naming the most frequent label of the split for everybody.
    distribution: each of `metrics.MEASURES` with _low and _high, and as chance_<measure> what
    predicting chance_distribution for everybody gives: the mean of the training persons where the
    scores have it, or the uniform one. mAP is then that of the labels with more than half of a
    person's distribution, and there is no F1 or Jaccard.

    A head that predicts valence, arousal and dominance has VAD_error beside them, the mean of
    valence_error, arousal_error and dominance_error (mean absolute errors over the persons rated in
    each, in units of the annotation), all with _low and _high; chance_VAD_error, of the mean over
    train predicted for everybody; and n_rated.

    `leaked`: person rows, as of `cache.audit`, that training has seen in some form. Where some are
    among those evaluated: n_leaked, and mAP_without_leaked (of single-label data accuracy_ too; of
    distributions the measures instead), over all others.

    `provenance` is kept as given, and in short beside the numbers. It must have dataset, note,
    cache_key, fitted_on (the same three of the data that the head was fitted on) and seed.
    Thresholds, and with them F1 and Jaccard, need the scores of the validation split: `val`.
    Measuring val itself gives neither.

    Raises DataError for scores that are not finite, of other widths than their labels, or no
    distributions where the labels are, and when `val` is not the validation split.
    """
    labels, true, score = scores.labels, np.asarray(scores.y_true), np.asarray(scores.y_score)
    if true.ndim != 2 or true.shape[1] != len(labels):
        raise DataError(
            f"The {scores.split} scores are {true.shape}, but the index has {len(labels)} labels: "
            "fit the head again on this cache."
        )
    if val is not None and val.split != "val":
        raise DataError(f"Thresholds come from val only, and these scores are of {val.split}.")
    kind = scores.kind() if val is None else scores.kind(val)
    ranked = ranked_by(scores, settings)
    average = ranked.measured
    numbers = {
        "mAP": ranked.mean,
        "mAP_low": ranked.mean_low,
        "mAP_high": ranked.mean_high,
        "confidence": settings.confidence,
        "mAP_interpolated": metrics.mean_average_precision(true, score, interpolated=True),
        "chance_mAP": metrics.chance_level(true),
        "random_mAP": metrics.random_order(true),
        "kind": kind,
        "n_evaluated": len(true),
        "n_dropped": int(sum(scores.dropped.values())),
        "dropped": {reason: int(count) for reason, count in sorted(scores.dropped.items())},
        "n_pictures": len(np.unique(scores.picture_rows)),
        **({} if scores.units is None else {f"n_{scores.drawn}": len(np.unique(scores.units))}),
        "classes": len(labels),
        "classes_with_positive": int(np.isfinite(average).sum()),
        **_in_short(provenance),
    }
    drawn = {"mAP": ranked.drawn()}
    for name, (found, column) in averaged_by(kind, scores, settings).items():
        drawn[name] = found.drawn(column)
        ends = found.interval(column)
        numbers |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    confusion = []
    if kind == "single":
        numbers["chance_accuracy"] = metrics.majority_accuracy(true)
        confusion = [
            {"actual": labels[actual], "predicted": labels[predicted]}
            for actual, predicted in zip(true.argmax(axis=1), score.argmax(axis=1), strict=True)
        ]
    elif kind == "distribution":
        numbers |= _without_information(scores)
    if scores.y_vad is not None and scores.train_vad is not None and "VAD_error" in numbers:
        same = np.broadcast_to(scores.train_vad, np.shape(scores.y_vad))
        numbers["chance_VAD_error"] = metrics.mean_error(scores.y_vad, same).mean()
        numbers["n_rated"] = int((~np.isnan(scores.y_vad)).any(axis=1).sum())
    if leaked is not None:
        numbers |= _without_leaked(kind, scores, leaked)
    answer: dict[str, Any] = {scores.split: numbers}
    limits = np.full(len(labels), np.nan)
    if val is not None and scores.split != "val":
        limits = metrics.thresholds(val.y_true, val.y_score)
        if kind != "distribution":
            predicted = score >= limits  # nothing reaches a threshold that is NaN
            numbers |= metrics.f1_scores(true, predicted)
            numbers["jaccard"] = metrics.jaccard(true, predicted).mean()
        answer["val"] = {
            "mAP": metrics.mean_average_precision(val.y_true, val.y_score),
            "chance_mAP": metrics.chance_level(val.y_true),
            "n_evaluated": len(val.y_true),
        }
    answer["provenance"] = {
        **provenance,
        "interval": f"{settings.confidence:.0%} basic bootstrap over {scores.drawn}, "
        f"{settings.bootstrap} resamples, seed {settings.seed}",
    }
    per_class = [
        {
            "label": label,
            "ap": average[row],
            "low": ranked.low[row],
            "high": ranked.high[row],
            "chance": true[:, row].mean(),
            "positives": int(true[:, row].sum()),
            "threshold": limits[row],
        }
        for row, label in enumerate(labels)
    ]
    curves = _curves(true, score, labels)
    return Evaluation(scores, plain(answer), per_class, curves, confusion, drawn)


def ranked_by(scores: Scores, settings: Evaluate) -> metrics.Bootstrap:
    """AP of each label, and mAP as their mean, on the same resamples."""
    return metrics.bootstrap(scores.y_true, scores.y_score, scores.resampled, **_drawn(settings))


def averaged_by(
    kind: LabelKind, scores: Scores, settings: Evaluate
) -> dict[str, tuple[metrics.Bootstrap, int | None]]:
    """What is measured beside mAP, each as a column of a bootstrap, None for its mean."""
    pictures, drawn = scores.resampled, _drawn(settings)
    found: dict[str, tuple[metrics.Bootstrap, int | None]] = {}
    if kind == "single":
        true = np.asarray(scores.y_true)
        hits = metrics.correct(true, scores.y_score).astype(float)[:, None]
        of_each = hits.repeat(true.shape[1], axis=1)  # weighted by the targets: the recalls
        recalls = metrics.bootstrap_mean(of_each, pictures, true, **drawn)
        found["accuracy"] = (metrics.bootstrap_mean(hits, pictures, **drawn), 0)
        found["balanced_accuracy"] = (recalls, None)
        named = np.eye(true.shape[1], dtype=bool)[np.asarray(scores.y_score).argmax(axis=1)]
        found["macro_F1"] = (metrics.bootstrap_f1(true, named, pictures, **drawn), None)
    elif kind == "distribution" and scores.distribution is not None:
        each = metrics.distribution_measures(scores.distribution, scores.y_score)
        means = metrics.bootstrap_mean(
            np.stack(list(each.values()), axis=1),
            pictures,
            highest=metrics.highest(np.shape(scores.y_score)[1]),
            **drawn,
        )
        found |= {name: (means, column) for column, name in enumerate(each)}
    if scores.vad is not None and scores.y_vad is not None and not np.isnan(scores.y_vad).all():
        rated = ~np.isnan(scores.y_vad)
        gaps = np.where(rated, np.abs(scores.vad - scores.y_vad), 0)
        means = metrics.bootstrap_mean(gaps, pictures, rated, highest=np.inf, **drawn)
        found["VAD_error"] = (means, None)
        found |= {f"{name}_error": (means, column) for column, name in enumerate(VAD)}
    return found


def _drawn(settings: Evaluate) -> dict[str, Any]:
    return {
        "resamples": settings.bootstrap,
        "confidence": settings.confidence,
        "seed": settings.seed,
    }


def _without_information(scores: Scores) -> dict[str, Any]:
    """The measures of one distribution predicted for everybody."""
    true, mean = np.asarray(scores.distribution), scores.train_mean
    labels = true.shape[1]
    if mean is not None and np.shape(mean) not in ((labels,), true.shape):
        raise DataError(
            f"The mean distribution of train has shape {np.shape(mean)} and there are {labels} "
            "labels: give it for the labels of this index"
        )
    same = np.broadcast_to(np.full(labels, 1 / labels) if mean is None else mean, true.shape)
    each = metrics.distribution_measures(true, same)
    return {
        "chance_distribution": "uniform" if mean is None else "mean of train",
        **{f"chance_{name}": values.mean() for name, values in each.items()},
    }


def _without_leaked(kind: LabelKind, scores: Scores, leaked: np.ndarray) -> dict[str, Any]:
    kept = ~np.isin(scores.person_rows, leaked)
    if kept.all():
        return {}
    true, score = np.asarray(scores.y_true)[kept], np.asarray(scores.y_score)[kept]
    names = {"multi": ["mAP"], "single": ["mAP", "accuracy"], "distribution": metrics.MEASURES}
    found: dict[str, Any] = dict.fromkeys(names[kind], math.nan)  # where nobody is left
    if kept.any() and kind == "distribution":
        each = metrics.distribution_measures(np.asarray(scores.distribution)[kept], score)
        found = {name: values.mean() for name, values in each.items()}
    elif kept.any():
        found["mAP"] = metrics.mean_average_precision(true, score)
        if kind == "single":
            found["accuracy"] = metrics.accuracy(true, score)
    without = {f"{name}_without_leaked": value for name, value in found.items()}
    return {"n_leaked": int((~kept).sum()), **without}


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
