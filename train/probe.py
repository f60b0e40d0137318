"""What each view is worth to a linear head: alone, all together, and all but one of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from cache.errors import DataError
from cache.paths import view_names
from train.data import EVERY, load, views_in
from train.heads import get_head
from train.metrics import bootstrap, mean_average_precision, random_order
from train.settings import Evaluate, Train


def probe(
    cache_root: Path | str,
    settings: Train,
    evaluate: Evaluate,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The head `linear` for each view of `settings.linear.views` alone, for all of them, and for
    all but each; features are factorised once. Views that the cache lacks are left out and named.

    Gives split, persons, dropped, random_mAP (what scores without information reach), absent,
    untrained, confidence, seed, cache_key and rows. A row has views, set (`alone`, `all`,
    `without`), penalty (chosen on val), val_mAP, mAP on the split with low and high (bootstrap
    over `drawn`), and signal: whether the interval lies above random_mAP, None without one. Raises
    DataError without val, or where no person of the split has a label.
    """
    here = view_names(Path(cache_root))
    asked = settings.linear.views or views_in(cache_root, [EVERY])
    views: list[str] = [name for name in asked if name in here]
    if not views:
        raise DataError(
            f"{cache_root} has none of the views {', '.join(asked)}: run `emocache extract`, or "
            "set train.linear.views"
        )
    own = settings.linear.model_copy(update={"views": views})
    settings = settings.model_copy(update={"head": "linear", "linear": own})
    features = load(cache_root, views, device, settings.memory)
    rows = features.rows(evaluate.split)
    true = features.has(rows).cpu().numpy()
    if not true.any():
        raise DataError(
            f"no {evaluate.split} person with a label: set evaluate.split to another split"
        )
    ridge = get_head("linear").factorise(settings, features, features.rows("train"))
    chance = random_order(true)
    units = features.picture.cpu().numpy() if features.units is None else features.units
    drawn = units[rows.cpu().numpy()]
    found = []
    sets = list(_sets(views))
    for number, (kind, some) in enumerate(sets):
        solved = ridge.solve(some, own.penalties)
        scores = ridge.scores(solved, rows)
        interval = bootstrap(
            true, scores, drawn, evaluate.bootstrap, evaluate.confidence, evaluate.seed
        )
        found.append(
            {
                "set": kind,
                "views": list(some),
                "penalty": solved.penalty,
                "val_mAP": solved.merit,
                "mAP": mean_average_precision(true, scores),
                "low": interval.mean_low,
                "high": interval.mean_high,
                "signal": None if math.isnan(interval.mean_low) else interval.mean_low > chance,
            }
        )
        progress(number + 1, len(sets))
    return {
        "split": evaluate.split,
        "persons": len(rows),
        "dropped": dict(features.dropped.get(evaluate.split, {})),
        "random_mAP": chance,
        "absent": [name for name in asked if name not in here],
        "rows": found,
        "untrained": features.untrained,
        "dataset": features.dataset,
        "note": features.note,
        "drawn": features.drawn,
        "confidence": evaluate.confidence,
        "seed": evaluate.seed,
        "cache_key": features.cache_key,
    }


def _sets(views: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name in views:
        yield "alone", (name,)
    if len(views) > 1:
        yield "all", tuple(views)
    if len(views) > 2:
        for name in views:
            yield "without", tuple(other for other in views if other != name)
