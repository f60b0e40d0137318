"""The views on real photographs with the real networks, against crops cut here by hand; the keys
with weights that are names only."""

import dataclasses
import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from cache.keys import canonical, differences, key_of
from cache.spec import Row
from cache.statuses import STATUS
from cache.store import open_view
from cache.writer import ViewWriter
from extract import images, loaded
from extract import settings as config
from extract import views as module
from extract.backbones import backbones
from extract.detectors import Detections, detectors
from extract.loaded import Networks
from extract.meter import Meter
from extract.views import Subject, make_views
from extract.weights import Weights
from tests.networks import real, untrained

DEPTH, MINILM = "Intel/dpt-swinv2-tiny-256", "sentence-transformers/all-MiniLM-L6-v2"
GLOVE = "glove-6b-50d"
LABEL_VIEWS = ("labels", "words")
SETTINGS = config.Views(
    objects=config.Objects(detector="yolo26n", k=6, score=0.25),
    depth=config.Depth(network=DEPTH, size=256),
    labels=config.Labels(network=MINILM),
    words=config.Words(network=GLOVE),
)
VIEW_NAMES = tuple(make_views(SETTINGS, "float16"))
ALIKE = 2e-3  # between float32 features alone and among neighbours: a sum in another order


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Real networks, each loaded once; untrained are the depth network, which no package has, and
    the word vectors, which are large (their own tests have them)."""
    for name in ("resnet50", "blazeface", "yolo26n", MINILM):
        settings = real(name)
    found = Networks(settings, batch=4)
    for name in (DEPTH, GLOVE):
        found._found[name] = dataclasses.replace(untrained(name), sha256="untrained")
    from extract.backbones.midas import Depth
    from extract.backbones.words import Words

    found._loaded[DEPTH, "depth"] = Depth(found._found[DEPTH])
    found._loaded[GLOVE, "words"] = Words(found._found[GLOVE])
    return found


@pytest.fixture(scope="module")
def views():
    return make_views(SETTINGS, "float32")


def with_settings(name: str, **changes) -> module.View:
    section = getattr(SETTINGS, name).model_copy(update=changes)
    return make_views(SETTINGS.model_copy(update={name: section}), "float32")[name]


def asset(name: str) -> np.ndarray:
    folder = Path(importlib.util.find_spec("ultralytics").origin).parent / "assets"
    with Image.open(folder / name) as picture:
        return np.array(picture.convert("RGB"))


ASTRONAUT = Subject(data.astronaut(), (60.5, 0.0, 400.25, 512.0))


def texture(seed: int = 0) -> Subject:
    """Grass: a photograph without a face or a thing."""
    grass = np.repeat(data.grass()[:, :, None], 3, axis=2)
    return Subject(np.roll(grass, 40 * seed, axis=1), (20.0, 30.0, 300.0, 480.0))


def resnet_of(networks: Networks, pixels: np.ndarray, size: int) -> np.ndarray:
    """ResNet-50 on pixels that are squashed to a square with Pillow."""
    square = Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR)
    batch = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    return networks.backbone("resnet50", "picture")(batch).numpy()[0]


def iou(a, b) -> float:
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = np.prod(np.clip(high - low, 0, None))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return float(shared / (sum(areas) - shared))


# -------------------------------------------------------------------------------- body, scene


def test_body_is_the_network_on_the_persons_box(views, networks):
    rows = views["body"].run([ASTRONAUT, texture()], networks)
    assert [row.status for row in rows] == ["ok", "ok"]
    crop = ASTRONAUT.pixels[0:512, 60:401]  # every pixel that the box touches
    expected = resnet_of(networks, crop, 128)
    assert rows[0].values["features"].shape == (2048,)
    assert np.abs(rows[0].values["features"] - expected).max() < 1e-4
    assert np.abs(rows[1].values["features"] - expected).max() > 0.1


def test_body_of_another_size(networks):
    row = with_settings("body", size=96).run([ASTRONAUT], networks)[0]
    expected = resnet_of(networks, ASTRONAUT.pixels[0:512, 60:401], 96)
    assert np.abs(row.values["features"] - expected).max() < 1e-4


def test_scene_is_the_network_on_the_whole_picture(views, networks):
    row = views["scene"].run([Subject(asset("zidane.jpg"))], networks)[0]
    expected = resnet_of(networks, asset("zidane.jpg"), 224)
    assert np.abs(row.values["features"] - expected).max() < 1e-4


def test_body_and_scene_that_are_padded_keep_the_aspect(networks):
    """Her box is 341 pixels wide and 512 high: 128 high it is 85 wide, 21 from the left."""
    crop = Image.fromarray(ASTRONAUT.pixels[0:512, 60:401])
    page = np.full((128, 128, 3), images.MEAN_GREY, np.uint8)
    page[:, 21:106] = crop.resize((85, 128), Image.Resampling.BILINEAR)
    row = with_settings("body", fit="pad").run([ASTRONAUT], networks)[0]
    expected = resnet_of(networks, page, 128)
    assert np.abs(row.values["features"] - expected).max() < 1e-4
    wide = Subject(ASTRONAUT.pixels[:256])
    page = np.full((224, 224, 3), images.MEAN_GREY, np.uint8)
    page[56:168] = Image.fromarray(wide.pixels).resize((224, 112), Image.Resampling.BILINEAR)
    row = with_settings("scene", fit="pad").run([wide], networks)[0]
    assert np.abs(row.values["features"] - resnet_of(networks, page, 224)).max() < 1e-4


# --------------------------------------------------------------------------------------- head


def test_head_is_about_the_face_and_seen_by_the_network(views, networks):
    row = views["head"].run([ASTRONAUT], networks)[0]
    assert row.status == "ok" and row.values["score"] > 0.8
    x1, y1, x2, y2 = row.values["box"]
    # Her face, from chin to hair and from ear to ear, as read off the photograph.
    assert x1 < 190 and x2 > 255 and y1 < 70 and y2 > 155
    assert x2 - x1 == pytest.approx(y2 - y1, abs=0.01) and x2 - x1 < 250
    crop = ASTRONAUT.pixels[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
    expected = resnet_of(networks, crop, 128)
    assert np.abs(row.values["features"] - expected).max() < 1e-4


@pytest.mark.parametrize("left, top", [(0, 0), (203, 57)])
def test_head_box_is_in_pixels_of_the_picture(views, networks, left, top):
    """The same person elsewhere in a larger picture: the box moves along, by as much."""
    picture = np.full((700, 900, 3), 90, np.uint8)
    picture[top : top + 512, left : left + 512] = ASTRONAUT.pixels
    x1, y1, x2, y2 = ASTRONAUT.box
    there = Subject(picture, (x1 + left, y1 + top, x2 + left, y2 + top))
    alone, moved = views["head"].run([ASTRONAUT, there], networks)
    assert np.allclose(
        moved.values["box"], alone.values["box"] + np.array([left, top] * 2), atol=0.1
    )
    assert np.abs(moved.values["features"] - alone.values["features"]).max() < 0.2


def test_head_without_a_face_is_zeros(views, networks, tmp_path):
    rows = views["head"].run([texture(), ASTRONAUT, texture(1)], networks)
    assert [row.status for row in rows] == ["no_face", "ok", "no_face"]
    writer = ViewWriter(tmp_path, views["head"].spec(networks), ["a", "b", "c"])
    for number, row in enumerate(rows):
        writer.put(number, row)
    writer.close()
    kept = open_view(tmp_path, "head")
    assert kept.status.tolist() == [STATUS["no_face"], STATUS["ok"], STATUS["no_face"]]
    for name in ("features", "box", "score"):
        assert not kept.read(name)[[0, 2]].any() and kept.read(name)[1].any()


def test_head_wants_a_score(networks):
    assert with_settings("head", score=0.999).run([ASTRONAUT], networks)[0].status == "no_face"


class Finds:
    """A detector that finds what it is told."""

    region_width = 0
    classes = ("thing", "other")

    def __init__(self, *found: tuple):
        self.found = found

    def __call__(self, pictures):
        boxes = np.array([box for box, _ in self.found], np.float32).reshape(-1, 4)
        scores = np.array([score for _, score in self.found], np.float32)
        return [Detections(boxes, scores, np.arange(len(scores)) % 2) for _ in pictures]


class Widths:
    """A backbone whose features are the mean colour of the square."""

    width = 3

    def __call__(self, batch):
        return batch.float().mean((2, 3))


def standing_in(detector) -> SimpleNamespace:
    """Networks with this detector and a backbone that sees colours."""
    backbone = Widths()
    return SimpleNamespace(
        backbone=lambda *_: backbone, detector=lambda *_: detector, meter=Meter(), map=map
    )


def told(*found: tuple) -> SimpleNamespace:
    return standing_in(Finds(*found))


BOX = (10.0, 20.0, 90.0, 80.0)  # of a person in a picture of 100 x 100


def test_head_takes_the_surest_face_and_enlarges_it():
    view = with_settings("head", enlarge=2.0)
    subject = Subject(np.zeros((100, 100, 3), np.uint8), BOX)
    networks = told(((0, 0, 5, 5), 0.6), ((20, 20, 30, 25), 0.9), ((40, 40, 45, 45), 0.7))
    row = view.run([subject], networks)[0]
    # (20, 20, 30, 25) in the crop is (30, 40, 40, 45) in the picture; twice its longer side is 20.
    assert np.allclose(row.values["box"], (25, 32.5, 45, 52.5)) and row.values["score"] == 0.9


def test_head_of_a_face_without_pixels_is_none():
    """Found in the border around the crop, so that nothing is left of it inside."""
    subject = Subject(np.zeros((100, 100, 3), np.uint8), (0.0, 0.0, 100.0, 100.0))
    assert with_settings("head").run([subject], told(((0, 0, 0, 0), 0.9)))[0].status == "no_face"


# ------------------------------------------------------------------------------------ objects


def people_in(networks: Networks, pixels: np.ndarray) -> list[np.ndarray]:
    detector = networks.detector("yolo26n", "objects")
    found = detector([torch.from_numpy(pixels.copy()).permute(2, 0, 1)])[0]
    sure = (found.labels == detector.classes.index("person")) & (found.scores > 0.5)
    return list(found.boxes[sure])


def things(row: Row) -> int:
    return int(row.values["count"])


def test_objects_do_not_hold_the_subject(views, networks):
    """Seen by the detector in the picture as it is, and by the view no more."""
    for name, people in (("astronaut", 1), ("zidane.jpg", 2), ("bus.jpg", 3)):
        pixels = ASTRONAUT.pixels if name == "astronaut" else asset(name)
        boxes = people_in(networks, pixels)
        assert len(boxes) >= people  # so they are there to be found
        person = networks.detector("yolo26n", "objects").classes.index("person")
        for box in boxes[:1]:
            row = views["objects"].run([Subject(pixels, tuple(box.tolist()))], networks)[0]
            seen = [
                other
                for other, label in zip(row.values["box"], row.values["label"], strict=True)
                if label == person
            ]
            assert all(iou(box, other) < 0.3 for other in seen)
            if people == 1:
                assert seen == []
            else:  # the others are objects like any other
                assert max(iou(boxes[1], other) for other in seen) > 0.6


def test_objects_are_seen_by_the_network_on_the_masked_picture(views, networks):
    pixels = asset("bus.jpg")
    box = tuple(people_in(networks, pixels)[0].tolist())
    row = views["objects"].run([Subject(pixels, box)], networks)[0]
    assert row.status == "ok" and things(row) >= 3
    masked = pixels.copy()
    x1, y1, x2, y2 = box
    masked[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))] = images.MEAN_GREY
    classes = views["objects"].facts(networks)["classes"]
    assert "bus" in [classes[label] for label in row.values["label"][: things(row)]]
    for place in range(things(row)):
        x1, y1, x2, y2 = row.values["box"][place]
        crop = masked[int(y1) : int(np.ceil(y2)), int(x1) : int(np.ceil(x2))]
        expected = resnet_of(networks, crop, 128)
        assert np.abs(row.values["features"][place] - expected).max() < 1e-3


def test_objects_are_the_surest_k_in_order_and_padded(networks):
    subject = Subject(asset("bus.jpg"), (0.0, 0.0, 5.0, 5.0))
    ten = with_settings("objects", k=10).run([subject], networks)[0].values
    count = int(ten["count"])
    assert 3 <= count < 10
    assert (np.diff(ten["score"][:count]) <= 0).all() and (ten["score"][:count] >= 0.25).all()
    assert (ten["label"][count:] == -1).all() and (ten["label"][:count] >= 0).all()
    for name in ("features", "box", "score"):
        assert not ten[name][count:].any()
        assert len(ten[name]) == 10
    two = with_settings("objects", k=2).run([subject], networks)[0].values
    assert int(two["count"]) == 2
    for name in ("box", "label", "score"):
        assert np.array_equal(two[name], ten[name][:2])
    assert np.abs(two["features"] - ten["features"][:2]).max() < ALIKE
    sure = with_settings("objects", k=10, score=0.8).run([subject], networks)[0].values
    assert int(sure["count"]) == (ten["score"] >= 0.8).sum() < count


def test_no_object_is_a_row_of_padding(views, networks, tmp_path):
    row = views["objects"].run([texture()], networks)[0]
    assert row.status == "no_object" and things(row) == 0
    assert (row.values["label"] == -1).all() and not row.values["features"].any()


def test_equal_scores_keep_the_detectors_order_and_empty_boxes_are_left_out():
    found = [
        ((0, 0, 10, 10), 0.5),
        ((5, 5, 5, 20), 0.9),  # without a pixel
        ((1, 1, 11, 11), 0.7),
        ((2, 2, 12, 12), 0.7),
        ((3, 3, 13, 13), 0.2),
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    view = with_settings("objects", k=4, score=0.3, size=32)
    values = view.run([Subject(pixels, BOX)], told(*found))[0].values
    assert values["box"].tolist() == [[1, 1, 11, 11], [2, 2, 12, 12], [0, 0, 10, 10], [0] * 4]
    assert values["label"].tolist() == [0, 1, 0, -1] and int(values["count"]) == 3
    assert values["features"][3].tolist() == [0, 0, 0]


def test_each_subject_gets_its_own_objects():
    """Rows of differing length are cut from one batch of crops: here each crop has its colour."""
    view = with_settings("objects", k=3, score=0.3, size=32)

    class ByColour(Finds):
        def __call__(self, pictures):
            found = []
            for picture in pictures:
                n = int(picture[0, 99, 99]) // 50  # as many things as the colour says
                boxes = np.array([[90, 90, 99, 99]] * n, np.float32).reshape(-1, 4)
                found.append(Detections(boxes, np.full(n, 0.9), np.zeros(n, np.int64)))
            return found

    networks = standing_in(ByColour())
    shades = [100, 0, 150, 50, 0, 200, 100]
    subjects = [Subject(np.full((100, 100, 3), shade, np.uint8), BOX) for shade in shades]
    rows = view.run(subjects, networks)
    for shade, row in zip(shades, rows, strict=True):
        n = min(3, shade // 50)
        assert things(row) == n and row.status == ("ok" if n else "no_object")
        assert np.allclose(row.values["features"][:n], shade)
        assert not row.values["features"][n:].any()


def test_mask_drop_asks_the_detector_once_a_picture_and_leaves_out_who_it_is():
    class Counts(Finds):
        pictures = 0

        def __call__(self, pictures):
            self.pictures += len(pictures)
            return super().__call__(pictures)

    rng = np.random.default_rng(3)
    one, two = (rng.integers(0, 256, (100, 100, 3)).astype(np.uint8) for _ in range(2))
    left, right = (0.0, 0.0, 40.0, 90.0), (50.0, 0.0, 95.0, 90.0)
    detector = Counts((left, 0.9), (right, 0.8), ((38, 60, 60, 90), 0.7), ((5, 5, 20, 20), 0.6))
    view = with_settings("objects", k=3, score=0.3, size=32, mask="drop")
    subjects = [Subject(one, left), Subject(one, right), Subject(two, left)]
    rows = view.run(subjects, standing_in(detector))
    assert detector.pictures == 2
    # left has lost itself and what lies in it (the fourth), but not the third, a corner of it
    assert rows[0].values["box"][:, 0].tolist() == [50, 38, 0] and things(rows[0]) == 2
    assert rows[1].values["box"][:, 0].tolist() == [0, 38, 5] and things(rows[1]) == 3
    # the third thing, seen by both, is the same crop of the unmasked picture
    crop = torch.from_numpy(images.resize(one[60:90, 38:60], 32).transpose(2, 0, 1)[None])
    expected = Widths()(crop)[0]
    assert np.allclose(rows[0].values["features"][1], expected)
    assert np.allclose(rows[1].values["features"][1], expected)
    assert not np.allclose(rows[2].values["features"][1], expected)


# ------------------------------------------------------------------------------ depth, labels


@pytest.mark.parametrize("grid", [8, 4])
def test_depth_map_is_shrunk_by_area_means(networks, grid):
    pixels = asset("zidane.jpg")
    row = with_settings("depth", grid=grid).run([Subject(pixels)], networks)[0]
    square = Image.fromarray(pixels).resize((256, 256), Image.Resampling.BILINEAR)
    batch = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None]
    features, maps = networks.backbone(DEPTH, "depth")(batch)
    height, width = maps.shape[1:]
    assert height % grid == width % grid == 0
    blocks = maps[0].numpy().reshape(grid, height // grid, grid, width // grid)
    expected = blocks.mean((1, 3))
    assert row.values["map"].shape == (grid, grid)
    assert np.allclose(row.values["map"], expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-4  # so there was something to mix up
    assert np.abs(row.values["features"] - features[0].numpy()).max() < 1e-4


def test_labels_are_the_text_networks_rows(views, networks):
    sentences = ["fond feelings; love; tenderness", "physical suffering", "love"]
    rows = views["labels"].run(sentences, networks)
    for sentence, row in zip(sentences, rows, strict=True):
        expected = networks.backbone(MINILM, "text")([sentence]).numpy()[0]
        assert np.abs(row.values["features"] - expected).max() < 1e-4
    first = with_settings("labels", pooling="cls").run(sentences, networks)
    assert np.abs(first[0].values["features"] - rows[0].values["features"]).max() > 0.01


# --------------------------------------------------------------------------------- neighbours


@pytest.mark.slow
@pytest.mark.parametrize("name", ["body", "head", "objects", "depth", "scene"])
def test_neighbours_change_nothing(views, networks, name, record_property):
    """The same person alone and among six others, over batches of four, of pictures of five
    sizes: the same statuses and objects, and features within `ALIKE`."""
    zidane, bus = asset("zidane.jpg"), asset("bus.jpg")
    subjects = [
        Subject(zidane, (120.0, 200.0, 1110.0, 715.0)),
        ASTRONAUT,
        texture(),
        Subject(bus, (48.0, 400.0, 245.0, 905.0)),
        Subject(bus, (670.0, 390.0, 810.0, 880.0)),
        Subject(data.coffee(), (100.0, 50.0, 500.0, 350.0)),
        Subject(data.chelsea(), (90.0, 10.0, 400.0, 290.0)),
    ]
    together = views[name].run(subjects, networks)
    worst = 0.0
    for number in (0, 1, 3, 5):
        alone = views[name].run([subjects[number]], networks)[0]
        assert alone.status == together[number].status
        assert alone.values.keys() == together[number].values.keys()
        for array, value in alone.values.items():
            other = together[number].values[array]
            if array in ("label", "count"):
                assert np.array_equal(value, other)
            elif array == "box":
                assert np.abs(value - other).max() < 0.05
            else:
                worst = max(worst, float(np.abs(value - other).max()))
    record_property("largest difference", worst)
    assert worst < ALIKE


# -------------------------------------------------------------------------- what a view stores


@pytest.mark.slow
@pytest.mark.parametrize("name", VIEW_NAMES)
def test_the_layout_fits_the_rows(networks, name, tmp_path):
    """Rows go through the store in float16 and come back in the shapes that `arrays` promised."""
    view = make_views(SETTINGS, "float16")[name]
    subjects = [ASTRONAUT, texture()]
    if name in LABEL_VIEWS:
        labels = {"Love": "fond feelings", "Pain": "suffering"}
        view.definitions = [{"label": n, "definition": words} for n, words in labels.items()]
        subjects = [view.subject(label) for label in view.definitions]
    rows = view.run(subjects, networks)
    spec = view.spec(networks)
    writer = ViewWriter(tmp_path, spec, ["a", "b"])
    for number, row in enumerate(rows):
        writer.put(number, row)
    writer.close()
    kept = open_view(tmp_path, name)
    assert kept.space == view.space and kept.key == key_of(view.parts(networks))
    assert kept.read("features").dtype == np.float16
    for array, value in rows[0].values.items():
        assert np.allclose(kept.read(array)[0], value, rtol=2e-3, atol=2e-3)
    assert kept.trained == (name not in ("depth", "words"))
    names = [weights["network"] for weights in kept.spec.weights]
    assert names == view.network_names() and len(set(names)) == len(names)
    if name == "objects":
        assert kept.spec.facts["classes"][0] == "person" and len(kept.spec.facts["classes"]) == 80
        assert kept.read("label")[1].tolist() == [-1] * 6


def test_a_network_is_loaded_once_and_said_to_be(monkeypatch):
    said, asked, built = [], [], []
    found = Networks(config.Weights(), lambda: asked.append(1) or "cpu", said.append)
    found._found["resnet18"] = untrained("resnet18")

    def building(weights, device, kind):
        built.append((weights, device, kind))
        return SimpleNamespace(name=weights.network)

    monkeypatch.setattr(backbones, "build", building)
    assert found.loaded == () and asked == []
    first = found.backbone("resnet18", "picture")
    assert found.backbone("resnet18", "picture") is first
    assert said == [found.weights("resnet18")] and len(asked) == 1
    assert built == [(said[0], "cpu", "picture")] and found.loaded == ("resnet18",)


# --------------------------------------------------------------------------------------- keys

OTHER = {
    "body": {"network": "resnet18", "size": 96, "fit": "pad"},
    "head": {
        "network": "resnet18",
        "size": 96,
        "detector": "yolov8n-face",
        "score": 0.6,
        "enlarge": 2.0,
    },
    "objects": {
        "network": "resnet18",
        "size": 96,
        "detector": "yolo11n",
        "mask": "drop",
        "k": 3,
        "score": 0.5,
    },
    "depth": {"network": "Intel/dpt-large", "size": 384, "grid": 4},
    "scene": {"network": "resnet18", "size": 96, "fit": "pad"},
    "labels": {"network": "bert-base-uncased", "pooling": "cls"},
    "words": {"network": "mine"},
}


@pytest.fixture
def hashes(monkeypatch):
    """Weights that are a name and a hash; change one by its network."""
    known: dict[str, str] = {}

    def find(name, settings):
        sha256 = known.get(name, name)
        return Weights(name, "store", name, Path("nowhere"), sha256, "none", True, None)

    monkeypatch.setattr(loaded, "find", find)
    return known


def given(settings=SETTINGS, dtype="float16") -> dict[str, module.View]:
    """The views, those of labels with a label."""
    made = make_views(settings, dtype)
    for name in LABEL_VIEWS:
        made[name].definitions = [{"label": "joy", "definition": "delight"}]
    return made


def parts(name: str, settings=SETTINGS, dtype="float16", batch=32) -> dict:
    return given(settings, dtype)[name].parts(Networks(config.Weights(), batch=batch))


@pytest.mark.parametrize("name", LABEL_VIEWS)
def test_a_label_view_has_no_key_before_its_labels(hashes, name):
    with pytest.raises(ValueError, match=rf"view '{name}' has no key before `give_definitions`"):
        make_views(SETTINGS, "float16")[name].key(Networks(config.Weights()))


def test_the_key_is_the_hash_of_the_parts(hashes):
    assert given()["body"].key(Networks(config.Weights())) == key_of(parts("body"))


@pytest.mark.parametrize("name", ["body", "scene"])
def test_a_view_that_squashes_has_the_key_it_had_before_it_could_pad(hashes, name):
    """So that caches from then are not stale: the parts as they were, spelt out."""
    section = getattr(SETTINGS, name)
    rule = backbones.describe(loaded.find("resnet50", None), "picture")
    before = {
        "view": name,
        "version": 1,
        "settings": {"network": "resnet50", "size": section.size},
        "networks": {"resnet50": {"sha256": "resnet50", "rule": rule}},
        "images": images.RULE,
        "precision": "float32",
        "dtype": "float16",
    }
    assert key_of(parts(name)) == key_of(before)
    padding = SETTINGS.model_copy(update={name: section.model_copy(update={"fit": "pad"})})
    said = differences(parts(name), parts(name, padding))
    assert said == [f"images.pad: absent -> {images.PAD_RULE}", "settings.fit: absent -> pad"]


def test_every_setting_is_tried_below():
    for name in VIEW_NAMES:
        assert OTHER[name].keys() == type(getattr(SETTINGS, name)).model_fields.keys()


@pytest.mark.parametrize(
    "name, setting", [(name, setting) for name in OTHER for setting in OTHER[name]]
)
def test_every_setting_changes_the_key_of_its_view_alone(hashes, name, setting):
    section = getattr(SETTINGS, name).model_copy(update={setting: OTHER[name][setting]})
    changed = SETTINGS.model_copy(update={name: section})
    for other in VIEW_NAMES:
        before, after = parts(other), parts(other, changed)
        assert (key_of(before) != key_of(after)) == (other == name)
    said = differences(parts(name), parts(name, changed))
    assert any(line.startswith(f"settings.{setting}: ") for line in said)


@pytest.mark.parametrize("network", ["resnet50", "blazeface", "yolo26n", DEPTH, MINILM, GLOVE])
def test_other_weights_change_the_keys_of_the_views_that_run_them(hashes, network):
    before = {name: parts(name) for name in VIEW_NAMES}
    hashes[network] = "other"
    for name, old in before.items():
        runs = network in make_views(SETTINGS, "float16")[name].network_names()
        assert (key_of(parts(name)) != key_of(old)) == runs
        if runs:
            said = differences(old, parts(name))
            assert said == [f"networks.{network}.sha256: {network} -> other"]


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_batch_changes_no_key_and_dtype_does(hashes, name):
    assert parts(name, batch=1) == parts(name, batch=64)
    assert key_of(parts(name, dtype="float32")) != key_of(parts(name))


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_precision_changes_every_key(hashes, name):
    low = Networks(config.Weights(), precision="bfloat16")
    changed = given()[name].parts(low)
    assert differences(parts(name), changed) == ["precision: float32 -> bfloat16"]


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_code_and_decoder_are_part_of_the_key(hashes, name, monkeypatch):
    before = key_of(parts(name))
    monkeypatch.setitem(images.RULE, "decoder", "Pillow 0.1")
    assert (key_of(parts(name)) != before) == (name not in LABEL_VIEWS)
    before = key_of(parts(name))
    monkeypatch.setattr(type(make_views(SETTINGS, "float16")[name]), "version", 99)
    assert key_of(parts(name)) != before


def test_what_the_weights_want_done_to_pixels_is_part_of_the_key(hashes, monkeypatch):
    before = parts("body")
    find = loaded.find
    monkeypatch.setattr(
        loaded,
        "find",
        lambda name, settings: dataclasses.replace(
            find(name, settings), preprocessing={"scale": 1.0, "mean": [1, 2, 3], "std": [1, 1, 1]}
        ),
    )
    assert key_of(parts("body")) != key_of(before)


@pytest.mark.parametrize("network", ["resnet50", "blazeface", "yolo26n", DEPTH, MINILM, GLOVE])
def test_other_code_of_a_network_changes_the_keys_of_the_views_that_run_it(
    hashes, network, monkeypatch
):
    before = {name: parts(name) for name in VIEW_NAMES}
    found = detectors if network in ("blazeface", "yolo26n") else backbones
    monkeypatch.setattr(found.get(network), "code", 99)
    for name, old in before.items():
        runs = network in make_views(SETTINGS, "float16")[name].network_names()
        assert (key_of(parts(name)) != key_of(old)) == runs


@pytest.mark.parametrize("name", LABEL_VIEWS)
def test_names_and_definitions_are_part_of_a_label_views_key(hashes, name):
    view = make_views(SETTINGS, "float16")[name]
    keys = set()
    for label, text in (("joy", "delight"), ("Joy", "delight"), ("joy", "fun"), (None, None)):
        view.definitions = [{"label": label, "definition": text}] if label else []
        keys.add(key_of(view.parts(Networks(config.Weights()))))
    assert len(keys) == 4


def test_a_view_without_a_network_is_left_out():
    names = tuple(make_views(config.Views(), "float16"))
    assert names == tuple(name for name in VIEW_NAMES if name != "words")
    assert VIEW_NAMES == ("body", "head", "objects", "depth", "scene", "labels", "words")


@pytest.mark.parametrize("name", VIEW_NAMES)
def test_a_key_has_one_spelling_and_survives_json(hashes, name):
    found = parts(name)
    assert key_of(json.loads(canonical(found))) == key_of(found)
    assert key_of(parts(name)) == key_of(found)
