"""Pictures in words: the attributes that a data set gives of each, composed into UniEmoX's text."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool

from cache.index import Index
from extract.settings import Attribute

HAS = 0.5  # a person has the labels above it


def descriptions(index: Index, wanted: Sequence[Attribute]) -> list[str]:
    """The description of each picture of the index, "" where there is nothing to tell.

    Attributes are those of `pictures.attributes`; the emotion is never one of them, but comes from
    `emotions`.
    """
    said = index.pictures["attributes"].to_pylist()
    return [
        describe(json.loads(text) if text else {}, emotion, wanted)
        for text, emotion in zip(said, emotions(index), strict=True)
    ]


def describe(
    attributes: Mapping[str, Any], emotion: str | None, wanted: Sequence[Attribute]
) -> str:
    """The sentences that a picture's attributes make, in the order of `Attribute`; "" for none.

    A value is a text, a number as it stands, or a list of these, each named once. Underscores and
    slashes become spaces, a slash in the emotion "or". What is not wanted, absent, empty, not
    finite, true or false, or a dictionary tells nothing.
    """
    told: dict[str, list[str]] = {
        name: _listed(attributes.get(name)) for name in wanted if name != "emotion"
    }
    if emotion and "emotion" in wanted:
        told["emotion"] = _listed(emotion.replace("/", " or "))
    words = {name: _joined(some) for name, some in told.items() if some}
    sentences = []
    if "scene" in words:
        sentences.append(f"The scene type of this photo is {words['scene']}.")
    if "object" in words:
        noun = "subject is" if len(told["object"]) == 1 else "subjects are"
        sentences.append(f"The main {noun} {words['object']}.")
    light = [
        f"{what} of {words[name]}"
        for name, what in (("brightness", "brightness"), ("colorfulness", "color saturation"))
        if name in words
    ]
    if light:
        sentences.append(f"The image has a {' and '.join(light)}.")
    if "facial_expression" in words:
        sentences.append(f"Human facial expression is {words['facial_expression']}.")
    if "human_action" in words:
        sentences.append(f"The action being performed is {words['human_action']}.")
    if "emotion" in words:
        sentences.append(f"The overall emotion conveyed is {words['emotion']}.")
    return " ".join(sentences)


def emotions(index: Index) -> list[str | None]:
    """The label of each picture by name, of train alone: what is said here reaches the teachers.

    None for a picture that shows a person of another split, whatever their status, unless they are
    no longer part of the data set. Otherwise the labels that some person who counts has; of
    distributions each person's largest share, all of them where several are. "a, b and c" in the
    order of the labels.
    """
    pictures, targets = index.picture_rows, index.targets
    counts = index.person_status == "ok"
    has = targets > HAS
    if index.kind == "distribution":
        has = (targets == targets.max(axis=1, keepdims=True, initial=0)) & (targets > 0)
    found: Bool[np.ndarray, "M C"] = np.zeros((len(index.pictures), len(index.labels)), bool)
    np.logical_or.at(found, pictures[counts], has[counts])
    found[pictures[(index.splits != "train") & (index.person_status != "removed")]] = False
    named = [[index.labels[at] for at in np.flatnonzero(row)] for row in found]
    return [_joined(labels) if labels else None for labels in named]


def _listed(value: Any) -> list[str]:
    """What an attribute says, each thing once."""
    items = value if isinstance(value, list | tuple) else [value]
    return list(dict.fromkeys(filter(None, map(_text, items))))


def _text(value: Any) -> str:
    """A single value in words, without the full stop that a sentence brings; "" for nothing."""
    if isinstance(value, str):
        return " ".join(re.sub("[_/]", " ", value).split()).rstrip(". ")
    if isinstance(value, float):
        return f"{value:g}" if math.isfinite(value) else ""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _joined(words: Sequence[str]) -> str:
    """a, b and c"""
    *others, last = words
    return f"{', '.join(others)} and {last}" if others else last
