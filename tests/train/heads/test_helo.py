"""HeLo: each part and what it is gone without, sides, missing modalities. Its layers:
tests/train/layers."""

import numpy as np
import pytest
import torch

from cache.errors import SettingsError
from cache.statuses import STATUS
from tests.train import made
from train.checkpoint import load_head, save_head
from train.data import Batch, ViewData, from_arrays
from train.fit import fit, predict
from train.fit_many import fit_many, groups
from train.heads import get_head
from train.heads.helo import divergence, side_of
from train.layers.label_graph import cosine

SMALL = {"width": 16, "tokens": [3, 2], "heads": 2, "hidden": 16, "steps": 10, "dropout": 0.0}
LABELS = 5
SIGNALS = {
    "eeg": ("physiological", 6),
    "gsr": ("physiological", 4),
    "ppg": ("physiological", 3),
    "face": ("behavioural", 7),
}
WITHOUT = ["cross", "transport", "encoder", "alignment", "labels", "distribution"]


def settings(helo=None, **changes):
    own = {**SMALL, **(helo or {})}
    return made.settings(head="helo", helo=own, **{"lr": 5e-3, "epochs": 3, **changes})


def signals(count=96, seed=0, views=SIGNALS, status=None, targets=None, text=False):
    """Windows of made signals, whose distribution over labels hangs on all views."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, 4))
    given = {
        name: ViewData.of(
            name,
            "persons",
            {"features": (hidden @ rng.normal(size=(4, width))).astype(np.float32)},
            (status or {}).get(name),
            facts={"role": role},
        )
        for name, (role, width) in views.items()
    }
    if text:
        words = rng.normal(size=(LABELS, 9)).astype(np.float32)
        given["labels"] = ViewData.of("labels", "labels", {"features": words})
    if targets is None:
        powers = np.exp(1.5 * hidden @ rng.normal(size=(4, LABELS)))
        targets = (powers / powers.sum(1, keepdims=True)).astype(np.float32)
    return from_arrays(
        views=given,
        boxes=np.tile(np.float32([0, 0, 9, 9]), (count, 1)),
        sizes=np.full((count, 2), 9),
        pictures=np.arange(count),
        labels=[f"label {n}" for n in range(LABELS)],
        targets=targets,
        splits=np.array(["train", "train", "val", "test"])[np.arange(count) % 4],
    )


def head(features=None, helo=None, seed=0):
    features = signals() if features is None else features
    torch.manual_seed(seed)
    return get_head("helo").setup(settings(helo), features, features.rows("train"))


def gradients(model, batch):
    model.train()
    model.zero_grad()
    model.loss(model(batch), batch).backward()
    return {name: value.grad for name, value in model.named_parameters()}


@pytest.mark.parametrize("transport", ["sinkhorn", "gromov"])
def test_shapes(transport):
    features = signals()
    model = head(features, {"transport": transport, "tokens": [4, 2]})
    rows = features.rows("test")
    output = model(features.batch(rows))
    assert output.scores.shape == output.logits.shape == (len(rows), LABELS)
    torch.testing.assert_close(output.scores, output.logits.softmax(-1))
    assert output.transport.shape == (len(rows), 4, 2)
    torch.testing.assert_close(output.transport.sum(2), torch.full((len(rows), 4), 1 / 4))
    torch.testing.assert_close(output.transport.sum(1), torch.full((len(rows), 2), 1 / 2))
    assert {n: g.shape for n, g in model.graphs().items()} == {
        "learned": (LABELS, LABELS),
        "data": (LABELS, LABELS),
    }
    assert model.notes == ()


def test_sides_go_by_role_and_in_a_cache_of_pictures_by_what_is_seen():
    assert head().spec["sides"] == {"physiological": ["eeg", "gsr", "ppg"], "behavioural": ["face"]}
    model = get_head("helo").setup(settings(), made.features(persons=16), torch.arange(8))
    assert model.spec["sides"] == {
        "physiological": ["body", "head"],
        "behavioural": ["objects", "depth", "scene"],
    }
    none = ViewData.of("video", "pictures", {"features": np.zeros((2, 3))}, facts={"role": ""})
    assert side_of(none.spec) == "physiological"


def test_sides_can_be_named():
    model = head(helo={"physiological": ["face", "gsr"], "behavioural": ["eeg"]})
    assert model.spec["sides"] == {"physiological": ["face", "gsr"], "behavioural": ["eeg"]}
    assert set(model.widths) == {"face", "gsr", "eeg"}
    some = settings({"physiological": ["a"], "behavioural": [], "start": "text"})
    assert get_head("helo").views(some) == ("a", "labels")
    assert get_head("helo").views(settings()) == ("*",)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"physiological": ["eeg"]}, "behavioural should be given"),
        ({"behavioural": ["eeg"]}, "physiological should be given"),
        ({"physiological": [], "behavioural": []}, "should name a view"),
        ({"physiological": ["eeg"], "behavioural": ["face", "eeg"]}, "'eeg' should be named once"),
        ({"heads": 3}, "divide the width 16"),
    ],
)
def test_sides_and_heads_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        settings(wrong)


GONE = {
    "cross": ["cross."],
    "transport": ["couple."],
    "encoder": ["encoder."],
    "labels": ["labelled.", "embedding"],
}


@pytest.mark.parametrize("part", WITHOUT)
@pytest.mark.parametrize("kind", ["distribution", "single"])
def test_an_ablation_takes_its_part_and_no_other_away(part, kind):
    """Every parameter that is left has a part in the loss."""
    features = signals()
    if kind == "single":
        features = signals(targets=np.eye(LABELS, dtype=np.float32)[np.arange(96) % LABELS])
    whole, model = head(features), head(features, {"without": [part]})
    names = {name for name, _ in whole.named_parameters()}
    left = {name for name, _ in model.named_parameters()}
    gone = GONE.get(part, [])
    assert left == {name for name in names if not name.startswith(tuple(gone) or "-")}
    assert len(left) < len(names) or not gone
    batch = features.batch(features.rows("train"))
    for found in (gradients(whole, batch), gradients(model, batch)):
        # A key's bias moves all that is asked for alike, which a softmax does not see.
        idle = {name for name, grad in found.items() if grad is None or not grad.any()}
        assert not {name for name in idle if not name.endswith("key.bias")}
    output = model(batch)
    assert (output.transport is None) is (part == "transport")
    assert not torch.allclose(output.scores, whole(batch).scores) or part == "alignment"
    torch.testing.assert_close(output.scores.sum(1), torch.ones(len(output.scores)))


def test_without_cross_physiological_views_do_not_ask_each_other():
    features = signals()
    batch = features.batch(features.rows("test"))
    for without in ([], ["cross"]):
        model = head(features, {"without": without})
        model.join["physiological"] = torch.nn.Identity()
        before, _ = model._side("physiological", batch)
        changed = {**batch.views, "gsr": {**batch.views["gsr"]}}
        changed["gsr"]["features"] = changed["gsr"]["features"] + 1
        after, _ = model._side("physiological", Batch(batch.box, batch.diagonal, None, changed))
        eeg, gsr, ppg = (~(before - after).isclose(torch.zeros(()))).any(0).any(0).split(16)
        assert gsr.any() and bool(eeg.any()) is bool(ppg.any()) is (not without)


def test_the_loss_by_hand():
    features = signals()
    model = head(features, {"alignment": 0.3})
    batch = features.batch(features.rows("train"))
    model.train()
    output = model(batch)
    true = batch.target
    kl = (true * (true.log() - output.scores.log())).sum(1).mean()
    apart = (cosine(model.embedding) - model.graphs()["data"]).square().mean()
    torch.testing.assert_close(model.loss(output, batch), kl + 0.3 * apart)
    torch.testing.assert_close(model.eval().loss(output, batch), kl)
    alone = head(features, {"alignment": 0.3, "without": ["alignment"]})
    alone.load_state_dict(model.state_dict())
    torch.testing.assert_close(alone.train().loss(output, batch), kl)


def test_divergence_is_0_where_both_agree_and_finite_where_a_share_is_0():
    share = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    logits = share.clamp(min=1e-20).log().requires_grad_()
    found = divergence(logits, share)
    found.backward()
    assert float(found.detach()) == pytest.approx(0, abs=1e-6) and logits.grad.isfinite().all()
    given = torch.tensor([[0.4, 0.4, 0.2]]).log()
    # The oracle of DESIGN: d = (.5, .3, .2), p = (.4, .4, .2).
    assert float(divergence(given, torch.tensor([[0.5, 0.3, 0.2]]))) == pytest.approx(
        0.025267, abs=1e-6
    )


def test_without_distribution_sigmoids_are_fitted_each_by_itself():
    features = signals()
    model = head(features, {"without": ["distribution"]}).eval()
    batch = features.batch(features.rows("train"))
    output = model(batch)
    apart = output.logits.sigmoid()
    torch.testing.assert_close(output.scores, apart / apart.sum(1, keepdim=True))
    torch.testing.assert_close(
        model.loss(output, batch), torch.nn.functional.binary_cross_entropy(apart, batch.target)
    )


def test_without_distribution_is_refused_where_labels_are_none():
    features = made.features(persons=16)
    assert features.kind == "multi"
    with pytest.raises(SettingsError, match=r"train\.helo\.without"):
        head(features, {"without": ["distribution"]})
    model = head(features)
    output = model(features.batch(torch.arange(4)))
    torch.testing.assert_close(output.scores, output.logits.sigmoid())


@pytest.mark.parametrize("kind", ["pearson", "cosine"])
def test_what_correlates_comes_from_train_alone(kind):
    features = signals()
    train = features.rows("train")
    targets = features.target.numpy().copy()
    others = np.setdiff1d(np.arange(96), train.numpy())
    targets[others] = np.roll(targets[others], 1, axis=1)
    leaking = signals(targets=targets)
    found = [head(some, {"correlation": kind}).graphs()["data"] for some in (features, leaking)]
    torch.testing.assert_close(*found, atol=0, rtol=0)
    if kind == "pearson":
        expected = np.corrcoef(features.truth(train).numpy().T)
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


def test_the_label_embedding_is_one_parameter_made_once():
    features = signals()
    model = head(features).eval()
    batch = features.batch(features.rows("test"))
    torch.testing.assert_close(model(batch).scores, model(batch).scores, atol=0, rtol=0)
    torch.testing.assert_close(model.graphs()["learned"], cosine(model.embedding))
    assert torch.equal(model.state_dict()["embedding"], model.embedding)
    fitted = fit(features, settings({"alignment": 5.0}, epochs=15, patience=15, lr=0.02)).model
    before = (model.graphs()["learned"] - model.graphs()["data"]).square().mean()
    after = (fitted.graphs()["learned"] - fitted.graphs()["data"]).square().mean()
    assert after < 0.5 * before


def test_alignment_alone_brings_the_learned_correlations_to_the_datas():
    """No more than the loss can: R_data is positive semi-definite, as every cosine matrix is."""
    features = signals()
    model = head(features).train()
    optimizer = torch.optim.Adam([model.embedding], lr=0.05)
    batch = features.batch(features.rows("train"))
    with torch.no_grad():
        output = model(batch)
    for _ in range(300):
        optimizer.zero_grad()
        (model.loss(output, batch) - divergence(output.logits, batch.target)).backward()
        optimizer.step()
    found = model.graphs()
    torch.testing.assert_close(found["learned"], found["data"], atol=0.02, rtol=0)


def test_it_starts_from_the_texts_of_the_labels():
    features = signals(text=True)
    model = head(features, {"start": "text"})
    text = features.label_views["labels"]
    torch.testing.assert_close(
        model.graphs()["learned"], cosine(text - text.mean(0)), atol=1e-5, rtol=0
    )
    assert model.embedding.requires_grad


def test_nothing_is_dropped_but_in_training():
    features = signals()
    model = head(features, {"dropout": 0.5})
    batch = features.batch(features.rows("test"))
    model.eval()
    torch.testing.assert_close(model(batch).scores, model(batch).scores, atol=0, rtol=0)
    model.train()
    assert not torch.allclose(model(batch).scores, model(batch).scores)


@pytest.mark.parametrize("transport", ["sinkhorn", "gromov"])
def test_a_score_does_not_know_its_batch(transport):
    features = signals()
    for mode in (True, False):
        model = head(features, {"transport": transport}).train(mode)
        rows = features.rows("test")
        together = model(features.batch(rows))
        alone = [model(features.batch(row[None])) for row in rows]
        for name in ("scores", "transport"):
            each = torch.cat([getattr(one, name) for one in alone])
            torch.testing.assert_close(getattr(together, name), each, atol=1e-6, rtol=1e-4)


def missing(*names, rows=(0,)):
    status = {name: np.ones(96, np.uint8) for name in SIGNALS}
    for name in names:
        status[name][list(rows)] = STATUS["no_signal"]
    return signals(status=status)


@pytest.mark.parametrize("transport", ["sinkhorn", "gromov"])
@pytest.mark.parametrize("names", [["gsr"], ["face"], ["eeg", "gsr", "ppg"], list(SIGNALS)])
def test_a_missing_modality_is_neither_asked_nor_transported(names, transport):
    """What its features were changes nothing, and no gradient is NaN."""
    features = missing(*names)
    model = head(features, {"transport": transport})
    batch = features.batch(torch.tensor([0, 1]))
    output = model(batch)
    gone = set(names) >= {"face"} or set(names) >= {"eeg", "gsr", "ppg"}
    assert bool(output.transport[0].any()) is not gone and output.transport[1].any()
    assert output.scores.isfinite().all()
    views = {name: dict(arrays) for name, arrays in batch.views.items()}
    for name in names:  # as a head would see it that does not go by the mask
        views[name]["features"] = views[name]["features"].clone()
        views[name]["features"][0] = 7
    again = model(Batch(batch.box, batch.diagonal, batch.target, views))
    torch.testing.assert_close(again.scores[0], output.scores[0])
    model.train()
    loss = model.loss(model(batch), batch)
    loss.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("transport", ["sinkhorn", "gromov"])
def test_gradients_are_finite_at_zero_features_and_identical_tokens(transport):
    features = signals()
    model = head(features, {"transport": transport, "epsilon": 0.005})
    for name, layer in model.tokens.items():
        layer.weight.data[:] = 0
        layer.bias.data[:] = 0 if name == "face" else 1
    batch = features.batch(torch.arange(4))
    for arrays in batch.views.values():
        arrays["features"].zero_()
    found = gradients(model, batch)
    assert all(grad.isfinite().all() for grad in found.values())


@pytest.mark.parametrize("side", ["physiological", "behavioural"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_side_alone_is_a_head_without_transport_and_says_so(side, count, tmp_path):
    views = {f"view{n}": (side, 5) for n in range(count)}
    features = signals(views=views)
    some = settings()
    model = fit(features, some).model
    other = {"physiological": "behavioural", "behavioural": "physiological"}[side]
    assert any(f"no {other} view" in note for note in model.notes)
    assert any("one physiological" in n for n in model.notes) is (
        side == "physiological" and count == 1
    )
    assert (model.cross is not None) is (side == "physiological" and count == 2)
    rows = features.rows("test")
    assert model(features.batch(rows)).transport is None
    save_head(tmp_path, model, some, features, {})
    again, _ = load_head(tmp_path)
    np.testing.assert_array_equal(predict(again, features, rows), predict(model, features, rows))


@pytest.mark.parametrize(
    "helo", [{}, {"transport": "gromov"}, {"start": "text"}, {"without": ["labels", "cross"]}]
)
def test_it_is_the_same_from_disk_without_its_cache(helo, tmp_path):
    """Views of the same name and width whose role nobody knows: sides come from the head."""
    features = signals(text=True)
    some = settings(helo)
    model = fit(features, some).model
    save_head(tmp_path, model, some, features, {})
    again, _ = load_head(tmp_path)
    assert again.spec == model.spec
    plain = signals(views={name: ("", width) for name, (_, width) in SIGNALS.items()}, text=True)
    rows = features.rows("test")
    np.testing.assert_array_equal(predict(again, plain, rows), predict(model, features, rows))
    for name, graph in model.graphs().items():
        assert torch.equal(again.graphs()[name], graph)


@pytest.mark.parametrize("transport", ["sinkhorn", "gromov"])
def test_heads_in_step_are_those_fitted_alone(transport):
    """Own seed, dropout and weight of the correlation loss; a missing modality among them."""
    features = missing("gsr", "face", rows=range(0, 96, 7))
    many = [
        settings({"transport": transport, "dropout": d, "alignment": a}, seed=s, together=8)
        for s, d, a in ((0, 0.0, 1.0), (1, 0.3, 0.0), (2, 0.5, 2.0))
    ]
    assert len(groups(many)) == 1
    rows = features.rows("test")
    for done in fit_many(features, many):
        alone = fit(features, many[done.number])
        assert done.together == 3 and done.fitted.best_epoch == alone.best_epoch
        for ours, theirs in zip(done.fitted.history, alone.history, strict=True):
            assert ours == pytest.approx(theirs, abs=5e-5, nan_ok=True)
        found, expected = (predict(one.model, features, rows) for one in (done.fitted, alone))
        assert abs(found - expected).max() < 5e-5


@pytest.mark.parametrize("without", [[part] for part in WITHOUT])
def test_ablated_heads_go_in_step_too(without):
    features = signals()
    many = [settings({"without": without}, seed=s, together=4, epochs=2) for s in (0, 1)]
    rows = features.rows("test")
    for done in fit_many(features, many):
        assert done.together == 2
        alone = fit(features, many[done.number]).model
        gap = predict(done.fitted.model, features, rows) - predict(alone, features, rows)
        assert abs(gap).max() < 5e-5


def test_one_seed_is_one_head_and_another_another():
    features = signals()
    rows = features.rows("test")
    found = [predict(fit(features, settings(seed=s)).model, features, rows) for s in (3, 3, 4)]
    np.testing.assert_array_equal(found[0], found[1])
    assert abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize("transport", ["sinkhorn", "gromov"])
def test_it_learns_distributions(transport):
    features = signals(480)
    model = fit(
        features, settings({"transport": transport}, epochs=30, patience=30, standardise=True)
    ).model
    rows = features.rows("test")
    true = features.truth(rows).numpy()
    mean = features.truth(features.rows("train")).mean(0).numpy()

    def kl(scores):
        return (true * np.log(true / scores)).sum(1).mean()

    assert kl(predict(model, features, rows)) < 0.25 * kl(np.tile(mean, (len(rows), 1)))


@pytest.mark.parametrize("plant", ["body", "head", "objects", "depth", "scene"])
def test_it_learns_from_each_view_of_pictures(plant):
    from train.metrics import chance_level, mean_average_precision

    features = made.features(plant)
    model = fit(features, settings(lr=1e-2, epochs=40, patience=15)).model
    rows = features.rows("test")
    true = features.truth(rows).numpy()
    assert mean_average_precision(true, predict(model, features, rows)) > chance_level(true) + 0.3
