"""What the report's page says."""

import math
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from cache.errors import DataError
from pipelines import overlay
from pipelines.recordings import WINDOWS
from pipelines.report import page as pages
from pipelines.report.data import read_results
from pipelines.results import Results
from tests.pipelines.report.conftest import written
from tests.pipelines.report_data import (
    EIGHT,
    KINDS,
    LABELS,
    SEVEN,
    share_scores,
    single_scores,
)
from train.metrics import MEASURES


def test_page_says_what_it_must(page, data):
    text = page.read_text(encoding="utf-8")
    numbers = data.metrics["test"]
    for word in (
        "HugMe on emotic",
        "400 persons in 200 pictures of the test split",
        data.note,
        "Depth:</b> UNTRAINED Intel/dpt-hybrid-midas runs on random weights",
        f"{100 * numbers['mAP']:.2f} %",
        f"95 % interval {100 * numbers['mAP_low']:.1f} to {100 * numbers['mAP_high']:.1f}",
        f"{100 * numbers['chance_mAP']:.1f} %",
        "4 dropped: bad box 3, unreadable 1",
        "b61f0c2a9d3e",
        "ResNet-50, ImageNet, Keras v1",
        "MIT",
        "no face found: the head view is zeros",
        "untrained-seed0-torch2.15.0</code>",
    ):
        assert word in text, word
    assert page.stat().st_size < 6e6
    assert not re.search(r"mean over \d+ of", text) and "Other data." not in text
    assert "<script" not in text and "http://" not in text and "https://" not in text


def percents(value: float) -> str:
    return f"{100 * value:.1f}"


def test_page_of_single_labels_says_what_it_must(page_of, of_kind):
    text, numbers = page_of("single").read_text(), of_kind("single").metrics["test"]
    often = SEVEN[single_scores().y_true.sum(axis=0).argmax()]
    for word in (
        "400 persons in 200 pictures of the test split, 7 labels, one for each person",
        f"<dd>{100 * numbers['accuracy']:.2f} %</dd>",
        *(
            f"<dd>{percents(numbers[name])} %</dd>"
            for name in ("balanced_accuracy", "chance_accuracy", "mAP")
        ),
        *(
            f"95 % interval {percents(numbers[f'{name}_low'])} to "
            f"{percents(numbers[f'{name}_high'])}"
            for name in ("accuracy", "balanced_accuracy", "mAP")
        ),
        "mean recall; chance 14.3",
        f"accuracy lies above what naming {often} for everybody reaches.",
        "balanced accuracy lies above the one in 7 that knowing nothing reaches.",
        "3 dropped: bad box 3",
        "b61f0c2a9d3e",
        "probability of each label",
    ):
        assert word in text, word
    # a head that names the likeliest label needs no threshold, and none is shown
    assert "threshold" not in text.lower() and 'class="limit"' not in text and "F1 over" not in text


def test_confusion_recall_and_precision_are_those_of_scikit_learn(page_of):
    text, scores = page_of("single").read_text(), single_scores()
    true, predicted = scores.y_true.argmax(axis=1), scores.y_score.argmax(axis=1)
    table = np.zeros((7, 7), int)
    shares = np.zeros((7, 7))
    cell = r'--share: ([\d.]+)" title="(\w+), predicted (\w+): (\d+) of (\d+)">(\d+)<small>(\d+)<'
    for share, row, column, count, persons, percent, small in re.findall(cell, text):
        at = SEVEN.index(row), SEVEN.index(column)
        table[at], shares[at] = int(count), float(share)
        assert count == small and percent == f"{100 * int(count) / int(persons):.0f}"
    wanted = confusion_matrix(true, predicted)
    np.testing.assert_array_equal(table, wanted)
    np.testing.assert_allclose(shares, wanted / wanted.sum(axis=1, keepdims=True), atol=5e-4)
    recalls = recall_score(true, predicted, average=None)
    precisions = precision_score(true, predicted, average=None)
    for label, recall, precision in zip(SEVEN, recalls, precisions, strict=True):
        row = re.search(rf">{label}</span><span.*?</label>", text, re.DOTALL)[0]
        assert f">{percents(recall)}</span><span" in row
        assert row.endswith(f">{percents(precision)}</span></label>")


def test_a_label_that_nobody_has_or_is_predicted_to_have_is_not_0(of_kind, tmp_path):
    data = of_kind("single")
    rows = [row for row in data.confusion if row["actual"] != "Sad" and row["predicted"] != "Happy"]
    per_class = [dict(row) for row in data.per_class]
    per_class[5] |= {"ap": np.nan, "low": np.nan, "high": np.nan, "positives": 0, "chance": 0.0}
    pr = [row for row in data.pr if row["label"] != "Sad"]
    text = written(replace(data, confusion=rows, per_class=per_class, pr=pr, persons=[]), tmp_path)
    assert text.count("nobody on test") == 1
    for label, name in (("Sad", "recall"), ("Happy", "precision")):
        row = re.search(rf">{label}</span><span.*?</label>", text, re.DOTALL)[0]
        recall, precision = re.findall(r'<span class="n">([^<]*)</span>', row)[-2:]
        assert {"recall": recall, "precision": precision}[name] == "–"
    assert "nan" not in text.lower()


def test_cards_of_single_labels(of_kind, tmp_path):
    data = of_kind("single")
    person = replace(
        data.persons[0],
        true=["Sad"],
        predicted=["Fear"],
        scores=dict(zip(SEVEN, (0.1, 0.2, 0.3, 0.15, 0.05, 0.12, 0.08), strict=True)),
    )
    text = written(replace(data, persons=[person]), tmp_path)
    assert '<span class="soft">Sad, predicted Fear</span>' in text
    rows = re.findall(
        r'<div class="label-row (\w+)".*?class="label">(\w+)<.*?>([\d.]+)<', text, re.S
    )
    assert [row[:2] for row in rows[:4]] == [
        ("wrong", "Fear"),
        ("neither", "Disgust"),
        ("neither", "Happy"),
        ("missed", "Sad"),
    ]
    right = replace(person, true=["Fear"])
    assert "Fear, right</span>" in written(replace(data, persons=[right]), tmp_path)
    # scores of a head without a softmax are no probabilities
    wild = replace(person, scores={label: 3.0 * n for n, label in enumerate(SEVEN)})
    text = written(replace(data, persons=[wild]), tmp_path)
    assert "the head's score for each label" in text.replace("&#39;", "'")
    assert "probability of each" not in text
    # of many labels the likeliest and the true one
    many = {f"label {n}": n / 325 for n in range(26)}
    long = replace(person, true=["label 0"], predicted=["label 25"], scores=many)
    text = written(replace(data, persons=[long]), tmp_path)
    shown = re.findall(r'class="label">(label \d+)<', text)
    assert shown == [*(f"label {n}" for n in range(25, 17, -1)), "label 0"]
    assert "and 17 more with less" in text


def test_page_of_distributions_says_what_it_must(page_of, of_kind):
    text, numbers = page_of("distribution").read_text(), of_kind("distribution").metrics["test"]
    for name in MEASURES:
        better = "↑ higher" if name in ("cosine", "intersection") else "↓ lower"
        ends = f"{numbers[f'{name}_low']:.4f} to {numbers[f'{name}_high']:.4f}"
        tile = re.search(
            rf"</b> {better} is better</dt>\s*<dd>{numbers[name]:.4f}</dd>.*?</div>", text, re.S
        )[0]
        assert f"95 % interval {ends}<" in tile
        assert f"mean of train for all: {numbers[f'chance_{name}']:.4f}<" in tile
    for word in (
        "8 labels, shares of each person that sum to 1",
        "better than the mean of train predicted for everybody by all six measures.",
        "<dt>mAP of labels above one half</dt>",
        "3 dropped: bad box 3",
        "mAP on val, labels above one half",
    ):
        assert word in text, word
    for word in (
        "threshold",
        "chance mAP",
        "F1 over",
        'id="pr"',
        'id="confusion"',
        "true, not predicted",
    ):
        assert word not in text, word


def test_a_map_that_is_not_known_is_not_shown(of_kind, tmp_path):
    data = replace(of_kind("distribution"), persons=[], curves=[])
    text = written(data, tmp_path, mAP=None, mAP_low=None, mAP_high=None, random_mAP=None)
    assert "mAP" not in text and "Average precision" not in text
    assert "All" not in text and "400 persons" in text


def test_shares_of_labels_are_means_over_persons(page_of):
    text, scores = page_of("distribution").read_text(), share_scores()
    off = abs(scores.distribution - scores.y_score).mean(axis=0)
    means = scores.distribution.mean(axis=0), scores.y_score.mean(axis=0), off
    section = text[text.index('id="labels"') : text.index('id="spread"')]
    rows = re.findall(r"<span>(\w+)</span>.*?</svg>(.*?)</div>", section, re.S)[1:]
    assert [label for label, _ in rows] == sorted(EIGHT, key=lambda n: -means[0][EIGHT.index(n)])
    for label, row in rows:
        wanted = [100 * mean[EIGHT.index(label)] for mean in means]
        found = [float(number) for number in re.findall(r">([\d.]+)</span>", row)]
        assert found == pytest.approx(wanted, abs=0.051)


def test_cards_of_distributions_pair_both_shares(of_kind, tmp_path):
    data = of_kind("distribution")
    names = [f"label {n}" for n in range(12)]
    true = dict.fromkeys(names, 0.0) | {"label 3": 0.75, "label 0": 0.25}
    predicted = dict(zip(names, [0.5, 0.2, 0.15, *[1 / 60] * 9], strict=True))
    person = replace(data.persons[0], shares=true, scores=predicted)
    text = written(replace(data, persons=[person]), tmp_path)
    cards = text[text.index('class="cards"') :]
    rows = re.findall(
        r'class="label">([^<]+)<.*?true-share[^>]*width="([\d.]+)%.*?predicted-share[^>]*'
        r'width="([\d.]+)%.*?>([\d.]+)</span><span class="n">([\d.]+)<',
        cards,
        re.S,
    )
    assert rows[0] == ("label 3", "75.0", "1.7", "0.75", "0.02")
    assert rows[1] == ("label 0", "25.0", "50.0", "0.25", "0.50")
    assert rows[2][0] == "label 1" and len(rows) == 9
    assert rows[-1] == ("4 others", "0.0", "6.7", "0.00", "0.07")
    assert "intersection 0.27" in cards  # 0.25 + 1 / 60
    assert "limit" not in cards and "missed" not in cards


def test_persons_from_the_best_to_the_worst_are_those_of_the_rule(of_kind, tmp_path):
    data, scores = of_kind("distribution"), share_scores()
    kl = entropy(scores.distribution, scores.y_score, axis=1)  # SciPy's, of two distributions
    ranked = np.argsort(kl)
    rows = scores.person_rows[ranked[[0, 1, 199, 200, 398, 399]]].tolist()
    places = {row: f"folder/{row}.jpg" for row in rows}
    text = written(replace(data, places=places, persons=[]), tmp_path)
    section = text[text.index('id="spread"') : text.index('id="correlation"')]
    cases = section.split('<figure class="case">')[1:]
    assert [int(re.search(r"<h3>person (\d+)</h3>", case)[1]) for case in cases] == rows
    for case, row, rank in zip(cases, rows, (1, 2, 200, 201, 399, 400), strict=True):
        at = row - 1000
        assert f"KL {kl[at]:.4f}, {rank} of 400" in case and f">folder/{row}.jpg<" in case
        pair = r'"label">(\w+)<.*?>([\d.]+)</span><span class="n">([\d.]+)<'
        shown = re.findall(pair, case, re.S)
        assert {label for label, *_ in shown} == set(EIGHT)
        for label, *both in shown:
            wanted = [one[at, EIGHT.index(label)] for one in (scores.distribution, scores.y_score)]
            assert [float(n) for n in both] == pytest.approx(wanted, abs=0.0051)


def test_labels_that_go_together_true_and_predicted(page_of):
    text = page_of("multi").read_text()
    section = text.split('<section id="cooccurrence"')[1].split("</section>")[0]
    assert section.count("<figure") == 2 and "The predicted shares miss" in section
    assert '<a href="#cooccurrence">' in text
    for kind in ("single", "distribution"):
        assert "cooccurrence" not in page_of(kind).read_text()


def test_correlations_of_labels_stand_beside_each_other(page_of, of_kind, tmp_path):
    text, scores = page_of("distribution").read_text(), share_scores()
    section = text[text.index('id="correlation"') : text.index('id="training"')]
    titles = re.findall(r"<h3>(.*?)</h3>", section)
    assert titles == ["True", "Predicted"] and section.count('class="scale both"') == 2
    both = [np.corrcoef(part.T) for part in (scores.distribution, scores.y_score)]
    gap = abs(both[1] - both[0])[np.triu_indices(8, 1)].mean()
    assert f"miss the true ones by {gap:.2f} in" in section
    cell = r"<title>neutral · happiness: (-?[\d.]+)</title>"
    assert re.findall(cell, section) == [f"{one[0, 1]:.2f}" for one in both]
    assert 'class="less"><title>neutral · happiness: -' in section
    learned = replace(of_kind("distribution"), graphs={"learned": np.eye(8), "data": both[0]})
    text = written(replace(learned, persons=[]), tmp_path)
    assert "Learned by the head" in text and "Training labels" in text
    assert 'id="graph"' not in text  # there is no other


def test_graphs_without_distributions_to_stand_beside_are_label_graphs(of_kind, tmp_path):
    data = replace(of_kind("single"), graphs={"learned": np.eye(7)}, persons=[])
    text = written(data, tmp_path)
    assert 'id="correlation"' not in text and 'id="spread"' not in text
    assert "Learned by the head" in text[text.index('id="graph"') :]


def test_a_card_shows_the_transport_plan(data, tmp_path):
    plan = np.full((3, 2), 0.1)
    plan[2, 0] = 0.5
    person = replace(data.persons[0], transport=plan)
    text = written(replace(data, persons=[person, data.persons[1]]), tmp_path)
    assert text.count('<figure class="plan">') == 1
    figure = text[text.index('<figure class="plan">') :].split("</figure>")[0]
    assert (
        "3 × 2 tokens; rows: the first side, columns: the second<" in figure
        and "drawn as" not in figure
    )
    rects = re.findall(r'x="(\d+)" y="(\d+)" width="14" height="14" fill-opacity="(.*?)"', figure)
    assert len(rects) == 6 and ("0", "28", "1.0") in rects and ("14", "0", "0.2") in rects
    assert "most goes 3 → 1, 3.00 times an even share" in figure  # 0.5 of 1, of six
    assert "Transport plan: what the head moves" in text
    nothing = replace(person, transport=np.zeros((3, 2)))
    text = written(replace(data, persons=[nothing], sides=("eeg, gsr", "face")), tmp_path)
    assert "nothing is moved" in text and "rows: eeg, gsr, columns: face<" in text
    bare = written(replace(data, persons=[data.persons[1]]), tmp_path)
    assert "ransport" not in bare.split("</style>")[1]


def test_verdicts_of_single_labels_and_distributions(of_kind, tmp_path):
    one = replace(of_kind("single"), persons=[])
    text = written(one, tmp_path, accuracy=0.3, accuracy_low=0.2, chance_accuracy=0.25)
    assert "interval of the accuracy includes what naming" in text
    assert "by it the head is not shown to be better than chance" in text
    text = written(one, tmp_path, balanced_accuracy=0.1, balanced_accuracy_low=0.05)
    assert "The balanced accuracy is no better than the one in 7" in text
    assert "1 of 7 labels have no positive" in written(one, tmp_path, classes_with_positive=6)
    many = replace(of_kind("distribution"), persons=[])
    other = {"chance_distribution": "uniform", "clark_high": 9.0, "cosine_low": 0.0}
    text = written(many, tmp_path, **other, chance_kl=0.0)
    everybody = "the uniform predicted for everybody by"
    assert f"interval is better than {everybody} Chebyshev, Canberra and Intersection." in text
    assert f"not shown to be better than {everybody} Clark and Cosine." in text
    assert f"no better than {everybody} KL divergence." in text


def test_no_threshold_is_drawn_where_val_gave_none(data, tmp_path):
    rows = [{**row, "threshold": math.nan} for row in data.per_class]
    person = replace(data.persons[0], predicted=[])
    text = written(replace(data, per_class=rows, persons=[person]), tmp_path)
    assert "no thresholds from val: no label counts as predicted" in text
    assert 'class="limit"' not in text


def test_page_without_untrained_networks_graphs_curves_or_persons(data, tmp_path):
    bare = replace(
        data,
        networks=data.networks[:2],
        curves=[],
        persons=[],
        note="",
        graphs={},
    )
    text = pages.write(bare, tmp_path / "report.html").read_text()
    for word in ("UNTRAINED", 'id="training"', 'id="graph"', 'id="persons"'):
        assert word not in text


def test_page_names_both_data_sets_and_what_the_mean_leaves_out(data, tmp_path):
    fitted = {"dataset": "caers", "note": "", "cache_key": "7" * 64}
    metrics = {
        "test": {**data.metrics["test"], "classes_with_positive": 12},
        "provenance": {**data.metrics["provenance"], "fitted_on": fitted},
    }
    text = pages.write(
        replace(data, metrics=metrics, persons=[]), tmp_path / "report.html"
    ).read_text()
    assert "mean over 12 of 26 labels" in text and "14 of 26 labels have no positive" in text
    assert "HugMe on emotic" in text
    assert "This head was fitted on caers (cache key 777777777777), evaluated on emotic" in text


def test_verdict_is_read_off_the_interval(data, tmp_path):
    def verdict(**numbers):
        test = {**data.metrics["test"], **numbers}
        found = replace(data, metrics={**data.metrics, "test": test}, persons=[])
        return pages.write(found, tmp_path / "report.html").read_text()

    assert "whole interval lies above" in verdict(mAP=0.5, mAP_low=0.4, random_mAP=0.3)
    assert "not shown to be better" in verdict(mAP=0.5, mAP_low=0.2, random_mAP=0.3)
    assert "no better here" in verdict(mAP=0.25, mAP_low=0.2, random_mAP=0.3)
    assert "seen in training" not in verdict()
    assert "7 persons of this split may have been seen in training; without: mAP 41.0 %." in (
        verdict(n_leaked=7, mAP_without_leaked=0.41)
    )
    rated = {"valence_error": 1.0, "arousal_error": 2.0, "dominance_error": 3.0, "n_rated": 1350}
    ends = {"VAD_error": 2.0, "VAD_error_low": 1.9, "VAD_error_high": 2.1, "chance_VAD_error": 2.5}
    said = verdict(**rated, **ends)
    assert "Ratings of 1,350 persons are missed by 2.00 (1.90 to 2.10)" in said
    assert "valence 1.00, arousal 2.00 and dominance 3.00" in said and "by 2.50." in said


def test_a_label_without_a_positive_is_named_so(data, tmp_path):
    rows = [dict(row) for row in data.per_class]
    rows[2] |= {"ap": np.nan, "low": np.nan, "high": np.nan, "positives": 0, "chance": 0.0}
    pr = [row for row in data.pr if row["label"] != LABELS[2]]
    text = pages.write(
        replace(data, per_class=rows, pr=pr, persons=[]), tmp_path / "report.html"
    ).read_text()
    assert "no positive on test: no curve" in text
    assert "nan" not in text.lower()


def test_text_from_the_data_is_escaped(data, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    person = replace(data.persons[0], name=evil, notes=[evil])
    text = pages.write(
        replace(data, note=evil, persons=[person]), tmp_path / "report.html"
    ).read_text()
    assert evil not in text and "&lt;img src=x" in text


def test_page_is_refused_for_another_split_or_a_graph_of_other_labels(data, tmp_path):
    with pytest.raises(DataError, match=r"evaluate\.split"):
        pages.write(replace(data, split="train"), tmp_path / "report.html")
    with pytest.raises(DataError, match="26 labels"):
        pages.write(replace(data, graphs={"similarity": np.eye(3)}), tmp_path / "report.html")


def test_missing_results_and_pictures_are_named(data, tmp_path):
    with pytest.raises(DataError, match=r"metrics\.json.*emocache evaluate"):
        read_results(Results(tmp_path))
    gone = replace(data.persons[0], picture=tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        pages.write(replace(data, persons=[gone]), tmp_path / "report.html")


def test_scores_outside_0_to_1_are_drawn_on_their_own_scale(data, tmp_path):
    wild = {label: 40 * score - 20 for label, score in data.persons[0].scores.items()}
    person = replace(data.persons[0], scores=wild)
    text = pages.write(replace(data, persons=[person]), tmp_path / "report.html").read_text()
    found = [piece.split('%"')[0] for piece in text.split('class="score" y="6" height="7" width="')]
    widths = [float(width) for width in found[1:]]
    assert widths and all(0 <= width <= 100 for width in widths) and len(set(widths)) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_page_holds_well_formed_pictures(page_of, kind):
    """Every SVG of the page is XML that stands on its own."""
    text = page_of(kind).read_text(encoding="utf-8")
    pieces = [piece.split("</svg>")[0] for piece in text.split("<svg")[1:]]
    assert len(pieces) > 60
    for piece in pieces:
        ElementTree.fromstring("<svg" + piece + "</svg>")


def test_one_unit_alone_gives_no_verdict(of_kind, tmp_path):
    """Where all windows are of one subject, resampling subjects changes nothing."""
    data = replace(of_kind("distribution"), terms=WINDOWS, persons=[])
    data = replace(data, scores=replace(data.scores, drawn="subjects"))
    said = "All windows are of one of the subjects that are resampled: there is no interval, and"
    assert said in written(data, tmp_path, n_subjects=1)
    assert "by all six measures" in written(data, tmp_path, n_subjects=2)


def test_the_template_travels_with_the_package():
    assert (Path(overlay.__file__).parent / "templates" / "report.html").exists()
