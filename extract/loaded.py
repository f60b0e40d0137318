"""The frozen networks of one run: weights found once, each network loaded when first used."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from extract import settings as config
from extract.backbones import backbones
from extract.detectors import detectors
from extract.families import Families
from extract.meter import Meter
from extract.weights import Weights, find


@dataclass
class Networks:
    """The frozen networks of one run.

    settings: where weights come from; device: asked only when a network is loaded; on_load: told
    of its weights then; batch: how many inputs run together; precision: see `Network`; meter:
    counts their seconds; map: as Python's, for work beside the networks, perhaps in threads.
    """

    settings: config.Weights
    device: Callable[[], str] = lambda: "cpu"
    on_load: Callable[[Weights], None] = lambda weights: None
    batch: int = 32
    precision: config.Precision = "float32"
    meter: Meter = field(default_factory=Meter)
    map: Callable[..., Iterable[Any]] = map
    _found: dict[str, Weights] = field(default_factory=dict)
    _loaded: dict[tuple[str, str], Any] = field(default_factory=dict)

    def weights(self, name: str) -> Weights:
        """Those of a network. Raises WeightsError where no source has them."""
        if name not in self._found:
            self._found[name] = find(name, self.settings)
        return self._found[name]

    def backbone(self, name: str, kind: str) -> Any:
        """A network that gives features, of the kind picture, depth, text or words."""
        return self._load(backbones, name, kind)

    def detector(self, name: str, kind: str) -> Any:
        """A network that finds things, of the kind faces or objects."""
        return self._load(detectors, name, kind)

    @property
    def loaded(self) -> tuple[str, ...]:
        """Names of the networks that were used, in that order."""
        return tuple(dict.fromkeys(name for name, _ in self._loaded))

    def _load(self, families: Families[Any], name: str, kind: str) -> Any:
        if (name, kind) not in self._loaded:
            weights = self.weights(name)
            self.on_load(weights)
            with self.meter.measure("load"):
                network = families.build(weights, self.device(), kind)
            network.batch, network.precision = self.batch, self.precision
            self._loaded[name, kind] = Timed(network, self)
        return self._loaded[name, kind]


class Timed:
    """A network whose calls are counted by the meter of its run."""

    def __init__(self, network: Any, run: Networks):
        self.network, self.run = network, run

    def __call__(self, *inputs: Any, **more: Any) -> Any:
        with self.run.meter.measure(f"network {self.network.name}"):
            result = self.network(*inputs, **more)
            if self.network.device.type == "cuda":  # which goes on by itself, and bills the next
                import torch

                torch.cuda.synchronize(self.network.device)
            return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)
