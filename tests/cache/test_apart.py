"""Splits set apart share no picture that looks the same; what needs not move stays."""

import csv
import io

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cache import apart as module
from cache.apart import as_csv, set_apart
from cache.audit import audit
from cache.errors import DataError
from cache.index import PICTURES, Index
from tests.cache.test_audit import BOX, SPLITS, drawn, plain, write_index, write_scene


def moved(root, **more) -> dict[str, str]:
    """Pictures, by number, that stand in another split than before."""
    index = Index.read(root)
    paths = index.pictures["path"].to_pylist()
    before = {
        paths[row]: split for row, split in zip(index.picture_rows, index.splits, strict=True)
    }
    return {
        path.removesuffix(".jpg"): split
        for path, split in set_apart(root, **more).splits.items()
        if split != before[path]
    }


def test_splits_that_share_nothing_stay(tmp_path):
    write_index(tmp_path, plain(SPLITS))
    write_scene(tmp_path, drawn(40), 40)
    found = set_apart(tmp_path)
    assert found.moved == {} and found.clusters == 0 and moved(tmp_path) == {}
    assert found.persons == {"train": (20, 20), "val": (10, 10), "test": (10, 10)}
    assert len(found.splits) == 40


def test_a_copy_goes_to_the_split_with_most_of_its_kind(tmp_path):
    """30 of test is like 0 and 1 of train; 35 and 36 of test are like 25 of val."""
    write_index(tmp_path, plain(SPLITS))
    write_scene(tmp_path, drawn(40, {1: 0, 30: 0, 35: 25, 36: 25}), 40)
    assert moved(tmp_path) == {"30": "train", "25": "test"}
    found = set_apart(tmp_path)
    assert found.clusters == 2 and found.moved == {("test", "train"): 1, ("val", "test"): 1}


def test_likeness_passes_on(tmp_path):
    """5 is like 35, 35 like 25: all three go together, though 5 and 25 need not be near."""
    write_index(tmp_path, plain(SPLITS))
    rows = drawn(40)
    a, b = rows[5].astype(float), rows[25].astype(float)
    rows[35] = (a / np.linalg.norm(a) + b / np.linalg.norm(b)).astype(np.float16)
    write_scene(tmp_path, rows, 40)
    assert len({set_apart(tmp_path, near=0.8).splits[f"{row}.jpg"] for row in (5, 25, 35)}) == 1


def test_equal_paths_and_groups_stay_together(tmp_path):
    write_index(tmp_path, plain(SPLITS), {39: "0.jpg"})
    index = Index.read(tmp_path)
    group = ["film" if row in (3, 4, 38) else "" for row in range(40)]
    where = index.pictures.column_names.index("group")
    table = index.pictures.set_column(where, PICTURES.field("group"), pa.array(group))
    Index("made", "", index.labels, table, index.persons).write(tmp_path)
    write_scene(tmp_path, drawn(40), 40)
    found = set_apart(tmp_path)
    assert found.splits["38.jpg"] == "train" and found.moved == {("test", "train"): 2}


def test_a_picture_with_persons_in_two_splits_goes_to_one(tmp_path):
    people = [*plain(SPLITS), (0, "test", (1.0, 1.0, 5.0, 5.0)), (0, "test", (2.0, 1.0, 9.0, 5.0))]
    write_index(tmp_path, people)
    write_scene(tmp_path, drawn(40), 40)
    assert set_apart(tmp_path).splits["0.jpg"] == "test"


def test_removed_persons_have_no_say(tmp_path):
    write_index(tmp_path, [*plain(SPLITS), (0, "test", (1.0, 1.0, 5.0, 5.0), "removed")])
    write_scene(tmp_path, drawn(40), 40)
    assert set_apart(tmp_path).moved == {}


@pytest.mark.parametrize("trained", [False, None])
def test_without_trained_features_it_is_refused(tmp_path, trained):
    write_index(tmp_path, plain(SPLITS))
    if trained is not None:
        write_scene(tmp_path, drawn(40), 40, trained=trained)
    with pytest.raises(DataError, match="cannot be told"):
        set_apart(tmp_path)


def test_the_file_has_every_path_once(tmp_path):
    text = as_csv({"b,c.jpg": "test", 'a"d.jpg': "train"}).decode()
    assert list(csv.reader(io.StringIO(text))) == [
        ["path", "split"], ['a"d.jpg', "train"], ["b,c.jpg", "test"],
    ]  # fmt: skip
    with pytest.raises(DataError, match="'dev', which is none of train, val, test"):
        as_csv({"a.jpg": "dev"})


@settings(max_examples=15, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.dictionaries(st.integers(1, 39), st.integers(0, 38), max_size=12), st.integers(3, 50))
def test_an_audit_of_the_new_splits_finds_nothing(tmp_path_factory, monkeypatch, copies, block):
    """Whatever is a copy of what, and however pictures fall into blocks."""
    root = tmp_path_factory.mktemp("apart")
    monkeypatch.setattr("cache.audit.BLOCK", block)
    features = drawn(40, copies)
    write_index(root, plain(SPLITS))
    write_scene(root, features, 40)
    splits = set_apart(root).splits
    new = tmp_path_factory.mktemp("again")
    write_index(new, [(row, splits[f"{row}.jpg"], BOX) for row in range(40)])
    write_scene(new, features, 40)
    assert all(one.near_pictures == 0 for one in audit(new).overlaps)
    assert module.set_apart(new).moved == {}
