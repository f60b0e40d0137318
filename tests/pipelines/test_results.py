"""The files of a results folder: whole after a kill, and number for number what was written."""

import json
import math

import numpy as np
import pytest

from cache.errors import DataError
from pipelines import evaluation
from pipelines.comparison import compare
from pipelines.evaluation import measure
from pipelines.report.data import read_results
from pipelines.results import Results, plain, read_csv, write_csv
from tests.pipelines.report_data import provenance, scores
from train.settings import Evaluate

QUICK = Evaluate(bootstrap=100)


@pytest.mark.parametrize("after", range(4))  # scores, and three tables
def test_a_kill_leaves_no_numbers_beside_scores_of_another_head(tmp_path, monkeypatch, after):
    results = Results(tmp_path / "results")
    results.folder.mkdir()
    results.curves.write_text("epoch,train_loss,val_loss,val_map\n")
    measure(scores(seed=1), QUICK, {**provenance(), "head": "old"}).write(results)
    assert results.read_metrics()["provenance"]["head"] == "old"
    done = []

    def killed(*arguments):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(arguments)
        write_csv(*arguments)

    monkeypatch.setattr(evaluation, "write_csv", killed)
    if after == 3:
        monkeypatch.setattr(Results, "write_metrics", lambda *arguments: killed())
    new = measure(scores(seed=2), QUICK, {**provenance(), "head": "new"})
    with pytest.raises(KeyboardInterrupt):
        new.write(results)
    for read in (
        results.read_metrics,
        lambda: read_results(results),
        lambda: compare(results.folder, results.folder, QUICK),
    ):
        with pytest.raises(DataError, match=r"provenance\.json.*run .*`emocache evaluate`"):
            read()
    monkeypatch.undo()
    new.write(results)
    assert results.read_metrics()["provenance"]["head"] == "new"
    assert not list(results.folder.rglob("*.partial"))


def test_a_table_comes_back_number_for_number(tmp_path):
    values = np.random.default_rng(0).random(50).astype(np.float32)
    rows = [{"label": str(n), "value": v, "count": n} for n, v in enumerate(values)]
    rows.append({"label": "nan", "value": math.nan, "count": 0})
    write_csv(tmp_path / "deep" / "table.csv", ("label", "value", "count"), rows)
    back = read_csv(tmp_path / "deep" / "table.csv")
    assert [row["value"] for row in back[:-1]] == values.astype(float).tolist()
    assert [row["label"] for row in back] == [row["label"] for row in rows]  # never a number
    assert math.isnan(back[-1]["value"]) and back[3]["count"] == 3


def test_plain_values_are_json():
    found = plain({1: np.float32(0.5), "nan": math.nan, "some": (np.int64(2), Results().head)})
    assert found == {"1": 0.5, "nan": None, "some": [2, "results/head"]}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
