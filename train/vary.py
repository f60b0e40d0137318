"""Settings of a fit with some of them changed, by their whole names."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cache.errors import SettingsError
from train.heads import names
from train.settings import Settings, Train

# The sections of heads: each of them is read by the head of that name alone.
SECTIONS = {
    name
    for name, field in Train.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
}


def vary(settings: Train, changes: Mapping[str, Any]) -> Train:
    """The settings with some changed, each by its whole name as `train.hugme.beta`, and checked.

    Raises SettingsError for an unknown setting, for a value out of range, and for a setting of
    another head than the one that is fitted, which would change nothing.
    """
    head = changes.get("train.head", settings.head)
    if head not in names():
        near = difflib.get_close_matches(str(head), names(), 1) or names()
        raise SettingsError(f"train.head {head!r} is not a head; did you mean {near[0]!r}?")
    tree = settings.model_dump()
    for key, value in changes.items():
        if of_another(key, head):
            raise SettingsError(
                f"{key}: changes nothing while train.head is {head}; set train.head to "
                f"{key.split('.')[1]}, or leave it out"
            )
        _put(tree, key, value)
    try:
        return Train.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in ("train", *first["loc"]))
        if first["type"] == "extra_forbidden":
            raise SettingsError(f"{path}: unknown setting") from None
        said = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
        raise SettingsError(f"{path}: {said} (got {first['input']!r})") from None


def of_another(key: str, head: str) -> bool:
    """Whether a setting lies in the section of another head."""
    section = key.split(".")[1:2]
    return bool(section) and section[0] in SECTIONS and section[0] != head


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Raises SettingsError, with the nearest known name, where there is no such setting."""
    room, _, path = key.partition(".")
    *sections, name = path.split(".")
    free = sections[:1] == ["options"]  # of a head of one's own: only that head knows its names
    known: Any = tree if room == "train" and name else {}
    for section in sections:
        known = known.setdefault(section, {}) if free else known.get(section)
        if not isinstance(known, dict):
            known = {}
            break
    if name not in known and not (free and name):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {'.'.join((room, *sections, near[0]))}?" if near else ""
        raise SettingsError(f"{key}: unknown setting{hint}")
    known[name] = value
