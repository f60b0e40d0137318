"""From annotation to index: counts, statuses, and row numbers that never change."""

import csv
import json
import shutil
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cache.boxes import turned
from cache.errors import DataError, KeyMismatch, SettingsError
from cache.files import sha256_file
from cache.index import Index
from cache.statuses import INDEX
from extract import datasets, images
from extract.datasets import Dataset, dataset, get_dataset
from extract.prepare import Prepared, prepare
from extract.settings import Data
from tests.shared import shared

COLUMNS = ["Folder", "Filename", "Image Size", "BBox", "Categorical_Labels", "Continuous_Labels"]


class Tiny:
    """A CSV data set in a folder, and a cache beside it."""

    def __init__(self, base: Path) -> None:
        self.root, self.cache = base / "data", base / "cache"
        (self.root / "mscoco" / "images").mkdir(parents=True)

    def paint(self, name: str, colour: int, size=(64, 48), **options) -> Path:
        path = self.root / "mscoco" / "images" / name
        Image.new("RGB", size, (colour, 255 - colour, 7)).save(path, **options)
        return path

    def annotate(self, *rows: tuple, size="[64, 48]") -> None:
        """Rows of (split, filename, box, labels[, size])."""
        for split in ("train", "val", "test"):
            with open(self.root / f"{split}.csv", "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(COLUMNS)
                for where, name, box, labels, *other in rows:
                    if where == split:
                        given = other[0] if other else size
                        writer.writerow(["mscoco/images", name, given, str(list(box)),
                                         str(labels.split()), "[5, 5, 5]"])  # fmt: skip

    def prepare(self) -> tuple[Prepared, Index]:
        report = prepare(Data(name="emotic", root=self.root), self.cache)
        json.dumps(report.as_dict(), allow_nan=False)
        return report, Index.read(self.cache)


@pytest.fixture
def tiny(tmp_path) -> Tiny:
    return Tiny(tmp_path)


def statuses(index: Index) -> list[str]:
    return index.person_status.tolist()


# Real data


def test_real_pictures(tmp_path):
    root = shared("data/emotic_pictures")
    report = prepare(Data(name="emotic", root=root), tmp_path)
    assert report.persons == {"train": {"ok": 24}, "val": {"ok": 2}, "test": {"ok": 11}}
    index = Index.read(tmp_path)
    assert (len(index.persons), len(index.pictures)) == (37, 30)
    assert (report.warnings, report.note) == ([], "EMOTIC, CSV release")
    for picture in index.pictures.to_pylist():
        assert picture["id"] == sha256_file(root / picture["path"])
        with Image.open(root / picture["path"]) as image:
            assert (picture["width"], picture["height"]) == image.size
    with open(root / "train.csv", newline="") as file:
        annotated = {(r["Filename"], r["BBox"]) for r in csv.DictReader(file)}
    paths = index.pictures["path"].to_pylist()
    found = {
        (Path(paths[picture]).name, str([int(side) for side in box]))
        for picture, box, split in zip(index.picture_rows, index.boxes, index.splits, strict=True)
        if split == "train"
    }
    assert found == annotated


def test_the_whole_annotation_without_pictures(tmp_path):
    report = prepare(Data(name="emotic", root=shared("data/emotic_csv")), tmp_path)
    assert report.persons == {
        "train": {"missing": 23_266}, "val": {"missing": 3_315}, "test": {"missing": 7_203},
    }  # fmt: skip
    assert report.pictures == {
        "train": {"missing": 16_977}, "val": {"missing": 2_085}, "test": {"missing": 4_388},
    }  # fmt: skip
    means = {"train": 1.96, "val": 6.15, "test": 4.41}
    assert report.labels_per_person == pytest.approx(means, abs=0.005)
    assert report.oddities == {
        "persons repeated": 7,
        "persons repeated with other labels (the first ones count)": 3,
        "pictures in train and val": 376,
        "equal boxes in train and val": 893,
    }
    assert report.warnings[0].startswith("ALL 23074 pictures are missing")
    assert "data.root" in report.warnings[0]


def test_labels_are_written_beside_the_index(tiny):
    tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    tiny.prepare()
    written = json.loads((tiny.cache / "index" / "labels.json").read_text())
    assert [entry["label"] for entry in written] == list(Index.read(tiny.cache).labels)
    assert written[17] == {"label": "Pain", "definition": "physical suffering"}


# Statuses


def test_each_failure_is_a_row_with_a_reason(tiny):
    tiny.paint("ok.png", 1)
    (tiny.root / "mscoco/images/empty.png").touch()
    (tiny.root / "mscoco/images/page.png").write_text("<html>")
    tiny.annotate(
        ("train", "ok.png", (1, 1, 9, 9), "Peace"),
        ("train", "ok.png", (1, 1, 9, 9), "Pain"),
        ("val", "ok.png", (1, 1, 9, 9), "Fear"),
        ("train", "ok.png", (30, 1, 9, 9), "Peace"),
        ("train", "ok.png", (70, 1, 99, 9), "Peace"),
        ("train", "ok.png", (-5, 40, 9, 99), "Peace"),
        ("train", "ok.png", (1, 2), "Peace"),
        ("train", "ok.png", (2, 2, 9, 9), ""),
        ("train", "empty.png", (1, 1, 9, 9), "Peace"),
        ("train", "page.png", (1, 1, 9, 9), "Peace"),
        ("test", "gone.png", (1, 1, 9, 9), "Peace"),
    )
    report, index = tiny.prepare()
    rows = {
        (row["status"], row["reason"])
        for row in index.persons.select(["status", "reason"]).to_pylist()
    }
    assert rows == {
        ("ok", ""),
        ("unlabelled", "no labels"),
        ("repeated", "same picture, box and split as row 0"),
        ("bad_box", "the box (30, 1, 9, 9) is empty or inverted"),
        ("bad_box", "the box (70, 1, 99, 9) lies outside the picture"),
        ("bad_box", "the box is not four numbers"),
        ("unreadable", "the file is empty"),
        ("unreadable", "not a picture in one of JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM"),
        ("missing", "no such file"),
    }
    assert set(statuses(index)) <= set(INDEX)
    assert report.persons == {
        "train": {"ok": 2, "unlabelled": 1, "repeated": 1, "bad_box": 3, "unreadable": 2},
        "val": {"ok": 1},
        "test": {"missing": 1},
    }
    assert report.pictures == {
        "train": {"ok": 1, "unreadable": 2}, "val": {"ok": 1}, "test": {"missing": 1},
    }  # fmt: skip
    assert report.oddities == {
        "persons repeated": 1,
        "persons repeated with other labels (the first ones count)": 1,
        "persons with a bad box": 3,
        "boxes clipped to the picture": 1,
        "persons without labels": 1,
        "pictures in train and val": 1,
        "equal boxes in train and val": 1,
    }
    assert report.warnings == [
        f"1 of 4 pictures are missing below {tiny.root}; the first: mscoco/images/gone.png "
        "(no such file); `emocache cache ls` names all after `prepare`",
        f"2 of 4 pictures are unreadable below {tiny.root}; the first: mscoco/images/empty.png "
        "(the file is empty); `emocache cache ls` names all after `prepare`",
    ]
    clipped = index.persons.filter(np.array(index.boxes[:, 3] == 48)).to_pylist()[0]
    assert (clipped["x1"], clipped["y1"], clipped["x2"], clipped["y2"]) == (0, 40, 9, 48)
    assert index.persons["annotators"].to_pylist().count(0) == 1
    assert index.pictures["split"].to_pylist()[0] == "train+val"
    # Two empty files are two pictures: their bytes say nothing about them.
    assert len(set(index.pictures["id"].to_pylist())) == 4


def test_bomb_is_unreadable(tiny, monkeypatch):
    tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    with monkeypatch.context() as patch:
        patch.setattr(images, "header", partial(images.header, limit=64 * 48 - 1))
        _, index = tiny.prepare()
    assert statuses(index) == ["unreadable"]
    _, index = tiny.prepare()
    assert statuses(index) == ["ok"]


def test_a_sliver_that_the_index_cannot_tell_from_nothing_is_bad(tiny):
    """The index keeps float32: what is left of a box in the picture may have no width there."""
    tiny.paint("a.png", 1)
    tiny.annotate(
        ("train", "a.png", (63.9999999, 1, 200, 9), "Peace"),
        ("train", "a.png", (63.999, 1, 200, 9), "Peace"),
    )
    _, index = tiny.prepare()
    assert statuses(index) == ["bad_box", "ok"]
    assert (
        index.persons["reason"].to_pylist()[0]
        == "the box (64, 1, 200, 9) has no pixel in the picture"
    )
    for box in index.boxes[index.wanted("persons")]:
        assert images.crop(np.zeros((48, 64, 3), np.uint8), tuple(box.tolist())).size


@pytest.mark.parametrize("copies", [1, 2])
def test_labels_that_come_with_a_later_copy_count(tiny, copies):
    """A person annotated first without labels: the row it has takes those of the first copy with
    some."""
    tiny.paint("a.png", 1)
    given = [("train", "a.png", (1, 1, 9, 9), labels) for labels in ("", "Peace", "Fear")]
    tiny.annotate(*given[: 1 + copies])
    report, index = tiny.prepare()
    assert statuses(index) == ["ok"] + ["repeated"] * copies
    assert [name for name, one in zip(index.labels, index.targets[0], strict=True) if one] == [
        "Peace"
    ]
    assert report.oddities["persons without labels, annotated again with some"] == 1
    other = "persons repeated with other labels (the first ones count)"
    assert report.oddities.get(other, 0) == copies - 1


def test_equal_bytes_under_two_names_are_one_picture(tiny):
    shutil.copy(tiny.paint("a.png", 1), tiny.root / "mscoco/images/b.png")
    tiny.annotate(
        ("train", "a.png", (1, 1, 9, 9), "Peace"),
        ("train", "b.png", (1, 1, 9, 9), "Peace"),
        ("test", "b.png", (1, 1, 9, 9), "Peace"),
    )
    report, index = tiny.prepare()
    assert len(index.pictures) == 1
    assert Counter(statuses(index)) == {"ok": 2, "repeated": 1}
    assert report.oddities["pictures with the bytes of another picture, joined"] == 1
    assert report.oddities["equal boxes in train and test"] == 1


# Boxes in pictures of another size or turned


def test_boxes_follow_a_resized_copy_and_refuse_another_shape(tiny):
    tiny.paint("half.png", 1)
    tiny.paint("round.png", 2, (63, 48))  # 640x481 resized by a tenth: 64x48.1
    tiny.paint("other.png", 3)
    tiny.annotate(
        ("train", "half.png", (20, 10, 128, 96), "Peace", "[128, 96]"),
        ("train", "round.png", (100, 100, 200, 200), "Peace", "[640, 481]"),
        ("train", "other.png", (1, 1, 9, 9), "Peace", "[200, 50]"),
    )
    report, index = tiny.prepare()
    assert index.boxes[0].tolist() == [10, 5, 64, 48]
    np.testing.assert_allclose(index.boxes[1], [9.84, 9.98, 19.69, 19.96], atol=0.01)
    assert statuses(index) == ["ok", "ok", "bad_box"]
    reason = index.persons["reason"].to_pylist()[2]
    assert reason == "annotated in 200x50, but the picture has 64x48: another shape"
    assert report.oddities["pictures whose size differs from the annotation"] == 3
    assert report.oddities["boxes scaled to a picture of another size"] == 2


@pytest.mark.parametrize("times", [1, 2], ids=["its size", "twice its size"])
@pytest.mark.parametrize("drawn", ["stored", "upright"])
def test_boxes_follow_exif_rotation(tiny, drawn, times):
    """A white patch in a picture that EXIF turns: the box finds it, however it was annotated, also
    where that was done in a larger copy."""
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[5:15, 10:40] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tiny.root / "mscoco/images/a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    upright = turned((10.0, 5.0, 40.0, 15.0), 6, 64, 48)
    box, size = ((10, 5, 40, 15), (64, 48)) if drawn == "stored" else (upright, (48, 64))
    box, size = ([times * side for side in sides] for sides in (box, size))
    tiny.annotate(("train", "a.png", box, "Peace", str(size)))
    report, index = tiny.prepare()
    assert statuses(index) == ["ok"]
    assert index.pictures.select(["width", "height"]).to_pylist() == [{"width": 48, "height": 64}]
    patch = images.crop(images.read(path).pixels, tuple(index.boxes[0]))
    assert patch.shape == (30, 10, 3) and (patch == 255).all()
    followed = report.oddities.get("boxes turned with a picture's EXIF orientation", 0)
    assert followed == (drawn == "stored")


# Row numbers


def test_preparing_again_changes_nothing(tiny):
    tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"), ("val", "b.png", (1, 1, 9, 9), "Pain"))
    _, first = tiny.prepare()
    before = [(p.name, p.read_bytes()) for p in sorted((tiny.cache / "index").iterdir())]
    report, second = tiny.prepare()
    assert first.digest() == second.digest()
    assert [(p.name, p.read_bytes()) for p in sorted((tiny.cache / "index").iterdir())] == before
    assert report.rows["persons"] == {"new": 0, "kept": 2, "revived": 0, "removed": 0}


def test_rows_leave_return_and_change_in_place(tiny):
    tiny.paint("a.png", 1)
    tiny.paint("b.png", 2)
    a, b = (("train", "a.png", (1, 1, 9, 9), "Peace"), ("train", "b.png", (1, 1, 9, 9), "Pain"))
    c = ("test", "a.png", (5, 5, 20, 20), "Fear")
    tiny.annotate(a, b)
    tiny.prepare()
    tiny.annotate(c, b)
    report, index = tiny.prepare()
    assert statuses(index) == ["removed", "ok", "ok"]
    assert index.persons["reason"].to_pylist()[0] == "no longer in the data set"
    assert report.rows["persons"] == {"new": 1, "kept": 1, "revived": 0, "removed": 1}
    assert "train" in report.persons and report.persons["train"] == {"ok": 1}
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Anger Fear"), b, c)
    report, index = tiny.prepare()
    assert statuses(index) == ["ok", "ok", "ok"]
    assert report.rows["persons"] == {"new": 0, "kept": 2, "revived": 1, "removed": 0}
    labels = [index.labels[i] for i in np.flatnonzero(index.targets[0])]
    assert labels == ["Anger", "Fear"]


def test_missing_picture_that_appears_keeps_its_rows(tiny):
    tiny.annotate(
        ("train", "a.png", (20, 10, 128, 96), "Peace"),
        ("train", "a.png", (20, 10, 128, 96), "Pain"),
        ("val", "a.png", (2, 2, 8, 8), "Fear"),
        ("val", "b.png", (2, 2, 8, 8), "Fear"),
        size="[128, 96]",
    )
    _, before = tiny.prepare()
    assert statuses(before) == ["missing"] * 4
    assert before.pictures["id"].to_pylist()[0] == "path:mscoco/images/a.png"
    tiny.paint("a.png", 1)  # half the annotated size, too
    report, after = tiny.prepare()
    assert statuses(after) == ["ok", "repeated", "ok", "missing"]
    assert report.rows["pictures"]["new"] == report.rows["persons"]["new"] == 0
    assert after.boxes[0].tolist() == [10, 5, 64, 48]
    assert after.pictures["id"].to_pylist()[0] == sha256_file(tiny.root / "mscoco/images/a.png")
    assert set(after.persons["id"].to_pylist()).isdisjoint(before.persons["id"].to_pylist()[:3])
    _, again = tiny.prepare()
    assert again.digest() == after.digest()


def test_picture_that_goes_missing_or_breaks_keeps_its_identity(tiny):
    path = tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    _, before = tiny.prepare()
    data = path.read_bytes()
    for damage, status in ((path.unlink, "missing"), (path.touch, "unreadable")):
        damage()
        _, index = tiny.prepare()
        assert statuses(index) == [status]
        assert index.persons["id"] == before.persons["id"]
    path.write_bytes(data)
    _, after = tiny.prepare()
    assert after.digest() == before.digest()


def test_changed_picture_is_a_new_person(tiny):
    """Other bytes under the same name: features of the old row must not pass for the new one."""
    tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    tiny.prepare()
    tiny.paint("a.png", 200)
    _, index = tiny.prepare()
    assert statuses(index) == ["removed", "ok"]
    assert len(set(index.persons["id"].to_pylist())) == 2


def test_renamed_picture_keeps_its_row(tiny):
    path = tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    tiny.prepare()
    path.rename(path.with_name("b.png"))
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"), ("val", "b.png", (1, 1, 9, 9), "Pain"))
    _, index = tiny.prepare()
    assert index.pictures["path"].to_pylist() == ["mscoco/images/b.png", "mscoco/images/a.png"]
    assert index.pictures["status"].to_pylist() == ["ok", "missing"]
    # The same person in another split keeps the row, whose features are right there as well.
    assert statuses(index) == ["ok", "missing"] and index.splits.tolist() == ["val", "train"]


person_rows = st.tuples(
    st.sampled_from(["train", "val", "test"]),
    st.sampled_from(["a.png", "b.png", "c.png", "gone.png", "broken.png"]),
    st.sampled_from([(1, 1, 9, 9), (5, 5, 20, 20), (-3, 0, 80, 9), (9, 9, 1, 1)]),
    st.sampled_from(["Peace", "Pain Fear", ""]),
)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    histories=st.lists(
        st.tuples(st.lists(person_rows, min_size=1, max_size=8),
                  st.sets(st.sampled_from(["a.png", "b.png", "c.png"]))),
        min_size=2, max_size=4,
    )
)  # fmt: skip
def test_whatever_happens_rows_are_never_moved(tmp_path_factory, histories):
    """Annotation and pictures come and go: rows are appended, complete, and never change person."""
    tiny = Tiny(tmp_path_factory.mktemp("history"))
    (tiny.root / "mscoco/images/broken.png").write_text("no picture")
    earlier: Index | None = None
    for rows, present in histories:
        for colour, name in enumerate(("a.png", "b.png", "c.png")):
            tiny.paint(name, colour)
            if name not in present:
                (tiny.root / "mscoco/images" / name).unlink()
        tiny.annotate(*rows)
        report, index = tiny.prepare()
        live = index.person_status != "removed"
        assert live.sum() == len(rows)
        assert sum(sum(found.values()) for found in report.persons.values()) == len(rows)
        assert Counter(index.splits[live]) == Counter(row[0] for row in rows)
        ids = index.pictures["id"].to_pylist()
        assert len(set(ids)) == len(ids)
        again = prepare(Data(name="emotic", root=tiny.root), tiny.cache)
        assert Index.read(tiny.cache).digest() == index.digest()
        kept = {"new": 0, "kept": len(rows), "revived": 0, "removed": 0}
        assert again.rows["persons"] == kept
        for picture, status in zip(
            index.picture_rows[live], index.person_status[live], strict=True
        ):
            if index.pictures["status"][int(picture)].as_py() != "ok":
                assert status in ("missing", "unreadable")
        if earlier is not None:
            assert len(index.persons) >= len(earlier.persons)
            for row, (old, new) in enumerate(
                zip(earlier.persons.to_pylist(), index.persons.to_pylist(), strict=False)
            ):
                assert old["picture"] == new["picture"]
                name = Path(index.pictures["path"][new["picture"]].as_py()).name
                if old["status"] == "ok":  # what features may have been computed from
                    assert old["id"] == new["id"], row
                    assert earlier.boxes[row].tolist() == index.boxes[row].tolist(), name
        earlier = index


# Other data sets in the same cache


def test_another_data_set_in_the_same_cache(tmp_path):
    one, two = Tiny(tmp_path / "one"), Tiny(tmp_path / "two")
    one.paint("a.png", 1)
    one.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    two.paint("z.png", 9)
    two.annotate(("train", "z.png", (1, 1, 9, 9), "Pain"))
    two.cache = one.cache
    one.prepare()
    _, index = two.prepare()
    assert statuses(index) == ["removed", "ok"]
    report, index = one.prepare()
    assert statuses(index) == ["ok", "removed"]
    assert report.rows["pictures"] == {"new": 0, "kept": 0, "revived": 1, "removed": 1}


def test_other_labels_in_the_same_cache_are_refused(tiny, monkeypatch):
    monkeypatch.setattr(datasets.readers, "_classes", dict(datasets.readers._classes))

    @dataset("moods")
    class Moods(Dataset):
        def __init__(self, root):
            super().__init__(root)
            self.labels = ("good", "bad")
            self.definitions = {"good": "pleasant", "bad": "unpleasant"}
            self.note = ""

        def records(self):
            box = (1.0, 1.0, 9.0, 9.0)
            person = datasets.PersonRecord(box, "train", np.array([1, 0], np.float32))
            yield datasets.PictureRecord("a.png", "train", "", 64, 48, [person])

    tiny.paint("a.png", 1)
    tiny.annotate(("train", "a.png", (1, 1, 9, 9), "Peace"))
    tiny.prepare()
    assert get_dataset("moods") is Moods
    with pytest.raises(KeyMismatch, match=r"26 labels.*moods has 2 \(good, bad.*set cache\.root"):
        prepare(Data(name="moods", root=tiny.root), tiny.cache)
    other = prepare(Data(name="moods", root=tiny.root), tiny.cache.with_name("other"))
    assert (other.labels, other.persons) == (2, {"train": {"missing": 1}})


def test_what_is_absent_is_refused_with_its_setting(tiny):
    with pytest.raises(DataError, match=r"no folder .*: set data\.root"):
        prepare(Data(name="emotic", root=tiny.root / "none"), tiny.cache)
    with pytest.raises(SettingsError, match=r"data\.name.*did you mean 'demo'"):
        prepare(Data(name="demmo", root=tiny.root), tiny.cache)
    tiny.annotate()
    with pytest.raises(DataError, match=r"no persons: see data\.root"):
        tiny.prepare()
    assert not tiny.cache.exists()
