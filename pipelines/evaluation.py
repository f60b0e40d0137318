"""A trained head's scores -> metrics.json, provenance.json, plots/*.csv, scores.parquet; and two
such folders -> the difference of their heads.

The numbers go through `train.metrics`; here they are named, put beside how many persons they
stand on and where they come from, and written where DVC looks for metrics and plots. What each of
them means: docs/metrics.md.
"""

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cache.errors import DataError
from cache.index import VAD
from train import metrics
from train.settings import Evaluate

if TYPE_CHECKING:  # train.run loads torch, and nothing here needs it
    from train.run import Scores

    Scored = Scores | "SavedScores"

Kind = Literal["multi", "single", "distribution"]
PER_CLASS = ("label", "ap", "low", "high", "chance", "positives", "threshold")
PR = ("label", "recall", "precision")
LISTS = ("y_true", "y_score", "distribution", "vad", "y_vad")  # of scores.parquet
CONFUSION = ("actual", "predicted")
MAIN: dict[Kind, tuple[str, bool]] = {  # what heads are compared by, and whether more is better
    "multi": ("mAP", True),
    "single": ("accuracy", True),
    "distribution": ("kl", False),
}
PERCENT = {"mAP", "accuracy", "balanced_accuracy", "C_F1", "O_F1"}  # measures shown so
_POINTS = 100  # of a precision-recall curve that are kept


@dataclass(frozen=True)
class Evaluation:
    """What is measured on one split, and the tables behind it."""

    scores: "Scores"
    metrics: dict[str, Any]
    per_class: list[dict[str, Any]] = field(repr=False)
    pr: list[dict[str, Any]] = field(repr=False)
    confusion: list[dict[str, Any]] = field(default_factory=list, repr=False)
    drawn: dict[str, np.ndarray] = field(default_factory=dict, repr=False)  # (R,) of each measure

    def write(self, folder: Path) -> None:
        """Write metrics.json, which DVC shows a line a run, provenance.json, plots/per_class.csv,
        plots/pr.csv, plots/confusion.csv, which has rows for single-label data only, and
        scores.parquet."""
        plots = folder / "plots"
        plots.mkdir(parents=True, exist_ok=True)
        numbers = {split: found for split, found in self.metrics.items() if split != "provenance"}
        for name, content in (("metrics", numbers), ("provenance", self.metrics["provenance"])):
            text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
            (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
        _write_csv(plots / "per_class.csv", PER_CLASS, self.per_class)
        _write_csv(plots / "pr.csv", PR, self.pr)
        # Without rows too: DVC says that it failed where a plot of dvc.yaml has no file.
        _write_csv(plots / "confusion.csv", CONFUSION, self.confusion)
        write_scores(folder / "scores.parquet", self.scores)


def evaluate(
    scores: "Scores",
    labels: Sequence[str],
    settings: Evaluate,
    provenance: Mapping[str, Any],
    *,
    val: "Scores | None" = None,
    leaked: np.ndarray | None = None,
    mean_distribution: np.ndarray | None = None,
    folder: Path = Path("results"),
) -> dict[str, Any]:
    """`measure`, write the results into `folder`, return what `read_metrics` reads."""
    evaluation = measure(
        scores,
        labels,
        settings,
        provenance,
        val=val,
        leaked=leaked,
        mean_distribution=mean_distribution,
    )
    evaluation.write(folder)
    return evaluation.metrics


def measure(
    scores: "Scores",
    labels: Sequence[str],
    settings: Evaluate,
    provenance: Mapping[str, Any],
    *,
    val: "Scores | None" = None,
    leaked: np.ndarray | None = None,
    mean_distribution: np.ndarray | None = None,
) -> Evaluation:
    """Every number of one split, as fractions (mAP 0.3147, not 31.47).

    metrics = {<split>: {mAP, mAP_low, mAP_high, confidence, mAP_interpolated, chance_mAP,
    random_mAP, kind, n_evaluated, n_dropped, dropped: {reason: persons}, n_pictures, classes,
    classes_with_positive, dataset, note, cache_key, fitted_on, seed, [F1_macro, F1_micro, C_F1,
    O_F1, jaccard]}, [val: {mAP, chance_mAP, n_evaluated}], provenance: {...}}. NaN is written as
    null. By the kind of the labels (see `kind_of`) there are beside them:

    single: accuracy and balanced_accuracy, each with _low and _high, and chance_accuracy, that of
    naming the most frequent label of the split for everybody.
    distribution: each of `metrics.MEASURES` with _low and _high, and as chance_<measure> what
    predicting chance_distribution for everybody gives: the `mean_distribution` (C,) of the training
    persons, or the uniform one. mAP is then that of the labels with more than half of a person's
    distribution, and there is no F1 or Jaccard.

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

    Raises DataError for scores that are not finite, of other widths than `labels`, or no
    distributions where the labels are, and when `val` is not the validation split.
    """
    true, score = np.asarray(scores.y_true), np.asarray(scores.y_score)
    if true.ndim != 2 or true.shape[1] != len(labels):
        raise DataError(
            f"The {scores.split} scores are {true.shape}, but the index has {len(labels)} labels: "
            "fit the head again on this cache."
        )
    if val is not None and val.split != "val":
        raise DataError(f"Thresholds come from val only, and these scores are of {val.split}.")
    kind = kind_of(scores) if val is None else kind_of(scores, val)
    ranked = _ranked(scores, settings)
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
        "classes": len(labels),
        "classes_with_positive": int(np.isfinite(average).sum()),
        **_in_short(provenance),
    }
    drawn = {"mAP": ranked.drawn()}
    for name, (found, column) in _averaged(kind, scores, settings).items():
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
        numbers |= _without_information(scores, mean_distribution)
    if "VAD_error" in numbers:
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
        "interval": f"{settings.confidence:.0%} basic bootstrap over pictures, "
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


def kind_of(scores: "Scored", *others: "Scored") -> Kind:
    """What the labels of these persons are, by which it is decided how they are measured.

    distribution: `scores.distribution` (N, C) is there, its rows sum to 1 and not all of them are
    one label; single: every person, of `others` too, has exactly one of two or more labels; multi:
    anything else.
    """
    soft = scores.distribution
    if soft is not None and metrics.is_distribution(soft) and not metrics.single_label(soft):
        return "distribution"
    return "single" if all(metrics.single_label(s.y_true) for s in (scores, *others)) else "multi"


def compare(a: Path, b: Path, settings: Evaluate) -> dict[str, Any]:
    """The heads of two results folders on the persons that both have scored, by shared resamples.

    {split, kind, n_evaluated, n_pictures, confidence, resamples, seed, a, b: {folder, head, seed,
    dataset, note, cache_key, n_only: persons that the other has not scored, n_dropped}, measures:
    [{measure, a, b, difference: b - a, low, high, p}]}. Measures are mAP, of single-label data
    accuracy and balanced_accuracy too; of distributions the measures of `metrics.MEASURES`.

    Raises DataError where a folder has no results, or they are of other splits, indexes, labels or
    targets, or of no common person.
    """
    first, second = read_scores(a / "scores.parquet"), read_scores(b / "scores.parquet")
    measured = read_metrics(a), read_metrics(b)
    for folder, found in zip((a, b), measured, strict=True):
        _refuse_refitted(folder, found["provenance"].get("head_sha256"))
    for what, here, there, mend in (
        ("the split", first.split, second.split, "set evaluate.split alike"),
        ("the labels", ", ".join(first.labels), ", ".join(second.labels), "take heads of one set"),
        ("the index", first.index[:12], second.index[:12], "evaluate both on one cache.root"),
    ):
        if here != there:
            raise DataError(
                f"{a} and {b} cannot be compared, {what} is {here or 'unknown'} in the one and "
                f"{there or 'unknown'} in the other: {mend}, and run `emocache evaluate` again"
            )
    _, at_a, at_b = np.intersect1d(first.person_rows, second.person_rows, return_indices=True)
    if not len(at_a):
        raise DataError(f"{a} and {b} cannot be compared: no person is scored in both")
    one, other = first.of(at_a), second.of(at_b)
    targets = [(scores.y_true, scores.distribution) for scores in (one, other)]
    if not all(np.array_equal(*both) for both in zip(*targets, strict=True)):
        raise DataError(
            f"{a} and {b} cannot be compared: the same persons have other labels in them; run "
            "`emocache evaluate` again for both"
        )
    kind = measured[0][one.split]["kind"]
    mine, theirs = (_averaged(kind, scores, settings) for scores in (one, other))
    if kind != "distribution":
        mine = {"mAP": (_ranked(one, settings), None), **mine}
        theirs["mAP"] = (_ranked(other, settings), None)
    return plain(
        {
            "split": one.split,
            "kind": kind,
            "n_evaluated": len(at_a),
            "n_pictures": len(np.unique(one.picture_rows)),
            "confidence": settings.confidence,
            "resamples": settings.bootstrap,
            "seed": settings.seed,
            "a": _side(a, measured[0], first, len(at_a)),
            "b": _side(b, measured[1], second, len(at_a)),
            "measures": [
                {"measure": name, **asdict(metrics.paired(found, theirs[name][0], column))}
                for name, (found, column) in mine.items()
                if name in theirs
            ],
        }
    )


def _refuse_refitted(folder: Path, scored: str | None) -> None:
    """Scores of a head that is no longer the one beside them; a folder without a head is fine."""
    about = folder / "head" / "head.json"
    if not scored or not about.exists():
        return
    if (fitted := json.loads(about.read_text())["sha256"]) != scored:
        raise DataError(
            f"{folder} cannot be compared: its scores are of head {scored[:12]}, and {fitted[:12]} "
            "has been fitted since; run `emocache evaluate`"
        )


def _side(
    folder: Path, found: Mapping[str, Any], scores: "SavedScores", shared: int
) -> dict[str, Any]:
    about = found["provenance"]
    return {
        "folder": str(folder),
        **{name: about[name] for name in ("head", "seed", "dataset", "note", "cache_key")},
        "head_sha256": about.get("head_sha256", ""),
        "n_only": len(scores.person_rows) - shared,
        "n_dropped": found[scores.split]["n_dropped"],
    }


def _ranked(scores: "Scored", settings: Evaluate) -> metrics.Bootstrap:
    return metrics.bootstrap(
        scores.y_true, scores.y_score, np.asarray(scores.picture_rows), **_drawn(settings)
    )


def _averaged(
    kind: Kind, scores: "Scored", settings: Evaluate
) -> dict[str, tuple[metrics.Bootstrap, int | None]]:
    """What is measured beside mAP, each as a column of a bootstrap, None for its mean."""
    pictures, drawn = np.asarray(scores.picture_rows), _drawn(settings)
    found: dict[str, tuple[metrics.Bootstrap, int | None]] = {}
    if kind == "single":
        true = np.asarray(scores.y_true)
        hits = metrics.correct(true, scores.y_score).astype(float)[:, None]
        of_each = hits.repeat(true.shape[1], axis=1)  # weighted by the targets: the recalls
        recalls = metrics.bootstrap_mean(of_each, pictures, true, **drawn)
        found["accuracy"] = (metrics.bootstrap_mean(hits, pictures, **drawn), 0)
        found["balanced_accuracy"] = (recalls, None)
    elif kind == "distribution":
        each = metrics.distribution_measures(scores.distribution, scores.y_score)
        means = metrics.bootstrap_mean(
            np.stack(list(each.values()), axis=1),
            pictures,
            highest=metrics.highest(np.shape(scores.y_score)[1]),
            **drawn,
        )
        found |= {name: (means, column) for column, name in enumerate(each)}
    if scores.vad is not None and not np.isnan(scores.y_vad).all():
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


def _without_information(scores: "Scored", mean: np.ndarray | None) -> dict[str, Any]:
    """The measures of one distribution predicted for everybody."""
    true = np.asarray(scores.distribution)
    labels = true.shape[1]
    if mean is not None and np.shape(mean) != (labels,):
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


def _without_leaked(kind: Kind, scores: "Scored", leaked: np.ndarray) -> dict[str, Any]:
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


@dataclass(frozen=True)
class SavedScores:
    """`train.run.Scores` as `read_scores` finds them: those of its fields that are measured."""

    split: str
    labels: tuple[str, ...]
    person_rows: np.ndarray
    picture_rows: np.ndarray
    y_true: np.ndarray
    y_score: np.ndarray
    distribution: np.ndarray | None
    vad: np.ndarray | None
    y_vad: np.ndarray | None
    index: str

    def of(self, at: np.ndarray) -> "SavedScores":
        """The persons at these places."""
        names = ("person_rows", "picture_rows", *LISTS)
        some = {name: getattr(self, name) for name in names}
        return replace(self, **{n: None if v is None else v[at] for n, v in some.items()})


def write_scores(path: Path, scores: "Scores") -> None:
    """person, picture (rows in the index), split, and those of `LISTS` that the scores have, one
    row a person. The names of the labels and the digest of the index stand in the metadata of the
    schema.
    """
    person_rows = np.asarray(scores.person_rows)
    columns = {name: getattr(scores, name) for name in LISTS}
    table = pa.table(
        {
            "person": pa.array(person_rows, pa.int32()),
            "picture": pa.array(np.asarray(scores.picture_rows), pa.int32()),
            "split": [scores.split] * len(person_rows),
            **{
                name: pa.array(np.asarray(values).tolist(), pa.list_(pa.float32()))
                for name, values in columns.items()
                if values is not None
            },
        }
    )
    about = {"labels": json.dumps(list(scores.labels)), "index": scores.index}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path)


def read_scores(path: Path) -> SavedScores:
    """What `write_scores` wrote. Raises DataError where it is absent or of an older emocache."""
    if not path.exists():
        raise DataError(f"no {path}: run `emocache evaluate` first")
    table = pq.read_table(path)
    about = table.schema.metadata or {}
    if b"labels" not in about:
        raise DataError(
            f"{path} does not say of which labels it is, as an older emocache left it: run "
            "`emocache evaluate` again"
        )
    labels = tuple(json.loads(about[b"labels"]))

    def lists(name: str) -> np.ndarray | None:
        if name not in table.column_names:
            return None
        return table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1)

    return SavedScores(
        split=table["split"][0].as_py(),
        labels=labels,
        person_rows=table["person"].to_numpy(),
        picture_rows=table["picture"].to_numpy(),
        **{name: lists(name) for name in LISTS},
        index=about[b"index"].decode(),
    )


def read_metrics(folder: Path) -> dict[str, Any]:
    """What `evaluate` returned: metrics.json with provenance.json beside the splits."""
    paths = {name: folder / f"{name}.json" for name in ("metrics", "provenance")}
    missing = [str(path) for path in paths.values() if not path.exists()]
    if missing:
        raise DataError(f"no {', '.join(missing)}: run `emocache evaluate` first")
    metrics, provenance = (json.loads(path.read_text("utf-8")) for path in paths.values())
    return {**metrics, "provenance": provenance}


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a results table; what reads as a number is one, but in a column of names, and an
    empty cell is NaN."""
    names = ("label", *CONFUSION)

    def cell(text: str) -> Any:
        try:
            return float(text) if text else math.nan
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: text if name in names else cell(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


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


def plain(value: Any) -> Any:
    """Only what JSON and DVC know: numpy numbers as Python's, NaN as null, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
