"""Splits without near-duplicates: pictures that look the same go to one split together.

Frames of one clip, crops and re-encodings of one picture are alike in their scene features.
Pictures that are near to each other, directly or through others, are one cluster, as are pictures
with the same path and those of one group. A cluster that stands in several splits goes to the one
that has most of its persons, so that no picture of a split is near to one of another.
"""

import csv
import io
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cache.audit import NEAR, Pictures
from cache.errors import DataError
from cache.index import SPLITS, Index, split_order
from cache.progress import Progress, silent


@dataclass(frozen=True)
class Apart:
    """Splits set apart. near: the threshold; splits: path -> split, of every picture; clusters: how
    many pictures that look the same stood in several splits together; moved: (from, to) -> persons;
    persons: split -> how many before and after; notes: what could not be seen, in sentences."""

    near: float
    splits: dict[str, str]
    clusters: int
    moved: dict[tuple[str, str], int] = field(default_factory=dict)
    persons: dict[str, tuple[int, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def set_apart(root: Path, near: float = NEAR, progress: Progress = silent) -> Apart:
    """Splits of the cache at `root` in which no two pictures of different splits are near.

    All persons count but the removed ones. near: the least cosine of two pictures that count as
    one; progress: called with (blocks of pictures compared, blocks in all).
    Raises DataError where no trained scene features are there, else what `audit` raises.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    index = Index.read(root)
    pictures = Pictures(root, index, near)
    if pictures.blind:
        raise DataError(f"pictures that look the same cannot be told: {pictures.blind}")
    persons = np.flatnonzero(index.person_status != "removed")
    first, second = _linked(pictures, persons, progress)
    count = len(index.pictures)
    links = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    cluster = connected_components(links, directed=False)[1]

    names = sorted(set(index.splits[persons].tolist()), key=split_order)
    place = {name: number for number, name in enumerate(names)}
    old = np.array([place[split] for split in index.splits[persons]])
    of = cluster[index.picture_rows[persons]]
    votes = np.zeros((cluster.max(initial=0) + 1, len(names)), int)
    np.add.at(votes, (of, old), 1)
    new = votes.argmax(axis=1)[of]  # of equal ones the first, which is train
    moved = Counter((names[a], names[b]) for a, b in zip(old, new, strict=True) if a != b)
    rows = index.picture_rows[persons]
    paths = index.pictures["path"].to_pylist()
    return Apart(
        near,
        {paths[row]: names[split] for row, split in zip(rows, new, strict=True)},
        int(((votes > 0).sum(axis=1) > 1).sum()),
        dict(moved),
        {n: (int((old == i).sum()), int((new == i).sum())) for i, n in enumerate(names)},
        tuple(pictures.gaps()),
    )


def _linked(
    pictures: Pictures, persons: np.ndarray, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of every two pictures that belong together."""
    total, links = pictures.blocks(persons, persons), []
    for done, (first, second, _) in enumerate(pictures.near(persons, persons), 1):
        links.append((first, second))
        progress(done, total)
    groups = np.array([name or "" for name in pictures.group])
    for names, rows in (
        (pictures.same, np.arange(len(groups))),
        (groups, np.flatnonzero(groups != "")),
    ):
        # Each picture with the first one of its name.
        _, at, which = np.unique(names[rows], return_index=True, return_inverse=True)
        links.append((rows[at[which]], rows))
    return (
        np.concatenate([first for first, _ in links]),
        np.concatenate([second for _, second in links]),
    )


def as_csv(splits: dict[str, str]) -> bytes:
    """Path and split of each picture, as `data.split.file` reads them. Raises DataError for a
    split that is none of `SPLITS`."""
    wrong = sorted(set(splits.values()) - set(SPLITS))
    if wrong:
        known = ", ".join(SPLITS)
        raise DataError(f"the cache has the split {wrong[0]!r}, which is none of {known}")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("path", "split"))
    rows.writerows(sorted(splits.items()))
    return text.getvalue().encode()
