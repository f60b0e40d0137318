"""Benchmarks run, and check what they claim, at a size that takes seconds."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared import shared

ROOT = Path(__file__).resolve().parents[1]


def run(name: str, *arguments: str) -> dict:
    """The JSON object on the last line of a benchmark's output."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_soak_every_bad_picture_is_a_row_with_its_reason():
    found = run("soak.py", "--pictures", "1600")
    assert set(found["bad"].values()) == {2} and len(found["bad"]) == 8
    assert [one["with_a_reason"] for one in found["runs"]] == [4, 8, 16]
    assert all(one["memory_MB"][-1] < one["memory_MB"][0] + 50 for one in found["runs"])


@pytest.mark.slow
def test_sweep_gives_each_way_and_the_same_head_by_both():
    found = run(
        *("sweep.py", "--heads", "2", "--persons", "20", "--epochs", "2"),
        *("--alone", "1", "--device", "cpu"),
    )
    assert found["K"] == [2] and found["measured_on"] == [1]
    assert found["automatic"][0] in ("in step", "one after another")
    for series in (found, found["seeds"]):
        assert series["ratio"] == [
            pytest.approx(series["one_by_one_s"][0] / series["together_s"][0], 0.01)
        ]
        assert series["difference"][0] < 1e-5


@pytest.mark.slow
def test_tables_counts_every_fit_and_runs_them():
    found = run(
        *("tables.py", "--persons", "20", "--heads", "kosti,ml_gcn", "--seeds", "2"),
        *("--run", "--device", "cpu"),
    )
    assert [(one["head"], one["fits"]) for one in found["shapes"]] == [("kosti", 2), ("ml_gcn", 2)]
    assert found["fits"] == found["run_fits"] == 4
    whole = sum(one["fits"] * one["steps"] * 50 * one["step_s"] for one in found["shapes"])
    assert found["hours_at_most"] == pytest.approx(whole / 3600, 0.01)


@pytest.mark.slow
def test_prepare_gives_seconds_and_memory_of_each_way():
    found = run("prepare.py", "--pictures", "60", "--lines", "300", "--kb", "5", "--rounds", "1")
    assert len(found["rows"]) == 6
    assert all(row["seconds"] > 0 and row["mb"] > 0 for row in found["rows"].values())


@pytest.mark.slow
def test_uniemox_splits_an_epoch_into_its_parts():
    shared("data/coco/coco_mini")
    found = run(
        *("uniemox.py", "--parts", "epoch", "step", "--pictures", "8", "--rounds", "1"),
        *("--batch", "2"),
    )
    seconds = found["epoch"]["seconds"]
    assert seconds["cached: teacher"] == 0 < seconds["in the loop: teacher"]
    for way in ("cached", "in the loop"):
        parts = sum(seconds[f"{way}: {part}"] for part in ("waiting", "student", "teacher"))
        assert parts == pytest.approx(seconds[way], abs=0.1)
    assert found["epoch"]["pictures"] == 8
    assert found["step"]["pictures_a_second"] > 0


@pytest.mark.slow
def test_report_gives_its_size_and_seconds():
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    found = run("report.py", "--persons", "200", "--pictures", "60", "--rounds", "1")
    assert found["thumbnails"] == 60 and found["MB"] < 5 and found["open_s"] > 0


@pytest.mark.slow
def test_serve_answers_every_good_request_and_refuses_every_bad_one():
    found = run(
        *("serve.py", "--scenes", "12", "--alone", "2", "--requests", "8"),
        *("--hostile", "30", "--among", "2", "--again", "2"),
    )
    assert (found["alone"]["answered"], found["load"]["answered"]) == (2, 8)
    assert found["hostile"]["refused"] == 30 and found["again"]["answered"] == 2
    assert found["hostile"]["good_answered"] == found["hostile"]["good_among_them"] == 2
    assert found["still_answers"] and found["ended_with"] == 0
