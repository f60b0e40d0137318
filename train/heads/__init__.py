"""The heads: one file a system, found by name. Importing this loads no head and no torch."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from cache.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

    from train.data import Batch, Features
    from train.heads.hugme import HugMe as HugMe
    from train.settings import Train

_heads: dict[str, Any] = {}
T = TypeVar("T")


class Output(Protocol):
    """What a head says of B persons."""

    scores: "Tensor"  # (B, C), higher is more likely
    attention: "Tensor | None"  # (B, k) weights of the objects, or None where it weighs none
    vad: "Tensor | None"  # (B, 3) valence, arousal, dominance as annotated, or None


class Head(Protocol):
    """What `fit`, `save_head` and `score` need; a head is a torch Module besides.

    Everything it learned from the training persons, standardisation and label statistics too, is
    in its state dict, so that `Class(settings, **spec)` with the state dict is the whole head.
    """

    spec: dict[str, Any]  # shapes and choices that depend on the data; plain JSON values
    # Settings below train.<head> in which heads that are fitted together may differ: they decide
    # no shape and no branch, and the head keeps them in buffers (see `train.stack`). None for a
    # closed form, to which nothing of how a head descends matters either.
    may_differ: tuple[str, ...] | None

    @staticmethod
    def views(settings: "Train") -> tuple[str, ...]:
        """The views it reads under these settings."""
        ...

    @classmethod
    def setup(cls, settings: "Train", features: "Features", rows: "Tensor") -> Any:
        """A new head for these features, its facts from the training persons `rows` alone."""
        ...

    def __call__(self, batch: "Batch") -> Output: ...

    def loss(self, output: Any, batch: "Batch") -> "Tensor":
        """The mean loss over the batch."""
        ...

    def graphs(self) -> "Mapping[str, Tensor]":
        """Label graphs (C, C) by name; empty for a head without."""
        ...


def register(name: str) -> Callable[[T], T]:
    """Class decorator: `name` is the value of train.head and the name of the head's file."""

    def add(cls: T) -> T:
        _heads[name] = cls
        return cls

    return add


def names() -> list[str]:
    """Every head there is, without loading any."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get_head(name: str) -> Any:
    """The class of a head. Raises SettingsError naming the nearest head for an unknown one."""
    if name not in _heads:
        if name not in names():
            near = difflib.get_close_matches(name, names(), 1) or names()
            raise SettingsError(f"train.head {name!r} is not a head; did you mean {near[0]!r}?")
        importlib.import_module(f"{__name__}.{name}")
    return _heads[name]


def may_differ(name: str) -> tuple[str, ...] | None:
    """`Head.may_differ` of the head of this name; nothing where it does not say."""
    return getattr(get_head(name), "may_differ", ())


def __getattr__(name: str) -> Any:
    if name == "HugMe":
        return get_head("hugme")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
