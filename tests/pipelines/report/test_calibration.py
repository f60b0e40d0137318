"""The report's section on calibration: values, the page they make, and heads that have none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines import pages
from pipelines.report import calibration
from pipelines.report.data import ReportData, read_results
from pipelines.results import Results
from tests.pipelines.browsing import at, in_scheme, luminance, requests, shown
from tests.pipelines.report_data import MADE, networks, results
from train.metrics.calibration import calibration as measured

PAGE = """{% include "head.html" %}<title>t</title><style>{% include "look.css" %}
.two { display: grid; grid-template-columns: 1fr 1fr; } svg { display: block; }
.row { display: grid; grid-template-columns: 128px 52px minmax(80px, 1fr) 4px 92px; }
.row svg { width: 100%; height: 21px; } .bar { fill: var(--main); } .line { fill: none; }
.chart { width: 100%; } .pr { fill: none; stroke: var(--soft); } .val { stroke: var(--main); }
</style></head><body><div class="page">
{% from "calibration.html" import calibration_section %}
{{ calibration_section(calibration, "test", "persons") }}</div></body></html>"""


@pytest.fixture
def of_kind(tmp_path):
    def make(kind: str, head: str = "hugme") -> ReportData:
        folder = results(tmp_path / kind, kind=kind)
        test = MADE[kind]("test")
        found = read_results(Results(folder))
        return ReportData(
            head, "emotic", "", "test", test.labels, networks=networks(), views=(), persons=[],
            **found,
        )  # fmt: skip

    return make


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A page of the section alone, by the house's own rendering."""

    def write(found) -> Path:
        import jinja2

        loader = jinja2.PackageLoader("pipelines", "templates")
        both = jinja2.ChoiceLoader([jinja2.DictLoader({"alone.html": PAGE}), loader])
        monkeypatch.setattr(jinja2, "PackageLoader", lambda *_: both)
        return pages.render("alone.html", tmp_path / "page.html", calibration=found)

    return write


@pytest.mark.parametrize("kind", ["multi", "single"])
def test_the_page_has_what_was_measured(of_kind, kind):
    data = of_kind(kind)
    found = calibration.content(data, kind)
    scores = data.scores
    wanted = measured(scores.y_true, scores.y_score, scores.resampled, kind)
    assert found["no"] == ""
    assert (found["error"], found["low"], found["high"], found["brier"]) == (
        wanted.pooled.error,
        wanted.pooled.low,
        wanted.pooled.high,
        wanted.brier,
    )
    assert found["decisions"] == (400 if kind == "single" else scores.y_score.size)
    errors = {row["label"]: row["error"] for row in found["rows"]}
    assert errors == {
        label: one.error for label, one in zip(data.labels, wanted.per_label, strict=True)
    }
    assert list(errors.values()) == sorted(errors.values(), reverse=True)
    positives = {row["label"]: row["positives"] for row in found["rows"]}
    assert [positives[label] for label in data.labels] == scores.y_true.sum(axis=0).tolist()
    bars = [row["bar"] for row in found["rows"]]
    np.testing.assert_allclose(
        np.array(bars) / bars[0], np.array([*errors.values()]) / max(errors.values()), atol=1e-3
    )
    floors = {row["label"]: row["floor"] for row in found["rows"]}
    for label, one in zip(data.labels, wanted.per_label, strict=True):
        assert floors[label] == pytest.approx(one.floor * bars[0] / max(errors.values()), abs=0.05)
    assert max(row["ends"][1] for row in found["rows"]) <= 100
    x, y = found["points"][-1]["at"]
    assert (x, y) == (
        round(400 * wanted.pooled.predicted[-1], 1),
        round(400 * (1 - wanted.pooled.observed[-1]), 1),
    )


def test_distributions_have_no_such_section(of_kind):
    assert calibration.content(of_kind("distribution"), "distribution") is None


@pytest.mark.parametrize(
    ("kind", "head", "why"),
    [
        ("multi", "rrla", "fitted by squared error"),
        ("multi", "kosti", "fitted by squared error"),
        ("single", "linear", "fitted by squared error"),
        ("single", "rrla", ""),
        ("multi", "mine", ""),
    ],
)
def test_heads_that_fit_by_squared_error_have_no_probabilities(of_kind, kind, head, why):
    assert why in calibration.content(of_kind(kind, head), kind)["no"]
    assert bool(why) == bool(calibration.content(of_kind(kind, head), kind)["no"])


def test_scores_that_are_no_probabilities_say_so(of_kind, written):
    data = of_kind("multi", "mine")
    odd = replace(data, scores=replace(data.scores, y_score=3 * data.scores.y_score - 1))
    found = calibration.content(odd, "multi")
    assert "no probabilities (scores lie between" in found["no"]
    text = written(found).read_text()
    assert "cannot be asked of them" in text and "<svg" not in text


@pytest.mark.parametrize(
    ("pull", "says"), [(0, "a calibrated head"), (0.9, "too high"), (-0.9, "too low")]
)
def test_it_is_said_which_way_probabilities_err(pull, says):
    rng = np.random.default_rng(0)
    p = rng.uniform(0.1, 0.9, (600, 2))
    true = (rng.random(p.shape) < p).astype(int)
    score = 1 / (1 + np.exp(-(np.log(p / (1 - p)) + pull)))
    found = measured(true, score, np.arange(600), "multi", resamples=50)
    assert says in calibration.values(found, ("a", "b"), "multi")["says"]


def test_labels_that_no_training_person_had_stay_out(of_kind, written):
    data = of_kind("multi")
    some = data.labels[3:9]
    found = calibration.content(replace(data, learned=some), "multi")
    alone = measured(
        data.scores.y_true[:, 3:9], data.scores.y_score[:, 3:9], data.scores.resampled, "multi",
        resamples=50,
    )  # fmt: skip
    assert found["error"] == pytest.approx(alone.pooled.error) and found["left_out"] == 20
    assert sorted(row["label"] for row in found["rows"]) == sorted(some)
    assert "but for 20 labels that no training person had" in written(found).read_text()
    assert calibration.content(data, "multi")["left_out"] == 0
    assert calibration.content(replace(data, learned=()), "multi")["no"]


def test_browser_draws_a_point_a_bin_and_a_row_a_label_in_both_schemes(of_kind, written, browser):
    page = written(calibration.content(of_kind("multi"), "multi"))
    opened = at(browser, page)
    assert requests(browser, page) == [page.as_uri()]
    assert len(shown(opened, "circle.val")) == 15
    assert len(shown(opened, ".row")) == 27 and len(shown(opened, "path.pr")) == 26
    widths = [bar["width"] for bar in shown(opened, ".row .bar")]
    assert widths == sorted(widths, reverse=True) and widths[-1] > 0
    for scheme in ("light", "dark"):
        in_scheme(opened, scheme)
        ground, bar = (
            luminance(opened, "body", "backgroundColor"),
            luminance(opened, ".row .bar", "fill"),
        )
        lighter, darker = max(ground, bar), min(ground, bar)
        assert (lighter + 0.05) / (darker + 0.05) > 3
    in_scheme(opened, "light")
    severe = [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"]
    assert not severe, severe
