"""Planes and ticks of charts, heat maps."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report import charts
from pipelines.report.charts import Frame, Matrix, ticks
from train.scores import Scores


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


# Label graphs, correlations, transport plans

LABELS = ("awe", "fear", "joy")


def test_a_matrix_of_either_sign_is_shaded_by_size_and_lists_its_strongest_pairs():
    values = np.array([[1, -0.8, 0.4], [-0.8, 1, 0.002], [0.4, 0.002, 1]])
    found = charts.heat(LABELS, Matrix("M", "", values))
    assert found["pairs"] == [("awe · fear", -0.8), ("awe · joy", 0.4), ("fear · joy", 0.002)]
    cells = {(c["row"], c["column"]): (c["shade"], c["less"]) for c in found["cells"]}
    # neither the diagonal nor what is too faint to be seen
    wanted = {(0, 1): (1, True), (0, 2): (0.5, False)}
    assert cells == wanted | {(j, i): of for (i, j), of in wanted.items()}
    assert (found["low"], found["top"], found["absent"]) == (-0.8, 0.8, [])
    assert charts.heat(LABELS, Matrix("M", "", abs(values)))["low"] == 0
    one_way = charts.heat(LABELS, Matrix("M", "", np.triu(values)))
    assert one_way["pairs"][0] == ("awe → fear", -0.8)


def test_a_graph_is_shown_by_what_is_known_of_its_name_or_under_it():
    graphs = dict.fromkeys(("similarity", "learned", "mine"), np.eye(3))
    titles = [graph["title"] for graph in charts.graphs(LABELS, graphs)]
    assert titles == ["Similarity", "Learned by the head", "mine"]


def shares(persons=80) -> Scores:
    rng = np.random.default_rng(0)
    true, predicted = rng.dirichlet((4, 2, 1), persons), rng.dirichlet((1, 1, 1), persons)
    rows = np.arange(persons)
    return Scores("test", LABELS, rows, rows, true > 0.5, predicted, distribution=true)


def test_correlations_are_numpys_on_one_scale_with_what_the_head_has_learned():
    scores = shares()
    learned = np.array([[1, 0.9, 0], [0.9, 1, 0], [0, 0, 1]])
    found = charts.correlations(scores, {"learned": learned, "cooccurrence": np.eye(3)})
    true, predicted, of_head = found["matrices"]
    oracle = [np.corrcoef(part.T) for part in (scores.distribution, scores.y_score)]
    for matrix, wanted in zip((true, predicted), oracle, strict=True):
        assert len(matrix["cells"]) == 6
        for cell in matrix["cells"]:
            at = cell["row"], cell["column"]
            assert cell["value"] == pytest.approx(wanted[at], abs=1e-12)
            assert cell["shade"] == pytest.approx(abs(wanted[at]) / 0.9, abs=1e-3)
    assert {one["top"] for one in found["matrices"]} == {0.9}
    assert of_head["title"] == "Learned by the head" and of_head["pairs"] == [("awe · fear", 0.9)]
    apart = abs(oracle[1] - oracle[0])[np.triu_indices(3, 1)]
    assert found["gap"] == pytest.approx(apart.mean(), abs=1e-12)


def test_a_label_that_never_varies_has_no_correlation():
    scores = shares()
    score = scores.y_score.astype(np.float32)
    score[:, 2] = np.float32(0.1)  # in 32 bits its mean is off by a rounding
    found = charts.correlations(replace(scores, y_score=score), {})
    true, predicted = found["matrices"]
    assert true["absent"] == [] and predicted["absent"] == ["joy"]
    assert {cell["row"] for cell in predicted["cells"]} == {0, 1}
    oracle = abs(np.corrcoef(score.T[:2])[0, 1] - np.corrcoef(scores.distribution.T[:2])[0, 1])
    assert found["gap"] == pytest.approx(oracle, abs=1e-6)
    alike = replace(scores, y_score=np.full_like(scores.y_score, 1 / 3))
    assert math.isnan(charts.correlations(alike, {})["gap"])  # nothing to compare


def test_labels_go_together_as_counted_one_by_one():
    """Four persons; nobody has fear, and joy is not decided."""
    true = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    score = np.array([[0.9, 0.9, 0.3], [0.9, 0.1, 0.7], [0.2, 0.9, 0.1], [0.9, 0.6, 0.1]])
    scores = Scores(
        "test", ("awe", "joy", "fear"), np.arange(4), np.arange(4), true, score.astype(np.float32)
    )
    found = charts.cooccurrences(scores, [0.5, math.nan, 0.6])
    true, predicted = found["matrices"]
    assert true["absent"] == ["fear"] and predicted["absent"] == ["joy"]

    def values(matrix):
        return {(cell["row"], cell["column"]): cell["value"] for cell in matrix["cells"]}

    third = pytest.approx(1 / 3)
    assert values(true) == {(0, 1): pytest.approx(2 / 3), (1, 0): pytest.approx(2 / 3)}
    assert values(predicted) == {(0, 2): third, (2, 0): 1.0}
    assert true["sign"] == "→" and true["top"] == predicted["top"] == 1.0
    assert math.isnan(found["gap"])  # no two labels occur in both
    found = charts.cooccurrences(scores, [0.5, 0.5, 0.6])
    # Predicted are awe to persons 0, 1 and 3, joy to 0, 2 and 3, fear to 1.
    assert values(found["matrices"][1]) == {
        (0, 1): pytest.approx(2 / 3), (0, 2): third, (1, 0): pytest.approx(2 / 3), (2, 0): 1.0
    }  # fmt: skip
    assert found["gap"] == pytest.approx(0)  # of awe and joy alone
    alone = charts.cooccurrences(scores, [math.nan] * 3)
    assert len(alone["matrices"]) == 1 and math.isnan(alone["gap"])


def test_a_transport_plan_by_hand():
    plan = np.array([[0.5, 0.0, 0.1], [0.0, 0.25, 0.15]])
    found = charts.transport(plan)
    assert (found["tokens"], found["drawn"], found["added"]) == ((2, 3), (2, 3), False)
    cells = {(cell["row"], cell["column"]): cell["shade"] for cell in found["cells"]}
    assert cells == {(0, 0): 1, (0, 2): 0.2, (1, 1): 0.5, (1, 2): 0.3}
    assert [pair for pair, _ in found["pairs"]] == ["1 → 1", "2 → 2", "2 → 3"]
    assert [times for _, times in found["pairs"]] == pytest.approx([3, 1.5, 0.9])


@given(st.integers(1, 80), st.integers(1, 80))
def test_a_plan_of_many_tokens_loses_nothing_but_detail(rows, columns):
    """An even plan stays even but for how many neighbours each drawn cell has."""
    found = charts.transport(np.full((rows, columns), 1 / (rows * columns)))
    assert found["drawn"] == (min(rows, charts.TOKENS), min(columns, charts.TOKENS))
    shades = [cell["shade"] for cell in found["cells"]]
    assert len(shades) == found["drawn"][0] * found["drawn"][1] and max(shades) == 1
    # the fullest cell holds the most tokens there are to a cell, rounded up
    most = [math.ceil(n / k) for n, k in zip((rows, columns), found["drawn"], strict=True)]
    assert sum(shades) * math.prod(most) == pytest.approx(rows * columns, rel=0.01)
