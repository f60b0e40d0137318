"""A folder a class: with splits and without, one's own labels, and the sets that come so."""

import os

import pytest

from cache.errors import DataError
from extract.datasets import get_dataset
from extract.prepare import check
from extract.settings import Data
from tests.extract.datasets.made import (
    MIKELS,
    Folder,
    class_folders,
    emo8,
    fi,
    folders,
    made,
    persons,
    plain_folders,
    prepared,
    read,
    ube,
)
from tests.extract.finding import by_size, nobody


def tree(root, *paths: str):
    """A folder with these pictures, each of its own content."""
    folder = Folder(root)
    for number, path in enumerate(paths):
        folder.picture(path, number)
    return folder.write()


# Splits


def test_classes_without_splits_have_them_drawn(tmp_path):
    root = made(plain_folders, tmp_path / "data")
    reader = get_dataset("folders")(root)
    assert (reader.splits, reader.labels, reader.kind) == ((), ("fear", "joy"), "single")
    assert read("folders", root) == {
        "images/fear/002.jpg": ("", ["fear"]),
        "images/fear/deeper/003.PNG": ("", ["fear"]),
        "images/fear/damaged.png": ("", ["fear"]),
        "images/joy/000.jpg": ("", ["joy"]),
        "images/joy/deeper/001.PNG": ("", ["joy"]),
    }
    report, index = prepared("folders", root, tmp_path / "cache")
    assert set(index.splits) <= {"train", "val", "test"}
    assert "seed 0: not official" in report.note


def test_splits_are_known_by_several_names(tmp_path):
    reader = get_dataset("folders")(made(folders, tmp_path))
    assert sorted(reader.splits) == ["test", "train", "val"]
    splits = {r.path.partition("/")[0]: r.persons[0].split for r in reader.records()}
    assert splits == {"Training": "train", "valid": "val", "test": "test"}


@pytest.mark.parametrize(
    ("word", "split"),
    [("TRAIN", "train"), ("validation", "val"), ("dev", "val"), ("Testing", "test")],
)
def test_a_folder_of_a_split_in_other_words(tmp_path, word, split):
    root = tree(tmp_path, f"{word}/joy/1.png", f"{word}/fear/2.png")
    assert {split for split, _ in read("folders", root).values()} == {split}


def test_val_is_drawn_from_train_where_there_is_none(tmp_path):
    paths = [f"{split}/{label}/{n}.png" for n in range(20) for split in ("train", "test")
             for label in ("joy", "fear")]  # fmt: skip
    root = tree(tmp_path / "data", *paths)
    report, index = prepared("folders", root, tmp_path / "cache", split={"val": 0.3})
    splits = {path: one["split"] for path, one in persons(index).items()}
    assert {split for path, split in splits.items() if path.startswith("test")} == {"test"}
    assert set(splits.values()) == {"train", "val", "test"}
    assert "val is 30% of train" in report.note


@pytest.mark.parametrize("inner", ["images", "image", "data", "pictures"])
def test_class_folders_may_lie_in_a_folder_of_the_root(tmp_path, inner):
    root = tree(tmp_path, f"{inner}/train/joy/1.png", f"{inner}/test/fear/2.png")
    assert read("folders", root) == {
        f"{inner}/train/joy/1.png": ("train", ["joy"]),
        f"{inner}/test/fear/2.png": ("test", ["fear"]),
    }


def test_splits_beside_classes_are_refused(tmp_path):
    root = tree(tmp_path, "train/joy/1.png", "fear/2.png")
    with pytest.raises(DataError, match=r"folders of splits \(train\) beside others \(fear\)"):
        get_dataset("folders")(root)


def test_a_folder_without_classes_is_refused(tmp_path):
    root = tree(tmp_path, "1.png", ".hidden/2.png")
    with pytest.raises(DataError, match="has no class folders: set data.root"):
        get_dataset("folders")(root)
    with pytest.raises(DataError, match="there is no folder .*: set data.root to the folders data"):
        get_dataset("folders")(tmp_path / "nowhere")


# Files


def test_hidden_files_are_nothing_and_other_files_are_counted(tmp_path):
    reader = get_dataset("folders")(made(plain_folders, tmp_path))
    assert len(list(reader.records())) == 5
    assert reader.counts == {"files that are no pictures, left out": 1}


def test_a_damaged_picture_is_a_row_with_a_reason(tmp_path):
    _, index = prepared("folders", made(plain_folders, tmp_path / "data"), tmp_path / "cache")
    one = persons(index)["images/fear/damaged.png"]
    assert (one["status"], one["reason"][:13]) == ("unreadable", "not a picture")


def test_equal_bytes_in_two_classes_are_one_person_and_are_said(tmp_path):
    report, index = prepared("folders", made(folders, tmp_path / "data"), tmp_path / "cache")
    other = "persons repeated with other labels (the first ones count)"
    assert report.oddities[other] == 1
    assert report.oddities["pictures with the bytes of another picture, joined"] == 1
    assert persons(index)["Training/fear/twin.png"]["felt"] == {"fear": 1}
    assert (index.person_status == "repeated").sum() == 1


def test_a_name_that_is_not_utf8_is_refused(tmp_path):
    root = tree(tmp_path / "data", "joy/1.png", "fear/2.png")
    (root / "joy" / "1.png").rename(os.fsdecode(bytes(root / "joy") + b"/\xff.png"))
    with pytest.raises(DataError, match="name"):
        prepared("folders", root, tmp_path / "cache")


def test_links_to_folders_are_not_entered(tmp_path):
    root = tree(tmp_path / "data", "joy/1.png", "fear/2.png")
    (root / "joy" / "again").symlink_to(root / "joy")
    assert list(read("folders", root)) == ["fear/2.png", "joy/1.png"]


# Labels


def test_labels_of_ones_own_have_order_and_definitions(tmp_path):
    root = made(folders, tmp_path / "data")
    _, index = prepared("folders", root, tmp_path / "cache")
    assert [tuple(one.values()) for one in index.definitions] == [
        ("joy", "feeling glad"),
        ("fear", "feeling threatened"),
        ("awe", "awe"),
    ]
    assert persons(index)["valid/awe/010.jpg"]["felt"] == {"awe": 1}


def test_a_folder_that_labels_of_ones_own_lack_is_refused(tmp_path):
    root = tree(tmp_path, "joy/1.png", "fear/2.png")
    (root / "labels.yaml").write_text("joy: feeling glad\nfears: feeling threatened\n")
    with pytest.raises(DataError, match="'fear', which is none of .*did you mean 'fears'"):
        list(get_dataset("folders")(root).records())


def test_labels_that_differ_in_a_sign_or_in_case_stay_apart(tmp_path):
    """Spellings are forgiven only where no label is spelt so."""
    names = ("-1", "0", "1", "Joy", "joy")
    root = tree(tmp_path, *(f"{name}/1.png" for name in names))
    assert read("folders", root) == {f"{name}/1.png": ("", [name]) for name in names}


def test_a_folder_that_may_be_misspelt_is_remarked(tmp_path):
    paths = [f"train/joy/{n}.png" for n in range(5)]
    root = tree(tmp_path, *paths, "train/fear/6.png", "train/fera/7.png", "train/jou/8.png")
    found = check(Data(name="folders", root=root))
    (said,) = [warning for warning in found.warnings if "spelt" in warning]
    assert said.startswith("the label 'jou' (1 person) is spelt nearly as 'joy' (5): ")
    assert found.persons_per_label["joy"] == {"train": 5}


def test_labels_of_a_set_that_has_its_own_are_not_remarked(tmp_path, monkeypatch):
    """As fear and tear would be, were they labels of the set."""
    monkeypatch.setattr("extract.datasets.folders.shipped", lambda known: {
        "fear": "feeling threatened", "tear": "feeling sad"})  # fmt: skip
    root = tree(tmp_path, *(f"train/fear/{n}.png" for n in range(5)), "train/tear/6.png")
    found = check(Data(name="fi", root=root))
    assert found.labels == 2 and not any("spelt" in warning for warning in found.warnings)


# The sets that come so


@pytest.mark.parametrize(("name", "maker"), [("fi", fi), ("emo8", emo8)])
def test_sets_with_the_emotions_of_mikels(tmp_path, name, maker):
    root = made(maker, tmp_path)
    reader = get_dataset(name)(root)
    assert reader.labels == MIKELS
    assert {labels[0] for _, labels in read(name, root).values()} == set(MIKELS)
    assert sorted(reader.splits) == (["test", "train"] if name == "emo8" else [])


def test_unbiased_emo_has_six_labels_in_any_case(tmp_path):
    root = made(ube, tmp_path)
    reader = get_dataset("ube")(root)
    assert reader.labels == ("anger", "fear", "joy", "love", "sadness", "surprise")
    assert read("ube", root)["Fear/002.jpg"] == ("", ["fear"])
    assert list(reader.records()) and reader.counts["read as 'fear', spelt 'Fear'"] == 1


@pytest.mark.parametrize("name", ["fi", "ube", "emo8"])
def test_a_folder_that_is_no_class_of_the_set_is_refused(tmp_path, name):
    folder = Folder(tmp_path)
    class_folders(folder, ["anger", "sadnes"])
    with pytest.raises(DataError, match="sadnes has the label 'sadnes', .*did you mean 'sadness'"):
        list(get_dataset(name)(folder.write()).records())


# People


def test_the_whole_picture_stands_for_a_person_who_is_not_found(tmp_path):
    root = tree(tmp_path / "data", "joy/1.png", "fear/2.png")
    _, index = prepared("folders", root, tmp_path / "cache", nobody)
    assert index.boxes.tolist() == [[0, 0, 64, 48]] * 2
    assert index.persons["origin"].to_pylist() == ["whole"] * 2


def test_of_several_people_the_best_has_the_label(tmp_path):
    folder = Folder(tmp_path / "data")
    folder.picture("joy/1.png", 1, (64, 48))
    folder.picture("fear/2.png", 2, (50, 60))
    seen = {
        (64, 48): [((1, 1, 60, 40), 0.5), ((5, 5, 20, 40), 0.8)],
        (50, 60): [((1, 1, 49, 40), 0.2)],  # below people.score
    }
    report, index = prepared("folders", folder.write(), tmp_path / "cache", by_size(seen))
    found = persons(index)
    boxes = {p: [one[side] for side in ("x1", "y1", "x2", "y2")] for p, one in found.items()}
    assert boxes == {"joy/1.png": [5, 5, 20, 40], "fear/2.png": [0, 0, 50, 60]}
    assert report.origins == {"found": 1, "whole": 1}


def test_empty_class_folders_and_pictures_beside_them_are_counted(tmp_path):
    root = tree(tmp_path / "data", "joy/a.png", "fear/b.png", "stray.png")
    (root / "nobody").mkdir()
    counts = check(Data(name="folders", root=root)).oddities
    assert counts["class folders without pictures"] == 1
    assert counts["pictures beside the class folders, left out"] == 1
