"""A predictor that was exported from a real project: the same answers, and nothing of stage 2."""

import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from cache.errors import KeyMismatch
from extract import images
from pipelines.export import export
from pipelines.exported import ExportedPredictor
from pipelines.predict import predict
from pipelines.settings import load
from tests.pipelines.conftest import ROOT, run

pytestmark = pytest.mark.slow

FRESH = """
import json, sys
from pathlib import Path
from pipelines.exported import ExportedPredictor
predictor = ExportedPredictor.load(sys.argv[1])
found = predictor.predict([Path(name) for name in sys.argv[2:]], out=Path("overlays"))
loaded = sorted(name for name in sys.modules if name.partition(".")[0] == "train")
print(json.dumps({"loaded": loaded, "found": found}))
"""
# Every block on its own, in one process: what they import is loaded once.
BLOCKS = """
for number, text in enumerate({!r}, 1):
    exec(compile(text, f"block {{number}}", "exec"), {{"__name__": "__main__"}})
"""
FEW = 4  # pictures


@pytest.fixture(scope="module")
def settings(project):
    return load(project / "params.yaml", [f"cache.root={project / 'features'}"])


@pytest.fixture(scope="module")
def exported(project, settings, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "export"
    export(settings, project / "results" / "head", folder)
    return folder


@pytest.fixture(scope="module")
def some(pictures, tmp_path_factory) -> list[Path]:
    """Pictures of people, one that cannot be read, and one of nobody."""
    from PIL import Image

    white = tmp_path_factory.mktemp("white") / "white.png"
    Image.new("RGB", (300, 200), "white").save(white)
    people = sorted(pictures.rglob("*.jpg"))[:FEW]
    assert len(people) == FEW
    return [*people, white, white.with_name("none.jpg")]


@pytest.fixture(scope="module")
def fresh(exported, some, tmp_path_factory) -> dict:
    """What a process says that has nothing but the folder."""
    place = tmp_path_factory.mktemp("elsewhere")
    done = run(place, sys.executable, "-c", FRESH, str(exported), *map(str, some), first=[ROOT])
    assert done.code == 0, done.err
    found = json.loads(done.out.splitlines()[-1])
    drawn = [one["overlay"] for one in found["found"]["pictures"]]
    assert [bool(one) for one in drawn] == [True] * FEW + [False] * 2
    assert all((place / one).stat().st_size > 1000 for one in drawn if one)
    return found


def test_no_training_code_is_loaded(fresh):
    assert fresh["loaded"] == []


def test_it_says_what_predict_says(fresh, project, settings, some):
    want, found = predict(settings, project / "results" / "head", some), fresh["found"]
    assert found.pop("differs") == []
    assert {n: v for n, v in found.items() if n != "pictures"} == {
        n: v for n, v in want.items() if n != "pictures"
    }
    people = 0
    for ours, theirs in zip(found["pictures"], want["pictures"], strict=True):
        assert (ours["status"], ours["reason"]) == (theirs["status"], theirs["reason"])
        for one, other in zip(ours["people"], theirs["people"], strict=True):
            people += 1
            assert (one["box"], one["head"]) == (other["box"], other["head"])
            assert one["emotions"] == pytest.approx(other["emotions"], abs=1e-4)
            for thing, same in zip(one["objects"], other["objects"], strict=True):
                assert thing == {**same, "weight": pytest.approx(same["weight"], abs=1e-4)}
    assert people >= FEW


def test_settings_that_are_not_the_heads_are_refused(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "export")
    path = tmp_path / "export" / "settings.yaml"
    path.write_text(path.read_text().replace("grid: 8", "grid: 4"))
    with pytest.raises(KeyMismatch, match=r"view 'depth'.*settings\.grid: 8 -> 4"):
        ExportedPredictor.load(tmp_path / "export")


def test_another_library_is_said_and_another_rule_refused(exported, monkeypatch, caplog):
    """A folder travels to machines whose Pillow is another one."""
    monkeypatch.setitem(images.RULE, "decoder", "Pillow 99")
    predictor = ExportedPredictor.load(exported)
    assert len(predictor.differs) == 5  # of each view of pixels
    assert all("images.decoder" in one and one.endswith("Pillow 99") for one in predictor.differs)
    assert "Pillow 99" in caplog.text
    assert predictor.about(found=False)["differs"] == list(predictor.differs)
    monkeypatch.setitem(images.RULE, "resize", "nearest")
    with pytest.raises(KeyMismatch, match=r"images\.resize"):
        ExportedPredictor.load(exported)


def test_the_blocks_of_the_page_run(exported, workplace, pictures):
    """docs/export.md, from a folder with a project in it."""
    shutil.copytree(exported, workplace / "results" / "export")
    shutil.copy(sorted(pictures.rglob("*.jpg"))[0], workplace / "family.jpg")
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/export.md").read_text(), re.S | re.M
    )
    assert len(blocks) >= 3
    done = run(workplace, sys.executable, "-c", BLOCKS.format(blocks), first=[ROOT])
    assert done.code == 0, done.err


def test_the_commands_write_a_folder_and_predict_with_it(workplace, emocache, some):
    said = emocache("export")
    assert said.code == 0, said.said
    assert "UNTRAINED" in said.out and "largest difference head.pt2" in said.out
    found = emocache("predict", some[0], "--head", "results/export", "--json")
    assert found.code == 0, found.said
    assert json.loads(found.out)["pictures"][0]["people"]
    refused = emocache("export", "features")
    assert refused.code == 1 and "name a new folder" in refused.said
