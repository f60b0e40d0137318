import shutil
import tempfile

import numpy as np
import pytest

from cache.errors import SettingsError
from train import memory as files
from train.memory import Placement

ROWS = {("body", "features"): 1000, ("scene", "features"): 500, ("body", "box"): 1000}
BYTES = {("body", "features"): 4000, ("scene", "features"): 2000, ("body", "box"): 8}
# 4,000,000 and 1,000,000 and 8,000 bytes; a person's row in all of them: 6,008


def test_what_fits_is_held():
    assert files.placement(ROWS, BYTES, None) == Placement()
    assert files.placement(ROWS, BYTES, 0.005008) == Placement()


def test_the_largest_goes_and_two_blocks_share_what_is_left():
    room = files.placement(ROWS, BYTES, 0.003)
    assert room.away == {("body", "features")}
    assert room.block == (3_000_000 - 1_008_000) // (2 * 6008)


def test_all_go_where_half_the_memory_holds_none():
    room = files.placement(ROWS, BYTES, 0.000015)
    assert room.away == set(ROWS) and room.block == 1


def test_too_little_memory_and_too_small_a_disk_are_refused(monkeypatch):
    with pytest.raises(SettingsError, match=r"train\.memory 1e-05 .* 2\.4032e-05 or more"):
        files.placement(ROWS, BYTES, 0.00001)
    assert files.placement(ROWS, BYTES, 2.4032e-5).block >= 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 9}))
    with pytest.raises(SettingsError, match="TMPDIR"):
        files.placement(ROWS, BYTES, 0.003)


def test_a_mapped_array_has_no_name_and_keeps_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = files.mapped((3, 2), np.dtype("float16"))
    array[1] = 7
    assert array.tolist() == [[0, 0], [7, 7], [0, 0]] and not list(tmp_path.iterdir())
