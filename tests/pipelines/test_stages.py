"""What the commands do, on stand-ins for what takes long."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import train.run
from cache import audit
from cache.errors import DataError
from pipelines import cli, stages
from pipelines.results import Results
from pipelines.settings import load
from tests.pipelines.conftest import ROOT
from tests.pipelines.report_data import scores

INFO = {
    "head": "hugme",
    "dataset": "emotic",
    "note": "",
    "index": "1" * 64,
    "sha256": "2" * 64,
    "seed": 0,
    "best_epoch": 3,
    "views": {},
    "versions": {},
}


@pytest.fixture
def fitted(tmp_path, monkeypatch):
    """A head and its features as `open_head` gives them; which splits were scored, and with how
    much memory it was opened."""
    made = SimpleNamespace(scored=[], opened=[], val=400)

    def of(split):
        made.scored.append(split)
        return replace(scores(split), info=INFO, index="1" * 64, dataset="emotic")

    def open_head(root, folder, device, memory=None):
        made.opened.append(memory)
        features = SimpleNamespace(rows=lambda split: range(made.val if split == "val" else 400))
        return SimpleNamespace(info=INFO, features=features, scores=of)

    monkeypatch.setattr(train.run, "open_head", open_head)
    monkeypatch.setattr(stages, "index_of", lambda settings: None)
    monkeypatch.setattr(audit, "gaps", lambda root: [])
    monkeypatch.setattr(audit, "leaked_persons", lambda root, split: np.array([], int))
    monkeypatch.chdir(tmp_path)
    return made


def settings(*more):
    here = ("evaluate.bootstrap=100", "device=cpu", *more)
    return load(ROOT / "pipelines" / "profiles" / "demo.yaml", here)


def test_evaluate_opens_the_head_once_and_with_the_memory_of_the_settings(fitted):
    found = stages.evaluate(settings("train.memory=3"))
    assert fitted.opened == [3] and fitted.scored == ["test", "val"]
    assert found == Results().read_metrics() and found["val"]["n_evaluated"] == 400


def test_another_head_than_was_named_is_refused_before_it_is_scored(fitted):
    with pytest.raises(DataError, match="set to mlp, and results/head holds hugme"):
        stages.evaluate(settings(), "mlp")
    assert fitted.scored == [] and not Results().folder.exists()
    assert stages.evaluate(settings(), "hugme")


def test_a_val_of_whose_persons_none_counts_gives_no_thresholds(fitted):
    """The index has them, but no view has their features."""
    fitted.val = 0
    found = stages.evaluate(settings())
    assert fitted.scored == ["test"]
    assert "val" not in found and "C_F1" not in found["test"]


def test_what_training_says_on_the_way_is_shown(monkeypatch):
    monkeypatch.setattr(cli, "app", lambda: None)
    for room in ("extract", "train"):
        monkeypatch.setattr(logging.getLogger(room), "level", logging.NOTSET)
    cli.main()
    assert logging.getLogger("train.fit_many").isEnabledFor(logging.INFO)
    assert not logging.getLogger("elsewhere").isEnabledFor(logging.INFO)
