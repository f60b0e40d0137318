import json
import logging
import math
import multiprocessing
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import optuna
import psutil
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import ValidationError

from cache.errors import CacheError, SettingsError
from tests.train import made
from train.search import Study
from train.settings import Train, Tune
from train.vary import vary

PLANE = {
    "train.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "train.hugme.beta": {"low": 0, "high": 1},
}


def tune(**changes) -> Tune:
    return Tune.model_validate({"space": PLANE, "pruner": "none", "trials": 12, **changes})


def study(folder, base=None, about=None, maximise=False, **changes) -> Study:
    base = base or made.settings()
    return Study(folder / "a" / "journal", base, tune(**changes), about or {}, maximise)


def distance(asked) -> float:
    """A bowl: 0 at lr 1e-2, beta 0.3."""
    settings = asked.settings
    return (math.log10(settings.lr) + 2) ** 2 + (settings.hugme.beta - 0.3) ** 2


def finish(some: Study, batch: int = 4) -> list:
    """Ask and tell until nothing is left; all that was asked."""
    every = []
    while asked := some.ask(batch):
        for one in asked:
            some.tell(one.number, distance(one), "complete")
        every += asked
    return every


@pytest.mark.parametrize(
    "axis",
    [
        {"low": 1, "high": 1},
        {"low": 2, "high": 1},
        {"low": 0, "high": 1, "log": True},
        {"low": 1, "high": 9, "log": True, "step": 1},
        {"low": 1, "high": 2, "step": 0},
        {"low": math.nan, "high": 1},
        {"low": 1},
        {"choices": []},
        {"choices": [1, 1]},
        {"choices": [math.nan]},
        {"choices": [1], "low": 0},
    ],
)
def test_a_space_that_cannot_be_is_refused(axis):
    with pytest.raises(ValidationError) as refused:
        Tune.model_validate({"space": {"train.lr": axis}})
    assert all(error["loc"][:2] == ("space", "train.lr") for error in refused.value.errors())


def test_only_settings_of_train_are_searched():
    with pytest.raises(ValidationError, match="views.size should be a setting below train"):
        Tune.model_validate({"space": {"views.size": {"low": 1, "high": 2}}})


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"train.hugme.bet": {"low": 0, "high": 1}}, r"train\.hugme\.bet: unknown"),
        ({"train.hugme.beta": {"low": 0, "high": 2}}, r"train\.hugme\.beta: .*\(got 2\)"),
        ({"train.batch": {"low": 1.5, "high": 8}}, r"train\.batch: "),
        ({"train.batch": {"low": 1, "high": 8, "step": 0.5}}, r"train\.batch: "),
        ({"train.hugme.graph_width": {"low": 8, "high": 16}}, r"graph_width: .*multiple of 2"),
        ({"train.schedule": {"choices": ["cosine", "cos"]}}, r"train\.schedule: .*'cos'"),
        ({"train.rrla.width": {"low": 8, "high": 16}}, r"train\.rrla\.width: changes nothing"),
    ],
)
def test_a_space_that_train_refuses_is_refused_before_any_trial(space, said, tmp_path):
    with pytest.raises(SettingsError, match=said):
        study(tmp_path, space=space)
    assert not list(tmp_path.iterdir())


def test_every_kind_of_setting_can_be_searched(tmp_path):
    space = {
        "train.lr": {"low": "1e-4", "high": 1e-1, "log": True},  # YAML reads 1e-4 as a word
        "train.batch": {"low": 4, "high": 256, "log": True},
        "train.epochs": {"low": 2, "high": 9},
        "train.hugme.graph_width": {"low": 8.0, "high": 24, "step": 4},
        "train.hugme.beta": {"low": 0, "high": 1},
        "train.hugme.dropout": {"low": 0, "high": 0.5, "step": 0.25},
        "train.hugme.hidden": {"choices": [[32, 16], [16, 8]]},
        "train.hugme.without": {"choices": [[], ["depth"]]},
        "train.schedule": {"choices": ["constant", "cosine"]},
        "train.memory": {"choices": [None, 1, 1.5]},
        "train.standardise": {"choices": [True, False]},
    }
    some = study(tmp_path, space=space, trials=60, sampler="random", pruner="hyperband")
    asked = some.ask(60)
    seen = {key: [one.changes[key] for one in asked] for key in space}
    for one in asked:
        assert one.settings == vary(some.base, one.changes)
    assert all(type(v) is int for key in ("train.batch", "train.epochs") for v in seen[key])
    assert set(seen["train.epochs"]) == {*range(2, 10)}
    assert set(seen["train.hugme.graph_width"]) == {8, 12, 16, 20, 24}
    assert len({*seen["train.hugme.beta"]}) == 60
    assert set(seen["train.hugme.dropout"]) == {0, 0.25, 0.5}
    # By magnitude: half of each below the geometric middle.
    for key, middle in (("train.lr", 10**-2.5), ("train.batch", 32)):
        assert 15 < sum(value < middle for value in seen[key]) < 45
        assert space[key]["high"] >= max(seen[key]) > middle > min(seen[key])
    assert min(seen["train.lr"]) >= 1e-4
    for key in ("train.hugme.hidden", "train.hugme.without", "train.schedule", "train.memory"):
        for choice in space[key]["choices"]:
            assert choice in seen[key]
    assert {*map(type, seen["train.standardise"])} == {bool}
    assert [row["train.hugme.hidden"] for row in some.rows()] == seen["train.hugme.hidden"]


@pytest.mark.parametrize("more", [[], ["[1]", [1]]])
def test_choices_that_python_takes_for_equal_stay_apart(more, tmp_path):
    choices = [0, False, 1, True, "1", *more]
    space = {"train.options.depth": {"choices": choices}}
    asked = study(tmp_path, space=space, trials=60, sampler="random").ask(60)
    seen = {json.dumps(one.changes["train.options.depth"]) for one in asked}
    assert seen == {json.dumps(choice) for choice in choices}


def test_a_searched_head_brings_only_its_own_settings(tmp_path):
    space = {
        "train.hugme.beta": {"low": 0, "high": 1},
        "train.mlp.dropout": {"low": 0.1, "high": 0.5},
        "train.head": {"choices": ["hugme", "mlp"]},
    }
    some = study(tmp_path, space=space, trials=30, startup=4)
    while asked := some.ask(3):
        for one in asked:
            assert one.settings.head == one.changes["train.head"]
            other = {"hugme": "train.mlp.dropout", "mlp": "train.hugme.beta"}[one.settings.head]
            assert set(one.changes) == set(space) - {other}
            some.tell(one.number, 0.5, "complete")
    assert {row["train.head"] for row in some.rows()} == {"hugme", "mlp"}


def test_it_comes_nearer_to_the_best_than_chance(tmp_path):
    changes = {"trials": 48, "startup": 12}
    some = study(tmp_path, **changes)
    values = [distance(one) for one in finish(some)]
    best = some.best()
    assert len(values) == 48 and best.value == min(values) < min(values[:12])
    assert best.value < 0.02 and distance(best) == best.value
    assert sum(values[-12:]) < sum(values[:12]) / 4
    upwards = study(tmp_path, maximise=True, **changes)
    while asked := upwards.ask(4):
        for one in asked:
            upwards.tell(one.number, -distance(one), "complete")
    assert upwards.name != some.name and upwards.best().value > -0.02
    chance = [distance(one) for one in finish(study(tmp_path, sampler="random", **changes))]
    assert sum(chance[-12:]) > sum(values[-12:]) * 3


def test_a_batch_is_no_single_point(tmp_path):
    some = study(tmp_path, startup=4, trials=20)
    for one in some.ask(12):
        some.tell(one.number, distance(one), "complete")
    asked = some.ask(8)
    assert len({one.settings.lr for one in asked}) == 8


def test_no_more_is_asked_than_is_left(tmp_path):
    some = study(tmp_path, trials=5)
    first = some.ask(3)
    assert [one.number for one in first] == [0, 1, 2] and some.left == 2
    some.tell(0, None, "failed", {"reason": "the loss is not finite"})
    some.tell(1, None, "pruned")
    some.tell(2, 1.0, "complete")
    assert len(some.ask(8)) == 2 and some.left == 0 and some.ask(1) == []
    assert study(tmp_path, trials=3).left == 0
    more = study(tmp_path, trials=7, batch=3, seeds=[5])
    assert more.name == some.name and len(more.ask(9)) == 2


def test_the_same_seed_gives_the_same_points_however_often_it_was_opened(tmp_path):
    at_once = [one.changes for one in finish(study(tmp_path / "one"), 2)]
    by_parts = []
    for trials in (2, 6, 12):
        by_parts += [one.changes for one in finish(study(tmp_path / "two", trials=trials), 2)]
    assert by_parts == at_once
    assert len({changes["train.lr"] for changes in at_once}) == 12
    other = [one.changes for one in finish(study(tmp_path / "three", seed=1), 2)]
    assert other[0] != at_once[0]


def test_two_that_share_a_study_share_its_trials(tmp_path):
    one, two = study(tmp_path), study(tmp_path)
    asked = [*one.ask(3), *two.ask(3), *one.ask(9), *two.ask(9)]
    assert [some.number for some in asked] == [*range(12)]
    assert len({some.settings.lr for some in asked}) == 12
    two.tell(3, 0.25, "complete")
    assert one.best().number == 3


def works(pipe, folder, trials, ask, tell):
    """What a process does until it is killed."""
    some = study(folder, trials=trials)
    asked = some.ask(ask)
    for one in asked[:tell]:
        some.report(one.number, 1, 0.5)
        some.tell(one.number, distance(one), "complete")
    pipe.send([(one.number, one.changes) for one in asked])
    pipe.recv()
    os._exit(9)


def process(folder, trials, ask, tell):
    """A process, and the pipe by which it says what it asked and is told to die."""
    fork = multiprocessing.get_context("fork")  # a new Python would load torch again
    ours, theirs = fork.Pipe()
    some = fork.Process(target=works, args=(theirs, folder, trials, ask, tell))
    some.start()
    return some, ours


def kill(some, pipe):
    pipe.send("die")
    some.join()
    assert some.exitcode == 9


def killed(*given) -> list:
    """What a process had asked that was killed then."""
    some, pipe = process(*given)
    asked = pipe.recv()
    kill(some, pipe)
    return asked


def test_what_a_killed_process_had_asked_is_trained_exactly_once(tmp_path):
    before = killed(tmp_path, 6, 3, 1)
    assert len(before) == 3
    some = study(tmp_path, trials=6)
    assert some.left == 5
    first = some.ask(2)
    assert [one.changes for one in first] == [changes for _, changes in before[1:]]
    assert [one.number for one in first] == [3, 4]
    assert study(tmp_path, trials=6).left == 3  # it lives, and keeps what it asked
    for one in first:
        some.tell(one.number, distance(one), "complete")
    last = finish(some)
    assert len(last) == 3 and some.left == 0
    rows = some.rows()
    assert [row["number"] for row in rows] == [0, 3, 4, 5, 6, 7]
    assert {row["state"] for row in rows} == {"complete"}
    points = [(row["train.lr"], row["train.hugme.beta"]) for row in rows]
    assert len(set(points)) == 6
    assert points[:3] == [(c["train.lr"], c["train.hugme.beta"]) for _, c in before]
    failed = [t for t in loaded(some).trials if t.state.name == "FAIL"]
    assert [t.number for t in failed] == [1, 2]
    assert all(t.user_attrs["stopped"] is True for t in failed)


def test_killed_twice_nothing_is_lost_or_doubled(tmp_path):
    for _ in range(3):
        points = killed(tmp_path, 4, 2, 0)
    some = study(tmp_path, trials=4)
    assert [one.changes for one in some.ask(2)] == [changes for _, changes in points]
    assert len(some.ask(9)) == 2 and len(some.rows()) == 4


def test_killed_between_queueing_and_ending_an_orphan_it_is_queued_once(tmp_path, monkeypatch):
    points = killed(tmp_path, 4, 2, 0)

    def dies(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "tell", dies)
        with pytest.raises(KeyboardInterrupt):
            study(tmp_path, trials=4)
    some = study(tmp_path, trials=4)
    asked = some.ask(9)
    assert len(asked) == 4
    assert [one.changes for one in asked[:2]] == [changes for _, changes in points]


def test_living_processes_and_other_hosts_keep_their_trials(tmp_path, monkeypatch):
    lives, pipe = process(tmp_path, 6, 2, 0)
    pipe.recv()
    assert study(tmp_path, trials=6).left == 4
    here = socket.gethostname()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        kill(lives, pipe)
        assert study(tmp_path, trials=6).left == 4
    some = study(tmp_path, trials=6)
    assert some.left == 6 and {row["host"] for row in some.rows()} <= {here}


def test_a_process_number_used_again_is_another_process(tmp_path, monkeypatch):
    some = study(tmp_path)
    some.ask(2)
    assert study(tmp_path).left == 10
    started = psutil.Process(os.getpid()).create_time()
    with monkeypatch.context() as patch:
        patch.setattr(psutil.Process, "create_time", lambda self: started + 60)
        assert study(tmp_path).left == 12


def test_processes_that_ask_at_the_same_time_keep_to_the_number(tmp_path):
    study(tmp_path, trials=7)
    both = [process(tmp_path, 7, 5, 5) for _ in range(2)]
    asked = [pipe.recv() for _, pipe in both]
    for some, pipe in both:
        kill(some, pipe)
    assert sorted(number for one in asked for number, _ in one) == [*range(7)]


def test_a_drop_is_advised_for_the_worst(tmp_path):
    for maximise in (False, True):
        some = study(
            tmp_path,
            base=made.settings(epochs=9),
            pruner="hyperband",
            trials=40,
            maximise=maximise,
        )
        good = -1.0 if maximise else 1.0  # a lower loss, a higher mAP
        dropped = {0: [], 1: []}
        for one in some.ask(40):
            bad = one.number % 4 != 0
            said = False
            for epoch in range(1, 10):
                value = good * (epoch / 100 + bad)
                if said := some.report(one.number, epoch, value):
                    some.tell(one.number, None, "pruned")
                    break
            if not said:
                some.tell(one.number, good * bad, "complete")
            dropped[bad].append(said)
        assert dropped[0].count(False) == 10
        assert dropped[1].count(True) > 15
        assert some.best().value == 0
        rows = some.rows()
        assert {row["state"] for row in rows} == {"complete", "pruned"}
        assert {row["epochs"] for row in rows if row["state"] == "complete"} == {9}
        assert all(row["epochs"] < 9 for row in rows if row["state"] == "pruned")


def test_without_a_pruner_nothing_is_dropped(tmp_path):
    some = study(tmp_path, pruner="none")
    asked = some.ask(4)
    assert not any(some.report(one.number, e, one.number) for one in asked for e in range(1, 5))


@pytest.mark.parametrize("pruner", ["hyperband", "halving", "none"])
def test_nan_is_no_value(pruner, tmp_path):
    some = study(tmp_path, pruner=pruner, startup=1, base=made.settings(epochs=3))
    one, two, three, four = some.ask(4)
    for epoch in (1, 2, 3):
        some.report(one.number, epoch, 0.5)
    some.tell(one.number, 0.5, "complete")
    dropped = [some.report(two.number, epoch, math.nan) for epoch in (1, 2, 3)]
    assert any(dropped) == (pruner != "none")
    some.tell(two.number, math.nan, "pruned")
    some.tell(three.number, math.nan, "complete")
    some.tell(four.number, None, "complete")
    states = [row["state"] for row in some.rows()]
    assert states == ["complete", "pruned", "failed", "failed"]
    assert some.best().number == one.number
    assert len(some.ask(4)) == 4  # the sampler can live with them


def test_another_question_is_another_study_in_the_same_journal(tmp_path):
    first = study(tmp_path)
    first.ask(2)
    same = [
        study(tmp_path, trials=99, batch=2, seeds=[7]),
        study(tmp_path, base=made.settings(lr=0.5)),  # it is searched
        study(tmp_path, base=made.settings(hugme={"beta": 0.9})),
        study(tmp_path, base=made.settings(memory=1.0, together=3, save_every=1)),
        study(tmp_path, base=made.settings(rrla={"width": 3})),
    ]
    assert {some.name for some in same} == {first.name}
    space = {**PLANE, "train.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    others = [
        study(tmp_path, base=made.settings(batch=8)),
        study(tmp_path, base=made.settings(hugme={"lambda_c": 0.1})),
        study(tmp_path, about={"cache": "another"}),
        study(tmp_path, space=space),
        study(tmp_path, sampler="random"),
        study(tmp_path, pruner="halving"),
        study(tmp_path, seed=1),
        study(tmp_path, maximise=True),
    ]
    names = {some.name for some in (first, *others)}
    assert len(names) == 9 and all(name.startswith("hugme-") for name in names)
    assert all(some.left == 12 and some.rows() == [] for some in others)
    assert study(tmp_path).left == 10


def test_settings_of_every_searched_head_decide_which_study_it_is(tmp_path):
    """A trial of any of them is fitted with them, so values told under others do not compare."""

    def name(**own):
        space = {**PLANE, "train.head": {"choices": ["hugme", "mlp"]}}
        return study(tmp_path, base=made.settings(**own), space=space).name

    first = name()
    assert name(mlp={"dropout": 0.4}) != first and name(hugme={"lambda_c": 0.1}) != first
    assert name(rrla={"width": 3}) == first  # of a head that is not searched


def loaded(some: Study) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(some.journal)))
    return optuna.load_study(study_name=some.name, storage=storage)


def test_optuna_itself_can_read_and_show_it(tmp_path):
    space = {**PLANE, "train.hugme.hidden": {"choices": [[8, 4], [4, 2]]}}
    about = {"cache": "abc", "code": {"digest": "def"}, "views": ["body"]}
    some = study(tmp_path, space=space, about=about, maximise=True)
    one, two = some.ask(2)
    some.report(one.number, 1, 0.25)
    some.tell(one.number, 0.5, "complete", {"together": 2, "note": "fine"})
    read = loaded(study(tmp_path, space=space, about=about, maximise=True))
    assert read.direction.name == "MAXIMIZE" and read.best_value == 0.5
    shown = read.user_attrs
    assert shown["cache"] == "abc" and shown["code.digest"] == "def" and shown["views"] == ["body"]
    assert shown["train.batch"] == 32 and shown["train.hugme.lambda_c"] == 0.8
    assert "train.lr" not in shown and not any(name.startswith("train.rrla") for name in shown)
    trial = read.trials[0]
    assert trial.params["train.hugme.hidden"] == json.dumps(one.changes["train.hugme.hidden"])
    assert trial.params["train.lr"] == one.settings.lr
    assert trial.intermediate_values == {1: 0.25}
    assert trial.user_attrs["pid"] == os.getpid() and trial.user_attrs["note"] == "fine"
    assert trial.user_attrs["host"] == socket.gethostname()
    row, running = some.rows()
    assert row["facts"] == {"together": 2, "note": "fine"} and row["seconds"] >= 0
    assert (row["epochs"], row["value"], row["host"]) == (1, 0.5, socket.gethostname())
    assert (running["number"], running["state"]) == (two.number, "running")
    assert running["seconds"] is None and running["epochs"] == 0


def test_optuna_says_nothing_and_is_as_loud_as_before(tmp_path, monkeypatch):
    before = optuna.logging.get_verbosity()
    records = []
    hearing = logging.Handler()
    hearing.emit = records.append
    monkeypatch.setattr(logging.getLogger("optuna"), "handlers", [hearing])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        some = study(tmp_path, startup=2, pruner="halving")
        finish(study(tmp_path, startup=2, pruner="halving"))
        assert some.best().value >= 0
    assert optuna.logging.get_verbosity() == before
    assert not records
    optuna.create_study()
    assert "new study" in records[0].getMessage()


def test_an_unfinished_last_line_is_left_out(tmp_path):
    some = study(tmp_path)
    some.ask(2)
    with some.journal.open("ab") as file:
        file.write(b'{"op_code":4,"work')
    again = study(tmp_path)
    assert len(again.ask(10)) == 10
    assert len(study(tmp_path).rows()) == 12


def test_a_damaged_journal_is_named(tmp_path):
    some = study(tmp_path)
    some.ask(1)
    lines = some.journal.read_bytes().splitlines(keepends=True)
    some.journal.write_bytes(b"".join([*lines[:3], b"damage\n", *lines[3:]]))
    with pytest.raises(CacheError, match=r"journal is damaged .*move it away"):
        study(tmp_path)


def test_without_any_complete_trial_there_is_no_best(tmp_path):
    some = study(tmp_path)
    assert some.best() is None and some.rows() == []
    (one,) = some.ask(1)
    some.tell(one.number, None, "failed")
    assert some.best() is None


def test_equal_values_and_equal_points_are_fine(tmp_path):
    space = {"train.schedule": {"choices": ["cosine", "constant"]}}
    some = study(tmp_path, space=space, startup=2)
    for one in some.ask(12):
        some.tell(one.number, 0.0, "complete")
    assert some.best().number == 0 and len(some.rows()) == 12


def test_the_defaults_suit_every_head_that_descends():
    space = Tune().space
    for head in ("hugme", "rrla", "kosti"):
        base = Train(head=head)
        for key, axis in space.items():
            vary(base, {key: axis.low, "train.head": head})


def test_a_process_that_died_with_the_journal_in_hand_stops_nobody(tmp_path, monkeypatch):
    """A path as users give it, relative: Optuna's own lock would be waited for without end."""
    monkeypatch.chdir(tmp_path)
    somewhere = Path(".")
    study(somewhere)
    code = (
        "import os, pathlib, train.journal;"
        "train.journal.JournalLock(pathlib.Path('a/journal').absolute()).acquire();"
        "os.symlink('a/journal', 'a/journal.lock'); os._exit(9)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 9
    assert [one.number for one in study(somewhere).ask(1)] == [0]
