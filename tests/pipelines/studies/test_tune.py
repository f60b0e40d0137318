"""pipelines.studies.tune: chosen on val, measured once on test, and a study that goes on."""

import json
import math

import optuna
import pytest
import yaml

from cache.errors import DataError, SettingsError
from pipelines.settings import Settings
from pipelines.studies import tune as module
from pipelines.studies.trials import measuring
from pipelines.studies.tune import tune
from tests.pipelines.studies.test_sweep import killed
from train.vary import vary

SPACE = {
    "train.lr": {"low": 1e-5, "high": 1e-2, "log": True},
    "train.hugme.beta": {"low": 0, "high": 1},
}


def study(**changes):
    base = {
        "space": SPACE,
        "trials": 5,
        "batch": 2,
        "startup": 3,
        "pruner": "none",
        "seeds": [0, 1],
    }
    return {"tune": {**base, **changes}}


def test_the_best_on_val_is_fitted_over_seeds_and_measured_on_test(asked, tmp_path, fits):
    settings = asked(**study())
    result = tune(settings)
    assert (result["trials"], result["states"]) == (5, {"complete": 5})
    assert result["measure"] == "val_mAP" and len(fits) == result["fitted"] == 5 + 2
    folder = tmp_path / "results" / "tune"
    told = json.loads((folder / "best.json").read_text())
    assert told["best"] == result["best"] and told["measured"] == result["measured"]
    # What is measured is the mean over the seeds of the best, on test.
    best = vary(settings.train, result["best"]["changes"])
    trials = measuring(settings, ["val", "test"])
    of_seeds = dict(trials.run([vary(best, {"train.seed": seed}) for seed in (0, 1)]))
    assert len(fits) == 7
    values = [trial.measured("test")["mAP"] for trial in of_seeds.values()]
    found = result["measured"]
    assert found["mean"] == pytest.approx(sum(values) / 2)
    # t of one degree of freedom at 97.5 %
    half = 12.7062 * abs(values[0] - values[1]) / math.sqrt(2) / math.sqrt(2)
    assert found["half_over_seeds"] == pytest.approx(half, rel=1e-4)
    assert found["low"] <= found["mean"] <= found["high"] and found["n_evaluated"] == 40
    # The best trial is the best of the journal, and its settings are a params.yaml.
    (name,) = optuna.get_all_study_names(_storage(folder))
    there = optuna.load_study(study_name=name, storage=_storage(folder))
    assert there.best_trial.number == result["best"]["trial"]
    assert there.best_value == result["best"]["value"]
    written = Settings.model_validate(yaml.safe_load((folder / "params.yaml").read_text()))
    assert written == settings.model_copy(update={"train": best})
    page = (folder / "tune.html").read_text()
    assert "<svg" in page and f"{100 * found['mean']:.2f} %" in page and name in page
    assert (folder / "tune.csv").read_text().count("complete") == 5


def _storage(folder):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def test_no_trial_of_the_search_is_measured_on_test(asked, tmp_path):
    result = tune(asked(**study()))
    kept = (tmp_path / "results" / "trials").glob("*.json")
    measured = [sorted(json.loads(path.read_text())["measured"]) for path in kept]
    assert measured.count(["val"]) == result["trials"]
    assert measured.count(["test", "val"]) == 2 and len(measured) == result["trials"] + 2


def test_a_study_goes_on_and_fits_nothing_again(asked, fits):
    tune(asked(**study(trials=4)))
    before = len(fits)
    again = tune(asked(**study(trials=4)))
    assert len(fits) == before and again["fitted"] == 0 and again["trials"] == 4
    more = tune(asked(**study(trials=6)))
    assert more["trials"] == 6 and more["best"]["value"] >= again["best"]["value"]


def test_another_cache_or_other_settings_are_another_study(asked, monkeypatch):
    names = {tune(asked(**study(trials=2)))["study"]}
    names.add(tune(asked(train={"batch": 16}, **study(trials=2)))["study"])
    monkeypatch.setattr(module, "code_of", lambda head: "another")
    names.add(tune(asked(**study(trials=2)))["study"])
    assert len(names) == 3


def test_the_code_of_every_head_that_is_searched_decides_the_study(asked, monkeypatch):
    space = {"train.head": {"choices": ["hugme", "mlp"]}, "train.lr": SPACE["train.lr"]}
    code = {name: module.code_of(name) for name in ("hugme", "mlp", "kosti")}
    monkeypatch.setattr(module, "code_of", code.get)

    def name() -> str:
        return tune(asked(train={"epochs": 1}, **study(trials=1, space=space, seeds=[0])))["study"]

    first = name()
    code["kosti"] = "another"
    assert name() == first
    code["mlp"] = "another"
    assert name() != first


def test_the_pruner_drops_heads_between_epochs(asked, tmp_path):
    space = {"train.lr": {"low": 1e-9, "high": 1e-2, "log": True}}
    settings = asked(
        train={"epochs": 12, "patience": 99},
        **study(space=space, trials=12, batch=3, pruner="halving", sampler="random", seeds=[0]),
    )
    result = tune(settings)
    assert result["states"]["pruned"] >= 2 and result["best"]["changes"]["train.lr"] > 1e-5
    lines = (tmp_path / "results" / "tune" / "tune.csv").read_text().splitlines()
    assert sum("pruned" in line for line in lines) == result["states"]["pruned"]


def test_heads_of_a_batch_go_in_step(asked):
    settings = asked(train={"together": 4}, **study(trials=4, batch=4, seeds=[0]))
    result = tune(settings)
    found = dict(
        measuring(settings, ["val"]).run([vary(settings.train, result["best"]["changes"])])
    )
    assert found[0].record["together"] == 4 and not found[0].new


def test_a_search_that_val_cannot_guide_is_refused(asked):
    with pytest.raises(SettingsError, match=r"train\.select"):
        tune(asked(train={"select": "last"}, **study()))
    with pytest.raises(DataError, match="not finite"):
        tune(asked(train={"lr": 1e30}, **study(space={"train.hugme.beta": {"low": 0, "high": 1}})))


def test_a_killed_study_goes_on_and_trains_nothing_twice(asked, tmp_path):
    settings = asked(train={"epochs": 6, "patience": 9}, **study(trials=6, batch=3, seeds=[0]))
    kept = tmp_path / "results" / "trials"
    first, second = killed("tune", settings, tmp_path, lambda: len(list(kept.glob("*.json"))) >= 2)
    twice = set(first) & set(second)
    # Six points and the best over its one seed, which is measured on test as well: another fit,
    # of the same settings.
    assert len(twice) <= 2 and len({*first, *second}) in (6, 7)
    done = {one for one, epochs in first.items() if epochs == 6} - twice
    assert done
    assert sum(second.values()) <= (7 - len(done)) * 6
    result = json.loads((tmp_path / "results" / "tune" / "best.json").read_text())
    assert result["trials"] == 6 and result["states"] == {"complete": 6}
