"""pipelines.tracking: the views of a cache in the files of DVC."""

import os
import shutil
import sys

import pytest
import yaml

from cache.errors import DataError
from pipelines.tracking import FILES, track
from tests.extract.datasets.made import made
from tests.extract.datasets.made_recordings import RECORDINGS
from tests.pipelines.conftest import ROOT, copy_of_checkout, dvc, run

VIEWS = ["body", "head", "objects", "depth", "scene", "labels"]


@pytest.fixture
def files(tmp_path):
    for file in FILES:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, tmp_path / file)
    return [tmp_path / file for file in FILES]


def named(file, stage: str, what: str) -> list[str]:
    """The views among the outputs or dependencies of a stage."""
    listed = yaml.safe_load(file.read_text())["stages"][stage][what]
    paths = [next(iter(one)) if isinstance(one, dict) else one for one in listed]
    return [path.split("/")[1][:-5] for path in paths if path.endswith(".zarr")]


def test_views_are_named_in_place_of_others_and_nothing_else_changes(files):
    root, studies = files
    before = [file.read_text() for file in files]
    assert track(["eeg", "gsr"], files) == files
    assert named(root, "extract", "outs") == named(root, "train", "deps") == ["eeg", "gsr"]
    assert named(studies, "sweep", "deps") == ["eeg", "gsr"]
    kept = yaml.safe_load(root.read_text())["stages"]["extract"]["outs"]
    assert {"${cache.root}/gsr.zarr": {"persist": True}} in kept
    assert track(["eeg", "gsr"], files) == []  # again
    assert track(VIEWS, files) == files
    assert [file.read_text() for file in files] == before  # comments too


def test_a_file_that_names_no_view_is_refused(files):
    files[0].write_text("stages: {}\n")
    with pytest.raises(DataError, match="names no view"):
        track(["eeg"], files)
    files[0].unlink()
    with pytest.raises(DataError, match="work in the project's folder"):
        track(["eeg"], files)


def test_dvc_takes_recordings_from_prepare_to_report(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    copy_of_checkout(folder)
    root = made(RECORDINGS["ldl"][0], tmp_path / "data")
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["data"] |= {"name": "ldl", "root": str(root)}
    params["train"] |= {"head": "mlp", "epochs": 2}
    params["evaluate"] |= {"bootstrap": 100}
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    emocache = shutil.which("emocache", path=os.path.dirname(sys.executable)) or "emocache"
    for command in (["prepare"], ["cache", "track"]):
        done = run(folder, emocache, *command)
        assert done.code == 0, done.said
    assert "views: features" in done.out
    first = dvc(folder, "repro", "report")
    assert "Running stage 'extract'" in first.said and (folder / "results/report.html").exists()
    assert "Running stage" not in dvc(folder, "repro", "report").said
