"""What label vectors become by `data.target` and `data.classes`: every kind of set, every wish."""

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
from extract.targets import Classes, as_classes, as_target, regroup, target_kind

NAMES = ("joy", "fear", "awe")
KINDS = ("multi", "single", "distribution")
MADE = [("multi", "distribution"), ("distribution", "single"), ("single", "distribution")]


class Some(Dataset):
    """A data set of a kind."""

    name = "some"
    labels = NAMES

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


def test_what_cannot_be_made_is_refused_by_the_setting():
    with pytest.raises(SettingsError) as refused:
        target_kind(Some("multi"), "single")
    said = "data.target is single, but a person of some may have several labels"
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


def test_one_label_has_the_whole_share():
    found = became("single", "distribution", [0, 1, 0])
    assert found.labels.tolist() == [0, 1, 0] and found.labels.dtype == np.float32


def test_the_votes_behind_one_label_are_shares():
    assert became("single", "distribution", [0, 1, 0], [1, 3, 0]).labels.tolist() == [0.25, 0.75, 0]


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


def test_one_label_is_a_whole_share_in_the_index(tmp_path):
    own(tmp_path, ["joy"], ["fear"], [])
    assert index(tmp_path, "single").kind == "single"
    found = index(tmp_path, "distribution")
    assert found.kind == "distribution"
    assert found.targets.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert found.person_status.tolist() == ["ok", "ok", "unlabelled"]


# Classes

MEANS = {"joy": "feeling glad.", "fear": "feeling threatened. ", "awe": "struck by greatness"}


def classes(kind: str, **given: list[str]) -> Classes:
    return regroup(Some(kind), MEANS, given)


def grouped(kind: str, labels, votes=None, given: dict | None = None, **more: Any) -> PersonRecord:
    given = given or {"calm": ["awe", "joy"], "tense": ["fear"]}
    return as_classes(person(labels, votes, **more), classes(kind, **given))


def test_classes_have_their_order_and_the_definitions_of_their_members():
    found = classes("single", tense=["fear"], calm=["awe", "joy"])
    assert found.labels == ("tense", "calm")
    assert found.definitions == {
        "tense": "feeling threatened",
        "calm": "struck by greatness; feeling glad",
    }
    assert found.members.tolist() == [[False, True, False], [True, False, True]]


def test_what_became_of_labels_is_said():
    assert classes("single", calm=["joy", "awe"], fear=["fear"]).said() == (
        "classes calm (joy, awe), fear"
    )
    assert classes("single", calm=["joy"]).said() == "classes calm (joy); left out: fear, awe"


@pytest.mark.parametrize(
    ("kind", "labels", "wanted"),
    [
        ("single", [1, 0, 0], [1, 0]),
        ("single", [0, 1, 0], [0, 1]),
        ("single", [0, 0, 1], [1, 0]),
        ("multi", [1, 0, 1], [1, 0]),
        ("multi", [1, 1, 1], [1, 1]),
        ("distribution", [0.5, 0.25, 0.25], [0.75, 0.25]),
    ],
)
def test_labels_become_classes_by_their_kind(kind, labels, wanted):
    found = grouped(kind, labels)
    assert found.labels.tolist() == wanted and found.labels.dtype == np.float32
    assert (found.status, found.annotators) == ("ok", 1)


def test_shares_are_divided_by_what_the_classes_have_of_them():
    found = grouped("distribution", [0.5, 0.3, 0.2], given={"glad": ["joy"], "awed": ["awe"]})
    assert found.labels.tolist() == pytest.approx([0.5 / 0.7, 0.2 / 0.7])


def test_a_label_may_be_in_two_classes_where_there_may_be_several():
    found = grouped("multi", [1, 0, 0], given={"glad": ["joy"], "moved": ["joy", "awe"]})
    assert found.labels.tolist() == [1, 1]


def test_votes_are_summed():
    found = grouped("multi", [1, 1, 0], [3, 1, 2])
    assert found.votes.tolist() == [5, 1] and found.votes.dtype == np.int16
    assert grouped("multi", [1, 1, 0]).votes is None


def test_votes_of_classes_become_shares_by_the_target():
    one = grouped("multi", [1, 1, 0], [3, 1, 2])
    assert as_target(one, "multi", "distribution", ("calm", "tense")).labels.tolist() == (
        pytest.approx([5 / 6, 1 / 6])
    )


@pytest.mark.parametrize(
    ("kind", "labels", "lost"),
    [
        ("single", [0, 1, 0], "fear"),
        ("multi", [0, 1, 1], "fear and awe"),
        ("distribution", [0, 0.5, 0.5], "fear and awe"),
    ],
)
def test_who_has_labels_of_no_class_is_a_row_with_a_reason(kind, labels, lost):
    found = grouped(kind, labels, given={"glad": ["joy"]}, vad=(1.0, 2.0, 3.0))
    assert (found.status, found.annotators) == ("unlabelled", 0)
    assert found.reason == f"no class of data.classes has {lost}"
    assert found.labels.tolist() == [0] and found.vad == (1.0, 2.0, 3.0)


def test_who_has_some_labels_of_a_class_counts():
    assert grouped("multi", [1, 1, 0], given={"glad": ["joy"]}).status == "ok"


@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 1, 0]])
def test_what_the_reader_found_goes_before(labels):
    more = {"status": "bad_box", "reason": "not four numbers"}
    found = grouped("single", labels, given={"glad": ["joy"]}, **more)
    assert (found.status, found.reason, found.labels.tolist()) == (*more.values(), [0])


def test_a_person_without_labels_has_no_class():
    one = grouped("multi", [0, 0, 0], annotators=0, status="unlabelled", reason="no labels")
    assert (one.labels.tolist(), one.reason) == ([0, 0], "no labels")


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("single", {}, "data.classes names no class"),
        ("single", {"a": []}, "data.classes.a has no labels"),
        ("single", {" ": ["joy"]}, "data.classes.  has no labels"),
        ("single", {"a": ["jov"]}, "'jov', which is no label of some; did you mean 'joy'?"),
        ("single", {"a": ["joy", "joy"]}, "data.classes.a has 'joy' twice"),
        ("single", {"a": ["joy"], "b": ["joy"]}, "'joy' in a and b, but a person of some has one"),
        (
            "distribution",
            {"a": ["awe"], "b": ["awe"]},
            "'awe' in a and b, but a person of some has",
        ),
        ("", {"a": ["joy"]}, "does not say what its labels are"),
    ],
)
def test_classes_that_cannot_be_are_refused(kind, given, said):
    with pytest.raises(SettingsError) as refused:
        regroup(Some(kind), MEANS, given)
    assert said in str(refused.value) and "data.classes" in str(refused.value)


@given(VECTORS, st.permutations(NAMES), st.integers(1, 2))
def test_classes_keep_the_contract_and_lose_no_share(labels, names, cut):
    """Classes that part the labels: shares sum to 1, votes to as many as before."""
    shares = np.array(labels, np.float64) / sum(labels)
    given = {"first": list(names[:cut]), "second": list(names[cut:])}
    found = grouped("distribution", shares, labels, given=given)
    assert found.labels.sum() == pytest.approx(1) and found.votes.sum() == sum(labels)
    first = sum(shares[NAMES.index(name)] for name in names[:cut])
    assert found.labels[0] == pytest.approx(first, abs=1e-6)
