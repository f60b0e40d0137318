"""Boxes against torchvision and sums by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou

from cache.boxes import clip, iou, is_subject, square_around


def test_iou_is_torchvisions():
    corners = np.random.default_rng(0).uniform(0, 100, (40, 2, 2)).astype(np.float32)
    boxes = np.concatenate([corners.min(1), corners.max(1)], axis=1)
    a, b = boxes[:20], boxes[20:]
    expected = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    assert np.allclose([iou(box, b) for box in a], expected, atol=1e-6)
    assert np.allclose(iou(a, b), np.diagonal(expected), atol=1e-6)
    assert iou(np.zeros(4), np.zeros((1, 4))).tolist() == [0]


@pytest.mark.parametrize(
    "box, inside",
    [
        ((-5, -5, 10, 10), (0, 0, 10, 10)),
        ((190, 90, 300, 300), (190, 90, 200, 100)),
        ((200, 0, 210, 10), None),  # beside it
        ((10, 10, 10, 20), None),  # without a pixel
        ((float("nan"), 0, 1, 1), None),
    ],
)
def test_clip_leaves_what_is_inside(box, inside):
    assert clip(box, 200, 100) == inside


def test_a_subject_is_who_has_more_than_half_of_the_box():
    subject = (0.0, 0.0, 10.0, 10.0)
    for box, is_one in (((0, 0, 19, 10), True), ((0, 0, 20, 10), False), ((2, 2, 4, 4), True)):
        assert is_subject(np.array(box, np.float32), subject) == is_one
    assert not is_subject(np.array((3, 3, 3, 3), np.float32), subject)  # of no area


def test_square_around_a_face():
    assert square_around((40, 40, 60, 50), 2, 200, 100) == (30, 25, 70, 65)
    assert square_around((0, 0, 20, 10), 2, 200, 100) == (0, 0, 40, 40)  # moved
    assert square_around((190, 90, 200, 100), 2, 200, 100) == (180, 80, 200, 100)
    assert square_around((0, 0, 90, 90), 4, 200, 100) == (0, 0, 200, 100)  # cut


@given(
    corner=st.tuples(st.floats(-50, 250), st.floats(-50, 150)),
    side=st.tuples(st.floats(0.5, 100), st.floats(0.5, 100)),
    enlarge=st.floats(1, 4),
)
def test_square_around_lies_in_the_picture(corner, side, enlarge):
    x, y = corner
    x1, y1, x2, y2 = square_around((x, y, x + side[0], y + side[1]), enlarge, 200, 100)
    assert 0 <= x1 < x2 <= 200 + 1e-9 and 0 <= y1 < y2 <= 100 + 1e-9
    longest = enlarge * max(side)
    assert x2 - x1 == pytest.approx(min(longest, 200))
    assert y2 - y1 == pytest.approx(min(longest, 100))
