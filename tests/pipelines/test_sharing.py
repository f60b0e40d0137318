"""A team shares a cache through DVC: one clone extracts and pushes, another pulls and adds."""

import csv
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from cache.store import open_view
from tests.pipelines.conftest import dvc, git, run

pytestmark = pytest.mark.slow

PERSON_VIEWS, PICTURE_VIEWS = ("body", "head", "objects"), ("depth", "scene")
VIEWS = (*PERSON_VIEWS, *PICTURE_VIEWS, "labels")
STAGES = ("prepare", "extract")  # a bare `dvc pull` also wants what nobody has run or pushed
NEW = 3  # pictures that come later


def files(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every file below a folder, by path; without DVC's list of folders."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", ".gitignore")
    }


def changed(before: dict, after: dict) -> set[str]:
    """Paths whose bytes are new."""
    return {path for path, (_, data) in after.items() if before.get(path, (0, b""))[1] != data}


@pytest.fixture(scope="module")
def team(project, pictures, tmp_path_factory) -> tuple[Path, Path, Path]:
    """The remote; the clone that has extracted and pushed; a clone of it that has nothing yet.

    Both read the pictures from one folder of their own, to which some can be added.
    """
    place = tmp_path_factory.mktemp("team")
    data, remote, mine, theirs = (place / name for name in ("data", "remote", "mine", "theirs"))
    shutil.copytree(pictures, data)
    for path in (data, *data.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)
    whole = hold_back(data)
    shutil.copytree(project, mine, symlinks=True)
    for name in ("features", "results", "dvc.lock"):
        path = mine / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    # Small shards, so that some stay as they are; weights are found where the first run left them.
    params = mine / "params.yaml"
    text = re.sub(r"\bshard_rows: \d+", "shard_rows: 8", params.read_text())
    params.write_text(text.replace(str(pictures), str(data)))
    dvc(mine, "remote", "add", "-d", "team", str(remote))
    # The first run has computed these rows; what matters here is what DVC does with them.
    for command in ("prepare", "extract"):
        taken = ("--set", f"cache.take_from=[{project / 'features'}]")
        done = run(mine, sys.executable, "-m", "pipelines.cli", command, *taken)
        assert done.code == 0, done.said
    dvc(mine, "repro", "extract")
    git(mine, "add", "-A")
    git(mine, "commit", "-qm", "features")
    dvc(mine, "push")
    git(place, "clone", "-q", str(mine), str(theirs))  # with its own, empty DVC cache
    (place / "whole.txt").write_text(whole)
    return remote, mine, theirs


def hold_back(data: Path) -> str:
    """Take the last pictures with persons out of train.csv; gives the whole file."""
    path = data / "train.csv"
    whole = path.read_text()
    head, *rows = list(csv.reader(whole.splitlines()))
    name = head.index("Filename")
    late = list(dict.fromkeys(row[name] for row in rows))[-NEW:]
    kept = [line for line in whole.splitlines() if not any(one in line for one in late)]
    path.write_text("\n".join(kept) + "\n")
    return whole


def test_one_view_is_pulled_alone(team):
    _, mine, theirs = team
    assert not (theirs / "features").exists() or not list((theirs / "features").glob("*.zarr"))
    dvc(theirs, "pull", "features/body.zarr")
    assert [path.name for path in (theirs / "features").glob("*.zarr")] == ["body.zarr"]
    ours, pulled = (open_view(clone / "features", "body") for clone in (mine, theirs))
    assert pulled.done.sum() > 20 and pulled.key == ours.key
    np.testing.assert_array_equal(pulled.read(), ours.read())


def test_after_pulling_all_nothing_is_extracted_again(team):
    _, mine, theirs = team
    dvc(theirs, "pull", *STAGES)
    before = files(theirs / "features")
    assert not changed(files(mine / "features"), before) and len(before) > 50
    done = dvc(theirs, "repro", "extract")
    assert "Stage 'extract' didn't change, skipping" in done.said and "Running" not in done.said
    assert files(theirs / "features") == before
    # Asked directly, extraction finds nothing to do either.
    done = run(theirs, "emocache", "extract", "--json")
    assert done.code == 0, done.said
    after = files(theirs / "features")
    assert not changed(before, after) and before.keys() == after.keys()
    shards = [path for path in before if "/c/" in path]
    assert shards and all(before[path] == after[path] for path in shards)


def test_new_pictures_are_extracted_alone_and_only_changed_files_pushed(team):
    remote, mine, theirs = team
    before, stored = files(theirs / "features"), files(remote)
    rows = {name: len(open_view(theirs / "features", name)) for name in VIEWS}
    data = theirs.parent / "data"
    (data / "train.csv").write_text((theirs.parent / "whole.txt").read_text())
    dvc(theirs, "repro", "extract")
    after = files(theirs / "features")
    views = {name: open_view(theirs / "features", name) for name in VIEWS}
    assert len(views["scene"]) == rows["scene"] + NEW and len(views["body"]) > rows["body"]

    # Of each view: the shards that hold a new row, their records, and the grown arrays' shapes.
    expected = {"manifest.json", "index/index.json", "index/persons.parquet"}
    expected |= {"index/pictures.parquet"}
    for name in (*PERSON_VIEWS, *PICTURE_VIEWS):
        view = views[name]
        grown = range(rows[name] // view.layout.shard_rows, max(view.commits) + 1)
        assert 0 < len(grown) < len(view.commits)
        for shard in grown:
            expected |= {f"{name}.zarr/{file}" for file in view.commits[shard].files}
            expected.add(f"{name}.zarr/commits/{shard:06d}.json")
        expected |= {f"{name}.zarr/{array}/zarr.json" for array in view.spec.all_arrays}
    assert changed(before, after) <= expected
    # `status` and other small arrays may come out with the same bytes; features never do.
    assert {path for path in expected if "/features/" in path} <= changed(before, after)
    touched = {path for path, mark in before.items() if after[path] != mark} - expected
    assert touched <= {"index/labels.json"}  # the index is written whole

    dvc(theirs, "push")
    pushed = files(remote).keys() - stored.keys()
    contents = {after[path][1] for path in changed(before, after)} - {
        data for _, data in before.values()
    }
    lists = [path for path in pushed if path.endswith(".dir")]
    assert len(lists) == 6  # the index and the five views that grew, each a list of its files
    assert {files(remote)[path][1] for path in pushed.difference(lists)} == contents

    git(theirs, "commit", "-qam", "three more pictures")
    git(mine, "pull", "-q", str(theirs), "HEAD")
    dvc(mine, "pull", *STAGES)
    assert not changed(after, files(mine / "features"))
