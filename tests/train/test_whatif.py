"""What if: scores without a view, an object or an edge, against heads and features that never had
them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from cache.errors import DataError, SettingsError
from cache.statuses import STATUS
from tests.train import made
from tests.train.heads import test_helo
from tests.train.heads.test_peers import READS, settings
from train import whatif
from train.data import Features, from_arrays
from train.explain import explain_features
from train.fit import predict
from train.head import LabelHead
from train.heads import get_head
from train.layers import label_graph
from train.layers.label_graph import cooccurrence
from train.whatif import Without, edges_of, singles, views_of, what_if

GRAPHS = ("hugme", "ml_gcn", "rrla")
WEIGH = sorted(name for name, views in READS.items() if "objects" in views)
ROW = 6  # of train, for whom there are three objects
SAME = {"rtol": 2e-5, "atol": 2e-6}


def given(status=None):
    """Persons of whom the first two of each eight have two objects and one."""
    found = made.arrays(persons=64)
    count = found["views"]["objects"].arrays["count"]
    count[0::8], count[1::8] = 2, 1
    _pad(found["views"]["objects"].arrays)
    if status:
        found["views"]["head"].status[:] = status
    return found


def _pad(objects):
    """As the cache pads behind the last object."""
    behind = np.arange(made.K) >= objects["count"][:, None]
    for name, fill in (("features", 0), ("box", 0), ("score", 0), ("label", -1)):
        objects[name][behind] = fill


def head(name: str, features: Features, **changes):
    some = settings(name, **changes)
    torch.manual_seed(0)
    found = get_head(name).setup(some, features.only(get_head(name).views(some)), torch.arange(32))
    with torch.no_grad():  # a bias of zeros, as some layers begin with, would hide what is missing
        for parameter in found.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.05 * torch.randn_like(parameter))
    return found.eval()


def without(objects, row, numbers):
    """The arrays of the view as if these objects of one person had not been found."""
    kept = [n for n in range(int(objects["count"][row])) if n not in numbers]
    for name in ("features", "box", "label", "score"):
        objects[name][row, : len(kept)] = objects[name][row, kept]
    objects["count"][row] = len(kept)
    _pad(objects)


@pytest.mark.parametrize("name", sorted(READS))
def test_nothing_taken_away_is_what_the_head_says(name):
    features = from_arrays(**given())
    model = head(name, features)
    said = explain_features(model, features, torch.tensor([ROW, 1])).y_score
    np.testing.assert_allclose(what_if(model, features, ROW, [Without()])[0], said[0], **SAME)
    np.testing.assert_allclose(what_if(model, features, 1, [Without()] * 3)[2], said[1], **SAME)
    assert what_if(model, features, 1, []).shape == (0, 4)


@pytest.mark.parametrize("standardise", [False, True])
@pytest.mark.parametrize("name", WEIGH)
def test_an_object_taken_away_is_one_that_was_never_found(name, standardise):
    features = from_arrays(**given())
    model = head(name, features, standardise=standardise)
    cases = {"one": (1,), "two": (0, 2), "all": (0, 1, 2)}
    found = what_if(model, features, ROW, [Without(objects=gone) for gone in cases.values()])
    for scores, gone in zip(found, cases.values(), strict=True):
        never = given()
        without(never["views"]["objects"].arrays, ROW, gone)
        wanted = predict(model, from_arrays(**never), torch.tensor([ROW]))[0]
        np.testing.assert_allclose(scores, wanted, **SAME)
    whole = what_if(model, features, ROW, [Without(views=("objects",)), Without()])
    np.testing.assert_allclose(whole[0], found[2], **SAME)
    if name != "aa_knn":  # whose neighbours may stay the same
        assert np.abs(found - whole[1]).max(1).min() > 1e-4


@pytest.mark.parametrize("name", sorted(n for n, views in READS.items() if "head" in views))
def test_without_the_head_is_as_if_no_face_had_been_found(name):
    features = from_arrays(**given())
    model = head(name, features, standardise=True)
    faceless = from_arrays(**given(STATUS["no_face"]))
    (scores,) = what_if(model, features, ROW, [Without(views=("head",))])
    np.testing.assert_allclose(scores, predict(model, faceless, torch.tensor([ROW]))[0], **SAME)
    (already,) = what_if(model, faceless, ROW, [Without(views=("head",))])
    np.testing.assert_array_equal(already, what_if(model, faceless, ROW, [Without()])[0])


@pytest.mark.parametrize("view", ["body", "depth", "scene"])
@pytest.mark.parametrize("name", sorted(READS))
def test_another_view_taken_away_is_that_of_the_mean_training_person(name, view):
    features = from_arrays(**given())
    model = head(name, features, standardise=True)
    if view not in READS[name]:
        with pytest.raises(SettingsError, match=f"reads no view '{view}'.*Known: "):
            what_if(model, features, ROW, [Without(views=(view,))])
        return
    mean = given()
    arrays = mean["views"][view].arrays
    at = ROW if view == "body" else ROW // 2
    train = given()["views"][view].arrays["features"].astype(np.float64)
    rows = np.arange(32) if view == "body" else np.arange(32) // 2
    arrays["features"] = arrays["features"].astype(np.float32)
    arrays["features"][at] = train[rows].mean(0)
    if view == "depth":
        arrays["map"][at] = 1.5  # flat, at any height
    wanted = predict(model, from_arrays(**mean), torch.tensor([ROW]))[0]
    (scores,) = what_if(model, features, ROW, [Without(views=(view,))])
    np.testing.assert_allclose(scores, wanted, rtol=1e-3, atol=1e-4)
    if name != "aa_knn":
        assert np.abs(scores - what_if(model, features, ROW, [Without()])[0]).max() > 1e-3


def test_where_nothing_is_standardised_a_view_taken_away_is_zeros():
    features = from_arrays(**given())
    model = head("mlp", features)
    zeros = given()
    zeros["views"]["scene"].arrays["features"][ROW // 2] = 0
    wanted = predict(model, from_arrays(**zeros), torch.tensor([ROW]))[0]
    (scores,) = what_if(model, features, ROW, [Without(views=("scene",))])
    np.testing.assert_allclose(scores, wanted, **SAME)


def test_a_linear_head_by_hand():
    """y = W x + b: without the scene its columns drop out, all else stays."""

    class Linear(LabelHead):
        def __init__(self, settings, **shapes):
            super().__init__(settings, **shapes)
            self.linear = nn.Linear(sum(self.widths.values()), self.labels)

        @staticmethod
        def views(settings):
            return ("body", "scene")

        def logits(self, batch):
            return self.linear(torch.cat([self.see(name, batch) for name in self.widths], 1))

    features = made.features(persons=16)
    model = Linear.setup(made.settings(), features, torch.arange(8))
    body = features.views["body"]["features"][3].float()
    weight = model.linear.weight[:, : made.WIDTH]
    wanted = (weight @ body + model.linear.bias).sigmoid()
    (scores,) = what_if(model, features, 3, [Without(views=("scene",))])
    np.testing.assert_allclose(scores, wanted.detach(), rtol=1e-5)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_cut_edge_is_one_that_the_graph_never_had(name, monkeypatch):
    features = from_arrays(**given())
    model = head(name, features)
    edge = edges_of(model)[0]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    (scores,) = what_if(model, features, ROW, [Without(edges=(edge[::-1],))])
    whole = predict(model, features, torch.tensor([ROW]))[0]
    assert np.abs(scores - whole).max() > 1e-5
    for key, value in model.state_dict().items():  # nothing stays behind
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)
    i, j = edge
    together = cooccurrence(features.truth(torch.arange(32)))
    together[i, j] = together[j, i] = 0
    if name == "hugme":
        model.together.copy_(together)
        alike = label_graph.similarity

        def never(nodes):
            found = alike(nodes).clone()
            found[i, j] = found[j, i] = 0
            return found

        monkeypatch.setattr(label_graph, "similarity", never)
    else:
        own = getattr(model.settings, name)
        linked = ((together >= own.threshold) & ~torch.eye(4, dtype=torch.bool)).float()
        share = own.share * linked / linked.sum(1, keepdim=True).clamp(min=1)
        model.adjacency.copy_(share + (1 - own.share) * torch.eye(4))
    wanted = predict(model, features, torch.tensor([ROW]))[0]
    np.testing.assert_allclose(scores, wanted, **SAME)


@pytest.mark.parametrize("name", GRAPHS)
def test_edges_come_strongest_first_and_all_can_be_cut(name):
    features = from_arrays(**given())
    model = head(name, features)
    edges = edges_of(model)
    assert edges and all(i < j for i, j in edges) and len(set(edges)) == len(edges)
    graphs = [graph.numpy() for graph in model.graphs().values()]
    strength = [max(max(g[i, j], g[j, i]) for g in graphs) for i, j in edges]
    assert strength == sorted(strength, reverse=True) and min(strength) > 0
    (alone,) = what_if(model, features, ROW, [Without(edges=edges)])
    assert np.isfinite(alone).all()


def test_a_graph_without_edges_is_each_label_by_itself():
    """ML-GCN without its edges: A is 1 - share on the diagonal, which D scales to 1."""
    features = from_arrays(**given())
    model = head("ml_gcn", features)
    (alone,) = what_if(model, features, ROW, [Without(edges=edges_of(model))])
    hidden = nn.functional.leaky_relu(model.graph.first(model.text), 0.2)
    classifiers = model.graph.second(hidden)
    batch = features.batch(torch.tensor([ROW]))
    seen = torch.cat([batch.views[name]["features"] for name in model.widths], 1)
    np.testing.assert_allclose(alone, (seen @ classifiers.T).sigmoid()[0].detach(), **SAME)


@pytest.mark.parametrize("name", ["mlp", "kosti", "helo", "aa_knn"])
def test_heads_without_convolutions_over_labels_have_no_edges(name):
    features = from_arrays(**given())
    model = head(name, features)
    assert edges_of(model) == ()
    with pytest.raises(SettingsError, match="no label graph"):
        what_if(model, features, ROW, [Without(edges=((0, 1),))])


@pytest.mark.parametrize("name", GRAPHS)
def test_the_order_of_cases_and_of_what_they_name_does_not_matter(name):
    features = from_arrays(**given())
    model = head(name, features, standardise=True)
    a, b = edges_of(model)[:2]
    cases = [
        Without(),
        Without(views=("body", "scene") if name != "rrla" else ("body",)),
        Without(edges=(a, b)),
        Without(edges=(b[::-1], a, b), views=("body",)),
        Without(edges=(b,)),
    ]
    if "objects" in READS[name]:
        cases += [Without(objects=(2, 0)), Without(objects=(0, 2, 2), edges=(a,))]
    found = what_if(model, features, ROW, cases)
    order = np.random.default_rng(0).permutation(len(cases))
    again = what_if(model, features, ROW, [cases[at] for at in order])
    np.testing.assert_allclose(again, found[order], **SAME)
    alone = np.concatenate([what_if(model, features, ROW, [case]) for case in cases])
    np.testing.assert_allclose(alone, found, **SAME)
    turned = Without(views=cases[1].views[::-1])
    np.testing.assert_allclose(what_if(model, features, ROW, [turned])[0], found[1], **SAME)


def test_modalities_of_recordings_are_views():
    features = test_helo.signals()
    model = test_helo.head(features)
    assert views_of(model, features) == ("eeg", "face", "gsr", "ppg")
    zeros = {**features.views, "gsr": dict(features.views["gsr"])}
    zeros["gsr"]["features"] = zeros["gsr"]["features"].clone()
    zeros["gsr"]["features"][5] = 0
    wanted = predict(model, replace(features, views=zeros), torch.tensor([5]))[0]
    scores = what_if(model, features, 5, [Without(views=("gsr",)), Without()])
    np.testing.assert_allclose(scores[0], wanted, **SAME)
    assert np.abs(scores[0] - scores[1]).max() > 1e-4
    with pytest.raises(SettingsError, match=r"no view 'objects'.*eeg, face, gsr, ppg"):
        what_if(model, features, 5, [Without(objects=(0,))])


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (Without(views=("scenes",)), r"no view 'scenes'.*'scene'.*body, depth, head, objects"),
        (Without(views=("labels",)), "no view 'labels'"),
        (Without(objects=(2,)), "person row 0 has no object 2: its objects are numbered 0 to 1"),
        (Without(objects=(-1,)), "no object -1"),
        (Without(edges=((2, 2),)), "sad to itself"),
        (Without(edges=((0, 4),)), "numbered 0 to 3"),
        (Without(edges=((-1, 2),)), "numbered 0 to 3"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(case, said):
    features = from_arrays(**given())
    with pytest.raises(SettingsError, match=said):
        what_if(head("hugme", features), features, 0, [Without(), case])


def test_an_edge_that_no_graph_has_is_refused_with_those_of_its_label():
    features = from_arrays(**given())
    model = head("ml_gcn", features)
    model.adjacency[0, 2] = model.adjacency[2, 0] = 0
    model.adjacency[0, 1] = 0.1
    said = "no label graph joins calm and sad: calm has edges to glad"
    with pytest.raises(SettingsError, match=said):
        what_if(model, features, ROW, [Without(edges=((2, 0),))])


@pytest.mark.parametrize("row", [-1, 64])
def test_a_row_of_nobody_is_refused(row):
    features = from_arrays(**given())
    with pytest.raises(DataError, match="numbered from 0"):
        what_if(head("mlp", features), features, row, [Without()])


@pytest.mark.parametrize("wide", [1, 10**6])
@pytest.mark.parametrize("name", sorted(READS))
def test_each_view_and_object_alone_as_asked_one_by_one(name, wide, monkeypatch):
    monkeypatch.setattr(whatif, "WIDE", wide)
    monkeypatch.setattr(whatif, "AT_ONCE", 3)
    features = from_arrays(**given())
    model = head(name, features, standardise=True)
    rows = torch.tensor([0, 6, 33, 1, 50, 7, 9])
    found = singles(model, features, rows)
    objects = made.K if "objects" in READS[name] else 0
    assert sorted(found.views) == sorted(READS[name])
    assert found.without_view.shape == (7, len(READS[name]), 4)
    assert found.without_object.shape == (7, objects, 4)
    for at, row in enumerate(rows.tolist()):
        cases = [Without(), *(Without(views=(view,)) for view in found.views)]
        there = int(features.views["objects"]["mask"][row].sum()) if objects else 0
        cases += [Without(objects=(number,)) for number in range(there)]
        wanted = what_if(model, features, row, cases)
        seen = np.concatenate(
            [found.scores[at][None], found.without_view[at], found.without_object[at, :there]]
        )
        np.testing.assert_allclose(seen, wanted, rtol=1e-4, atol=1e-5)
        assert np.isnan(found.without_object[at, there:]).all()


def test_some_views_and_no_objects_may_be_asked_for():
    features = from_arrays(**given())
    model = head("hugme", features)
    rows = torch.tensor([3, 8])
    some = singles(model, features, rows, ["scene"], objects=False)
    every = singles(model, features, rows)
    assert some.views == ("scene",) and some.without_object.shape == (2, 0, 4)
    at = every.views.index("scene")
    np.testing.assert_allclose(some.without_view[:, 0], every.without_view[:, at], **SAME)
    assert singles(model, features, rows[:0]).without_view.shape == (0, 5, 4)
    with pytest.raises(SettingsError, match="no view 'sceen'"):
        singles(model, features, rows, ["sceen"])
