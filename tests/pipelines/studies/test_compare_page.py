"""The page of several runs: what it says of them, its figures, and the page in a browser."""

import re
from dataclasses import replace

import numpy as np
import pytest

from pipelines.comparison import compare_runs
from pipelines.evaluation import measure
from pipelines.results import Results
from pipelines.studies import compare_page
from pipelines.studies.figures import differences, svg
from tests.pipelines.browsing import at, in_scheme, luminance, requests, shown
from tests.pipelines.report_data import LABELS, MADE, provenance
from train.settings import Evaluate

QUICK = Evaluate(bootstrap=100)


def runs(folder, kind="multi", noises=(0.0, 0.6, 0.0)):
    """Results of as many heads; those of noise 0 are equal."""
    made = MADE[kind]("test", persons=200)
    folders = []
    for number, noise in enumerate(noises):
        rng = np.random.default_rng(number)
        score = np.abs(made.y_score + rng.normal(0, noise, made.y_score.shape))
        score = score / (score.sum(1, keepdims=True) if kind != "multi" else 1)
        about = {**provenance(), "head": ("hugme", "mlp", "rrla")[number], "seed": number}
        if number == 1:
            about["fitted_on"] = {"dataset": "heco", "note": "", "cache_key": 64 * "c"}
        one = measure(replace(made, y_score=score), QUICK, about)
        one.write(Results(folder / f"run{number}"))
        folders.append(folder / f"run{number}")
    return folders


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return compare_runs(runs(tmp_path_factory.mktemp("runs")), QUICK)


@pytest.fixture(scope="module")
def page(found, tmp_path_factory):
    return compare_page.write(found, tmp_path_factory.mktemp("page") / "compare.html")


def test_a_row_a_run_and_a_row_a_test(found):
    table = compare_page.runs_table(found)
    assert [row[:3] for row in table.rows] == [
        ["A", "hugme", "0"],
        ["B", "mlp", "1"],
        ["C", "rrla", "2"],
    ]
    first = found["runs"][0]["numbers"]["mAP"]
    assert table.rows[0][-1].startswith(f"{100 * first['value']:.2f} (")
    tests = compare_page.tests_table(found)
    assert [row[0] for row in tests.rows] == ["B, mlp", "C, rrla"]
    assert [row[-1] for row in tests.rows] == ["worse", "no difference shown"]
    assert tests.rows[0][4].startswith("−") and tests.rows[0][6] == "≤ 0.02"
    assert tests.rows[0][7] == "0.04"  # twice, as there are two


def test_a_difference_that_does_not_stand_is_called_none():
    row = {"low": 0.1, "high": 0.2, "difference": 0.15, "p_holm": 0.2}
    assert compare_page._verdict(row, compare_page.AP, 0.05) == "not after adjustment"
    assert compare_page._verdict(row | {"p_holm": 0.01}, compare_page.AP, 0.05) == "better"
    kl = compare_page.SHARE_ERROR
    assert compare_page._verdict(row | {"p_holm": 0.01}, kl, 0.05) == "worse"


def test_what_must_be_said_stands_above(page):
    text = page.read_text()
    banners = re.findall(r'class="banner"[^>]*>([^<]*)<', text)
    assert banners[0] == "made-up scores"
    assert "UNTRAINED depth runs on random weights" in banners[1]
    assert banners[2].startswith("B was fitted on heco (cache key cccccccccccc), evaluated on")
    assert banners[3].startswith("2 comparisons, and more by label")
    assert "<script" not in text
    assert "set evaluate.bootstrap above 2,080" in text  # 52 tests


def test_labels_are_sorted_in_table_and_figure(found):
    gaps = {row["label"]: row["difference"] for row in found["per_label"] if row["run"] == "B"}
    ranked = sorted(gaps, key=gaps.get, reverse=True)
    assert [row[0] for row in compare_page.labels_table(found, "B").rows] == ranked
    drawn = svg(compare_page.figure_of(found, "B"))
    names = [name for name in re.findall(r">([^<>]+)</text>", drawn) if name in LABELS]
    assert sorted(names) == sorted(LABELS)
    assert drawn.count('id="figure-row') == 26


def test_of_shares_the_greatest_gain_is_the_greatest_fall(tmp_path):
    found = compare_runs(runs(tmp_path, "distribution", (0.0, 0.1)), QUICK)
    table = compare_page.labels_table(found, "B")
    assert table.title == "mean |d − p|" and "positives" not in table.columns
    text = compare_page.write(found, tmp_path / "page.html").read_text()
    assert "KL divergence" in text and "fitted on heco" in text


def test_a_figure_has_a_dot_at_each_difference_and_fills_what_leaves_out_0():
    rows = [("up", 2.0, 1.0, 3.0), ("even", 0.5, -1.0, 2.0), ("down", -2.0, -3.0, -1.0)]
    rows += [("alone", 1.0, np.nan, np.nan), ("none", np.nan, np.nan, np.nan)]
    figure = differences(rows, "points")
    (plane,) = figure.axes
    dots = [line for line in plane.lines if line.get_marker() == "o"]
    assert [(float(d.get_xdata()[0]), int(d.get_ydata()[0])) for d in dots] == [
        (2.0, 0),
        (0.5, 1),
        (-2.0, 2),
        (1.0, 3),
    ]
    hollow = [dot.get_markerfacecolor() == "white" for dot in dots]
    assert hollow == [False, True, False, True]
    assert dots[0].get_markeredgecolor() != dots[2].get_markeredgecolor()
    swapped = differences(rows, "points", more=False)
    again = [line for line in swapped.axes[0].lines if line.get_marker() == "o"]
    assert again[0].get_markeredgecolor() == dots[2].get_markeredgecolor()
    ends = [line.get_xdata() for line in plane.lines if len(line.get_ydata()) == 2][1:]
    assert [list(end) for end in ends] == [[1.0, 3.0], [-1.0, 2.0], [-3.0, -1.0]]
    assert svg(differences(rows, "points")) == svg(figure)
    svg(differences([], "points"))


def test_browser_shows_it_in_both_schemes_and_on_a_phone(page, browser):
    opened = at(browser, page)
    assert requests(browser, page) == [page.as_uri()]
    assert len(shown(opened, ".chart svg")) == 2
    assert min(box["height"] for box in shown(opened, ".chart svg")) > 300
    for scheme in ("light", "dark"):
        in_scheme(opened, scheme)
        for ground, ink in (("body", "body"), (".chart", ".chart svg text")):
            name = "fill" if ink.endswith("text") else "color"
            light = sorted(
                [luminance(opened, ground, "backgroundColor"), luminance(opened, ink, name)]
            )
            assert (light[1] + 0.05) / (light[0] + 0.05) > 4.5, (scheme, ground)
    in_scheme(opened, "light")
    size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    wide = opened.execute_script("return document.documentElement.scrollWidth")
    opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390
    severe = [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe, severe
