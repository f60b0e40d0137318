"""`emocache prepare` and its `--check` on a table of one's own: what is said and written."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from extract.estimate import Estimate
from tests.pipelines.conftest import ROOT
from tests.pipelines.test_cli import answer, refusal

HEADER = "path,x1,y1,x2,y2,labels"
SOUND = ("a.png,1,1,9,9,joy", "a.png,2,2,9,9,fear", "b.png,1,1,9,9,joy; fear")
FAULTY = (
    "a.png,1,1,9,9,joy",
    "../a.png,1,1,9,9,joy",
    "a.png,one,1,9,9,[red]joy[/]",
    "a.png,1,1,9,9,joy,more",
    ",1,1,9,9,joy",
)
SET = ("--set", "data.name=persons", "--set", "data.root=own")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A project with two pictures of its own."""
    shutil.copy(ROOT / "pipelines" / "profiles" / "demo.yaml", tmp_path / "params.yaml")
    (tmp_path / "own").mkdir()
    for colour, name in enumerate(("a.png", "b.png")):
        Image.new("RGB", (64, 48), (colour, 9, 7)).save(tmp_path / "own" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(folder: Path, *lines: str) -> None:
    (folder / "own" / "persons.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything there is, with size and time of change."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
    }


def test_check_prints_every_fault_and_writes_nothing(emocache, folder):
    write(folder, *FAULTY)
    before = files(folder)
    done = emocache("prepare", "--check", *SET)
    assert done.code == 1 and "Traceback" not in done.said
    lines = done.out.strip().splitlines()
    assert [line.partition(": ")[0] for line in lines[:-1]] == [
        f"persons.csv, line {line}" for line in (3, 4, 5, 6)
    ]
    assert lines[-1] == "4 faults; nothing was written; mend the annotation"
    assert files(folder) == before
    assert not (folder / "features").exists() and not (folder / "results").exists()


def test_check_of_one_fault_says_one(emocache, folder):
    write(folder, *SOUND, "/a.png,1,1,9,9,joy")
    done = emocache("prepare", "--check", *SET)
    assert done.code == 1
    assert "1 fault; nothing was written" in done.out


def test_check_counts_the_faults_it_does_not_print(emocache, folder):
    write(folder, *SOUND, *["/a.png,1,1,9,9,joy"] * 1002)
    done = emocache("prepare", "--check", *SET)
    assert done.out.count("is not below data.root") == 1000
    assert "and 2 more" in done.out and "1,002 faults" in done.out


def test_check_of_a_sound_table_says_so_and_writes_nothing(emocache, folder):
    write(folder, *SOUND)
    before = files(folder)
    done = emocache("prepare", "--check", *SET)
    assert done.code == 0, done.said
    assert done.out.strip().endswith("no faults in the annotation; nothing was written")
    assert "2 labels" in done.out and "contact" not in done.out
    assert files(folder) == before


def test_check_as_json(emocache, folder):
    write(folder, *FAULTY)
    done = emocache("prepare", "--check", "--json", *SET)
    assert done.code == 1
    found = json.loads(done.out)
    assert found["fault_count"] == len(found["faults"]) == 4
    assert found["faults"][0].startswith("persons.csv, line 3: ")
    write(folder, *SOUND)
    found = answer(emocache("prepare", "--check", "--json", *SET))
    assert (found["faults"], found["fault_count"]) == ([], 0)
    assert sum(sum(split.values()) for split in found["persons"].values()) == 3
    assert not (folder / "features").exists()


def test_check_finds_what_prepare_finds(emocache, folder):
    write(folder, *SOUND, "gone.png,1,1,9,9,joy", "b.png,9,9,1,1,joy")
    looked = answer(emocache("prepare", "--check", "--json", *SET))
    assert looked["warnings"] and looked["oddities"]
    done = answer(emocache("prepare", "--json", *SET))
    assert {**looked, "contact_sheet": done["contact_sheet"]} == {
        **done, "rows": {}, "faults": [], "fault_count": 0,
    }  # fmt: skip
    (lost,) = done["dropped"]
    assert (lost["picture"], lost["status"]) == ("b.png", "bad_box")
    said = emocache("prepare", "--check", *SET).out
    told = rf"bad_box: b\.png \({lost['split']}\): the box \(9, 9, 1, 1\) is empty or inverted"
    assert re.search(told, said) and re.search(told, emocache("cache", "ls").out)
    assert Path(done["contact_sheet"]).is_file() and (folder / "features" / "index").is_dir()


def test_check_leaves_a_cache_as_it_is(emocache, folder):
    write(folder, *SOUND)
    answer(emocache("prepare", "--json", *SET))
    before = files(folder)
    for lines in (SOUND[:1], FAULTY):
        write(folder, *lines)
        emocache("prepare", "--check", *SET)
    after = files(folder)
    assert {n: at for n, at in after.items() if not n.startswith("own")} == {
        n: at for n, at in before.items() if not n.startswith("own")
    }


@pytest.mark.parametrize("wrong", ["data.root=none", "data.root=own/a.png", "data.file=none.csv"])
def test_check_of_what_is_absent_is_one_fault(emocache, folder, wrong):
    write(folder, *SOUND)
    done = emocache("prepare", "--check", *SET, "--set", wrong)
    assert done.code == 1 and "1 fault; nothing was written" in done.out
    assert "set data.root" in done.out or "see data.file" in done.out


def test_check_of_wrong_settings_is_refused(emocache, folder):
    said = refusal(emocache("prepare", "--check", "--set", "data.name=person"))
    assert "did you mean 'persons'" in said


def test_prepare_on_a_faulty_table_is_one_sentence_that_names_check(emocache, folder):
    write(folder, *FAULTY)
    before = files(folder)
    said = refusal(emocache("prepare", *SET))
    assert said.startswith("persons.csv, line 3: ") and "persons.csv, line 4: " in said
    assert said.endswith("and 1 more: `emocache prepare --check` lists them")
    assert files(folder) == before


def test_labels_are_printed_with_their_persons_and_what_may_be_misspelt(emocache, folder):
    lines = [f"a.png,{n},1,{n + 9},9,joy;[b]x[/],train" for n in range(6)]
    write(folder, *lines, "b.png,1,1,9,9,jou,val")
    table = folder / "own" / "persons.csv"
    table.write_text(table.read_text().replace(HEADER, HEADER + ",split"))
    for arguments in (("--check",), ()):
        said = emocache("prepare", *arguments, *SET).out
        rows = [re.findall(r"[^\s│]+", line) for line in said.splitlines() if "│" in line]
        for row in (["[b]x[/]", "6", "0"], ["jou", "0", "1"], ["joy", "6", "0"]):
            assert row in rows
        assert "the label 'jou' (1 person) is spelt nearly as 'joy' (6): mend" in said
        found = answer(emocache("prepare", *arguments, "--json", *SET))
        assert found["persons_per_label"]["joy"] == {"train": 6, "val": 0}
        assert any("'jou'" in warning for warning in found["warnings"])


def test_of_very_many_labels_the_first_are_printed(emocache, folder):
    write(folder, *(f"a.png,{n},1,{n + 9},9,label {n}" for n in range(1, 51)),
          *(f"b.png,{n},1,{n + 9},9,label {n + 50}" for n in range(1, 21)))  # fmt: skip
    said = emocache("prepare", "--check", *SET).out
    assert "70 labels" in said and "and 10 more labels; --json has them all" in said
    assert sum("│ label " in line for line in said.splitlines()) == 60


def test_faults_are_printed_as_they_are(emocache, folder):
    """Brackets are marks of the console; what a stranger wrote is text."""
    write(folder, "a.png,[bold]x[/],1,9,9,joy")
    assert "'[bold]x[/]'" in emocache("prepare", "--check", *SET).out
    assert "'[bold]x[/]'" in refusal(emocache("prepare", *SET))


def test_a_table_that_was_mended_is_prepared(emocache, folder):
    write(folder, *FAULTY)
    refusal(emocache("prepare", *SET))
    write(folder, *SOUND)
    done = emocache("prepare", *SET)
    assert done.code == 0, done.said
    assert "splits drawn" in done.out and "rows of persons: 3 new" in done.out


def test_plan_says_before_it_measures_that_it_does(emocache, folder, monkeypatch, caplog):
    def estimate(*_):
        logging.getLogger("extract").info("computing")
        return Estimate(1.0, {"decode": 1.0}, 10, 1, 2, "cpu")

    def said(*more):
        caplog.clear()
        assert emocache("plan", *SET, *more).code == 0
        return [one.getMessage() for one in caplog.records]

    caplog.set_level("INFO", "extract")
    monkeypatch.setattr("extract.estimate.estimate", estimate)
    write(folder, *SOUND)
    answer(emocache("prepare", "--json", *SET))
    assert said() == ["measuring on 2 pictures (--no-probe leaves it out) ...", "computing"]
    assert said("--no-probe") == []
    shutil.rmtree(folder / "own")  # nothing can be measured, and the plan says so
    assert said() == []
