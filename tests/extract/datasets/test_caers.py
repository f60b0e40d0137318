"""CAER-S: its lists with faces, its class folders, and what is wrong with either in the wild."""

from collections import Counter
from pathlib import Path

import pytest

from cache.errors import DataError
from cache.index import Index
from extract.datasets import get_dataset
from extract.prepare import prepare
from extract.settings import Data
from tests.extract.datasets.made import (
    Folder,
    caers_lists,
    caers_pictures,
    felt,
    made,
    persons,
    prepared,
    read,
)
from tests.extract.finding import finder, nobody
from tests.shared import shared

# Published: frames of train, of which val is drawn, and of test.
FRAMES = {
    "Anger": (6_856, 2_988),
    "Disgust": (6_890, 2_980),
    "Fear": (6_873, 2_972),
    "Happy": (6_814, 2_990),
    "Neutral": (6_799, 2_985),
    "Sad": (6_910, 2_983),
    "Surprise": (6_824, 2_970),
}


def listed(root: Path, *lines: str, name: str = "train.txt") -> list:
    """The records of a list, without pictures."""
    folder = Folder(root)
    folder.lines(name, lines)
    return list(get_dataset("caers")(folder.write()).records())


# The real lists


def test_the_real_lists_have_the_published_counts():
    reader = get_dataset("caers")(shared("data/caers"))
    found = Counter(
        (felt(reader, one)[0], one.split) for r in reader.records() for one in r.persons
    )
    for name, (train, test) in FRAMES.items():
        assert (found[name, "train"], found[name, "test"]) == (train, test)
    assert sum(found.values()) == 47_966 + 20_868
    assert reader.counts == {
        "faces that begin outside the picture": 98 + 52,
        "read as 'Anger', spelt 'Angry'": 6_856,
    }
    assert reader.note == "CAER-S, revised lists with faces"


def test_val_is_drawn_from_train_of_the_real_lists(tmp_path):
    """Of each list every eighth line."""
    lines = {}
    for part in ("train", "test"):
        text = (shared("data/caers") / f"{part}.txt").read_text()
        lines[part] = text.splitlines(keepends=True)[::8]
        (tmp_path / f"{part}.txt").write_text("".join(lines[part]))
    report = prepare(Data(name="caers", root=tmp_path), tmp_path / "cache")
    frames = {split: statuses["missing"] for split, statuses in report.persons.items()}
    count = len(lines["train"])
    assert frames["test"] == len(lines["test"]) == 2_609
    assert frames["train"] + frames["val"] == count == 5_996
    assert abs(frames["val"] / count - 0.1) < 0.01
    assert report.kind == "single"
    assert "val is 10% of train" in report.note
    index = Index.read(tmp_path / "cache")
    for part, listed in lines.items():
        totals = index.targets[(index.splits == "test") == (part == "test")].sum(axis=0)
        felt = Counter(int(line.split(",")[1]) for line in listed)
        for at, name in enumerate(index.labels):
            assert totals[at] == felt[list(FRAMES).index(name)] > 0


# Both forms


def test_lists_give_class_split_and_face(tmp_path):
    reader = get_dataset("caers")(made(caers_lists, tmp_path))
    one = {record.path: record for record in reader.records()}["train/Sad/0007.png"]
    (person,) = one.persons
    assert (one.split, person.split, felt(reader, person)) == ("train", "train", ["Sad"])
    assert (person.box, person.face) == (None, (20, 10, 40, 30))
    assert (person.annotators, person.votes, person.status) == (1, None, "ok")
    assert reader.splits == ("train", "test")


def test_every_trap_of_the_lists(tmp_path):
    root = made(caers_lists, tmp_path)
    assert read("caers", root) == {
        "train/Anger/0001.png": ("train", ["Anger"]),
        "train/Angry/0002.png": ("train", ["Anger"]),
        "train/Disgust/0003.png": ("train", ["Disgust"]),
        "train/Fear/0004.png": ("train", ["Fear"]),
        "train/Happy/0005.png": ("train", ["Sad"]),
        "train/Neutral/0006.png": ("train", ["Neutral"]),
        "train/Sad/0007.png": ("train", ["Sad"]),
        "train/Surprise/0009.png": ("train", ["Surprise"]),
        "train/Surprise/0010.png": ("train", ["Surprise"]),
        "test/Sad/0001.png": ("test", ["Sad"]),
        "test/Angry/0002.png": ("test", ["Anger"]),
        "test/Disgust/0003.png": ("test", ["Disgust"]),
    }
    reader = get_dataset("caers")(root)
    assert list(reader.records()) and list(reader.records())  # counts are of one reading
    assert reader.counts == {
        "pictures listed below Angry, found below Anger": 1,
        "pictures listed below Anger, found below Angry": 1,
        "read as 'Anger', spelt 'Angry'": 2,
        "pictures whose class is not that of their folder (the class counts)": 1,
        "faces that begin outside the picture": 1,
        "lines without a face": 1,
        "pictures listed twice (the first line counts)": 1,
        "pictures that no list names, left out": 1,
        "files that are no pictures, left out": 1,
    }


def test_class_folders_give_the_label_alone(tmp_path):
    root = made(caers_pictures, tmp_path)
    found = read("caers", root)
    assert len(found) == 11
    assert found["train/Anger/0001.png"] == found["train/Angry/0002.png"] == ("train", ["Anger"])
    assert found["test/Angry/0002.png"] == ("test", ["Anger"])
    assert found["train/Neutral/0008.png"] == ("train", ["Neutral"])
    reader = get_dataset("caers")(root)
    assert all(one.persons[0].face is None for one in reader.records())
    assert reader.note == "CAER-S, class folders"
    spelt, other = "read as 'Anger', spelt 'Angry'", "files that are no pictures, left out"
    assert reader.counts == {spelt: 2, other: 1}


def test_val_is_drawn_from_train_alone_and_by_bytes(tmp_path):
    root = made(caers_lists, tmp_path / "data")
    report, index = prepared("caers", root, tmp_path / "cache", split={"val": 0.5})
    splits = {path: one["split"] for path, one in persons(index).items()}
    assert all((split == "test") == path.startswith("test/") for path, split in splits.items())
    assert set(splits.values()) == {"train", "val", "test"}
    assert "val is 50% of train" in report.note


def test_a_frame_whose_bytes_stand_in_train_and_test_is_said(tmp_path):
    root = made(caers_lists, tmp_path / "data")
    report, _ = prepared("caers", root, tmp_path / "cache", split={"val": 0})
    assert report.oddities["pictures in train and test"] == 1
    assert report.oddities["pictures with the bytes of another picture, joined"] == 1


# Faces


def test_a_face_that_begins_outside_is_clipped_and_one_wholly_outside_left_out(tmp_path):
    root = made(caers_lists, tmp_path / "data")
    report, index = prepared("caers", root, tmp_path / "cache")
    found = persons(index)
    assert found["train/Fear/0004.png"]["face"] == [0, 0, 40, 30]
    assert found["train/Neutral/0006.png"]["face"] is None
    assert found["train/Neutral/0006.png"]["status"] == "ok"
    assert report.oddities["faces clipped to the picture"] == 1
    assert report.oddities["annotated faces that are no box in the picture, left out"] == 1


def test_the_person_is_the_owner_of_the_face(tmp_path):
    root = made(caers_lists, tmp_path / "data")
    data, cache = Data(name="caers", root=root), tmp_path / "cache"
    left, right = (0.0, 0.0, 15.0, 48.0), (16.0, 4.0, 50.0, 48.0)
    look = finder(data, cache, lambda pixels: [(left, 0.9), (right, 0.6)])
    report = prepare(data, cache, finder=look)
    found = persons(Index.read(cache))
    sides = ("x1", "y1", "x2", "y2")
    assert tuple(found["train/Sad/0007.png"][s] for s in sides) == right
    # Without a face the best one has the label.
    assert tuple(found["train/Neutral/0006.png"][s] for s in sides) == left
    assert "people found by yolo26n (about the annotated faces" in report.note


def test_a_face_without_a_person_stands_for_it_or_drops_out(tmp_path):
    root = made(caers_lists, tmp_path / "data")
    _, index = prepared("caers", root, tmp_path / "cache", nobody)
    one = persons(index)["train/Sad/0007.png"]
    assert (one["origin"], one["status"]) == ("face", "ok")
    assert [one[side] for side in ("x1", "y1", "x2", "y2")] == one["face"]
    data, cache = Data(name="caers", root=root), tmp_path / "dropped"
    prepare(data, cache, finder=finder(data, cache, nobody, otherwise="drop"))
    one = persons(Index.read(cache))["train/Sad/0007.png"]
    assert (one["status"], one["reason"]) == (
        "no_person",
        "no person above people.score 0.4 about the annotated face",
    )


# Refusals


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("train/Sad/1.png,7,1,1,9,9", "'7' is no class from 0 to 6"),
        ("train/Sad/1.png,Sad,1,1,9,9", "'Sad' is no class from 0 to 6"),
        ("train/Sad/1.png,-1,1,1,9,9", "'-1' is no class from 0 to 6"),
        ("train/Sad/1.png,0.5,1,1,9,9", "'0.5' is no class from 0 to 6"),
        ("train/Sad/1.png,5,1,1,9", "has 5 cells, not 6"),
        ("train/Sod/1.png,5,1,1,9,9", "has the label 'Sod', .*did you mean 'Sad'"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, reason):
    with pytest.raises(DataError, match=rf"train.txt, line 2.*{reason}"):
        listed(tmp_path, "train/Sad/0.png,5,1,1,9,9", line)


def test_a_list_that_is_not_utf8_is_refused_with_its_line(tmp_path):
    (tmp_path / "train.txt").write_bytes(b"train/Sad/0.png,5,1,1,9,9\ntrain/Sad/\xff.png,5,1\n")
    with pytest.raises(DataError, match="train.txt, line 2 is not UTF-8"):
        list(get_dataset("caers")(tmp_path).records())


def test_empty_lines_and_blanks_about_cells_are_nothing(tmp_path):
    records = listed(tmp_path, "", "train/Sad/0.png, 5 ,1,1,9, 9", "")
    assert [one.persons[0].face for one in records] == [(1, 1, 9, 9)]


def test_a_list_that_is_absent_is_counted(tmp_path):
    folder = Folder(tmp_path)
    folder.lines("test.txt", ["test/Sad/0.png,5,1,1,9,9"])
    reader = get_dataset("caers")(folder.write())
    assert [one.split for one in reader.records()] == ["test"]
    assert reader.counts == {"train.txt absent": 1}


def test_a_folder_that_is_not_caers_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither train.txt and test.txt nor the folders"):
        get_dataset("caers")(tmp_path)


def test_a_class_folder_that_is_none_is_refused(tmp_path):
    folder = Folder(tmp_path)
    folder.picture("train/Bored/1.png", 1)
    with pytest.raises(DataError, match="the label 'Bored', which is none of the labels"):
        list(get_dataset("caers")(folder.write()).records())
