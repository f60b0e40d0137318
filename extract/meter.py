"""Where the time of an extraction goes: seconds by part, rates, and what holds it up."""

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

# Parts that threads do beside the networks; the extraction only waits when they are not ready.
BESIDE = ("read", "decode", "prepare")


class Meter:
    """Counts seconds by part, pictures and rows, from several threads and processes.

    Parts: `read` (bytes from the disk), `decode`, `prepare` (crops, masks, sizes), done in threads
    beside the rest, in seconds of these threads; `wait` for them; `load` (networks);
    `network <name>`; `crop` (what detectors found, cut out and resized); `write`.
    """

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.pictures = self.rows = 0
        self.started = time.perf_counter()
        self.processes = 1
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["Meter"], tuple[()]]:
        """In another process it starts at nothing."""
        return Meter, ()

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add({part: time.perf_counter() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        with self._lock:
            self.seconds.update(seconds)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    @property
    def bottleneck(self) -> str:
        """The part that the run would gain most from: where it waits for pictures, the slowest
        part of making them ready; "" before anything was measured."""
        ahead = {part: s for part, s in self.seconds.items() if part not in BESIDE}
        if not ahead:
            return ""
        slowest = max(ahead, key=lambda part: ahead[part])
        beside = {part: self.seconds[part] for part in BESIDE if self.seconds[part]}
        if slowest == "wait" and beside:
            return max(beside, key=lambda part: beside[part])
        return slowest

    def line(self) -> str:
        """For a progress bar: rates, and the part that takes most."""
        parts = [f"{self.pictures / self.elapsed:.1f} pictures/s"]
        parts.append(f"{self.rows / self.elapsed:.1f} rows/s")
        return ", ".join([*parts, *filter(None, [self.bottleneck])])

    def summary(self) -> dict[str, Any]:
        """As plain values."""
        elapsed = max(self.elapsed, 1e-9)
        return {
            "seconds": round(elapsed, 2),
            "processes": self.processes,
            "pictures": self.pictures,
            "rows": self.rows,
            "pictures_per_s": round(self.pictures / elapsed, 2),
            "rows_per_s": round(self.rows / elapsed, 2),
            "parts": {part: round(s, 2) for part, s in self.seconds.most_common()},
            "bottleneck": self.bottleneck,
        }
