"""The command `emocache`: examples, exit codes, JSON, and refusals in one sentence."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from cache.index import Index
from cache.store import open_view
from pipelines import cli, stages
from pipelines.commands import cache
from pipelines.results import Results
from pipelines.settings import load
from tests.pipelines.conftest import ROOT, Done, environment, run

COMMANDS = [
    [command.name or command.callback.__name__] for command in cli.app.registered_commands
] + [
    ["cache", command.name or command.callback.__name__]
    for command in cache.app.registered_commands
]
PROJECT_COMMANDS = [
    "prepare",
    "plan",
    "extract",
    "train",
    "evaluate",
    "report",
    "predict a.jpg",
    "cache ls",
    "cache verify",
    "cache repair",
    "cache diff other",
    "cache merge other",
    "cache export a.h5",
    "cache import a.h5",
    "demo",
]


def refusal(done: Done) -> str:
    """The one sentence of a refusal: code 1, nothing on stdout, one line on stderr."""
    assert done.code == 1, done.said
    assert done.out == "" and "Traceback" not in done.err
    lines = done.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("refused: "), done.err
    return lines[0].removeprefix("refused: ")


def answer(done: Done) -> dict:
    """The one JSON object of a command that went well; NaN would not be JSON."""
    assert done.code == 0, done.said

    def no(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    found = json.loads(done.out, parse_constant=no)
    assert isinstance(found, dict)
    return found


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project folder with settings for EMOTIC and nothing extracted."""
    shutil.copy(ROOT / "pipelines" / "profiles" / "demo.yaml", tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- help and usage


def test_every_command_of_the_design_so_far_is_here():
    names = {" ".join(command) for command in COMMANDS}
    asked = {re.sub(r" (a\.\w+|other)$", "", command) for command in PROJECT_COMMANDS}
    assert names >= asked | {"scenes"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_shows_an_example(command, emocache):
    done = emocache(*command, "--help")
    assert done.code == 0
    assert f"Example: emocache {' '.join(command)}" in done.out
    if command != ["demo"]:
        assert all(option in done.out for option in ("--set", "--params", "--json"))


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_example_is_a_command_that_parses(command, emocache, tmp_path, monkeypatch):
    """Run where there is no project, an example is refused for that and not for its usage."""
    help_text = " ".join(emocache(*command, "--help").out.split())
    example = re.search(r"Example: emocache ([^╭]*?)(?= ╭| Options| Arguments|$)", help_text)
    assert example is not None
    monkeypatch.chdir(tmp_path)
    assert "no params.yaml here" in refusal(emocache(*example[1].split()))


def test_without_a_command_the_help_is_shown(emocache):
    for arguments in ([], ["cache"]):
        done = emocache(*arguments)
        assert "Usage: " in done.said and done.code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["extrct"],
        ["train", "--lr", "1"],
        ["train", "leftover"],
        ["predict"],
        ["train", "--set", "train.lr"],
        ["predict", "a.jpg", "--box", "1,2,3"],
        ["predict", "a.jpg", "--box", "1,2,3,x"],
        ["predict", "a.jpg", "--box", "9,2,3,8"],
        ["predict", "a.jpg", "--box", "nan,2,3,8"],
        ["predict", "a.jpg", "--top", "0"],
        ["predict", "a.jpg", "--top", "many"],
        ["cache", "sl"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2(arguments, emocache, folder):
    done = emocache(*arguments)
    assert done.code == 2 and done.out == ""
    assert "Usage: " in done.err and "Traceback" not in done.err
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]


def test_the_form_of_a_box_and_of_a_setting_is_said(emocache, folder):
    said = " ".join(emocache("predict", "a.jpg", "--box", "1;2;3;4").err.split())
    assert "X1,Y1,X2,Y2 in pixels" in said
    assert "section.key=value" in emocache("train", "--set", "a").err


# ---- refusals


@pytest.mark.parametrize("command", PROJECT_COMMANDS)
def test_outside_a_project_every_command_is_refused(command, emocache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal(emocache(*command.split()))
    assert "no params.yaml here: work in the project's folder" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", PROJECT_COMMANDS[:-1])
def test_a_wrong_setting_is_refused_before_anything_is_done(command, emocache, folder):
    said = refusal(emocache(*command.split(), "--set", "train.lrr=1", "--json"))
    assert said == "train.lrr: unknown setting; did you mean train.lr?"
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]


def test_several_wrong_settings_are_named_in_one_line(emocache, folder):
    said = refusal(emocache("plan", "--set", "train.lrr=1", "--set", "device=gpu"))
    assert "train.lrr" in said and "device: should be auto" in said


def test_brackets_in_a_refusal_are_shown_as_they_are(emocache, folder):
    said = refusal(emocache("plan", "--set", "data.name=[red]"))
    assert said.startswith("data.name") and "'red'" in said
    said = refusal(emocache("prepare", "--set", "data.name=emotic", "--set", "data.root=a[b]c/[/]"))
    assert "a[b]c/[/]" in said


def test_another_settings_file(emocache, folder):
    (folder / "mine.yaml").write_text("device: gpu\n")
    assert "device: should be auto" in refusal(emocache("plan", "--params", "mine.yaml"))
    assert "no other.yaml here" in refusal(emocache("plan", "--params", "other.yaml"))


def test_a_missing_data_root_is_refused(emocache, folder):
    said = refusal(
        emocache("prepare", "--set", "data.name=emotic", "--set", "data.root=/not/there")
    )
    assert "/not/there" in said and "data.root" in said
    (folder / "empty").mkdir()
    said = refusal(emocache("prepare", "--set", "data.name=emotic", "--set", "data.root=empty"))
    assert "Annotations.mat" in said and "data.root" in said
    assert not (folder / "features").exists()


def test_an_unknown_data_set_is_refused_with_the_nearest(emocache, folder):
    said = refusal(emocache("prepare", "--set", "data.name=emotc"))
    assert "data.name" in said and "did you mean 'emotic'?" in said


@pytest.mark.parametrize("command", ["plan", "extract", "train", "cache ls"])
def test_before_prepare_the_command_to_run_is_named(command, emocache, folder):
    said = refusal(emocache(*command.split()))
    assert said == "there is no cache folder features: run `emocache prepare`, or set cache.root"
    assert [path.name for path in folder.iterdir()] == ["params.yaml"]
    (folder / "features").mkdir()
    said = refusal(emocache(*command.split()))
    assert "no index in features/index: run `emocache prepare`" in said


def test_the_demo_wants_its_own_settings(emocache, folder):
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("name: demo ", "name: emotic "))
    assert "cp pipelines/profiles/demo.yaml params.yaml" in refusal(emocache("demo"))


def test_a_bug_shows_its_traceback(emocache, folder, monkeypatch):
    def broken(settings, progress):
        raise RuntimeError("a bug")

    monkeypatch.setattr(stages, "prepare", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        emocache("prepare")


def test_a_stop_says_that_work_is_kept(emocache, folder, monkeypatch):
    def stopped(settings, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages, "prepare", stopped)
    done = emocache("prepare")
    assert done.code == 130 and "what was committed stays" in done.err
    monkeypatch.setattr(stages, "report", stopped)
    done = emocache("report")  # which keeps nothing
    assert done.code == 130 and done.err.strip() == "stopped"


def test_the_installed_command_refuses_without_a_traceback(tmp_path):
    """The same through a process of its own: entry point, exit code, streams."""
    command = Path(sys.executable).with_name("emocache")
    if not command.exists():
        pytest.skip("emocache is not installed beside this interpreter")
    said = refusal(run(tmp_path, str(command), "plan"))
    assert "no params.yaml here" in said
    assert run(tmp_path, str(command), "--help").code == 0
    assert run(tmp_path, str(command), "plan", "--nothing").code == 2


def test_a_reader_that_closes_early_is_no_bug(tmp_path):
    """emocache ... | head"""
    done = subprocess.run(
        f"{sys.executable} -m pipelines.cli --help | true",
        shell=True, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


# ---- prepare on real pictures


@pytest.fixture
def emotic(folder, pictures) -> Path:
    """The 30 pictures by link, their annotation as a copy to edit; params.yaml points there."""
    root = folder / "emotic"
    root.mkdir()
    for path in pictures.iterdir():
        if path.suffix == ".csv":
            shutil.copy(path, root)
        else:
            (root / path.name).symlink_to(path)
    text = (folder / "params.yaml").read_text()
    text = text.replace("name: demo ", "name: emotic ").replace("root: data/demo ", "root: emotic ")
    text = text.replace("follow_links: false", "follow_links: true")
    (folder / "params.yaml").write_text(text)
    return root


def add_person(root: Path, box: str, split: str = "test") -> str:
    """One more person in the split's first picture; gives the picture's file name."""
    path = root / f"{split}.csv"
    lines = path.read_text().rstrip("\n").split("\n")
    header = next(csv_rows([lines[0]]))
    row = next(csv_rows([lines[1]]))
    row[header.index("BBox")] = box
    lines.append(",".join(f'"{value}"' for value in row))
    path.write_text("\n".join(lines) + "\n")
    return row[header.index("Filename")]


def csv_rows(lines):
    import csv

    return csv.reader(lines)


def test_prepare_counts_as_json(emocache, emotic):
    found = answer(emocache("prepare", "--json"))
    assert found["persons"] == {"train": {"ok": 24}, "val": {"ok": 2}, "test": {"ok": 11}}
    assert found["rows"]["persons"]["new"] == 37 and found["labels"] == 26
    again = answer(emocache("prepare", "--json"))
    assert again["rows"]["persons"] == {"new": 0, "kept": 37, "revived": 0, "removed": 0}


def test_a_person_outside_the_picture_is_a_row_with_its_reason(emocache, emotic):
    name = add_person(emotic, "[9000, 9000, 9100, 9200]")
    done = emocache("prepare")
    assert done.code == 0 and "1 bad_box" in done.out
    index = Index.read(Path("features"))
    (row,) = (index.person_status == "bad_box").nonzero()[0]
    assert "lies outside the picture" in index.persons["reason"][int(row)].as_py()
    picture = index.pictures["path"][int(index.picture_rows[row])].as_py()
    assert picture.endswith(name) and index.splits[row] == "test"


def test_missing_pictures_are_warned_of(emocache, emotic):
    (emotic / "mscoco").unlink()
    done = emocache("prepare", "--json")
    found = answer(done)
    assert any("ALL 30 pictures are missing" in warning for warning in found["warnings"])
    assert "ALL 30 pictures are missing" in emocache("prepare").out


# ---- on one real run


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "extract", "train", "evaluate", "report", "cache ls"])
def test_each_command_answers_in_json(command, emocache, workplace):
    done = emocache(*command.split(), "--json", "--set", "train.epochs=2")
    found = answer(done)
    assert len(done.out.strip().splitlines()) == 1
    if command == "plan":
        assert set(found["views"]) == {"body", "head", "objects", "depth", "scene", "labels"}
        assert all(view["rows"] == 0 for view in found["views"].values())
        assert found["pictures"] == 0
    elif command == "extract":
        assert found["networks"] == [] and not any(found["rows"].values())
    elif command == "train":
        assert found["persons"] == {"train": 24, "val": 2} and found["epochs"] == 2
    elif command == "evaluate":
        assert found["test"]["n_evaluated"] == 11
        assert Results().read_metrics() == found
    elif command == "report":
        assert found["bytes"] == Path(found["report"]).stat().st_size
    else:
        assert found["pictures"] == 30 and found["persons"] == {"ok": 37}
        assert found["views"]["head"]["rows"] == {"ok": 34, "no_face": 3}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("plan", "up to date"),
        ("extract", "no network was loaded"),
        ("train --set train.epochs=2", "fitted on 24 persons"),
        ("train --set train.patience=1", "stopped early at epoch"),
        ("train", "mean over 7 of 26 labels"),  # val is of 2 persons
        ("evaluate", "N evaluated"),
        ("report", "report.html"),
        ("cache ls", "UNTRAINED"),
    ],
)
def test_each_command_answers_in_words(command, says, emocache, workplace):
    done = emocache(*command.split())
    assert done.code == 0 and says in done.out, done.said


@pytest.mark.slow
def test_the_plan_names_what_changed(emocache, workplace):
    found = answer(emocache("plan", "--json", "--set", "views.objects.k=3"))["views"]
    reason = "other key: settings.k: 6 -> 3; replaces 37 rows"
    assert found["objects"] == {"rows": 37, "reason": reason}
    assert all(view["rows"] == 0 for name, view in found.items() if name != "objects")
    assert open_view(Path("features"), "objects").spec.parts["settings"]["k"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("command", ["plan", "extract", "train", "evaluate", "report"])
def test_an_index_of_another_data_set_is_refused(command, emocache, workplace):
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    other = ("--set", "data.name=demo", "--set", "data.root=/data/demo")
    said = refusal(emocache(command, *other))
    assert said.startswith(
        "the index in features holds emotic, the settings say demo (/data/demo): run "
        "`emocache prepare`"
    )
    assert all(path.read_bytes() == held for path, held in before.items())


@pytest.mark.slow
def test_a_missing_data_root_is_said_by_the_plan_and_refused_where_pictures_are_needed(
    emocache, workplace
):
    here = ("--set", "data.root=/not/there")
    done = emocache("plan", *here)
    assert done.code == 0 and "there is no folder /not/there, nothing needs it now" in done.out
    assert emocache("extract", *here).code == 0
    more = (*here, "--set", "views.depth.size=64")
    (warning,) = answer(emocache("plan", "--json", *more))["warnings"]
    assert "`extract` would refuse" in warning
    assert "there is no folder /not/there: set data.root" in refusal(emocache("extract", *more))
    assert answer(emocache("plan", "--json"))["warnings"] == []


@pytest.mark.slow
def test_a_head_on_data_that_it_was_not_fitted_on(emocache, workplace):
    """Same labels, same view keys, another index: both data sets are named, and both notes."""
    shutil.copytree("features", "other")
    index = replace(Index.read(Path("other")), dataset="demo", note="made-up labels")
    index.write(Path("other"))
    here = ("--set", "cache.root=other", "--set", "data.name=demo")
    fitted = answer(emocache("evaluate", "--json"))["provenance"]
    assert fitted["cache_key"] == fitted["fitted_on"]["cache_key"]
    # the report is of the data that was evaluated
    said = refusal(emocache("report", *here))
    assert "is of emotic" in said and "at hand are demo" in said and "emocache evaluate" in said
    found = answer(emocache("evaluate", "--json", *here))
    about = found["provenance"]
    assert about["dataset"] == found["test"]["dataset"] == "demo"
    assert about["cache_key"] != fitted["cache_key"]
    assert about["fitted_on"]["dataset"] == "emotic"
    assert about["fitted_on"]["cache_key"] == fitted["cache_key"]
    assert found["test"]["fitted_on"] == f"emotic {fitted['cache_key'][:12]}"
    assert about["note"] == f"demo: made-up labels; fitted on emotic: {fitted['note']}"
    words = (
        f"fitted on emotic (cache key {fitted['cache_key'][:12]}), evaluated on demo (cache key "
        f"{about['cache_key'][:12]})"
    )
    done = emocache("evaluate", *here)
    assert words in done.out and "made-up labels" in done.out
    assert emocache("report", *here).code == 0
    page = Path("results/report.html").read_text()
    assert words in page and "hugme on demo" in page and "demo: made-up labels" in page


@pytest.mark.slow
def test_a_report_of_another_head_than_was_evaluated_is_refused(emocache, workplace):
    assert "UNTRAINED" in Path("results/report.html").read_text()
    less = ("--set", "train.epochs=1", "--set", "train.hugme.without=[depth]")
    assert emocache("train", *less).code == 0
    assert "run `emocache evaluate`" in refusal(emocache("report"))
    assert "results/head holds hugme" in refusal(emocache("evaluate", "--set", "train.head=mlp"))
    assert emocache("evaluate").code == emocache("report").code == 0
    # this head reads no depth, so its report names no depth network
    assert "Intel/dpt" not in Path("results/report.html").read_text()


@pytest.mark.slow
def test_stage_by_stage_the_command_that_is_missing_is_named(emocache, workplace):
    shutil.rmtree("results")
    assert "emocache train" in refusal(emocache("evaluate"))
    assert "emocache train" in refusal(emocache("predict", "a.jpg"))
    said = refusal(emocache("report"))
    assert "emocache train" in said and "emocache evaluate" in said
    assert emocache("train", "--set", "train.epochs=1").code == 0
    assert "emocache evaluate" in refusal(emocache("report"))
    shutil.rmtree("features/depth.zarr")
    said = refusal(emocache("train"))
    assert "no view 'depth'" in said and "emocache extract" in said


@pytest.mark.slow
def test_a_dropped_person_is_counted_beside_every_result(emocache, workplace, pictures):
    """A bad box in test: no feature is computed for it, and evaluation says that it is missing."""
    root = workplace / "emotic"
    root.mkdir()
    for path in pictures.iterdir():
        (shutil.copy if path.suffix == ".csv" else lambda p, to: (to / p.name).symlink_to(p))(
            path, root
        )
    add_person(root, "[9000, 9000, 9100, 9200]")
    here = ("--set", "data.root=emotic", "--set", "data.follow_links=true")
    here = (*here, "--set", "train.epochs=1", "--json")
    rows = answer(emocache("prepare", *here))["rows"]["persons"]
    assert (rows["new"], rows["kept"]) == (1, 37)
    assert answer(emocache("extract", *here))["networks"] == []
    answer(emocache("train", *here))
    test = answer(emocache("evaluate", *here))["test"]
    assert (test["n_evaluated"], test["n_dropped"], test["dropped"]) == (11, 1, {"bad_box": 1})
    assert "1 (1 bad_box)" in emocache("evaluate", *here[:-1]).out


@pytest.mark.slow
def test_predict_on_the_command_line(emocache, workplace, tmp_path):
    index = Index.read(Path("features"))
    root = load().data.root
    path = root / index.pictures["path"][int(index.picture_rows[0])].as_py()
    box = ",".join(f"{side:g}" for side in index.boxes[0])
    done = emocache("predict", path, "--box", box, "--json", "--out", tmp_path / "o")
    (found,) = answer(done)["pictures"]
    assert len(found["people"]) == 1 and Path(found["overlay"]).exists()
    in_words = emocache("predict", path, "--box", box, "--top", "2")
    best = list(found["people"][0]["emotions"])
    assert in_words.code == 0 and "UNTRAINED" in in_words.out
    assert best[0] in in_words.out and best[2] not in in_words.out
    assert "overlay: results/predictions/" in in_words.out


@pytest.mark.slow
def test_predict_refusals(emocache, workplace, tmp_path):
    (tmp_path / "text[1].jpg").write_text("not a picture\n")
    Image.new("RGB", (64, 48), "white").save(tmp_path / "white.png")
    for name, reason in (
        ("none.jpg", "no such file"),
        ("text[1].jpg", "not a picture in one of"),
        ("white.png", "no person above people.score"),
    ):
        done = emocache("predict", tmp_path / name)
        assert done.code == 1 and "Traceback" not in done.said
        assert f"{tmp_path / name}: {reason}" in done.out
        done = emocache("predict", tmp_path / name, "--json")
        assert done.code == 1
        (found,) = json.loads(done.out)["pictures"]
        assert reason in found["reason"] and found["people"] == []
    said = refusal(emocache("predict", tmp_path / "white.png", "--box", "100,100,200,200"))
    assert "--box 100,100,200,200 lies outside" in said and "64 x 48" in said
    two = (tmp_path / "white.png", tmp_path / "none.jpg")
    assert "just one picture" in refusal(emocache("predict", *two, "--box", "1,1,9,9"))
    other = ("--set", "views.depth.size=64")
    said = refusal(emocache("predict", tmp_path / "white.png", *other))
    assert "view 'depth'" in said and "settings.size" in said


@pytest.mark.slow
def test_one_bad_picture_is_enough_for_exit_1_and_the_others_are_done(
    emocache, workplace, tmp_path
):
    index = Index.read(Path("features"))
    path = load().data.root / index.pictures["path"][0].as_py()
    done = emocache("predict", tmp_path / "none.jpg", path, "--json")
    assert done.code == 1
    found = json.loads(done.out)["pictures"]
    assert [one["status"] for one in found] == ["missing", "ok"]
    assert found[0].keys() == found[1].keys() and Path(found[1]["overlay"]).exists()
