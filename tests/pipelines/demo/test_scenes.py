"""The demo data set: its files, its geometry, its rules, and whether real detectors see it."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.io import loadmat

from cache.errors import DataError
from extract.datasets import get_dataset
from pipelines.demo import cutouts
from pipelines.demo.grounds import GROUNDS, Grounds
from pipelines.demo.scenes import (
    FAR,
    NEAR,
    RULES,
    SCALES,
    Studio,
    draw_lot,
    make_scenes,
    plan_scene,
    rules,
    splits,
)
from pipelines.demo.settings import Demo

SMALL = Demo(seed=3, pictures=24)
EXACT = Demo(seed=3, pictures=24, missed=0, added=0)


@pytest.fixture(scope="module")
def studio():
    return Studio()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "demo"
    return root, make_scenes(root, EXACT)


@pytest.fixture(scope="module")
def planned(studio):
    """The default 160 scenes, planned and not drawn."""
    settings = Demo()
    lot = draw_lot(settings)
    return [plan_scene(studio, lot, settings, i, s) for i, s in enumerate(splits(settings))]


def digest(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def story(root: Path) -> dict:
    return json.loads((root / "planted.json").read_text())


# Files


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    settings = Demo(seed=5, pictures=12)
    for name, demo in (("a", settings), ("b", settings), ("c", Demo(seed=6, pictures=12))):
        make_scenes(tmp_path / name, demo)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert len(a) == 14
    assert a == b
    assert a.keys() == c.keys()
    assert not set(a.values()) & set(c.values())


def test_the_official_form_as_its_users_open_it(made):
    root, counts = made
    mat = loadmat(root / "Annotations/Annotations.mat", squeeze_me=True, struct_as_record=False)
    planted = {scene["path"]: scene for scene in story(root)["scenes"]}
    people = 0
    for split, annotators in (("train", 1), ("val", 5), ("test", 3)):
        assert len(mat[split]) == counts[f"{split} pictures"]
        for image in mat[split]:
            scene = planted[f"{image.folder}/{image.filename}"]
            assert scene["split"] == split
            with Image.open(root / image.folder / image.filename) as picture:
                assert picture.format == "JPEG"
                assert picture.size == (image.image_size.n_col, image.image_size.n_row)
            assert image.original_database.name == "demo"
            for person, truth in zip(np.atleast_1d(image.person), scene["persons"], strict=True):
                people += 1
                assert person.body_bbox.tolist() == truth["box"]
                answers = np.atleast_1d(person.annotations_categories)
                assert len(answers) == annotators
                assert len(np.atleast_1d(person.annotations_continuous)) == annotators
                assert hasattr(person, "combined_categories") == (split != "train")
                last = answers[-1].categories
                if split != "train":
                    last = person.combined_categories
                    for scale in SCALES:
                        each = [getattr(a, scale) for a in person.annotations_continuous]
                        assert getattr(person.combined_continuous, scale) == np.mean(each)
                        assert 1 <= min(each) <= max(each) <= 10
                if truth["labels"]:  # without noise everyone gives what was planted
                    assert sorted(np.atleast_1d(last)) == sorted(truth["labels"])
                else:
                    assert np.atleast_1d(last).size == 1
    assert people == counts["train persons"] + counts["val persons"] + counts["test persons"]


def test_the_projects_reader_finds_what_was_planted(made):
    root = made[0]
    dataset = get_dataset("demo")(root)
    assert "no claim" in dataset.note
    planted = {scene["path"]: scene for scene in story(root)["scenes"]}
    records = list(dataset.records())
    assert {record.path for record in records} == planted.keys()
    assert not dataset.counts  # nothing odd
    for record in records:
        scene = planted[record.path]
        for person, truth in zip(record.persons, scene["persons"], strict=True):
            assert list(person.box) == truth["box"]
            assert person.split == scene["split"] and person.status == "ok"
            assert person.annotators == {"train": 1, "val": 5, "test": 3}[person.split]
            names = [dataset.labels[i] for i in np.flatnonzero(person.labels)]
            assert names == truth["labels"] or (not truth["labels"] and len(names) == 1)
            assert (person.votes[person.labels > 0] == person.annotators).all()


def test_annotators_err_at_the_stated_rates(tmp_path):
    make_scenes(tmp_path / "d", Demo(seed=1, pictures=80, val=0.4, test=0.4))
    dataset = get_dataset("demo")(tmp_path / "d")
    rows = [dataset.labels.index(label) for label in RULES]
    planted = {scene["path"]: scene for scene in story(tmp_path / "d")["scenes"]}
    held, given, looks = [], [], []
    for record in dataset.records():
        for person, truth in zip(record.persons, planted[record.path]["persons"], strict=True):
            held.append([label in truth["labels"] for label in RULES])
            given.append(person.votes[rows])
            looks.append([person.annotators] * len(rows))
    held, given, looks = map(np.array, (held, given, looks))
    missed = 1 - given[held].sum() / looks[held].sum()
    added = given[~held].sum() / looks[~held].sum()
    assert missed == pytest.approx(0.10, abs=0.025)
    assert added == pytest.approx(0.02, abs=0.012)  # and the rare label of who gives none


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "Annotations.mat").write_bytes(b"someone's work")
    with pytest.raises(DataError, match="choose another folder"):
        make_scenes(tmp_path, SMALL)
    assert (tmp_path / "Annotations" / "Annotations.mat").read_bytes() == b"someone's work"


def test_a_second_run_leaves_no_picture_of_the_first(tmp_path):
    make_scenes(tmp_path, Demo(pictures=14))
    make_scenes(tmp_path, Demo(pictures=12))
    assert len(list((tmp_path / "demo/images").iterdir())) == 12


def test_a_missing_package_and_a_changed_photograph_are_refused_by_name():
    with pytest.raises(DataError, match="no_such_package"):
        cutouts.Photograph("no_such_package", "a.png", (1, 1)).open()
    with pytest.raises(DataError, match="cut for"):
        cutouts.Photograph("skimage", "data/astronaut.png", (512, 511)).open()


def test_the_photographs_come_from_what_setup_cfg_requires():
    """The packages that carry them are dependencies of the project itself."""
    text = (Path(__file__).parents[3] / "setup.cfg").read_text().lower()
    wanted = {"skimage": "scikit-image", "sklearn": "scikit-learn", "matplotlib": "matplotlib"}
    sources = {v for v in vars(cutouts).values() if isinstance(v, cutouts.Photograph)}
    assert len(sources) == 15
    for package in {source.package for source in sources}:
        assert wanted.get(package, package) in text


def contact_sheet(root: Path, number: int = 12, columns: int = 4) -> Image.Image:
    """Some of the scenes, evenly chosen, with the persons' boxes and what was planted for them."""
    story = json.loads((root / "planted.json").read_text(encoding="utf-8"))
    chosen = story["scenes"][:: max(1, len(story["scenes"]) // number)][:number]
    width, height, line = 360, 270, 15
    sheet = Image.new(
        "RGB", (columns * width, -(-len(chosen) // columns) * (height + 4 * line)), (255, 255, 255)
    )
    draw, font = ImageDraw.Draw(sheet), cutouts.font(11, bold=False)
    colours = ((255, 200, 40), (80, 210, 255))
    for i, scene in enumerate(chosen):
        left, top = i % columns * width, i // columns * (height + 4 * line)
        with Image.open(root / scene["path"]) as opened:
            scale = min((width - 8) / opened.width, height / opened.height)
            size = round(opened.width * scale), round(opened.height * scale)
            sheet.paste(opened.resize(size, Image.Resampling.LANCZOS), (left + 4, top + 4))
        for person, colour in zip(scene["persons"], colours, strict=False):
            x1, y1, x2, y2 = (side * scale for side in person["box"])
            corners = (left + 4 + x1, top + 4 + y1, left + 3 + x2, top + 3 + y2)
            draw.rectangle(corners, outline=colour, width=2)
        row = top + 4 + size[1] + 2
        for person, colour in zip(scene["persons"], colours, strict=False):
            words = _lines(", ".join(person["labels"]) or "(none)", draw, font, width - 24)
            draw.rectangle((left + 5, row + 3, left + 13, row + 11), fill=colour)
            for text in words[: 2 if len(scene["persons"]) > 1 else 4]:
                draw.text((left + 18, row), text, (30, 30, 30), font)
                row += line
    return sheet


def _lines(text: str, draw: ImageDraw.ImageDraw, font: Any, width: float) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def test_the_contact_sheet_shows_the_scenes(made):
    sheet = contact_sheet(made[0], 6, columns=3)
    assert sheet.mode == "RGB" and sheet.size == (3 * 360, 2 * 330)
    for left in (0, 360, 720):
        assert np.asarray(sheet.crop((left, 0, left + 360, 200))).std() > 20


# Geometry


def test_cut_outs_fill_their_boxes(studio):
    """So the box of a person is tight."""
    for picture, face in studio.figures.values():
        assert picture.getchannel("A").getbbox() == (0, 0, *picture.size)
        assert 0 <= face[0] < face[2] <= picture.width and 0 <= face[1] < face[3] <= picture.height
        middle = picture.getpixel(((face[0] + face[2]) // 2, (face[1] + face[3]) // 2))
        assert middle[3] == 255


def test_everything_stands_where_it_can_be_seen(planned):
    for scene in planned:
        width, height = scene.size
        for person in scene.persons:
            x1, y1, x2, y2 = person.box
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            fx1, fy1, fx2, fy2 = person.face
            assert x1 <= fx1 and y1 <= fy1 and fx2 <= x2 and fy2 <= y2
            for placed in scene.things:
                tx1, ty1, tx2, ty2 = placed.box
                shared = max(0, min(x2, tx2) - max(x1, tx1)) * max(0, min(y2, ty2) - max(y1, ty1))
                assert shared <= 0.15 * (tx2 - tx1) * (ty2 - ty1)
        assert all(b[0] >= 0 and b[1] >= 0 for b in (placed.box for placed in scene.things))
        assert all(placed.box[2] <= width and placed.box[3] <= height for placed in scene.things)


def test_cues_follow_the_geometry(planned):
    groups = {"cat": "cosy", "cup": "cosy", "motorcycle": "alarm", "stop sign": "alarm"}
    both = 0
    for scene in planned:
        for person in scene.persons:
            centre = np.reshape(person.box, (2, 2)).mean(axis=0)
            near, far = set(), set()
            for placed in scene.things:
                gap = np.linalg.norm(np.reshape(placed.box, (2, 2)).mean(axis=0) - centre)
                apart = gap / np.hypot(*scene.size)
                assert apart < NEAR + 0.005 or apart > FAR - 0.005  # boxes are rounded
                (near if apart < NEAR else far).add(groups.get(placed.thing, "travel"))
            assert near == {"cosy", "alarm", "travel"} & set(person.cues)
            assert GROUNDS[scene.ground][0] in person.cues
            assert ("company" in person.cues) == (len(scene.persons) == 2)
            assert ("bright" in person.cues) != scene.dim
            both += bool(far - near)
    assert both > 40  # the same kinds of things also stand where they plant nothing


def test_grounds_come_in_the_size_asked_for_and_never_twice_the_same():
    grounds = Grounds()
    for name in GROUNDS:
        random = np.random.default_rng(0)
        a, b = (np.asarray(grounds.draw(name, (96, 64), random)) for _ in range(2))
        assert a.shape == (64, 96, 3)
        if name not in ("fog",):
            assert (a != b).any()
        assert np.asarray(grounds.draw(name, (480, 340), random)).shape == (340, 480, 3)


# Rules


def test_the_rules_by_hand(planned):
    """Happiness from 4: cosy 2, festive 2, bright 1, shown 1, lot 1, alarm -2, bleak -1."""
    for scene in planned:
        for person in scene.persons:
            cues = person.cues
            points = 2 * ("cosy" in cues) + 2 * ("festive" in cues) + ("bright" in cues)
            points += ("shown" in cues) + ("lot" in cues)
            points -= 2 * ("alarm" in cues) + ("bleak" in cues)
            assert ("Happiness" in person.labels) == (points >= 4)


def test_the_table_of_rules_draws_on_every_view():
    table = rules()
    assert [row["label"] for row in table] == list(RULES)
    used = {cue for row in table for cue in row} - {"label", "from"}
    assert used == {
        "lot", "shown", "cosy", "alarm", "travel", "company",
        "open", "festive", "bleak", "bright", "close",
    }  # fmt: skip


def test_each_label_is_neither_rare_nor_common_in_any_split(planned):
    for split in ("train", "val", "test"):
        people = [p for scene in planned if scene.split == split for p in scene.persons]
        assert len(people) >= 35
        for label in RULES:
            share = np.mean([label in person.labels for person in people])
            assert 0.1 <= share <= 0.5, (split, label)


def test_labels_occur_together(planned):
    people = [p.labels for scene in planned for p in scene.persons]
    happy = [labels for labels in people if "Happiness" in labels]
    everyone = np.mean(["Pleasure" in labels for labels in people])
    assert np.mean(["Pleasure" in labels for labels in happy]) > everyone + 0.25


# What real networks see


@pytest.mark.slow
def test_real_detectors_find_what_was_planted(tmp_path):
    """BlazeFace and YOLO with their real weights, on the pixels that the views give them."""
    torch = pytest.importorskip("torch")
    from cache.errors import WeightsError
    from extract import images
    from extract.detectors import load_detector
    from extract.settings import Weights

    local = Weights(source=["store"])
    try:
        faces = load_detector("blazeface", local, kind="faces")
        objects = load_detector("yolo26n", local, kind="objects")
        faces.score, objects.score = 0.5, 0.3
    except WeightsError as error:
        pytest.skip(f"the weights of the demo were not fetched yet: {error}")
    make_scenes(tmp_path / "d", Demo(pictures=40))
    seen: dict[str, list[bool]] = {"shown": [], "hidden": [], "things": []}

    def tensor(pixels):
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def inside(box, outer):
        x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]

    for scene in story(tmp_path / "d")["scenes"]:
        pixels = images.read(tmp_path / "d" / scene["path"]).pixels
        for person in scene["persons"]:
            found = faces([tensor(images.crop(pixels, person["box"]))])[0]
            seen["shown" if person["shown"] else "hidden"].append(len(found) > 0)
            found = objects([tensor(images.mask_subject(pixels, person["box"]))])[0]
            for placed in scene["things"]:
                names = cutouts.THINGS[placed["thing"]].classes
                seen["things"].append(
                    any(
                        objects.classes[label] in names and inside(box, placed["box"])
                        for box, label in zip(found.boxes, found.labels, strict=True)
                    )
                )
    assert np.mean(seen["shown"]) >= 0.9
    assert np.mean(seen["hidden"]) <= 0.15
    assert np.mean(seen["things"]) >= 0.85
