"""HECO: its CSV wherever it lies, misspellings and gaps in it, and splits that are drawn."""

import json
import math
from pathlib import Path

import pytest

from cache.errors import DataError
from extract.datasets import get_dataset
from extract.datasets.heco import Heco
from tests.extract.datasets.made import HECO, Folder, felt, heco, made, persons, prepared


def reader_of(root: Path, *lines: str) -> Heco:
    """HECO with these lines below the usual header."""
    folder = Folder(root)
    heco(folder, HECO[0], *lines)
    return get_dataset("heco")(folder.write())


def test_a_line_is_a_person_with_label_box_and_ratings(tmp_path):
    reader = get_dataset("heco")(made(heco, tmp_path))
    records = {record.path: record for record in reader.records()}
    happy, afraid = records["images/0.jpg"].persons
    assert (felt(reader, happy), felt(reader, afraid)) == (["Happiness"], ["Fear"])
    assert (happy.box, happy.vad, happy.split) == ((1, 2, 30, 40), (7, 5, 6), "")
    assert (happy.status, happy.annotators, happy.face) == ("ok", 1, None)
    assert reader.counts == {
        "read as 'Happiness', spelt 'Happinesst'": 1,
        "persons without a category": 1,
    }
    assert (reader.kind, reader.splits) == ("single", ())


def test_the_scores_of_a_picture_are_its_attributes_in_the_order_of_its_persons(tmp_path):
    _, index = prepared("heco", made(heco, tmp_path / "data"), tmp_path / "cache")
    pictures = {one["path"]: one["attributes"] for one in index.pictures.to_pylist()}
    assert json.loads(pictures["images/0.jpg"]) == {"Label_SA": [1, 0], "Label_CA": [0, 1]}
    assert pictures["images/1.jpg"] == ""


def test_scores_that_some_persons_lack_are_json_all_the_same(tmp_path):
    lines = ("0.jpg,1,2,30,40,Fear,2,8,3,1,", "0.jpg,20,2,50,40,Fear,2,8,3,,")
    reader_of(tmp_path / "data", *lines)
    _, index = prepared("heco", tmp_path / "data", tmp_path / "cache")

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    (text,) = index.pictures["attributes"].to_pylist()
    assert json.loads(text, parse_constant=refuse)["Label_SA"][0] == 1


def test_every_trap_becomes_a_row_with_a_reason(tmp_path):
    report, index = prepared("heco", made(heco, tmp_path / "data"), tmp_path / "cache")
    found = {path: (one["status"], one["reason"]) for path, one in persons(index).items()}
    assert found == {
        "images/0.jpg": ("ok", ""),
        "images/1.jpg": ("ok", ""),
        "images/2.jpg": ("bad_box", "the box is not four numbers"),
        "images/3.jpg": ("bad_box", "the box (30, 2, 1, 40) is empty or inverted"),
        "images/4.jpg": ("unlabelled", "no category"),
        "images/5.jpg": ("ok", ""),
        "images/6.jpg": ("ok", ""),
        "gone.jpg": ("missing", "no such file"),
    }
    sides = [persons(index)["images/6.jpg"][side] for side in ("x1", "y1", "x2", "y2")]
    assert sides == [0, 2, 64, 40]
    assert report.oddities["persons repeated"] == 1
    assert set(index.persons["origin"].to_pylist()) == {"annotated"}


def test_ratings_may_be_empty_or_absent(tmp_path):
    _, index = prepared("heco", made(heco, tmp_path / "data"), tmp_path / "cache")
    assert math.isnan(persons(index)["images/1.jpg"]["valence"])
    folder = Folder(tmp_path / "without")
    heco(folder, "Image,xmin,ymin,xmax,ymax,Category", "0.jpg,1,2,30,40,Fear")
    (record,) = get_dataset("heco")(folder.write()).records()
    assert all(math.isnan(value) for value in record.persons[0].vad)
    assert record.attributes == {}


def test_persons_of_a_picture_stand_in_one_split_that_the_seed_decides(tmp_path):
    folder = Folder(tmp_path / "data")
    for number in range(40):
        folder.picture(f"Data/{number}.jpg", number, (32, 24))
    rows = [f"{n}.jpg,{x},2,{x + 9},20,Fear,,,,," for n in range(40) for x in (1, 15)]
    folder.lines("HECO.csv", rows, HECO[0])
    drawn = {}
    for seed in (0, 1):
        report, index = prepared(
            "heco", folder.write(), tmp_path / f"{seed}", split={"seed": seed, "test": 0.3}
        )
        of: dict[int, set[str]] = {}
        for row, split in zip(index.picture_rows, index.splits, strict=True):
            of.setdefault(row, set()).add(split)
        assert all(len(splits) == 1 for splits in of.values())
        assert set(index.splits) == {"train", "val", "test"}
        assert (
            f"splits drawn 60% : 10% : 30% by group where there is one, else by picture, "
            f"seed {seed}: not official" in report.note
        )
        drawn[seed] = index.splits.tolist()
    assert drawn[0] != drawn[1]


# Where files lie


@pytest.mark.parametrize(
    ("csv", "pictures"),
    [
        ("HECO.csv", ""),
        ("HECO.csv", "images/"),
        ("HECO.csv", "Data/"),
        ("labels/HECO.csv", ""),
        ("labels/HECO.csv", "labels/"),
        ("labels/HECO.csv", "labels/Images/"),
    ],
)
def test_pictures_are_found_beside_the_csv_and_above_it(tmp_path, csv, pictures):
    folder = Folder(tmp_path)
    folder.picture(f"{pictures}some/1.jpg", 1)
    folder.lines(csv, ["some\\1.jpg,1,2,30,40,Fear,,,,,"], HECO[0])
    (record,) = get_dataset("heco")(folder.write()).records()
    assert record.path == f"{pictures}some/1.jpg"


def test_several_tables_are_refused_and_one_may_be_named(tmp_path):
    folder = Folder(tmp_path)
    heco(folder)
    folder.lines("second.csv", ["0.jpg,1,2,30,40,Fear,,,,,"], HECO[0])
    root = folder.write()
    with pytest.raises(DataError, match=r"several files .*labels/HECO.csv, second.csv.*data.file"):
        get_dataset("heco")(root)
    assert len(list(Heco(root, Path("second.csv")).records())) == 1
    with pytest.raises(DataError, match="there is no .*third.csv: set data.file"):
        Heco(root, Path("third.csv"))


def test_no_table_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no \*.csv: set data.root"):
        get_dataset("heco")(tmp_path)


@pytest.mark.parametrize("spelt", ["{outside}", "../outside.jpg"])
def test_a_picture_out_of_the_root_is_never_read(tmp_path, spelt):
    outside = Folder(tmp_path)
    outside.picture("outside.jpg", 1)
    outside.write()
    name = spelt.format(outside=tmp_path / "outside.jpg")
    reader_of(tmp_path / "data", f"{name},1,2,30,40,Fear,,,,,")
    _, index = prepared("heco", tmp_path / "data", tmp_path / "cache")
    assert index.person_status.tolist() == ["unreadable"]
    assert "not below data.root" in index.persons["reason"].to_pylist()[0]


def test_a_table_out_of_the_root_is_refused(tmp_path):
    outside = Folder(tmp_path)
    heco(outside)
    outside.write()
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match=r"data\.file"):
        list(Heco(tmp_path / "data", tmp_path / "labels" / "HECO.csv").records())


def test_one_picture_under_two_spellings_comes_once(tmp_path):
    lines = ("0.jpg,1,2,30,40,Fear,,,,,", "images/0.jpg,20,2,50,40,Fear,,,,,")
    records = list(reader_of(tmp_path, *lines).records())
    assert [(one.path, len(one.persons)) for one in records] == [("images/0.jpg", 2)]


# Refusals


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0.jpg,1,2,30,40,Happynes,,,,,", "'Happynes', .*did you mean 'Happiness'"),
        (",1,2,30,40,Fear,,,,,", "has no Image"),
        ("0.jpg,1,2,30,40,Fear,,,,,,more", "more cells than the header"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, reason):
    reader = reader_of(tmp_path, "0.jpg,1,2,30,40,Fear,,,,,", line)
    with pytest.raises(DataError, match=rf"HECO.csv, line 3.*{reason}"):
        list(reader.records())


def test_a_table_without_the_columns_is_refused(tmp_path):
    folder = Folder(tmp_path)
    heco(folder, "Image,xmin,ymin", "0.jpg,1,2")
    with pytest.raises(DataError, match="has no column Category, xmax, ymax"):
        list(get_dataset("heco")(folder.write()).records())


def test_a_table_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    folder = Folder(tmp_path)
    folder.text("HECO.csv", HECO[0].encode() + b"\n\xff.jpg,1,2,30,40,Fear\n")
    with pytest.raises(DataError, match="line 2 is not UTF-8"):
        list(get_dataset("heco")(folder.write()).records())
