"""`emocache cache audit` on made caches, as its users type it."""

import json

import pytest

from tests.cache.test_audit import BOX, SPLITS, drawn, moved, plain, write_index, write_scene


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A folder to work in whose cache leaks: a shared picture, a copy, a repeat."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("cache: {root: features}\n")
    people = [*plain(SPLITS), (7, "val", BOX), (7, "val", moved(BOX, 1)), (8, "train", BOX)]
    write_index(tmp_path / "features", people, {35: "[odd] name.jpg"})
    write_scene(tmp_path / "features", drawn(40, {35: 3}), 40)
    return tmp_path / "features"


def words(done):
    return " ".join(done.out.replace("│", " ").replace("┃", " ").split())


def test_a_table_and_the_first_examples(cache, emocache):
    done = emocache("cache", "audit")
    assert done.code == 0, done.said
    said = words(done)
    assert "train and val 1 1 0 0 1 and 2" in said
    assert "train and test 0 0 0 1 1 and 1" in said
    assert "val and test 0 0 0 0 0 and 0" in said
    assert "train and val, equal pictures: 7.jpg, picture 7 " in said
    assert "train and val, equal boxes: 7.jpg, person 7 and 40" in said
    assert "near pictures (1.000): 3.jpg and [odd] name.jpg, picture 3 and 35" in said
    assert "within train: persons repeated 1, near boxes 0" in said
    assert "within train, equal boxes: 8.jpg, person 8 and 42" in said
    assert "within val: persons repeated 0, near boxes 1" in said
    assert "within test" not in said and "not sought" not in said


def test_json_has_everything(cache, emocache):
    found = json.loads(emocache("cache", "audit", "--json").out)
    (one,) = (one for one in found["overlaps"] if one["splits"] == ["train", "test"])
    assert one["near_pictures"] == 1 and one["persons"] == [1, 1]
    assert one["examples"]["near_pictures"][0]["rows"] == [3, 35]
    assert found["notes"] == []


def test_near_is_the_users(cache, emocache):
    found = json.loads(emocache("cache", "audit", "--near", "1", "--json").out)
    assert found["near"] == 1 and {one["near_pictures"] for one in found["overlaps"]} == {0}
    assert emocache("cache", "audit", "--near", "1.1").code == 2
    done = emocache("cache", "audit", "--near", "0")
    assert done.code == 1 and "above 0" in done.err


def test_without_features_the_rest_is_told(cache, emocache):
    (cache / "scene.zarr").rename(cache / "elsewhere")
    done = emocache("cache", "audit")
    assert done.code == 0 and "train and val 1 1 0 not sought 1 and 2" in words(done)
    assert "no view 'scene'" in words(done)


def test_nothing_to_compare_and_no_cache(cache, emocache):
    write_index(cache, plain({"test": range(3)}))
    done = emocache("cache", "audit")
    assert done.code == 0 and "nothing to compare" in done.out
    done = emocache("cache", "audit", "--set", "cache.root=nowhere")
    assert done.code == 1 and "no cache folder nowhere" in " ".join(done.err.split())
