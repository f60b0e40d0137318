"""RRLA: its score, and what each ablation leaves out. Its layers: tests/train/layers."""

import pytest
import torch

from tests.train import made
from tests.train.heads.test_peers import settings
from train.heads import get_head


def head(**rrla):
    features = made.features(persons=16)
    torch.manual_seed(0)
    some = settings("rrla", rrla=rrla)
    return get_head("rrla").setup(some, features, features.rows("train")), features


def test_the_score_is_the_graph_times_the_fused_features():
    model, features = head()
    batch = features.batch(features.rows("test"))
    fused, weights = model.fuse(batch)
    torch.testing.assert_close(
        model(batch).scores, fused @ model.graph(model.text, model.adjacency).T
    )
    assert fused.shape[1] == 2 * made.WIDTH
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


@pytest.mark.parametrize(
    ("part", "gone"),
    [("boa", "attention."), ("bpa", "gate."), ("eld", "graph."), ("objects", "join.")],
)
def test_an_ablation_takes_its_part_away(part, gone):
    model, features = head(without=[part])
    assert not [name for name, _ in model.named_parameters() if name.startswith(gone)]
    assert [name for name, _ in head()[0].named_parameters() if name.startswith(gone)]
    assert model(features.batch(features.rows("test"))).scores.isfinite().all()


def test_without_geometry_places_change_nothing():
    given = made.arrays(persons=16)
    for part, same in ((["geometry"], True), ([], False)):
        model, features = head(without=part)
        rows = features.rows("test")
        before = model(features.batch(rows)).scores
        features.views["objects"]["box"][:] += torch.arange(made.K)[:, None] * 30.0
        assert torch.allclose(model(features.batch(rows)).scores, before) is same
    assert given


def test_without_boa_objects_count_alike():
    model, features = head(without=["boa"])
    batch = features.batch(features.rows("test"))
    weights = model(batch).attention
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / made.K))


def test_it_reads_region_features_and_words():
    assert get_head("rrla").views(made.settings()) == ("body", "objects.region", "words")
    some = settings("rrla", rrla={"without": ["eld", "objects"]})
    assert get_head("rrla").views(some) == ("body",)
