import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from train.uniemox.logs import Logs
from train.uniemox.settings import Pretrain

BOTH = ["tensorboard", "dvclive"]
GRID = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)


def row(epoch, loss):
    return {"epoch": epoch, "loss": loss, "val_pixels": loss / 2, "pictures": 20}


def written(folder, losses, first=1, log=BOTH, ends=True):
    logs = Logs(folder, Pretrain(log=log, seed=7))
    for epoch, loss in enumerate(losses, first):
        logs.row(row(epoch, loss))
        logs.picture("hidden", GRID if epoch % 2 else Image.fromarray(GRID), epoch)
    if ends:
        logs.close()


def tensorboard(folder):
    """The events of the only run."""
    [run] = (folder / "tensorboard").iterdir()
    events = EventAccumulator(str(run), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    return events


def scalars(folder, name):
    return [(one.step, round(one.value, 6)) for one in tensorboard(folder).Scalars(name)]


def curve(folder, name):
    with open(folder / "dvclive/plots/metrics" / f"{name}.tsv") as file:
        rows = [*csv.DictReader(file, delimiter="\t")]
    return [(int(one["step"]), float(one[name])) for one in rows]


def test_curves_and_pictures_go_where_the_settings_say(tmp_path):
    written(tmp_path, [0.5, 0.25])
    expected = [(1, 0.5), (2, 0.25)]
    assert scalars(tmp_path, "loss") == curve(tmp_path, "loss") == expected
    assert curve(tmp_path, "val_pixels") == scalars(tmp_path, "val_pixels")
    latest = json.loads((tmp_path / "dvclive/metrics.json").read_text())
    assert latest == {"loss": 0.25, "val_pixels": 0.125, "pictures": 20, "step": 2}
    events = tensorboard(tmp_path)
    assert set(events.Tags()["scalars"]) == {"loss", "val_pixels", "pictures"}
    assert [one.step for one in events.Images("hidden")] == [1, 2]
    seen = [tmp_path / f"dvclive/plots/images/hidden/{epoch}.png" for epoch in (1, 2)]
    for path in seen:
        np.testing.assert_array_equal(np.asarray(Image.open(path)), GRID)
    [name] = [path.name for path in (tmp_path / "tensorboard").iterdir()]
    assert name.endswith("_pretrain_7")
    [text] = events.Tensors("settings/text_summary")
    assert b'"seed": 7' in text.tensor_proto.string_val[0]


@pytest.mark.parametrize("log", [[], ["tensorboard"], ["dvclive"]])
def test_only_what_is_asked_for_is_written(tmp_path, log):
    written(tmp_path, [0.5], log=log)
    assert [path.name for path in tmp_path.iterdir()] == log


def test_a_run_that_goes_on_takes_back_what_it_says_again(tmp_path):
    written(tmp_path, [0.5, 0.25, 0.9], ends=False)  # killed, after it had last been saved in 2
    written(tmp_path, [0.125, 0.0625], first=3)
    expected = [(1, 0.5), (2, 0.25), (3, 0.125), (4, 0.0625)]
    assert curve(tmp_path, "loss") == expected
    assert scalars(tmp_path, "loss") == expected
    assert json.loads((tmp_path / "dvclive/metrics.json").read_text())["step"] == 4
    assert len([*(tmp_path / "dvclive/plots/images/hidden").iterdir()]) == 4


def test_a_curve_that_a_kill_cut_off_can_go_on(tmp_path):
    written(tmp_path, [0.5, 0.25], log=["dvclive"])
    folder = tmp_path / "dvclive/plots/metrics"
    with open(folder / "loss.tsv", "a") as file:
        file.write("1")  # of 12
    (folder / "val_pixels.tsv").write_text("")
    written(tmp_path, [0.125], first=3, log=["dvclive"])
    assert curve(tmp_path, "loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert curve(tmp_path, "pictures") == [(1, 20), (2, 20), (3, 20)]


def test_a_run_from_the_start_begins_anew(tmp_path):
    written(tmp_path, [0.5, 0.25])
    [before] = (tmp_path / "tensorboard").iterdir()
    before.rename(before.with_name("2020-01-01_00-00-00_pretrain_7"))
    written(tmp_path, [0.75])
    assert curve(tmp_path, "loss") == [(1, 0.75)]
    assert [path.name for path in (tmp_path / "dvclive/plots/images/hidden").iterdir()] == ["1.png"]
    assert len([*(tmp_path / "tensorboard").iterdir()]) == 2  # there to be compared
    written(tmp_path, [0.5], first=2, log=["tensorboard"])
    runs = sorted((tmp_path / "tensorboard").iterdir())
    assert [len([*run.iterdir()]) for run in runs] == [1, 2]  # the last goes on


LIVE = """
import socket, sys
def refused(*_):
    raise AssertionError("the network")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refused
from train.uniemox.logs import Logs
from train.uniemox.settings import Pretrain
for epoch in (1, 2):
    with Logs(sys.argv[1], Pretrain(log=["dvclive"])) as logs:
        logs.row({"epoch": epoch, "loss": 0.5})
"""


@pytest.mark.parametrize("repository", [False, True])
def test_dvclive_keeps_out_of_git_dvc_and_the_network(tmp_path, repository):
    """In a process of its own, since where it is called from decides what it would do."""
    if repository:
        git = ["git", "-c", "user.name=made", "-c", "user.email=made@example.org"]
        (tmp_path / "file").write_text("made")
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "made"]):
            subprocess.run([*git, *command], cwd=tmp_path, check=True)
    before = sorted(path.name for path in tmp_path.iterdir())
    environment = {
        **os.environ,
        "DVC_STUDIO_TOKEN": "made",
        "PYTHONPATH": os.getcwd(),
        "PYTHONWARNINGS": "error::UserWarning",
    }
    command = [sys.executable, "-c", LIVE, "out"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*before, "out"])
    assert sorted(path.name for path in (tmp_path / "out/dvclive").iterdir()) == [
        *("metrics.json", "plots")
    ]
    assert curve(tmp_path / "out", "loss") == [(1, 0.5), (2, 0.5)]
    if repository:
        state = ["git", "status", "--porcelain"]
        done = subprocess.run(state, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert done.stdout == "?? out/\n"
        assert not [*(tmp_path / ".git").rglob("exps")]


def test_nothing_is_loaded_before_it_is_needed(tmp_path):
    code = (
        "import sys; from train.uniemox.logs import Logs; from train.uniemox.settings import "
        "Pretrain; Logs('out', Pretrain(log=['tensorboard', 'dvclive'])); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"dvclive", "tensorboard", "torch"} & set(done.stdout.split())
