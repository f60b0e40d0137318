"""WESAD's ready features: runs of windows, boxes that overlap as the windows did, exact rows."""

import csv
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DataError
from extract.datasets.wesad_features import WesadFeatures
from extract.images import PictureError
from tests.extract.datasets.made_recordings import (
    COLUMNS,
    RUNS,
    wesad_csv,
    wesad_features,
    wesad_rows,
)
from tests.shared import shared

STRIDES = (30, 60)


def real(stride: int) -> WesadFeatures:
    file = shared(f"data/wesad/WESAD_causal_features_stride{stride}.csv")
    return WesadFeatures(file.parent, Path(file.name))


def lines(stride: int) -> list[dict[str, str]]:
    """Of a real table, read by the csv module alone."""
    with open(shared(f"data/wesad/WESAD_causal_features_stride{stride}.csv"), newline="") as file:
        return list(csv.DictReader(file))


def table(root: Path, rows: list[dict[str, str]]) -> WesadFeatures:
    (root / "features.csv").write_text(wesad_csv(rows))
    return WesadFeatures(root)


# Real tables


@pytest.mark.parametrize(
    ("stride", "counts"),
    [
        (30, {"baseline": 572, "stress": 332, "amusement": 186, "meditation": 394}),
        (60, {"baseline": 285, "stress": 165, "amusement": 92, "meditation": 194}),
    ],
)
def test_real_tables_have_fifteen_subjects_and_five_runs_each(stride, counts):
    reader = real(stride)
    found = list(reader.records())
    assert Counter(one.group for one in found) == {
        f"S{number}": 5 for number in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17)
    }
    people = [person for one in found for person in one.persons]
    sums = np.sum([person.labels for person in people], axis=0)
    assert dict(zip(reader.labels, sums.tolist(), strict=True)) == counts
    assert {person.status for person in people} == {"ok"} and not reader.counts
    assert len({one.path for one in found}) == len(found)
    order = Counter(one.source for one in found)
    assert order == {"baseline": 15, "stress": 15, "amusement": 15, "meditation": 30}


def test_real_columns_fall_into_four_modalities():
    modalities = real(30).modalities
    sizes = {name: len(one.channels) for name, one in modalities.items()}
    assert sizes == {"motion": 8, "electrodermal": 18, "cardiac": 18, "temperature": 10}
    assert tuple(real(30).definitions) == real(30).labels
    assert modalities["motion"].role == "behavioural"
    assert {modalities[name].role for name in sizes if name != "motion"} == {"physiological"}
    assert "z_scr_amplitude_sum" in modalities["electrodermal"].channels
    assert "eda_kurtosis" in modalities["electrodermal"].channels
    assert "raw_hrv_rmssd" in modalities["cardiac"].channels


@pytest.mark.parametrize("stride", STRIDES)
def test_every_window_has_exactly_the_features_of_its_line(stride):
    reader = real(stride)
    by_window = {(row["subject_id"], float(row["time_end_sec"])): row for row in lines(stride)}
    data = shared(f"data/wesad/WESAD_causal_features_stride{stride}.csv").read_bytes()
    names = [name for one in reader.modalities.values() for name in one.channels]
    assert len(names) == 54
    seen = 0
    for record in reader.records():
        stretch = record.path.split("#")[1]
        channels = reader.decode(data, stretch)
        first = float(stretch.split()[-1].split("-")[0])
        for person in record.persons:
            row = by_window[record.group, first + person.box[0]]
            given = [channels[name].between(person.box[0], person.box[2]) for name in names]
            assert {one.shape for one in given} == {(1, 1)}
            wanted = np.array([float(row[name]) for name in names], np.float32)
            assert np.array_equal(np.concatenate(given, 1)[0], wanted)
            seen += 1
    assert seen == len(by_window)


@pytest.mark.parametrize(("stride", "overlap"), [(30, 30), (60, 0)])
def test_boxes_overlap_as_the_windows_did(stride, overlap):
    """Windows of 60 s, 30 or 60 s apart."""
    found = real(stride).records()
    shared_seconds = {
        one.box[2] - other.box[0] for record in found for one, other in pairwise(record.persons)
    }
    assert shared_seconds == {overlap}


def test_the_length_of_a_window_is_the_setting():
    reader = real(30)
    reader.window = (180.0, 30.0)
    first = next(iter(reader.records()))
    assert first.persons[1].box == (30, 0, 210, 1)
    assert (first.path.split("#")[1], first.width) == ("S10 baseline 180-1290", 1290)


# Made ones


def test_a_run_is_a_record_of_one_subject_and_one_condition(tmp_path):
    reader = WesadFeatures(wesad_features(tmp_path))
    found = [one for one in reader.records() if one.group == "S1"]
    conditions = ("baseline", "stress", "amusement", "meditation", "meditation")
    assert [one.source for one in found] == list(conditions)
    assert [len(one.persons) for one in found] == [count for _, _, count in RUNS]
    assert found[0].path == "features.csv#S1 baseline 180-510"
    assert (found[0].width, found[0].height) == (390, 1)
    assert found[1].persons[2].box == (60, 0, 120, 1)
    assert found[1].persons[2].labels.tolist() == [0, 1, 0, 0]


def test_windows_that_neither_touch_nor_overlap_are_two_runs(tmp_path):
    rows = wesad_rows("S1", 1)[:12]
    kept = [row for at, row in enumerate(rows) if at not in (3, 7, 8)]
    ends = [one.path.split()[-1] for one in table(tmp_path, kept).records()]
    assert ends == ["180-360", "450-510"]  # 240 and 300 touch, 360 and 450 do not
    (both,) = (one for one in table(tmp_path, kept).records() if "180-360" in one.path)
    channels = WesadFeatures.decode((tmp_path / "features.csv").read_bytes(), "S1 baseline 180-360")
    given = [channels[COLUMNS[0]].between(p.box[0], p.box[2]) for p in both.persons]
    wanted = [np.float32(row[COLUMNS[0]]) for row in rows[:7] if row is not rows[3]]
    assert np.array_equal(np.concatenate(given).ravel(), wanted)


def test_the_order_of_lines_decides_nothing(tmp_path):
    rows = [row for n in (1, 2) for row in wesad_rows(f"S{n}", n)]
    for name, some in (("there", rows), ("back", rows[::-1])):
        (tmp_path / name).mkdir()
        table(tmp_path / name, some)
    there, back = (list(WesadFeatures(tmp_path / name).records()) for name in ("there", "back"))
    assert [one.path for one in there] == [one.path for one in back]
    for one, other in zip(there, back, strict=True):
        assert [p.box for p in one.persons] == [p.box for p in other.persons]
        datas = [(tmp_path / name / "features.csv").read_bytes() for name in ("there", "back")]
        decoded = [WesadFeatures.decode(data, one.path.split("#")[1]) for data in datas]
        assert all(np.array_equal(decoded[0][c].values, decoded[1][c].values) for c in COLUMNS)


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "inf", "1e60"])
def test_a_cell_without_a_number_makes_its_window_unreadable(tmp_path, cell):
    rows = wesad_rows("S1", 1)
    rows[4]["z_scl_mean"] = rows[4]["acc_sma"] = cell
    reader = table(tmp_path, rows)
    people = next(iter(reader.records())).persons
    assert people[4].status == "unreadable"
    assert people[4].reason == "acc_sma, z_scl_mean: no finite number"
    assert [one.status for one in people].count("ok") == 11
    assert reader.counts["windows unreadable"] == 1


@pytest.mark.parametrize(("cell", "told"), [("0", "0"), ("7", "7"), ("", "none"), ("nan", "nan")])
def test_a_condition_that_is_none_is_a_row_without_labels(tmp_path, cell, told):
    rows = wesad_rows("S1", 1)
    rows[0]["raw_label"] = cell
    reader = table(tmp_path, rows)
    first, second = list(reader.records())[:2]
    (person,) = first.persons
    assert (person.status, person.annotators) == ("unlabelled", 0) and not person.labels.any()
    assert person.reason == f"raw_label={told} is none of the conditions"
    assert len(second.persons) == 11 and second.persons[0].box[0] == 0
    stretch = first.path.split("#")[1]
    data = (tmp_path / "features.csv").read_bytes()
    assert WesadFeatures.decode(data, stretch)["acc_sma"].between(0, 60).shape == (1, 1)


def test_a_label_that_says_another_thing_is_counted(tmp_path):
    rows = wesad_rows("S1", 1)
    rows[0]["label"] = "stress"
    reader = table(tmp_path, rows)
    list(reader.records())
    assert reader.counts["windows whose label is not that of raw_label"] == 1


def test_label_need_not_be_there(tmp_path):
    rows = [{k: v for k, v in row.items() if k != "label"} for row in wesad_rows("S1", 1)]
    assert len(list(table(tmp_path, rows).records())) == 5


def test_seconds_may_have_fractions(tmp_path):
    rows = wesad_rows("S1", 1)[:2]
    rows[0]["time_end_sec"], rows[1]["time_end_sec"] = "12345.25", "12375.5"
    (one,) = table(tmp_path, rows).records()
    assert one.path.endswith("#S1 baseline 12345.25-12375.5")
    assert one.persons[1].box == (30.25, 0, 90.25, 1) and one.width == 91
    data = (tmp_path / "features.csv").read_bytes()
    (value,) = WesadFeatures.decode(data, one.path.split("#")[1])["acc_sma"].between(30.25, 90.25)
    assert value == np.float32(rows[1]["acc_sma"])


# Refusals


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"acc_sma": "much"}, r"line 3 has 'much' for acc_sma, which is no number"),
        ({"subject_id": ""}, "line 3 has the subject_id ''"),
        ({"subject_id": "S#1"}, "line 3 has the subject_id 'S#1'"),
        ({"time_end_sec": "late"}, "line 3 has the time_end_sec 'late'"),
        ({"time_end_sec": "-3"}, "line 3 has the time_end_sec '-3'"),
        ({"time_end_sec": "180"}, "two windows of S1 end at 180 s"),
        ({"raw_label": "calm"}, "line 3 has the raw_label 'calm'"),
        ({"raw_label": "1.5"}, r"line 3 has the raw_label '1\.5'"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, changed, reason):
    rows = wesad_rows("S1", 1)
    rows[1] |= changed
    with pytest.raises(DataError, match=rf"features\.csv: {reason}"):
        list(table(tmp_path, rows).records())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("acc_sma,raw_label\n1,1\n", "it has no column subject_id, time_end_sec"),
        (
            "acc_sma,breath,raw_label,time_end_sec,subject_id\n1,1,1,60,S1\n",
            "it has the column 'breath': features begin with acc_, eda_, scl_, scr_, hrv_, temp_",
        ),
        ("raw_label,time_end_sec,subject_id\n1,60,S1\n", "it has no column of features"),
        (
            "acc_sma,acc_sma,raw_label,time_end_sec,subject_id\n1,1,1,60,S1\n",
            "it has the column 'acc_sma' twice",
        ),
        ("acc_sma,raw_label,time_end_sec,subject_id\n", "it has no rows"),
        ("", "it has no column"),
        ("acc_sma,raw_label,time_end_sec,subject_id\n1,1,60,S1,7\n", "line 2 has more cells"),
        ("\xff", "it is not UTF-8"),
    ],
)
def test_a_table_of_another_form_is_refused(tmp_path, text, reason):
    (tmp_path / "features.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=rf"features\.csv: {reason}"):
        WesadFeatures(tmp_path)
    with pytest.raises(PictureError, match=reason):
        WesadFeatures.decode(text.encode("latin-1"), "S1 baseline 60-60")


def test_one_table_must_be_there_or_be_chosen():
    with pytest.raises(DataError, match=r"several files \*\.csv .*: set data\.file"):
        WesadFeatures(shared("data/wesad"))


@pytest.mark.parametrize(
    "stretch", ["", "S1", "S1 baseline", "S1 stress 180-510", "S9 baseline 1-9"]
)
def test_a_stretch_that_is_none_is_refused(stretch):
    data = wesad_csv(wesad_rows("S1", 1)).encode()
    with pytest.raises(PictureError, match="has no windows of"):
        WesadFeatures.decode(data, stretch)
