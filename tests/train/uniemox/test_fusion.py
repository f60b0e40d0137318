"""The fusions against their formulas in numpy."""

from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import erf, expit, softmax

from train.uniemox.fusion import FUSIONS, Attended, Gated, Scaled, Weighted
from train.uniemox.settings import Pretrain

B, D, KAPPA = 5, 6, 3


def filled(name: str) -> torch.nn.Module:
    """A fusion in which no parameter is what it begins with."""
    torch.manual_seed(3)
    fusion = FUSIONS[name](D, KAPPA)
    for parameter in fusion.parameters():
        torch.nn.init.normal_(parameter)
    return fusion


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    return torch.randn(B, D), torch.randn(B, D)


def numbers(fusion: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: value.detach().numpy() for name, value in fusion.named_parameters()}


def close(fusion: torch.nn.Module, expected: np.ndarray) -> None:
    alpha, beta = vectors()
    with torch.no_grad():
        np.testing.assert_allclose(fusion(alpha, beta).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_weighted_is_lambda_alpha_plus_beta_and_begins_as_their_sum():
    alpha, beta = (one.numpy() for one in vectors())
    fusion = filled("weighted")
    assert isinstance(fusion, Weighted)
    assert [one.numel() for one in fusion.parameters()] == [1]
    close(fusion, fusion.scale.item() * alpha + beta)
    close(FUSIONS["weighted"](D, KAPPA), alpha + beta)


def test_scaled_is_the_norm_of_kappa_scaled_sums_and_a_shift():
    alpha, beta = (one.numpy() for one in vectors())
    fusion = filled("scaled")
    assert isinstance(fusion, Scaled)
    p = numbers(fusion)
    total = sum(p["scene"][i] * alpha + p["person"][i] * beta for i in range(KAPPA))
    mean, variance = total.mean(1, keepdims=True), total.var(1, keepdims=True)
    normal = (total - mean) / np.sqrt(variance + 1e-5)
    close(fusion, normal * p["norm.weight"] + p["shift"])


def test_attended_is_the_swish_of_kappa_weighted_sums_and_a_shift():
    alpha, beta = (one.numpy() for one in vectors())
    fusion = filled("attended")
    assert isinstance(fusion, Attended)
    p = numbers(fusion)
    total = sum(
        softmax(alpha @ p[f"scene.{i}.weight"].T, axis=1) * alpha
        + softmax(beta @ p[f"person.{i}.weight"].T, axis=1) * beta
        for i in range(KAPPA)
    )
    close(fusion, total * expit(total) + p["shift"])


def test_attended_weighs_the_features_of_each_picture_not_its_one_token():
    """A softmax over one element is 1 whatever it is given, and W would learn nothing."""
    fusion = filled("attended")
    alpha, beta = vectors()
    for weights in fusion.weights(alpha, beta):
        assert weights.shape == (KAPPA, B, D)
        assert torch.allclose(weights.sum(-1), torch.ones(KAPPA, B))
        assert (weights < 0.999).any(), "all weight on one feature"
        assert (weights[:, 0] - weights[:, 1]).abs().max() > 0.01, "the same for all pictures"
    fusion(alpha, beta).square().sum().backward()
    for layer in [*fusion.scene, *fusion.person]:
        assert layer.weight.grad.abs().max() > 1e-4


def test_gated_is_between_the_mlp_and_the_sum():
    alpha, beta = (one.numpy() for one in vectors())
    fusion = filled("gated")
    assert isinstance(fusion, Gated)
    p = numbers(fusion)
    both = np.concatenate([alpha, beta], axis=1)
    inner = both @ p["mlp.0.weight"].T + p["mlp.0.bias"]
    inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
    h = inner @ p["mlp.2.weight"].T + p["mlp.2.bias"]
    g = expit(both @ p["gate.weight"].T + p["gate.bias"])
    close(fusion, g * h + (1 - g) * (alpha + beta))


@pytest.mark.parametrize("name", FUSIONS)
def test_each_fusion_hears_both_streams_and_each_parameter_learns(name):
    fusion = filled(name)
    alpha, beta = (one.requires_grad_() for one in vectors())
    fused = fusion(alpha, beta)
    assert fused.shape == (B, D)
    (fused * torch.arange(B * D).view(B, D)).sum().backward()
    for one in (alpha, beta, *fusion.parameters()):
        assert one.grad.isfinite().all()
        assert one.grad.abs().max() > 0


@pytest.mark.parametrize("name", FUSIONS)
def test_a_picture_is_fused_the_same_whatever_its_neighbours(name):
    fusion = filled(name)
    alpha, beta = vectors()
    assert torch.allclose(fusion(alpha, beta)[:2], fusion(alpha[:2], beta[:2]), atol=1e-6)


def test_there_is_a_fusion_for_each_name_of_the_settings():
    assert set(FUSIONS) == set(get_args(Pretrain.model_fields["fusion"].annotation))
