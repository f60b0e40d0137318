"""A cache in one HDF5 file: others read it, and it comes back bit for bit."""

from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from cache.errors import CacheError
from cache.hdf5 import export_hdf5, import_hdf5
from cache.index import Index
from cache.manifest import write_manifest
from cache.settings import Cache
from cache.spec import Row
from cache.store import open_view
from cache.writer import ViewWriter
from tests.cache.test_index import index
from tests.cache.test_store import row, spec
from tests.extract.test_crash import files
from tests.extract.test_run import Place


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("place"), pictures=20)
    (place.data / "p" / "004.png").write_bytes(b"no picture")  # its rows are skipped
    place.prepare = lambda *_: None
    place.extract()
    return place


@pytest.fixture(scope="module")
def exported(place, tmp_path_factory):
    file = tmp_path_factory.mktemp("exported") / "cache.h5"
    assert export_hdf5(place.cache, file) == {"area": 19, "colour": 19, "labels": 2, "whole": 13}
    return file


def test_it_comes_back_bit_for_bit(place, exported, tmp_path):
    done = import_hdf5(Cache(root=tmp_path / "back"), exported)
    assert done["taken"]["colour"] == 19
    assert files(tmp_path / "back") == files(place.cache)


def test_why_a_row_failed_comes_back(tmp_path):
    ours, back = tmp_path / "ours", Cache(root=tmp_path / "back")
    index().write(ours)
    writer = ViewWriter(ours, spec(), index().ids("persons"), 8)
    writer.expect(range(3))
    for number in (0, 2):
        writer.put(number, row(number))
    writer.put(1, Row("unreadable", reason="the file is cut"))
    write_manifest(ours, index().digest())
    export_hdf5(ours, tmp_path / "cache.h5")
    import_hdf5(back, tmp_path / "cache.h5")
    assert open_view(back.root, "body").reasons == {1: "the file is cut"}
    assert files(back.root) == files(ours)


def test_a_stranger_reads_persons_and_features(place, exported):
    index, view = Index.read(place.cache), open_view(place.cache, "colour")
    with h5py.File(exported) as file:
        assert [name.decode() for name in file["labels"]] == list(index.labels)
        assert [name.decode() for name in file["persons/id"]] == index.ids("persons")
        np.testing.assert_array_equal(file["persons/box"], index.boxes)
        np.testing.assert_array_equal(file["persons/labels"], index.targets)
        np.testing.assert_array_equal(file["views/colour/features"], view.read())
        np.testing.assert_array_equal(file["views/colour/status"], view.status)
        assert file["views/colour"].attrs["key"] == view.key


def test_one_view_alone(place, tmp_path):
    assert export_hdf5(place.cache, tmp_path / "one.h5", ["area"]) == {"area": 19}
    import_hdf5(Cache(root=tmp_path / "back"), tmp_path / "one.h5")
    np.testing.assert_array_equal(
        open_view(tmp_path / "back", "area").read(), open_view(place.cache, "area").read()
    )
    with pytest.raises(CacheError, match="no view 'none'"):
        export_hdf5(place.cache, tmp_path / "none.h5", ["none"])


def test_into_a_cache_that_has_some_of_it(place, exported, tmp_path):
    export_hdf5(place.cache, tmp_path / "one.h5", ["area"])
    cache = Cache(root=tmp_path / "back", shard_rows=8)
    import_hdf5(cache, tmp_path / "one.h5")
    done = import_hdf5(cache, exported)
    assert done["taken"] == {"area": 0, "colour": 19, "labels": 2, "whole": 13}
    assert done["both"] == {"area": 19} and done["differ"] == {"area": 0}
    assert files(cache.root) == files(place.cache)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_that_exists_is_kept(place, exported):
    before = exported.read_bytes()
    with pytest.raises(CacheError, match="--overwrite"):
        export_hdf5(place.cache, exported)
    assert exported.read_bytes() == before
    export_hdf5(place.cache, exported, overwrite=True)


def test_damage_is_found(exported, tmp_path):
    file = tmp_path / "damaged.h5"
    file.write_bytes(exported.read_bytes())
    with h5py.File(file, "a") as opened:
        opened["views/colour/features"][3] += 1
    with pytest.raises(CacheError, match=r"damaged.*/views/colour/features"):
        import_hdf5(Cache(root=tmp_path / "back"), file)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("stop", [CacheError("no"), KeyboardInterrupt()], ids=["refusal", "stop"])
def test_a_failed_import_leaves_no_new_folder_and_what_was_there(exported, tmp_path, stop):
    def fail(done, total):
        raise stop

    there = tmp_path / "there"
    there.mkdir()
    (there / "notes.txt").write_text("mine")
    for root in (tmp_path / "new" / "deep" / "back", there):
        with pytest.raises(type(stop)):
            import_hdf5(Cache(root=root), exported, fail)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert {path.name for path in there.iterdir()} == {".lock", "notes.txt"}


def test_any_damage_to_what_it_says_of_the_views_is_found(exported, tmp_path):
    file = tmp_path / "damaged.h5"
    with h5py.File(exported) as opened:
        about = opened["about"][:]
    for at in range(0, len(about), 37):
        file.write_bytes(exported.read_bytes())
        with h5py.File(file, "a") as opened:
            opened["about"][at] ^= 4
        with pytest.raises(CacheError, match=r"damaged, /about"):
            import_hdf5(Cache(root=tmp_path / "back"), file)


@pytest.mark.parametrize("gone", ["views/colour", "views/colour/features", "index", "about"])
def test_something_missing_is_found(exported, tmp_path, gone):
    file = tmp_path / "damaged.h5"
    file.write_bytes(exported.read_bytes())
    with h5py.File(file, "a") as opened:
        del opened[gone]
    with pytest.raises(CacheError, match=r"damaged|not written by"):
        import_hdf5(Cache(root=tmp_path / "back"), file)
    assert not (tmp_path / "back" / "index").exists()


def test_no_room_is_said_before_anything_is_written(place, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(CacheError, match=r"no room for .*it takes .* MB, and 0\.0 MB are free"):
        export_hdf5(place.cache, tmp_path / "cache.h5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda file: None, "is not there"),
        (lambda file: file.mkdir(), "is a folder"),
        (lambda file: file.write_bytes(b"text"), "damaged, or no HDF5 file"),
        (lambda file: h5py.File(file, "w").close(), "not written by `emocache cache export`"),
    ],
)
def test_what_is_no_export_is_a_sentence(tmp_path, make, sentence):
    make(tmp_path / "file.h5")
    with pytest.raises(CacheError, match=sentence):
        import_hdf5(Cache(root=tmp_path / "back"), tmp_path / "file.h5")


def test_a_newer_format_is_refused(exported, tmp_path):
    file = tmp_path / "newer.h5"
    file.write_bytes(exported.read_bytes())
    with h5py.File(file, "a") as opened:
        opened.attrs["format"] = 99
    with pytest.raises(CacheError, match="format 99.*upgrade emocache"):
        import_hdf5(Cache(root=tmp_path / "back"), file)


def test_a_damaged_cache_is_not_exported(place, exported, tmp_path):
    cache = Cache(root=tmp_path / "back")
    import_hdf5(cache, exported)
    (cache.root / "colour.zarr/status/c/0").unlink()
    with pytest.raises(CacheError, match="cache repair"):
        export_hdf5(cache.root, tmp_path / "none.h5")
    assert not (tmp_path / "none.h5").exists()
