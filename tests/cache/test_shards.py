"""Shards are written byte for byte as Zarr writes them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

from cache.shards import ArrayLayout
from cache.spec import ArraySpec


def by_zarr(layout: ArrayLayout, block: np.ndarray) -> bytes | None:
    files: dict = {}
    layout.create(MemoryStore(files), "a", layout.shard_rows, "row")[: len(block)] = block
    shard = files.get(layout.file("a", 0))
    return shard.to_bytes() if shard is not None else None


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    empty=st.sets(st.integers(0, 11)),
    array=st.sampled_from(
        [
            ArraySpec((3, 2)),
            ArraySpec((), "uint8"),
            ArraySpec((2,), "int16", -1),
            ArraySpec((5,), "float32"),
        ]
    ),
    compression=st.sampled_from(["none", "zstd"]),
)
def test_every_byte_is_zarrs_own(rows, empty, array, compression):
    layout = ArrayLayout(array, shard_rows=12, chunk_rows=3, compression=compression)
    rng = np.random.default_rng(rows)
    block = (rng.integers(1, 100, (rows, *array.shape))).astype(array.dtype)
    block[[row for row in empty if row < rows]] = array.fill
    encoded = layout.encode(block)
    assert (encoded and encoded[0]) == by_zarr(layout, block)


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_what_was_written_is_read_and_nothing_else_is(tmp_path, compression):
    layout = ArrayLayout(ArraySpec((4,), "float32"), 12, 3, compression)
    block = np.arange(40, dtype=np.float32).reshape(10, 4)
    block[3:6] = 0  # a whole chunk of the fill value
    data, chunks = layout.encode(block)
    (tmp_path / "shard").write_bytes(data)
    out = np.full_like(block, np.nan)
    assert layout.read(tmp_path / "shard", out, chunks) == [] and (out == block).all()
    assert chunks[1] is None and layout.read(tmp_path / "none", out, chunks) == [
        (0, 3),
        (3, 6),
        (6, 9),
        (9, 10),
    ]
    for at in range(chunks[3][0] + chunks[3][1] - 4):
        damaged = bytearray(data)
        damaged[at] ^= 16
        (tmp_path / "shard").write_bytes(damaged)
        bad = layout.read(tmp_path / "shard", out, chunks)
        hit = [n for n in (0, 2, 3) if chunks[n][0] <= at < chunks[n][0] + chunks[n][1] - 4]
        assert bad == [(3 * n, min(3 * n + 3, 10)) for n in hit]
