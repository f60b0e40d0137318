"""The maximum-entropy model: a convex problem has one answer, and scikit-learn knows it."""

import logging

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from tests.train import made
from tests.train.heads.test_aa_knn import VIEWS, labelled, seen
from train import memory
from train.checkpoint import load_head, save_head
from train.data import ViewData, from_arrays
from train.fit import fit, predict, validate
from train.heads import closed
from train.heads.sa_bfgs import value_and_gradient
from train.metrics import distribution_measures


def settings(**own):
    return made.settings(head="sa_bfgs", sa_bfgs={"views": VIEWS, "tolerance": 1e-8, **own})


def scaled(features) -> tuple[np.ndarray, np.ndarray]:
    """Views of train and test side by side, as the head sees them."""
    train, test = (seen(features, split).astype(float) for split in ("train", "test"))
    mean, deviation = train.mean(0), train.std(0)
    return (train - mean) / deviation, (test - mean) / deviation


@pytest.mark.parametrize("penalty", [0.0, 0.003])
def test_of_single_labels_it_is_scikit_learns_logistic_regression(penalty):
    features = labelled("single", persons=480)
    train, test = scaled(features)
    # ours: the mean over N persons and penalty |W|^2; theirs: C x the sum and |W|^2 / 2
    c = 1 / (2 * len(train) * penalty) if penalty else np.inf
    oracle = LogisticRegression(C=c, tol=1e-9, max_iter=10_000)
    oracle.fit(train, features.truth(features.rows("train")).numpy().argmax(1))
    model = fit(features, settings(penalty=penalty)).model
    assert model.converged
    np.testing.assert_allclose(
        predict(model, features, features.rows("test")), oracle.predict_proba(test), atol=2e-6
    )


def test_of_several_labels_it_is_one_logistic_regression_each():
    features = labelled("multi", persons=480)
    train, test = scaled(features)
    truth = features.truth(features.rows("train")).numpy()
    model = fit(features, settings(penalty=0.001)).model
    found = predict(model, features, features.rows("test"))
    for label, true in enumerate(truth.T):  # the mean over 4 labels weighs each loss by a quarter
        oracle = LogisticRegression(C=1 / (2 * truth.size * 0.001), tol=1e-9, max_iter=10_000)
        wanted = oracle.fit(train, true).predict_proba(test)[:, 1]
        np.testing.assert_allclose(found[:, label], wanted, atol=2e-6)


def planted(persons=600, width=6, labels=5):
    """Distributions that are a softmax of the features, and the softmax's own weights."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(persons, width)).astype(np.float32)
    weight, bias = rng.normal(size=(labels, width)), rng.normal(size=labels)
    logits = torch.from_numpy(x @ weight.T + bias)
    features = from_arrays(
        views={"eeg": ViewData.of("eeg", "persons", {"features": x})},
        boxes=np.zeros((persons, 4)),
        sizes=np.ones((persons, 2)),
        pictures=np.arange(persons),
        labels=[f"label {n}" for n in range(labels)],
        targets=logits.softmax(1).numpy(),
        splits=np.array(["train", "val", "test"])[np.arange(persons) % 3],
    )
    return features, weight


def test_of_distributions_it_finds_the_weights_that_made_them():
    features, weight = planted()
    model = fit(features, made.settings(head="sa_bfgs", sa_bfgs={"penalty": 0.0})).model
    rows = features.rows("test")
    measures = distribution_measures(
        features.truth(rows).numpy(), predict(model, features, rows).astype(float)
    )
    assert measures["kl"].max() < 1e-5 and measures["cosine"].min() > 0.9999
    # weights are of scaled features, and the same number added to all labels changes nothing
    of_plain = (model.weight / model.see.get_buffer("eeg_deviation")).numpy()
    of_plain = of_plain - of_plain.mean(0)
    np.testing.assert_allclose(of_plain, weight - weight.mean(0), atol=0.02)


def test_the_penalty_draws_to_the_mean_of_train():
    features = labelled("distribution")
    model = fit(features, settings(penalty=1e4)).model
    mean = features.truth(features.rows("train")).mean(0).numpy()
    found = predict(model, features, features.rows("test"))
    np.testing.assert_allclose(found, np.tile(mean, (len(found), 1)), atol=1e-4)


@pytest.mark.parametrize("several", [True, False])
def test_the_gradient_is_that_of_differences_and_of_autograd(several):
    rng = np.random.default_rng(1)
    x, t = rng.normal(size=(9, 3)), rng.dirichlet(np.ones(4), 9)
    blocks = [
        (torch.from_numpy(x[:5]), torch.from_numpy(t[:5])),
        (torch.from_numpy(x[5:]), torch.from_numpy(t[5:])),
    ]
    weight, bias = torch.from_numpy(rng.normal(size=(4, 3))), torch.from_numpy(rng.normal(size=4))
    value, by_weight, by_bias = value_and_gradient(blocks, weight, bias, several, 0.1)

    def by_hand(w: np.ndarray, b: np.ndarray) -> float:
        z = x @ w.T + b
        if several:
            each = np.log1p(np.exp(z)) - t * z  # -t ln s - (1 - t) ln (1 - s)
            loss = each.mean()
        else:
            loss = (np.log(np.exp(z).sum(1)) - (t * z).sum(1)).mean()
        return loss + 0.1 * (w**2).sum()

    w, b = weight.numpy(), bias.numpy()
    assert float(value) == pytest.approx(by_hand(w, b), rel=1e-12)
    step = 1e-6
    for at in np.ndindex(w.shape):
        off = np.zeros_like(w)
        off[at] = step
        slope = (by_hand(w + off, b) - by_hand(w - off, b)) / (2 * step)
        assert float(by_weight[at]) == pytest.approx(slope, abs=1e-8)
    for at in range(4):
        off = np.eye(4)[at] * step
        slope = (by_hand(w, b + off) - by_hand(w, b - off)) / (2 * step)
        assert float(by_bias[at]) == pytest.approx(slope, abs=1e-8)
    weight.requires_grad_()
    again, _, _ = value_and_gradient(blocks, weight, bias, several, 0.1)
    torch.testing.assert_close(torch.autograd.grad(again, weight)[0], by_weight)


def test_where_it_does_not_converge_it_says_so_and_by_which_settings(caplog):
    features = labelled("distribution")
    with caplog.at_level(logging.WARNING, "train"):
        fit(features, settings())
        assert not caplog.records
        model = fit(features, settings(steps=3)).model
    (said,) = caplog.messages
    assert not model.converged and model.steps == 3
    for word in ("not converge in 3 steps", "train.sa_bfgs.steps", "train.sa_bfgs.penalty"):
        assert word in said


def test_seed_and_order_change_nothing_and_more_steps_do_not_worsen():
    features = labelled("distribution")
    rows = features.rows("train")
    few, many, other = (
        fit(features, own).model
        for own in (
            settings(steps=5),
            settings(),
            settings().model_copy(update={"seed": 9, "batch": 7}),
        )
    )
    assert torch.equal(many.weight, other.weight) and torch.equal(many.bias, other.bias)
    assert validate(many, features, rows)[0] < validate(few, features, rows)[0]
    assert closed("sa_bfgs")


def test_views_that_lie_in_files_give_the_same():
    given = made.arrays(persons=240)
    held = from_arrays(**given)
    for view in given["views"].values():
        for name, values in view.arrays.items():
            place = memory.mapped(values.shape, values.dtype)
            place[:] = values
            view.arrays[name] = place
    away = from_arrays(**given, block=50)
    one, two = (fit(some, settings(steps=20)).model for some in (held, away))
    torch.testing.assert_close(one.weight, two.weight)


def test_it_is_the_same_from_disk(tmp_path):
    features = labelled("distribution")
    model = fit(features, settings()).model
    save_head(tmp_path, model, settings(), features, {})
    again, _ = load_head(tmp_path)
    rows = features.rows("test")
    np.testing.assert_array_equal(predict(again, features, rows), predict(model, features, rows))
    assert bool(again.converged) and again.steps == model.steps > 1


# The other peers of label distribution learning are the head `mlp`: a plain network with the KL
# divergence, and, of all views, early fusion.


@pytest.mark.parametrize("views", [["body"], None])
def test_the_mlps_loss_is_the_kl_divergence_and_a_constant(views):
    features = labelled("distribution")
    own = made.settings(head="mlp", mlp={"views": views, "hidden": [16], "dropout": 0.0}, epochs=3)
    model = fit(features, own).model
    every = ["body", "head", "objects", "depth", "scene"]
    assert list(model.widths) == (views or every)
    assert model.net[0].in_features == made.WIDTH * len(model.widths)  # side by side
    batch = features.batch(features.rows("test"))
    with torch.no_grad():
        output = model(batch)
        loss = model.loss(output, batch).item()
    true = batch.target.double()
    kl = distribution_measures(true.numpy(), output.scores.double().numpy())["kl"].mean()
    entropy = -(true * true.log()).sum(1).mean().item()
    assert loss == pytest.approx(kl + entropy, rel=1e-5)
    # with the same gradient, therefore
    z = output.logits.double().requires_grad_()
    kl_of = F.kl_div(z.log_softmax(1), true, reduction="batchmean")
    ours = F.cross_entropy(z, true)
    torch.testing.assert_close(*(torch.autograd.grad(one, z)[0] for one in (kl_of, ours)))
