"""The report in a browser."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.report import page as pages
from pipelines.report.data import extremes
from tests.pipelines.browsing import at, in_scheme, luminance, requests, shown
from tests.pipelines.report_data import (
    KINDS,
    LABELS,
    report_data,
    share_scores,
)
from tests.shared import shared


@pytest.fixture
def opened(browser, page):
    return at(browser, page)


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
    for page, labels in ((page_of("single"), 7), (pages.write(many, tmp_path / "m.html"), 26)):
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


def test_browser_shows_the_best_and_the_worst_on_one_scale(browser, page_of):
    opened = at(browser, page_of("distribution"))
    scores = share_scores()
    at_all = extremes(scores)
    tracks = shown(opened, ".case .track")
    assert len(tracks) == 6 * 8 and min(track["width"] for track in tracks) >= 40
    for selector, values in (
        (".true-share", scores.distribution),
        (".predicted-share", scores.y_score),
    ):
        widths = sorted(
            bar["width"] / tracks[0]["width"] for bar in shown(opened, f".case {selector}")
        )
        np.testing.assert_allclose(widths, np.sort(values[at_all].ravel()), atol=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_tells_negative_correlations_by_colour(browser, of_kind, scheme, tmp_path):
    signs = np.where(np.arange(8) < 4, 1, -1)  # labels that go with each other, or against
    data = replace(of_kind("distribution"), graphs={"learned": np.outer(signs, signs)}, persons=[])
    opened = at(browser, pages.write(data, tmp_path / "report.html"))
    in_scheme(opened, scheme)
    less, more = (
        opened.execute_script(
            "return getComputedStyle(document.querySelector(arguments[0])).fill", selector
        )
        for selector in ("#correlation .heat .less", "#correlation .heat rect:not([class])")
    )
    assert less != more


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
