"""Two caches are held against each other row by row: what differs is counted, whatever array it
stands in."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cache.diff import diff
from cache.index import Index
from cache.spec import Row
from cache.writer import ViewWriter
from tests.cache.test_index import index
from tests.cache.test_store import row, spec


def fill(root, rows):
    index(len(rows)).write(root)
    writer = ViewWriter(root, spec(), index(len(rows)).ids("persons"), 8)
    writer.expect(range(len(rows)))
    for number, value in enumerate(rows):
        writer.put(number, value)
    return root


def values(ours, theirs):
    found = diff(ours, theirs)
    assert found["views"]["body"]["key"] == "same"
    return found["differs"], found["views"]["body"]["values"]


def test_equal_caches_do_not_differ(tmp_path):
    one, two = (fill(tmp_path / name, [row(n) for n in range(4)]) for name in ("one", "two"))
    assert values(one, two) == (False, {"equal": 4, "differ": 0, "largest": 0.0})


@pytest.mark.parametrize("array", ["features", "box"])
def test_a_row_that_differs_in_any_of_its_arrays_is_counted(tmp_path, array):
    one = fill(tmp_path / "one", [row(n) for n in range(4)])
    other = row(2)
    other.values[array] = other.values[array] + 3
    two = fill(tmp_path / "two", [row(0), row(1), other, row(3)])
    assert values(one, two) == (True, {"equal": 3, "differ": 1, "largest": 3.0})


def test_a_row_of_another_status_differs_though_its_values_do_not(tmp_path):
    one = fill(tmp_path / "one", [row(0), Row("no_face")])
    two = fill(tmp_path / "two", [row(0), Row("no_object")])
    assert values(one, two) == (True, {"equal": 1, "differ": 1, "largest": 0.0})


def test_ratings_definitions_and_who_counts_are_differences_too(tmp_path):
    one = fill(tmp_path / "one", [row(n) for n in range(4)])
    two = fill(tmp_path / "two", [row(n) for n in range(4)])
    there = Index.read(two)
    defined = ({"label": there.labels[0], "definition": "other words"},)
    rated = there.persons.set_column(
        there.persons.schema.get_field_index("valence"),
        "valence",
        pa.array([3.0, *[np.nan] * 3], pa.float32()),
    )
    gone = there.persons.set_column(
        there.persons.schema.get_field_index("status"), "status", [["removed", *["ok"] * 3]]
    )
    for change in ({"definitions": defined}, {"persons": rated}, {"persons": gone}):
        replace(there, **change).write(two)
        assert diff(one, two)["differs"]
    there.write(two)
    assert not diff(one, two)["differs"]
