"""COCO-style JSON: persons as annotation tools write them, splits, and every fault of a
document."""

import json
import math
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cache.errors import DataError
from cache.index import Index
from extract.datasets._reading import Faults
from extract.datasets.coco import Coco
from extract.prepare import Prepared, check, prepare
from extract.settings import Data
from tests.shared import shared

SIZE = (64, 48)


def document() -> dict[str, Any]:
    """Two pictures, three boxes, two categories."""
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 64, "height": 48},
            {"id": 2, "file_name": "b.png", "width": 64, "height": 48},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 2, "bbox": [1, 2, 30, 40], "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20]},
            {"id": 3, "image_id": 2, "category_id": 2, "bbox": [0, 0, 64, 48]},
        ],
        "categories": [{"id": 2, "name": "joy"}, {"id": 1, "name": "fear"}],
    }


class Made:
    """A folder with two pictures, and documents in it."""

    def __init__(self, base: Path) -> None:
        self.root, self.cache = base / "data", base / "cache"
        self.root.mkdir(parents=True)
        self.paint("a.png", "b.png")

    def paint(self, *names: str) -> None:
        for name in names:
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", SIZE, (len(name), sum(name.encode()) % 251, 7)).save(path)

    def write(self, found: Any, name="persons.json") -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found if isinstance(found, str) else json.dumps(found))

    def check(self, **data: Any) -> Prepared:
        return check(Data(name="coco", root=self.root, **data))

    def index(self, **data: Any) -> Index:
        prepare(Data(name="coco", root=self.root, **data), self.cache)
        return Index.read(self.cache)

    def faults(self) -> list[str]:
        with pytest.raises(Faults) as refused:
            self.check()
        return [one.removeprefix(f"{self.root}/") for one in refused.value.faults]


@pytest.fixture
def made(tmp_path) -> Made:
    return Made(tmp_path)


def changed(where: str, at: int = 0, **entries: Any) -> dict[str, Any]:
    """The document with other entries in one of its objects."""
    found = document()
    found[where][at] |= entries
    return found


# Real data


def test_real_pictures_give_the_boxes_of_their_json(tmp_path):
    root = shared("data/coco/coco_mini")
    report = prepare(Data(name="coco", root=root), tmp_path)
    assert report.persons == {"train": {"ok": 731}, "val": {"ok": 619}}
    assert sum(sum(found.values()) for found in report.pictures.values()) == 159
    index = Index.read(tmp_path)
    assert (len(index.pictures), len(index.persons), len(index.labels)) == (159, 1350, 80)
    names = [Path(path).name for path in index.pictures["path"].to_pylist()]
    found = sorted(
        (names[row], split, *np.round(box, 1).tolist(), index.labels[target.argmax()])
        for row, split, box, target in zip(
            index.picture_rows, index.splits, index.boxes.astype(float), index.targets, strict=True
        )
    )
    expected = []
    for split in ("train", "val"):
        given_ = json.loads((root / f"annotations/instances_{split}2017.json").read_text())
        images = {one["id"]: one for one in given_["images"]}
        words = {one["id"]: one["name"] for one in given_["categories"]}
        for one in given_["annotations"]:
            if not one["iscrowd"]:
                x, y, w, h = one["bbox"]
                image = images[one["image_id"]]
                box = np.float32(
                    [max(x, 0), max(y, 0), min(x + w, image["width"]),
                     min(y + h, image["height"])]
                )  # fmt: skip
                sides = np.round(box.astype(float), 1).tolist()
                expected.append((image["file_name"], split, *sides, words[one["category_id"]]))
    assert found == sorted(expected)


# What a document says


def test_boxes_are_corners_and_categories_are_labels_by_their_number(made):
    made.write(document())
    index = made.index()
    assert (index.labels, index.kind) == (("fear", "joy"), "single")
    assert index.boxes.tolist() == [[1, 2, 31, 42], [5, 5, 25, 25], [0, 0, 64, 48]]
    assert index.targets.tolist() == [[0, 1], [1, 0], [0, 1]]
    assert index.pictures["path"].to_pylist() == ["a.png", "b.png"]


def test_crowds_are_left_out(made):
    made.write(changed("annotations", iscrowd=1))
    report = made.check()
    assert sum(found["ok"] for found in report.persons.values()) == 2
    assert report.oddities["crowds, left out"] == 1


def test_equal_boxes_of_a_picture_are_one_person_of_several_labels(made):
    made.write(changed("annotations", 1, bbox=[1, 2, 30, 40]))
    index = made.index()
    assert index.kind == "multi"
    assert index.targets.tolist() == [[1, 1], [0, 1]]
    assert made.check().oddities["equal boxes of one picture, made one person"] == 1


def test_equal_boxes_of_two_pictures_are_two_persons(made):
    made.write(changed("annotations", 2, bbox=[1, 2, 30, 40]))
    assert len(made.index().persons) == 3


@pytest.mark.parametrize(
    "said",
    [
        {"labels": ["calm", "awe"]},
        {"attributes": {"emotions": ["calm", "awe"], "occluded": False}},
    ],
    ids=["labels", "emotions"],
)
def test_labels_of_an_annotation_go_before_its_category(made, said):
    made.write(changed("annotations", **said))
    index = made.index()
    assert (index.labels, index.kind) == (("awe", "calm", "fear", "joy"), "multi")
    assert index.targets.tolist()[0] == [1, 1, 0, 0]


@pytest.mark.parametrize("said", [{"labels": "fear"}, {"attributes": {"emotion": "fear"}}], ids=str)
def test_one_word_is_one_label(made, said):
    made.write(changed("annotations", **said))
    index = made.index()
    assert (index.labels, index.kind) == (("fear", "joy"), "single")
    assert index.targets.tolist()[0] == [1, 0]


def test_labels_go_before_attributes(made):
    made.write(changed("annotations", labels=["fear"], attributes={"emotion": "joy"}))
    assert made.index().targets.tolist()[0] == [1, 0]


def test_attributes_without_an_emotion_leave_the_category(made):
    made.write(changed("annotations", attributes={"occluded": True}))
    assert made.index().targets.tolist()[0] == [0, 1]


@pytest.mark.parametrize("nothing", [[], ""], ids=repr)
def test_an_empty_answer_is_a_person_without_labels(made, nothing):
    made.write(changed("annotations", labels=nothing))
    assert made.index().person_status.tolist() == ["unlabelled", "ok", "ok"]


@pytest.mark.parametrize("key", ["labels", "emotions"])
def test_shares_are_a_distribution(made, key):
    found = document()
    for one in found["annotations"]:
        answer = {"joy": 0.25, "fear": 0.75}
        one |= {"labels": answer} if key == "labels" else {"attributes": {key: answer}}
    made.write(found)
    index = made.index()
    assert index.kind == "distribution"
    assert index.targets.tolist() == [[0.75, 0.25]] * 3


@pytest.mark.parametrize(
    "shares",
    [{"joy": 0.5}, {"joy": 2, "fear": -1}, {"joy": math.nan}, {"joy": math.inf},
     {"joy": 10**400}, {"joy": math.nan, "fear": 1.0}],
    ids=["half", "negative", "NaN", "infinite", "huge", "NaN beside 1"],
)  # fmt: skip
def test_shares_that_do_not_sum_to_1_are_a_fault(made, shares):
    found = document()
    for one in found["annotations"]:
        one["labels"] = {"joy": 1.0}
    found["annotations"][1]["labels"] = shares
    made.write(found)
    (fault,) = made.faults()
    assert fault.startswith("persons.json, annotation 2")


def test_labels_beside_shares_are_faults(made):
    made.write(changed("annotations", labels={"joy": 1.0}))
    faults = made.faults()
    assert len(faults) == 2
    assert all("has labels without shares" in fault for fault in faults)


def test_labels_yaml_fixes_order_and_definitions(made):
    made.write(document())
    (made.root / "labels.yaml").write_text("joy: glad\ncalm: still\nfear: afraid\n")
    index = made.index()
    assert index.labels == ("joy", "calm", "fear")
    assert [one["definition"] for one in index.definitions] == ["glad", "still", "afraid"]
    (made.root / "labels.yaml").write_text("joy: glad\n")
    (fault,) = made.faults()
    assert "annotation 2 has the label 'fear', which is none of the labels" in fault


def test_bad_boxes_are_rows_with_a_reason(made):
    boxes = [None, [1, 2, 3], [math.nan, 1, 2, 3], [1, 1, -5, 5], [1, 1, 0, 5], [99, 1, 5, 5],
             ["x", 1, 2, 3], [1, 1, math.inf, 3], {"x": 1}, [10**400, 1, 2, 3], [[1], 1, 2, 3],
             [1e308, 1, 1e308, 5]]  # fmt: skip
    found = document()
    found["annotations"] = [
        {"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)
    ]
    made.write(found)
    index = made.index()
    statuses = [(status, reason) for status, reason in zip(
        index.person_status, index.persons["reason"].to_pylist(), strict=True)]  # fmt: skip
    assert len(statuses) == len(boxes)
    assert {status for status, _ in statuses} <= {"bad_box", "repeated"}
    assert all(reason for _, reason in statuses)


def test_boxes_are_clipped_to_the_picture(made):
    made.write(changed("annotations", bbox=[-5, -5, 500, 20]))
    assert made.index().boxes.tolist()[0] == [0, 0, 64, 15]


# Files and splits


def one_of(name: str, at: int = 1) -> dict[str, Any]:
    """A document of one picture and one person."""
    return {
        "images": [{"id": at, "file_name": name, "width": 64, "height": 48}],
        "annotations": [{"id": at, "image_id": at, "category_id": 1, "bbox": [1, 1, 9, 9]}],
        "categories": [{"id": 1, "name": "joy"}],
    }


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        ({"annotations/instances_train2017.json": "train2017/x.png",
          "annotations/instances_val2017.json": "val2017/y.png"}, ["train", "val"]),
        ({"train/_annotations.coco.json": "train/x.png",
          "valid/_annotations.coco.json": "valid/y.png",
          "test/_annotations.coco.json": "test/z.png"}, ["test", "train", "val"]),
        ({"my-training.json": "x.png", "my_test.json": "y.png"}, ["test", "train"]),
    ],
    ids=["coco", "roboflow", "names"],
)  # fmt: skip
def test_splits_are_those_of_file_or_folder(made, files, splits):
    for at, (file, picture) in enumerate(files.items()):
        made.paint(picture)
        made.write(one_of(Path(picture).name, at), file)
    index = made.index(split={"val": 0, "test": 0})
    assert sorted(index.splits) == splits
    assert sorted(index.pictures["path"].to_pylist()) == sorted(files.values())
    assert set(index.person_status) == {"ok"}


def test_without_a_word_for_it_splits_are_drawn(made):
    """A training camp is no split, nor is the word in another one."""
    made.write(one_of("a.png"), "constrained.json")
    reader = Coco(made.root)
    assert reader.splits == () and next(iter(reader.records())).split == ""


def test_data_file_names_one_of_several(made):
    made.write(one_of("a.png"), "one.json")
    made.write(one_of("b.png"), "more/two.json")
    assert made.index(file=Path("more/two.json")).pictures["path"].to_pylist() == ["b.png"]
    for wrong in ("none.json", "../data/one.json", "more"):
        with pytest.raises(DataError, match=r"there is no .*set data\.file"):
            made.check(file=Path(wrong))


def test_a_folder_without_json_is_refused(made):
    with pytest.raises(DataError, match=r"has no JSON.*set data\.root or data\.file"):
        made.check()


def test_a_picture_of_two_files_keeps_the_split_of_the_first(made):
    made.write(one_of("a.png"), "test.json")
    again = one_of("a.png")
    again["annotations"][0]["bbox"] = [5, 5, 9, 9]
    made.write(again, "train.json")
    report = made.check()
    assert report.persons == {"test": {"ok": 2}}
    assert report.oddities["pictures in two files (the first one's split counts)"] == 1


def test_other_categories_in_a_second_file_are_a_fault(made):
    made.write(one_of("a.png"), "test.json")
    made.write(one_of("b.png", 2) | {"categories": [{"id": 1, "name": "fear"}]}, "train.json")
    assert made.faults() == ["train.json has other categories than the file before it"]


# Faults of a document


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (changed("annotations", image_id=7), "annotation 1 is of the image 7, which is not there"),
        (changed("annotations", image_id=None), "annotation 1 is of the image None"),
        (changed("annotations", image_id=[1]), "annotation 1 is of the image [1]"),
        (changed("annotations", image_id={"a": 1}), "annotation 1 is of the image {'a': 1}"),
        (changed("annotations", image_id="1"), "annotation 1 is of the image"),
        (changed("annotations", category_id=9), "annotation 1 has the category 9, which is not"),
        (changed("annotations", category_id=None), "annotation 1 has the category None"),
        (changed("annotations", category_id=[2]), "annotation 1 has the category [2]"),
        (changed("annotations", category_id={}), "annotation 1 has the category {}"),
        (changed("annotations", id=2), "annotations[1] has the id 2 of another"),
        (changed("annotations", id=[1]), "annotations[0] has no id or no image_id"),
        (changed("annotations", id=1.5), "annotations[0] has no id or no image_id"),
        (changed("images", id=2), "images[1] has the id 2 of another"),
        (changed("images", id=None), "images[0] has no id or no file_name"),
        (changed("images", id=True), "images[0] has no id or no file_name"),
        (changed("images", file_name=None), "images[0] has no id or no file_name"),
        (changed("images", file_name=["a.png"]), "images[0] has no id or no file_name"),
        (changed("categories", id=1), "categories[1] has the id 1 of another"),
        (changed("categories", name=None), "categories[0] has no id or no name"),
        (changed("annotations", labels=5), "annotation 1"),
        (changed("annotations", labels=[1, 2]), "annotation 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_what_does_not_fit_together_is_a_fault(made, found, said):
    made.write(found)
    faults = made.faults()
    assert any(said in fault for fault in faults), faults
    assert all(fault.startswith("persons.json, ") for fault in faults)


@pytest.mark.parametrize("what", ["images", "annotations", "categories"])
@pytest.mark.parametrize("entry", [None, 7, "x", [], True], ids=repr)
def test_an_entry_that_is_no_object_is_a_fault(made, what, entry):
    found = document()
    found[what].append(entry)
    made.write(found)
    (fault,) = made.faults()
    assert fault.startswith(f"persons.json, {what}[{len(found[what]) - 1}] has no id")


def test_all_faults_are_gathered(made):
    found = document()
    for one in found["annotations"]:
        one["image_id"] = 99
    found["annotations"].append(4)
    made.write(found)
    assert len(made.faults()) == 4


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "{}", '{"images": [], "annotations": {}, "categories": []}',
     '{"images": ' + "[" * 100_000, "7" * 10_000],
    ids=["empty", "cut", "null", "list", "object", "lists", "nested", "number"],
)  # fmt: skip
def test_what_is_no_document_is_refused(made, text):
    made.write(text)
    with pytest.raises(DataError, match=r"persons\.json (is no JSON|has not the lists)"):
        made.check()


def test_a_document_that_is_not_text_is_refused(made):
    (made.root / "persons.json").write_bytes(b"\xff\xfe\x00\xd8\x00")
    with pytest.raises(DataError, match=r"is no JSON that can be read"):
        made.check()


@pytest.mark.parametrize("where", ["file_name", "name", "labels", "bbox", "image_id"])
@pytest.mark.parametrize("depth", [100, 900, 940, 960, 970, 980, 990])
def test_deep_nesting_is_read_or_refused(made, where, depth):
    nested = "[" * depth + "]" * depth
    what = {"file_name": "images", "name": "categories"}.get(where, "annotations")
    text = json.dumps(changed(what, **{where: "NESTED"})).replace('"NESTED"', nested)
    made.write(text)
    try:
        made.check()
    except DataError as error:
        assert str(error)


@pytest.mark.parametrize("side", ["width", "height"])
@pytest.mark.parametrize("name", ["a.png", "gone.png"])
@pytest.mark.parametrize("value", [math.inf, math.nan, -1, 0, "x", None, 5e9, 10**400],
                         ids=["inf", "NaN", "-1", "0", "x", "None", "5e9", "1e400"])  # fmt: skip
def test_sizes_that_no_picture_has_do_not_stop_the_others(made, side, name, value):
    found = changed("images", **{side: value, "file_name": name})
    if value == 5e9:
        found["images"][0] |= {"width": value, "height": value}
    made.write(found)
    try:
        report = made.check()
    except DataError as error:
        assert "images[0]" in str(error)
        return
    assert sum(sum(found.values()) for found in report.persons.values()) == 3


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/etc/passwd", "..\\a.png", "x/../../a.png", "a\0.png", ".", "", "n" * 300,
     "n" * 5000, "d/" * 3000, "\ud800.png"],
    ids=["up", "absolute", "backslash", "inner", "NUL", "root", "nothing", "long", "very long",
         "deep", "half"],
)  # fmt: skip
def test_a_file_name_that_leads_nowhere_is_a_row_or_a_fault(made, name):
    made.write(changed("images", file_name=name))
    try:
        index = made.index()
    except DataError as error:
        assert "images[0]" in str(error)
        return
    assert index.person_status.tolist()[2] == "ok"
    assert not {"ok"} & set(index.person_status.tolist()[:2])


def test_half_a_character_in_a_name_is_a_fault(made):
    made.write(changed("categories", name="\ud800"))
    with pytest.raises(DataError):
        made.index().digest()


# Any document

ODD = st.sampled_from(
    [None, True, False, 0, 1, 2, -1, 1.5, math.nan, math.inf, 1e308, 10**400, 5 * 10**9, "", "joy",
     "1", "a.png", "b.png", "../a.png", "x" * 300, [], {}, [1], {"joy": 1}, {"joy": math.nan},
     ["joy"], ["joy", "fear"], [1, 1, 5, 5], [1, 1, math.nan, 5], [[1]], "\0", "\ud800"]
).map(deepcopy)  # fmt: skip
PLACES = [
    (what, at, key)
    for what, some in document().items()
    for at, one in enumerate(some)
    for key in [*one, "labels", "attributes", None]
]


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(PLACES), ODD), max_size=4))
def test_any_document_is_read_or_refused(made, changes):
    """Values anywhere in a sound document replaced by others."""
    found = deepcopy(document())
    for (what, at, key), value in changes:
        if key is None:
            found[what][at] = value
        elif isinstance(found[what][at], dict):
            found[what][at][key] = value
    made.write(found)
    try:
        report = made.check()
    except DataError as error:
        assert str(error)
        return
    reader = Coco(made.root)
    for record in reader.records():
        for person in record.persons:
            assert np.isfinite(person.labels).all()
    assert report.labels == len(reader.labels)


WHOLE = st.recursive(
    ODD, lambda some: st.lists(some, max_size=3) | st.dictionaries(
        st.sampled_from(["images", "annotations", "categories", "id", "name"]), some, max_size=3),
    max_leaves=6,
)  # fmt: skip


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.fixed_dictionaries({n: WHOLE for n in ("images", "annotations", "categories")}) | WHOLE)
def test_any_json_is_read_or_refused(made, found):
    made.write(found)
    with pytest.raises(DataError):  # nothing in it is a person
        made.check()


# What is left unread is said


def test_an_attribute_that_is_not_read_and_a_file_that_is_not_are_counted(made):
    found = document()
    found["annotations"][0]["attributes"] = {"mood": "joy", "occluded": False}
    made.write(found, "annotations/instances_train.json")
    made.write(document(), "annotations/more.json")
    counts = made.check().oddities
    assert counts["annotations whose attribute mood is not read"] == 1
    assert counts["annotations/more.json not read (see data.file)"] == 1


def test_a_heading_over_the_categories_is_no_label(made):
    """As Roboflow writes it: id 0, without annotations, the supercategory of the others."""
    found = document()
    for one in found["categories"]:
        one["supercategory"] = "moods"
    names = [one["name"] for one in found["categories"]]
    found["categories"].insert(0, {"id": 0, "name": "moods", "supercategory": "none"})
    made.write(found)
    assert made.check().labels == len(names) and "moods" not in made.index().labels


def test_a_category_that_says_only_who_is_no_label(made):
    """One of three has no emotion: unlabelled, and not the emotion `person`."""
    found = document()
    found["categories"] = [{"id": 2, "name": "person"}, {"id": 1, "name": "face"}]
    made.write(found)
    with pytest.raises(DataError, match=r"category \['person'\], which is no emotion.*`emotion`"):
        made.check()
    for one, mood in zip(found["annotations"], ("joy", None, "fear"), strict=True):
        one["attributes"] = {"emotion": mood} if mood else {}
    made.write(found)
    index = made.index()
    assert index.labels == ("fear", "joy")
    assert index.person_status.tolist() == ["ok", "unlabelled", "ok"]
