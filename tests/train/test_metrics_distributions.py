"""train.metrics.distributions against scipy and cases counted by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial import distance
from scipy.stats import entropy

from cache.errors import DataError
from train import metrics
from train.labels import is_distribution

positive = arrays(np.float64, (4, 5), elements=st.floats(0.01, 1)).map(
    lambda rows: rows / rows.sum(axis=1, keepdims=True)
)


def measured(d, p):
    found = metrics.distribution_measures(np.array([d], float), np.array([p], float))
    return {name: float(values[0]) for name, values in found.items()}


def test_the_case_of_the_design():
    found = measured([0.5, 0.3, 0.2], [0.4, 0.4, 0.2])
    expected = [0.1, 0.18098, 0.25397, 0.025267, 0.97333, 0.9]
    assert list(found) == list(metrics.MEASURES)
    assert list(found.values()) == pytest.approx(expected, abs=5e-6)


@given(positive, positive)
@settings(max_examples=40, deadline=None)
def test_scipy_is_the_oracle(true, predicted):
    found = metrics.distribution_measures(true, predicted)
    for row, (d, p) in enumerate(zip(true, predicted, strict=True)):
        assert found["chebyshev"][row] == pytest.approx(distance.chebyshev(d, p))
        assert found["canberra"][row] == pytest.approx(distance.canberra(d, p))
        assert found["kl"][row] == pytest.approx(entropy(d, p), abs=1e-12)
        assert found["cosine"][row] == pytest.approx(1 - distance.cosine(d, p))
        assert found["intersection"][row] == pytest.approx(1 - distance.cityblock(d, p) / 2)
        assert found["clark"][row] == pytest.approx(np.sqrt((((d - p) / (d + p)) ** 2).sum()))
    for values, most in zip(found.values(), metrics.highest(5), strict=True):
        assert (values >= -1e-12).all() and (values <= most + 1e-12).all()


def test_equal_distributions():
    found = measured([0.5, 0.5, 0], [0.5, 0.5, 0])
    assert found == pytest.approx(
        {"chebyshev": 0, "clark": 0, "canberra": 0, "kl": 0, "cosine": 1, "intersection": 1}
    )


def test_zeros_on_either_side_and_on_both():
    # d = 0: its terms of Clark and Canberra are 1, that of KL is 0. Both 0 (last label): no term.
    found = measured([1, 0, 0], [0.5, 0.5, 0])
    assert found["clark"] == pytest.approx(np.sqrt(1 / 9 + 1))
    assert found["canberra"] == pytest.approx(1 / 3 + 1)
    assert found["kl"] == pytest.approx(np.log(2))
    # p = 0 where d is not: dear, and finite
    found = measured([0.5, 0.5, 0], [1, 0, 0])
    assert found["kl"] == pytest.approx(0.5 * np.log(0.5) + 0.5 * np.log(0.5 / 1e-12))
    # nothing in common: the worst of each but KL
    found = measured([1, 0], [0, 1])
    assert list(found.values()) == pytest.approx([1, np.sqrt(2), 2, np.log(1e12), 0, 0])


@pytest.mark.parametrize(
    ("true", "predicted", "says"),
    [
        ([[0.5, 0.4]], [[0.5, 0.5]], "true distribution of person 0 sums to 0.9.*votes"),
        ([[0.5, 0.5]], [[0.9, 0.9]], "predicted distribution of person 0.*output: softmax"),
        ([[0.5, 0.5]], [[1.5, -0.5]], "-0.5 as its least"),
        ([[0.5, 0.5]], [[np.nan, 0.5]], "predicted distribution"),
        ([[0.5, 0.5]], [[1.0]], r"\(1, 2\).*\(1, 1\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), "one person or more"),
    ],
)
def test_what_is_no_distribution_is_refused(true, predicted, says):
    with pytest.raises(DataError, match=says):
        metrics.distribution_measures(np.array(true), np.array(predicted))


def test_rounding_is_no_refusal():
    rows = np.random.default_rng(0).dirichlet(np.ones(26), 50).astype(np.float16)
    assert is_distribution(rows)
    assert not is_distribution(rows * 1.01)
