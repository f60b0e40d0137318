"""Classes found by name: one a file of a package, under the file's name. Nothing is loaded before
it is asked for."""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from cache.errors import SettingsError, did_you_mean

T = TypeVar("T")


class Registry(Generic[T]):
    """The classes of the files in `package`; setting: what names one of them, as `train.head`."""

    def __init__(self, package: str, setting: str):
        self.package, self.setting = package, setting
        self._classes: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """Class decorator: the class answers to `name`, which is also that of its file."""

        def put(cls: T) -> T:
            self._classes[name] = cls
            return cls

        return put

    def names(self) -> list[str]:
        """Every name there is, without loading any; a file `_<name>.py` is none."""
        modules = pkgutil.iter_modules(importlib.import_module(self.package).__path__)
        return sorted(one.name for one in modules if not one.name.startswith("_"))

    def known(self, name: str) -> str:
        """The name. Raises SettingsError, with the nearest one, where there is none such."""
        if name not in self._classes and name not in self.names():
            raise SettingsError(
                f"{self.setting}: there is no {name!r}{did_you_mean(name, self.names())}"
            )
        return name

    def get(self, name: str) -> T:
        """The class of that name. Raises SettingsError as `known`, and where the file of that name
        holds no class of it."""
        if self.known(name) not in self._classes:
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._classes:
            raise SettingsError(
                f"{self.setting}: the file {name}.py of {self.package} registers no class {name!r}"
            )
        return self._classes[name]
