"""One shard of one array: a file of row chunks, each with a CRC-32C, and an index of them.

The layout is Zarr's `sharding_indexed` codec, and Zarr encodes it, so any Zarr v3 reader opens it.
Reading goes around Zarr: chunks are read straight into the caller's array and checked there, which
is several times faster (docs/benchmarks.md).
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr
from crc32c import crc32c
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

    def read(self, path: Path, out: np.ndarray) -> list[tuple[int, int]]:
        """Read the first `len(out)` rows of the shard at `path` into `out` (C-contiguous).

        Returns the row ranges [start, stop) whose bytes fail their checksum; all of them when the
        file or its index is damaged. `out` holds nothing of worth there.
        """
        rows = len(out)
        try:
            with open(path, "rb", buffering=0) as file:
                index = self._index(file)
                if index is None:
                    return [(0, rows)]
                bad = []
                for chunk, start in enumerate(range(0, rows, self.chunk_rows)):
                    stop = min(start + self.chunk_rows, rows)
                    if not self._read_chunk(file, *index[chunk], out[start:stop]):
                        bad.append((start, stop))
                return bad
        except FileNotFoundError:
            return [(0, rows)]

    def _index(self, file: Any) -> list[tuple[int, int]] | None:
        """(offset, size) in bytes of each chunk, from the end of the file; None when damaged."""
        chunks = self.shard_rows // self.chunk_rows
        size = os.fstat(file.fileno()).st_size
        length = 16 * chunks + 4
        if size < length:
            return None
        file.seek(size - length)
        data = file.read(length)
        if not _proven(data[:-4], data[-4:]):
            return None
        table = np.frombuffer(data[:-4], "<u8").reshape(chunks, 2)
        return [(int(offset), int(nbytes)) for offset, nbytes in table]

    def _read_chunk(self, file: Any, offset: int, nbytes: int, out: np.ndarray) -> bool:
        if offset == nbytes == EMPTY:
            out[...] = self.array.fill
            return True
        flat: Any = out.reshape(-1).view(np.uint8)
        if nbytes < 4 or (self.compression == "none" and nbytes < flat.nbytes + 4):
            return False
        file.seek(offset)
        if self.compression == "none":
            # The chunk of an array's end is padded: the rows, the padding, the checksum.
            tail = bytearray(nbytes - flat.nbytes)
            if file.readinto(flat) + file.readinto(tail) != nbytes:
                return False
            padding = memoryview(tail)[:-4]
            return int.from_bytes(tail[-4:], "little") == crc32c(padding, crc32c(flat))
        data = file.read(nbytes)
        if len(data) != nbytes or not _proven(data[:-4], data[-4:]):
            return False
        chunk = np.frombuffer(Zstd().decode(data[:-4]), np.uint8)[: flat.nbytes]
        if len(chunk) != flat.nbytes:
            return False
        flat[:] = chunk
        return True


def _proven(data: bytes, checksum: bytes) -> bool:
    return crc32c(data) == int.from_bytes(checksum, "little")
