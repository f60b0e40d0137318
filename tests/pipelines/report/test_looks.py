"""Where the encoders of scene and person looked, in the report of a head."""

import re

import numpy as np
import pytest
from PIL import Image

from pipelines import stages
from pipelines.looks import Look, overlay, sheet
from pipelines.uniemox.pretrain import pretrain
from tests.pipelines.uniemox.conftest import place, prepared, settings_of  # noqa: F401

BACKBONE = (
    "views.scene.network=uniemox",
    "views.scene.size=32",
    "views.body.network=uniemox",
    "views.body.size=32",
    "weights.folder=results/pretrain",
    "train.epochs=2",
    "train.batch=4",
    "train.mlp.hidden=[8]",
    "train.mlp.views=[body, scene]",
)


@pytest.fixture
def fitted(prepared):  # noqa: F811
    """A head on the features of a ViT, measured; its settings."""

    def fit(*more):
        settings = settings_of(prepared, *BACKBONE, *more)
        stages.extract(settings)
        stages.train(settings)
        stages.evaluate(settings)
        return settings

    pretrain(settings_of(prepared, "pretrain.epochs=1"))
    return fit


def shown(settings) -> str:
    page = stages.report(settings).read_text()
    found = re.search(r'<section id="looks".*?</section>', page, re.DOTALL)
    return found[0] if found else ""


def test_persons_are_shown_with_rollout_and_grad_cam_of_both_streams(fitted):
    said = shown(fitted("train.head=mlp"))
    assert said.count("<img") == 2  # report.looks
    assert re.search(r"person \d+: (calm|alarm) \d\.\d\d", said)


def test_a_head_without_gradients_has_no_grad_cam_and_still_its_rollout(fitted):
    settings = fitted("train.head=aa_knn", "train.aa_knn.views=[body, scene]")
    assert shown(settings).count("<img") == 2


def test_none_are_shown_where_none_are_asked_for(fitted):
    assert shown(fitted("train.head=mlp", "report.looks=0")) == ""


def test_another_encoder_than_that_of_the_features_shows_nothing_and_says_why(fitted):
    settings = fitted("train.head=mlp")
    other = settings.pretrain.model_copy(update={"seed": 5})
    pretrain(settings.model_copy(update={"pretrain": other}))
    said = shown(settings)
    assert "<img" not in said
    assert "not what the head was fitted on" in said


def test_the_lightest_place_of_an_overlay_is_where_the_map_is_greatest():
    square = np.full((32, 32, 3), 128, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1.0
    seen = np.asarray(overlay(square, heat, 64).convert("L"), int)
    row, column = np.unravel_index(seen.argmax(), seen.shape)
    assert 16 <= row < 32 and 32 <= column < 48


def test_a_flat_map_is_flat():
    seen = np.asarray(overlay(np.full((8, 8, 3), 90, np.uint8), np.full((2, 2), 0.3), 16))
    assert (seen == seen[0, 0]).all()


def test_a_sheet_has_each_panel_and_its_maps():
    square = np.zeros((8, 8, 3), np.uint8)
    one = Look("x", {"scene": (square, {"rollout": np.ones((2, 2))}), "body": (square, {})})
    assert isinstance(sheet(one), Image.Image)
    assert sheet(one).width > 2.9 * 200
