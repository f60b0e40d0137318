"""The face detector of the catalogue, with its real weights, on real faces."""

import numpy as np
import pytest
import torch
from skimage import data
from torchvision.ops import box_iou

from extract.detectors import load_detector
from extract.detectors.ultralytics import ultralytics_tasks
from extract.detectors.yolo import YoloFaces, coco_names
from extract.weights import find
from extract.weights.packages import catalogue
from tests.networks import real

FACE = "yolo11m-face"
# marked by eye on the photograph: forehead to chin, ear to ear
MARKED = torch.tensor([[175.0, 75.0, 275.0, 185.0]])


@pytest.fixture(scope="module")
def faces():
    return load_detector(FACE, real(FACE), kind="faces")


def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)


@pytest.mark.slow
def test_every_tensor_has_its_place():
    from safetensors.torch import load_file

    model = ultralytics_tasks().DetectionModel(
        {**_shape(), "scale": "m"}, nc=len(YoloFaces.classes), verbose=False
    )
    model.load_state_dict(load_file(find(FACE, real(FACE)).path), strict=True)


def _shape() -> dict:
    from extract.detectors.ultralytics import shape_of

    return shape_of(FACE, ultralytics_tasks())


@pytest.mark.slow
def test_the_astronauts_face_is_found(faces):
    best = faces([astronaut()])[0]
    assert best.scores[0] > 0.7
    assert box_iou(torch.from_numpy(best.boxes[:1]), MARKED) > 0.6
    assert (best.scores[1:] < 0.5).all()


@pytest.mark.slow
def test_no_face_is_found_in_cloth_or_a_plain_picture(faces):
    cloth = astronaut()[:, 300:, 250:]
    plain = torch.full((3, 200, 200), 90, dtype=torch.uint8)
    assert all((found.scores < 0.5).all() for found in faces([cloth, plain]))


def test_its_licence_is_said():
    assert "AGPL" in catalogue()[FACE]["licence"]


@pytest.mark.slow
@pytest.mark.parametrize("network", ["yolo26n", "yolo26s"])
def test_objects_of_a_street_are_called_by_their_names(network):
    """A real photograph of one bus and several persons."""
    from importlib.util import find_spec
    from pathlib import Path

    from PIL import Image

    path = Path(find_spec("ultralytics").origin).parent / "assets" / "bus.jpg"
    with Image.open(path) as picture:
        bus = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)
    detector = load_detector(network, real(network), kind="objects")
    found = detector([bus])[0]
    named = [detector.classes[label] for label in found.labels[found.scores > 0.5]]
    assert named.count("bus") == 1 and named.count("person") >= 3
    assert detector.classes == coco_names()
