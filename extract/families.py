"""Classes of networks by name: exact (`resnet50`), by pattern (`intel/dpt-*`), by the `config.json`
beside their weights, or by what the network is for. Nothing is loaded before a class is asked for.

A name may have a class of each kind: that of a CLIP has one for its pictures, one for its texts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from cache.errors import SettingsError, did_you_mean
from extract.networks import Network
from extract.weights import Weights

N = TypeVar("N", bound=Network)


class Families(Generic[N]):
    """The classes of some files of a package, under names without case.

    what: how a refusal calls one of them; modules: the files that hold them, and of two classes
    that a name fits the first has it.
    """

    def __init__(self, what: str, package: str, modules: tuple[str, ...]):
        self.what, self.package, self.modules = what, package, modules
        self._classes: dict[tuple[str, str], type[N]] = {}  # by name or pattern, and kind

    def add(self, *names: str) -> Callable[[type], type]:
        """Class decorator: the class answers to these names and patterns, for its kind."""

        def put(cls: type[N]) -> type[N]:
            self._classes.update({(name.lower(), cls.kind): cls for name in names})
            return cls

        return put

    def get(
        self, name: str, kind: str | None = None, config: Mapping[str, Any] | None = None
    ) -> type[N]:
        """The class behind a name, of one kind, or the first of any. Raises SettingsError naming
        the nearest name, or what kind of network the name is when another kind was asked for.

        config: the `config.json` beside the weights, where it is known: a class that `takes` it
        comes before what the name says, so that folders of the user's own may have any name.
        A name no pattern knows is allowed where `kind` says which family it is of and that family
        takes any name (depth, text and word networks out of a folder of the user's own).
        """
        self._load()
        low = name.lower()
        found = self._that_take(config) or self._under(low)
        if not found and kind is not None:
            found = [c for c in self._classes.values() if c.kind == kind and c.any_name]
        if not found:
            near = did_you_mean(low, self.names(kind))
            raise SettingsError(f"there is no {self.what} named {name!r}{near}")
        for cls in found:
            if kind in (None, cls.kind):
                return cls
        kinds = " and ".join(dict.fromkeys(cls.kind for cls in found))
        raise SettingsError(
            f"the {self.what} {name!r} is for {kinds}, but this place needs {kind}"
            f"{did_you_mean(low, self.names(kind))}"
        )

    def names(self, kind: str | None = None) -> list[str]:
        """Every exact name, sorted; with `kind`, those of one kind."""
        self._load()
        return sorted({n for n, of in self._classes if "*" not in n and kind in (None, of)})

    def build(self, weights: Weights, device: str = "cpu", kind: str | None = None) -> N:
        """The network that runs on these weights. Raises SettingsError as `get`, WeightsError
        where the weights do not fit it."""
        return self.get(weights.network, kind, weights.config)(weights, device)

    def describe(self, weights: Weights, kind: str | None = None) -> dict[str, Any]:
        """Everything besides the weights that decides the network's numbers, without building
        it."""
        return self.get(weights.network, kind, weights.config).describe(weights)

    def _that_take(self, config: Mapping[str, Any] | None) -> list[type[N]]:
        if config is None:
            return []
        classes = dict.fromkeys(self._classes.values())
        return [cls for cls in classes if cls.takes(config)]

    def _under(self, low: str) -> list[type[N]]:
        """Those whose name it is, or else whose pattern it fits."""
        named = [cls for (one, _), cls in self._classes.items() if one == low]
        fit = [c for (p, _), c in self._classes.items() if "*" in p and fnmatchcase(low, p)]
        return named or fit

    def _load(self) -> None:
        modules = [f"{self.package}.{module}" for module in self.modules]
        for module in modules:
            importlib.import_module(module)
        # In the order of the modules, whoever imported one of them before the others.
        places = {module: place for place, module in enumerate(modules)}
        classes = self._classes.items()
        self._classes = dict(sorted(classes, key=lambda one: places.get(one[1].__module__, -1)))
