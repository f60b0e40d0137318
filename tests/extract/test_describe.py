"""The text of a picture, against sentences written by hand, for every way in which it may lack
something; and whose label is said in it."""

import json
from dataclasses import replace
from itertools import combinations
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.index import PERSONS, PICTURES, Index
from extract.describe import describe, descriptions, emotions
from extract.settings import Attribute

EVERY = get_args(Attribute)
SAID = {
    "scene": "beach",
    "object": ["dog", "ball", "sea"],
    "brightness": 0.6,
    "colorfulness": "low",
    "facial_expression": "happiness",
    "human_action": "surfing water",
}
WHOLE = (
    "The scene type of this photo is beach. The main subjects are dog, ball and sea. The image has "
    "a brightness of 0.6 and color saturation of low. Human facial expression is happiness. The "
    "action being performed is surfing water. The overall emotion conveyed is awe."
)
LIGHT = "brightness", "colorfulness"
# What each part says, written once more.
SENTENCES = {
    ("scene",): "The scene type of this photo is beach.",
    ("object",): "The main subjects are dog, ball and sea.",
    ("brightness",): "The image has a brightness of 0.6.",
    ("colorfulness",): "The image has a color saturation of low.",
    (
        "brightness",
        "colorfulness",
    ): "The image has a brightness of 0.6 and color saturation of low.",
    ("facial_expression",): "Human facial expression is happiness.",
    ("human_action",): "The action being performed is surfing water.",
    ("emotion",): "The overall emotion conveyed is awe.",
}
WORDS = ["beach", "dog, ball and sea", "0.6", "low", "happiness", "surfing water", "awe"]
SUBSETS = [some for size in range(8) for some in combinations(EVERY, size)]


def test_everything_there_is():
    assert describe(SAID, "awe", EVERY) == WHOLE
    assert len(SUBSETS) == 2**7


@pytest.mark.parametrize("present", SUBSETS, ids=lambda some: "+".join(some) or "nothing")
def test_every_subset_tells_what_is_there_in_order_and_nothing_else(present):
    said = {name: value for name, value in SAID.items() if name in present}
    text = describe(said, "awe" if "emotion" in present else None, EVERY)

    light = tuple(name for name in LIGHT if name in present)
    parts = [
        ("scene",),
        ("object",),
        light,
        ("facial_expression",),
        ("human_action",),
        ("emotion",),
    ]
    there = [part for part in parts if part and set(part) <= set(present)]
    assert text == " ".join(SENTENCES[part] for part in there)

    for name, word in zip(EVERY, WORDS, strict=True):
        assert text.count(word) == (name in present)
    places = [text.find(word) for word in WORDS]
    assert [at for at in places if at >= 0] == sorted(at for at in places if at >= 0)
    assert "  " not in text and " ." not in text and ".." not in text and "and." not in text
    assert text == "" or (text.endswith(".") and text == text.strip())

    # What is not wanted is as good as missing.
    assert describe(SAID, "awe", present) == text
    assert describe(SAID, "awe", present[::-1]) == text


@pytest.mark.parametrize(
    "nothing",
    [None, "", "  ", ".", [], [None, ""], float("nan"), float("inf"), True, {"a": 1}, [["dog"]]],
    ids=str,
)
def test_what_says_nothing_is_missing(nothing):
    assert describe(dict.fromkeys(SAID, nothing), None, EVERY) == ""
    some = describe({**SAID, "brightness": nothing, "object": nothing}, "", EVERY)
    assert some == (
        "The scene type of this photo is beach. The image has a color saturation of low. Human "
        "facial expression is happiness. The action being performed is surfing water."
    )


@pytest.mark.parametrize(
    "said, text",
    [
        ({"object": "dog"}, "The main subject is dog."),
        ({"object": ["dog"]}, "The main subject is dog."),
        ({"object": ["dog", None, "dog "]}, "The main subject is dog."),
        ({"object": ["dog", "cat"]}, "The main subjects are dog and cat."),
        ({"object": ["a", "b", "c", "a", "d"]}, "The main subjects are a, b, c and d."),
        ({"scene": ["beach", "sea"]}, "The scene type of this photo is beach and sea."),
        ({"scene": "ice_rink/indoor"}, "The scene type of this photo is ice rink indoor."),
        ({"scene": " a\n\tbay. "}, "The scene type of this photo is a bay."),
        ({"scene": "St. Malo"}, "The scene type of this photo is St. Malo."),
        ({"brightness": 0}, "The image has a brightness of 0."),
        ({"brightness": 0.30000000000000004}, "The image has a brightness of 0.3."),
        ({"colorfulness": 1.0}, "The image has a color saturation of 1."),
        ({"brightness": 10**400}, f"The image has a brightness of {10**400}."),
        ({"image_id": 7, "valence": 3}, ""),
    ],
    ids=str,
)
def test_values_in_words(said, text):
    assert describe(said, None, EVERY) == text


def test_the_emotion_is_the_label_and_no_attribute():
    assert describe({"emotion": "fear"}, None, EVERY) == ""
    said = describe({"emotion": "fear"}, "Doubt/Confusion", EVERY)
    assert said == "The overall emotion conveyed is Doubt or Confusion."


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some) | st.dictionaries(st.text(), some),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from([*EVERY, "more"]), VALUES), st.none() | st.text())
def test_whatever_json_says_is_one_line_of_whole_sentences(said, emotion):
    text = describe(said, emotion, EVERY)
    assert "  " not in text and text == text.strip() and len(text.splitlines()) <= 1
    assert text == "" or (text.endswith(".") and not text.endswith(("..", " .")))


# ------------------------------------------------------------------------- of pictures and labels

LABELS = ("awe", "fear", "joy")


def index(*people, kind="single", said=()) -> Index:
    """people: (picture, split, label vector, status); said: attributes of pictures 0, 1 ..."""
    count = 1 + max(picture for picture, *_ in people)
    said = [*said, *[None] * (count - len(said))]
    empty = dict.fromkeys(PICTURES.names, "") | {"width": 9, "height": 9, "status": "ok"}
    pictures = [
        empty | {"id": f"p{row}", "attributes": "" if one is None else json.dumps(one)}
        for row, one in enumerate(said)
    ]
    blank = dict.fromkeys(PERSONS.names)
    persons = [
        blank | {"id": str(row), "picture": at, "split": split, "labels": labels, "status": status}
        for row, (at, split, labels, status) in enumerate(people)
    ]
    tables = (
        pa.Table.from_pylist(rows, schema)
        for rows, schema in ((pictures, PICTURES), (persons, PERSONS))
    )
    return Index("made", "", LABELS, *tables, kind=kind)


AWE, FEAR, JOY, NONE = [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]
UNKNOWN = [float("nan")] * 3


@pytest.mark.parametrize(
    "people, said",
    [
        ([("train", FEAR, "ok")], "fear"),
        ([("train", NONE, "ok")], None),
        ([("val", FEAR, "ok")], None),
        ([("test", FEAR, "ok")], None),
        ([("train", FEAR, "ok"), ("val", AWE, "ok")], None),
        ([("train", FEAR, "ok"), ("test", AWE, "bad_box")], None),
        ([("train", FEAR, "ok"), ("val", UNKNOWN, "unlabelled")], None),
        ([("train", FEAR, "ok"), ("", AWE, "ok")], None),
        ([("train", FEAR, "ok"), ("test", AWE, "removed")], "fear"),
        ([("train", FEAR, "ok"), ("train", AWE, "removed")], "fear"),
        ([("train", FEAR, "ok"), ("train", UNKNOWN, "unlabelled")], "fear"),
        ([("train", FEAR, "ok"), ("train", AWE, "repeated")], "fear"),
        ([("train", FEAR, "ok"), ("train", AWE, "ok"), ("train", FEAR, "ok")], "awe and fear"),
        ([("train", FEAR, "unreadable")], None),
    ],
    ids=str,
)
def test_whose_label_is_said(people, said):
    """Of the picture in the middle; the others have each a label of their own."""
    first, last = (0, "train", JOY, "ok"), (2, "train", AWE, "ok")
    found = emotions(index(first, *[(1, *one) for one in people], last))
    assert found == ["joy", said, "awe"]


@pytest.mark.parametrize(
    "kind, labels, said",
    [
        ("multi", [[1, 0, 1]], "awe and joy"),
        ("multi", [[1, 0, 0], [1, 1, 1]], "awe, fear and joy"),
        ("multi", [[0.5, 0, 0]], None),
        ("", [[0, 1, 0]], "fear"),
        ("distribution", [[0.3, 0.3, 0.4]], "joy"),
        ("distribution", [[0.7, 0.2, 0.1]], "awe"),
        ("distribution", [[0.4, 0.4, 0.2]], "awe and fear"),
        ("distribution", [[0.6, 0.2, 0.2], [0.2, 0.2, 0.6]], "awe and joy"),
        ("distribution", [[0, 0, 0]], None),
    ],
)
def test_which_labels_a_picture_has(kind, labels, said):
    assert emotions(index(*[(0, "train", one, "ok") for one in labels], kind=kind)) == [said]


def test_descriptions_of_an_index_join_both():
    people = [(0, "train", AWE, "ok"), (1, "val", FEAR, "ok"), (2, "test", JOY, "ok")]
    of = index(*people, said=[SAID, {"scene": "wood"}, {"emotion": "joy"}])
    assert descriptions(of, EVERY) == [WHOLE, "The scene type of this photo is wood.", ""]
    assert descriptions(of, ["emotion"]) == ["The overall emotion conveyed is awe.", "", ""]
    assert descriptions(of, ["scene"])[0] == "The scene type of this photo is beach."


def test_an_index_without_persons_or_labels_has_nothing_to_say():
    of = index((0, "train", AWE, "ok"))
    nobody = replace(of, persons=of.persons.slice(0, 0))
    assert descriptions(nobody, EVERY) == [""]
    assert np.shape(nobody.targets) == (0, 3)
