"""Folds: everyone is tested once, and nothing that hangs together stands in two parts."""

import json
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from cache.errors import DataError, SettingsError
from cache.index import PERSONS, PICTURES, Index
from train.folds import APART, Fold, in_words, make_folds, protocol_of, refuse_leaks, shared, unfit
from train.settings import Folds

EEG = {"eeg": {"role": "physiological", "channels": ["eeg"], "measure": "given", "decoder": "x"}}
NOBODY: dict[str, Any] = dict.fromkeys(PERSONS.names)


def recordings(
    stretches: list[tuple[str, int]],
    step: float = 1.0,
    length: float = 1.0,
    videos: list[str] | None = None,
    modalities: dict[str, Any] | None = None,
) -> Index:
    """An index of stretches, each (subject, number of windows) and perhaps of a video; every window
    `length` seconds, `step` after the one before."""
    pictures, persons = [], []
    for number, (subject, windows) in enumerate(stretches):
        said = json.dumps({"video": videos[number]}) if videos else ""
        picture: dict[str, Any] = dict.fromkeys(PICTURES.names, "")
        picture |= {"id": f"p{number}", "path": f"{subject}.mat#{number}", "group": subject}
        pictures.append(picture | {"width": 99, "height": 1, "status": "ok", "attributes": said})
        for window in range(windows):
            start = window * step
            persons.append(
                NOBODY
                | {"id": f"{number}/{window}", "picture": number, "status": "ok", "split": "train"}
                | {"x1": start, "y1": 0.0, "x2": start + length, "y2": 1.0}
                | {"labels": [float(number % 2), float(number % 2 == 0)]}
            )
    tables = (pa.Table.from_pylist(pictures, PICTURES), pa.Table.from_pylist(persons, PERSONS))
    return Index("made", "", ("a", "b"), *tables, (), "single", EEG if modalities is None else {})


def folds_of(index: Index, kept: np.ndarray | None = None, **settings: Any) -> list[Fold]:
    every = np.ones(len(index.persons), bool) if kept is None else kept
    return make_folds(index, every, Folds(**settings))


def names(index: Index, rows: np.ndarray, column: str) -> set[str]:
    return {index.pictures[column][int(index.picture_rows[row])].as_py() for row in rows}


def require_partition(index: Index, folds: list[Fold]) -> None:
    tested = np.concatenate([fold.test for fold in folds])
    assert sorted(tested.tolist()) == list(range(len(index.persons)))
    for fold in folds:
        parts = [fold.train, fold.val, fold.test, fold.left]
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(index.persons)))


FIVE = [(f"S{subject}", 4) for subject in range(5) for _ in range(3)]


def test_one_subject_is_left_out_at_a_time():
    index = recordings(FIVE)
    folds = folds_of(index, protocol="subjects", val=0.2)
    require_partition(index, folds)
    assert sorted(fold.name for fold in folds) == ["S0", "S1", "S2", "S3", "S4"]
    for fold in folds:
        assert names(index, fold.test, "group") == {fold.name}
        assert len(names(index, fold.val, "group")) == 1
        sets = [names(index, rows, "group") for rows in (fold.train, fold.val, fold.test)]
        assert all(not a & b for a, b in combinations(sets, 2)) and len(set.union(*sets)) == 5


def test_whole_groups_are_spread_over_k_folds():
    index = recordings(FIVE)
    folds = folds_of(index, protocol="groups", k=2)
    require_partition(index, folds)
    assert sorted(len(names(index, fold.test, "group")) for fold in folds) == [2, 3]
    assert protocol_of(index, Folds()) == "groups"


def test_the_seed_decides_the_groups():
    index = recordings(FIVE)
    tested = [
        [
            names(index, fold.test, "group")
            for fold in folds_of(index, protocol="groups", k=2, seed=s)
        ]
        for s in (0, 0, 1)
    ]
    assert tested[0] == tested[1] != tested[2]


def test_stretches_of_each_subject_go_to_contiguous_folds():
    index = recordings([(f"S{s}", 2) for s in range(2) for _ in range(4)])
    folds = folds_of(index, protocol="trials", k=2, val=0.25)
    require_partition(index, folds)
    assert names(index, folds[0].test, "path") == {"S0.mat#0", "S0.mat#1", "S1.mat#4", "S1.mat#5"}
    assert names(index, folds[0].val, "path") == {"S0.mat#2", "S1.mat#6"}  # what follows
    assert names(index, folds[1].test, "path") == {"S0.mat#2", "S0.mat#3", "S1.mat#6", "S1.mat#7"}
    assert names(index, folds[1].val, "path") == {"S0.mat#0", "S1.mat#4"}


def test_a_video_that_several_subjects_saw_stands_in_one_part():
    stretches = [(f"S{s}", 2) for s in range(3) for _ in range(4)]
    index = recordings(stretches, videos=["10", "2", "9", "1"] * 3)
    folds = folds_of(index, protocol="trials", k=4)
    require_partition(index, folds)
    for fold, video in zip(folds, ("1", "2", "9", "10"), strict=True):
        assert {json.loads(one)["video"] for one in names(index, fold.test, "attributes")} == {
            video
        }
        assert names(index, fold.test, "group") == {"S0", "S1", "S2"}
        assert shared(index, fold.train, fold.test)["videos"] == 0


def test_blocks_leave_out_windows_that_overlap():
    """Ten windows of 2 s, 1 s apart, in two blocks: windows 4 and 5 share a second."""
    index = recordings([("S0", 10)], step=1, length=2)
    first, second = folds_of(index, protocol="blocks", k=2, val=0)
    assert first.test.tolist() == [0, 1, 2, 3, 4] and first.left.tolist() == [5]
    assert first.train.tolist() == [6, 7, 8, 9]
    assert second.test.tolist() == [5, 6, 7, 8, 9] and second.left.tolist() == [4]


def test_val_never_takes_all_that_is_left():
    index = recordings([("S0", 10), ("S1", 10)])
    for protocol in ("subjects", "blocks"):
        for fold in folds_of(index, protocol=protocol, k=2, val=0.5):
            assert len(fold.train) and not len(fold.val)


def test_blocks_without_overlap_leave_nobody_out():
    index = recordings([("S0", 10), ("S1", 7)])
    folds = folds_of(index, protocol="blocks", k=5)
    require_partition(index, folds)
    assert all(not len(fold.left) for fold in folds)
    # each stretch stands in each part, in one run
    for fold in folds:
        for stretch, first in ((0, 0), (1, 10)):
            mine = fold.test[index.picture_rows[fold.test] == stretch] - first
            assert len(mine) and mine.tolist() == list(range(mine[0], mine[-1] + 1))


def test_random_takes_whole_pictures():
    index = recordings([("", 2)] * 12)
    folds = folds_of(index, protocol="random", k=3)
    require_partition(index, folds)
    assert all(shared(index, fold.train, fold.test)["pictures"] == 0 for fold in folds)
    assert protocol_of(index, Folds()) == "random"


def test_leaking_parts_windows_and_says_so():
    index = recordings([("S0", 30)], step=1, length=4)
    folds = folds_of(index, protocol="leaking", k=3)
    require_partition(index, folds)
    found = shared(index, folds[0].train, folds[0].test)
    assert found["windows"] > 5 and found["pictures"] == found["groups"] == 1
    assert "LEAKING" in in_words(folds, "leaking", Folds())
    for protocol in set(APART) - {"leaking"}:
        with pytest.raises(DataError, match="leaks: .* stand in both train and test"):
            refuse_leaks(index, folds[0], protocol)


def test_splits_that_take_no_part():
    index = recordings(FIVE)
    kept = np.ones(len(index.persons), bool)
    kept[:4] = False
    tested = np.concatenate([fold.test for fold in folds_of(index, kept, protocol="groups", k=2)])
    assert sorted(tested.tolist()) == list(range(4, 60))
    with pytest.raises(SettingsError, match="folds.splits"):
        folds_of(index, protocol="groups", k=2, splits=["val"])


@pytest.mark.parametrize(
    ("stretches", "more", "settings", "why"),
    [
        (
            [("S0", 4), ("", 4)],
            {},
            {"protocol": "subjects"},
            "4 of 8 persons have none.*data.split",
        ),
        ([("S0", 4), ("S1", 4)], {}, {"protocol": "groups"}, "there are 2: lower folds.k"),
        ([("S0", 4)], {}, {"protocol": "subjects"}, "there are 1"),
        ([("S0", 4)] * 3, {}, {"protocol": "trials", "k": 4}, "there are 3: lower folds.k"),
        ([("S0", 4)], {}, {"protocol": "blocks", "k": 5}, "S0.mat#0 has 4 windows"),
        (
            [("S0", 40)],
            {"videos": ["1"]},
            {"protocol": "blocks"},
            "one video into two parts: .*trials",
        ),
        ([("S0", 40)], {"modalities": {}}, {"protocol": "blocks"}, "cuts recordings"),
    ],
)
def test_what_cannot_be_had_is_refused(stretches, more, settings, why):
    with pytest.raises(SettingsError, match=why):
        folds_of(recordings(stretches, **more), **settings)


def test_random_pictures_of_known_groups_are_refused():
    """The films or subjects of pictures are known: random would put one into both parts."""
    with pytest.raises(
        DataError, match=r"leaks: .*groups stand in both .* take folds.protocol groups"
    ):
        folds_of(recordings(FIVE), protocol="random", k=3)


def test_a_leak_is_refused_by_name():
    index = recordings([("S0", 6), ("S1", 6)], step=1, length=3)
    parts = np.arange(0, 3), np.zeros(0, int), np.arange(3, 6)
    fold = Fold("1", *parts, np.zeros(0, int))
    with pytest.raises(DataError, match="fold 1 leaks: 2 windows stand in both train and test"):
        refuse_leaks(index, fold, "blocks")
    again = Fold("1", np.array([0]), np.zeros(0, int), np.array([0]), np.zeros(0, int))
    with pytest.raises(DataError, match="1 persons"):
        refuse_leaks(index, again, "blocks")
    apart = Fold("1", np.arange(6), np.zeros(0, int), np.arange(6, 12), np.zeros(0, int))
    refuse_leaks(index, apart, "groups")


def test_val_leaks_too():
    index = recordings([("S0", 6), ("S1", 6)])
    fold = Fold("1", np.arange(6, 12), np.arange(0, 3), np.arange(3, 6), np.zeros(0, int))
    with pytest.raises(DataError, match="stand in both val and test"):
        refuse_leaks(index, fold, "subjects")


def test_what_a_fold_lacks_is_said():
    index = recordings([("S0", 3), ("S1", 3)])  # S0 has the label b alone, S1 a
    folds = {fold.name: fold for fold in folds_of(index, protocol="subjects", val=0)}
    assert unfit(folds["S0"], index.targets, index.labels) == "no training person has b"
    assert unfit(Fold("", *[np.zeros(0, int)] * 4), index.targets, index.labels).startswith(
        "nobody"
    )


@given_settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_protocol_lets_anything_through(data):
    """Whatever the stretches are: everyone is tested once, parts are disjoint, and nothing that the
    protocol keeps apart, nor an overlapping window, stands in two parts."""
    subjects = data.draw(st.integers(3, 6))
    stretches = [
        (f"S{subject}", data.draw(st.integers(4, 9)))
        for subject in range(subjects)
        for _ in range(data.draw(st.integers(3, 5)))
    ]
    length = data.draw(st.sampled_from([0.5, 1.0, 2.5]))
    index = recordings(stretches, length=length)
    protocol = data.draw(st.sampled_from(["subjects", "groups", "trials", "blocks"]))
    k, val = data.draw(st.integers(2, 3)), data.draw(st.sampled_from([0.0, 0.1, 0.3]))
    seed = data.draw(st.integers(0, 9))
    try:
        folds = folds_of(index, protocol=protocol, k=k, val=val, seed=seed)
    except SettingsError as error:  # windows so long that nothing is left between blocks
        assert "leaves nobody to fit on" in str(error) and protocol == "blocks" and length > 1
        return
    require_partition(index, folds)
    windows = [
        (int(p), float(b[0]), float(b[2]))
        for p, b in zip(index.picture_rows, index.boxes, strict=True)
    ]
    for fold in folds:
        for one, other in combinations((fold.train, fold.val, fold.test), 2):
            found = shared(index, one, other)
            assert not any(found[what] for what in APART[protocol])
            for a in one:  # by hand, as `shared` is what is tested
                for b in other:
                    (p, start, end), (q, begin, stop) = windows[a], windows[b]
                    assert p != q or end <= begin or stop <= start
