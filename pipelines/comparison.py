"""Two results folders -> the difference of their heads, on the persons that both have scored."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DataError
from pipelines.evaluation import averaged_by, ranked_by
from pipelines.results import Results, plain
from train import metrics
from train.scores import Scores
from train.settings import Evaluate


def compare(a: Path, b: Path, settings: Evaluate) -> dict[str, Any]:
    """The heads of two results folders on the persons that both have scored, by shared resamples.

    {split, kind, n_evaluated, n_pictures, confidence, resamples, seed, a, b: {folder, head, seed,
    dataset, note, cache_key, n_only: persons that the other has not scored, n_dropped}, measures:
    [{measure, a, b, difference: b - a, low, high, p}]}. Measures are mAP, of single-label data
    accuracy and balanced_accuracy too; of distributions the measures of `metrics.MEASURES`.

    Raises DataError where a folder has no results, or they are of other splits, indexes, labels or
    targets, or of no common person.
    """
    first, second = (Scores.read(Results(folder).scores) for folder in (a, b))
    measured = Results(a).read_metrics(), Results(b).read_metrics()
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
    mine, theirs = (averaged_by(kind, scores, settings) for scores in (one, other))
    if kind != "distribution":
        mine = {"mAP": (ranked_by(one, settings), None), **mine}
        theirs["mAP"] = (ranked_by(other, settings), None)
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
        "head_sha256": about.get("head_sha256", ""),
        "n_only": len(scores.person_rows) - shared,
        "n_dropped": found[scores.split]["n_dropped"],
    }
