"""pipelines.studies.crossval: heads on the same folds, every person tested once."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cache.errors import SettingsError
from cache.index import Index
from pipelines.studies.crossval import crossval, entries, plan
from pipelines.studies.crossval_page import table_of
from train.data import load
from train.fit import fit
from train.folds import make_folds
from train.metrics import distribution_measures
from train.run import scores_of
from train.scores import Scores

MLP = {"head": "mlp", "mlp": {"hidden": [8]}}


def settings_of(asked, train=None, **folds):
    return asked({**MLP, **(train or {})}, folds={"protocol": "random", "k": 4, **folds})


def read(folder, name):
    return Scores.read(folder / "scores" / f"{name}.parquet")


def test_every_person_is_tested_once_by_a_head_of_their_fold(asked, cache, tmp_path):
    settings = settings_of(asked)
    result = crossval(settings)
    scores = read(tmp_path / "results/crossval/random", "mlp")
    index = Index.read(cache)
    assert scores.person_rows.tolist() == list(range(len(index.persons)))
    row = result["rows"][0]
    assert row["n_evaluated"] == 160 and result["fitted"] == 4 and result["protocol"] == "random"
    each = average_precision_score(index.targets, scores.y_score, average=None)
    assert row["mAP"] == pytest.approx(each.mean(), abs=1e-6)
    assert row["mAP_low"] < row["mAP"] < row["mAP_high"]
    # by hand: the second fold
    features = load(cache, ["*"])
    fold = make_folds(index, features.kept, settings.folds)[1]
    alone = fit(fold.of(features), settings.train)
    by_hand = scores_of(alone.model, {}, fold.of(features), "test")
    at = np.isin(scores.person_rows, by_hand.person_rows)
    np.testing.assert_allclose(scores.y_score[at], by_hand.y_score, atol=1e-6)


def test_the_chance_level_is_that_of_each_folds_own_training_persons(asked, cache, tmp_path):
    root = tmp_path / "shares"
    index = _with_shares(cache, root)
    settings = settings_of(asked)
    settings = settings.model_copy(
        update={"cache": settings.cache.model_copy(update={"root": root})}
    )
    result = crossval(settings)
    row = result["rows"][0]
    assert result["kind"] == "distribution" and result["chance"] == "mean of train"
    predicted = np.zeros_like(index.targets)
    for fold in make_folds(index, np.ones(len(index.persons), bool), settings.folds):
        predicted[fold.test] = index.targets[fold.train].mean(0)
    for name, values in distribution_measures(index.targets, predicted).items():
        assert row[f"chance_{name}"] == pytest.approx(values.mean(), rel=1e-4)
    scores = read(tmp_path / "results/crossval/random", "mlp")
    each = distribution_measures(index.targets, scores.y_score)
    assert row["kl"] == pytest.approx(each["kl"].mean(), rel=1e-5)
    assert next(name for name in table_of(result).columns if "↓" in name) == "KL divergence ↓"


def _with_shares(cache, root) -> Index:
    """The made cache with distributions for labels."""
    import shutil

    import pyarrow as pa

    shutil.copytree(cache, root)
    index = Index.read(root)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), len(index.persons)).astype(np.float32)
    at = index.persons.column_names.index("labels")
    column = pa.array(list(shares), pa.list_(pa.float32()))
    changed = replace(
        index, persons=index.persons.set_column(at, "labels", column), kind="distribution"
    )
    changed.write(root)
    return Index.read(root)


def test_what_was_fitted_is_kept_until_something_changes(asked, fits):
    assert crossval(settings_of(asked))["fitted"] == 4
    again = crossval(settings_of(asked))
    assert (again["fitted"], again["kept"], len(fits)) == (0, 4, 4)
    assert crossval(settings_of(asked, {"lr": 1e-3}))["fitted"] == 4
    assert crossval(settings_of(asked, k=5))["fitted"] == 5
    more = crossval(settings_of(asked, heads=["mlp", "linear"]))
    assert (more["fitted"], more["kept"]) == (4, 4)


def test_a_kept_fit_gives_the_same_numbers(asked):
    first, second = crossval(settings_of(asked)), crossval(settings_of(asked))
    assert first["rows"] == second["rows"] and first["lacks"] == second["lacks"]


def test_half_written_scores_are_fitted_again(asked, tmp_path):
    crossval(settings_of(asked))
    for path in (tmp_path / "results/crossval/fits").glob("*.json"):
        path.unlink()
        break
    assert crossval(settings_of(asked))["fitted"] == 1


def test_heads_are_compared_with_the_first_on_the_same_persons(asked, tmp_path):
    variants = {"narrow": {"train.head": "mlp", "train.mlp.hidden": [2]}}
    result = crossval(settings_of(asked, heads=["mlp", "narrow"], settings=variants))
    first, second = result["rows"]
    gap = second["mAP_less_first"]
    assert gap["difference"] == pytest.approx(second["mAP"] - first["mAP"])
    assert gap["low"] <= gap["difference"] <= gap["high"] and 0 < gap["p"] <= 1
    assert "mAP_less_first" not in first
    page = (tmp_path / "results/crossval/random/crossval.html").read_text()
    assert "Difference to mlp, on the same persons" in page and "narrow" in page
    with (tmp_path / "results/crossval/random/folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8 and {row["head"] for row in rows} == {"mlp", "narrow"}
    assert all(int(row["train"]) + int(row["val"]) + int(row["test"]) == 160 for row in rows)


def test_a_head_alone_gives_what_it_gives_beside_others(asked, tmp_path):
    crossval(settings_of(asked))
    alone = read(tmp_path / "results/crossval/random", "mlp").y_score
    crossval(settings_of(asked, {"epochs": 2}, heads=["linear", "mlp"]))
    crossval(settings_of(asked, heads=["linear", "mlp"]))
    np.testing.assert_array_equal(read(tmp_path / "results/crossval/random", "mlp").y_score, alone)


def test_the_leaking_protocol_says_so_wherever_numbers_stand(asked, tmp_path):
    result = crossval(settings_of(asked, protocol="leaking"))
    assert "LEAKING" in result["leaking"] and "LEAKING" in table_of(result).notes[0]
    for name in ("crossval.html", "table.md", "table.tex"):
        assert "LEAKING" in (tmp_path / "results/crossval/leaking" / name).read_text()
    assert not crossval(settings_of(asked))["leaking"]


def test_the_plan_fits_nothing(asked, fits, tmp_path):
    found = plan(settings_of(asked, heads=["mlp", "linear"]))
    assert found["fits"] == 8 and found["heads"] == ["mlp", "linear"] and not fits
    assert sum(part["test"] for part in found["parts"]) == 160
    assert not (tmp_path / "results").exists()
    json.dumps(found)


@pytest.mark.parametrize(
    ("folds", "why"),
    [
        ({"heads": ["mlp", "mlp"]}, "names one head twice"),
        ({"settings": {"linear": {}}}, "folds.settings has 'linear', which folds.heads has not"),
        ({"heads": ["no such"]}, "folds.heads has 'no such', which is no head .*folds.settings"),
        (
            {"heads": ["mlp"], "settings": {"mlp": {"train.rrla.heads": 2}}},
            "set train.head to rrla",
        ),
        ({"protocol": "subjects"}, "160 of 160 persons have none"),
        ({"k": 200}, "there are 80: lower folds.k"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_any_fit(asked, fits, folds, why):
    with pytest.raises(SettingsError, match=why):
        crossval(settings_of(asked, **folds))
    assert not fits


def test_without_heads_the_head_of_train_is_taken(asked):
    assert list(entries(asked({"head": "rrla"}))) == ["rrla"]
