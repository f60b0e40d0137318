"""Verification finds every kind of damage and says which rows it costs; nothing sound is blamed."""

import shutil

import numpy as np
import pytest

from cache.check import verify
from cache.commits import Commit
from cache.errors import CacheError
from cache.files import sha256_file
from cache.index import Index
from cache.keys import of_sealed_text, sealed_text
from cache.lock import only_writer
from cache.manifest import write_manifest
from cache.settings import Cache
from cache.share import merge
from cache.store import open_view
from tests.extract.test_run import Place


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("sound"), pictures=30)
    place.extract()
    return place


@pytest.fixture
def root(sound, tmp_path):
    shutil.copytree(sound.cache, tmp_path / "cache")
    return tmp_path / "cache"


def one(root):
    """The only damage there is."""
    found = verify(root)
    assert len(found.damages) == 1, found.damages
    return found.damages[0]


def test_a_sound_cache_is_whole(root):
    found = verify(root)
    assert found.whole and found.damages == []
    assert found.rows == {"area": 30, "colour": 30, "labels": 2, "whole": 20}
    assert set(found.absent.values()) == {0}
    shards = sum(f.stat().st_size for f in root.rglob("c/**/*") if f.is_file())
    assert found.bytes == shards


def test_rows_that_are_not_extracted_yet_are_no_damage(root):
    commit = Commit.read(root / "colour.zarr/commits/000003.json")
    (root / "colour.zarr/commits/000003.json").unlink()
    for file in commit.files:
        (root / "colour.zarr" / file).unlink()
    write_manifest(root, Index.read(root).digest())
    found = verify(root)
    assert found.whole and found.absent["colour"] == 6 and found.rows["colour"] == 24


def test_a_flipped_bit_costs_its_chunk(root):
    shard = root / "colour.zarr/features/c/1/0"  # 8 rows in 4 chunks of 2 x 3 float32 and a CRC
    data = bytearray(shard.read_bytes())
    data[28 + 5] ^= 4
    shard.write_bytes(data)
    damage = one(root)
    assert (damage.view, damage.shard) == ("colour", 1) and "SHA-256" in damage.what
    assert damage.rows == (10, 11)  # the second chunk
    with pytest.raises(CacheError, match="cache repair"):
        open_view(root, "colour").read()


@pytest.mark.parametrize("cut", [0, 10, -1])
def test_a_cut_shard_costs_all_its_rows(root, cut):
    shard = root / "colour.zarr/features/c/1/0"
    shard.write_bytes(shard.read_bytes()[:cut])
    damage = one(root)
    assert damage.rows == tuple(range(8, 16)) and "bytes instead of" in damage.what


def test_a_missing_shard(root):
    (root / "area.zarr/status/c/0").unlink()
    damage = one(root)
    assert damage.what == "is missing" and damage.rows == tuple(range(8))


def test_a_shard_in_the_place_of_another(root):
    """Every checksum inside it is right."""
    shards = root / "colour.zarr/features/c"
    shutil.copy(shards / "0/0", shards / "1/0")
    assert one(root).rows == tuple(range(8, 16))
    with pytest.raises(CacheError, match="cache repair"):
        open_view(root, "colour").read()


def test_a_shard_without_a_commit(root):
    (root / "whole.zarr/commits/000001.json").unlink()
    found = verify(root)
    assert {d.what for d in found.damages} == {"a shard without a commit record"}
    assert {d.rows for d in found.damages} == {tuple(range(8, 16))}
    assert {d.file for d in found.damages} == {
        "whole.zarr/features/c/1/0",
        "whole.zarr/status/c/1",
    }


def test_a_damaged_commit_record(root):
    record = root / "whole.zarr/commits/000001.json"
    record.write_text(record.read_text().replace('"shard":1', '"shard":2'))
    found = verify(root)
    assert "whole.zarr/commits/000001.json" in {d.file for d in found.damages}
    with pytest.raises(CacheError, match="cache repair"):
        open_view(root, "whole")


def test_a_commit_record_in_the_place_of_another(root):
    commits = root / "whole.zarr/commits"
    shutil.copy(commits / "000000.json", commits / "000001.json")
    assert "whole.zarr/commits/000001.json" in {d.file for d in verify(root).damages}


def test_a_commit_under_another_key(root):
    record = root / "whole.zarr/commits/000001.json"
    commit = of_sealed_text(record.read_bytes()) | {"key": "0" * 64}
    record.write_bytes(sealed_text(commit))
    assert any("under the key 000000000000" in d.what for d in verify(root).damages)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found_though_every_hash_is_right(root, value):
    view = open_view(root, "colour")
    layout, file = view.layout.arrays["features"], "features/c/1/0"
    block = layout.empty(8)
    record = view.path / "commits/000001.json"
    commit = of_sealed_text(record.read_bytes())
    assert (
        layout.read(
            view.path / file, block, open_view(root, "colour").commits[1].files[file].chunks
        )
        == []
    )
    block[3, 1] = value
    data, chunks = layout.encode(block)
    (view.path / file).write_bytes(data)
    commit["files"][file]["sha256"] = sha256_file(view.path / file)
    commit["files"][file]["chunks"] = chunks
    record.write_bytes(sealed_text(commit))
    write_manifest(root, Index.read(root).digest())
    damage = one(root)
    assert damage.rows == (11,) and "not finite" in damage.what


@pytest.mark.parametrize("file", ["zarr.json", "features/zarr.json", "commits/view.json"])
@pytest.mark.parametrize("damage", ["gone", "empty", "shape"])
def test_damaged_metadata_costs_no_row(root, file, damage):
    path = root / "colour.zarr" / file
    if damage == "gone":
        path.unlink()
    elif damage == "empty":
        path.write_text("")
    else:
        path.write_text(path.read_text().replace("3", "4", 1))
    found = one(root)
    assert found.file == f"colour.zarr/{file}" and found.rows == ()


def test_both_copies_gone_lose_the_view(root):
    for file in ("zarr.json", "commits/view.json"):
        (root / "colour.zarr" / file).unlink()
    assert "lost" in one(root).what


def test_a_file_that_does_not_belong(root):
    (root / "colour.zarr/features/note.txt").write_text("mine")
    assert "does not belong" in one(root).what


def test_leftovers_of_a_killed_run_are_no_damage(root):
    (root / "colour.zarr/features/c/0/0.77.partial").write_bytes(b"half")
    assert verify(root).whole


@pytest.mark.parametrize(
    "name", ["persons.parquet", "pictures.parquet", "labels.json", "index.json"]
)
def test_a_damaged_index(root, name):
    path = root / "index" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert one(root).file == "index"
    with pytest.raises(CacheError, match="cache repair"):
        Index.read(root)


def test_an_index_of_other_rows(sound, root, tmp_path):
    other = Place(tmp_path / "other", pictures=31)
    people = dict(reversed(other.people.items()))
    other.people = people
    other.prepare()
    shutil.rmtree(root / "index")
    shutil.copytree(other.cache / "index", root / "index")
    found = verify(root)
    assert any("other rows than the index" in d.what for d in found.damages)


def test_a_damaged_or_stale_manifest(root):
    path = root / "manifest.json"
    path.write_text(path.read_text().replace('"rows": 30', '"rows": 31'))
    assert one(root).file == "manifest.json"
    path.write_bytes((root / "area.zarr/commits/view.json").read_bytes())
    assert one(root).file == "manifest.json"
    path.unlink()
    assert one(root).file == "manifest.json"


def test_one_view_alone_can_be_looked_at(root):
    (root / "area.zarr/status/c/0").unlink()
    assert verify(root, ["colour"]).whole
    assert not verify(root, ["area"]).whole
    with pytest.raises(CacheError, match="no view 'colour2': it has area, colour"):
        verify(root, ["colour2"])


def test_no_cache_is_a_sentence(tmp_path):
    with pytest.raises(CacheError, match=r"no cache in .*cache\.root"):
        verify(tmp_path)


def test_another_format_is_no_damage(root):
    for file in ("zarr.json", "commits/view.json"):
        path = root / "colour.zarr" / file
        path.write_text(path.read_text().replace('"format": 2', '"format": 99'))
    with pytest.raises(CacheError, match="format 99.*upgrade emocache"):
        verify(root)


def test_what_a_running_extract_has_under_way_is_told_from_damage(root):
    (root / "colour.zarr/commits/000001.json").unlink()
    assert verify(root).writer == ""
    with only_writer(root, "extract"):
        assert verify(root).writer.startswith("`emocache extract`, process ")
        with pytest.raises(CacheError, match=r"is being written by `emocache extract`.*has ended"):
            merge(Cache(root=root.parent / "ours"), root)
