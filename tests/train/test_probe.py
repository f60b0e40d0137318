"""The ridge path over sets of views: the planted one carries the signal, and the rest none."""

import pytest

from cache.errors import DataError
from tests.train import made
from train.data import load
from train.fit import fit, predict
from train.metrics import bootstrap, chance_level, mean_average_precision
from train.probe import probe
from train.settings import Evaluate

VIEWS = ["body", "head", "objects", "depth", "scene"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe")
    made.write_cache(folder, made.arrays("head", persons=640))
    return folder


@pytest.fixture(scope="module")
def found(root):
    return probe(root, made.settings(), Evaluate(bootstrap=200))


def test_the_view_with_the_signal_stands_out(found):
    alone = {row["views"][0]: row for row in found["rows"] if row["set"] == "alone"}
    assert list(alone) == VIEWS
    assert [name for name, row in alone.items() if row["signal"]] == ["head"]
    without = {
        (set(VIEWS) - set(r["views"])).pop(): r for r in found["rows"] if r["set"] == "without"
    }
    (whole,) = (row for row in found["rows"] if row["set"] == "all")
    assert without["head"]["mAP"] < whole["mAP"] - 0.3
    for name in set(VIEWS) - {"head"}:
        assert abs(without[name]["mAP"] - whole["mAP"]) < 0.05
    assert found["untrained"] == ["depth: made"] and found["absent"] == []
    assert found["persons"] == 160 and found["split"] == "test"


def test_a_set_of_views_is_the_head_fitted_on_them(root, found):
    settings = made.settings(head="linear", linear={"views": ["head", "scene"]})
    features = load(root, ["head", "scene"])
    model = fit(features, settings).model
    rows = features.rows("test")
    scores = predict(model, features, rows)
    two = probe(root, made.settings(linear={"views": ["head", "scene"]}), Evaluate(bootstrap=100))
    (row,) = (row for row in two["rows"] if row["set"] == "all")
    true = features.truth(rows).numpy()
    assert row["mAP"] == pytest.approx(mean_average_precision(true, scores), abs=1e-6)
    assert row["penalty"] == pytest.approx(float(model.penalty))
    assert row["low"] < row["mAP"] < row["high"]
    assert found["random_mAP"] >= chance_level(true)


def test_intervals_are_of_pictures_drawn_whole(root):
    settings = made.settings(head="linear", linear={"views": ["head"]})
    (row,) = probe(root, settings, Evaluate(bootstrap=100, seed=3))["rows"]
    features = load(root, ["head"])
    rows = features.rows("test")
    scores = predict(fit(features, settings).model, features, rows)
    pictures = rows.numpy() // 2  # two persons each
    expected = bootstrap(features.truth(rows).numpy(), scores, pictures, 100, seed=3)
    assert (row["low"], row["high"]) == pytest.approx(
        (expected.mean_low, expected.mean_high), abs=1e-6
    )


def test_as_many_directions_as_features_change_nothing_and_fewer_do(root):
    def of(components):
        own = made.settings(linear={"views": ["head"], "components": components})
        return probe(root, own, Evaluate(bootstrap=100))["rows"][0]["mAP"]

    assert of(made.WIDTH) == pytest.approx(of(0), abs=1e-6)
    assert of(2) < of(0) - 0.1  # features of deviation 1 have no directions that lead


def test_views_that_are_absent_are_named_and_none_is_refused(tmp_path):
    given = made.arrays("body", persons=64)
    del given["views"]["depth"]
    made.write_cache(tmp_path, given)
    found = probe(tmp_path, made.settings(), Evaluate(bootstrap=100))
    assert found["absent"] == ["depth"] and len(found["rows"]) == 4 + 1 + 4
    with pytest.raises(DataError, match="none of the views"):
        probe(tmp_path, made.settings(linear={"views": ["depth"]}), Evaluate())
