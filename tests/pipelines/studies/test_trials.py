"""pipelines.studies.trials: what was fitted is never fitted again, and what differs always is."""

import json

import numpy as np
import pytest

from cache.errors import CacheError, DataError
from cache.statuses import STATUS
from pipelines.studies import trials as module
from pipelines.studies.trials import measuring, own, searching
from tests.train import made
from train.fit import fit, predict
from train.metrics import mean_average_precision
from train.run import scores_of
from train.vary import vary


def run(trials, *settings):
    return dict(trials.run(list(settings)))


def test_a_trial_says_what_the_head_fitted_alone_measures(asked):
    settings = asked(train={"seed": 3, "hugme": {"dropout": 0.2}})
    trials = measuring(settings, ["val", "test"])
    (trial,) = run(trials, settings.train).values()
    assert (trial.status, trial.reason, trial.new) == ("ok", "", True)
    features = made.features(persons=160)
    alone = fit(features, settings.train)
    record = trial.record
    assert record["best_epoch"] == alone.best_epoch and record["epochs"] == len(alone.history)
    assert record["val_map"] == alone.history[alone.best_epoch - 1]["val_map"]
    assert record["seed"] == 3 and record["together"] == 1 and record["head"] == "hugme"
    for split in ("val", "test"):
        rows = features.rows(split)
        true = features.truth(rows).numpy() > 0.5
        expected = mean_average_precision(true, predict(alone.model, features, rows))
        numbers = trial.measured(split)
        assert numbers["mAP"] == pytest.approx(expected, abs=1e-12)
        assert numbers["n_evaluated"] == len(rows)
        assert len(record["drawn"][split]) == 100
        spread = np.quantile(record["drawn"][split], (0.025, 0.975))
        assert numbers["mAP_low"] == pytest.approx(2 * expected - spread[1], abs=1e-5)
    assert {row["label"] for row in record["per_class"]["test"]} == set(made.NAMES)
    assert record["untrained"] == ["depth: made"]


def test_what_was_fitted_is_found_and_nothing_is_fitted_twice(asked, fits):
    settings = asked()
    several = [settings.train, vary(settings.train, {"train.lr": 1e-2}), settings.train]
    first = run(measuring(settings, ["val"]), *several)
    assert len(fits) == 2 and first[0].key == first[2].key != first[1].key
    again = run(measuring(settings, ["val"]), *several)
    assert len(fits) == 2 and not any(trial.new for trial in again.values())
    assert [again[n].record["measured"] for n in range(3)] == [
        first[n].record["measured"] for n in range(3)
    ]


def test_the_key_has_all_that_decides_the_numbers_and_nothing_else(asked, monkeypatch):
    settings = asked()
    key = measuring(settings, ["val"]).key(settings.train)

    def other(more=(), splits=("val",), **changes):
        changed = asked(**dict(more))
        return measuring(changed, list(splits)).key(vary(changed.train, changes))

    assert other() == key
    # Other heads' settings, and what only decides how it is run, change nothing.
    assert other(**{"train.save_every": 1, "train.memory": 9, "train.together": 4}) == key
    assert other({"train": {"rrla": {"heads": 2}}}) == key
    different = [
        other(**{"train.lr": 1}),
        other(**{"train.seed": 1}),
        other(**{"train.hugme.beta": 0.1}),
        other(**{"train.hugme.without": ["scene"]}),
        other(**{"train.head": "mlp"}),
        other({"evaluate": {"bootstrap": 200}}),
        other(splits=("val", "test")),
    ]
    monkeypatch.setattr(module, "code_of", lambda head: "another")
    different.append(other())
    assert len({key, *different}) == 9


def test_the_code_of_a_head_is_its_own_and_what_all_share():
    codes = {head: module.code_of(head) for head in ("hugme", "rrla", "mlp")}
    assert len(set(codes.values())) == 3


def test_settings_of_a_trial_are_those_of_its_head():
    found = own(made.settings(head="mlp"))
    assert found["mlp.dropout"] == 0.2 and found["lr"] == 3e-3 and found["head"] == "mlp"
    assert not [name for name in found if name.startswith(("hugme", "rrla", "options"))]


def test_a_loss_that_is_not_finite_is_kept_as_failed(asked, fits):
    settings = asked(train={"lr": 1e30})
    for new in (True, False):
        (trial,) = run(measuring(settings, ["val"]), settings.train).values()
        assert trial.status == "failed" and "train.lr" in trial.reason and trial.new is new
        assert trial.measured("val") == {}
    assert len(fits) == 1


def test_a_view_that_is_not_there_is_refused_and_asked_again(asked, fits):
    settings = asked()
    one = vary(settings.train, {"train.head": "rrla"})
    trials = measuring(settings, ["val"])
    (trial,) = run(trials, one).values()
    assert trial.status == "refused" and "words" in trial.reason and not fits
    assert not trials.folder.exists() or not list(trials.folder.glob("*.json"))


def test_a_view_that_is_not_there_is_refused_with_what_mends_it(asked):
    trials = measuring(asked(), ["val"])
    with pytest.raises(CacheError, match=r"'words'.*rrla.*emocache extract.*views\.words\.network"):
        trials.key(vary(asked().train, {"train.head": "rrla"}))


def test_all_are_collected_in_order_and_one_fit_counts_once(asked, fits):
    settings = asked()
    linear = [vary(settings.train, {"train.head": "linear", "train.seed": n}) for n in range(3)]
    refused = vary(settings.train, {"train.head": "rrla"})
    several = [linear[0], settings.train, linear[1], refused, settings.train, refused, linear[2]]
    said = []
    found = measuring(settings, ["val"]).collect(several, lambda *step: said.append(step))
    assert [trial.settings.head for trial in found] == [one.head for one in several]
    assert len(fits) == 2 and {total for _, total, _ in said} == {3}
    assert said[0] == (0, 3, "") and said[-1] == (3, 3, "")
    assert (1, 3, "hugme, epoch 1") in said or (2, 3, "hugme, epoch 1") in said
    assert [done for done, _, _ in said] == sorted(done for done, _, _ in said)
    assert module.fits_of(found) == 2 and module.untrained_of(found) == ["depth: made"]
    assert [trial.fitted_now for trial in found] == [True] * 3 + [False, True, False, True]


def test_persons_and_how_they_are_drawn_are_told_apart(asked):
    settings = asked()
    ((_, trial),) = measuring(settings, ["val"]).run([settings.train])
    features = made.features(persons=160)
    model = fit(features, settings.train).model
    scores = scores_of(model, {}, features, "val")
    same = module.resampled(scores, settings.evaluate)
    assert trial.record["resampled"] == {"val": same}
    at = np.arange(len(scores.person_rows))
    fewer = [scores.of(at != n) for n in (0, 1)]  # of one picture, and as many
    other = [settings.evaluate.model_copy(update=one) for one in ({"seed": 1}, {"bootstrap": 200})]
    found = [module.resampled(one, settings.evaluate) for one in fewer]
    assert len({same, *found, *(module.resampled(scores, one) for one in other)}) == 5
    confident = settings.evaluate.model_copy(update={"confidence": 0.9})
    assert module.resampled(scores, confident) == same  # draws hang on no level


def test_a_damaged_trial_is_fitted_again(asked, fits):
    settings = asked()
    trials = measuring(settings, ["val"])
    run(trials, settings.train)
    (file,) = trials.folder.glob("*.json")
    whole = file.read_bytes()
    record = json.loads(whole)
    record["val_map"] = 1.0  # better than it was
    for damage in (json.dumps(record).encode(), whole[:-9], b""):
        file.write_bytes(damage)
        (trial,) = run(measuring(settings, ["val"]), settings.train).values()
        assert trial.new and trial.record["val_map"] != 1.0
    assert len(fits) == 4 and file.read_bytes()[:200] == whole[:200]


def test_a_head_dropped_by_the_watcher_is_not_kept(asked):
    settings = asked()
    trials = measuring(settings, ["val"])
    found = dict(trials.run([settings.train], lambda number, row: row["epoch"] == 2))
    assert found[0].status == "dropped" and found[0].record["epochs"] == 2
    assert not list(trials.folder.glob("*.json"))


def test_a_search_knows_val_alone_and_needs_it(asked, cache, tmp_path):
    settings = asked()
    (trial,) = run(searching(settings), settings.train).values()
    assert list(trial.record["measured"]) == ["val"] == list(trial.record["drawn"])
    given = made.arrays(persons=64)
    given["splits"][given["splits"] == "val"] = "train"
    made.write_cache(tmp_path / "less", given)
    with pytest.raises(DataError, match="val"):
        searching(asked(cache={"root": str(tmp_path / "less")}))


@pytest.mark.parametrize("together", [1, 8])
def test_ablations_are_measured_on_their_own_persons_and_views(asked, tmp_path, together):
    """A person whose objects failed counts for the head without objects, and for it alone."""
    given = made.arrays(persons=96)
    objects = given["views"]["objects"]
    objects.status[:] = np.where(np.arange(96) % 16 == 0, STATUS["unreadable"], objects.status)
    made.write_cache(tmp_path / "some", given)
    for root, dropped in ((tmp_path / "some", True), (None, False)):
        more = {"cache": {"root": str(root)}} if root else {}
        settings = asked(train={"together": together}, **more)
        several = [vary(settings.train, {"train.hugme.without": w}) for w in ([], ["objects"])]
        whole, without = run(measuring(settings, ["val"]), *several).values()
        if dropped:
            assert sum(sum(d.values()) for d in whole.record["dropped"].values()) > 0
        assert not any(without.record["dropped"].values())
        assert whole.record["cache_key"] != without.record["cache_key"]
        assert without.record["untrained"] == ["depth: made"]
        in_step = 1 if dropped or together == 1 else 2
        assert (whole.record["together"], without.record["together"]) == (in_step, in_step)


def test_the_plan_counts_what_is_left_and_fits_nothing(asked, fits):
    settings = asked(train={"epochs": 3, "batch": 16})
    trials = measuring(settings, ["val"])
    run(trials, settings.train)
    several = [
        settings.train,
        vary(settings.train, {"train.lr": 1}),
        vary(settings.train, {"train.lr": 2, "train.epochs": 2}),
        vary(settings.train, {"train.head": "linear"}),
        vary(settings.train, {"train.head": "rrla"}),
    ]
    plan = trials.plan(several)
    assert [plan[name] for name in ("asked", "kept", "left", "refused")] == [5, 1, 3, 1]
    assert "words" in plan["reasons"][0] and len(fits) == 1
    hugme = next(group for group in plan["groups"] if group["head"] == "hugme")
    assert (hugme["fits"], hugme["epochs"], hugme["steps"]) == (2, 3, 5)  # 80 persons, 16 a step
    assert hugme["seconds"] > hugme["step_s"] * 5 * 5 > 0  # and val after each
    assert plan["seconds"] == pytest.approx(sum(group["seconds"] for group in plan["groups"]))
