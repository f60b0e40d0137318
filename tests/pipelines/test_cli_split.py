"""`emocache cache split` writes splits that `data.split.file` reads; the cache stays as it is."""

import csv
import json
from pathlib import Path

import pytest

from cache.index import Index
from extract.settings import Split
from extract.splits import Splitter
from tests.cache.test_audit import SPLITS, drawn, plain, write_index, write_scene
from tests.pipelines.conftest import ROOT


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """30 of test is like 0 and 1 of train."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text((ROOT / "pipelines/profiles/demo.yaml").read_text())
    write_index(tmp_path / "features", plain(SPLITS))
    write_scene(tmp_path / "features", drawn(40, {1: 0, 30: 0}), 40)
    return tmp_path / "features"


def test_the_file_is_what_prepare_reads(cache, emocache):
    before = Index.read(cache).digest()
    done = emocache("cache", "split", "new/apart.csv")
    said = " ".join(done.out.split())
    assert done.code == 0 and "1 test to train" in said
    assert "emocache prepare --set data.split.file=new/apart.csv" in said
    with open("new/apart.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["path", "split"] and len(rows) == 41 and ["30.jpg", "train"] in rows
    splitter = Splitter(Split(file=Path("new/apart.csv")), ("train", "val", "test"))
    assert splitter.split("test", "30.jpg", "", "bytes of 30") == "train"
    assert Index.read(cache).digest() == before


def test_json_has_the_numbers(cache, emocache):
    found = json.loads(emocache("cache", "split", "apart.csv", "--json").out)
    assert found["moved"] == {"test to train": 1} and found["clusters"] == 1
    assert found["persons"]["test"] == {"before": 10, "after": 9}


def test_without_features_it_is_refused_and_nothing_written(cache, emocache):
    (cache / "scene.zarr").rename(cache / "elsewhere")
    done = emocache("cache", "split", "apart.csv")
    assert done.code == 1 and "no view 'scene'" in " ".join(done.err.split())
    assert not Path("apart.csv").exists()
