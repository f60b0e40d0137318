"""One shard of one array: a file of row chunks, each with a CRC-32C, and an index of them.

The layout is Zarr's `sharding_indexed` codec, so any Zarr v3 reader opens it. Writing and reading
go around Zarr: chunks are read straight into the caller's array and checked there, which is several
times faster (docs/benchmarks.md); a test holds the bytes to Zarr's own.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from awscrt.checksums import crc32c
from jaxtyping import Shaped
from numcodecs.zstd import Zstd
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec

from cache.spec import ArraySpec

CHUNKS_PER_SHARD = 4
EMPTY = 2**64 - 1  # Zarr's offset and size of a chunk that holds only the fill value

Compression = Literal["none", "zstd"]
Chunk = tuple[int, int, int]  # offset and size in its file, in bytes; CRC-32C of all but the last 4


@dataclass(frozen=True)
class ArrayLayout:
    """How the rows of one array lie in its shards."""

    array: ArraySpec
    shard_rows: int
    chunk_rows: int
    compression: Compression = "none"

    def file(self, name: str, shard: int) -> str:
        """Path of a shard of the array `name`, relative to the view."""
        return "/".join([name, "c", str(shard), *["0"] * len(self.array.shape)])

    def create(self, store: Store | Path, name: str, rows: int, row_dim: str) -> "zarr.Array[Any]":
        """Lay out an array of `rows` empty rows."""
        array = self.array
        dims = array.dims or tuple(f"{name}_{axis}" for axis in range(len(array.shape)))
        squeeze = (ZstdCodec(),) if self.compression == "zstd" else ()
        return zarr.create_array(
            store,
            name=name,
            shape=(rows, *array.shape),
            dtype=array.dtype,
            chunks=(self.chunk_rows, *array.shape),
            shards=(self.shard_rows, *array.shape),
            compressors=(*squeeze, Crc32cCodec()),
            fill_value=array.fill,
            dimension_names=(row_dim, *dims),
        )

    def empty(self, rows: int) -> Shaped[np.ndarray, "rows ..."]:
        """Rows of the fill value."""
        return np.full((rows, *self.array.shape), self.array.fill, self.array.dtype)

    def encode(self, block: Shaped[np.ndarray, "n ..."]) -> tuple[bytes, list[Chunk | None]] | None:
        """The file of a shard with the rows of `block`, and where its chunks lie, None for one
        that holds only the fill value; None when all of them do, which Zarr stores as no file.

        The bytes are those that Zarr writes; asking Zarr takes five times as long.
        """
        rows = np.concatenate([block, self.empty(self.shard_rows - len(block))])
        fill = self.empty(self.chunk_rows).tobytes()
        body = bytearray()
        chunks: list[Chunk | None] = []
        table: list[tuple[int, int]] = []
        for start in range(0, self.shard_rows, self.chunk_rows):
            data = rows[start : start + self.chunk_rows].tobytes()
            if data == fill:
                chunks.append(None)
                table.append((EMPTY, EMPTY))
                continue
            if self.compression == "zstd":
                data = Zstd(level=0, checksum=False).encode(data)
            checksum = crc32c(data)
            table.append((len(body), len(data) + 4))
            chunks.append((*table[-1], checksum))
            body += data + checksum.to_bytes(4, "little")
        if chunks.count(None) == len(chunks):
            return None
        index = np.array(table, "<u8").tobytes()
        return bytes(body + index) + crc32c(index).to_bytes(4, "little"), chunks

    def read(
        self, path: Path | str, out: np.ndarray, chunks: Sequence[Chunk | None]
    ) -> list[tuple[int, int]]:
        """Read the first `len(out)` rows of the shard at `path` into `out` (C-contiguous).

        chunks: what `encode` gave when the shard was committed; the index inside the file is for
        other readers.
        Returns the row ranges [start, stop) whose bytes do not have their CRC-32C; all rows when
        the file is missing. `out` holds nothing of worth there.
        """
        starts = range(0, len(out), self.chunk_rows)
        ranges = [(start, min(start + self.chunk_rows, len(out))) for start in starts]
        try:
            file = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            return ranges
        try:
            return [
                (start, stop)
                for (start, stop), chunk in zip(ranges, chunks, strict=False)
                if not self._read_chunk(file, chunk, out[start:stop])
            ]
        finally:
            os.close(file)

    def _read_chunk(self, file: int, chunk: Chunk | None, out: np.ndarray) -> bool:
        """Fill `out` from a chunk; whether it is as it was written."""
        if chunk is None:
            out[...] = self.array.fill
            return True
        offset, size, checksum = chunk
        flat: Any = out.reshape(-1).view(np.uint8)
        if self.compression == "none":
            read = os.preadv(file, [flat], offset)
            found = crc32c(flat)
            if read < size - 4:  # the last chunk of an array is padded
                found = crc32c(os.pread(file, size - 4 - read, offset + read), found)
            return read == flat.nbytes and found == checksum
        data = os.pread(file, size, offset)[:-4]
        if crc32c(data) != checksum:
            return False
        flat[:] = np.frombuffer(Zstd().decode(data), np.uint8)[: flat.nbytes]
        return True
