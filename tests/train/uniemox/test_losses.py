"""The losses by hand, in numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from train.uniemox.losses import image_loss, normalised, pixel_loss, similarity_loss, spread

B, D = 6, 9


@pytest.fixture
def taught() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    described = torch.tensor([True, False, True, True, False, True])
    return {
        "fused": torch.randn(B, D, requires_grad=True),
        "image": torch.randn(B, D),
        "text": torch.randn(B, D),
        "described": described,
    }


def by_hand(fused, image, text, described, tau: float = 1.0) -> float:
    """L2 as it is written down, with tau."""
    y, o, t = (one.detach().numpy().astype(np.float64) for one in (fused, image, text))
    t = t[described.numpy()]
    a, c = (
        tau
        * (x / np.linalg.norm(x, axis=1, keepdims=True))
        @ (t / np.linalg.norm(t, axis=1)[:, None]).T
        for x in (y, o)
    )
    return 1 - np.mean(
        [cosine_similarity(p[None], q[None])[0, 0] for p, q in zip(a, c, strict=True)]
    )


# --------------------------------------------------------------------------------- pixels


def test_the_pixel_loss_is_the_mean_over_the_hidden_patches():
    predicted = torch.tensor([[[1.0, 3.0], [0.0, 0.0]], [[2.0, 2.0], [5.0, 5.0]]])
    target = torch.zeros(2, 2, 2)
    hidden = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    assert pixel_loss(predicted, target, hidden).item() == ((1 + 9) / 2 + 4) / 2


def test_only_hidden_patches_count_in_the_pixel_loss():
    """The trap: the loss on the patches that were seen, or on all."""
    torch.manual_seed(1)
    predicted = torch.randn(3, 5, 12, requires_grad=True)
    target, hidden = torch.randn(3, 5, 12), (torch.rand(3, 5) < 0.6).float()
    assert 0 < hidden.sum() < hidden.numel()
    loss = pixel_loss(predicted, target, hidden)
    loss.backward()
    assert (predicted.grad.abs().sum(-1) > 0).equal(hidden > 0)
    seen = torch.where(hidden[..., None] > 0, target, target + 7)
    assert pixel_loss(predicted, seen, hidden).equal(loss)
    unseen = torch.where(hidden[..., None] > 0, target + 7, target)
    assert pixel_loss(predicted, unseen, hidden) > loss + 1


def test_a_patch_is_normalised_by_itself_and_an_even_one_stays_finite():
    patches = torch.randn(2, 3, 48) * 5 + 2
    patches[0, 0] = 0.25
    scaled = normalised(patches)
    x = patches.numpy().astype(np.float64)
    by_numpy = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(scaled.numpy(), by_numpy, atol=1e-5)
    assert scaled[0, 0].abs().max() < 1e-3
    mean, deviation = spread(patches)
    assert torch.allclose(scaled * deviation + mean, patches, atol=1e-5)


# --------------------------------------------------------------------------------- similarity


@pytest.mark.parametrize("tau", [1.0, 0.07, 100.0])
def test_the_similarity_loss_is_as_written_down_whatever_tau_is(taught, tau):
    assert similarity_loss(**taught).item() == pytest.approx(by_hand(**taught, tau=tau), abs=2e-6)


def test_a_student_that_says_what_the_teacher_says_has_no_loss(taught):
    same = taught | {"fused": taught["image"] * 3}
    assert similarity_loss(**same).item() == pytest.approx(0, abs=1e-5)
    opposite = taught | {"fused": -taught["image"]}
    assert similarity_loss(**opposite).item() == pytest.approx(2, abs=1e-5)


def test_every_picture_is_a_row_and_only_texts_that_are_there_are_columns(taught):
    loss = similarity_loss(**taught)
    other = taught["text"].clone()
    other[1] = 50 * torch.randn(D)
    assert similarity_loss(**taught | {"text": other}).item() == loss.item()
    other[0] = torch.randn(D)
    assert abs(similarity_loss(**taught | {"text": other}).item() - loss.item()) > 1e-3
    loss.backward()
    assert (taught["fused"].grad.abs().sum(1) > 0).all(), "pictures without a text learn, too"


def test_fewer_than_two_texts_are_no_loss_and_no_gradient(taught):
    """The trap: the cosine of two numbers is 1 or -1, a softmax over one element."""
    for described in (torch.arange(B) == 2, torch.zeros(B, dtype=torch.bool)):
        loss = similarity_loss(**taught | {"described": described})
        assert loss.item() == 0
        loss.backward()
        assert taught["fused"].grad.abs().max() == 0
    two = similarity_loss(**taught | {"described": torch.arange(B) < 2})
    two.backward()
    assert two.item() > 0
    assert taught["fused"].grad.abs().max() > 1e-3


# --------------------------------------------------------------------------------- image


def test_the_image_loss_is_one_less_the_mean_cosine(taught):
    y, o = taught["fused"].detach().numpy(), taught["image"].numpy()
    expected = 1 - np.diag(cosine_similarity(y, o)).mean()
    assert image_loss(taught["fused"], taught["image"]).item() == pytest.approx(expected, abs=1e-6)


def test_no_loss_gives_its_gradient_to_what_is_already_right(taught):
    same = taught["image"].clone().requires_grad_()
    image_loss(same, taught["image"]).backward()
    assert same.grad.abs().max() < 1e-6


# --------------------------------------------------------------------------------- all


def test_rows_of_zeros_stay_finite_and_so_does_their_gradient(taught):
    for name in ("fused", "image", "text"):
        some = {key: value.detach().clone() for key, value in taught.items()}
        some[name][0] = 0
        some["fused"].requires_grad_()
        loss = similarity_loss(**some) + image_loss(some["fused"], some["image"])
        loss.backward()
        assert loss.isfinite(), name
        assert some["fused"].grad.isfinite().all(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_within_a_coarser_arithmetic(taught, dtype):
    exact = similarity_loss(**taught), image_loss(taught["fused"], taught["image"])
    with torch.autocast("cpu", dtype):
        coarse = similarity_loss(**taught), image_loss(taught["fused"], taught["image"])
    for one, other in zip(exact, coarse, strict=True):
        assert other.dtype == torch.float32
        assert one.item() == other.item()
    predicted = torch.full((1, 2, 3), 300.0, dtype=dtype)  # whose square float16 does not hold
    loss = pixel_loss(predicted, torch.zeros(1, 2, 3), torch.ones(1, 2))
    assert loss.item() == pytest.approx(90000, rel=1e-2)
