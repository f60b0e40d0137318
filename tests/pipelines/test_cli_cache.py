"""`emocache cache ...` on a small real cache, as its users type it."""

import json
import shutil
import sys

import pytest

from tests.pipelines.conftest import ROOT
from tests.pipelines.conftest import run as process


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project folder with the demo's scenes, extracted."""
    folder = tmp_path_factory.mktemp("project")
    text = (ROOT / "pipelines" / "profiles" / "demo.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("pictures: 160", "pictures: 12"))
    for command in ("scenes data/demo", "prepare", "extract"):
        done = process(folder, sys.executable, "-m", "pipelines.cli", *command.split())
        assert done.code == 0, done.said
    return folder


@pytest.fixture
def project(folder, tmp_path, monkeypatch):
    """A copy of it to work in."""
    shutil.copytree(folder, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "project"


def words(done):
    return " ".join(done.out.split())


def test_ls_says_rows_key_settings_and_weights(project, emocache):
    said = words(emocache("cache", "ls"))
    assert "made-up labels" in said and "body:" in said and "size 128, dtype float16" in said
    assert "resnet50: " in said and "SHA-256" in said and "UNTRAINED, random weights" in said
    found = json.loads(emocache("cache", "ls", "--json").out)
    assert found["views"]["depth"]["trained"] is False and found["views"]["body"]["trained"] is True


def test_verify_and_repair(project, emocache):
    done = emocache("cache", "verify")
    assert done.code == 0 and "whole: " in done.out
    shard = project / "features/scene.zarr/features/c/0/0"
    before = shard.read_bytes()
    shard.write_bytes(before[:-30])
    done = emocache("cache", "verify")
    assert done.code == 1 and "scene.zarr/features/c/0/0 has" in words(done)
    assert "emocache cache repair" in words(done)
    assert emocache("cache", "verify", "--view", "body").code == 0
    found = json.loads(emocache("cache", "verify", "--json").out)
    assert not found["whole"] and len(found["damages"][0]["rows"]) == 12
    done = emocache("cache", "repair")
    assert done.code == 0 and "scene 12" in words(done) and "whole again" in done.out
    assert shard.read_bytes() == before
    assert "nothing to repair" in emocache("cache", "repair").out


def test_repair_with_other_settings_is_refused(project, emocache):
    (project / "features/scene.zarr/features/c/0/0").unlink()
    done = emocache("cache", "repair", "--set", "views.scene.size=128")
    assert done.code == 1 and "settings.size: 224 -> 128" in done.err


def test_diff_names_the_setting(project, emocache):
    other = project / "other"
    shutil.copytree(project / "features", other)
    assert words(emocache("cache", "diff", "other")).count("same key") == 6
    done = emocache("extract", "--set", "cache.root=other", "--set", "views.depth.grid=4")
    assert done.code == 0, done.said
    said = words(emocache("cache", "diff", "features", "other"))
    assert "settings.grid: 8 -> 4" in said and said.count("same key") == 5


def test_export_import_and_merge(project, emocache):
    done = emocache("cache", "export", "all.h5")
    assert done.code == 0 and "MB; rows: body 17" in words(done)
    assert "--overwrite" in emocache("cache", "export", "all.h5").err
    done = emocache("cache", "import", "all.h5", "--set", "cache.root=back")
    assert done.code == 0 and "body: 17 rows taken" in words(done)
    done = emocache("cache", "merge", "back")
    assert done.code == 0 and "body: 0 rows taken, 17 were there" in words(done)
    assert emocache("cache", "verify", "--set", "cache.root=back").code == 0
    assert emocache("cache", "merge", "nowhere").code == 1


def test_extract_takes_rows_from_another_cache(project, emocache):
    (project / "features").rename(project / "theirs")
    emocache("prepare")
    done = emocache("extract", "--set", "cache.take_from=[theirs]")
    assert done.code == 0 and "taken from cache.take_from" in words(done)
    assert "no network was loaded" in done.out


def test_a_picture_that_cannot_be_read_is_named_wherever_it_is_missed(project, emocache):
    scenes = json.loads((project / "data/demo/planted.json").read_text())["scenes"]
    path = next(scene["path"] for scene in scenes if scene["split"] == "train")
    picture = project / "data/demo" / path
    picture.write_bytes(picture.read_bytes()[:6000])
    assert emocache("prepare").code == 0
    done = emocache("extract")
    assert done.code == 0 and "unreadable" in done.out, done.said
    assert f"1 picture could not be used (it is {path}: the picture is damaged" in done.out
    found = json.loads(emocache("plan", "--no-probe", "--json").out)["failed"]
    assert [(one["picture"], one["status"]) for one in found] == [(path, "unreadable")]
    for command in ("plan --no-probe", "train --set train.head=linear"):
        said = emocache(*command.split()).out
        assert "`emocache cache ls` names" in said, command
    assert path in emocache("cache", "ls").out
    assert "could not be used" not in emocache("extract").out  # said once, when it happens
