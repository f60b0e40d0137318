"""train.vary: settings by their whole names, refused by them."""

import math

import pytest

from cache.errors import SettingsError
from tests.train import made
from train.vary import vary


def test_settings_vary_by_whole_name_and_are_checked():
    base = made.settings()
    varied = vary(
        base, {"train.lr": 1, "train.hugme.hidden": [8, 4], "train.hugme.darn.unit": "pixel"}
    )
    assert (varied.lr, varied.hugme.hidden, varied.hugme.darn.unit) == (1.0, [8, 4], "pixel")
    assert isinstance(varied.lr, float)  # by the model, not by a copy
    assert vary(base, {}) == base == made.settings()
    assert vary(varied, {"train.lr": base.lr}).hugme == varied.hugme
    assert vary(base, {"train.options.depth": 3}).options == {"depth": 3}
    other = vary(base, {"train.rrla.width": 64, "train.head": "rrla"})
    assert other.rrla.width == 64 and other.head == "rrla"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train.lrr": 1}, r"train\.lrr: unknown.*mean train\.lr\?"),
        ({"train.hugme.bet": 1}, r"train\.hugme\.bet: unknown.*train\.hugme\.beta"),
        ({"train.lr.x": 1}, r"train\.lr\.x: unknown"),
        ({"evaluate.seed": 1}, r"evaluate\.seed: unknown"),
        ({"train": 1}, "train: unknown"),
        ({"train.": 1}, "train.: unknown"),
        ({"train.hugme": {"bet": 1}}, r"train\.hugme\.bet: unknown"),
        ({"train.lr": 0}, r"train\.lr: should be greater than 0 \(got 0\)"),
        ({"train.lr": math.nan}, r"train\.lr: "),
        ({"train.hugme.hidden": [8]}, r"train\.hugme\.hidden: "),
        ({"train.hugme.hidden": [8, 0]}, r"train\.hugme\.hidden\.1: "),
        ({"train.rrla.width": 8}, r"train\.rrla\.width: .*train\.head is hugme; .*to rrla"),
        ({"train.hugme.beta": 0.1, "train.head": "rrla"}, r"train\.hugme\.beta: .* is rrla"),
        ({"train.head": "hugmi"}, r"train\.head: there is no 'hugmi'.*'hugme'"),
    ],
)
def test_a_change_that_is_wrong_or_idle_is_refused_by_its_name(changes, said):
    with pytest.raises(SettingsError, match=said):
        vary(made.settings(), changes)
