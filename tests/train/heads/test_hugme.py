import pytest
import torch

from cache.errors import DataError, SettingsError
from cache.statuses import STATUS
from tests.train import made
from train.data import from_arrays
from train.fit import fit, predict
from train.heads import get_head, names
from train.heads.hugme import HugMe
from train.metrics import chance_level, mean_average_precision


def head(features=None, **hugme):
    features = made.features(persons=16) if features is None else features
    torch.manual_seed(0)
    return HugMe.setup(made.settings(hugme=hugme), features, features.rows("train")), features


def map_of(features, settings, split="test"):
    model = fit(features, settings).model
    rows = features.rows(split)
    return mean_average_precision(features.truth(rows).numpy(), predict(model, features, rows))


def test_the_registry_finds_it_and_names_the_nearest_of_an_unknown_one():
    assert "hugme" in names() and get_head("hugme").__name__ == "HugMe"
    with pytest.raises(SettingsError, match=r"'hugmee'.*did you mean 'hugme'"):
        get_head("hugmee")


def test_fused_features_by_hand():
    """f_I = [f_s; f_h; f_o; f_d; f_g], with the mean of two objects at equal distances."""
    given = made.arrays(persons=16)
    given["views"]["objects"].arrays["box"][0, :2] = [[0, 0, 8, 8], [0, 0, 8, 8]]
    given["views"]["objects"].arrays["count"][0] = 2
    given["views"]["head"].status[0] = STATUS["no_face"]
    model, features = head(from_arrays(**given))
    batch = features.batch(torch.tensor([0]))
    fused, attention = model.fuse(batch)
    assert attention.tolist() == [[0.5, 0.5, 0.0]]
    objects = batch.views["objects"]
    depth_map = batch.views["depth"]["map"].flatten(1)
    expected = torch.cat(
        [
            batch.views["body"]["features"],
            torch.zeros(1, made.WIDTH),
            objects["features"][:, :2].mean(1),
            model.embedding.weight[objects["label"][0, :2]].mean(0, keepdim=True),
            batch.views["depth"]["features"],
            (depth_map - depth_map.mean()) / depth_map.std(correction=0),
            batch.views["scene"]["features"],
        ],
        dim=1,
    )
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("without", [[], ["body"], ["head", "depth"], ["objects"]])
def test_everything_learned_gets_its_gradient(without):
    """As with plain linear layers: the embedding of the objects' classes among them."""
    model, features = head(without=without)
    batch = features.batch(features.rows("train"))
    model.loss(model(batch), batch).backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    for layer in (model.mvec.mlp[0], model.mvec.fc):
        layer.learned = (0, layer.in_features)
    model.loss(model(batch), batch).backward()
    assert ("embedding.weight" in found) is ("objects" not in without)
    for name, p in model.named_parameters():
        torch.testing.assert_close(found[name], p.grad)
        assert p.grad.any(), name


def test_the_loss_is_lambda_lc_and_the_rest_ldc():
    model, features = head(lambda_c=0.7)
    batch = features.batch(features.rows("train"))
    output = model(batch)
    main = torch.nn.functional.binary_cross_entropy(output.scores, batch.target)
    constraint = 0.0
    for name, h in output.graphs.outputs.items():
        norms = h.norm(dim=1)
        cos = h @ h.T / (norms[:, None] * norms[None, :]).clamp(min=1e-9)
        constraint += (cos - output.graphs.adjacencies[name]).square().mean() / 2
    found = model.loss(output, batch)
    torch.testing.assert_close(found, 0.7 * main + 0.3 * constraint, atol=1e-4, rtol=1e-4)


def test_cooccurrence_comes_from_the_train_rows_alone():
    given = made.arrays(persons=64)
    model, _ = head(from_arrays(**given))
    given["targets"][given["splits"] != "train"] = 1
    other, _ = head(from_arrays(**given))
    assert torch.equal(model.graphs()["cooccurrence"], other.graphs()["cooccurrence"])
    given["targets"][given["splits"] == "train"] = 1
    other, _ = head(from_arrays(**given))
    assert not torch.equal(model.graphs()["cooccurrence"], other.graphs()["cooccurrence"])


def test_standardisation_comes_from_the_train_rows_alone():
    given = made.arrays(persons=64)
    features = from_arrays(**given)
    settings = made.settings(standardise=True)
    model = HugMe.setup(settings, features, features.rows("train"))
    body = given["views"]["body"].arrays["features"][given["splits"] == "train"]
    torch.testing.assert_close(model.see.body_mean, torch.from_numpy(body.astype("f4").mean(0)))


def test_standardised_missing_faces_stay_zero():
    given = made.arrays(persons=16)
    given["views"]["head"].status[0] = STATUS["no_face"]
    features = from_arrays(**given)
    model = HugMe.setup(made.settings(standardise=True), features, features.rows("train"))
    fused, _ = model.fuse(features.batch(torch.tensor([0])))
    assert not fused[0, made.WIDTH : 2 * made.WIDTH].any()


def test_no_objects_anywhere_is_finite():
    given = made.arrays(persons=16)
    given["views"]["objects"].arrays["count"][:] = 0
    given["views"]["objects"].arrays["label"][:] = -1
    model, features = head(from_arrays(**given))
    batch = features.batch(features.rows())
    loss = model.loss(model(batch), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_auto_output_is_softmax_for_one_label_each_and_sigmoid_otherwise():
    given = made.arrays(persons=16)
    model, _ = head(from_arrays(**given))
    assert (model.output, model.loss_kind) == ("sigmoid", "bce")
    given["targets"][:] = 0
    given["targets"][:, 1] = 1
    model, features = head(from_arrays(**given))
    assert (model.output, model.loss_kind) == ("softmax", "cross_entropy")
    scores = model(features.batch(features.rows())).scores
    torch.testing.assert_close(scores.sum(1), torch.ones(16))


def test_the_literal_form():
    model, features = head(output="literal", beta=1.0, darn={"distance": "corner", "unit": "pixel"})
    output = model(features.batch(features.rows()))
    torch.testing.assert_close(output.scores.sum(1), torch.ones(16))  # beta 1: p1, a softmax
    assert model.loss_kind == "squared"
    with pytest.raises(SettingsError, match=r"train\.hugme\.loss bce"):
        head(output="literal", loss="bce")


WIDTHS = {"body": 8, "head": 8, "objects": 8 + 4, "depth": 8 + 4, "scene": 8}


@pytest.mark.parametrize("part", WIDTHS)
def test_without_a_part_only_its_share_of_f_i_is_gone(part):
    model, features = head(without=[part])
    batch = features.batch(features.rows())
    fused, attention = model.fuse(batch)
    whole, _ = head()
    assert fused.shape[1] == sum(WIDTHS.values()) - WIDTHS[part]
    assert whole.mvec.mlp[0].in_features == sum(WIDTHS.values())
    assert (attention is None) == (part == "objects")
    settings = made.settings(hugme={"without": [part]})
    views = ("body", "head", "objects", "depth", "scene", "labels")
    assert HugMe.views(settings) == tuple(view for view in views if view != part)
    assert set(model.graphs()) == {"similarity", "cooccurrence"}


@pytest.mark.parametrize(
    ("gone", "left"), [("similarity", "cooccurrence"), ("cooccurrence", "similarity")]
)
def test_without_one_graph_the_other_stays(gone, left):
    model, features = head(without=[gone])
    batch = features.batch(features.rows())
    output = model(batch)
    assert list(model.graphs()) == list(output.graphs.outputs) == [left]
    assert output.graphs.nodes.shape == (4, 8)  # half of graph_width 16


@pytest.mark.parametrize("without", [["hegl"], ["similarity", "cooccurrence"]])
def test_without_hegl_p1_alone_decides_and_the_loss_is_lc(without):
    model, features = head(without=without)
    batch = features.batch(features.rows())
    output = model(batch)
    fused, _ = model.fuse(batch)
    assert torch.equal(output.logits, model.mvec.mlp(fused))
    main = torch.nn.functional.binary_cross_entropy_with_logits(output.logits, batch.target)
    assert torch.equal(model.loss(output, batch), main)
    assert model.graphs() == {}
    assert "labels" not in HugMe.views(made.settings(hugme={"without": without}))


def test_without_darn_the_weights_are_equal_and_nothing_else_changes():
    model, features = head(without=["darn"])
    whole, _ = head()
    output = model(features.batch(features.rows()))
    torch.testing.assert_close(output.attention, torch.full((16, 3), 1 / 3))
    assert {n: p.shape for n, p in model.named_parameters()} == {
        n: p.shape for n, p in whole.named_parameters()
    }


def test_nothing_left_to_see_is_refused():
    with pytest.raises(SettingsError, match="leaves nothing to see"):
        head(without=["body", "head", "objects", "depth", "scene"])


def test_a_view_that_was_not_loaded_is_named():
    given = made.arrays(persons=16)
    del given["views"]["labels"]
    with pytest.raises(DataError, match="labels"):
        head(from_arrays(**given))


@pytest.mark.parametrize("plant", ["body", "head", "objects", "depth", "scene"])
def test_it_learns_from_every_view_and_not_without_it(plant):
    features = made.features(plant)
    rows = features.rows("test")
    chance = chance_level(features.truth(rows).numpy())
    seen = map_of(features, made.settings(standardise=True))
    blind = map_of(features, made.settings(standardise=True, hugme={"without": [plant]}))
    assert seen > chance + 0.35, (seen, chance)
    assert blind < chance + 0.2 and blind < seen - 0.25, (blind, seen, chance)


def test_attending_to_the_nearest_object_beats_equal_weights_where_it_carries_the_label():
    features = made.features("objects", persons=960)
    near = map_of(features, made.settings())
    equal = map_of(features, made.settings(hugme={"without": ["darn"]}))
    literal = map_of(
        features, made.settings(hugme={"darn": {"distance": "corner", "unit": "pixel"}})
    )
    assert near > equal and near > literal, (near, equal, literal)


@pytest.mark.parametrize("output", ["sigmoid", "softmax", "literal"])
def test_every_output_learns(output):
    features = made.features("body")
    chance = chance_level(features.truth(features.rows("test")).numpy())
    settings = made.settings(hugme={"output": output})
    assert map_of(features, settings) > chance + 0.3
