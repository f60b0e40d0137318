"""The head that docs/heads.md shows is a head: one file, found by name, fitted, saved, loaded."""

import re
from pathlib import Path

import numpy as np
import pytest

import train.heads
from cache.errors import SettingsError
from tests.train import made
from train.checkpoint import load_head, save_head
from train.fit import fit, predict
from train.heads import get_head, names
from train.metrics import chance_level, mean_average_precision

DOCS = Path(__file__).parents[3] / "docs" / "heads.md"


@pytest.fixture
def own(tmp_path, monkeypatch):
    (code,) = re.findall(
        r"```python\n# train/heads/(?:gated)\.py\n(.*?)```", DOCS.read_text(), re.S
    )
    assert len(code.splitlines()) <= 40
    (tmp_path / "gated.py").write_text(code)
    monkeypatch.setattr(train.heads, "__path__", [*train.heads.__path__, str(tmp_path)])
    yield "gated"
    train.heads.heads._classes.pop("gated", None)


def test_one_file_is_a_head(own, tmp_path):
    assert own in names()
    features = made.features("body")
    settings = made.settings(head=own, lr=1e-2, options={"hidden": 16})
    model = fit(features, settings).model
    assert model.classify[0].out_features == 16
    rows = features.rows("test")
    scores, true = predict(model, features, rows), features.truth(rows).numpy()
    assert mean_average_precision(true, scores) > chance_level(true) + 0.3
    save_head(tmp_path / "head", model, settings, features, {})
    again, info = load_head(tmp_path / "head")
    assert info["head"] == own and again.views(settings) == ("body", "scene")
    np.testing.assert_array_equal(predict(again, features, rows), scores)


def test_without_its_file_it_is_none():
    with pytest.raises(SettingsError, match="there is no 'gated'"):
        get_head("gated")
