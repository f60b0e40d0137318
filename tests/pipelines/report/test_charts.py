"""Planes and ticks of charts."""

import math

from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.charts import Frame, ticks


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_within_and_not_too_many(low, span, count):
    found = ticks(low, low + span, count)
    assert len(found) <= count + 1
    slack = 1e-6 * span + 4 * math.ulp(abs(low) + span)  # what a float of this size can tell
    assert all(low - slack <= t <= low + span + slack for t in found)


def test_ticks_and_frame_by_hand():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.03, 0.47) == [0.1, 0.2, 0.3, 0.4]
    frame = Frame(200, 100, (0, 10), (0, 1))
    assert frame.path([(0, 0), (5, 1), (10, 0.5)]) == "M0 100L100 0L200 50"
