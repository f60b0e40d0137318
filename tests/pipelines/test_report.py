"""pipelines.report and pipelines.overlay: the page's content, and the page in a browser."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cache.errors import DataError
from pipelines import overlay
from pipelines.overlay import ObjectMark, PersonMark, draw
from pipelines.report import Frame, read_results, ticks, write_report
from tests.pipelines.report_data import LABELS, annotated, report_data
from tests.shared import shared


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return report_data(tmp_path_factory.mktemp("results"), shared("data/emotic_pictures"))


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    return write_report(data, tmp_path_factory.mktemp("report") / "deep" / "report.html")


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
    for name in ("browser", "performance"):
        browser.get_log(name)  # reading empties it
    browser.get(page.as_uri())
    return browser


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


def test_browser_finds_no_error_and_asks_no_network(opened, page):
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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_text_can_be_read_in_both_schemes(opened, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def luminance(selector, name):
        text = opened.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]",
            selector,
            name,
        )
        rgb = np.array([float(v) for v in text[text.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(rgb <= 0.03928, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    ground = luminance("body", "backgroundColor")
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
        high, low = sorted([luminance(selector, "color"), luminance(over, "backgroundColor")])[::-1]
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector


@pytest.mark.parametrize("width", [420, 800, 1400])
def test_browser_page_does_not_scroll_sideways(opened, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width


def test_page_holds_well_formed_pictures(page):
    """Every SVG of the page is XML that stands on its own."""
    text = page.read_text(encoding="utf-8")
    pieces = [piece.split("</svg>")[0] for piece in text.split("<svg")[1:]]
    assert len(pieces) > 60
    for piece in pieces:
        ElementTree.fromstring("<svg" + piece + "</svg>")


def test_the_template_travels_with_the_package():
    assert (Path(overlay.__file__).parent / "templates" / "report.html").exists()
