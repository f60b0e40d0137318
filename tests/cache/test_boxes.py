"""Areas and overlaps are those of torchvision."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_area, box_iou

from cache.boxes import area, iou, shared

SIDE = st.floats(0, 500, width=32)


@given(st.lists(st.tuples(SIDE, SIDE, SIDE, SIDE), min_size=2, max_size=12))
def test_areas_and_iou_are_those_of_torchvision(sides):
    one = np.array(sides, np.float64)
    boxes = np.concatenate([one[:, :2], one[:, :2] + one[:, 2:] + 1], axis=1)
    tensor = torch.from_numpy(boxes)
    np.testing.assert_allclose(area(boxes), box_area(tensor).numpy())
    np.testing.assert_allclose(iou(boxes[0], boxes), box_iou(tensor[:1], tensor)[0].numpy())


def test_boxes_that_only_touch_share_nothing_and_inverted_ones_have_no_area():
    a, b = np.array([0.0, 0, 10, 10]), np.array([10.0, 0, 20, 10])
    assert shared(a, b) == 0 and iou(a, b) == 0
    assert area(np.array([5.0, 5, 1, 9])) == 0
    assert np.isnan(iou(a, np.full(4, np.nan)))
