"""EmoSet: lists of two forms, and annotations whose attributes are kept."""

import json

import pytest

from cache.errors import DataError
from extract.datasets import get_dataset
from tests.extract.datasets.made import MIKELS, Folder, emoset, made, prepared, read


def listed(root, *rows, annotation: str | bytes = "{}"):
    """The reader of a train.json with these rows, and one annotation, a.json."""
    folder = Folder(root)
    folder.picture("a.jpg", 1)
    folder.text("a.json", annotation)
    folder.json("train.json", list(rows))
    return get_dataset("emoset")(folder.write())


def test_lists_of_three_and_of_four_columns(tmp_path):
    root = made(emoset, tmp_path)
    reader = get_dataset("emoset")(root)
    assert (reader.labels, reader.kind) == (MIKELS, "single")
    assert read("emoset", root) == {
        "image/amusement/0.jpg": ("train", ["amusement"]),
        "image/anger/1.jpg": ("train", ["anger"]),
        "image/awe/2.jpg": ("train", ["awe"]),
        "image/contentment/3.jpg": ("train", ["contentment"]),
        "gone.jpg": ("train", ["sadness"]),
        "image/disgust/4.jpg": ("val", ["disgust"]),
        "image/excitement/5.jpg": ("test", ["excitement"]),
    }


def test_a_picture_in_two_lists_or_twice_in_one_counts_once(tmp_path):
    reader = get_dataset("emoset")(made(emoset, tmp_path))
    assert len(list(reader.records())) == 7
    assert reader.counts["pictures listed twice (the first entry counts)"] == 2


def test_attributes_are_kept_as_json_of_the_picture(tmp_path):
    report, index = prepared("emoset", made(emoset, tmp_path / "data"), tmp_path / "cache")
    said = {one["path"]: one["attributes"] for one in index.pictures.to_pylist()}
    kept = {"scene": "beach", "object": ["dog"], "brightness": 0.5}
    assert json.loads(said["image/awe/2.jpg"]) == kept
    assert json.loads(said["image/disgust/4.jpg"]) == kept
    assert said["image/amusement/0.jpg"] == said["image/anger/1.jpg"] == said["gone.jpg"] == ""
    # Damaged, missing, and missing with its picture.
    assert report.oddities["annotations that cannot be read, without attributes"] == 3
    statuses = {one["path"]: one["status"] for one in index.pictures.to_pylist()}
    assert statuses.pop("gone.jpg") == "missing" and set(statuses.values()) == {"ok"}


@pytest.mark.parametrize(
    "annotation",
    ["", "[1]", '"text"', "7", "null", "{", b"\xff\xfe{}", "[" * 100_000],
    ids=["empty", "list", "text", "number", "null", "open", "not UTF-8", "deep"],
)
def test_a_damaged_annotation_is_counted(tmp_path, annotation):
    reader = listed(tmp_path, ["awe", "a.jpg", "a.json"], annotation=annotation)
    (record,) = reader.records()
    assert record.attributes == {}
    assert reader.counts["annotations that cannot be read, without attributes"] == 1


def test_attributes_that_say_nothing_are_left_out(tmp_path):
    said = {"scene": None, "object": [], "facial_expression": "", "brightness": 0}
    reader = listed(tmp_path, ["awe", "a.jpg", "a.json"], annotation=json.dumps(said))
    (record,) = reader.records()
    assert record.attributes == {"object": [], "brightness": 0}


def test_what_is_no_json_number_does_not_reach_the_index(tmp_path):
    listed(tmp_path / "data", ["awe", "a.jpg", "a.json"], annotation='{"brightness": NaN}')
    _, index = prepared("emoset", tmp_path / "data", tmp_path / "cache")
    assert "NaN" not in index.pictures["attributes"].to_pylist()[0]


@pytest.mark.parametrize("spelt", ["../secret.json", "{outside}/secret.json", "link/secret.json"])
def test_an_annotation_out_of_the_root_is_not_read(tmp_path, spelt):
    (tmp_path / "secret.json").write_text('{"scene": "secret"}')
    path = spelt.format(outside=tmp_path)
    reader = listed(tmp_path / "data", ["awe", "a.jpg", path])
    (tmp_path / "data" / "link").symlink_to(tmp_path)
    (record,) = reader.records()
    assert record.attributes == {}
    assert reader.counts["annotations that cannot be read, without attributes"] == 1


def test_a_picture_out_of_the_root_is_not_read(tmp_path):
    listed(tmp_path / "data", ["awe", "../b.jpg", "a.json"])
    outside = Folder(tmp_path)
    outside.picture("b.jpg", 2)
    outside.write()
    _, index = prepared("emoset", tmp_path / "data", tmp_path / "cache")
    assert index.person_status.tolist() == ["unreadable"]


def test_a_list_that_is_absent_is_counted(tmp_path):
    root = made(emoset, tmp_path)
    (root / "val.json").unlink()
    reader = get_dataset("emoset")(root)
    assert {record.split for record in reader.records()} == {"train", "test"}
    assert reader.counts["val.json absent"] == 1


# Refusals


@pytest.mark.parametrize(
    "row", [["awe", "a.jpg"], ["awe", "1", "a.jpg", "a.json", "x"], ["awe", 1, "a.json"], "awe"]
)
def test_an_entry_of_another_form_is_refused_with_its_number(tmp_path, row):
    reader = listed(tmp_path, ["awe", "a.jpg", "a.json"], row)
    with pytest.raises(DataError, match=r"entry 2 is not \[emotion, picture, annotation\]"):
        list(reader.records())


def test_an_unknown_emotion_is_refused_with_the_nearest(tmp_path):
    reader = listed(tmp_path, ["sadnes", "a.jpg", "a.json"])
    with pytest.raises(DataError, match="entry 1 has the label 'sadnes', .*did you mean 'sadness'"):
        list(reader.records())


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{}", "is no list of pictures"), ("[", "is no JSON"), ("[" * 100_000, "is no JSON")],
    ids=["object", "open", "deep"],
)
def test_a_list_that_is_none_is_refused(tmp_path, text, reason):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(DataError, match=f"train.json {reason}"):
        list(get_dataset("emoset")(tmp_path).records())


def test_a_name_that_no_file_can_have_is_refused(tmp_path):
    listed(tmp_path / "data", ["awe", "\ud800.jpg", "a.json"])
    with pytest.raises(DataError, match="name"):
        prepared("emoset", tmp_path / "data", tmp_path / "cache")


def test_a_folder_that_is_not_emoset_is_refused(tmp_path):
    with pytest.raises(DataError, match="none of train.json, val.json and test.json"):
        get_dataset("emoset")(tmp_path)
