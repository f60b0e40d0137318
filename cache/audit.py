"""Do the splits leak into each other? Pictures that two splits share, persons annotated twice, and
pictures of other bytes that look the same."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from cache.boxes import iou
from cache.errors import DataError, SettingsError
from cache.index import SPLITS, Index, split_order
from cache.paths import view_folder
from cache.progress import Progress, silent
from cache.statuses import STATUS
from cache.store import StoredView, open_view

FEW = 32  # pictures, below which nothing is said of how alike they usually are
SAMPLE = 512  # pictures by which that is judged
NEAR = 0.9  # the least cosine of two pictures that count as one: docs/cache.md has figures
SAME_PERSON = 0.95  # the least IoU of two boxes that count as one person's
FITTED = ("train", "val")  # a head has seen those before a split in this row
VIEW = "scene"
EXAMPLES = 20
NO_LOOKS = (
    "near-duplicates are sought among pictures, and these are recordings: `emocache crossval` "
    "keeps windows that overlap apart"
)
BLOCK = 2048  # pictures of each side compared at once: 16 MB of the paper's features as float32


@dataclass(frozen=True)
class Pair:
    """Two rows that are alike. rows: of pictures or persons, one of each split; paths: of their
    pictures; alike: cosine of two pictures, IoU of two boxes, 1 where they are the same."""

    rows: tuple[int, int]
    paths: tuple[str, str]
    alike: float


@dataclass(frozen=True)
class Overlap:
    """What two splits share.

    equal_pictures: pictures with persons in both, the same by their bytes or their path.
    equal_boxes: boxes in them that both have. near_boxes: pairs of other boxes in them with an IoU
    of `SAME_PERSON` or more. near_pictures: pairs of other pictures whose cosine reaches the
    threshold; None where there was nothing to compare. persons: how many of each split have a
    picture that is equal or near to one of the other. examples: for each of these four counts at
    most `EXAMPLES` pairs, by falling likeness. groups: films, subjects or videos with persons in
    both.
    """

    splits: tuple[str, str]
    equal_pictures: int
    equal_boxes: int
    near_boxes: int
    near_pictures: int | None
    persons: tuple[int, int]
    examples: Mapping[str, Sequence[Pair]]
    groups: int = 0


@dataclass(frozen=True)
class Repeats:
    """Persons that one split has more than once. equal_boxes: rows whose picture and box an
    earlier row has; near_boxes, examples: as in `Overlap`."""

    split: str
    equal_boxes: int
    near_boxes: int
    examples: Mapping[str, Sequence[Pair]]


@dataclass(frozen=True)
class Audit:
    """What `audit` found. near: the threshold it had; overlaps: of every two splits; repeats: of
    every split; notes: what it could not see, in sentences."""

    near: float
    overlaps: Sequence[Overlap]
    repeats: Sequence[Repeats]
    notes: Sequence[str]

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self)


def audit(root: Path, near: float = NEAR, progress: Progress = silent) -> Audit:
    """Compare every two splits of the cache at `root`.

    All persons count but the removed ones: annotation can leak before its pictures are there.
    near: the least cosine of two pictures that count as one, above 0 and at most 1; progress:
    called with (blocks of pictures compared, blocks in all).
    Without features of a trained network the rest is done, and `notes` says so.
    Raises CacheError where index or view is absent or damaged, SettingsError for another `near`.
    """
    index = Index.read(root)
    counted = np.flatnonzero(index.person_status != "removed")
    pictures = Pictures(root, index, near)
    boxes = _Boxes(index, counted, pictures)
    names = sorted(set(index.splits[counted].tolist()), key=split_order)
    persons = {name: counted[index.splits[counted] == name] for name in names}
    pairs = list(combinations(names, 2))
    total = sum(pictures.blocks(persons[a], persons[b]) for a, b in pairs)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    return Audit(
        near,
        [_overlap((a, b), persons[a], persons[b], pictures, boxes, step) for a, b in pairs],
        [_repeats(name, rows, boxes) for name, rows in persons.items()],
        pictures.gaps() if not index.modalities else [NO_LOOKS],
    )


def leaked_persons(root: Path, split: str, near: float = NEAR) -> np.ndarray:
    """Persons of `split` whose picture a head may know already: (n,) int64, person rows, sorted.

    Their picture, or one near to it, has a person of train or, where `split` is not val, of val.
    On both sides only persons with the status ok count, as only they are fitted on or scored.
    Nothing leaks into train. Where `gaps` says so, only equal pictures were found.
    Raises DataError for an unknown split, else what `audit` raises.
    """
    index = Index.read(root)
    known = sorted({*SPLITS, *index.splits.tolist()}, key=split_order)
    if split not in known:
        raise DataError(f"there is no split {split!r}: the cache {root} has {', '.join(known)}")
    before = FITTED[: FITTED.index(split)] if split in FITTED else FITTED
    counted = index.wanted("persons")
    here, there = (counted[np.isin(index.splits[counted], names)] for names in ([split], before))
    pictures = Pictures(root, index, near)
    leaked = pictures.shared(here, there)[0]
    for first, _, _ in pictures.near(here, there):
        leaked |= np.isin(index.picture_rows[here], first)
    return here[leaked]


def gaps(root: Path) -> list[str]:
    """What keeps near-duplicates in the cache at `root` from being found, in sentences; none where
    every picture can be compared. Raises CacheError where index or view is absent or damaged."""
    return Pictures(root, Index.read(root), NEAR).gaps()


def _overlap(
    splits: tuple[str, str],
    some: np.ndarray,
    others: np.ndarray,
    pictures: "Pictures",
    boxes: "_Boxes",
    step: Callable[[], None],
) -> Overlap:
    """What the persons `some` of one split and `others` of the other one share."""
    touched = pictures.shared(some, others)
    near, nearest = 0, list[Pair]()
    for first, second, cosines in pictures.near(some, others):
        near += len(first)
        touched[0] |= np.isin(pictures.rows[some], first)
        touched[1] |= np.isin(pictures.rows[others], second)
        nearest += pictures.examples(first, second, cosines)
        nearest = sorted(nearest, key=lambda pair: -pair.alike)[:EXAMPLES]
        step()
    a, b = pictures.equal(some, others)
    x, y, alike = boxes.between(*splits)
    equal = alike == 1
    told = boxes.same[x[equal]]  # who stands on both sides is not near to someone else as well
    close = ~equal & ~np.isin(boxes.same[x], told) & ~np.isin(boxes.same[y], told)
    return Overlap(
        splits,
        len(a),
        int(equal.sum()),
        int(close.sum()),
        near if pictures.blocks(some, others) else None,
        (int(touched[0].sum()), int(touched[1].sum())),
        {
            "equal_pictures": pictures.examples(a, b, np.ones(len(a))),
            "equal_boxes": boxes.examples(x[equal], y[equal], alike[equal]),
            "near_boxes": boxes.examples(x[close], y[close], alike[close]),
            "near_pictures": nearest,
        },
        len(pictures.groups(some) & pictures.groups(others)),
    )


def _repeats(split: str, persons: np.ndarray, boxes: "_Boxes") -> Repeats:
    x, y, alike = boxes.between(split, split)
    equal = alike == 1
    return Repeats(
        split,
        len(persons) - len(np.unique(boxes.same[persons])),
        int((~equal).sum()),
        {
            "equal_boxes": boxes.examples(x[equal], y[equal], alike[equal]),
            "near_boxes": boxes.examples(x[~equal], y[~equal], alike[~equal]),
        },
    )


class Pictures:
    """Which pictures are the same, and how alike the others are."""

    def __init__(self, root: Path, index: Index, near: float):
        if not 0 < near <= 1:
            raise SettingsError(f"near is {near:g}: a cosine above 0 and at most 1 is needed")
        self.least, self.recordings = near, bool(index.modalities)
        self.rows = index.picture_rows
        self.paths = index.pictures["path"].to_pylist()
        self.group = index.pictures["group"].to_pylist()
        # Equal bytes have one row; a merge may bring the same path under other bytes.
        self.same = np.unique(self.paths, return_inverse=True)[1]  # (M,) one number a path
        self.there = np.unique(self.rows[index.person_status != "removed"])
        # (M,) bool: the pictures that have features; the index may have grown since.
        self.seen = np.zeros(len(self.paths), bool)
        self.view, self.blind = _scene(root)
        if self.view is not None:
            self.seen[: len(self.view)] = self.view.status[: len(self.seen)] == STATUS["ok"]
            if (usual := self._usual()) >= near:
                self.blind = (
                    f"to the view {VIEW!r} in {root} pictures are all alike (the median cosine of "
                    f"two is {usual:.3f}): its network tells little of them apart"
                )
                self.view, self.seen = None, np.zeros(len(self.paths), bool)

    @cached_property
    def features(self) -> np.ndarray:
        """(M, D) of the scene; nothing without the view."""
        return np.zeros((0, 0)) if self.view is None else self.view.read()

    def groups(self, persons: np.ndarray) -> set[str]:
        """Those that their pictures belong to."""
        return {self.group[row] for row in np.unique(self.rows[persons])} - {"", None}

    def gaps(self) -> list[str]:
        """See `audit.gaps`."""
        if self.recordings:  # which have no looks
            return []
        if self.blind:
            return [f"near-duplicate pictures were not sought: {self.blind}"]
        blind = int((~self.seen[self.there]).sum())
        if not blind:
            return []
        return [
            f"{blind} of {len(self.there)} pictures have no {VIEW} features (not extracted yet, "
            "not usable, or nobody in them counts): near-duplicates of them were not sought"
        ]

    def of(self, *persons: np.ndarray) -> list[np.ndarray]:
        """The picture of each person, by a number that is the same where pictures are."""
        return [self.same[self.rows[some]] for some in persons]

    def equal(self, some: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pictures that have persons of both: a row of each side, mostly the same one."""
        a, b = self.of(some, others)
        _, i, j = np.intersect1d(a, b, return_indices=True)
        return self.rows[some[i]], self.rows[others[j]]

    def shared(self, some: np.ndarray, others: np.ndarray) -> list[np.ndarray]:
        """(n,) bool of `some` and of `others`: the persons whose picture has one of both."""
        a, b = self.of(some, others)
        return [np.isin(a, b), np.isin(b, a)]

    def blocks(self, some: np.ndarray, others: np.ndarray) -> int:
        """How many times `near` yields."""
        a, b = (-(-len(self._compared(persons)) // BLOCK) for persons in (some, others))
        return a * (a + 1) // 2 if some is others else a * b

    def near(
        self, some: np.ndarray, others: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Block by block: pictures of `some` persons, and other pictures of the `others` that are
        near to them, as rows; and their cosines. With `some` as `others` each two come once."""
        a, b = self._compared(some), self._compared(others)
        both = np.intersect1d(a, b)
        for start in range(0, len(a), BLOCK):
            left = a[start : start + BLOCK]
            x = self._unit(left)
            for at in range(start if some is others else 0, len(b), BLOCK):
                right = b[at : at + BLOCK]
                cosines = x @ self._unit(right).T
                i, j = np.divmod(np.flatnonzero(cosines >= self.least), len(right))
                first, second = left[i], right[j]
                # Two pictures that both sides have meet twice, and count once.
                again = np.isin(first, both) & np.isin(second, both) & (first > second)
                keep = (self.same[first] != self.same[second]) & ~again
                yield first[keep], second[keep], cosines[i, j][keep]

    def examples(self, first: np.ndarray, second: np.ndarray, alike: np.ndarray) -> list[Pair]:
        """The most alike of these pairs of picture rows."""
        return _pairs(first, second, alike, lambda row: self.paths[row])

    def _compared(self, persons: np.ndarray) -> np.ndarray:
        """Rows of their pictures that have features."""
        rows = np.unique(self.rows[persons])
        return rows[self.seen[rows]]

    def _usual(self) -> float:
        """The median cosine of two pictures, out of some of them; 0 where these are few."""
        rows = np.flatnonzero(self.seen)
        if len(rows) < FEW:
            return 0.0
        some = self._unit(rows[:: max(1, len(rows) // SAMPLE)])
        return float(np.median((some @ some.T)[np.triu_indices(len(some), 1)]))

    def _unit(self, rows: np.ndarray) -> np.ndarray:
        """(n, D) float32: their features, of length 1; zeros stay zeros."""
        features = self.features[rows].astype(np.float32)
        return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


class _Boxes:
    """Pairs of persons in one picture whose boxes are one person's, among those that count."""

    def __init__(self, index: Index, counted: np.ndarray, pictures: Pictures):
        self.splits, self.pictures = index.splits, pictures
        (which,) = pictures.of(counted)
        self.first, self.second, self.alike = _alike(counted, which, index.boxes)
        # (P,) the first row with this picture and box, so that repeats count once.
        self.same = np.arange(len(index.persons))
        equal = self.alike == 1
        np.minimum.at(self.same, self.second[equal], self.first[equal])

    def between(self, a: str, b: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Person rows of split `a` and of split `b` with their IoU, each two boxes once."""
        x, y, alike = self.first, self.second, self.alike
        if a != b:
            x, y, alike = np.append(x, y), np.append(y, x), np.append(alike, alike)
        here = (self.splits[x] == a) & (self.splits[y] == b)
        x, y, alike = x[here], y[here], alike[here]
        two = np.sort(np.stack([self.same[x], self.same[y]], axis=1), axis=1)
        once = np.unique(two, axis=0, return_index=True)[1]
        return x[once], y[once], alike[once]

    def examples(self, first: np.ndarray, second: np.ndarray, alike: np.ndarray) -> list[Pair]:
        """The most alike of these pairs of person rows."""
        pictures = self.pictures
        return _pairs(first, second, alike, lambda row: pictures.paths[pictures.rows[row]])


def _pairs(
    first: np.ndarray, second: np.ndarray, alike: np.ndarray, path_of_row: Callable[[int], str]
) -> list[Pair]:
    best = np.argsort(-alike, kind="stable")[:EXAMPLES]
    rows = [(int(first[i]), int(second[i])) for i in best]
    return [
        Pair((a, b), (path_of_row(a), path_of_row(b)), round(float(likeness), 4))
        for (a, b), likeness in zip(rows, alike[best], strict=True)
    ]


def _scene(root: Path) -> tuple[StoredView | None, str]:
    """The view whose features tell pictures apart; or none, and why."""
    if not view_folder(root, VIEW).is_dir():
        return None, f"the cache {root} has no view {VIEW!r} (`emocache extract` makes it)"
    view = open_view(root, VIEW)
    if not view.trained:  # to random weights nearly all pictures are alike
        return None, f"the view {VIEW!r} in {root} was made with random weights"
    return view, ""


def _alike(
    persons: np.ndarray, pictures: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every two of `persons` (n,) in the same of `pictures` (n,) whose boxes have an IoU of
    `SAME_PERSON` or more: their rows, the lower first, and the IoU."""
    order = np.argsort(pictures, kind="stable")
    found = [(np.zeros(0, int), np.zeros(0, int), np.zeros(0))]
    for gap in range(1, int(np.bincount(pictures).max(initial=0))):
        together = pictures[order[gap:]] == pictures[order[:-gap]]
        x, y = persons[order[:-gap][together]], persons[order[gap:][together]]
        alike = _same_person(boxes[x].astype(np.float64), boxes[y].astype(np.float64))
        one = alike >= SAME_PERSON
        found.append((x[one], y[one], alike[one]))
    first, second, alike = (np.concatenate(some) for some in zip(*found, strict=True))
    return first, second, alike


def _same_person(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(n,) IoU of boxes (n, 4): 1 where they agree to a hundredth of a pixel, as in the id of a
    person, below 1 elsewhere; NaN where one is no box."""
    equal = (np.round(a, 2) == np.round(b, 2)).all(1)
    return np.where(equal, 1.0, np.minimum(iou(a, b), 1 - 1e-9))
