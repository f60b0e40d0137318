import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from train.metrics import mean_average_precision as oracle  # scikit-learn's
from train.metrics.on_device import mean_average_precision


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), persons=st.integers(1, 40), ties=st.integers(1, 50))
def test_it_is_scikit_learns_mean_for_each_head_ties_and_all(seed, persons, ties):
    rng = np.random.default_rng(seed)
    true = rng.random((persons, 5)) < rng.random(5)
    scores = (np.round(rng.random((3, persons, 5)) * ties) / ties).astype(np.float32)
    found = mean_average_precision(torch.from_numpy(true), torch.from_numpy(scores))
    assert found.shape == (3,) and found.dtype == torch.float64
    expected = [oracle(true, one) for one in scores]
    assert found.tolist() == pytest.approx(expected, abs=1e-12, nan_ok=True)
    one = mean_average_precision(torch.from_numpy(true), torch.from_numpy(scores[0]))
    assert float(one) == pytest.approx(expected[0], abs=1e-12, nan_ok=True)


def test_by_hand_with_a_tie():
    # Ranked 0.9 (hit), then a tie of a hit and a miss: precision 1, and 2 of 3.
    true = torch.tensor([[True], [True], [False], [False]])
    scores = torch.tensor([[0.9], [0.5], [0.5], [0.1]])
    assert float(mean_average_precision(true, scores)) == pytest.approx((1 + 2 / 3) / 2)


def test_without_a_positive_it_is_unknown():
    found = mean_average_precision(torch.zeros(4, 2, dtype=torch.bool), torch.rand(2, 4, 2))
    assert found.isnan().all()
