"""The sentence that the text encoder reads for each label: the set's own, or the user's."""

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from cache.errors import DataError, did_you_mean, first_line
from cache.settings import Once


class _Words(Once, yaml.BaseLoader):
    """`no` is a word."""


def shipped(name: str) -> dict[str, str]:
    """The labels of a data set with their definitions, in the order of its label vectors: the file
    `datasets/labels/<name>.yaml`."""
    text = files("extract.datasets").joinpath("labels", f"{name}.yaml").read_text("utf-8")
    found: dict[str, str] = yaml.safe_load(text)
    return found


def read(file: Path) -> dict[str, str]:
    """Labels and their definitions from a YAML file of the user's: `label: sentence` a line; a
    label without a sentence is defined by its name. Raises DataError for anything else."""
    if not file.expanduser().is_file():
        raise DataError(f"there is no file {file}: see data.definitions")
    try:
        found: Any = yaml.load(file.expanduser().read_bytes(), _Words)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise DataError(f"{file} is no YAML of labels: {first_line(error)}") from error
    if isinstance(found, list) and all(isinstance(label, str) for label in found):
        found = dict.fromkeys(found, "")
    if not isinstance(found, dict) or not all(
        isinstance(label, str) and label.strip() and isinstance(text, str)
        for label, text in found.items()
    ):
        raise DataError(f"{file} must hold lines of `label: sentence`")
    return {label: text.strip() or label for label, text in found.items()}


def definitions_of(
    name: str, labels: tuple[str, ...], own: dict[str, str], file: Path | None
) -> dict[str, str]:
    """The definition of each of `labels`, those in `file` before the data set's `own`.

    Raises DataError where the file has a label that the data set `name` has not.
    """
    given = read(file) if file else {}
    for label in given:
        if label not in labels:
            raise DataError(
                f"{file} defines {label!r}, which is no label of {name}"
                f"{did_you_mean(label, labels)}"
            )
    return {label: given.get(label, own[label]) for label in labels}
