"""emocache compare: two result folders, the same persons, shared resamples."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import DataError
from cache.index import VAD
from pipelines.commands import heads
from pipelines.comparison import compare, compare_runs, holm
from pipelines.evaluation import measure
from pipelines.results import Results
from tests.pipelines.report_data import LABELS, provenance, scores
from tests.pipelines.test_evaluation import QUICK, rated, single_label, soft
from train import metrics
from train.scores import Scores

ROOT = Path(__file__).resolve().parents[2]


def written(folder, found, head="hugme"):
    about = {**provenance(), "head": head, "head_sha256": "e" * 64}
    measure(found, QUICK, about).write(Results(folder))
    return folder


def noisy(found, noise=1.0):
    rng = np.random.default_rng(1)
    return replace(found, y_score=found.y_score + rng.normal(0, noise, found.y_score.shape))


@pytest.fixture
def two(tmp_path):
    """Results of a head, and of a worse one."""
    return written(tmp_path / "a", scores()), written(tmp_path / "b", noisy(scores()), "rrla")


def test_map_of_two_heads(two):
    found = compare(*two, QUICK)
    (row,) = found["measures"]
    a, b = (Results(folder).read_metrics()["test"]["mAP"] for folder in two)
    assert (row["measure"], row["a"], row["b"]) == ("mAP", pytest.approx(a), pytest.approx(b))
    assert row["difference"] == pytest.approx(b - a)
    assert row["low"] < row["difference"] < row["high"] < 0
    assert row["p"] == pytest.approx(2 / 101)
    assert (found["n_evaluated"], found["n_pictures"], found["kind"]) == (400, 200, "multi")
    assert (found["b"]["head"], found["b"]["n_dropped"], found["b"]["n_only"]) == ("rrla", 4, 0)
    itself = compare(two[0], two[0], QUICK)["measures"][0]
    assert (itself["difference"], itself["p"]) == (0, 1)


def test_measures_follow_the_kind_of_the_labels(tmp_path):
    one = single_label()
    a, b = written(tmp_path / "a", one), written(tmp_path / "b", noisy(one))
    rows = {row["measure"]: row for row in compare(a, b, QUICK)["measures"]}
    assert list(rows) == ["mAP", "accuracy", "balanced_accuracy", "macro_F1"]
    for name, row in rows.items():
        assert row["a"] == pytest.approx(Results(a).read_metrics()["test"][name])
        assert row["low"] <= row["difference"] <= row["high"]
    many = soft()
    blurred = replace(many, y_score=0.5 * many.y_score + 0.1)
    a, b = written(tmp_path / "c", many), written(tmp_path / "d", blurred)
    rows = {row["measure"]: row for row in compare(a, b, QUICK)["measures"]}
    assert list(rows) == list(metrics.MEASURES)
    assert rows["kl"]["difference"] > 0 > rows["cosine"]["difference"]
    assert rows["kl"]["b"] == pytest.approx(Results(b).read_metrics()["test"]["kl"], rel=1e-5)


def test_ratings_are_compared_where_both_heads_predict_them(tmp_path):
    one = rated()
    worse = replace(one, vad=one.vad + np.float32([0, 0, 1]))
    a, b = written(tmp_path / "a", one), written(tmp_path / "b", worse)
    rows = {row["measure"]: row for row in compare(a, b, QUICK)["measures"]}
    each = [f"{name}_error" for name in VAD]
    assert list(rows) == ["mAP", "VAD_error", *each]
    assert rows["dominance_error"]["low"] > 0 == rows["arousal_error"]["difference"]
    c = written(tmp_path / "c", replace(one, vad=None, y_vad=None))
    for pair in ((a, c), (c, a)):
        assert [row["measure"] for row in compare(*pair, QUICK)["measures"]] == ["mAP"]


def test_persons_are_matched_by_their_row(two, tmp_path):
    test = scores()
    order = np.random.default_rng(0).permutation(400)[:350]
    names = ("person_rows", "picture_rows", "y_true", "y_score")
    fewer = replace(test, **{name: getattr(test, name)[order] for name in names})
    found = compare(two[0], written(tmp_path / "c", fewer), QUICK)
    assert found["measures"][0]["difference"] == 0
    assert (found["n_evaluated"], found["a"]["n_only"], found["b"]["n_only"]) == (350, 50, 0)


def test_scores_come_back_as_they_were_written(tmp_path):
    for found in (replace(scores(), index="d1ge5t"), soft()):
        found.write(tmp_path / "scores.parquet")
        back = Scores.read(tmp_path / "scores.parquet")
        assert (back.split, back.labels, back.index) == (found.split, found.labels, found.index)
        np.testing.assert_array_equal(back.person_rows, found.person_rows)
        np.testing.assert_array_equal(back.y_true, found.y_true)
        np.testing.assert_allclose(back.y_score, found.y_score, rtol=1e-6)
        assert (back.distribution is None) == (found.distribution is None)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"split": "val"}, "split is test in the one and val in the other: set evaluate.split"),
        ({"labels": (*LABELS[:-1], "Yawning")}, "Yearning in the one and .*Yawning in the other"),
        ({"index": "5" * 64}, "index is unknown in the one and 555555555555 in the other"),
        ({"person_rows": np.arange(400) + 5000}, "no person is scored in both"),
        ({"y_true": 1 - scores().y_true}, "the same persons have other labels"),
    ],
)
def test_what_cannot_be_compared_is_refused(two, tmp_path, change, says):
    other = written(tmp_path / "c", replace(scores(), **change))
    with pytest.raises(DataError, match=says):
        compare(two[0], other, QUICK)


def test_scores_of_a_head_that_was_fitted_anew_are_refused(two):
    head = two[1] / "head" / "head.json"
    head.parent.mkdir()
    head.write_text(json.dumps({"sha256": "e" * 64}))
    assert compare(*two, QUICK)["b"]["head_sha256"] == "e" * 64
    head.write_text(json.dumps({"sha256": "f" * 64}))
    with pytest.raises(DataError, match=r"cannot be compared: .* f{12} .*emocache evaluate"):
        compare(*two, QUICK)


def test_results_of_an_older_emocache_are_refused(two):
    import pyarrow.parquet as pq

    path = two[1] / "scores.parquet"
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    with pytest.raises(DataError, match=r"b/scores\.parquet does not say.*evaluate` again"):
        compare(*two, QUICK)
    path.unlink()
    with pytest.raises(DataError, match="run `emocache evaluate` first"):
        compare(*two, QUICK)


# ---- several -------------------------------------------------------------------------------


@pytest.fixture
def three(two, tmp_path):
    """And of one that is a little worse than the first, on fewer persons."""
    some = scores().of(np.arange(380))
    return *two, written(tmp_path / "c", noisy(some, 0.2), "mlp")


def test_each_run_is_compared_with_the_first_on_the_persons_of_all(three):
    found = compare_runs(three, QUICK)
    assert [run["name"] for run in found["runs"]] == ["A", "B", "C"]
    assert [run["n_only"] for run in found["runs"]] == [20, 20, 0]
    assert found["n_evaluated"] == 380
    assert [(row["run"], row["measure"]) for row in found["tests"]] == [("B", "mAP"), ("C", "mAP")]
    firsts = [scores().of(np.arange(380)), noisy(scores()).of(np.arange(380))]
    a, b = (metrics.bootstrap(s.y_true, s.y_score, s.picture_rows, 100) for s in firsts)
    wanted = metrics.paired(a, b)
    row = found["tests"][0]
    assert (row["a"], row["b"], row["low"], row["high"], row["p"]) == pytest.approx(
        (wanted.a, wanted.b, wanted.low, wanted.high, wanted.p)
    )
    assert found["runs"][0]["numbers"]["mAP"] == {
        "value": pytest.approx(a.mean),
        "low": pytest.approx(a.mean_low),
        "high": pytest.approx(a.mean_high),
    }
    of_b = [one for one in found["per_label"] if one["run"] == "B"]
    assert {one["label"] for one in of_b} == set(LABELS)
    gaps = [one["difference"] for one in of_b]
    assert gaps == sorted(gaps, reverse=True)
    for one in of_b:
        label = metrics.paired(a, b, LABELS.index(one["label"]))
        assert (one["difference"], one["low"], one["p"]) == pytest.approx(
            (label.difference, label.low, label.p)
        )
        assert one["positives"] == firsts[0].y_true[:, LABELS.index(one["label"])].sum()


def test_of_two_the_old_keys_are_those_of_the_runs_and_tests(two):
    found = compare(*two, QUICK)
    assert (found["a"], found["b"]) == tuple(found["runs"])
    assert found["measures"] == found["tests"] == compare_runs(two, QUICK)["tests"]


def test_labels_of_shares_differ_in_how_far_they_are_off(tmp_path):
    many = soft()
    blurred = replace(many, y_score=0.5 * many.y_score + 0.1)
    folders = [written(tmp_path / "a", many), written(tmp_path / "b", blurred)]
    found = compare_runs(folders, QUICK)
    assert found["per_label_measure"] == "share_error"
    off = [np.abs(many.distribution - one.y_score).mean(axis=0) for one in (many, blurred)]
    for row in found["per_label"]:
        at = many.labels.index(row["label"])
        assert (row["a"], row["b"]) == pytest.approx((off[0][at], off[1][at]), rel=1e-5)


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1: 0.04, 0.06, 0.06, 0.5."""
    found = holm([0.03, 0.01, np.nan, 0.5, 0.02])
    np.testing.assert_allclose(found, [0.06, 0.04, np.nan, 0.5, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []
    assert holm([0.04]) == [0.04]


def test_one_alone_and_a_third_of_another_index_are_refused(three):
    with pytest.raises(DataError, match="name two or more"):
        compare_runs(three[:1], QUICK)
    with pytest.raises(DataError, match="there is no results folder .*misspelt"):
        compare_runs([three[0], three[0] / "misspelt"], QUICK)
    written(three[2], replace(scores(), index="5" * 64))
    with pytest.raises(DataError, match=r"a and .*c cannot be compared, the index"):
        compare_runs(three, QUICK)


# ---- the command ---------------------------------------------------------------------------


def test_the_command_shows_a_table_or_json(two, emocache, monkeypatch):
    monkeypatch.chdir(two[0].parent)
    shutil.copy(ROOT / "params.yaml", ".")
    done = emocache("compare", "a", "b", "--set", "evaluate.bootstrap=200")
    assert done.code == 0
    for said in (
        "mAP",
        "B - A",
        "points",
        "95% interval",
        "at most 0.01",
        "N evaluated 400 of test",
        "rrla",
    ):
        assert said in done.out, said
    assert "N dropped 4" in done.out and "made-up scores" in done.out
    done = emocache("compare", "a", "b", "--json")
    assert done.code == 0 and json.loads(done.out)["measures"][0]["measure"] == "mAP"
    assert json.loads(done.out)["resamples"] == 1000


def test_the_command_writes_a_page_and_with_json_only_where_asked(three, emocache, monkeypatch):
    monkeypatch.chdir(three[0].parent)
    shutil.copy(ROOT / "params.yaml", ".")
    few = ("--set", "evaluate.bootstrap=100")
    done = emocache("compare", "a", "b", "c", "--json", *few)
    found = json.loads(done.out)
    assert done.code == 0 and len(found["runs"]) == 3 and "page" not in found
    assert not Path("results").exists()
    done = emocache("compare", "a", "b", "c", *few)
    assert done.code == 0 and Path("results/compare.html").exists()
    said = " ".join(done.out.split())
    for word in ("results/compare.html", "p (Holm)", "run - A", "2 comparisons", "C: c, emotic"):
        assert word in said, word
    done = emocache("compare", "a", "b", "--json", "--page", "deep/page.html", *few)
    assert json.loads(done.out)["page"] == "deep/page.html" and Path("deep/page.html").exists()


def test_the_command_refuses_in_a_sentence(two, emocache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", ".")
    done = emocache("compare", "a", "nowhere")
    assert done.code == 1 and "refused: there is no results folder nowhere" in done.err
    assert emocache("compare", "a").code == 2


def test_ratings_are_shown(capsys, tmp_path):
    written(tmp_path / "a", rated())
    heads.show_metrics(Results(tmp_path / "a").read_metrics())
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    numbers = Results(tmp_path / "a").read_metrics()["test"]
    assert f"error of arousal {numbers['arousal_error']:.2f} (" in said
    assert "persons rated 350" in said and "mean of train for all" in said
    heads._show_comparison(compare(tmp_path / "a", tmp_path / "a", QUICK))
    assert f"{numbers['VAD_error']:.4f}" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["multi", "single", "distribution"])
def test_each_kind_of_labels_is_shown_with_its_measures(kind, capsys):
    made = {"multi": scores, "single": single_label, "distribution": soft}[kind]()
    val = {"multi": lambda: scores("val"), "single": lambda: single_label("val")}.get(kind)
    found = measure(
        made,
        QUICK,
        {**provenance(), "head": "hugme"},
        val=val and val(),
        leaked=made.person_rows[:7],
    ).metrics
    heads.show_metrics(found)
    said = capsys.readouterr().out
    for word in {
        "multi": ["mAP", "random order", "C-F1, O-F1", "Jaccard"],
        "single": ["accuracy", "balanced accuracy", "most frequent label", "mAP"],
        "distribution": [*metrics.MEASURES, "uniform distribution for all"],
    }[kind]:
        assert word in said, word
    assert ", without 7 leaked persons" in said and "N dropped" in said
    assert ("mAP" in said) == (kind != "distribution")
