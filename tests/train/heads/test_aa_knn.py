"""AA-kNN: the mean of the neighbours' labels, whatever they are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from cache.errors import SettingsError
from cache.statuses import STATUS
from tests.train import made
from train.checkpoint import load_head, save_head
from train.data import from_arrays
from train.fit import fit, predict
from train.heads import aa_knn, closed
from train.labels import LabelKind

VIEWS = ["body", "scene"]


def settings(**own):
    return made.settings(head="aa_knn", aa_knn={"views": VIEWS, **own})


def labelled(kind: LabelKind, persons: int = 240, **changes):
    """Persons of `made`, with labels of this kind."""
    given = made.arrays(persons=persons)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), persons).astype(np.float32)
    if kind == "single":
        given["targets"] = np.eye(4, dtype=np.float32)[shares.argmax(1)]
    elif kind == "distribution":
        given["targets"] = shares
    return from_arrays(**given, kind=kind, **changes)


def seen(features, split: str) -> np.ndarray:
    """The views side by side, as they lie in the cache."""
    batch = features.batch(features.rows(split))
    return torch.cat([batch.views[name]["features"] for name in VIEWS], 1).numpy()


@pytest.mark.parametrize("kind", ["multi", "single", "distribution"])
@pytest.mark.parametrize("standardise", [True, False])
def test_it_is_scikit_learns_neighbours(kind, standardise):
    features = labelled(kind)
    train, test = seen(features, "train"), seen(features, "test")
    if standardise:
        mean, deviation = train.mean(0), train.std(0)
        train, test = (train - mean) / deviation, (test - mean) / deviation
    oracle = KNeighborsRegressor(n_neighbors=7)
    oracle.fit(train, features.truth(features.rows("train")).numpy())
    model = fit(features, settings(k=7, standardise=standardise)).model
    found = predict(model, features, features.rows("test"))
    np.testing.assert_allclose(found, oracle.predict(test), atol=1e-6)
    if kind != "multi":
        np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_the_paper_compares_features_as_they_are():
    """A feature a thousand times the others decides alone, unless it is scaled."""
    given = made.arrays(persons=240)
    given["views"]["scene"].arrays["features"][:, 0] *= 1000
    features = from_arrays(**given)
    rows = features.rows("train")
    alone = features.batch(rows).views["scene"]["features"][:, 0]

    def gap(standardise: bool) -> float:
        model = fit(features, settings(k=5, standardise=standardise)).model
        near = model.neighbours(model.near)
        return float((alone[near] - alone[:, None]).abs().mean())

    assert gap(False) < 0.1 * gap(True)


def test_it_compares_some_training_persons_at_a_time(monkeypatch):
    """With the same neighbours, the last chunk short of k among them, and few distances held."""
    features = labelled("distribution")
    model = fit(features, settings(k=9)).model
    at_once = model.neighbours(model.near)
    sizes = []
    told = torch.Tensor.topk

    def watched(values, *arguments, **more):
        sizes.append(values.shape[1])
        return told(values, *arguments, **more)

    monkeypatch.setattr(torch.Tensor, "topk", watched)
    monkeypatch.setattr(aa_knn, "CHUNK", 17)  # 120 = 7 x 17 + 1
    torch.testing.assert_close(model.neighbours(model.near), at_once)
    assert len(sizes) == 8 and max(sizes) <= 17 + 9


def test_a_training_person_is_its_own_neighbour():
    features = labelled("single")
    rows = features.rows("train")
    model = fit(features, settings(k=1)).model
    np.testing.assert_array_equal(predict(model, features, rows), features.truth(rows).numpy())


def test_it_opens_again_without_the_training_persons(tmp_path):
    features = labelled("distribution")
    model = fit(features, settings()).model
    save_head(tmp_path, model, settings(), features, {})
    again, info = load_head(tmp_path)
    assert info["spec"]["persons"] == len(features.rows("train")) == len(again.near)
    # a cache that has none of the training persons
    others = replace(features, kept=features.split == "test")
    rows = features.rows("test")
    np.testing.assert_array_equal(predict(again, others, rows), predict(model, features, rows))


def test_missing_faces_are_alike_and_objects_count_alike():
    given = made.arrays(persons=64)
    given["views"]["head"].status[:8] = STATUS["no_face"]
    given["views"]["objects"].arrays["count"][:4] = 0
    features = from_arrays(**given)
    own = made.settings(head="aa_knn", aa_knn={"views": ["head", "objects"], "k": 3})
    model = fit(features, own).model
    first = model.near[: int((features.rows("train") < 8).sum())]
    assert (first[:, : made.WIDTH] == 0).all() and (model.near[-1] != 0).any()
    batch = features.batch(features.rows("train"))
    there = batch.views["objects"]["mask"]
    objects = model.see("objects", batch)
    for row, mask in enumerate(there):
        mean = objects[row][mask].mean(0) if mask.any() else torch.zeros(made.WIDTH)
        torch.testing.assert_close(model.near[row, made.WIDTH :], mean)
    assert np.isfinite(predict(model, features, features.rows("test"))).all()


@pytest.mark.parametrize("kind", ["multi", "single", "distribution"])
def test_its_losses_are_finite_where_no_neighbour_has_a_label(kind):
    fitted = fit(labelled(kind), settings(k=1))
    (row,) = fitted.history
    assert np.isfinite(row["val_loss"]) and row["val_loss"] > row["train_loss"]
    assert not fitted.descended


def test_more_neighbours_than_persons_are_refused_by_the_setting():
    features = made.features(persons=16)
    with pytest.raises(SettingsError, match=r"train\.aa_knn\.k 9 .* 8 training persons"):
        fit(features, settings(k=9))


def test_it_is_closed_and_reads_every_view():
    assert closed("aa_knn")
    features = made.features(persons=32)
    model = fit(features, made.settings(head="aa_knn")).model
    assert list(model.widths) == ["body", "head", "objects", "depth", "scene"]
