"""Random numbers in the place of weights: they show that everything fits, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from extract import settings as config
from extract.weights.record import Weights

SEED = 0  # of every untrained network: the same name gives the same numbers on every run


def find(network: str, settings: config.Weights) -> Weights:
    """No weights, and how they are drawn instead."""
    # torch draws the numbers, so its version is part of what they are.
    how = f"untrained-seed{SEED}-torch{version('torch')}"
    return Weights(network, "untrained", "random weights", None, how, "none", trained=False)


@contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Draw untrained weights from one seed, and leave torch's own generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
