import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from cache.errors import CacheError, DataError, KeyMismatch
from cache.index import Index
from cache.statuses import STATUS
from tests.train import made
from train.checkpoint import fitted_key
from train.metrics import chance_level, mean_average_precision
from train.run import open_head, score, train_head


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A cache with a dropped person in train and in test, and a head fitted on it."""
    root = tmp_path_factory.mktemp("run")
    given = made.arrays("scene", persons=320)
    given["views"]["head"].status[4:8] = STATUS["no_face"]
    given["views"]["body"].status[[0, 6]] = STATUS["unreadable"]
    given["status"][1] = "bad_box"
    given["views"]["objects"].arrays["count"][[15, 22]] = [0, 1]
    given["views"]["objects"].status[15] = STATUS["no_object"]
    made.write_cache(root / "features", given)
    seen = []
    result = train_head(
        root / "features", made.settings(epochs=25), "cpu", root / "results", seen.append
    )
    return root, given, result, seen


def test_it_writes_what_the_later_stages_read(trained):
    root, _, result, seen = trained
    out = root / "results"
    assert json.loads((out / "train.json").read_text()) == result
    with open(out / "curves.csv") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["val_map"]) for row in rows] == [row["val_map"] for row in seen]
    assert list(rows[0]) == ["epoch", "train_loss", "val_loss", "val_map"]
    best = max(seen, key=lambda row: (row["val_map"], -row["val_loss"]))
    assert (result["best_epoch"], result["val_map"]) == (best["epoch"], best["val_map"])
    assert result["persons"] == {"train": 158, "val": 80}
    assert result["dropped"]["train"] == {"body: unreadable": 1, "bad_box": 1}
    assert result["untrained"] == ["depth: made"]
    assert result["keys"].keys() == {"body", "head", "objects", "depth", "scene", "labels"}
    assert result["versions"]["torch"] == torch.__version__
    assert result["note"] == "made-up labels"
    assert result["epochs"] == len(seen) and result["stopped_early"] == (len(seen) < 25)
    assert result["val_labels"] == 4


def test_tensorboard_has_the_curves(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made.write_cache(tmp_path / "features", made.arrays(persons=64))
    seen = []
    for on in (False, True):
        settings = made.settings(epochs=3, seed=4, tensorboard=on)
        train_head(tmp_path / "features", settings, "cpu", tmp_path, seen.append)
        assert (tmp_path / "tensorboard").exists() is on
    (folder,) = (tmp_path / "tensorboard").iterdir()
    assert folder.name.endswith("_hugme_4")
    events = EventAccumulator(str(folder)).Reload()
    assert set(events.Tags()["scalars"]) == {"train_loss", "val_loss", "val_map"}
    for name in events.Tags()["scalars"]:
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        assert logged == [(row["epoch"], pytest.approx(row[name])) for row in seen[3:]]


def test_ratings_are_scored_beside_labels(tmp_path):
    given = made.arrays(persons=64)
    given["vad"] = np.linspace(1, 10, 192, dtype=np.float32).reshape(64, 3)
    given["vad"][7] = np.nan
    made.write_cache(tmp_path / "features", given)
    settings = made.settings(head="kosti", epochs=2)
    train_head(tmp_path / "features", settings, "cpu", tmp_path)
    found = score(tmp_path / "features", tmp_path / "head", "test")
    test = given["splits"] == "test"
    np.testing.assert_array_equal(found.y_vad, given["vad"][test])
    np.testing.assert_allclose(found.train_vad, given["vad"][given["splits"] == "train"].mean(0))
    assert found.vad.shape == found.y_vad.shape and np.isfinite(found.vad).all()
    made.write_cache(tmp_path / "unrated", made.arrays(persons=64))
    train_head(tmp_path / "unrated", settings, "cpu", tmp_path)
    assert score(tmp_path / "unrated", tmp_path / "head", "test").vad is None


def test_scores_of_test_persons(trained):
    root, given, _, _ = trained
    found = score(root / "features", root / "results" / "head", "test")
    test = np.flatnonzero(given["splits"] == "test")
    assert found.dropped == {"body: unreadable": 1}
    np.testing.assert_array_equal(found.person_rows, test[test != 6])
    np.testing.assert_array_equal(found.picture_rows, found.person_rows // 2)
    np.testing.assert_array_equal(found.y_true, given["targets"][found.person_rows])
    index = Index.read(root / "features")
    assert (found.dataset, found.note, found.index) == ("made", "made-up labels", index.digest())
    chance = chance_level(found.y_true)
    assert mean_average_precision(found.y_true, found.y_score) > chance + 0.3


def test_stopping_early_is_said(trained, tmp_path):
    root = trained[0]
    settings = made.settings(epochs=25, patience=1, lr=0.5)
    result = train_head(root / "features", settings, "cpu", tmp_path)
    assert result["stopped_early"] and result["epochs"] == result["best_epoch"] + 1 < 25
    result = train_head(root / "features", made.settings(epochs=1), "cpu", tmp_path)
    assert not result["stopped_early"]


def test_scores_are_of_the_data_at_hand_and_not_of_the_heads(trained, tmp_path):
    """Other persons under the same keys and labels: allowed, and said."""
    root = trained[0]
    shutil.copytree(root / "features", tmp_path / "features")
    index = replace(Index.read(tmp_path / "features"), dataset="other", note="")
    index.write(tmp_path / "features")
    found = score(tmp_path / "features", root / "results" / "head", "test")
    assert (found.dataset, found.note, found.index) == ("other", "", index.digest())
    assert (found.info["dataset"], found.info["note"]) == ("made", "made-up labels")
    assert fitted_key(found.info, found.index) != fitted_key(found.info, found.info["index"])


def test_explanation_of_chosen_persons(trained):
    root, given, _, _ = trained
    found = open_head(root / "features", root / "results" / "head").explain([22, 15, 7])
    assert found.person_rows.tolist() == [22, 15, 7]
    assert found.attention[0].tolist() == [1, 0, 0] and not found.attention[1].any()
    assert found.attention[2].sum() == pytest.approx(1)
    assert found.faces.mask.tolist() == [True, True, False]
    np.testing.assert_array_equal(
        found.objects.boxes, given["views"]["objects"].arrays["box"][[22, 15, 7]]
    )
    assert found.classes == tuple("abcde")
    together = found.graphs["cooccurrence"]
    kept = (given["splits"] == "train") & ~np.isin(np.arange(320), [0, 1])
    y = given["targets"][kept]
    assert together[0, 1] == pytest.approx((y[:, 0] * y[:, 1]).sum() / y[:, 0].sum())
    assert np.allclose(found.graphs["similarity"], found.graphs["similarity"].T)
    scores = score(root / "features", root / "results" / "head", "test")
    at = list(scores.person_rows).index(22)
    np.testing.assert_allclose(found.y_score[0], scores.y_score[at], rtol=1e-5)


def test_a_dropped_person_cannot_be_explained(trained):
    root = trained[0]
    with pytest.raises(DataError, match=r"\[6\]"):
        open_head(root / "features", root / "results" / "head").explain([6, 7])


def test_a_head_without_objects_reads_none_and_explains_none(trained, tmp_path):
    root = trained[0]
    settings = made.settings(epochs=1, hugme={"without": ["objects", "head", "hegl"]})
    result = train_head(root / "features", settings, "cpu", tmp_path)
    assert result["keys"].keys() == {"body", "depth", "scene"}
    found = open_head(root / "features", tmp_path / "head").explain([22, 15, 7])
    assert found.attention is None and found.objects is None and found.faces is None
    assert found.graphs == {}


def test_an_empty_split_a_missing_view_and_another_key_are_refused(trained, tmp_path):
    root, _, _, _ = trained
    head = root / "results" / "head"
    with pytest.raises(DataError, match="no nowhere person"):
        score(root / "features", head, "nowhere")
    given = made.arrays("scene", persons=16)
    old = given["views"]["depth"]
    other = replace(old.spec, parts={"network": "other"})
    given["views"]["depth"] = replace(old, spec=other)
    made.write_cache(tmp_path / "other", given)
    with pytest.raises(KeyMismatch, match="network: absent -> other"):
        score(tmp_path / "other", head, "test")
    del given["views"]["depth"]
    made.write_cache(tmp_path / "less", given)
    with pytest.raises(CacheError, match="emocache extract"):
        score(tmp_path / "less", head, "test")
