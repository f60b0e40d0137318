"""Rows out of pictures and of what the index says: what one process computes, wherever it runs."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cache.errors import DataError
from cache.spec import Row, ViewSpec
from extract.loaded import Networks
from extract.plan import Plan, Task, networks_needed
from extract.reading import Inputs, read_ahead
from extract.settings import Data, Extract
from extract.views import View


@dataclass
class Computed:
    """What came of some tasks, or of rows without a picture: rows by view with what each view is,
    the pictures left out and why; and, where another process computed it, the seconds it took and
    the networks it has loaded."""

    tasks: Sequence[Task] = ()
    rows: dict[str, list[tuple[int, Row]]] = field(default_factory=dict)
    specs: dict[str, ViewSpec] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Work:
    """What it takes to compute: where the pictures lie, how they are read, the views by name, and
    the networks that they run."""

    data: Data
    settings: Extract
    views: Mapping[str, View]
    networks: Networks

    def require(self, plan: Plan) -> None:
        """What would stop the run halfway stops it here: DataError where there are no pictures,
        WeightsError for a network without weights."""
        root = self.data.root
        if plan.tasks and not root.expanduser().is_dir():
            raise DataError(f"there is no folder {root}: set data.root to where the pictures are")
        for network in networks_needed(plan, self.views):
            self.networks.weights(network)

    def compute(self, tasks: Sequence[Task]) -> Iterator[Computed]:
        """The rows of some tasks, block by block, from pictures that are made ready meanwhile."""
        root, networks = self.data.root.expanduser(), self.networks
        with ThreadPoolExecutor(self.settings.readers) as pool:
            networks.map = pool.map
            try:
                for block in read_ahead(tasks, root, self.settings, self.views, networks.meter):
                    yield self._of_block(block)
            finally:
                networks.map = map

    def pictureless(self, rows: Mapping[str, Sequence[int]]) -> Computed:
        """Rows, by view, that need no picture."""
        done = Computed()
        for name, numbers in rows.items():
            view = self.views[name]
            found = view.run(view.told(numbers), self.networks)
            done.rows[name] = list(zip(numbers, found, strict=True))
            done.specs[name] = view.spec(self.networks)
        return done

    def _of_block(self, block: Sequence[Inputs]) -> Computed:
        done = Computed([one.task for one in block])
        done.skipped = {one.task.path: one.missing for one in block if one.missing}
        for name, view in self.views.items():
            failed = [pair for one in block for pair in one.failed.get(name, ())]
            given = [pair for one in block for pair in one.given.get(name, ())]
            rows = [row for row, _ in given]
            found = view.compute([it for _, it in given], self.networks) if given else []
            if given or failed:
                done.rows[name] = failed + list(zip(rows, found, strict=True))
                done.specs[name] = view.spec(self.networks)
        return done
