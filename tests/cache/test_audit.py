"""What splits share is found: pictures, persons and copies; and nothing else is accused."""

import csv
import json
from ast import literal_eval
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from cache import audit as module
from cache.audit import EXAMPLES, audit, gaps, leaked_persons
from cache.errors import CacheError, DataError, SettingsError
from cache.index import PERSONS, PICTURES, Index, person_id
from cache.paths import commit_file
from cache.spec import ArraySpec, Row, ViewSpec
from cache.writer import ViewWriter
from tests.shared import shared

WIDTH = 64
BOX = (10.0, 10.0, 110.0, 210.0)
Person = tuple  # picture, split, box, and a status where it is not ok


def write_index(root, people: Sequence[Person], paths: dict | None = None) -> None:
    """An index of `people`; pictures are numbers, their paths `<number>.jpg` unless in `paths`."""
    count = max((picture for picture, *_ in people), default=-1) + 1
    pictures = [
        {"id": f"bytes of {row}", "path": (paths or {}).get(row, f"{row}.jpg"), "status": "ok"}
        for row in range(count)
    ]
    persons = []
    for picture, split, box, *status in people:
        facts = {"id": person_id(f"bytes of {picture}", box), "picture": picture, "split": split}
        sides = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
        more = {"labels": [1.0], "annotators": 1, "status": status[0] if status else "ok"}
        persons.append({**facts, **sides, **more})
    tables = (pa.Table.from_pylist(*made) for made in ((pictures, PICTURES), (persons, PERSONS)))
    Index("made", "", ("joy",), *tables).write(root)


def write_scene(root, features: dict[int, np.ndarray | str], count: int, trained=True) -> None:
    """A scene view of `count` pictures; a word instead of features is a status."""
    spec = ViewSpec(
        "scene",
        "pictures",
        {"features": ArraySpec((WIDTH,))},
        {"made": "scene"},
        [{"network": "made", "trained": trained}],
    )
    writer = ViewWriter(root, spec, [f"bytes of {row}" for row in range(count)], shard_rows=8)
    writer.expect(features)
    for row, values in features.items():
        known = not isinstance(values, str)
        writer.put(row, Row("ok", {"features": values}) if known else Row(values, {}, values))
    writer.close()


def drawn(count: int, copies: dict[int, int] | None = None) -> dict[int, np.ndarray]:
    """Random features as a ReLU leaves them; `copies`: row -> row it is of, with a little noise."""
    rng = np.random.default_rng(0)
    rows = np.maximum(rng.standard_normal((count, WIDTH)), 0)
    for row, of in (copies or {}).items():
        rows[row] = rows[of] + 0.01 * rng.standard_normal(WIDTH)
    return dict(enumerate(rows.astype(np.float16)))


def plain(people_of: dict[str, range]) -> list[Person]:
    """One person a picture."""
    return [(row, split, BOX) for split, rows in people_of.items() for row in rows]


SPLITS = {"train": range(0, 20), "val": range(20, 30), "test": range(30, 40)}


def overlap(found, *splits):
    return next(one for one in found.overlaps if one.splits == splits)


def counts(one):
    return one.equal_pictures, one.equal_boxes, one.near_boxes, one.near_pictures


def test_splits_that_share_nothing(tmp_path):
    write_index(tmp_path, plain(SPLITS))
    write_scene(tmp_path, drawn(40), 40)
    found = audit(tmp_path)
    assert [one.splits for one in found.overlaps] == [
        ("train", "val"),
        ("train", "test"),
        ("val", "test"),
    ]
    for one in found.overlaps:
        assert counts(one) == (0, 0, 0, 0) and one.persons == (0, 0)
        assert not any(one.examples.values())
    assert [(one.split, one.equal_boxes) for one in found.repeats] == [
        ("train", 0),
        ("val", 0),
        ("test", 0),
    ]
    assert found.notes == []
    assert len(leaked_persons(tmp_path, "test")) == 0


def test_a_picture_with_persons_in_two_splits(tmp_path):
    other = (300.0, 10.0, 400.0, 200.0)
    people = [
        (0, "train", BOX),
        (0, "train", other),
        (1, "train", BOX),
        (0, "val", BOX),
        (2, "val", BOX),
        (1, "test", other),
    ]
    write_index(tmp_path, people)
    found = audit(tmp_path)
    one = overlap(found, "train", "val")
    assert counts(one) == (1, 1, 0, None) and one.persons == (2, 1)
    (picture,) = one.examples["equal_pictures"]
    assert picture.rows == (0, 0) and picture.paths == ("0.jpg", "0.jpg") and picture.alike == 1
    (box,) = one.examples["equal_boxes"]
    assert box.rows == (0, 3) and box.alike == 1
    one = overlap(found, "train", "test")
    assert counts(one) == (1, 0, 0, None) and one.persons == (1, 1)
    assert counts(overlap(found, "val", "test")) == (0, 0, 0, None)
    assert leaked_persons(tmp_path, "val").tolist() == [3]
    assert leaked_persons(tmp_path, "test").tolist() == [5]
    assert leaked_persons(tmp_path, "train").tolist() == []


def test_test_leaks_from_val_too_and_val_not_from_test(tmp_path):
    write_index(tmp_path, [(0, "val", BOX), (0, "test", BOX), (1, "train", BOX)])
    assert leaked_persons(tmp_path, "test").tolist() == [1]
    assert leaked_persons(tmp_path, "val").tolist() == []


def test_the_same_path_under_other_bytes_is_the_same_picture(tmp_path):
    people = [(0, "train", BOX), (1, "test", BOX), (2, "test", BOX)]
    write_index(tmp_path, people, paths={0: "a.jpg", 1: "a.jpg"})
    one = overlap(audit(tmp_path), "train", "test")
    assert counts(one) == (1, 1, 0, None)
    assert one.examples["equal_pictures"][0].rows == (0, 1)
    assert leaked_persons(tmp_path, "test").tolist() == [1]


def moved(box, by):
    return tuple(side + by for side in box)


def test_near_boxes_are_told_by_their_iou(tmp_path):
    # Moved right by d, a box 100 wide keeps (100 - d) / (100 + d): 0.961 at 2, 0.942 at 3.
    near, far = (12.0, 10.0, 112.0, 210.0), (13.0, 10.0, 113.0, 210.0)
    people = [
        (0, "train", BOX),
        (0, "val", near),
        (1, "train", BOX),
        (1, "val", far),
        (2, "train", BOX),
        (3, "val", near),
    ]
    write_index(tmp_path, people)
    one = overlap(audit(tmp_path), "train", "val")
    assert counts(one)[:3] == (2, 0, 1)
    (pair,) = one.examples["near_boxes"]
    assert pair.rows == (0, 1) and pair.alike == pytest.approx(98 / 102, abs=1e-4)


def test_near_boxes_come_by_falling_iou_and_the_first_split_first(tmp_path):
    wide = (0.0, 0.0, 1000.0, 100.0)
    people = [(row, "val", wide) for row in range(3)]
    people += [
        (row, "train", (by, 0.0, 1000.0 + by, 100.0)) for row, by in ((0, 5), (1, 1), (2, 9))
    ]
    write_index(tmp_path, people)
    one = overlap(audit(tmp_path), "train", "val")
    assert counts(one)[:3] == (3, 0, 3)
    assert [pair.rows for pair in one.examples["near_boxes"]] == [(4, 1), (3, 0), (5, 2)]


def test_boxes_far_apart_in_both_directions_are_not_near(tmp_path):
    write_index(tmp_path, [(0, "train", BOX), (0, "val", moved(BOX, 5000.0))])
    assert counts(overlap(audit(tmp_path), "train", "val"))[:3] == (1, 0, 0)


def test_two_close_persons_in_both_splits_are_two_equal_boxes_and_no_near_ones(tmp_path):
    close = moved(BOX, 1.0)
    people = [(0, split, box) for split in ("train", "val") for box in (BOX, close)]
    write_index(tmp_path, people)
    found = audit(tmp_path)
    assert counts(overlap(found, "train", "val"))[:3] == (1, 2, 0)
    assert [(one.equal_boxes, one.near_boxes) for one in found.repeats] == [(0, 1), (0, 1)]


def test_repeated_persons_count_once_between_splits(tmp_path):
    people = [
        (0, "train", BOX),
        (0, "train", BOX, "repeated"),
        (0, "train", BOX, "repeated"),
        (0, "val", BOX),
        (0, "val", BOX, "repeated"),
    ]
    write_index(tmp_path, people)
    found = audit(tmp_path)
    assert counts(overlap(found, "train", "val"))[:3] == (1, 1, 0)
    assert [(one.split, one.equal_boxes) for one in found.repeats] == [("train", 2), ("val", 1)]
    assert found.repeats[0].examples["equal_boxes"][0].rows == (0, 1)


def test_a_repeat_is_not_near_once_more(tmp_path):
    people = [(0, "train", BOX), (0, "train", moved(BOX, 1.0)), (0, "train", BOX, "repeated")]
    write_index(tmp_path, people)
    (one,) = audit(tmp_path).repeats
    assert (one.equal_boxes, one.near_boxes) == (1, 1)


def test_what_is_no_box_is_nobodys_equal(tmp_path):
    nan = (float("nan"),) * 4
    empty = (50.0, 50.0, 50.0, 80.0)
    people = [(0, s, box, "bad_box") for s in ("train", "val") for box in (nan, empty)]
    write_index(tmp_path, people)
    assert counts(overlap(audit(tmp_path), "train", "val"))[:3] == (1, 1, 0)  # the empty one


def test_removed_persons_are_no_part_of_it(tmp_path):
    people = [(0, "train", BOX, "removed"), (0, "val", BOX), (1, "train", BOX), (1, "test", BOX)]
    people += [(2, "test", BOX, "removed"), (2, "train", BOX)]
    write_index(tmp_path, people)
    found = audit(tmp_path)
    assert counts(overlap(found, "train", "val"))[:2] == (0, 0)
    assert counts(overlap(found, "train", "test"))[:2] == (1, 1)
    assert leaked_persons(tmp_path, "val").tolist() == []
    assert leaked_persons(tmp_path, "test").tolist() == [3]


@pytest.mark.parametrize("status", ["unlabelled", "repeated", "missing", "unreadable", "bad_box"])
def test_persons_that_nobody_fits_on_are_audited_and_leak_into_no_score(tmp_path, status):
    write_index(tmp_path, [(0, "train", BOX, status), (0, "test", BOX)])
    assert counts(overlap(audit(tmp_path), "train", "test"))[:2] == (1, 1)
    assert leaked_persons(tmp_path, "test").tolist() == []
    write_index(tmp_path, [(0, "train", BOX), (0, "test", BOX, status)])
    assert leaked_persons(tmp_path, "test").tolist() == []


def test_copies_of_other_bytes_are_found_by_their_features(tmp_path):
    write_index(tmp_path, [*plain(SPLITS), (35, "test", moved(BOX, 50))])
    write_scene(tmp_path, drawn(40, {35: 3, 22: 4, 19: 18}), 40)
    found = audit(tmp_path)
    one = overlap(found, "train", "test")
    assert counts(one) == (0, 0, 0, 1) and one.persons == (1, 2)
    (pair,) = one.examples["near_pictures"]
    assert pair.rows == (3, 35) and pair.paths == ("3.jpg", "35.jpg") and pair.alike > 0.99
    assert counts(overlap(found, "train", "val")) == (0, 0, 0, 1)
    assert counts(overlap(found, "val", "test")) == (0, 0, 0, 0)
    assert leaked_persons(tmp_path, "test").tolist() == [35, 40]
    assert leaked_persons(tmp_path, "val").tolist() == [22]
    assert leaked_persons(tmp_path, "test", near=1.0).tolist() == []


def test_every_block_is_compared(tmp_path, monkeypatch):
    """Against the whole product at once, at a threshold that splits the pairs."""
    write_index(tmp_path, plain(SPLITS))
    features = drawn(40, {row: row - 20 for row in range(20, 40)})
    write_scene(tmp_path, features, 40)
    rows = np.stack(list(features.values())).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows[:20] @ rows[30:].T
    least = float(np.quantile(cosines, 0.7))
    monkeypatch.setattr(module, "BLOCK", 3)
    steps = []
    found = audit(tmp_path, least, lambda done, total: steps.append((done, total)))
    one = overlap(found, "train", "test")
    assert one.near_pictures == (cosines >= least).sum() > EXAMPLES
    alike = [pair.alike for pair in one.examples["near_pictures"]]
    assert alike == pytest.approx(np.sort(cosines.ravel())[::-1][:EXAMPLES], abs=1e-3)
    touched = (cosines >= least).any(1).sum(), (cosines >= least).any(0).sum()
    assert one.persons == touched
    total = 7 * 4 + 7 * 4 + 4 * 4
    assert steps == [(number, total) for number in range(1, total + 1)]


def test_near_pictures_that_both_splits_have_count_once(tmp_path):
    people = [*plain({"train": range(20)}), (0, "val", BOX), (1, "val", BOX)]
    write_index(tmp_path, people)
    write_scene(tmp_path, drawn(20, {1: 0}), 20)
    one = overlap(audit(tmp_path), "train", "val")
    assert counts(one) == (2, 2, 0, 1) and one.persons == (2, 2)


def test_a_cache_without_the_scene_view_says_so_and_does_the_rest(tmp_path):
    write_index(tmp_path, [(0, "train", BOX), (0, "test", BOX), (1, "test", BOX)])
    found = audit(tmp_path)
    assert counts(overlap(found, "train", "test")) == (1, 1, 0, None)
    assert len(found.notes) == 1 and "no view 'scene'" in found.notes[0]
    assert found.notes == gaps(tmp_path)


def test_pictures_without_features_are_counted_and_never_near(tmp_path):
    """Failed, not extracted, and appended to the index since: rows of zeros are no likeness."""
    write_index(tmp_path, [*plain(SPLITS), (40, "test", BOX, "removed")])
    features = drawn(38, {36: 2})
    del features[5], features[31]
    write_scene(tmp_path, {**features, 6: "unreadable", 32: "unreadable"}, 38)
    found = audit(tmp_path)
    assert counts(overlap(found, "train", "test")) == (0, 0, 0, 1)
    assert len(found.notes) == 1 and found.notes[0].startswith("6 of 40 pictures")
    assert leaked_persons(tmp_path, "test").tolist() == [36]


def test_random_weights_accuse_nobody(tmp_path):
    write_index(tmp_path, plain(SPLITS))
    write_scene(tmp_path, drawn(40, {35: 3}), 40, trained=False)
    found = audit(tmp_path)
    assert counts(overlap(found, "train", "test")) == (0, 0, 0, None)
    assert len(found.notes) == 1 and "random weights" in found.notes[0]
    assert leaked_persons(tmp_path, "test").tolist() == []


def test_a_network_to_which_all_pictures_are_alike_is_not_asked_for_near_duplicates(tmp_path):
    write_index(tmp_path, plain(SPLITS))
    draw = np.random.default_rng(0)
    told = {row: (5 + draw.normal(size=WIDTH)).astype(np.float16) for row in range(40)}
    write_scene(tmp_path, told, 40)
    assert [one.near_pictures for one in audit(tmp_path).overlaps] == [None, None, None]
    (gap,) = module.gaps(tmp_path)
    assert "near-duplicate pictures were not sought" in gap and "median cosine" in gap


def test_pictures_that_are_all_alike_are_all_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)
    monkeypatch.setattr(module, "FEW", 41)  # so that alike is not taken for not told apart
    write_index(tmp_path, plain(SPLITS))
    write_scene(tmp_path, dict.fromkeys(range(40), np.ones(WIDTH, np.float16)), 40)
    found = audit(tmp_path)
    assert [one.near_pictures for one in found.overlaps] == [200, 200, 100]
    assert found.overlaps[0].persons == (20, 10)
    assert len(found.overlaps[0].examples["near_pictures"]) == EXAMPLES
    assert leaked_persons(tmp_path, "test").tolist() == list(range(30, 40))


def test_features_of_nothing_are_like_nothing(tmp_path):
    write_index(tmp_path, plain(SPLITS))
    zeros = np.zeros(WIDTH, np.float16)
    write_scene(tmp_path, drawn(40) | {4: zeros, 33: zeros}, 40)
    assert overlap(audit(tmp_path), "train", "test").near_pictures == 0


def test_an_empty_cache_and_one_split_alone(tmp_path):
    write_index(tmp_path / "empty", [])
    found = audit(tmp_path / "empty")
    assert found.overlaps == found.repeats == []
    assert len(leaked_persons(tmp_path / "empty", "test")) == 0
    write_index(tmp_path / "one", plain({"test": range(3)}))
    found = audit(tmp_path / "one")
    assert found.overlaps == [] and [one.split for one in found.repeats] == ["test"]
    assert len(leaked_persons(tmp_path / "one", "test")) == 0


def test_the_result_is_plain(tmp_path):
    write_index(tmp_path, [*plain(SPLITS), (0, "test", BOX), (0, "test", BOX, "repeated")])
    write_scene(tmp_path, drawn(40, {35: 3}), 40)
    found = audit(tmp_path).as_dict()
    assert json.loads(json.dumps(found))["overlaps"][1]["near_pictures"] == 1


def test_refusals(tmp_path):
    with pytest.raises(CacheError, match="emocache prepare"):
        audit(tmp_path / "nowhere")
    write_index(tmp_path, plain(SPLITS))
    with pytest.raises(SettingsError, match="near is 1.5"):
        audit(tmp_path, near=1.5)
    with pytest.raises(DataError, match="no split 'tset': .* train, val, test"):
        leaked_persons(tmp_path, "tset")
    write_scene(tmp_path, drawn(40), 40)
    commit_file(tmp_path / "scene.zarr", 2).write_text("{}")
    with pytest.raises(CacheError, match="damaged"):
        audit(tmp_path)


def test_the_real_annotation_shares_376_pictures_and_893_boxes(tmp_path):
    """EMOTIC's CSV release, its index made by hand since the pictures are not at hand."""
    folder = shared("data/emotic_csv")
    rows: dict[str, int] = {}
    people = []
    for split in SPLITS:
        with open(folder / f"{split}.csv", newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file, skipinitialspace=True):
                path = f"{row['Folder']}/{row['Filename']}"
                box = tuple(map(float, literal_eval(row["BBox"])))
                people.append((rows.setdefault(path, len(rows)), split, box, "missing"))
    write_index(tmp_path, people, {row: path for path, row in rows.items()})
    found = audit(tmp_path)
    one = overlap(found, "train", "val")
    assert (one.equal_pictures, one.equal_boxes) == (376, 893)
    assert len(one.examples["equal_boxes"]) == EXAMPLES
    for splits in (("train", "test"), ("val", "test")):
        assert counts(overlap(found, *splits)) == (0, 0, 0, None)
    assert {one.split: one.equal_boxes for one in found.repeats} == {
        "train": 6,
        "val": 0,
        "test": 1,
    }
    assert one.persons == (910, 928)


def test_groups_with_persons_in_two_splits_are_counted(tmp_path):
    """A film of which frames stand in train and in test; one that is in train alone; no group."""
    write_index(tmp_path, plain(SPLITS))
    index = Index.read(tmp_path)
    films = {0: "a", 1: "a", 35: "a", 2: "b", 3: "b"}
    where = index.pictures.column_names.index("group")
    group = pa.array([films.get(row, "") for row in range(40)])
    table = index.pictures.set_column(where, PICTURES.field("group"), group)
    Index("made", "", index.labels, table, index.persons).write(tmp_path)
    found = audit(tmp_path)
    assert overlap(found, "train", "test").groups == 1
    assert overlap(found, "train", "val").groups == overlap(found, "val", "test").groups == 0
