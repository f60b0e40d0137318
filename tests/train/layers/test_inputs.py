import pytest
import torch
from torch.autograd import gradcheck

from tests.train import made
from train.data import Batch
from train.layers.inputs import Standardise, mean_object


def batch(**views) -> Batch:
    return Batch(torch.zeros(2, 4), torch.ones(2), None, views)


def standardise() -> Standardise:
    """Mean 1 and deviation 2 of `body`; mean 2 and deviation 4 of the objects' regions."""
    see = Standardise({"body": 1, "objects.region": 1})
    for name, mean, deviation in (("body", 1.0, 2.0), ("objects_region", 2.0, 4.0)):
        see.get_buffer(f"{name}_mean").fill_(mean)
        see.get_buffer(f"{name}_deviation").fill_(deviation)
    return see


def test_standardise_by_hand():
    found = standardise()("body", batch(body={"features": torch.tensor([[5.0], [-1.0]])}))
    assert found.tolist() == [[2.0], [-1.0]]  # (5 - 1) / 2 and (-1 - 1) / 2


def test_what_is_missing_stays_zero_and_not_minus_the_mean():
    """The named array is read; a padded object is a zero in the cache and stays one."""
    region = torch.tensor([[[10.0], [0.0]], [[0.0], [0.0]]])
    mask = torch.tensor([[True, False], [False, False]])
    objects = {"features": torch.full((2, 2, 1), 99.0), "region": region, "mask": mask}
    found = standardise()("objects.region", batch(objects=objects))
    assert found.tolist() == [[[2.0], [0.0]], [[0.0], [0.0]]]
    face = {"features": torch.tensor([[5.0], [0.0]]), "mask": torch.tensor([True, False])}
    found = standardise()("body", batch(body=face))
    assert found.tolist() == [[2.0], [0.0]]


def test_off_it_gives_what_it_gets():
    see = Standardise({"body": 1}, on=False)
    values = torch.tensor([[5.0], [-1.0]])
    assert torch.equal(see("body", batch(body={"features": values})), values)
    assert not list(see.buffers())


def test_it_measures_the_rows_that_it_is_given_and_no_face_counts_for_none():
    """Of 1, 3 and 100: mean 2 and deviation 1 over the first two; the masked 7 is left out."""
    features = made.features(persons=16)
    body, head = features.views["body"]["features"], features.views["head"]
    body[:3, 0] = torch.tensor([1.0, 3.0, 100.0])
    head["features"][:3, 0] = torch.tensor([1.0, 3.0, 7.0])
    head["mask"][:3] = torch.tensor([True, True, False])
    see = Standardise({"body": made.WIDTH, "head": made.WIDTH})
    see.measure(features, torch.tensor([0, 1]))
    assert (see.body_mean[0].item(), see.body_deviation[0].item()) == pytest.approx((2, 1))
    see.measure(features, torch.tensor([0, 1, 2]))
    assert (see.head_mean[0].item(), see.head_deviation[0].item()) == pytest.approx((2, 1))


def test_the_mean_object_by_hand():
    values = torch.tensor([[[1.0], [3.0], [50.0]], [[9.0], [9.0], [9.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert mean_object(values, mask).tolist() == [[2.0], [0.0]]


def test_gradients():
    torch.manual_seed(0)
    values = torch.randn(2, 3, 1, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert gradcheck(lambda x: mean_object(x, mask), (values,))
    see = standardise().double()
    assert gradcheck(
        lambda x: see("objects.region", batch(objects={"region": x, "mask": mask})), (values,)
    )
