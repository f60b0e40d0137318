"""pipelines.studies.trials_page: fits side by side, in order, in a table and as figures."""

import pytest

from pipelines.studies import trials_page
from pipelines.studies.trials_page import best_first, ended, trials_figures, trials_table


def row(value, status="ok", **more):
    reason = "why" if status == "failed" else ""
    return {"status": status, "reason": reason, "val_mAP": value, **more}


ROWS = [
    row(0.9, "pruned", name="a"),
    row(0.2, name="b"),
    row(None, "failed", name="c"),
    row(None, name="d"),
    row(0.3, "complete", name="e"),
]


@pytest.mark.parametrize(("more", "expected"), [(True, "ebdac"), (False, "bedac")])
def test_the_best_comes_first_and_what_did_not_end_well_last(more, expected):
    found = best_first(ROWS, "val_mAP", more)
    assert "".join(one["name"] for one in found) == expected


def test_equal_fits_keep_their_order():
    rows = [row(0.5, name=name) for name in "cab"]
    assert best_first(rows, "val_mAP", True) == rows


def test_a_table_has_percents_of_map_and_four_digits_of_what_is_none():
    rows = [row(0.31469, val_mAP_low=0.3, val_mAP_high=0.33, epochs=3), row(None, "failed")]
    table = trials_table(rows, ["train.lr"], "val_mAP", "Remark.")
    assert table.columns[2:4] == ["mAP on val %", "interval"] and table.notes == ["Remark."]
    assert table.rows[0] == ["1", "", "31.47", "30.00 to 33.00", "", "3", ""]
    assert table.rows[1] == ["2", "", "", "", "", "", "failed: why"]
    rows = [{"status": "complete", "reason": None, "val_loss": 0.31469, "train.lr": 1e-4 / 3}]
    table = trials_table(rows, ["train.lr"], "val_loss", "")
    assert table.columns[2] == "loss on val" and "interval" not in table.columns
    assert table.rows[0][:3] == ["1", "3.3333e-05", "0.3147"]


def test_a_long_table_is_cut_and_says_so(monkeypatch):
    monkeypatch.setattr(trials_page, "SHOWN", 2)
    table = trials_table([row(0.1)] * 1234, [], "val_mAP", "Remark.")
    assert len(table.rows) == 2 and "first 2 of 1,234" in table.notes[1]


def test_how_a_fit_ended():
    assert [ended(one) for one in ROWS] == ["pruned", "", "failed: why", "", ""]


def grid(**sides):
    """A fit at each point of two settings; its mAP is the product of their places."""
    (x, across), (y, up) = sides.items()
    return [
        row(0.1 * (i + 1) * (j + 1), **{x: one, y: other})
        for i, one in enumerate(across)
        for j, other in enumerate(up)
    ]


def maps(sections):
    return [figure for section in sections[1:] for _, figure in section.figures]


def test_settings_that_vary_have_lines_and_each_two_of_few_values_a_map():
    rows = grid(a=[1, 2, 3], b=["x", None])
    lines, _ = sections = trials_figures(rows, ["a", "b", "same"], "val_mAP", True)
    assert len(lines.figures) == 1 and len(maps(sections)) == 1
    axes = maps(sections)[0].axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "2", "3"]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["", "x"]  # none, then words
    held = axes.collections[0].get_array()
    assert held.shape == (3, 2)
    assert held.ravel().tolist() == pytest.approx([20, 10, 40, 20, 60, 30])
    assert trials_figures([row(0.1, a=1)] * 2, ["a"], "val_mAP", True) == []


def test_a_cell_of_several_fits_is_their_mean():
    rows = [{**one, "c": c} for c in (1, 2) for one in grid(a=[1, 2], b=[1, 2])]
    for one in rows:
        one["val_mAP"] += 0.2 * (one["c"] - 1)
    sections = trials_figures(rows, ["a", "b", "c"], "val_mAP", True)
    assert "the mean over the other settings" in sections[1].figures[0][0]
    held = maps(sections)[0].axes[0].collections[0].get_array()
    assert held.ravel().tolist() == pytest.approx([20, 30, 30, 50])


def test_points_that_are_strewn_make_no_map():
    rows = [row(0.1, a=n, b=n * n) for n in range(1, 6)]
    assert maps(trials_figures(rows, ["a", "b"], "val_mAP", True)) == []
