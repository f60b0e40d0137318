import json
import math

import numpy as np
import pytest
import torch

from tests.shared import shared
from train.layers import darn


def test_corner_distance_in_pixels_and_weights_by_hand():
    subject = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    objects = torch.tensor([[[3.0, 4.0, 5.0, 5.0], [0.0, 2.0, 9.0, 9.0]]])
    distance = darn.distances(subject, objects, torch.tensor([50.0]), "corner", "pixel")
    assert distance.tolist() == [[5.0, 2.0]]
    weight = darn.weights(distance, torch.ones(1, 2, dtype=torch.bool))
    near, far = math.exp(1 / 2), math.exp(1 / 5)
    assert weight[0].tolist() == pytest.approx([far / (near + far), near / (near + far)])


def test_centre_distance_in_diagonals_by_hand():
    subject = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    objects = torch.tensor([[[8.0, 5.0, 8.0, 13.0]]])  # centre (8, 9), the subject's is (5, 5)
    distance = darn.distances(subject, objects, torch.tensor([50.0]))
    assert distance.item() == pytest.approx(5 / 50)


@pytest.mark.parametrize("between", ["corner", "centre"])
@pytest.mark.parametrize("unit", ["pixel", "diagonal"])
def test_same_place_one_object_and_none_are_finite(between, unit):
    subject = torch.tensor([[5.0, 5.0, 9.0, 9.0]]).repeat(3, 1)
    objects = subject[:, None].repeat(1, 2, 1).requires_grad_()
    mask = torch.tensor([[True, True], [True, False], [False, False]])
    distance = darn.distances(subject, objects, torch.full((3,), 2000.0), between, unit)
    weight = darn.weights(distance, mask)
    assert weight.tolist() == [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]
    weight.square().sum().backward()
    assert torch.isfinite(objects.grad).all()


@pytest.mark.parametrize(
    ("unit", "share"), [("pixel", 1 / (1 + math.exp(-0.8))), ("diagonal", 1 / (1 + math.exp(-8)))]
)
def test_an_object_at_distance_0_counts_as_one_pixel_away(unit, share):
    """Beside one 5 pixels away: 1 / dist is 1 and 1/5 in pixels, 10 and 2 in diagonals of 10."""
    subject = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
    objects = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [3.0, 4.0, 13.0, 14.0]]])
    distance = darn.distances(subject, objects, torch.tensor([10.0]), "centre", unit)
    weight = darn.weights(distance, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(weight, torch.tensor([[share, 1 - share]]))


def test_each_person_has_the_diagonal_of_its_own_picture():
    subject = torch.zeros(2, 4)
    objects = torch.tensor([[[3.0, 4, 3, 4], [6, 8, 6, 8]], [[3.0, 4, 3, 4], [6, 8, 6, 8]]])
    distance = darn.distances(subject, objects, torch.tensor([10.0, 50.0]))
    torch.testing.assert_close(distance, torch.tensor([[0.5, 1.0], [0.1, 0.2]]))


def test_the_attended_features_by_hand():
    """A quarter of (4, 0) and three of (8, -4); nothing where no object is."""
    weight = torch.tensor([[0.25, 0.75], [0.0, 0.0]])
    features = torch.tensor([[[4.0, 0.0], [8.0, -4.0]], [[5.0, 5.0], [5.0, 5.0]]])
    assert darn.attend(weight, features).tolist() == [[7.0, -3.0], [0.0, 0.0]]


def test_padding_takes_no_weight_however_near():
    distance = torch.tensor([[9.0, 8.0, 1e-3]])
    mask = torch.tensor([[True, True, False]])
    alone = darn.weights(distance[:, :2], mask[:, :2])
    assert torch.equal(darn.weights(distance, mask)[:, :2], alone)


def test_equal_weights_are_one_over_the_count():
    distance = torch.tensor([[1.0, 2.0, 3.0]])
    mask = torch.tensor([[True, False, True]])
    assert darn.weights(distance, mask, equal=True).tolist() == [[0.5, 0.0, 0.5]]


def test_pixels_hardly_attend():
    """The paper's literal form: objects 50 and 500 pixels away get nearly the same weight."""
    mask = torch.ones(1, 2, dtype=torch.bool)
    pixels = darn.weights(torch.tensor([[50.0, 500.0]]), mask)
    diagonals = darn.weights(torch.tensor([[50.0, 500.0]]) / 800, mask)
    assert pixels[0, 0] < 0.505
    assert diagonals[0, 0] > 0.99


@pytest.mark.parametrize("between", ["corner", "centre"])
@pytest.mark.parametrize("unit", ["pixel", "diagonal"])
@pytest.mark.parametrize("equal", [False, True])
def test_gradients_of_distance_weights_and_sum(between, unit, equal):
    """With padding, with one object, with none, and with one in the subject's place."""
    torch.manual_seed(0)
    subject = (torch.rand(3, 4, dtype=torch.float64) * 10).requires_grad_()
    objects = torch.rand(3, 3, 4, dtype=torch.float64) * 10
    objects[0, 0] = subject[0].detach() + 0.1
    objects.requires_grad_()
    values = torch.rand(3, 3, 5, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    diagonal = torch.tensor([12.0, 14.0, 16.0], dtype=torch.float64)

    def f(subject, objects, values):
        weight = darn.weights(
            darn.distances(subject, objects, diagonal, between, unit), mask, equal
        )
        return darn.attend(weight, values)

    assert torch.autograd.gradcheck(f, (subject, objects, values))


def coco_scenes():
    """148 subjects: persons of COCO, each with the 2 to 10 largest other things around."""
    for split in ("train", "val"):
        file = shared(f"data/coco/coco_mini/annotations/instances_{split}2017.json")
        coco = json.loads(file.read_text())
        person = next(c["id"] for c in coco["categories"] if c["name"] == "person")
        for picture in coco["images"]:
            diagonal = math.hypot(picture["width"], picture["height"])
            things = [
                thing
                for thing in coco["annotations"]
                if thing["image_id"] == picture["id"] and not thing["iscrowd"]
            ]
            things.sort(key=lambda thing: -thing["area"])
            for subject in things:
                others = [thing for thing in things if thing is not subject][:10]
                if subject["category_id"] == person and subject["area"] >= 1024 and others[1:]:
                    boxes = torch.tensor([thing["bbox"] for thing in [subject, *others]])
                    boxes[:, 2:] += boxes[:, :2]
                    yield boxes[:1], boxes[None, 1:], torch.tensor([diagonal])


def test_on_real_boxes_the_literal_form_hardly_attends_and_the_default_does():
    """The figures in HugMe's docstring: entropy of alpha over that of equal weights."""
    scenes = list(coco_scenes())
    assert len(scenes) == 148
    ratio, share = {}, {}
    for between, unit in (("corner", "pixel"), ("centre", "diagonal")):
        entropies, shares = [], []
        for subject, objects, diagonal in scenes:
            k = objects.shape[1]
            distance = darn.distances(subject, objects, diagonal, between, unit)
            weight = darn.weights(distance, torch.ones(1, k, dtype=torch.bool))
            entropies.append(torch.special.entr(weight.double()).sum().item() / math.log(k))
            shares.append(weight.max().item() * k)
        ratio[unit] = np.quantile(entropies, [0.05, 0.5, 0.95])
        share[unit] = np.median(shares)
    np.testing.assert_allclose(ratio["pixel"], [0.9999, 1.0, 1.0], atol=5e-5)
    np.testing.assert_allclose(ratio["diagonal"], [0.0, 0.20, 0.87], atol=5e-3)
    assert share["pixel"] == pytest.approx(1.008, abs=1e-3)
    assert share["diagonal"] == pytest.approx(7.35, abs=1e-2)
