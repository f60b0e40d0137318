"""What is drawn on a picture: boxes, names, weights, emotions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines import overlay
from pipelines.overlay import ObjectMark, PersonMark, draw
from tests.pipelines.report_data import (
    annotated,
)
from tests.shared import shared


@pytest.fixture
def table():
    """A real picture with four persons around a table, and its persons' boxes."""
    rows = annotated(shared("data/emotic_pictures"))
    path = next(row[0] for row in rows if "000000000790" in row[0].name)
    with Image.open(path) as picture:
        picture.load()
    return picture, [row[1] for row in rows if row[0] == path]


def test_overlay_draws_the_boxes_where_they_are(table):
    picture, boxes = table
    before = picture.copy()
    drawn = draw(picture, [PersonMark(boxes[0])])
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(before))
    assert drawn.size == picture.size and drawn.mode == "RGB"
    changed = np.argwhere((np.asarray(drawn) != np.asarray(picture.convert("RGB"))).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert np.abs(np.array([left, top, right, bottom]) - boxes[0]).max() <= 1


def test_overlay_writes_names_weights_and_emotions(table, monkeypatch):
    written = []
    keep = overlay._Board.label
    monkeypatch.setattr(
        overlay._Board,
        "label",
        lambda self, box, lines, colour: (
            written.append(list(lines)),
            keep(self, box, lines, colour),
        )[1],
    )
    person = PersonMark(
        table[1][0],
        objects=[
            ObjectMark((0, 0, 50, 50), "cup", 0.9, 0.25),
            ObjectMark((9, 9, 50, 50), "dog", 0.5),
        ],
        emotions=[("Happiness", 0.812), ("Peace", 0.4), ("Anger", 0.2), ("Fear", 0.1)],
        name="1",
    )
    draw(table[0], [person])
    assert written[0] == ["1", "Happiness 0.81", "Peace 0.40", "Anger 0.20", "Fear 0.10"]
    # a number beside an object is its weight and nothing else
    assert sorted(written[1:]) == [["cup, weight 0.25"], ["dog"]]


def test_overlay_keeps_labels_apart_and_off_the_faces(table, monkeypatch):
    boards = []
    keep = overlay._Board.__init__
    monkeypatch.setattr(
        overlay._Board,
        "__init__",
        lambda self, *args: (keep(self, *args), boards.append(self))[0],
    )
    picture, boxes = table
    people = [
        PersonMark(
            box,
            (box[0], box[1], box[2], box[1] + 60),
            [ObjectMark((200, 200, 300, 260), f"thing {n}", 0.5, 0.5)],
            [("Doubt/Confusion", 0.5), ("Engagement", 0.4)],
        )
        for n, box in enumerate(boxes)
    ]
    draw(picture, people, longest=1000)
    labels, faces = boards[0].taken, boards[0].faces
    assert len(labels) == 2 * len(boxes)
    for number, label in enumerate(labels):
        assert min(label) >= 0 and label[2] <= 1000
        assert not any(overlay._overlap(label, other) for other in labels[:number])
        assert not any(overlay._overlap(label, face) for face in faces)


@given(
    st.tuples(*[st.floats(-500, 1500)] * 4),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(["L", "RGB", "RGBA", "P", "CMYK", "1"]),
)
@settings(max_examples=25, deadline=None)
def test_overlay_takes_any_box_size_and_mode(box, size, mode):
    person = PersonMark(
        box, box, [ObjectMark(box, "a very long class name", 0.5, 1.0)], [("Happiness", 0.5)]
    )
    drawn = draw(Image.new(mode, size), [person, person])
    assert max(drawn.size) >= 400
