"""A disk that is full or may not be written: a sentence, and nothing that was committed is lost."""

import errno
import os
import shutil
import subprocess

import numpy as np
import pytest

from cache import files as cache_files
from cache.check import verify
from cache.errors import CacheError
from cache.index import Index
from cache.paths import view_names
from cache.store import open_view
from tests.extract.test_crash import files
from tests.extract.test_run import Place
from tests.shared import quick_folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = quick_folder(tmp_path_factory, "disk")
    place = Place(folder, pictures=30)
    place.extract()
    yield place
    shutil.rmtree(folder)


def at(place, root):
    """The same data, with a cache elsewhere."""
    other = Place.__new__(Place)
    other.root, other.data, other.cache = root, place.data, root / "cache"
    other.people, other.index = place.people, place.index
    return other


def rows(root):
    return {name: open_view(root, name).done for name in view_names(root)}


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_every_write_may_fail_and_nothing_is_lost(undisturbed, error, monkeypatch):
    """Half of the rows are there; then each write in turn finds the disk full."""
    half = at(undisturbed, undisturbed.root / "half")
    shutil.copytree(undisturbed.cache, half.cache)
    for name in ("colour", "area"):
        for shard in (1, 2):
            for file in (f"commits/{shard:06d}.json", f"features/c/{shard}/0", f"status/c/{shard}"):
                (half.cache / f"{name}.zarr" / file).unlink()
    fsync = os.fsync
    for write in range(0, 60, 3):
        place = at(undisturbed, undisturbed.root / "now")
        shutil.copytree(half.cache, place.cache)
        before, left = rows(place.cache), [write]

        def full(handle, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise OSError(error, os.strerror(error))
            fsync(handle)

        monkeypatch.setattr(cache_files.os, "fsync", full)
        try:
            place.extract()
        except CacheError as refusal:
            assert "set cache.root" in str(refusal)
            failed = True
        else:
            failed = False
        monkeypatch.undo()
        for name, done in rows(place.cache).items():
            assert (done >= before[name]).all()  # what was committed stays
            values = open_view(place.cache, name).read()[done]
            np.testing.assert_array_equal(values, open_view(undisturbed.cache, name).read()[done])
        place.extract()
        assert files(place.cache) == files(undisturbed.cache)
        shutil.rmtree(place.root)
        if not failed:
            break
    assert not failed and write > 10  # the loop went past the last write
    shutil.rmtree(half.root)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 400 kB of its own; only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no disk of its own can be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_real_disk_that_fills_up(undisturbed, small_disk):
    place = at(undisturbed, small_disk)
    (small_disk / "other").write_bytes(bytes(180_000))
    undisturbed.index.write(place.cache)
    with pytest.raises(CacheError, match=r"no room for .*cache\.root to another disk"):
        place.extract()
    assert all("manifest" in d.file for d in verify(place.cache).damages)
    (small_disk / "other").unlink()
    place.extract()
    assert files(place.cache) == files(undisturbed.cache)


def test_a_real_disk_that_may_not_be_written(undisturbed, small_disk):
    place = at(undisturbed, small_disk)
    undisturbed.index.write(place.cache)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(CacheError, match=r"may not be written .*set cache\.root to a folder"):
        place.extract()
    with pytest.raises(CacheError, match="may not be written"):
        undisturbed.index.write(place.cache)
    assert Index.read(place.cache).labels == undisturbed.index.labels  # reading goes on
