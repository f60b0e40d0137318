"""Results folders -> the differences of their heads, on the persons that all have scored."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DataError
from pipelines.evaluation import averaged_by, fitted_elsewhere, ranked_by
from pipelines.results import Results, plain
from train import metrics
from train.labels import LabelKind
from train.scores import Scores
from train.settings import Evaluate

Columns = Mapping[str, tuple[metrics.Bootstrap, int | None]]  # a number: the column of a bootstrap


def compare(a: Path, b: Path, settings: Evaluate) -> dict[str, Any]:
    """`compare_runs` of two folders; beside its keys a and b, the two runs, and measures, their
    tests."""
    found = compare_runs((a, b), settings)
    first, second = found["runs"]
    return {**found, "a": first, "b": second, "measures": found["tests"]}


def compare_runs(folders: Sequence[Path], settings: Evaluate) -> dict[str, Any]:
    """The heads of two results folders or more on the persons that all have scored: each against
    the first, by shared resamples.

    {split, kind, labels, n_evaluated, n_pictures, drawn, confidence, resamples, seed, runs,
    tests, per_label_measure, per_label}.

    runs: [{name: A, B ..., folder, head, seed, dataset, note, cache_key, untrained, elsewhere: the
    data it was fitted on in words, where other, head_sha256, n_only: persons that not all of the
    others have scored, n_dropped, numbers: {measure: {value, low, high}}}].
    tests: [{run: name, measure, a, b, difference: b - a, low, high, p, p_holm}], a that of the
    first run. Measures are mAP, of single-label data accuracy, balanced_accuracy and macro_F1 too;
    of distributions the measures of `metrics.MEASURES`; of ratings their errors, where all runs
    have them. p_holm: see `holm`, over all tests.
    per_label: [{run, label, positives, a, b, difference, low, high, p, p_holm}], of AP, or of the
    mean |d - p| where labels are shares (`per_label_measure`: AP or share_error), by run and then
    from the greatest difference to the least; p_holm over all of them.

    Raises DataError where a folder has no results, or they are of other splits, indexes, labels or
    targets, or of no common person.
    """
    if len(folders) < 2:
        raise DataError("one results folder alone cannot be compared: name two or more")
    _refuse_folders(folders)
    scores = [Scores.read(Results(folder).scores) for folder in folders]
    measured = [Results(folder).read_metrics() for folder in folders]
    for folder, found in zip(folders, measured, strict=True):
        _refuse_refitted(folder, found["provenance"].get("head_sha256"))
    for folder, one in zip(folders[1:], scores[1:], strict=True):
        _refuse_other(folders[0], folder, scores[0], one)
    shared = _shared(folders, scores)
    kind = measured[0][shared[0].split]["kind"]
    columns = [_columns(kind, one, settings) for one in shared]
    names = [name for name in columns[0] if all(name in others for others in columns)]
    labels = [_per_label(kind, one, settings) for one in shared]
    letters = [_letter(number) for number in range(len(folders))]
    tests: list[dict[str, Any]] = [
        {"run": letter, "measure": name, **_difference(columns[0][name], others[name])}
        for letter, others in zip(letters[1:], columns[1:], strict=True)
        for name in names
    ]
    positives = shared[0].y_true.sum(axis=0).tolist()
    per_label: list[dict[str, Any]] = [
        {
            "run": letter,
            "label": label,
            "positives": int(positives[at]),
            **_difference((labels[0], at), (others, at)),
        }
        for letter, others in zip(letters[1:], labels[1:], strict=True)
        for at, label in enumerate(shared[0].labels)
    ]
    for rows in (tests, per_label):
        for row, p in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = p
    per_label.sort(key=lambda row: (letters.index(row["run"]), _descending(row["difference"])))
    one = shared[0]
    return plain(
        {
            "split": one.split,
            "kind": kind,
            "labels": one.labels,
            "n_evaluated": len(one.person_rows),
            "n_pictures": len(np.unique(one.picture_rows)),
            "drawn": one.drawn,
            "confidence": settings.confidence,
            "resamples": settings.bootstrap,
            "seed": settings.seed,
            "runs": [
                {
                    "name": letter,
                    **_side(folder, found, of_all, len(one.person_rows)),
                    "numbers": {name: _number(mine[name]) for name in names},
                }
                for letter, folder, found, of_all, mine in zip(
                    letters, folders, measured, scores, columns, strict=True
                )
            ],
            "tests": tests,
            "per_label_measure": "share_error" if kind == "distribution" else "AP",
            "per_label": per_label,
        }
    )


def holm(p: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of any false one below 0.05 among all is at most 0.05 (Holm
    1979): the i-th smallest of m times m - i + 1, never less than the one before, at most 1. NaN
    stays out and stays NaN."""
    values = np.asarray(p, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(values))
    order = known[np.argsort(values[known], kind="stable")]
    raised = values[order] * np.arange(len(order), 0, -1)
    values[order] = np.minimum(np.maximum.accumulate(raised), 1)
    return values.tolist()


def _refuse_folders(folders: Sequence[Path]) -> None:
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"there is no results folder {folder}: name one that `evaluate` wrote")


def _refuse_other(a: Path, b: Path, first: Scores, second: Scores) -> None:
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


def _shared(folders: Sequence[Path], scores: Sequence[Scores]) -> list[Scores]:
    """The persons that all have scored, in the same order."""
    rows = reduce(np.intersect1d, [one.person_rows for one in scores])
    named = " and ".join(map(str, folders))
    if not len(rows):
        every = "both" if len(folders) == 2 else "all"
        raise DataError(f"{named} cannot be compared: no person is scored in {every}")
    shared = [
        one.of(np.intersect1d(one.person_rows, rows, return_indices=True)[1]) for one in scores
    ]
    for folder, one in zip(folders[1:], shared[1:], strict=True):
        targets = [(some.y_true, some.distribution) for some in (shared[0], one)]
        if not all(np.array_equal(*both) for both in zip(*targets, strict=True)):
            raise DataError(
                f"{folders[0]} and {folder} cannot be compared: the same persons have other labels "
                "in them; run `emocache evaluate` again for both"
            )
    return shared


def _columns(kind: LabelKind, scores: Scores, settings: Evaluate) -> Columns:
    found: Columns = averaged_by(kind, scores, settings)
    if kind == "distribution":
        return found
    return {"mAP": (ranked_by(scores, settings), None), **found}


def _per_label(kind: LabelKind, scores: Scores, settings: Evaluate) -> metrics.Bootstrap:
    """AP of each label; of shares the mean |d - p|."""
    if kind != "distribution":
        return ranked_by(scores, settings)
    return metrics.bootstrap_mean(
        np.abs(np.asarray(scores.distribution) - scores.y_score),
        scores.resampled,
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def _difference(
    a: tuple[metrics.Bootstrap, int | None], b: tuple[metrics.Bootstrap, int | None]
) -> dict[str, float]:
    return asdict(metrics.paired(a[0], b[0], a[1]))


def _number(column: tuple[metrics.Bootstrap, int | None]) -> dict[str, float]:
    found, at = column
    return dict(zip(("value", "low", "high"), found.interval(at), strict=True))


def _letter(number: int) -> str:
    """A to Z, then R27."""
    return chr(ord("A") + number) if number < 26 else f"R{number + 1}"


def _descending(value: float) -> tuple[bool, float]:
    return bool(np.isnan(value)), -value


def _refuse_refitted(folder: Path, scored: str | None) -> None:
    """Scores of a head that is no longer the one beside them; a folder without a head is fine."""
    about = Results(folder).head / "head.json"
    if not scored or not about.exists():
        return
    if (fitted := json.loads(about.read_text())["sha256"]) != scored:
        raise DataError(
            f"{folder} cannot be compared: its scores are of head {scored[:12]}, and {fitted[:12]} "
            "has been fitted since; run `emocache evaluate`"
        )


def _side(folder: Path, found: Mapping[str, Any], scores: Scores, shared: int) -> dict[str, Any]:
    about = found["provenance"]
    return {
        "folder": str(folder),
        **{name: about[name] for name in ("head", "seed", "dataset", "note", "cache_key")},
        "untrained": list(about.get("untrained", ())),
        "elsewhere": fitted_elsewhere(about),
        "head_sha256": about.get("head_sha256", ""),
        "n_only": len(scores.person_rows) - shared,
        "n_dropped": found[scores.split]["n_dropped"],
    }
