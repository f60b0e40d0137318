"""Detectors against torchvision used directly, sums by hand, and real photographs of people."""

import ast
import csv
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import detection
from torchvision.ops import FrozenBatchNorm2d, box_iou, roi_align

from cache.errors import SettingsError
from extract.detectors import Detections, Detector, blazeface, detectors, load_detector
from extract.detectors.faster_rcnn import FasterRCNN
from extract.detectors.letterbox import letterbox
from extract.detectors.yolo import YoloFaces, YoloObjects
from extract.weights import Weights
from tests.networks import real, saved, shake, untrained
from tests.shared import shared

SMALL = "fasterrcnn_mobilenet_v3_large_320_fpn"
# A neighbour changes the order of a sum, nothing more: boxes by parts of a pixel.
PIXELS = 0.01
RELATIVE = 1e-4


def astronaut() -> torch.Tensor:
    from skimage import data

    return torch.from_numpy(data.astronaut()).permute(2, 0, 1)


def bus() -> torch.Tensor:
    """The street photograph inside ultralytics: a bus and four people, (3, 1080, 810)."""
    folder = Path(importlib.util.find_spec("ultralytics").origin).parent
    return opened(folder / "assets" / "bus.jpg")


def opened(path: Path) -> torch.Tensor:
    with Image.open(path) as file:
        return torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)


def emotic_persons() -> list[tuple[torch.Tensor, tuple[int, ...]]]:
    """The 37 persons of the real EMOTIC pictures: the picture and their box, clipped to it."""
    root = shared("data/emotic_pictures")
    persons = []
    for split in ("train", "val", "test"):
        with open(root / f"{split}.csv") as file:
            for row in csv.DictReader(file):
                picture = opened(root / row["Folder"] / row["Filename"])
                x1, y1, x2, y2 = map(int, ast.literal_eval(row["BBox"]))
                height, width = picture.shape[1:]
                persons.append((picture, (max(x1, 0), max(y1, 0), min(x2, width), min(y2, height))))
    assert len(persons) == 37
    return persons


def crops(persons) -> list[torch.Tensor]:
    return [picture[:, y1:y2, x1:x2] for picture, (x1, y1, x2, y2) in persons]


def limited(cls: type[Detector], weights: Weights, **limits: float) -> Detector:
    """A detector of another `score` or `most`."""
    return type(cls.__name__, (cls,), limits)(weights)


def same(a: Detections, b: Detections) -> bool:
    if len(a) != len(b) or not np.array_equal(a.labels, b.labels):
        return False
    if len(a) == 0:
        return True
    equal = (
        np.abs(a.boxes - b.boxes).max() < PIXELS and np.abs(a.scores - b.scores).max() < RELATIVE
    )
    if a.regions is not None:
        equal &= np.abs(a.regions - b.regions).max() <= RELATIVE * np.abs(b.regions).max()
    return bool(equal)


def shared_part(a: Detections, b: Detections) -> float:
    """Part of a's detections that b has too. Random networks score many boxes alike to nine
    digits, so that the last bits decide their order and which of two neighbours stays."""
    boxes = np.abs(a.boxes[:, None] - b.boxes[None]).max(-1) < PIXELS
    scores = np.abs(a.scores[:, None] - b.scores[None]) < RELATIVE
    found = boxes & scores & (a.labels[:, None] == b.labels[None])
    if a.regions is not None:
        off = np.abs(a.regions[:, None] - b.regions[None]).max(-1)
        found &= off <= RELATIVE * np.abs(b.regions).max()
    return float(found.any(1).mean())


# -------------------------------------------------------------------------------- the register


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(SettingsError, match="'blazefaces'; did you mean 'blazeface'"):
        detectors.get("blazefaces")
    with pytest.raises(SettingsError, match="did you mean 'fasterrcnn_resnet50_fpn_v2'"):
        detectors.get("faster_rcnn_resnet50_fpn_v2", "objects")


def test_a_detector_of_the_wrong_kind_is_refused():
    with pytest.raises(SettingsError, match="is for objects, but this place needs faces"):
        detectors.get("yolo26n", "faces")


def test_described_as_it_is_built():
    weights = untrained(SMALL)
    built = FasterRCNN(weights)
    assert built.preprocessing == detectors.describe(weights)
    json.dumps(built.preprocessing)


# ---------------------------------------------------------------------------------- letterbox


@pytest.mark.parametrize("size", [(37, 200), (480, 640), (1080, 810), (1, 9), (128, 128)])
def test_letterbox_boxes_come_back(size):
    height, width = size
    picture = torch.full((3, height, width), 200, dtype=torch.uint8)
    square, place = letterbox(picture, 128, fill=7)
    assert square.shape == (3, 128, 128)
    inside = (square - 200).abs().amax(dim=0) < 1e-3
    rows, columns = inside.nonzero(as_tuple=True)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    back = place.back(np.array([[float(v) for v in seen]]))
    assert np.allclose(back, [[0, 0, width, height]], atol=1e-3)
    assert (square[:, ~inside] == 7).all()


def test_letterbox_refuses_an_empty_picture():
    with pytest.raises(ValueError, match="uint8"):
        letterbox(torch.zeros((3, 0, 5), dtype=torch.uint8), 128, fill=0)


# ------------------------------------------------------------------------------- Faster R-CNN


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """torchvision's own small model with random numbers, and ours filled with the same."""
    torch.manual_seed(2)
    model = getattr(detection, SMALL)(weights=None, weights_backbone=None, box_score_thresh=0.0)
    shake(model)
    weights = saved(SMALL, model, tmp_path_factory.mktemp("rcnn"))
    return model, limited(FasterRCNN, weights, score=0.0)


def test_faster_rcnn_equals_torchvision(small, monkeypatch):
    model, ours = small
    # Random scores lie so close that another order of sums turns some about: here, the same order.
    monkeypatch.setattr(FasterRCNN, "memory_format", torch.contiguous_format)
    ours.model.to(memory_format=torch.contiguous_format)
    pictures = [astronaut(), bus()]
    for picture, got in zip(pictures, ours(pictures), strict=True):
        with torch.inference_mode():
            expected = model([picture.float() / 255])[0]
        assert len(got) == len(expected["boxes"]) > 10
        assert np.allclose(got.boxes, expected["boxes"].numpy(), atol=PIXELS)
        assert np.allclose(got.scores, expected["scores"].numpy(), atol=1e-5)
        assert np.array_equal(got.labels, expected["labels"].numpy())
        assert got.boxes.dtype == np.float32 and got.scores.dtype == np.float32


def test_region_features_are_those_of_the_final_boxes(small):
    """By hand: each final box's pyramid level by its area (FPN, equation 1), RoIAlign, box head."""
    model, ours = small
    picture = astronaut()
    got = ours([picture])[0]
    with torch.inference_mode():
        images, _ = model.transform([picture.float() / 255])
        levels = list(model.backbone(images.tensors).values())[:-1]  # the last one is pooled
        height, width = images.image_sizes[0]
        scale = torch.tensor([width / 512, height / 512] * 2)
        strides = [2 ** round(math.log2(images.tensors.shape[-1] / f.shape[-1])) for f in levels]
        low, high = math.log2(strides[0]), math.log2(strides[-1])
        for box, region in list(zip(got.boxes, got.regions, strict=True))[:20]:
            box = torch.from_numpy(box) * scale
            area = (box[2] - box[0]) * (box[3] - box[1])
            level = math.floor(4 + math.log2(math.sqrt(float(area)) / 224) + 1e-6)
            number = int(min(max(level, low), high) - low)
            pooled = roi_align(
                levels[number], [box[None]], 7, 1 / strides[number], sampling_ratio=2
            )
            expected = model.roi_heads.box_head(pooled)[0].numpy()
            assert np.allclose(region, expected, atol=1e-3 * np.abs(expected).max())
    assert got.regions.shape == (len(got), 1024) and ours.region_width == 1024


def test_pictures_of_other_sizes_change_nothing(small):
    """In one batch of torchvision they do: the padding reaches the smaller picture's features."""
    model, ours = small
    one = astronaut()
    pictures = [one, bus()[:, :300], one.flip(2), bus(), astronaut(), bus().flip(2)]
    together = ours(pictures)
    for picture, got in zip(pictures, together, strict=True):
        assert shared_part(got, ours([picture])[0]) >= 0.9
    with torch.inference_mode():
        alone = model([one.float() / 255])[0]["boxes"]
        mixed = model([one.float() / 255, bus()[:, :300].float() / 255])[0]["boxes"]
    assert alone.shape != mixed.shape or (alone - mixed).abs().max() > PIXELS


def test_pictures_that_share_only_a_side_change_nothing(small):
    """Beside another of its height or of its width, a picture would be padded just the same."""
    _, ours = small
    pictures = [astronaut(), bus()[:, :512], bus()[:, :, :512]]
    assert [tuple(one.shape[1:]) for one in pictures] == [(512, 512), (512, 810), (1080, 512)]
    assert shared_part(ours(pictures)[0], ours(pictures[:1])[0]) >= 0.9


def test_no_detection_is_an_empty_answer():
    ours = limited(FasterRCNN, untrained(SMALL), score=1.0)
    got = ours([astronaut(), bus()])
    assert [len(one) for one in got] == [0, 0]
    assert got[0].regions.shape == (0, 1024)
    assert ours([]) == []


def test_limits_keep_the_best(small):
    _, ours = small
    everything = ours([astronaut()])[0]
    limits = limited(FasterRCNN, ours.weights, score=float(everything.scores[20]), most=10)
    best, found = everything[np.arange(10)], limits([astronaut()])[0]
    np.testing.assert_allclose(found.scores, best.scores, rtol=RELATIVE)
    # Two of them score alike to the last bit, and may come in either order.
    assert shared_part(found, best) == shared_part(best, found) == 1


def test_class_names_are_torchvisions():
    ours = FasterRCNN(untrained(SMALL))
    assert (ours.classes[0], ours.classes[1], ours.classes[90]) == (
        "__background__",
        "person",
        "toothbrush",
    )


@pytest.mark.slow
def test_the_first_resnet_version_has_batch_norms_without_epsilon(tmp_path):
    """torchvision sets it to 0 for the COCO weights: a layer against the frozen batch norm."""
    name = "fasterrcnn_resnet50_fpn"
    torch.manual_seed(2)
    model = shake(getattr(detection, name)(weights=None, weights_backbone=None))
    ours = FasterRCNN(saved(name, model, tmp_path)).model.backbone.body.bn1
    frozen = FrozenBatchNorm2d(64, eps=0.0)
    frozen.load_state_dict(model.backbone.body.bn1.state_dict())
    x = torch.randn(1, 64, 8, 8)
    assert torch.allclose(ours(x), frozen(x), atol=1e-6)


# ---------------------------------------------------------------------------------- BlazeFace


def test_anchors_by_hand():
    """16 x 16 cells of two, then 8 x 8 cells of six, row by row, in the middle of the cell."""
    centres = blazeface.anchors()
    assert centres.shape == (896, 2)
    assert np.allclose(centres[[0, 1]], 0.5 / 16)
    assert np.allclose(centres[2], [1.5 / 16, 0.5 / 16])
    assert np.allclose(centres[32], [0.5 / 16, 1.5 / 16])
    assert np.allclose(centres[512:518], 0.5 / 8)
    assert np.allclose(centres[895], 7.5 / 8)


def test_decoding_by_hand():
    raw = np.zeros((896, 16), np.float32)
    raw[2, :4] = [4, 8, 20, 10]  # centre 4 right of and 8 below the anchor at (12, 4)
    scores = np.full((896, 1), -1000, np.float32)
    scores[2], scores[3] = 0, 1000
    boxes, scores = blazeface.decode(raw, scores)
    assert np.allclose(boxes[2], [6, 7, 26, 17])
    assert np.allclose(scores[[0, 2, 3]], [0, 0.5, 1])


def test_blending_by_hand():
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60], [0, 0, 10, 12], [1, 0, 11, 10]], np.float32)
    scores = np.array([0.9, 0.7, 0.6, 0.3], np.float32)  # the last is under half of the best
    got, kept = blazeface.blend(boxes, scores, 0.3)
    assert np.allclose(got, [[0, 0, 10, (0.9 * 10 + 0.6 * 12) / 1.5], [50, 50, 60, 60]])
    assert np.allclose(kept, [0.9, 0.7])
    none, _ = blazeface.blend(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), 0.3)
    assert none.shape == (0, 4)


def test_windows_of_a_standing_person_and_of_a_close_up():
    assert blazeface.windows(300, 100) == (150,)
    assert blazeface.windows(300, 200) == (150, 200)
    assert blazeface.windows(100, 300) == (50, 100)
    assert blazeface.windows(1, 1) == (1,)


@pytest.fixture(scope="module")
def face_detector():
    return load_detector("blazeface", real("blazeface"), kind="faces")


def test_blazeface_finds_the_astronauts_face(face_detector):
    best = face_detector([astronaut()])[0]
    assert best.scores[0] > 0.8
    # marked by eye: forehead to chin, ear to ear
    marked = torch.tensor([[175.0, 75.0, 275.0, 185.0]])
    assert box_iou(torch.from_numpy(best.boxes[:1]), marked) > 0.6
    assert (best.scores[1:] < 0.5).all()


def test_blazeface_finds_faces_of_emotic_persons(face_detector):
    found = face_detector(crops(emotic_persons()))
    assert sum(len(one) > 0 and one.scores[0] > 0.5 for one in found) >= 32


def test_blazeface_finds_nothing_in_a_plain_picture(face_detector):
    plain = torch.full((3, 200, 100), 90, dtype=torch.uint8)
    assert (face_detector([plain])[0].scores < 0.5).all()


def test_blazeface_does_not_depend_on_the_neighbours(face_detector):
    pictures = [astronaut(), bus(), astronaut()[:, :50, :300], bus()[:, 400:900, :300]]
    for picture, got in zip(pictures, face_detector(pictures), strict=True):
        assert same(got, face_detector([picture])[0])
    assert face_detector([]) == []


# --------------------------------------------------------------------------------------- YOLO

CONTAINED = """
import os, socket, sys, threading
tried = []
def refuse(*what, **more):
    tried.append(what)
    raise OSError("no network in this test")
socket.getaddrinfo = socket.socket.connect = refuse
import torch, numpy, extract.detectors.yolo
before, printing = dict(os.environ), repr(torch.tensor([1 / 3])) + repr(numpy.array([1 / 3]))
from tests.networks import untrained
yolo = extract.detectors.yolo.YoloObjects(untrained("yolo26n"))
yolo([torch.zeros((3, 64, 64), dtype=torch.uint8)])
assert not tried, tried
assert repr(torch.tensor([1 / 3])) + repr(numpy.array([1 / 3])) == printing
changed = {k for k in before.keys() | os.environ.keys() if before.get(k) != os.environ.get(k)}
assert not {k for k in changed if "YOLO" in k or "OMP" in k or "LIBRARY" in k}, changed
from ultralytics.utils import ONLINE, SETTINGS
assert not ONLINE and not SETTINGS["sync"]
others = [t for t in threading.enumerate() if t is not threading.main_thread()]
assert not others, others
"""


def test_ultralytics_stays_offline_silent_and_leaves_nothing_behind(tmp_path):
    """In a process of its own, with an empty home folder and no network."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("YOLO")}
    environment = inherited | {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CONTAINED], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert not [path for path in tmp_path.rglob("*") if "ltralytics" in path.name]


@pytest.fixture(scope="module")
def yolo():
    return load_detector("yolo26n", real("yolo26n"), kind="objects")


def test_yolo_finds_the_bus_and_its_people(yolo):
    got = yolo([bus()])[0]
    names = [yolo.classes[label] for label in got.labels[got.scores > 0.5]]
    assert names.count("person") >= 3 and names.count("bus") == 1
    best = got.boxes[[yolo.classes[label] for label in got.labels].index("bus")]
    marked = torch.tensor([[10.0, 230.0, 805.0, 750.0]])  # by eye
    assert box_iou(torch.from_numpy(best)[None], marked) > 0.8


def test_yolo_finds_emotic_persons(yolo):
    persons = emotic_persons()
    found, person = 0, yolo.classes.index("person")
    for (_, box), got in zip(persons, yolo([picture for picture, _ in persons]), strict=True):
        boxes = torch.from_numpy(got.boxes[(got.scores >= 0.25) & (got.labels == person)])
        found += bool((box_iou(boxes, torch.tensor([box]).float()) >= 0.5).any())
    assert found >= 35


def test_yolo_does_not_depend_on_the_neighbours(yolo):
    pictures = [bus(), astronaut(), bus()[:, :200], astronaut().flip(2)]
    for picture, got in zip(pictures, yolo(pictures), strict=True):
        assert same(got, yolo([picture])[0])


@pytest.mark.parametrize("name", ["yolov8n-face", "yolo11n-face"])
def test_yolo_versions_that_need_suppression(name, tmp_path):
    """One thing seen by several anchors is reported once, and boxes are in the picture's pixels."""
    ours = YoloFaces(untrained(name))
    assert not ours.end_to_end and ours.classes == ("face",)
    raw = torch.zeros(5, 4)  # cx cy w h score, four anchors
    raw[:, 0] = torch.tensor([320, 320, 100, 50, 0.9])
    raw[:, 1] = torch.tensor([322, 320, 100, 50, 0.8])
    raw[:, 2] = torch.tensor([100, 300, 40, 40, 0.7])
    raw[:, 3] = torch.tensor([500, 300, 40, 40, 0.01])
    boxes, scores, labels = ours._kept(raw)
    assert boxes.tolist() == [[270, 295, 370, 345], [80, 280, 120, 320]]
    assert np.allclose(scores, [0.9, 0.7]) and labels.tolist() == [0, 0]


def test_yolo_face_answers_in_the_form_of_blazeface():
    got = limited(YoloFaces, untrained("yolov8n-face"), score=0.0, most=5)([bus()])[0]
    assert got.boxes.shape == (5, 4) and got.labels.tolist() == [0] * 5
    assert (got.boxes >= 0).all() and (got.boxes <= [810, 1080, 810, 1080]).all()


def test_yolo_has_the_80_classes():
    classes = YoloObjects(untrained("yolo26n")).classes
    assert len(classes) == 80
    assert (classes[0], classes[5], classes[79]) == ("person", "bus", "toothbrush")
