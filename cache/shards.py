"""One shard of one array: a file of row chunks, each with a CRC-32C, and an index of them.

The layout is Zarr's `sharding_indexed` codec, and Zarr encodes it, so any Zarr v3 reader opens it.
Reading goes around Zarr: chunks are read straight into the caller's array and checked there, which
is several times faster (docs/benchmarks.md).
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from awscrt.checksums import crc32c
from numcodecs.zstd import Zstd
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

CHUNKS_PER_SHARD = 4
EMPTY = 2**64 - 1  # offset and size of a chunk that holds only the fill value

Compression = Literal["none", "zstd"]


@dataclass(frozen=True)
class ArraySpec:
    """One array of a view: the shape and dtype of a row, the value of a padded one, and what the
    axes of a row are called (`<array>_<axis>` where not given)."""

    shape: tuple[int, ...] = ()
    dtype: str = "float16"
    fill: float = 0
    dims: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape)

    def as_dict(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "ArraySpec":
        return cls(
            tuple(facts["shape"]), facts["dtype"], facts["fill"], tuple(facts.get("dims", ()))
        )


STATUS_ARRAY = ArraySpec((), "uint8")


@dataclass(frozen=True)
class Layout:
    """How the rows of one array lie in its shards."""

    array: ArraySpec
    shard_rows: int
    chunk_rows: int
    compression: Compression = "none"

    def file(self, name: str, shard: int) -> str:
        """Path of a shard of the array `name`, relative to the view."""
        return "/".join([name, "c", str(shard), *["0"] * len(self.array.shape)])

    def create(self, store: Store | Path, name: str, rows: int, row_dim: str) -> zarr.Array:
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

    def empty(self, rows: int) -> np.ndarray:
        """(rows, ...) of the fill value."""
        return np.full((rows, *self.array.shape), self.array.fill, self.array.dtype)

    def encode(self, block: np.ndarray) -> bytes | None:
        """The file of a shard with the rows of `block`; None when all of them are the fill value,
        which Zarr stores as no file."""
        files: dict[str, Buffer] = {}
        array = self.create(MemoryStore(files), "a", self.shard_rows, "row")
        array[: len(block)] = block
        shard = files.get(self.file("a", 0))
        return shard.to_bytes() if shard is not None else None

    def checksums(self, shard: bytes) -> list[int]:
        """The CRC-32C of each chunk of an encoded shard; -1 for a chunk of the fill value only."""
        return [
            -1 if offset == EMPTY else _checksum(shard[offset : offset + nbytes])
            for offset, nbytes in self._table(shard[-self._index_bytes : -4])
        ]

    def read(self, path: Path, out: np.ndarray, checksums: Sequence[int]) -> list[tuple[int, int]]:
        """Read the first `len(out)` rows of the shard at `path` into `out` (C-contiguous).

        checksums: what `checksums` gave when the shard was committed.
        Returns the row ranges [start, stop) that are not proven by them; all rows when the file is
        missing or its index damaged. `out` holds nothing of worth there.
        """
        starts = range(0, len(out), self.chunk_rows)
        ranges = [(start, min(start + self.chunk_rows, len(out))) for start in starts]
        try:
            with open(path, "rb", buffering=0) as file:
                index = self._index(file)
                if index is None:
                    return ranges
                return [
                    (start, stop)
                    for (start, stop), place, checksum in zip(
                        ranges, index, checksums, strict=False
                    )
                    if self._read_chunk(file, *place, out[start:stop]) != checksum
                ]
        except FileNotFoundError:
            return ranges

    @property
    def _index_bytes(self) -> int:
        return 16 * (self.shard_rows // self.chunk_rows) + 4

    @staticmethod
    def _table(index: bytes) -> list[tuple[int, int]]:
        """(offset, size) in bytes of each chunk."""
        table = np.frombuffer(index, "<u8").reshape(-1, 2)
        return [(int(offset), int(nbytes)) for offset, nbytes in table]

    def _index(self, file: Any) -> list[tuple[int, int]] | None:
        """The index at the end of the file; None when it is damaged."""
        size = os.fstat(file.fileno()).st_size
        if size < self._index_bytes:
            return None
        file.seek(size - self._index_bytes)
        data = file.read(self._index_bytes)
        return self._table(data[:-4]) if crc32c(data[:-4]) == _checksum(data) else None

    def _read_chunk(self, file: Any, offset: int, nbytes: int, out: np.ndarray) -> int | None:
        """Fill `out` from a chunk; gives its checksum, None where it does not match its bytes."""
        if offset == nbytes == EMPTY:
            out[...] = self.array.fill
            return -1
        flat: Any = out.reshape(-1).view(np.uint8)
        plain = self.compression == "none"
        if nbytes < (flat.nbytes if plain else 0) + 4:
            return None
        if plain:
            # The chunk of an array's end is padded: the rows, the padding, the checksum.
            tail = bytearray(nbytes - flat.nbytes)
            if os.preadv(file.fileno(), [flat, tail], offset) != nbytes:
                return None
            found = crc32c(memoryview(tail)[:-4], crc32c(flat))
            return found if found == _checksum(tail) else None
        data = os.pread(file.fileno(), nbytes, offset)
        if len(data) != nbytes or crc32c(data[:-4]) != _checksum(data):
            return None
        chunk = np.frombuffer(Zstd().decode(data[:-4]), np.uint8)[: flat.nbytes]
        if len(chunk) != flat.nbytes:
            return None
        flat[:] = chunk
        return _checksum(data)


def _checksum(data: bytes | bytearray) -> int:
    """The last four bytes of a chunk or an index."""
    return int.from_bytes(data[-4:], "little")
