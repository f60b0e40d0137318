"""Classes of networks by name: exact (`resnet50`), by pattern (`intel/dpt-*`), or by what the
network is for. Nothing is loaded before a class is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from cache.errors import SettingsError, did_you_mean
from extract.networks import Network
from extract.weights import Weights

N = TypeVar("N", bound=Network)


class Families(Generic[N]):
    """The classes of some files of a package, under names without case.

    what: how a refusal calls one of them; modules: the files that hold them.
    """

    def __init__(self, what: str, package: str, modules: tuple[str, ...]):
        self.what, self.package, self.modules = what, package, modules
        self._classes: dict[str, type[N]] = {}

    def add(self, *names: str) -> Callable[[type], type]:
        """Class decorator: the class answers to these names and patterns."""

        def put(cls: type[N]) -> type[N]:
            self._classes.update({name.lower(): cls for name in names})
            return cls

        return put

    def get(self, name: str, kind: str | None = None) -> type[N]:
        """The class behind a name. Raises SettingsError naming the nearest name, or what kind of
        network the name is when another kind was asked for.

        A name no pattern knows is allowed where `kind` says which family it is of and that family
        takes any name (depth, text and word networks out of a folder of the user's own).
        """
        self._load()
        low = name.lower()
        found = self._classes.get(low)
        if found is None:
            patterns = (p for p in self._classes if "*" in p and fnmatchcase(low, p))
            found = self._classes.get(next(patterns, ""))
        if found is None and kind is not None:
            family = (c for c in self._classes.values() if c.kind == kind and c.any_name)
            found = next(family, None)
        if found is None:
            near = did_you_mean(low, self.names(kind))
            raise SettingsError(f"there is no {self.what} named {name!r}{near}")
        if kind is not None and found.kind != kind:
            raise SettingsError(
                f"the {self.what} {name!r} is for {found.kind}, but this place needs {kind}"
                f"{did_you_mean(low, self.names(kind))}"
            )
        return found

    def names(self, kind: str | None = None) -> list[str]:
        """Every exact name, sorted; with `kind`, those of one kind."""
        self._load()
        classes = self._classes.items()
        return sorted(n for n, c in classes if "*" not in n and kind in (None, c.kind))

    def build(self, weights: Weights, device: str = "cpu", kind: str | None = None) -> N:
        """The network that runs on these weights. Raises SettingsError as `get`, WeightsError
        where the weights do not fit it."""
        return self.get(weights.network, kind)(weights, device)

    def describe(self, weights: Weights, kind: str | None = None) -> dict[str, Any]:
        """Everything besides the weights that decides the network's numbers, without building
        it."""
        return self.get(weights.network, kind).describe(weights)

    def _load(self) -> None:
        for module in self.modules:
            importlib.import_module(f"{self.package}.{module}")
