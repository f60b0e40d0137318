"""pipelines.evaluation: the numbers, the files, and DVC reading them."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    precision_score,
    recall_score,
)

from cache.errors import DataError
from pipelines import evaluation
from pipelines.results import Results, read_csv
from tests.pipelines.report_data import LABELS, provenance, results, scores
from train.metrics import MEASURES, distribution_measures, mean_average_precision, thresholds
from train.scores import Scores
from train.settings import Evaluate

ROOT = Path(__file__).resolve().parents[2]
QUICK = Evaluate(bootstrap=100)


def single_label(split="test", seed=0):
    """400 persons with one of four labels each."""
    rng = np.random.default_rng([seed, len(split)])
    true = np.eye(4, dtype=np.int8)[rng.choice(4, 400, p=[0.5, 0.3, 0.15, 0.05])]
    score = rng.normal(size=true.shape) + 1.5 * true
    rows = np.arange(400)
    return Scores(split, ("a", "b", "c", "d"), rows, rows // 2, true, score, dropped={"no_face": 3})


def soft(seed=0):
    """300 persons, each with a distribution over five labels."""
    rng = np.random.default_rng(seed)
    d = rng.dirichlet([0.3, 0.5, 1, 1, 2], 300)
    p = 0.6 * d + 0.4 * rng.dirichlet(np.ones(5), 300)
    rows = np.arange(300)
    labels = ("a", "b", "c", "d", "e")
    hard = (d > 0.5).astype(np.int8)
    return Scores("test", labels, rows, rows // 3, hard, p, distribution=d)


def rated(seed=0):
    """400 persons with several labels each, 50 of them not rated, 10 more in arousal alone."""
    rng = np.random.default_rng(seed)
    true = (rng.random((400, 3)) < 0.3).astype(np.int8)
    y_vad = rng.uniform(1, 10, (400, 3)).astype(np.float32)
    y_vad[:50], y_vad[50:60, 1] = np.nan, np.nan
    vad = np.nan_to_num(y_vad) + rng.normal([1, 0, 0], [1, 2, 0.5], (400, 3)).astype(np.float32)
    rows = np.arange(400)
    more = {"vad": vad, "y_vad": y_vad, "train_vad": np.float32([5, 6, 7])}
    score = rng.normal(size=true.shape)
    return Scores("test", ("a", "b", "c"), rows, rows // 2, true, score, **more)


def measured(found, **more):
    return evaluation.measure(found, QUICK, provenance(), **more)


def test_numbers_of_the_split():
    test = scores()
    found = evaluation.measure(test, QUICK, provenance()).metrics
    numbers = found["test"]
    assert numbers["mAP"] == pytest.approx(
        average_precision_score(test.y_true, test.y_score, average="macro")
    )
    assert numbers["chance_mAP"] == pytest.approx(test.y_true.mean())
    assert numbers["mAP_low"] < numbers["mAP"] < numbers["mAP_high"]
    assert numbers["mAP_interpolated"] >= numbers["mAP"]
    assert (numbers["n_evaluated"], numbers["n_pictures"], numbers["n_dropped"]) == (400, 200, 4)
    assert numbers["dropped"] == {"bad_box": 3, "unreadable": 1}
    assert {**found["provenance"], "interval": ""} == {**provenance(), "interval": ""}
    assert found["provenance"]["interval"].startswith("95% basic bootstrap over pictures, 100 ")
    assert (numbers["dataset"], numbers["note"], numbers["seed"]) == ("emotic", "made-up scores", 0)
    assert (numbers["cache_key"], numbers["fitted_on"]) == ("b61f0c2a9d3e", "the same")
    assert (numbers["classes"], numbers["classes_with_positive"]) == (26, 26)
    assert "F1_micro" not in numbers and "val" not in found


def test_a_head_of_other_data_is_named_beside_the_data_measured():
    about = provenance()
    assert evaluation.fitted_elsewhere(about) == ""
    about["fitted_on"] = {"dataset": "caers", "note": "", "cache_key": "7" * 64}
    assert evaluation.fitted_elsewhere(about) == (
        "fitted on caers (cache key 777777777777), evaluated on emotic (cache key b61f0c2a9d3e)"
    )
    numbers = evaluation.measure(scores(), QUICK, about).metrics["test"]
    assert (numbers["dataset"], numbers["fitted_on"]) == ("emotic", "caers 777777777777")


def test_decisions_use_the_thresholds_of_val_only():
    test, val = scores("test"), scores("val")
    found = evaluation.measure(test, QUICK, provenance(), val=val)
    limits = thresholds(val.y_true, val.y_score)
    assert [row["threshold"] for row in found.per_class] == limits.tolist()
    predicted = (test.y_score >= limits).astype(int)
    true = test.y_true.astype(int)
    assert true.any(axis=0).all()

    def macro(score):
        return score(true, predicted, average="macro", zero_division=0)

    for name, oracle in (
        ("F1_macro", f1_score(true, predicted, average="macro", zero_division=0)),
        ("F1_micro", f1_score(true, predicted, average="micro", zero_division=0)),
        ("O_F1", f1_score(true, predicted, average="micro", zero_division=0)),
        ("C_F1", 2 / (1 / macro(precision_score) + 1 / macro(recall_score))),
        ("jaccard", jaccard_score(true, predicted, average="samples", zero_division=0)),
    ):
        assert found.metrics["test"][name] == pytest.approx(oracle)
    assert found.metrics["val"]["n_evaluated"] == 400
    # Other test scores, same val: the same thresholds.
    again = evaluation.measure(scores("test", seed=9), QUICK, provenance(), val=val)
    assert [row["threshold"] for row in again.per_class] == limits.tolist()
    with pytest.raises(DataError, match="val only"):
        evaluation.measure(val, QUICK, provenance(), val=test)


def test_single_label_data_has_accuracies_and_a_confusion(tmp_path):
    test, val = single_label(), single_label("val")
    numbers = measured(test, val=val).metrics["test"]
    true, predicted = test.y_true.argmax(axis=1), test.y_score.argmax(axis=1)
    assert numbers["kind"] == "single"
    assert numbers["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert numbers["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, predicted))
    assert numbers["chance_accuracy"] == np.bincount(true).max() / 400
    for name in ("mAP", "accuracy", "balanced_accuracy"):
        assert numbers[f"{name}_low"] < numbers[name] < numbers[f"{name}_high"]
    assert numbers["C_F1"] > 0 and numbers["n_dropped"] == 3
    measured(test).write(Results(tmp_path))
    confusion = tmp_path / "plots" / "confusion.csv"
    rows = read_csv(confusion)
    assert rows[0] == {"actual": "abcd"[true[0]], "predicted": "abcd"[predicted[0]]}
    assert len(rows) == 400
    confusion.write_text("actual,predicted\n1,nan\n")  # labels may be called anything
    assert read_csv(confusion) == [{"actual": "1", "predicted": "nan"}]
    # a person of val with two labels: the data are of another kind
    two = val.y_true.copy()
    two[0] = 1
    other = measured(test, val=replace(val, y_true=two))
    assert other.metrics["test"]["kind"] == "multi" and "accuracy" not in other.metrics["test"]
    other.write(Results(tmp_path))
    assert confusion.read_text().split() == ["actual,predicted"]  # and nothing of the run before


def test_distributions_have_six_measures_and_those_of_one_for_everybody():
    test = soft()
    numbers = measured(test).metrics["test"]
    each = distribution_measures(test.distribution, test.y_score)
    assert (numbers["kind"], numbers["chance_distribution"]) == ("distribution", "uniform")
    for name in MEASURES:
        assert numbers[name] == pytest.approx(each[name].mean())
        assert numbers[f"{name}_low"] < numbers[name] < numbers[f"{name}_high"]
        better = name in ("cosine", "intersection")
        assert (numbers[name] > numbers[f"chance_{name}"]) == better
    assert "C_F1" not in numbers and "accuracy" not in numbers
    mean = test.distribution.mean(axis=0)
    again = measured(replace(test, train_mean=mean)).metrics["test"]
    assert again["chance_distribution"] == "mean of train"
    assert again["chance_kl"] < numbers["chance_kl"] and again["kl"] == numbers["kl"]
    with pytest.raises(DataError, match=r"\(4,\) and there are 5 labels"):
        measured(replace(test, train_mean=mean[:4]))
    with pytest.raises(DataError, match="softmax"):
        measured(replace(test, y_score=test.y_score * 1.5))


def test_ratings_have_errors_over_those_rated():
    found = rated()
    numbers = measured(found).metrics["test"]
    gaps = np.abs(found.vad - found.y_vad)
    for column, name in enumerate(evaluation.VAD):
        known = ~np.isnan(found.y_vad[:, column])
        by_hand = mean_absolute_error(found.y_vad[known, column], found.vad[known, column])
        assert numbers[f"{name}_error"] == pytest.approx(by_hand)
        assert numbers[f"{name}_error_low"] < by_hand < numbers[f"{name}_error_high"]
    assert numbers["VAD_error"] == pytest.approx(np.nanmean(gaps, axis=0).mean())
    assert numbers["n_rated"] == 350 and numbers["n_evaluated"] == 400
    same = np.nanmean(np.abs(found.y_vad - [5, 6, 7]), axis=0).mean()
    assert numbers["chance_VAD_error"] == pytest.approx(same)
    nobody = replace(found, y_vad=np.full((400, 3), np.nan, np.float32))
    assert "VAD_error" not in measured(nobody).metrics["test"]


def test_labels_that_are_no_distribution_are_counted():
    test = single_label()
    hard = replace(test, distribution=test.y_true.astype(float))
    assert measured(hard).metrics["test"]["kind"] == "single"
    doubled = replace(soft(), distribution=soft().distribution * 2)
    assert measured(doubled).metrics["test"]["kind"] == "multi"
    assert measured(scores()).metrics["test"]["kind"] == "multi"


def test_leaked_persons_are_left_out_beside_the_whole():
    leaked = np.arange(0, 5000, 3)
    test = scores()
    kept = test.person_rows % 3 != 0
    found = measured(test, leaked=leaked).metrics["test"]
    assert found["n_leaked"] == (~kept).sum() and found["n_evaluated"] == 400
    expected = mean_average_precision(test.y_true[kept], test.y_score[kept])
    assert found["mAP_without_leaked"] == pytest.approx(expected)
    assert found["mAP"] == measured(test).metrics["test"]["mAP"]
    one = single_label()
    kept = one.person_rows % 3 != 0
    found = measured(one, leaked=leaked).metrics["test"]
    hits = one.y_true.argmax(axis=1) == one.y_score.argmax(axis=1)
    assert found["accuracy_without_leaked"] == pytest.approx(hits[kept].mean())
    found = measured(soft(), leaked=leaked).metrics["test"]
    each = distribution_measures(soft().distribution, soft().y_score)["kl"]
    assert found["kl_without_leaked"] == pytest.approx(each[np.arange(300) % 3 != 0].mean())
    for nobody in (None, np.array([], int), np.array([9])):
        assert "n_leaked" not in measured(test, leaked=nobody).metrics["test"]
    everybody = measured(test, leaked=test.person_rows).metrics["test"]
    assert (everybody["n_leaked"], everybody["mAP_without_leaked"]) == (400, None)


def test_one_label_with_a_positive_and_none():
    test, val = scores("test", persons=20), scores("val", persons=20)
    true = np.zeros_like(test.y_true)
    for positives in (1, 0):
        true[0, 3] = positives
        found = evaluation.measure(replace(test, y_true=true), QUICK, provenance(), val=val)
        assert found.metrics["test"]["classes_with_positive"] == positives
        assert (found.metrics["test"]["mAP"] is None) == (positives == 0)
        assert len(found.per_class) == len(LABELS)
        assert {row["label"] for row in found.pr} == ({"Anticipation"} if positives else set())


def test_wrong_widths_and_scores_that_are_not_finite_are_refused():
    test = scores()
    with pytest.raises(DataError, match="25 labels"):
        measured(replace(test, labels=tuple(LABELS[:-1])))
    with pytest.raises(DataError, match="not finite"):
        bad = np.where(np.eye(*test.y_score.shape), np.nan, test.y_score)
        evaluation.measure(replace(test, y_score=bad), QUICK, provenance())


def test_files_hold_what_was_measured(tmp_path):
    test, val = scores("test", persons=60), scores("val", persons=60)
    test.y_true[:, 1] = 0
    found, results = measured(test, val=val), Results(tmp_path)
    found.write(results)
    returned = found.metrics
    assert results.read_metrics() == returned
    shown = json.loads((tmp_path / "metrics.json").read_text())
    assert shown == {split: returned[split] for split in ("test", "val")}
    # a column of DVC's table is as wide as the longest text in it
    assert all(len(str(value)) < 40 for numbers in shown.values() for value in numbers.values())
    (tmp_path / "provenance.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match=r"provenance\.json: run `emocache evaluate`"):
        results.read_metrics()
    rows = read_csv(results.per_class)
    assert tuple(rows[0]) == evaluation.PER_CLASS
    assert [row["label"] for row in rows] == LABELS
    assert np.isnan(rows[1]["ap"]) and rows[1]["positives"] == 0
    aps = [row["ap"] for row in rows if not np.isnan(row["ap"])]
    assert np.mean(aps) == pytest.approx(returned["test"]["mAP"])
    table = pq.read_table(tmp_path / "scores.parquet")
    assert table.column_names == ["person", "picture", "split", "y_true", "y_score"]
    np.testing.assert_array_equal(table["person"], test.person_rows)
    np.testing.assert_allclose(table["y_score"].to_pylist(), test.y_score, rtol=1e-6)


def test_curves_are_thinned_but_keep_their_ends():
    test = scores(persons=4000)
    rows = evaluation.measure(test, QUICK, provenance()).pr
    for label in LABELS:
        mine = [(row["recall"], row["precision"]) for row in rows if row["label"] == label]
        assert 10 < len(mine) <= 102
        assert mine == sorted(mine, key=lambda point: point[0])
        rate = test.y_true[:, LABELS.index(label)].mean()
        assert mine[-1] == (1, pytest.approx(rate, abs=1e-4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["multi", "single", "distribution"])
def test_dvc_shows_the_metrics_and_the_plots(tmp_path, kind):
    """With the `plots` section of the project's own dvc.yaml."""

    def dvc(*words):
        command = [sys.executable, "-m", "dvc", *words]
        return subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)

    results(tmp_path / "results", persons=60, kind=kind)
    shutil.copytree(ROOT / "pipelines" / "templates", tmp_path / "pipelines" / "templates")
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    sections = {"metrics": ["results/metrics.json"], "plots": plots}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(sections))
    dvc("init", "--no-scm", "-q")
    shown = json.loads(dvc("metrics", "show", "--json").stdout)
    assert "error" not in json.dumps(shown)
    assert next(iter(shown.values()))["data"]["results/metrics.json"]["data"]["test"]["mAP"] > 0
    table = dvc("metrics", "show").stdout
    assert "b61f0c2a9d3e" in table and "ResNet-50" not in table
    assert "failed" not in dvc("plots", "show", "-o", "out").stderr
    page = (tmp_path / "out" / "index.html").read_text()
    assert "DVC_METRIC" not in page
    label = {"multi": "Happiness", "single": "Happy", "distribution": "happiness"}[kind]
    for word in (label, "chance", "recall", "val_loss", "val_map"):
        assert f'"{word}"' in page
    assert ("percent_of_y" in page) == (kind == "single")
