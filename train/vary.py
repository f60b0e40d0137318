"""Settings of a fit with some of them changed, by their whole names."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cache.errors import SettingsError
from cache.settings import sentence
from train.heads import heads
from train.settings import Train, of_others


def vary(settings: Train, changes: Mapping[str, Any]) -> Train:
    """The settings with some changed, each by its whole name as `train.hugme.beta`, and checked.

    Raises SettingsError for an unknown setting, for a value out of range, and for a setting of
    another head than the one that is fitted, which would change nothing.
    """
    head = heads.known(str(changes.get("train.head", settings.head)))
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
        raise SettingsError(sentence(error.errors()[0], "train")) from None


def value_of(settings: Train, key: str) -> Any:
    """The value of a setting by its whole name; None where there is no such."""
    found: Any = settings.model_dump(mode="json")
    for part in key.split(".")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found


def of_another(key: str, head: str) -> bool:
    """Whether a setting lies in the section of another head."""
    section = key.split(".")[1:2]
    return bool(section) and section[0] in of_others(head)


def _put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Raises SettingsError, with the nearest known name, where there is no such setting."""
    first, _, path = key.partition(".")
    *sections, name = path.split(".")
    free = sections[:1] == ["options"]  # of a head of one's own: only that head knows its names
    known: Any = tree if first == "train" and name else {}
    for section in sections:
        known = known.setdefault(section, {}) if free else known.get(section)
        if not isinstance(known, dict):
            known = {}
            break
    if name not in known and not (free and name):
        near = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {'.'.join((first, *sections, near[0]))}?" if near else ""
        raise SettingsError(f"{key}: unknown setting{hint}")
    known[name] = value
