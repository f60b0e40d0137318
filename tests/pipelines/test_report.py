"""pipelines.report and pipelines.overlay: the page's content, and the page in a browser."""

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_score, recall_score

from cache.errors import DataError
from cache.index import Index
from pipelines import evaluation, overlay
from pipelines.overlay import ObjectMark, PersonMark, draw
from pipelines.report import Frame, read_results, ticks, write_report
from tests.pipelines.report_data import (
    EIGHT,
    LABELS,
    SEVEN,
    annotated,
    report_data,
    share_scores,
    single_scores,
)
from tests.shared import shared
from train.metrics import MEASURES


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return report_data(tmp_path_factory.mktemp("results"), shared("data/emotic_pictures"))


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    return write_report(data, tmp_path_factory.mktemp("report") / "deep" / "report.html")


@pytest.fixture(scope="module")
def of_kind(tmp_path_factory):
    """kind -> what its report shows, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = report_data(folder, shared("data/emotic_pictures"), kind=kind)
        return made[kind]

    return get


@pytest.fixture(scope="module")
def page_of(of_kind, tmp_path_factory):
    """kind -> the page of its report, written once."""
    made = {}

    def get(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp("report") / f"{kind}.html"
            made[kind] = write_report(of_kind(kind), path)
        return made[kind]

    return get


def written(data, folder, **numbers) -> str:
    """The page, with other numbers of the split."""
    metrics = {**data.metrics, "test": {**data.metrics["test"], **numbers}}
    return write_report(replace(data, metrics=metrics), folder / "report.html").read_text()


# ---- overlay -------------------------------------------------------------------------------


@pytest.fixture
def table():
    """A real picture with four persons around a table, and its persons' boxes."""
    rows = annotated(shared("data/emotic_pictures"))
    path = next(row[0] for row in rows if "000000000790" in row[0].name)
    return Image.open(path), [row[1] for row in rows if row[0] == path]


def test_overlay_draws_the_boxes_where_they_are(table):
    picture, boxes = table
    before = picture.copy()
    drawn = draw(picture, [PersonMark(boxes[0])])
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(before))
    assert drawn.size == picture.size and drawn.mode == "RGB"
    changed = np.argwhere((np.asarray(drawn) != np.asarray(picture.convert("RGB"))).any(axis=2))
    (top, left), (bottom, right) = changed.min(axis=0), changed.max(axis=0)
    assert np.abs(np.array([left, top, right, bottom]) - boxes[0]).max() <= 1


def test_overlay_writes_names_weights_and_emotions(table, monkeypatch):
    written = []
    keep = overlay._Board.label
    monkeypatch.setattr(
        overlay._Board,
        "label",
        lambda self, box, lines, colour: (
            written.append(list(lines)),
            keep(self, box, lines, colour),
        )[1],
    )
    person = PersonMark(
        table[1][0],
        objects=[
            ObjectMark((0, 0, 50, 50), "cup", 0.9, 0.25),
            ObjectMark((9, 9, 50, 50), "dog", 0.5),
        ],
        emotions=[("Happiness", 0.812), ("Peace", 0.4), ("Anger", 0.2), ("Fear", 0.1)],
        name="1",
    )
    draw(table[0], [person])
    assert written[0] == ["1", "Happiness 0.81", "Peace 0.40", "Anger 0.20"]
    # a number beside an object is its weight and nothing else
    assert sorted(written[1:]) == [["cup, weight 0.25"], ["dog"]]


def test_overlay_keeps_labels_apart_and_off_the_faces(table, monkeypatch):
    boards = []
    keep = overlay._Board.__init__
    monkeypatch.setattr(
        overlay._Board,
        "__init__",
        lambda self, *args: (keep(self, *args), boards.append(self))[0],
    )
    picture, boxes = table
    people = [
        PersonMark(
            box,
            (box[0], box[1], box[2], box[1] + 60),
            [ObjectMark((200, 200, 300, 260), f"thing {n}", 0.5, 0.5)],
            [("Doubt/Confusion", 0.5), ("Engagement", 0.4)],
        )
        for n, box in enumerate(boxes)
    ]
    draw(picture, people, longest=1000)
    labels, faces = boards[0].taken, boards[0].faces
    assert len(labels) == 2 * len(boxes)
    for number, label in enumerate(labels):
        assert min(label) >= 0 and label[2] <= 1000
        assert not any(overlay._overlap(label, other) for other in labels[:number])
        assert not any(overlay._overlap(label, face) for face in faces)


@given(
    st.tuples(*[st.floats(-500, 1500)] * 4),
    st.tuples(st.integers(1, 400), st.integers(1, 400)),
    st.sampled_from(["L", "RGB", "RGBA", "P", "CMYK", "1"]),
)
@settings(max_examples=25, deadline=None)
def test_overlay_takes_any_box_size_and_mode(box, size, mode):
    person = PersonMark(
        box, box, [ObjectMark(box, "a very long class name", 0.5, 1.0)], [("Happiness", 0.5)]
    )
    drawn = draw(Image.new(mode, size), [person, person])
    assert max(drawn.size) >= 400


# ---- what the page says --------------------------------------------------------------------


def test_page_says_what_it_must(page, data):
    text = page.read_text(encoding="utf-8")
    numbers = data.metrics["test"]
    for word in (
        "HugMe on emotic",
        "400 persons in 200 pictures of the test split",
        data.note,
        "Untrained network.",
        "Depth: Intel/dpt-hybrid-midas ran with random weights",
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
    assert "mean over" not in text and "Other data." not in text
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
        probabilities=dict(zip(SEVEN, (0.1, 0.2, 0.3, 0.15, 0.05, 0.12, 0.08), strict=True)),
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
    wild = replace(person, probabilities={label: 3.0 * n for n, label in enumerate(SEVEN)})
    text = written(replace(data, persons=[wild]), tmp_path)
    assert "the head's score for each label" in text.replace("&#39;", "'")
    assert "probability of each" not in text
    # of many labels the likeliest and the true one
    many = {f"label {n}": n / 325 for n in range(26)}
    long = replace(person, true=["label 0"], predicted=["label 25"], probabilities=many)
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
    section = text[text.index('id="labels"') : text.index('id="training"')]
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
    person = replace(data.persons[0], shares=true, probabilities=predicted)
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
        cooccurrence=None,
        similarity=None,
    )
    text = write_report(bare, tmp_path / "report.html").read_text()
    for word in ("Untrained network", 'id="training"', 'id="graph"', 'id="persons"'):
        assert word not in text


def test_page_names_both_data_sets_and_what_the_mean_leaves_out(data, tmp_path):
    fitted = {"dataset": "caers", "note": "", "cache_key": "7" * 64}
    metrics = {
        "test": {**data.metrics["test"], "classes_with_positive": 12},
        "provenance": {**data.metrics["provenance"], "fitted_on": fitted},
    }
    text = write_report(
        replace(data, metrics=metrics, persons=[]), tmp_path / "report.html"
    ).read_text()
    assert "mean over 12 of 26 labels" in text and "14 of 26 labels have no positive" in text
    assert "HugMe on emotic" in text
    assert "This head was fitted on caers (cache key 777777777777), evaluated on emotic" in text


def test_verdict_is_read_off_the_interval(data, tmp_path):
    def verdict(**numbers):
        test = {**data.metrics["test"], **numbers}
        found = replace(data, metrics={**data.metrics, "test": test}, persons=[])
        return write_report(found, tmp_path / "report.html").read_text()

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
    text = write_report(
        replace(data, per_class=rows, pr=pr, persons=[]), tmp_path / "report.html"
    ).read_text()
    assert "no positive on test: no curve" in text
    assert "nan" not in text.lower()


def test_text_from_the_data_is_escaped(data, tmp_path):
    evil = "<img src=x onerror=alert(1)>"
    person = replace(data.persons[0], name=evil, notes=[evil])
    text = write_report(
        replace(data, note=evil, persons=[person]), tmp_path / "report.html"
    ).read_text()
    assert evil not in text and "&lt;img src=x" in text


def test_page_is_refused_for_another_split_or_a_graph_of_other_labels(data, tmp_path):
    with pytest.raises(DataError, match=r"evaluate\.split"):
        write_report(replace(data, split="train"), tmp_path / "report.html")
    with pytest.raises(DataError, match="26 labels"):
        write_report(replace(data, similarity=np.eye(3)), tmp_path / "report.html")


def test_missing_results_and_pictures_are_named(data, tmp_path):
    with pytest.raises(DataError, match=r"metrics\.json.*emocache evaluate"):
        read_results(tmp_path)
    gone = replace(data.persons[0], picture=tmp_path / "gone.jpg")
    with pytest.raises(DataError, match=r"gone\.jpg"):
        write_report(replace(data, persons=[gone]), tmp_path / "report.html")


def test_scores_outside_0_to_1_are_drawn_on_their_own_scale(data, tmp_path):
    wild = {label: 40 * score - 20 for label, score in data.persons[0].probabilities.items()}
    person = replace(data.persons[0], probabilities=wild)
    text = write_report(replace(data, persons=[person]), tmp_path / "report.html").read_text()
    found = [piece.split('%"')[0] for piece in text.split('class="score" y="6" height="7" width="')]
    widths = [float(width) for width in found[1:]]
    assert widths and all(0 <= width <= 100 for width in widths) and len(set(widths)) > 1


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_within_and_not_too_many(low, span, count):
    found = ticks(low, low + span, count)
    assert len(found) <= count + 1
    slack = 1e-6 * span + 4 * math.ulp(abs(low) + span)  # what a float of this size can tell
    assert all(low - slack <= t <= low + span + slack for t in found)


def test_ticks_and_frame_by_hand():
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.03, 0.47) == [0.1, 0.2, 0.3, 0.4]
    frame = Frame(200, 100, (0, 10), (0, 1))
    assert frame.path([(0, 0), (5, 1), (10, 0.5)]) == "M0 100L100 0L200 50"


# ---- the page in a browser -----------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
        "disable-dev-shm-usage",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "window-size=1400,1000",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=chromedriver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


@pytest.fixture
def opened(browser, page):
    return at(browser, page)


def at(browser, page: Path):
    for name in ("browser", "performance"):
        browser.get_log(name)  # reading empties it
    browser.get(page.as_uri())
    return browser


KINDS = ("multi", "single", "distribution")


def requests(browser, page: Path) -> list[str]:
    """What was asked for the page's sake; the browser's own first tab may still be loading."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
        and event["params"]["documentURL"] == page.as_uri()
    ]


def shown(browser, selector: str) -> list[dict]:
    """Width and height of every element as it is laid out on the screen."""
    return browser.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => {"
        "const r = e.getBoundingClientRect(); return {width: r.width, height: r.height}})",
        selector,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_browser_finds_no_error_and_asks_no_network(browser, page_of, kind):
    page = page_of(kind)
    opened = at(browser, page)
    assert opened.get_log("browser") == []
    urls = requests(opened, page)
    assert urls[0] == page.as_uri()  # the log does record requests
    assert all(url == page.as_uri() or url.startswith("data:") for url in urls)


def test_browser_test_would_see_an_error(browser, page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace("</main>", '<img src="gone.png"></main>'))
    browser.get(broken.as_uri())
    assert browser.get_log("browser") != []


def test_browser_shows_cards_and_charts(opened, data):
    pictures = opened.execute_script(
        "return Promise.all([...document.querySelectorAll('.card img')].map("
        "e => e.decode().then(() => e.naturalWidth)))"
    )
    assert len(pictures) == 12 and min(pictures) >= 480
    bars = shown(opened, "svg.ap .bar")
    assert len(bars) == len(LABELS)
    wanted = sorted((row["ap"] for row in data.per_class), reverse=True)
    widths = np.array([bar["width"] for bar in bars])
    np.testing.assert_allclose(widths / widths[0], np.array(wanted) / wanted[0], atol=0.01)
    assert len(shown(opened, "svg.ap .chance")) == len(shown(opened, "svg.ap .interval")) == 26
    for selector, least in ((".pr", 26), (".training .line", 3), (".heat rect", 500)):
        marks = shown(opened, selector)
        assert len(marks) >= least
        assert all(mark["width"] + mark["height"] > 0 for mark in marks)


def test_browser_picks_a_curve_by_keyboard(opened, data):
    from selenium.webdriver.common.keys import Keys

    def picked():
        return [e.text for e in opened.find_elements("css selector", ".picked-title h3") if e.text]

    ranked = [row["label"] for row in sorted(data.per_class, key=lambda row: -row["ap"])]
    assert picked() == [f"{ranked[0]}: precision at each recall"]
    body = opened.find_element("tag name", "body")
    for _ in range(12):  # through the links at the top to the list of labels
        body.send_keys(Keys.TAB) if _ == 0 else opened.switch_to.active_element.send_keys(Keys.TAB)
        if opened.switch_to.active_element.get_attribute("type") == "radio":
            break
    opened.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    assert picked() == [f"{ranked[1]}: precision at each recall"]
    lines = [e for e in opened.find_elements("css selector", ".pr-line") if e.is_displayed()]
    assert len(lines) == 1


def test_browser_shows_a_confusion_matrix_of_7_and_26_labels(browser, page_of, tmp_path):
    many = report_data(
        tmp_path, shared("data/emotic_pictures"), 0, "single", labels=tuple(LABELS), signal=3
    )
    for page, labels in ((page_of("single"), 7), (write_report(many, tmp_path / "m.html"), 26)):
        opened = at(browser, page)
        cells = shown(opened, ".matrix td:not(.total)")
        assert len(cells) == labels**2
        assert min(cell["width"] for cell in cells) >= 36
        assert min(cell["height"] for cell in cells) >= 34
        (box,), (table,) = shown(opened, ".matrix"), shown(opened, ".matrix table")
        assert table["width"] <= box["width"]  # on a desk all of it is seen at once
        # text stays in its cell
        assert opened.execute_script(
            "return [...document.querySelectorAll('.matrix td')].every("
            "e => e.scrollWidth <= e.clientWidth)"
        )


def test_browser_shows_paired_bars(browser, page_of):
    opened = at(browser, page_of("distribution"))
    scores = share_scores()
    for selector, values in (
        (".share .true-share", scores.distribution),
        (".share .predicted-share", scores.y_score),
    ):
        widths = np.array([bar["width"] for bar in shown(opened, selector)])
        order = np.argsort(-scores.distribution.mean(axis=0), kind="stable")
        wanted = values.mean(axis=0)[order]
        np.testing.assert_allclose(widths / widths[0], wanted / wanted[0], atol=0.01)
    assert len(shown(opened, ".card .true-share")) == len(shown(opened, ".card .bar")) + 12 * 8


def luminance(browser, selector, name) -> float:
    text = browser.execute_script(
        "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
        selector,
        name,
    )
    rgb = np.array([float(v) for v in re.findall(r"[\d.]+", text)[:3]])
    rgb = rgb if text.startswith("color(srgb") else rgb / 255  # as mixed colours are given
    linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def in_scheme(browser, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_numbers_of_a_full_cell_can_be_read(browser, page_of, scheme):
    opened = at(browser, page_of("single"))
    in_scheme(opened, scheme)
    opened.execute_script("document.querySelector('.matrix td').style.setProperty('--share', 1)")
    empty = luminance(opened, ".matrix td:not([style], .total)", "backgroundColor")
    full = luminance(opened, ".matrix td", "backgroundColor")
    ink = luminance(opened, ".matrix td", "color")
    assert abs(full - empty) > 0.1
    for ground in (empty, full):
        high, low = sorted([ink, ground])[::-1]
        assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_text_can_be_read_in_both_schemes(opened, scheme):
    in_scheme(opened, scheme)
    ground = luminance(opened, "body", "backgroundColor")
    assert (ground > 0.5) == (scheme == "light")
    for selector, over in (
        ("body", "body"),
        (".soft", "body"),
        (".lead", "body"),
        (".banner", ".banner"),
        ("nav a", "body"),
        (".label-row.wrong", ".card"),
        (".label-row.hit", ".card"),
    ):
        ground = luminance(opened, over, "backgroundColor")
        high, low = sorted([luminance(opened, selector, "color"), ground])[::-1]
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [390, 800, 1400])
def test_browser_page_does_not_scroll_sideways(browser, page_of, kind, width):
    opened = at(browser, page_of(kind))
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


@pytest.mark.parametrize("kind", KINDS)
def test_page_holds_well_formed_pictures(page_of, kind):
    """Every SVG of the page is XML that stands on its own."""
    text = page_of(kind).read_text(encoding="utf-8")
    pieces = [piece.split("</svg>")[0] for piece in text.split("<svg")[1:]]
    assert len(pieces) > 60
    for piece in pieces:
        ElementTree.fromstring("<svg" + piece + "</svg>")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["single", "distribution"])
def test_the_command_reports_single_labels_and_distributions(workplace, emocache, kind):
    """The features of the real run, and other labels for its persons."""
    root = workplace / "features"
    index = Index.read(root)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(26), len(index.persons)).astype(np.float32)
    if kind == "single":
        shares = np.eye(26, dtype=np.float32)[rng.integers(0, 4, len(shares))]
    place = index.persons.schema.get_field_index("labels")
    labels = pa.array(list(shares), pa.list_(pa.float32()))
    replace(index, persons=index.persons.set_column(place, "labels", labels)).write(root)
    for command in ("train", "evaluate", "report"):
        done = emocache(command, "--set", "train.epochs=2", "--set", "report.people=3")
        assert done.code == 0, done.said
    text = (workplace / "results" / "report.html").read_text()
    scores = evaluation.read_scores(workplace / "results" / "scores.parquet")
    shown = [int(row) for row in re.findall(r"<h3>person (\d+)</h3>", text)]
    cards = text.split('<article class="card"')[1:]
    assert len(shown) == len(cards) == 3
    for row, card in zip(shown, cards, strict=True):
        (at,) = np.flatnonzero(scores.person_rows == row)
        if kind == "single":
            true, predicted = (
                index.labels[values[at].argmax()] for values in (scores.y_true, scores.y_score)
            )
            said = f"{true}, {'right' if true == predicted else f'predicted {predicted}'}"
        else:
            least = np.minimum(scores.distribution[at], scores.y_score[at])
            said = f"intersection {least.sum():.2f}"
        assert said in card and "limit" not in card
    assert ("<dt>Accuracy</dt>" in text) == (kind == "single")
    assert ("<b>Canberra</b>" in text) == (kind == "distribution")


def test_the_template_travels_with_the_package():
    assert (Path(overlay.__file__).parent / "templates" / "report.html").exists()
