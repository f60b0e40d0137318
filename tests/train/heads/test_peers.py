"""Every head: learns what its views carry, comes back from disk the same, says what it reads."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as SkRidge

from cache.errors import DataError, SettingsError
from cache.statuses import STATUS
from tests.train import made
from train.checkpoint import load_head, save_head
from train.data import expand, from_arrays
from train.fit import fit, outputs_of, predict
from train.heads import get_head, names
from train.metrics import chance_level, mean_average_precision

READS = {
    "aa_knn": ("body", "head", "objects", "depth", "scene"),
    "caer_net": ("head", "scene"),
    "helo": ("body", "head", "objects", "depth", "scene"),
    "hugme": ("body", "head", "objects", "depth", "scene"),
    "kosti": ("body", "scene"),
    "linear": ("body", "head", "objects", "depth", "scene"),
    "ml_gcn": ("body", "scene"),
    "mlp": ("body", "head", "objects", "depth", "scene"),
    "rrla": ("body", "objects"),
    "sa_bfgs": ("body", "head", "objects", "depth", "scene"),
}
SMALL = {
    "rrla": {"heads": 2, "width": 4, "values": 4, "squeeze": 2, "graph_width": 16},
    "caer_net": {"hidden": 16, "dropout": 0.0},
    "kosti": {"hidden": 16, "dropout": 0.0},
    "ml_gcn": {"hidden": 16, "words": "labels"},
    "mlp": {"hidden": [32], "dropout": 0.0},
    "linear": {"penalties": [0.001, 0.1]},
    "aa_knn": {"k": 15},
    "helo": {"width": 16, "tokens": [4, 4], "heads": 2, "hidden": 32, "dropout": 0.0},
}
SMALL["rrla"] |= {"regions": "features", "words": "labels"}


def settings(head: str, **changes):
    own = {**SMALL, **{name: {**SMALL.get(name, {}), **changes.pop(name, {})} for name in SMALL}}
    return made.settings(head=head, **own, **{"lr": 1e-2, "patience": 15, **changes})


def test_there_is_a_head_for_each_row():
    assert names() == sorted(READS)


# HugMe's own tests ask the same, and more.
# Of 40 numbers four speak, a third as loud after the mean: no neighbour is near by them.
HARD = {("aa_knn", "objects")}
LEARNS = [
    (name, view)
    for name, views in READS.items()
    for view in views
    if name != "hugme" and (name, view) not in HARD
]


@pytest.mark.parametrize(("name", "view"), LEARNS)
def test_it_learns_from_each_view_it_reads(name, view):
    features = made.features(view)
    model = fit(features, settings(name)).model
    rows = features.rows("test")
    true = features.truth(rows).numpy()
    found = mean_average_precision(true, predict(model, features, rows))
    # Equal weights of three objects leave a third of the one that carries the labels.
    assert found > chance_level(true) + 0.2, (name, view, found)


@pytest.mark.parametrize("name", sorted(READS))
def test_it_is_the_same_from_disk(name, tmp_path):
    features = made.features(persons=64)
    some = settings(name, epochs=2)
    model = fit(features, some).model
    save_head(tmp_path, model, some, features, {})
    again, _ = load_head(tmp_path)
    rows = features.rows("test")
    np.testing.assert_array_equal(predict(again, features, rows), predict(model, features, rows))
    assert set(expand(again.views(some), features.specs)) >= set(READS[name])


@pytest.mark.parametrize("name", sorted(READS))
def test_a_missing_view_is_named(name):
    given = made.arrays(persons=16)
    view = READS[name][0]
    del given["views"][view]
    features = from_arrays(**given)
    with pytest.raises(DataError, match=view):
        get_head(name).setup(settings(name), features, features.rows("train"))


@pytest.mark.parametrize("name", sorted(READS))
def test_persons_without_face_and_objects_are_scored(name):
    given = made.arrays(persons=64)
    given["views"]["head"].status[:] = STATUS["no_face"]
    given["views"]["objects"].arrays["count"][:] = 0
    features = from_arrays(**given)
    model = fit(features, settings(name, epochs=2)).model
    assert np.isfinite(predict(model, features, features.rows("test"))).all()


# Scores of ridge regression on single labels are no shares.
SUM_TO_1 = [
    (n, k) for n in READS for k in ("single", "distribution") if (n, k) != ("linear", "single")
]


@pytest.mark.parametrize(("name", "kind"), SUM_TO_1)
def test_scores_of_single_labels_and_distributions_sum_to_1(name, kind):
    given = made.arrays(persons=64)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(4), 64).astype(np.float32)
    given["targets"] = np.eye(4, dtype=np.float32)[shares.argmax(1)] if kind == "single" else shares
    features = from_arrays(**given)
    assert features.kind == kind
    model = fit(features, settings(name, epochs=2)).model
    scores = predict(model, features, features.rows("test"))
    np.testing.assert_allclose(scores.sum(1), 1, rtol=1e-5)
    assert (scores >= 0).all()


def test_linear_is_scikit_learns_ridge():
    features = made.features(persons=240)
    some = settings(
        "linear", linear={"views": ["body", "scene"], "penalties": [0.05], "components": 0}
    )
    model = fit(features, some).model
    x = {}
    for split in ("train", "test"):
        batch = features.batch(features.rows(split))
        x[split] = torch.cat([batch.views[n]["features"] for n in ("body", "scene")], 1).numpy()
    mean, deviation = x["train"].mean(0), x["train"].std(0)
    train = features.rows("train")
    oracle = SkRidge(alpha=0.05 * len(train))
    oracle.fit((x["train"] - mean) / deviation, features.truth(train).numpy())
    np.testing.assert_allclose(
        predict(model, features, features.rows("test")),
        oracle.predict((x["test"] - mean) / deviation),
        atol=1e-5,
    )


def test_linear_takes_the_penalty_that_is_best_on_val():
    features = made.features(persons=240)
    tried = {}
    for penalty in (1e-3, 1.0, 1e3):
        one = fit(features, settings("linear", linear={"penalties": [penalty]}))
        tried[penalty] = one.history[0]["val_map"]
    both = fit(features, settings("linear", linear={"penalties": list(tried)}))
    assert both.model.penalty == pytest.approx(max(tried, key=tried.get))
    assert len(both.history) == 1 and both.best_epoch == 1


def test_caer_net_gives_the_context_all_weight_without_a_face():
    given = made.arrays(persons=16)
    given["views"]["head"].status[0] = STATUS["no_face"]
    features = from_arrays(**given)
    model = get_head("caer_net").setup(settings("caer_net"), features, features.rows("train"))
    weights = model.attend(features.batch(torch.tensor([0, 1])))
    assert weights[0].tolist() == [0, 1] and 0 < weights[1, 0] < 1
    torch.testing.assert_close(weights.sum(1), torch.ones(2))


def test_kosti_learns_ratings_beside_labels():
    """Ratings that hang on the body: better than their mean; unrated persons teach nothing."""
    given = made.arrays(persons=480)
    signal = given["views"]["body"].arrays["features"][:, :3].astype(np.float32)
    given["vad"] = 5 + np.float32([1, 0.5, 0.1]) * signal
    given["vad"][::5] = np.nan
    features = from_arrays(**given)
    model = fit(features, settings("kosti", epochs=60)).model
    test = features.rows("test")
    ((_, found),) = outputs_of(model, features, test)
    gap = (found.vad - features.vad[test]).abs().nanmean(0)
    mean = features.vad[features.rows("train")].nanmean(0)
    assert (gap < 0.6 * (features.vad[test] - mean).abs().nanmean(0)).all(), gap
    true = features.truth(test).numpy()
    assert mean_average_precision(true, found.scores.numpy()) > chance_level(true) + 0.2


def test_kosti_without_ratings_or_with_weight_0_predicts_none():
    given = made.arrays(persons=64)
    for vad, share in ((None, 0.5), (np.full((64, 3), 5, np.float32), 0.0)):
        features = from_arrays(**given, vad=vad)
        own = settings("kosti", kosti={"continuous": share})
        model = get_head("kosti").setup(own, features, features.rows("train"))
        assert model(features.batch(features.rows("val"))).vad is None


def test_kostis_loss_of_ratings_by_hand():
    given = made.arrays(persons=64)
    rng = np.random.default_rng(0)
    given["vad"] = rng.uniform(1, 10, (64, 3)).astype(np.float32)
    given["vad"][[0, 1, 2], [0, 1, 2]] = np.nan
    features = from_arrays(**given)
    own = settings("kosti", kosti={"continuous": 0.3})
    train = features.rows("train")
    model = get_head("kosti").setup(own, features, train).eval()
    batch = features.batch(train)
    output = model(batch)
    vad, rated = output.vad.detach().numpy(), batch.vad.numpy()
    spread = np.nanstd(rated, axis=0)
    apart = np.nanmean(((vad - rated) / spread) ** 2)
    labels = ((output.scores - batch.target) ** 2 * model.weights).sum(1).mean()
    by_hand = 0.7 * float(labels.detach()) + 0.3 * apart
    assert float(model.loss(output, batch).detach()) == pytest.approx(by_hand, rel=1e-5)


def test_kostis_loss_by_hand():
    features = made.features(persons=64)
    model = get_head("kosti").setup(settings("kosti"), features, features.rows("train"))
    rate = features.truth(features.rows("train")).mean(0)
    weights = 1 / torch.log(1.2 + rate)
    weights /= weights.sum()
    torch.testing.assert_close(model.weights, weights)
    batch = features.batch(features.rows("val"))
    output = model(batch)
    by_hand = sum(
        weights[j] * (output.scores[i, j] - batch.target[i, j]) ** 2
        for i in range(len(batch.target))
        for j in range(4)
    ) / len(batch.target)
    torch.testing.assert_close(model.loss(output, batch), by_hand)


def test_a_last_batch_of_one_person_is_refused_by_its_setting():
    features = made.features(persons=96)
    count = len(features.rows("train"))
    with pytest.raises(SettingsError, match=r"train\.batch.*one person"):
        fit(features, made.settings(head="kosti", batch=count - 1, epochs=1))
