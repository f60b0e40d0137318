"""pipelines.studies.page: what the page says, and the page in a browser."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from pipelines.studies.figures import heat_map, parallel_coordinates
from pipelines.studies.page import Section, write_page
from pipelines.studies.rendering import Table
from tests.pipelines import browsing
from tests.pipelines.report_data import LABELS

GRID = [f"{n / 10:.1f}" for n in range(11)]
EVIL = "<script>alert('x')</script>"
WARNING = "UNTRAINED network: depth ran with random weights."
FACTS = [("Data set", "emotic, val"), ("N", "3,315 persons"), ("Cache key", 2 * "b61f0c2a9d3e" * 3)]


def sections() -> list[Section]:
    rng = np.random.default_rng(0)
    labels = Table(
        "labels",
        "Average precision of each label, %",
        ["Method", *LABELS],
        [
            [name, *(f"{value:.1f}" for value in rng.uniform(2, 80, len(LABELS)))]
            for name in ("HugMe (published)", "HugMe, here, mean of 5 seeds", "w/o co-occurrence")
        ],
        ["Published numbers are of 7,203 persons."],
        groups=[1],
    )
    held = rng.uniform(20, 30, (11, 11))
    held[1, 2] = np.nan
    trials = [
        {
            "train.lr": 10 ** rng.uniform(-5, -2),
            "train.batch": int(rng.choice([30, 60, 120])),
            "train.weight_decay": 10 ** rng.uniform(-5, -2),
            "train.hugme.distance": str(rng.choice(["corner", "centre"])),
            "train.hugme.literal_softmax": bool(rng.integers(2)),
            "mAP": rng.uniform(20, 30),
        }
        for _ in range(60)
    ]
    heat = heat_map(held, ("λ", GRID), ("β", GRID), "mAP, %", mark=(5, 8))
    lines = parallel_coordinates(trials, list(trials[0])[:-1], "mAP")
    return [
        Section("Each label", ["A column a label."], labels),
        Section("Sensitivity", ["λ and β on a grid."], None, [("Figure 1. A grid.", heat)]),
        Section("Tuning", (), None, [("Figure 2. 60 trials.", lines), ("Figure 3. Again.", heat)]),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "deep" / "study.html"
    return write_page(path, "Sensitivity of HugMe", FACTS, [WARNING, "37 persons."], sections())


class Ids(HTMLParser):
    """Every id, and every element that stays open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_says_what_it_must_in_order(page):
    text = page.read_text(encoding="utf-8")
    wanted = (
        "<h1>Sensitivity of HugMe</h1>",
        WARNING,
        "37 persons.",
        *(f"<dt>{name}</dt><dd>{value}</dd>" for name, value in FACTS),
        "A column a label.",
        "Average precision of each label, %",
        "Published numbers are of 7,203 persons.",
        "λ and β on a grid.",
        "Figure 1. A grid.",
        "framed: the paper's",
        "Figure 2. 60 trials.",
        "train.weight_decay",
    )
    places = [text.find(word) for word in wanted]
    assert -1 not in places and places == sorted(places)
    assert "<script" not in text and "http://" not in text and "https://" not in text
    assert page.stat().st_size < 1e6


def test_page_is_well_formed_and_no_id_stands_twice(page):
    text = page.read_text(encoding="utf-8")
    found = Ids(text)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids)) > 100
    asked = re.findall(r'(?:href="#|url\(#|labelledby=")([^")]+)', text)
    assert set(asked) <= set(found.ids)


def test_same_study_same_bytes(page, tmp_path):
    again = write_page(
        tmp_path / "s.html", "Sensitivity of HugMe", FACTS, [WARNING, "37 persons."], sections()
    )
    assert again.read_bytes() == page.read_bytes()


def test_text_is_escaped(tmp_path):
    lines = parallel_coordinates([{EVIL: EVIL, "m": 1.0}], [EVIL], "m")
    table = Table("t", EVIL, [EVIL], [[EVIL]], [EVIL])
    section = Section(EVIL, [EVIL], table, [(EVIL, lines)])
    text = write_page(tmp_path / "s.html", EVIL, [(EVIL, EVIL)], [EVIL], [section]).read_text()
    assert "<script" not in text and text.count("&lt;script&gt;") > 10


def test_page_of_nothing(tmp_path):
    text = write_page(tmp_path / "s.html", "Bare", [], [], []).read_text()
    assert "<h1>Bare</h1>" in text
    assert "<dl" not in text and "<nav" not in text and 'class="banner"' not in text


# ---- the page in a browser -----------------------------------------------------------------


@pytest.fixture
def opened(browser, page):
    return browsing.at(browser, page)


def test_browser_finds_no_error_and_asks_no_network(opened, page):
    assert opened.get_log("browser") == []
    urls = browsing.requests(opened, page)
    assert urls[0] == page.as_uri()
    assert all(url == page.as_uri() or url.startswith("data:") for url in urls)


def test_browser_draws_figures_at_their_size(opened):
    figures = browsing.shown(opened, ".chart svg")
    assert len(figures) == 3 and min(figure["width"] for figure in figures) > 500
    bars = browsing.shown(opened, ".chart pattern path")  # hatches, each found by its own id
    assert len(bars) == 2
    ground = browsing.luminance(opened, ".chart", "backgroundColor")
    assert ground > 0.99


@pytest.mark.parametrize("width", [400, 800, 1280])
def test_browser_page_does_not_scroll_sideways_but_its_boxes_do(browser, opened, width):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    boxes = opened.execute_script(
        "return [...document.querySelectorAll('.box, .chart')].map("
        "e => [e.scrollWidth, e.clientWidth])"
    )
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= width
    assert len(boxes) == 4
    if width == 400:  # nothing is shrunk until it cannot be read
        assert all(inside > seen for inside, seen in boxes)


def test_browser_keeps_the_first_column_in_sight(opened):
    size = {"width": 400, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    left, right, width = opened.execute_script(
        "document.querySelector('.box').scrollLeft = 300;"
        "const r = document.querySelector('.box tbody th').getBoundingClientRect();"
        "return [r.left, r.right, innerWidth]"
    )
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert 0 <= left < right < width / 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_text_can_be_read_in_both_schemes(opened, scheme):
    browsing.in_scheme(opened, scheme)
    ground = browsing.luminance(opened, "body", "backgroundColor")
    assert (ground > 0.5) == (scheme == "light")
    for selector, over, name in (
        ("body", "body", "color"),
        (".lead", "body", "color"),
        (".notes", "body", "color"),
        (".banner", ".banner", "color"),
        (".box thead th", ".box th", "color"),
        ("nav a", "body", "color"),
        (".chart text", ".chart", "fill"),
    ):
        ground = browsing.luminance(opened, over, "backgroundColor")
        high, low = sorted([browsing.luminance(opened, selector, name), ground])[::-1]
        assert (high + 0.05) / (low + 0.05) >= 4.5, selector
