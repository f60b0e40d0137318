"""Where the channels lie that the gate of the body lets through: maps against features, and the
whole way from a fitted head."""

import numpy as np
import pytest
import torch

from pipelines import stages
from pipelines.looks import Look, sheet
from pipelines.report import channels
from pipelines.workplace import index_of
from tests.pipelines.uniemox.conftest import place, prepared, settings_of  # noqa: F401
from train.data import Batch
from train.heads import get_head
from train.run import open_head
from train.settings import Train

RESNET = (
    "views.body.network=resnet18",
    "views.body.size=64",
    "cache.dtype=float32",
    "weights.source=[untrained]",
    "weights.untrained=[resnet18]",
    "train.head=rrla",
    "train.rrla.without=[objects, eld]",
    "train.standardise=true",
    "train.epochs=2",
    "train.batch=4",
)


@pytest.fixture
def fitted(prepared):  # noqa: F811
    """RRLA on the features of a ResNet with random weights: settings, index, head."""

    def fit(*more):
        settings = settings_of(prepared, *RESNET, *more)
        stages.extract(settings)
        stages.train(settings)
        return settings, index_of(settings), open_head(settings.cache.root, "results/head")

    return fit


def head(width: int, **more):
    settings = Train.model_validate(
        {"head": "rrla", "rrla": {"without": ["objects", "eld"], "squeeze": 2}, **more}
    )
    torch.manual_seed(0)
    return get_head("rrla")(
        settings, widths={"body": width}, labels=3, kind="multi", text_width=0
    ).eval()


def shown(settings, index, opened, rows):
    """`channels_of` with the gates that the head has for these rows."""
    return channels.channels_of(settings, index, opened, rows, opened.explain(rows).gate)


def test_maps_by_hand():
    """Two channels on a map of 1 x 2; the gate weighs the second one more."""
    maps = torch.tensor([[[[1.0, 3.0]], [[6.0, 2.0]]]])
    found = channels.gated(head(2), maps, torch.tensor([[0.1, 0.9]]))
    assert list(found) == ["all channels", "1 most gated in", "1 least"]
    np.testing.assert_allclose(found["all channels"], [[[1.0, 0.0]]])  # (7, 5) / 2
    np.testing.assert_allclose(found["1 most gated in"], [[[1.0, 0.0]]])
    np.testing.assert_allclose(found["1 least"], [[[0.0, 1.0]]])


def test_channels_count_by_their_weight_in_a_mean_of_several():
    """Of four channels on a map of 1 x 3 the two with the gates 0.6 and 0.9:
    0.6 (0, 1, 0) + 0.9 (0, 0, 1), from 0 to 1."""
    maps = torch.tensor([[[[9.0, 0, 0]], [[0, 1.0, 0]], [[0, 0, 1.0]], [[9.0, 0, 0]]]])
    found = channels.gated(head(4), maps, torch.tensor([[0.1, 0.6, 0.9, 0.2]]))
    np.testing.assert_allclose(found["2 most gated in"], [[[0, 2 / 3, 1]]], rtol=1e-6)


def test_places_are_standardised_as_the_head_does_the_feature():
    """A channel of large numbers has no more to say than another."""
    model = head(2, standardise=True)
    model.see.get_buffer("body_mean").copy_(torch.tensor([0.0, 1000.0]))
    model.see.get_buffer("body_deviation").copy_(torch.tensor([1.0, 1000.0]))
    maps = torch.tensor([[[[1.0, 3.0]], [[1400.0, 1000.0]]]])
    found = channels.gated(model, maps, torch.tensor([[0.5, 0.5]]))
    np.testing.assert_allclose(found["all channels"], [[[0.0, 1.0]]])  # (1.4, 3) / 2


def test_maps_are_of_the_very_features_in_the_cache(fitted):
    settings, index, opened = fitted()
    rows = [3, 11]
    view, networks = channels.views_of(settings, index)["body"], channels.networks_of(settings)
    squares = np.stack([view.prepare(channels._subject(settings, index, row)) for row in rows])
    maps = channels.last_maps(view, networks, squares)
    assert maps.shape == (2, 512, 2, 2)
    cached = opened.features.views["body"]["features"][torch.tensor(rows)].float()
    torch.testing.assert_close(maps.mean((2, 3)), cached, rtol=1e-4, atol=1e-5)
    # What the head sees is the mean over places of the standardised maps times the gate.
    model, gate = opened.model, torch.from_numpy(opened.explain(rows).gate)
    places = Batch(
        torch.zeros(4, 4), torch.zeros(4), None, {"body": {"features": maps[0].flatten(1).T}}
    )
    seen = opened.features.batch(torch.tensor(rows[:1]))
    with torch.no_grad():
        torch.testing.assert_close(
            (model.see("body", places) * gate[0]).mean(0),
            model.gate(model.see("body", seen))[0],
            rtol=1e-3,
            atol=1e-3,
        )


def test_persons_are_shown_with_their_maps_and_untrained_networks_named(fitted):
    settings, index, opened = fitted()
    looks, why = shown(settings, index, opened, [3, 11])
    assert why == "" and len(looks) == 2
    assert looks[0].caption.startswith("person 3: gate 0.")
    assert looks[0].caption.endswith("UNTRAINED network")
    square, maps = looks[1].panels["body"]
    assert square.shape == (64, 64, 3) and next(iter(maps)) == "all channels"
    for heat in maps.values():
        assert heat.shape == (2, 2) and heat.min() == 0 and heat.max() == pytest.approx(1)
    assert sheet(looks[0]).width > 800
    assert "2 x 2 places" in channels.said(looks)
    assert channels.said([Look("x", {"body": (square, {"rollout": heat})})]) == ""


def test_heads_without_a_gate_show_nothing(fitted):
    for more in (
        ["train.rrla.without=[objects, eld, bpa]"],
        ["train.head=mlp", "train.mlp.views=[body]"],
    ):
        assert shown(*fitted(*more), [3]) == ([], "")
    assert shown(*fitted(), []) == ([], "")


def test_another_network_than_that_of_the_features_shows_nothing_and_says_why(
    fitted,
    prepared,  # noqa: F811
):
    _, index, opened = fitted()
    other = settings_of(prepared, *RESNET, "views.body.size=96")
    looks, why = shown(other, index, opened, [3])
    assert looks == [] and "not what the head was fitted on" in why


def test_a_network_without_a_map_says_so(fitted, monkeypatch):
    monkeypatch.setattr(channels, "last_maps", lambda *_: None)
    looks, why = shown(*fitted(), [3])
    assert looks == [] and why == "resnet18 of views.body has no last feature map to show"
