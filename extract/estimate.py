"""How long a plan takes and how big it gets, from a few of its pictures, computed to see."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np

from cache.paths import view_folder
from cache.settings import Cache
from cache.spec import ViewSpec
from extract.compute import Computed, Work
from extract.loaded import Networks
from extract.meter import Meter
from extract.plan import Plan
from extract.settings import Data, Extract
from extract.views import View

WARM, MEASURED = 2, 8  # pictures
T = TypeVar("T")


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
    measured = _Measured()
    for name, rows in plan.pictureless.items():
        told = _middle(rows, settings.batch)
        work.pictureless({name: told[:1]})  # loads the network
        found = map(work.pictureless, [{name: told}])
        measured.add(found, networks.meter, len(rows) / len(told))
    some = _middle(plan.tasks, MEASURED)
    for _ in work.compute(some[:WARM]):  # loads the networks
        pass
    if some:
        measured.add(work.compute(some), networks.meter, len(plan.tasks) / len(some))
    sizes = [_size(spec, plan.rows[name], cache) for name, spec in measured.specs.items()]
    return Estimate(
        round(measured.seconds, 1),
        {name: round(value, 1) for name, value in measured.parts.most_common()},
        sum(size for size, _ in sizes),
        sum(files for _, files in sizes),
        len(some),
        networks.device(),
    )


class _Measured:
    """Seconds of the whole plan, also by part, reckoned from some of it; and what views are."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.parts: Counter[str] = Counter()
        self.specs: dict[str, ViewSpec] = {}

    def add(self, results: Iterable[Computed], meter: Meter, times: float) -> None:
        """Compute what the plan has `times` as much of."""
        before, started = meter.seconds.copy(), time.perf_counter()
        for one in results:
            self.specs |= one.specs
        self.seconds += (time.perf_counter() - started) * times
        for name, value in (meter.seconds - before).items():
            self.parts[name] += value * times  # type: ignore[assignment]  # seconds are no integers


def _middle(many: Sequence[T], most: int) -> Sequence[T]:
    """At most so many of them, from the middle."""
    start = max(0, (len(many) - most) // 2)
    return many[start : start + most]


def _size(spec: ViewSpec, rows: np.ndarray, cache: Cache) -> tuple[int, int]:
    """Bytes of these rows, and how many shards and records are written for them."""
    arrays = len(spec.all_arrays)
    shards = len(np.unique(rows // cache.shard_rows))
    new = 0 if view_folder(cache.root, spec.name).exists() else arrays + 3  # Zarr's, and view.json
    return spec.row_bytes * len(rows), shards * (arrays + 1) + new
