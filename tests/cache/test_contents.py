"""What a cache says of itself: rows by status, reasons, sizes, weights, pictures that failed."""

import shutil
from dataclasses import replace

import pytest

from cache.contents import contents, quarantined, weights_in_words, weights_summary
from cache.errors import CacheError
from cache.index import Index
from cache.store import open_view
from tests.cache.test_audit import SPLITS, drawn, plain, write_index, write_scene

TRAINED = {
    "network": "resnet50",
    "name": "ResNet-50",
    "source": "packages",
    "sha256": "ac0749e0f1a2" + 52 * "0",
    "licence": "MIT",
    "trained": True,
}
RANDOM = {**TRAINED, "network": "dpt", "sha256": "untrained-seed0", "trained": False}


@pytest.fixture
def cache(tmp_path):
    """40 pictures of a person each; two of them could not be read."""
    write_index(tmp_path, plain(SPLITS))
    write_scene(tmp_path, {**drawn(40), 3: "unreadable", 35: "missing"}, 40)
    return tmp_path


def with_status(root, statuses: dict[int, str]) -> Index:
    """The index, with other words for some pictures."""
    index = Index.read(root)
    rows = index.pictures.to_pylist()
    for row, status in statuses.items():
        rows[row] |= {"status": status, "reason": f"why {status}"}
    return replace(index, pictures=type(index.pictures).from_pylist(rows, index.pictures.schema))


def test_views_and_index_in_plain_values(cache):
    found = contents(cache)
    assert (found["dataset"], found["persons"], found["pictures"]) == ("made", {"ok": 40}, 40)
    scene = found["views"]["scene"]
    assert scene["rows"] == {"ok": 38, "unreadable": 1, "missing": 1}
    assert scene["reasons"] == {"missing": 1, "unreadable": 1}
    assert scene["shards"] == 5 and scene["key"] == open_view(cache, "scene").key
    files = [file for file in (cache / "scene.zarr").rglob("*") if file.is_file()]
    assert scene["files"] == len(files)
    assert scene["bytes"] == sum(file.stat().st_size for file in files)
    assert [one["picture"] for one in found["quarantined"]] == ["3.jpg", "35.jpg"]


def test_a_picture_that_failed_is_named_once_with_its_first_reason(cache):
    index = with_status(cache, {3: "unreadable", 7: "missing", 35: "removed"})
    found = quarantined([open_view(cache, "scene")], index)
    assert found == [
        {"picture": "3.jpg", "by": "prepare", "status": "unreadable", "reason": "why unreadable"},
        {"picture": "7.jpg", "by": "prepare", "status": "missing", "reason": "why missing"},
    ]  # and the one that is no longer part of the data set is not missed


def test_views_without_an_index_and_no_cache_at_all(cache, tmp_path):
    shutil.rmtree(cache / "index")
    found = contents(cache)
    assert found["dataset"] == "no index here" and found["note"] and "scene" in found["views"]
    with pytest.raises(CacheError, match="no cache folder"):
        contents(tmp_path / "nowhere")


def test_weights_in_words():
    assert weights_in_words(TRAINED) == (
        "resnet50: ResNet-50 from packages, SHA-256 ac0749e0f1a2, MIT"
    )
    assert weights_in_words(RANDOM) == "dpt: UNTRAINED, random weights (untrained-seed0)"
    found = weights_summary([TRAINED, RANDOM, TRAINED])
    assert found["untrained"] == ["dpt"] and len(found["weights"]) == 2
