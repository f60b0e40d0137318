"""The store: only committed rows count, and a kill, a new key or damage are noticed."""

import os

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import CacheError, FormatError, KeyMismatch
from cache.keys import of_sealed_text, sealed_text
from cache.manifest import write_manifest
from cache.spec import ArraySpec, Row, ViewSpec
from cache.statuses import STATUS
from cache.store import ViewLayout, open_view
from cache.writer import ViewWriter

WIDTH = 6


def spec(size=128, trained=True):
    return ViewSpec(
        "body",
        "persons",
        {"features": ArraySpec((WIDTH,)), "box": ArraySpec((4,), "float32", -1)},
        {"size": size},
        [{"network": "made", "trained": trained}],
        {"classes": ["cup"]},
    )


def row(number):
    return Row("ok", {"features": np.full(WIDTH, number), "box": np.arange(4) + number})


def ids(count):
    return [f"id{i}" for i in range(count)]


def fill(root, count, rows=None, view=None, shard_rows=8):
    writer = ViewWriter(root, view or spec(), ids(count), shard_rows)
    rows = list(range(count)) if rows is None else rows
    writer.expect(rows)
    for number in rows:
        writer.put(number, row(number))
    writer.close()
    return writer


def test_rows_written_are_read(tmp_path):
    fill(tmp_path, 20)
    view = open_view(tmp_path, "body")
    np.testing.assert_array_equal(view.status, np.full(20, STATUS["ok"]))
    np.testing.assert_array_equal(view.read()[:, 0], np.arange(20))
    np.testing.assert_array_equal(view.read("box")[19], [19, 20, 21, 22])
    assert view.key == spec().key and view.trained and view.spec.facts == {"classes": ["cup"]}


def test_plain_zarr_reads_the_same(tmp_path):
    fill(tmp_path, 20)
    group = zarr.open_group(tmp_path / "body.zarr", mode="r")
    np.testing.assert_array_equal(group["features"][:], open_view(tmp_path, "body").read())


def test_no_warning_when_other_readers_list_the_group(tmp_path, recwarn):
    fill(tmp_path, 3)
    list(zarr.open_group(tmp_path / "body.zarr", mode="r").members())
    assert not [w for w in recwarn if "not recognized" in str(w.message)]


def test_a_failed_row_keeps_its_reason(tmp_path):
    writer = ViewWriter(tmp_path, spec(), ids(3), 8)
    writer.expect(range(3))
    for number in (0, 2):
        writer.put(number, row(number))
    writer.put(1, Row("unreadable", reason="the file is empty"))
    view = open_view(tmp_path, "body")
    assert view.status.tolist() == [1, STATUS["unreadable"], 1]
    assert view.reasons == {1: "the file is empty"}
    np.testing.assert_array_equal(view.read("box")[1], [-1] * 4)


def test_rows_are_added_without_touching_the_others(tmp_path):
    fill(tmp_path, 11)
    before = (tmp_path / "body.zarr/commits/000000.json").read_bytes()
    writer = ViewWriter(tmp_path, spec(), ids(14), 8)
    assert np.flatnonzero(~writer.done).tolist() == [11, 12, 13]
    fill(tmp_path, 14, [11, 12, 13])
    view = open_view(tmp_path, "body")
    np.testing.assert_array_equal(view.read()[:, 0], np.arange(14))
    assert (tmp_path / "body.zarr/commits/000000.json").read_bytes() == before


def test_rows_are_not_added_to_a_damaged_shard(tmp_path):
    """Its new checksums would be those of the damage."""
    fill(tmp_path, 8, range(6))
    shard = tmp_path / "body.zarr/features/c/0/0"
    data = bytearray(shard.read_bytes())
    data[1] ^= 4
    shard.write_bytes(data)
    with pytest.raises(CacheError, match=r"features/c/0/0 is damaged.*emocache cache repair"):
        fill(tmp_path, 8, [6, 7])
    assert open_view(tmp_path, "body").done.tolist() == [True] * 6 + [False] * 2


def test_what_no_commit_lists_is_absent_though_it_stands_in_the_array(tmp_path):
    fill(tmp_path, 16)
    (tmp_path / "body.zarr/commits/000001.json").unlink()
    view = open_view(tmp_path, "body")
    assert view.status.tolist() == [1] * 8 + [0] * 8
    assert view.done.sum() == 8


def test_an_incomplete_shard_is_not_committed_before_its_time(tmp_path):
    writer = ViewWriter(tmp_path, spec(), ids(16), 8)
    writer.expect(range(16))
    for number in range(12):
        writer.put(number, row(number))
    assert open_view(tmp_path, "body").done.sum() == 8  # as after a kill at this moment
    writer.close()
    assert open_view(tmp_path, "body").done.sum() == 12


@pytest.fixture
def told(monkeypatch):
    """What the disk is told, in order: ("flush" or "name", the inode it is about)."""
    steps = []
    fsync, replace = os.fsync, os.replace

    def flush(handle):
        steps.append(("flush", os.fstat(handle).st_ino))
        fsync(handle)

    def name(partial, path):
        steps.append(("name", inode(partial)))
        replace(partial, path)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", name)
    return steps


def inode(path):
    return os.stat(path).st_ino


def second_shard(root, told):
    """Commits one more shard; gives its record, and the files that the record proves."""
    fill(root, 16, range(8))
    told.clear()
    fill(root, 16, range(8, 16))
    view = root / "body.zarr"
    record = view / "commits/000001.json"
    return record, [view / file for file in of_sealed_text(record.read_bytes())["files"]]


def test_every_file_is_flushed_before_it_gets_its_name(tmp_path, told):
    record, proven = second_shard(tmp_path, told)
    assert len(proven) == 3
    for path in (record, *proven):
        assert ("flush", inode(path)) in told[: told.index(("name", inode(path)))], path


def test_the_names_of_a_shards_files_are_flushed_before_its_record_has_one(tmp_path, told):
    """Else a power cut may leave a record of files that are not there."""
    record, proven = second_shard(tmp_path, told)
    at = told.index(("name", inode(record)))
    for path in proven:
        assert ("flush", inode(path.parent)) in told[told.index(("name", inode(path))) : at], path
    assert ("flush", inode(record.parent)) in told[at:]


def test_another_key_replaces_the_view(tmp_path):
    fill(tmp_path, 8)
    fill(tmp_path, 8, [0, 1], spec(size=224))
    view = open_view(tmp_path, "body")
    assert view.done.tolist() == [True] * 2 + [False] * 6
    assert view.spec.parts == {"size": 224}


def test_mixed_keys_are_refused_and_both_named(tmp_path):
    fill(tmp_path, 8)
    record = tmp_path / "body.zarr/commits/000000.json"
    other = spec(size=224).key
    commit = of_sealed_text(record.read_bytes()) | {"key": other}
    record.write_bytes(sealed_text(commit))
    with pytest.raises(KeyMismatch, match=f"{spec().key[:12]}.*{other[:12]}"):
        open_view(tmp_path, "body")


@pytest.mark.parametrize("damage", ["missing", "empty", "short"])
def test_a_shard_that_is_gone_or_cut_is_not_read(tmp_path, damage):
    fill(tmp_path, 8)
    shard = tmp_path / "body.zarr/features/c/0/0"
    data = shard.read_bytes()
    if damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(b"" if damage == "empty" else data[:-77])
    with pytest.raises(CacheError, match="emocache cache repair"):
        open_view(tmp_path, "body").read()


@settings(max_examples=40, deadline=None)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_flipped_bit_in_a_row_is_never_read_silently(tmp_path_factory, place, bit):
    root = tmp_path_factory.mktemp("cache")
    fill(root, 8)
    shard = root / "body.zarr/features/c/0/0"
    data = bytearray(shard.read_bytes())
    data[place % len(data)] ^= 1 << bit
    shard.write_bytes(bytes(data))
    try:
        got = open_view(root, "body").read()[:, 0]
    except Exception:
        return  # noticed
    np.testing.assert_array_equal(got, np.arange(8))  # or harmless


def test_values_that_are_not_finite_are_refused(tmp_path):
    writer = ViewWriter(tmp_path, spec(), ids(1), 8)
    writer.expect([0])
    with pytest.raises(CacheError, match=r"features.*row 0.*cache\.dtype"):
        writer.put(0, Row("ok", {"features": np.full(WIDTH, 1e6), "box": np.zeros(4)}))


def test_leftover_partial_files_are_swept(tmp_path):
    fill(tmp_path, 8)
    partial = tmp_path / "body.zarr/features/c/0/0.123.partial"
    partial.write_bytes(b"half")
    ViewWriter(tmp_path, spec(), ids(8), 8)
    assert not partial.exists()


def test_no_view_is_a_sentence_that_names_those_there_are(tmp_path):
    fill(tmp_path, 8)
    with pytest.raises(CacheError, match=r"no view 'depth'.*body.*emocache extract"):
        open_view(tmp_path, "depth")


def test_newer_format_is_refused(tmp_path):
    fill(tmp_path, 8)
    group = zarr.open_group(tmp_path / "body.zarr", mode="a")
    group.attrs["emocache"] = dict(group.attrs["emocache"]) | {"format": 99}
    with pytest.raises(CacheError, match="format 99"):
        open_view(tmp_path, "body")


def test_manifest_is_stable_and_notices_new_rows(tmp_path):
    fill(tmp_path, 8)
    first = write_manifest(tmp_path, "index")
    assert write_manifest(tmp_path, "index") == first
    fill(tmp_path, 9, [8])
    assert write_manifest(tmp_path, "index") != first


def test_an_array_to_read_into_must_fit(tmp_path):
    writer = ViewWriter(tmp_path, spec(), ids(3), 8)
    for number in range(3):
        writer.put(number, row(number))
    writer.close()
    view = open_view(tmp_path, "body")
    whole = view.read()
    for wrong in (whole[:2], whole.astype(np.float64), np.empty((*whole.shape[::-1],)).T):
        with pytest.raises(ValueError, match="cannot be read into"):
            view.read(out=wrong)
    np.testing.assert_array_equal(view.read(out=np.empty_like(whole)), whole)


def test_a_newer_format_is_told_from_an_older_one_by_number(tmp_path):
    for found, advice in ((10, "upgrade emocache"), (1, "delete the folder")):
        with pytest.raises(FormatError, match=f"format {found}.*{advice}"):
            ViewLayout.of({"format": found}, tmp_path)
