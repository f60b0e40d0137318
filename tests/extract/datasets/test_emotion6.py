"""Emotion6: shares of seven emotions by columns in any order, and rows whose shares are none."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DataError
from extract.datasets import PictureRecord, get_dataset
from extract.datasets.emotion6 import Emotion6
from tests.extract.datasets.made import (
    EMOTION6,
    Folder,
    emotion6,
    emotion6_csv,
    made,
    persons,
    prepared,
)


def records(root: Path, *lines: str) -> list[PictureRecord]:
    """Of a ground truth with these lines below the usual header."""
    folder = Folder(root)
    folder.lines("ground_truth.txt", lines, EMOTION6[0])
    return list(Emotion6(folder.write()).records())


def test_a_row_is_shares_and_ratings(tmp_path):
    reader = get_dataset("emotion6")(made(emotion6, tmp_path))
    first = next(reader.records())
    (person,) = first.persons
    assert reader.labels == ("anger", "disgust", "fear", "joy", "sadness", "surprise", "neutral")
    assert person.labels.tolist() == pytest.approx([0.5, 0.2, 0.1, 0, 0.1, 0.1, 0])
    assert person.labels.dtype == np.float32
    assert (person.vad[:2], math.isnan(person.vad[2])) == ((3.5, 6), True)
    assert (first.path, person.box, person.face) == ("images/anger/1.jpg", None, None)
    assert (reader.kind, reader.splits) == ("distribution", ())


def test_what_was_searched_for_is_an_attribute_and_no_label(tmp_path):
    _, index = prepared("emotion6", made(emotion6, tmp_path / "data"), tmp_path / "cache")
    said = {one["path"]: one["attributes"] for one in index.pictures.to_pylist()}
    assert json.loads(said["images/anger/2.jpg"]) == {"searched_for": "anger"}
    assert persons(index)["images/anger/2.jpg"]["felt"] == {"neutral": 1}


def test_every_trap_becomes_a_row_with_a_reason(tmp_path):
    report, index = prepared("emotion6", made(emotion6, tmp_path / "data"), tmp_path / "cache")
    found = {path: (one["status"], one["reason"]) for path, one in persons(index).items()}
    assert found == {
        "images/anger/1.jpg": ("ok", ""),
        "images/anger/2.jpg": ("ok", ""),
        "images/joy/3.jpg": ("ok", ""),
        "images/joy/4.jpg": ("unlabelled", "the shares sum to 0.5"),
        "images/joy/5.jpg": ("unlabelled", "the shares sum to nan"),
        "images/joy/gone.jpg": ("missing", "no such file"),
    }
    assert report.oddities["persons whose shares do not sum to 1"] == 2
    assert not any(persons(index)["images/joy/4.jpg"]["felt"])
    assert "drawn 80% : 10% : 10%" in report.note


def test_rounded_shares_are_made_to_sum_to_one(tmp_path):
    _, index = prepared("emotion6", made(emotion6, tmp_path / "data"), tmp_path / "cache")
    shares = persons(index)["images/joy/3.jpg"]["felt"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-6)
    assert set(shares) == {"joy", "sadness", "neutral"}


def test_columns_may_stand_in_another_order_and_be_commas(tmp_path):
    _, index = prepared("emotion6", made(emotion6_csv, tmp_path / "data"), tmp_path / "cache")
    assert persons(index)["1.jpg"]["felt"] == {"joy": 0.75, "neutral": 0.25}
    assert persons(index)["2.jpg"]["felt"] == {"anger": 0.5, "disgust": 0.25, "fear": 0.25}
    assert [persons(index)[path]["valence"] for path in ("1.jpg", "2.jpg")] == [8, 2]


def test_ratings_are_known_by_their_columns_too(tmp_path):
    """In another order they are read right or refused, never exchanged."""
    header = EMOTION6[0].replace("[valence]\t[arousal]", "[arousal]\t[valence]")
    folder = Folder(tmp_path)
    folder.lines("ground_truth.txt", ["1.jpg\t6\t3.5\t0\t0\t0\t1\t0\t0\t0"], header)
    try:
        (record,) = Emotion6(folder.write()).records()
    except DataError:
        return
    assert record.persons[0].vad[:2] == (3.5, 6)


def test_a_single_label_is_the_largest_share_if_it_is_alone(tmp_path):
    root = made(emotion6, tmp_path / "data")
    report, index = prepared("emotion6", root, tmp_path / "cache", target="single")
    found = persons(index)
    assert found["images/anger/1.jpg"]["felt"] == {"anger": 1}
    tied = found["images/joy/3.jpg"]
    assert (tied["status"], tied["felt"], tied["annotators"]) == ("unlabelled", {}, 0)
    assert tied["reason"] == "no label has the largest share alone: joy and sadness and neutral"
    assert found["images/joy/4.jpg"]["reason"] == "the shares sum to 0.5"
    assert (report.kind, index.kind) == ("single", "single")


@pytest.mark.parametrize(
    ("shares", "reason"),
    [
        ("0 0 0 0 0 0 0", "the shares sum to 0"),
        ("2 0 0 0 0 0 0", "the shares sum to 2"),
        ("0.5 0.47 0 0 0 0 0", "the shares sum to 0.97"),
        ("x 0 0 1 0 0 0", "the shares sum to nan"),
        ("inf 0 0 0 0 0 0", "the shares sum to inf"),
    ],
)
def test_shares_that_do_not_sum_to_one_are_no_label(tmp_path, shares, reason):
    (record,) = records(tmp_path, "\t".join(["a.jpg", "5", "5", *shares.split()]))
    (person,) = record.persons
    assert (person.status, person.reason, person.annotators) == ("unlabelled", reason, 0)
    assert not person.labels.any()


def test_a_negative_share_is_said_to_be_one(tmp_path):
    (record,) = records(tmp_path, "a.jpg\t5\t5\t-0.5\t1.5\t0\t0\t0\t0\t0")
    (person,) = record.persons
    assert person.status == "unlabelled" and not person.labels.any()
    assert "sum to 1" not in person.reason


def test_a_picture_listed_twice_comes_once(tmp_path):
    line = "a.jpg\t5\t5\t1\t0\t0\t0\t0\t0\t0"
    assert len(records(tmp_path, line, line)) == 1


# Refusals


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (EMOTION6[0].replace("joy", "jov"), "line 1 has the label 'jov', .*did you mean 'joy'"),
        (EMOTION6[0].replace("joy", "fear"), "line 1 does not name each of the seven emotions"),
        (EMOTION6[0].replace("\t[prob. joy]", ""), "line 1 has 9 cells, not 10"),
        (EMOTION6[1], "line 1 has the label '0.5'"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, header, reason):
    folder = Folder(tmp_path)
    folder.lines("ground_truth.txt", [EMOTION6[2]], header)
    with pytest.raises(DataError, match=reason):
        list(Emotion6(folder.write()).records())


def test_a_short_line_is_refused_with_its_number(tmp_path):
    with pytest.raises(DataError, match="ground_truth.txt, line 3 has 4 cells, not 10"):
        records(tmp_path, EMOTION6[1], "a.jpg\t5\t5\t1")


def test_one_ground_truth_must_be_there_or_be_named(tmp_path):
    with pytest.raises(DataError, match=r"has no ground_truth.\*"):
        Emotion6(tmp_path)
    folder = Folder(tmp_path)
    emotion6(folder)
    emotion6_csv(folder)
    root = folder.write()
    with pytest.raises(DataError, match="several files ground_truth.*: set data.file"):
        Emotion6(root)
    assert len(list(Emotion6(root, Path("labels/ground_truth.csv")).records())) == 2
