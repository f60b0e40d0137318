"""pipelines.studies.sweep: every point once, the best first, and a kill loses one fit at most."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cache.errors import DataError, SettingsError
from pipelines.settings import Sweep
from pipelines.studies.sweep import combinations, plan, points, sweep
from tests.train import made

ROOT = Path(__file__).resolve().parents[3]


def over(**changes):
    names = {"lr": "train.lr", "beta": "train.hugme.beta", "seed": "train.seed"}
    return {"over": {names.get(name, name): values for name, values in changes.items()}}


def test_a_grid_has_each_combination_and_a_list_each_point():
    base = made.settings()
    grid = points(base, Sweep(**over(lr=[1e-4, 1e-3], beta=[0, 0.5, 1])))
    assert [(p["train.lr"], p["train.hugme.beta"]) for p, _ in grid] == [
        (lr, beta) for lr in (1e-4, 1e-3) for beta in (0, 0.5, 1)
    ]
    assert all(one.lr == p["train.lr"] and one.epochs == base.epochs for p, one in grid)
    some = [{"train.batch": 8}, {"train.batch": 16, "train.hugme.dropout": 0.5}]
    listed = points(base, Sweep(over={}, points=some))
    assert [point for point, _ in listed] == some
    assert len(points(base, Sweep(**over(lr=[1e-4, 1e-3]), points=some))) == 4


def test_equal_points_come_once_and_values_are_as_they_are_used():
    found = points(made.settings(), Sweep(**over(lr=["1e-4", 1e-4, 0.0001, 1e-3])))
    assert [point["train.lr"] for point, _ in found] == [1e-4, 1e-3]
    listed = Sweep(**over(lr=[1e-4, 1e-3]), points=[{"train.batch": 8}, {"train.batch": 16}])
    assert combinations(listed) == len(points(made.settings(), listed)) == 4


def test_equal_points_are_counted(asked):
    settings = asked(sweep=over(lr=["1e-3", 1e-3, 3e-3], seed=[0, 0]))
    assert plan(settings)["equal"] == 4 and plan(settings)["asked"] == 2
    result = sweep(settings)
    assert (result["points"], result["equal"], result["fitted"]) == (2, 4, 2)


def test_points_that_are_one_fit_count_as_one(asked, fits):
    settings = asked(train={"head": "linear"}, sweep=over(seed=[0, 1, 2]))
    assert (plan(settings)["asked"], plan(settings)["left"]) == (1, 1)
    result = sweep(settings)
    assert (result["points"], result["fitted"], result["kept"], len(fits)) == (3, 1, 0, 1)
    again = sweep(settings)
    assert (again["fitted"], again["kept"], len(fits)) == (0, 1, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"over": {"train.lrr": [1]}}, "train.lrr: unknown setting; did you mean train.lr"),
        ({"over": {"train.lr": [1e-3, -1]}}, "train.lr"),
        ({"over": {"train.rrla.heads": [2]}}, "set train.head to rrla"),
        ({"over": {"train.lr": [1]}, "points": [{"train.lr": 1}]}, "train.lr stands in"),
        ({"over": {"train.head": ["mpl"]}}, "mlp"),
    ],
)
def test_a_wrong_setting_is_named(given, said):
    with pytest.raises(SettingsError, match=said):
        points(made.settings(), Sweep(**given))


def test_the_table_ranks_on_val_and_stands_in_files(asked, tmp_path):
    settings = asked(sweep=over(lr=[1e-5, 1e-2, 1e30], beta=[0.2, 0.8]))
    result = sweep(settings)
    rows = result["rows"]
    assert result["measure"] == "val_mAP" and result["points"] == result["fitted"] == 6
    values = [row["val_mAP"] for row in rows if row["status"] == "ok"]
    assert len(values) == 4 and values == sorted(values, reverse=True)
    assert [row["status"] for row in rows[4:]] == ["failed", "failed"]
    assert all("train.lr" in row["reason"] for row in rows[4:])
    for row in rows[:4]:
        assert row["val_mAP_low"] <= row["val_mAP"] <= row["val_mAP_high"]
        assert (row["n_evaluated"], row["n_dropped"], row["seed"]) == (40, 0, 0)
        assert len(row["cache_key"]) == len(row["trial"]) == 64
    folder = tmp_path / "results" / "sweep"
    table = pq.read_table(folder / "sweep.parquet")
    assert table["train.lr"].to_pylist() == [row["train.lr"] for row in rows]
    assert table["val_mAP"].to_pylist() == [row.get("val_mAP") for row in rows]
    with (folder / "sweep.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == [row["status"] for row in rows]
    page = (folder / "sweep.html").read_text()
    assert page.count("<svg") == 2 and "UNTRAINED depth: made" in page and "failed" in page
    assert not list((tmp_path / "results" / "trials").glob("running/*"))


def test_a_second_run_fits_only_what_is_new(asked, fits):
    sweep(asked(sweep=over(lr=[1e-4, 1e-3])))
    assert len(fits) == 2
    result = sweep(asked(sweep=over(lr=[1e-4, 1e-3, 1e-2])))
    assert len(fits) == 3 and (result["fitted"], result["kept"]) == (1, 2)
    assert plan(asked(sweep=over(lr=[1e-4, 1e-3, 1e-2, 1e-1])))["left"] == 1


def test_heads_go_in_step_where_it_is_asked_for_and_say_so(asked):
    settings = asked(train={"together": 8}, sweep=over(lr=[1e-4, 1e-3, 1e-2]))
    assert [row["together"] for row in sweep(settings)["rows"]] == [3, 3, 3]


def test_lists_and_words_can_be_swept(asked, tmp_path):
    settings = asked(sweep={"over": {"train.hugme.without": [[], ["scene"], ["head", "body"]]}})
    names = {row["train.hugme.without"] for row in sweep(settings)["rows"]}
    assert names == {"[]", "['scene']", "['head', 'body']"}
    heads = {"over": {"train.head": ["mlp", "kosti", "rrla"]}}
    rows = sweep(asked(sweep=heads))["rows"]
    assert {row["train.head"] for row in rows[:2]} == {"mlp", "kosti"}
    assert rows[2]["status"] == "refused" and "words" in rows[2]["reason"]


def test_nothing_to_choose_by_is_said(asked):
    with pytest.raises(DataError, match="words"):
        sweep(asked(sweep={"over": {"train.head": ["rrla"]}}))


SLOWLY = """
import sys, time, yaml
from pipelines.settings import Settings
from pipelines.studies.{what} import {what}
from train import fit
epoch = fit.Run.epoch
def slow(self, *given):
    time.sleep(0.05)
    print(self.settings.model_dump_json(), flush=True)
    return epoch(self, *given)
fit.Run.epoch = slow
{what}(Settings.model_validate(yaml.safe_load(open("asked.yaml"))))
"""


def killed(what, settings, folder, when):
    """Run it in another process until `when` says so, kill it, run it to its end; each fit's
    settings and how many epochs each process gave it."""
    Path("asked.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = []
    for last in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-c", SLOWLY.format(what=what)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        if not last:
            end = time.monotonic() + 120
            while not when() and process.poll() is None and time.monotonic() < end:
                time.sleep(0.01)
            assert process.poll() is None, process.communicate()
            process.send_signal(signal.SIGKILL)
        said, complaint = process.communicate(timeout=120)
        assert last == (process.returncode == 0), complaint
        epochs: dict[str, int] = {}
        for line in said.splitlines():
            epochs[line] = epochs.get(line, 0) + 1
        runs.append(epochs)
    return runs


def test_a_killed_sweep_goes_on_and_trains_nothing_twice(asked, tmp_path):
    settings = asked(train={"epochs": 6, "patience": 9}, sweep=over(lr=[1e-4, 1e-3, 2e-3, 3e-3]))
    kept = tmp_path / "results" / "trials"
    first, second = killed("sweep", settings, tmp_path, lambda: len(list(kept.glob("*.json"))) >= 2)
    twice = set(first) & set(second)
    assert len(twice) <= 1 and len({*first, *second}) == 4
    assert {one for one, epochs in first.items() if epochs == 6} - twice
    done = [json.loads(path.read_text()) for path in kept.glob("*.json")]
    assert len(done) == 4 and all(len(one["drawn"]["val"]) == 100 for one in done)


def test_a_fit_in_progress_goes_on_after_the_kill(asked, tmp_path):
    settings = asked(
        train={"epochs": 20, "patience": 99, "save_every": 0}, sweep=over(lr=[1e-4, 1e-3])
    )
    running = tmp_path / "results" / "trials" / "running"
    seen = []

    def when():
        if list(running.glob("*.pt")):
            seen.append(time.monotonic())
        return bool(seen) and time.monotonic() - seen[0] > 0.3

    first, second = killed("sweep", settings, tmp_path, when)
    (twice,) = set(first) & set(second)
    assert first[twice] >= 2 and second[twice] < 20  # it went on from an epoch it had saved
    assert 20 <= first[twice] + second[twice] <= 22
    assert not list(running.glob("*.pt"))
