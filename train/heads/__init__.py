"""The heads: one file a system, found by name. Importing this loads no head and no torch."""

from typing import Any

from cache.registry import Registry

heads: Registry[Any] = Registry(__name__, "train.head")
register, names, get_head = heads.add, heads.names, heads.get


def may_differ(name: str) -> tuple[str, ...]:
    """`Head.may_differ` of the head of this name; nothing where it does not say."""
    return getattr(get_head(name), "may_differ", ())


def closed(name: str) -> bool:
    """`Head.closed` of the head of this name; false where it does not say."""
    return getattr(get_head(name), "closed", False)


def __getattr__(name: str) -> Any:
    if name == "HugMe":  # `from train.heads import HugMe`
        return get_head("hugme")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
