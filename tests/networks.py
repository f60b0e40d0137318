"""Weights for tests of frozen networks: untrained, saved by the test, or real ones."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cache.errors import WeightsError
from extract.settings import Weights as WeightsSettings
from extract.weights import Weights, find


def untrained(network: str) -> Weights:
    return Weights(
        network=network,
        source="untrained",
        name=f"{network}, untrained",
        path=None,
        sha256="",
        licence="",
        trained=False,
    )


def given(network: str, path: Path, **more) -> Weights:
    """Weights that pass for trained ones, out of a file or folder that the test made."""
    return Weights(
        network=network,
        source="folder",
        name=f"{network}, made by a test",
        path=path,
        sha256="0" * 64,
        licence="none",
        trained=True,
        **more,
    )


def saved(network: str, model: torch.nn.Module, folder: Path, **more) -> Weights:
    path = folder / "weights.safetensors"
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, path)
    return given(network, path, **more)


def real(network: str) -> WeightsSettings:
    """Settings that find real weights of a network in the store or in packages; else skips."""
    settings = WeightsSettings(source=["store", "packages"])
    try:
        find(network, settings)
    except WeightsError as error:
        pytest.skip(f"no real weights of {network} here: {error}")
    return settings


def shake(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Give batch norms the statistics of a trained network, so that forgetting them shows."""
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.8, 1.2)
            torch.nn.init.uniform_(module.weight, 0.6, 0.9)
            torch.nn.init.uniform_(module.bias, -0.1, 0.1)
    return model.eval()
