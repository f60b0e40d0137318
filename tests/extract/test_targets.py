"""What label vectors become by `data.target`: every kind of set against every wish."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cache.errors import SettingsError
from cache.index import Index
from extract.datasets import Dataset, PersonRecord
from extract.prepare import prepare
from extract.settings import Data
from extract.targets import as_target, target_kind

NAMES = ("joy", "fear", "awe")
KINDS = ("multi", "single", "distribution")
MADE = [("multi", "distribution"), ("distribution", "single")]


class Some(Dataset):
    """A data set of a kind."""

    name = "some"

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def records(self):
        raise AssertionError


def person(labels, votes=None, **more: Any) -> PersonRecord:
    votes = None if votes is None else np.array(votes, np.int16)
    return PersonRecord((1, 1, 9, 9), "train", np.array(labels, np.float32), votes, **more)


def became(native: str, kind: str, labels, votes=None, **more: Any) -> PersonRecord:
    return as_target(person(labels, votes, **more), native, kind, NAMES)


# What is given


@pytest.mark.parametrize("native", KINDS)
def test_auto_and_its_own_name_keep_the_kind(native):
    assert target_kind(Some(native), "auto") == native
    if native != "multi":
        assert target_kind(Some(native), native) == native


def test_a_reader_that_does_not_say_has_its_values_go_by_and_makes_nothing():
    assert target_kind(Some(""), "auto") == ""
    with pytest.raises(SettingsError, match=r"data\.target is single, .*does not say what"):
        target_kind(Some(""), "single")


@pytest.mark.parametrize(("native", "target"), MADE)
def test_what_can_be_made_is_made(native, target):
    assert target_kind(Some(native), target) == target


@pytest.mark.parametrize(
    ("native", "target", "said"),
    [
        ("multi", "single", "data.target is single, but a person of some may have several labels"),
        ("single", "distribution", "data.target is distribution, but some gives one label"),
    ],
)
def test_what_cannot_be_made_is_refused_by_the_setting(native, target, said):
    with pytest.raises(SettingsError) as refused:
        target_kind(Some(native), target)
    assert said in str(refused.value) and "set it to auto" in str(refused.value)


# Vectors


@pytest.mark.parametrize("kind", KINDS)
def test_the_own_kind_leaves_a_person_as_it_is(kind):
    one = person([0.2, 0.5, 0.3], [1, 2, 3])
    assert as_target(one, kind, kind, NAMES) is one


def test_votes_over_their_sum_are_shares():
    found = became("multi", "distribution", [1, 1, 0], [3, 1, 0], annotators=4)
    assert found.labels.tolist() == [0.75, 0.25, 0] and found.labels.dtype == np.float32
    assert (found.status, found.annotators) == ("ok", 4)
    assert found.votes.tolist() == [3, 1, 0]


def test_votes_go_before_labels():
    """Labels may be those of a majority, and votes say more."""
    assert became("multi", "distribution", [1, 0, 0], [2, 2, 0]).labels.tolist() == [0.5, 0.5, 0]


def test_labels_without_votes_share_alike():
    found = became("multi", "distribution", [1, 0, 1]).labels
    assert found.tolist() == [0.5, 0, 0.5]


def test_labels_count_where_no_vote_was_given():
    """Votes that are all zero say nothing, and the shares must sum to 1."""
    found = became("multi", "distribution", [1, 0, 1], [0, 0, 0]).labels
    assert found.tolist() == [0.5, 0, 0.5]


def test_the_largest_share_is_the_label():
    found = became("distribution", "single", [0.2, 0.5, 0.3])
    assert found.labels.tolist() == [0, 1, 0] and found.status == "ok"


@pytest.mark.parametrize(
    ("shares", "tied"),
    [([0.4, 0.4, 0.2], "joy and fear"), ([0.2, 0.4, 0.4], "fear and awe"),
     ([1 / 3] * 3, "joy and fear and awe")],
)  # fmt: skip
def test_a_tie_has_no_label_and_a_reason(shares, tied):
    found = became("distribution", "single", shares, annotators=5)
    assert (found.status, found.annotators) == ("unlabelled", 0)
    assert found.reason == f"no label has the largest share alone: {tied}"
    assert found.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("native", "kind"), MADE)
def test_a_person_without_labels_stays_so(native, kind):
    one = person([0, 0, 0], status="unlabelled", reason="no labels")
    assert as_target(one, native, kind, NAMES) is one


@pytest.mark.parametrize("shares", [[0.5, 0.5, 0], [0, 0, 0], [1, 0, 0]], ids=str)
def test_a_bad_box_stays_a_bad_box(shares):
    found = became("distribution", "single", shares, status="bad_box", reason="not four numbers")
    assert (found.status, found.reason) == ("bad_box", "not four numbers")


VECTORS = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)


@given(VECTORS, VECTORS | st.none())
def test_vectors_keep_the_contract(labels, votes):
    multi = [float(some > 4) or float(some == max(labels)) for some in labels]
    shares = became("multi", "distribution", multi, votes)
    assert shares.labels.sum() == pytest.approx(1) and (shares.labels >= 0).all()
    one = as_target(shares, "distribution", "single", NAMES)
    assert set(one.labels.tolist()) <= {0, 1}
    assert one.labels.sum() == (one.status == "ok")
    if one.status == "ok":
        assert one.labels.argmax() == np.argmax(multi if votes is None else votes)


# In the index


def own(tmp_path, *labels: Any) -> None:
    Image.new("RGB", (64, 48), (1, 2, 3)).save(tmp_path / "a.png")
    some = enumerate(labels)
    lines = [{"path": "a.png", "box": [i, 0, 60, 40], "labels": one} for i, one in some]
    (tmp_path / "persons.jsonl").write_text("\n".join(map(json.dumps, lines)))


def index(tmp_path, target: str) -> Index:
    prepare(Data(name="persons", root=tmp_path, target=target), tmp_path / target)
    return Index.read(tmp_path / target)


def test_shares_become_one_label_in_the_index(tmp_path):
    own(tmp_path, {"joy": 0.6, "fear": 0.4}, {"joy": 0.5, "fear": 0.5})
    assert index(tmp_path, "auto").kind == index(tmp_path, "distribution").kind == "distribution"
    found = index(tmp_path, "single")
    assert (found.kind, found.labels) == ("single", ("fear", "joy"))
    assert found.targets.tolist() == [[0, 1], [0, 0]]
    assert found.person_status.tolist() == ["ok", "unlabelled"]
    reason = found.persons["reason"].to_pylist()[1]
    assert reason == "no label has the largest share alone: fear and joy"


def test_labels_become_shares_in_the_index(tmp_path):
    own(tmp_path, ["joy", "fear"], ["joy"], [])
    assert index(tmp_path, "auto").kind == "multi"
    found = index(tmp_path, "distribution")
    assert found.kind == "distribution"
    assert found.targets.tolist() == [[0.5, 0.5], [0, 1], [0, 0]]
    with pytest.raises(SettingsError, match=r"data\.target"):
        index(tmp_path, "single")


def test_one_label_has_no_shares(tmp_path):
    own(tmp_path, ["joy"], ["fear"])
    assert index(tmp_path, "single").kind == "single"
    with pytest.raises(SettingsError, match=r"data\.target"):
        index(tmp_path, "distribution")
