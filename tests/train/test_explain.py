"""What a head saw, carried out of it: transport plans, gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.train import made
from tests.train.heads.test_peers import settings as rrla
from train import fit
from train.explain import explain_features, gradients
from train.head import LabelHead, Output
from train.heads import get_head


class Transporting(LabelHead):
    """Moves from each of 3 tokens to each of 2, by numbers of the body."""

    def __init__(self, settings, **shapes):
        super().__init__(settings, **shapes)
        self.linear = nn.Linear(self.widths["body"], self.labels)
        self.graph = nn.Parameter(torch.eye(self.labels))

    @staticmethod
    def views(settings):
        return ("body",)

    def forward(self, batch):
        seen = self.see("body", batch)
        logits = self.linear(seen)
        plan = seen[:, :6].softmax(-1).reshape(-1, 3, 2)
        return Output(self.scores(logits), logits, transport=plan)

    def graphs(self):
        return {"learned": self.graph}


@pytest.fixture
def features():
    return made.features(persons=32)


def test_plans_come_with_the_persons_they_are_of(features, monkeypatch):
    monkeypatch.setattr(fit, "AT_ONCE", 4)
    head = Transporting.setup(made.settings(), features, features.rows("train"))
    rows = torch.tensor([9, 2, 30, 4, 17])
    found = explain_features(head, features, rows)
    body = features.views["body"]["features"][rows][:, :6].float()
    np.testing.assert_allclose(found.transport.reshape(5, 6), body.softmax(-1), rtol=1e-6)
    assert found.person_rows.tolist() == rows.tolist()
    np.testing.assert_array_equal(found.graphs["learned"], np.eye(4))  # that has a gradient


def test_a_head_that_transports_nothing_has_none(features):
    from train.heads import get_head

    settings = made.settings(head="mlp", mlp={"hidden": []})
    head = get_head("mlp").setup(settings, features, features.rows("train"))
    assert explain_features(head, features, features.rows("val")).transport is None


@pytest.mark.parametrize("standardise", [False, True])
def test_the_gate_of_the_body_is_what_its_channels_are_multiplied_with(features, standardise):
    settings = rrla("rrla", standardise=standardise)
    head = get_head("rrla").setup(settings, features, features.rows("train"))
    rows = torch.tensor([9, 2, 30])
    found = explain_features(head, features, rows)
    seen = head.see("body", features.batch(rows))
    with torch.no_grad():
        gated = head.gate(seen)
    assert found.gate.shape == (3, made.WIDTH) and found.gate.std() > 0
    assert (found.gate > 0).all() and (found.gate < 1).all()
    np.testing.assert_allclose(found.gate * seen.numpy(), gated, rtol=1e-5, atol=1e-6)
    assert head.train()(features.batch(rows)).gate is None


def test_a_head_without_a_gate_has_none(features):
    settings = rrla("rrla", rrla={"without": ["bpa"]})
    head = get_head("rrla").setup(settings, features, features.rows("train"))
    assert explain_features(head, features, features.rows("val")).gate is None


@pytest.mark.parametrize("name", ["hugme", "mlp", "kosti"])
def test_gradients_tell_how_a_logit_moves_with_cached_features(features, name):
    settings = made.settings(head=name)
    head = get_head(name).setup(settings, features, features.rows("train")).eval()
    rows, label = torch.tensor([3, 8]), torch.tensor([1, 2])
    found = gradients(head, features, rows, label, "body", "scene")
    batch = features.batch(rows)
    for view, gradient in found.items():
        step = torch.zeros_like(batch.views[view]["features"].float())
        step[:, 5] = 0.005
        moved = []
        for sign in (1, -1):
            values = batch.views[view]["features"].float() + sign * step
            seen = {**batch.views, view: {**batch.views[view], "features": values}}
            with torch.no_grad():
                logits = head(replace(batch, views=seen)).logits
            moved.append(logits.gather(1, label[:, None])[:, 0])
        slope = ((moved[0] - moved[1]) / 0.01).numpy()
        np.testing.assert_allclose(gradient[:, 5], slope, rtol=0.05, atol=1e-3)
        assert np.abs(gradient).max() > 0
    assert "body" in found


def test_a_head_of_neighbours_has_no_gradients(features):
    settings = made.settings(head="aa_knn", aa_knn={"views": ["body"]})
    head = get_head("aa_knn").setup(settings, features, features.rows("train"))
    rows = torch.tensor([3, 8])
    assert gradients(head, features, rows, torch.tensor([0, 0]), "body") == {}
