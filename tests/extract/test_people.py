"""Who a picture without a box is of: the rules; and looking is done once, and survives a kill."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cache.boxes import iou
from cache.check import verify
from cache.errors import KeyMismatch, SettingsError
from cache.index import Index
from cache.manifest import read_manifest
from cache.settings import Cache
from cache.statuses import STATUS
from cache.store import open_view
from extract.detectors import Detections
from extract.loaded import Networks
from extract.people import Detected, choose, owner, people_views, persons_of
from extract.plan import make_plan
from extract.prepare import prepare
from extract.repair import repair
from extract.settings import Data, Extract, Head, Objects, People
from extract.views import Head as HeadView
from extract.views import Objects as ObjectsView
from extract.views import Subject
from tests.extract.finding import Stubs, finder, nobody
from tests.networks import real
from tests.shared import shared

SIZE = (200, 100)
SMALL, LARGE, MIDDLE = (10, 10, 30, 50), (120, 5, 190, 98), (85, 30, 115, 75)
PEOPLE = Detected(np.array([SMALL, MIDDLE, LARGE], np.float32), np.array([0.9, 0.8, 0.7]))
NOBODY = Detected(np.zeros((0, 4), np.float32), np.zeros(0))


def chosen(people=PEOPLE, faces=None, face=None, **settings):
    return choose(people, faces, People(**settings), SIZE, face)


# The rules


@pytest.mark.parametrize(
    ("rule", "box"), [("best", SMALL), ("largest", LARGE), ("central", MIDDLE), ("face", LARGE)]
)
def test_each_rule_takes_another_person(rule, box):
    assert chosen(choose=rule).box == box and chosen(choose=rule).origin == "found"


def test_the_owner_of_the_largest_face_is_taken():
    faces = Detected(
        np.array([(14, 12, 22, 20), (95, 35, 107, 47), (1, 60, 90, 99)], np.float32),
        np.array([0.9, 0.8, 0.3]),
    )
    assert chosen(choose="face", faces=faces).box == MIDDLE
    # The largest is sure enough now, but no one's: the next one counts.
    assert chosen(choose="face", faces=faces, face_score=0.2).box == MIDDLE
    assert chosen(choose="face", faces=NOBODY).box == LARGE


def test_only_sure_ones_are_chosen_from():
    assert chosen(choose="largest", score=0.75).box == MIDDLE
    assert chosen(choose="largest", score=0.95).origin == "whole"


def test_where_nobody_is_found_the_whole_picture_stands_for_one_or_none():
    whole = chosen(NOBODY)
    assert (whole.box, whole.origin, whole.status) == ((0, 0, 200, 100), "whole", "ok")
    dropped = chosen(NOBODY, otherwise="drop")
    assert dropped.box is None and dropped.status == "no_person"
    assert dropped.reason == "no person above people.score 0.4"


def test_about_an_annotated_face_its_owner_is_the_person_whatever_the_rule():
    face = (95.0, 35.0, 107.0, 47.0)
    for rule in ("best", "largest", "central", "face"):
        assert chosen(face=face, choose=rule).box == MIDDLE
    lone = (40.0, 80.0, 60.0, 99.0)
    assert (chosen(face=lone).box, chosen(face=lone).origin) == (lone, "face")
    dropped = chosen(face=lone, otherwise="drop")
    assert dropped.status == "no_person" and "about the annotated face" in dropped.reason


def test_of_boxes_that_hold_a_face_the_smallest_owns_it():
    adult, child = (0, 0, 100, 200), (30, 80, 70, 190)
    boxes = np.array([adult, child, (300, 0, 400, 200)], np.float32)
    assert owner((40, 90, 60, 110), boxes) == 1
    assert owner((40, 10, 60, 30), boxes) == 0
    assert owner((90, 10, 130, 30), boxes) is None  # a quarter of it inside
    assert owner((88, 10, 108, 30), boxes) == 0  # 0.6 of it
    assert owner((1, 1, 2, 2), np.zeros((0, 4))) is None


def test_boxes_are_clipped_and_those_outside_never_chosen():
    people = Detected(
        np.array([(-50, -50, -10, -10), (150, 50, 300, 200)], np.float32), np.array([0.9, 0.8])
    )
    assert chosen(people).box == (150, 50, 200, 100)


class Twice:
    name, classes = "twice", ("cat", "person")


def test_one_person_reported_twice_is_one():
    boxes = np.array([(0, 0, 10, 20), (0, 0, 10, 21), (0, 0, 10, 20), (50, 0, 60, 20)], np.float32)
    found = Detections(boxes, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.array([1, 1, 0, 1]))
    people = persons_of(found, Twice(), "people.detector")
    assert people.scores.tolist() == pytest.approx([0.9, 0.6])


def test_a_detector_without_people_is_refused():
    class Cats(Twice):
        classes = ("cat",)

    found = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int))
    with pytest.raises(SettingsError, match=r"people\.detector: twice does not know the class per"):
        persons_of(found, Cats(), "people.detector")


# In `prepare`


def noise(path: Path, seed: int, size=SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def place(tmp_path):
    """Six pictures in class folders, no boxes."""
    for number in range(6):
        noise(tmp_path / "data" / ("joy" if number % 2 else "calm") / f"{number}.png", number)
    return tmp_path


def data(place, **more) -> Data:
    return Data(name="folders", root=place / "data", **more)


def both(pixels):
    return [(SMALL, 0.9), (LARGE, 0.7)]


def made(place, people=both, faces=nobody, data_of=None, **settings):
    look = finder(data_of or data(place), place / "cache", people, faces, **settings)
    done = prepare(look.data, place / "cache", finder=look)
    return done, Index.read(place / "cache"), look


def test_people_are_found_and_said_to_be(place):
    done, index, _ = made(place)
    assert done.origins == {"found": 6} and index.persons["origin"].to_pylist() == ["found"] * 6
    assert (index.boxes == np.array(SMALL)).all()
    assert "people found by yolo26n (choose best)" in index.note
    assert open_view(place / "cache", "people").done.sum() == 6
    assert verify(place / "cache").whole and read_manifest(place / "cache")["views"]["people"]


def test_looking_is_done_once(place):
    _, _, look = made(place)
    assert look.networks.people.pictures == 6
    _, _, again = made(place)
    assert again.networks.people.pictures == 0
    noise(place / "data/joy/new.png", 99)
    _, index, third = made(place)
    assert third.networks.people.pictures == 1 and len(index.persons) == 7


def test_another_rule_looks_at_nothing_again_and_brings_features_back(place):
    """Persons that another rule chose keep their rows, and are back when the rule is."""
    _, before, _ = made(place)
    done, index, look = made(place, choose="largest")
    assert look.networks.people.pictures == 0
    assert done.rows["persons"] == {"new": 6, "kept": 0, "revived": 0, "removed": 6}
    assert index.person_status.tolist() == ["removed"] * 6 + ["ok"] * 6
    done, index, _ = made(place)
    assert done.rows["persons"] == {"new": 0, "kept": 0, "revived": 6, "removed": 6}
    assert index.ids("persons")[:6] == before.ids("persons")


def test_another_detector_looks_at_everything_again(place):
    made(place)
    _, _, look = made(place, detector="yolo11n")
    assert look.networks.people.pictures == 6


def test_faces_are_sought_only_for_the_rule_that_needs_them(place):
    _, _, look = made(place, faces=lambda pixels: [((130, 10, 150, 30), 0.9)])
    assert look.networks.faces.pictures == 0 and not (place / "cache/faces.zarr").exists()
    _, index, look = made(place, faces=lambda pixels: [((130, 10, 150, 30), 0.9)], choose="face")
    assert look.networks.faces.pictures == 6
    assert (index.boxes[index.person_status == "ok"] == np.array(LARGE)).all()
    assert "faces by yolo11m-face" in index.note


def test_nobody_found_is_the_whole_picture_or_a_row_that_drops_out(place):
    done, index, _ = made(place, people=nobody)
    assert done.origins == {"whole": 6}
    assert (index.boxes == np.array((0, 0, *SIZE))).all()
    done, index, _ = made(place, people=nobody, otherwise="drop")
    live = index.person_status != "removed"
    assert set(index.person_status[live]) == {"no_person"}
    assert "no person above people.score 0.4" in index.persons["reason"].to_pylist()


def test_a_kill_while_looking_loses_what_was_not_committed_and_nothing_else(place, monkeypatch):
    """The pictures that were looked at before are not looked at again; the index is whole."""
    seen = []

    def stops(pixels):
        if len(seen) == 4:
            raise KeyboardInterrupt
        seen.append(1)
        return both(pixels)

    look = finder(data(place), place / "cache", stops)
    look = type(look)(
        look.settings, look.data, Cache(root=place / "cache", shard_rows=8),
        Extract(readers=1, batch=2), look.networks,
    )  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        prepare(look.data, place / "cache", finder=look)
    half = Index.read(place / "cache")
    assert len(half.pictures) == 6 and len(half.persons) == 0 and "was stopped here" in half.note
    done, index, again = made(place)
    assert done.origins == {"found": 6} and "stopped" not in index.note
    assert again.networks.people.pictures == 2
    assert verify(place / "cache").whole


def test_a_picture_that_only_decoding_finds_damaged_is_a_row_with_its_reason(place):
    path = place / "data/calm/0.png"
    path.write_bytes(path.read_bytes()[:2000])
    done, index, _ = made(place)
    bad = index.person_status == "unreadable"
    assert bad.sum() == 1 and done.origins == {"found": 5}
    assert "damaged or truncated" in index.persons["reason"][int(np.flatnonzero(bad)[0])].as_py()
    code = open_view(place / "cache", "people").status
    assert (code == STATUS["unreadable"]).sum() == 1


def test_a_damaged_index_is_mended_without_looking_again(place):
    _, before, look = made(place)
    (place / "cache/index/persons.parquet").write_bytes(b"damaged")
    cache = Cache(root=place / "cache")
    views, again = people_views(People()), Stubs(both)
    look = finder(data(place), place / "cache", both)
    done = repair(data(place), cache, Extract(), lambda index: views, again, finder=look)
    assert not done.left and Index.read(place / "cache").digest() == before.digest()
    assert again.people.pictures == look.networks.people.pictures == 0


def test_damaged_detections_are_mended(place):
    made(place)
    (shard,) = [p for p in (place / "cache/people.zarr/box/c").rglob("*") if p.is_file()]
    shard.write_bytes(shard.read_bytes()[:-9] + b"garbage!!")
    assert not verify(place / "cache").whole
    cache, again = Cache(root=place / "cache"), Stubs(both)
    done = repair(data(place), cache, Extract(), lambda index: people_views(People()), again)
    assert done.rows == {"people": 6} and verify(place / "cache").whole


def test_pictures_with_boxes_are_not_looked_at_and_nobody_misses_them(tmp_path):
    for number in range(4):
        noise(tmp_path / f"data/{number}.png", number)
    (tmp_path / "data/persons.csv").write_text(
        "path,labels,x1,y1,x2,y2\n0.png,joy,1,1,9,9\n1.png,joy,,,,\n2.png,fear,1,1,9,9\n"
        "2.png,joy,,,,\n3.png,fear,,,,\n"
    )
    here = Data(name="persons", root=tmp_path / "data")
    done, _, look = made(tmp_path, data_of=here)
    assert look.networks.people.pictures == 3 and done.origins == {"annotated": 2, "found": 3}
    assert open_view(tmp_path / "cache", "people").done.tolist() == [False, True, True, True]
    found = verify(tmp_path / "cache")
    assert found.whole and found.absent == {"people": 0}


def test_another_set_of_labels_wants_another_cache_and_takes_what_was_found(place):
    made(place)
    noise(place / "data/fear/9.png", 9)
    with pytest.raises(KeyMismatch, match=r"cache\.root to another folder.*cache\.take_from"):
        made(place)
    look = finder(data(place), place / "second", both)
    cache = Cache(root=place / "second", take_from=(place / "cache",))
    look = replace(look, cache=cache)
    done = prepare(look.data, place / "second", finder=look)
    assert look.networks.people.pictures == 1 and done.origins == {"found": 7}


# Annotated faces


def caers(place, faces: dict[str, tuple]) -> Data:
    with open(place / "data/train.txt", "w", newline="") as table:
        rows = csv.writer(table)
        for path, face in faces.items():
            rows.writerow((path, 3, *face))
    return Data(name="caers", root=place / "data", split={"val": 0})


@pytest.fixture
def frames(tmp_path):
    for number in range(3):
        noise(tmp_path / f"data/train/Happy/{number}.png", number)
    return tmp_path


def test_the_person_about_an_annotated_face_and_the_face_itself_are_kept(frames):
    faces = {
        "train/Happy/0.png": (130, 10, 150, 30),  # of the larger person
        "train/Happy/1.png": (60, 60, 80, 80),  # nobody's
        "train/Happy/2.png": (-5, 12, 25, 30),  # begins outside
    }
    done, index, _ = made(frames, data_of=caers(frames, faces))
    assert index.persons["origin"].to_pylist() == ["found", "face", "found"]
    assert index.boxes.tolist() == [list(LARGE), [60, 60, 80, 80], list(SMALL)]
    assert index.faces == [(130, 10, 150, 30), (60, 60, 80, 80), (0, 12, 25, 30)]
    assert done.oddities["faces clipped to the picture"] == 1
    assert "about the annotated faces" in index.note


def test_the_face_alone_is_a_setting_and_looks_for_nobody(frames):
    faces = {f"train/Happy/{n}.png": (130, 10, 150, 30) for n in range(3)}
    done, index, look = made(frames, data_of=caers(frames, faces), subject="face")
    assert look.networks.people.pictures == 0 and done.origins == {"face": 3}
    assert (index.boxes == np.array((130, 10, 150, 30))).all()
    assert "face alone stands for the person" in index.note


def test_a_face_outside_the_picture_is_left_out_and_counted(frames):
    faces = {f"train/Happy/{n}.png": (300, 10, 350, 30) for n in range(3)}
    done, index, _ = made(frames, data_of=caers(frames, faces))
    assert done.oddities["annotated faces that are no box in the picture, left out"] == 3
    assert index.faces == [None] * 3 and (index.boxes == np.array(SMALL)).all()


def test_another_face_is_another_person(frames):
    """Its head has other features: the row of the old one is not taken for it."""
    names = [f"train/Happy/{n}.png" for n in range(3)]
    made(frames, data_of=caers(frames, dict.fromkeys(names, (130, 10, 150, 30))))
    moved = caers(frames, dict.fromkeys(names, (132, 10, 152, 30)))
    done, index, _ = made(frames, data_of=moved)
    assert done.rows["persons"]["new"] == 3 and done.rows["persons"]["removed"] == 3
    live = index.person_status == "ok"
    assert (index.boxes[live] == np.array(LARGE)).all()


def test_the_plan_hands_faces_and_pictures_without_persons_to_the_views(frames):
    faces = {f"train/Happy/{n}.png": (130, 10, 150, 30) for n in range(3)}
    _, index, _ = made(frames, data_of=caers(frames, faces))
    views = {"head": HeadView(Head())}

    class Known(Stubs):
        precision = "float32"

    plan = make_plan(frames / "cache", index, views, Known(), 8)
    assert [who.face for task in plan.tasks for _, who in task.rows["head"]] == [
        (130, 10, 150, 30)
    ] * 3


class Backbone:
    name, width = "grey", 1

    def __call__(self, squares: torch.Tensor) -> torch.Tensor:
        return squares.float().mean((1, 2, 3))[:, None]


class Looking(Stubs):
    def backbone(self, name, kind):
        return Backbone()


def test_the_head_view_takes_an_annotated_face_and_asks_no_detector():
    networks = Looking(faces=lambda pixels: [((0, 0, 5, 5), 0.99)])
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:40, 50:70] = 255
    view = HeadView(Head(enlarge=1))
    given, sought = view.run(
        [Subject(pixels, (0, 0, 200, 100), (50, 20, 70, 40)), Subject(pixels, (0, 0, 200, 100))],
        networks,
    )
    assert given.values["box"].tolist() == [50, 20, 70, 40] and given.values["score"] == 1
    assert given.values["features"] == 255 and sought.values["features"] == 0
    assert networks.faces.pictures == 1


def test_a_picture_that_stands_for_a_person_is_not_painted_over():
    networks = Looking(people=lambda pixels: [((10, 10, 30, 30), 0.9)] if pixels.max() else [])
    pixels = np.full((100, 200, 3), 255, np.uint8)
    for mask in ("subject", "drop"):
        view = ObjectsView(Objects(mask=mask, k=2))
        whole = (0.0, 0.0, 200.0, 100.0)
        (stands,) = view.run([Subject(pixels, whole, nobody=True)], networks)
        assert stands.status == "ok" and stands.values["count"] == 1
    (annotated,) = view.run([Subject(pixels, whole)], networks)
    assert annotated.status == "no_object"


# Real photographs, real weights


def test_real_people_are_found_where_they_were_annotated(tmp_path):
    """The 30 EMOTIC pictures without their boxes: the person found is an annotated one in most."""
    root = shared("data/emotic_pictures")
    weights = real("yolo26n")
    with open(tmp_path / "persons.csv", "w") as table:
        table.write("path,labels\n")
        for path in sorted((root / "mscoco/images").iterdir())[:8]:
            (tmp_path / path.name).symlink_to(path)
            table.write(f"{path.name},joy\n")
    known = {path.name: [] for path in tmp_path.glob("*.jpg")}
    for split in ("train", "val", "test"):
        with open(root / f"{split}.csv", newline="") as table:
            for row in csv.DictReader(table):
                if row["Filename"] in known:
                    known[row["Filename"]].append([float(v) for v in row["BBox"][1:-1].split(",")])
    here = Data(name="persons", root=tmp_path, follow_links=True)
    look = finder(here, tmp_path / "cache", choose="largest")
    look.networks = Networks(weights)
    done = prepare(here, tmp_path / "cache", finder=look)
    index = Index.read(tmp_path / "cache")
    assert done.origins.get("found", 0) >= 7
    paths = index.pictures["path"].to_pylist()
    hits = [
        iou(box, np.array(known[paths[picture]])).max() > 0.5
        for box, picture in zip(index.boxes, index.picture_rows, strict=True)
    ]
    assert sum(hits) >= 6
