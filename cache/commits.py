"""Commit records: what proves a shard.

A row counts when the record of its shard lists it, and never because a file exists, so the record
is written last; see `cache.writer`.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from cache.files import read_bytes
from cache.keys import of_sealed_text, sealed_text
from cache.shards import Chunk


@dataclass(frozen=True)
class Proof:
    """Of one file of a shard: its size in bytes, their SHA-256, and where its chunks lie."""

    bytes: int
    sha256: str
    chunks: Sequence[Chunk | None]

    @classmethod
    def of(cls, bytes: int, sha256: str, chunks: Sequence[Sequence[int] | None]) -> "Proof":
        """From JSON, which has no tuples."""
        return cls(
            bytes, sha256, [None if one is None else (one[0], one[1], one[2]) for one in chunks]
        )


@dataclass(frozen=True, eq=False)
class Commit:
    """The record of one shard.

    shard: its number; key: of the view; rows (n,): those that count, sorted; ids: SHA-256 over
    their ids; reasons: row -> why it failed; files: path in the view -> proof.
    """

    shard: int
    key: str
    rows: Int[np.ndarray, " n"]
    ids: str
    reasons: Mapping[int, str]
    files: Mapping[str, Proof]

    @classmethod
    def made(
        cls,
        shard: int,
        key: str,
        rows: Int[np.ndarray, " n"],
        ids: Sequence[str],
        reasons: Mapping[int, str],
        files: Mapping[str, Proof],
    ) -> "Commit":
        """A new one; ids: of every row of the view."""
        return cls(shard, key, rows, _digest(ids, rows), dict(sorted(reasons.items())), files)

    def fits(self, ids: Sequence[str]) -> bool:
        """Whether the rows still are those that an index has under these ids."""
        return self.ids == _digest(ids, self.rows)

    def text(self) -> bytes:
        """The record as a file, sealed."""
        return sealed_text(
            {
                "shard": self.shard,
                "key": self.key,
                "done": _ranges(self.rows),
                "ids": self.ids,
                "reasons": {str(row): why for row, why in self.reasons.items()},
                "files": {file: vars(proof) for file, proof in self.files.items()},
            }
        )

    @classmethod
    def read(cls, path: Path | str) -> "Commit | None":
        """The record in a file; None where it is missing or damaged."""
        try:
            record = of_sealed_text(read_bytes(path))
            return None if record is None else cls._of(record)
        except (OSError, LookupError, TypeError, ValueError):  # or another file in its place
            return None

    @classmethod
    def _of(cls, record: Mapping[str, Any]) -> "Commit":
        ranges = [np.arange(start, stop) for start, stop in record["done"]]
        return cls(
            record["shard"],
            record["key"],
            np.concatenate(ranges) if ranges else np.zeros(0, int),
            record["ids"],
            {int(row): why for row, why in record["reasons"].items()},
            {file: Proof.of(**proof) for file, proof in record["files"].items()},
        )


def commit_files(view: Path) -> Iterator[tuple[int, str]]:
    """Number of each shard that has a commit record, and the record's path, by number."""
    folder = str(view / "commits")
    for name in sorted(os.listdir(folder)):
        if name[0].isdigit() and name.endswith(".json"):
            yield int(name[:-5]), f"{folder}/{name}"


def _digest(ids: Sequence[str], rows: Int[np.ndarray, " n"]) -> str:
    """SHA-256 over the ids of `rows`."""
    return hashlib.sha256("\n".join(ids[row] for row in rows.tolist()).encode()).hexdigest()


def _ranges(rows: Int[np.ndarray, " n"]) -> list[list[int]]:
    """Sorted row numbers as half-open ranges: 0 1 2 5 -> [[0, 3], [5, 6]]."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return [[int(run[0]), int(run[-1]) + 1] for run in runs if len(run)]
