"""How long a plan takes and how big it gets, from a few of its pictures, computed to see."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cache.paths import view_folder
from cache.settings import Cache
from cache.spec import ViewSpec
from extract.compute import Work
from extract.loaded import Networks
from extract.plan import Plan
from extract.settings import Data, Extract
from extract.views import View

WARM, MEASURED = 2, 8  # pictures


@dataclass
class Estimate:
    """seconds: of the whole plan, by one process; parts: the same by part of the work; bytes and
    files: that will be added or written anew, uncompressed; pictures: that were measured, on
    `device`."""

    seconds: float
    parts: dict[str, float]
    bytes: int
    files: int
    pictures: int
    device: str

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)


def estimate(
    plan: Plan,
    data: Data,
    cache: Cache,
    settings: Extract,
    views: Mapping[str, View],
    networks: Networks,
) -> Estimate:
    """Compute some pictures of the plan, write nothing, and reckon with the rest from them.

    Raises DataError or WeightsError where pictures or weights are not at hand.
    """
    work = Work(data, settings, views, networks)
    work.require(plan)
    specs: dict[str, ViewSpec] = {}
    if plan.labels:
        first = {name: rows[:1] for name, rows in plan.labels.items()}
        specs |= work.labels(first).specs
    middle = max(0, (len(plan.tasks) - MEASURED) // 2)
    some = plan.tasks[middle : middle + MEASURED]
    for part in work.compute(some[:WARM]):  # loads the networks
        specs |= part.specs
    before, started = networks.meter.seconds.copy(), time.perf_counter()
    for part in work.compute(some):
        specs |= part.specs
    times = len(plan.tasks) / max(1, len(some))
    seconds = (time.perf_counter() - started) * times if some else 0.0
    parts = networks.meter.seconds - before
    sizes = [_size(spec, plan.rows[name], cache) for name, spec in specs.items()]
    return Estimate(
        round(seconds, 1),
        {name: round(value * times, 1) for name, value in parts.most_common()},
        sum(size for size, _ in sizes),
        sum(files for _, files in sizes),
        len(some),
        networks.device(),
    )


def _size(spec: ViewSpec, rows: np.ndarray, cache: Cache) -> tuple[int, int]:
    """Bytes of these rows, and how many shards and records are written for them."""
    arrays = len(spec.all_arrays)
    shards = len(np.unique(rows // cache.shard_rows))
    new = 0 if view_folder(cache.root, spec.name).exists() else arrays + 3  # Zarr's, and view.json
    return spec.row_bytes * len(rows), shards * (arrays + 1) + new
