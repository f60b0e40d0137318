"""Which split a picture stands in, where the data set does not say.

A split that is drawn depends on the seed and on the picture's group, or its bytes where it has
none, and on nothing else: not on the order of the files, nor on what else is there. So pictures
that are added later move no other one, pictures of one group stay together, and so do equal bytes.
"""

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cache.errors import DataError
from cache.index import SPLITS
from extract.settings import Split

HEADER = ["path", "split"]


@dataclass
class Splitter:
    """Gives each picture its split.

    settings: see `extract.settings.Split`; has: the splits that the set itself has. None: all
    three are drawn. Train and test: val is drawn from train. Where `settings.file` lists a picture,
    its split stands. counts: what was done, by name.
    """

    settings: Split
    has: Sequence[str]
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        if self.settings.val + self.settings.test >= 1:
            raise DataError("data.split.val and data.split.test leave nothing for train: lower one")
        self._listed = dict(_listed(self.settings.file)) if self.settings.file else {}
        self._used: set[str] = set()
        self._unlisted: set[str] = set()
        self._groups: dict[str, str] = {}
        self._dealt: dict[str, str] = {}
        self._group = re.compile(self.settings.group) if self.settings.group else None

    def group(self, path: str, given: str) -> str:
        """Of the picture: the one that the set gives, or that `data.split.group` finds in its
        path; "" where there is none."""
        if given or self._group is None:
            return given
        if path not in self._groups:
            found = self._group.search(path)
            if found is None:
                self.counts["pictures whose path data.split.group does not match"] += 1
            self._groups[path] = (found.group(1) or "") if found else ""
        return self._groups[path]

    def deal(self, groups: Iterable[str]) -> None:
        """Give each of these groups a split, by number: where they are few, a draw of each by
        itself leaves splits empty. The order is drawn by the seed; test and val get their shares
        of the groups, at least one each where three or more are there. A group that comes later
        may move others."""
        order = sorted(set(groups), key=lambda group: _place(self.settings.seed, f"group:{group}"))
        total, left = len(order), max(len(order) - 1, 0)  # one for train
        for split in ("test", "val"):
            share = getattr(self.settings, split)
            count = min(max(1, round(share * total)), left) if share else 0
            left -= count
            self._dealt |= dict.fromkeys(order[:count], split)
            order = order[count:]
        self._dealt |= dict.fromkeys(order, "train")

    def split(self, official: str, path: str, group: str, identity: str) -> str:
        """Of a picture of that group, or of these bytes where it has none; official: the split
        that the set gives, or ""."""
        listed = self._listed.get(path)
        if listed is not None:
            self._used.add(path)
            return listed
        if self._listed:
            self._unlisted.add(path)
        if group in self._dealt:
            return self._dealt[group]
        where = _place(self.settings.seed, f"group:{group}" if group else identity)
        if not self.has:
            if where < self.settings.test:
                return "test"
            return "val" if where < self.settings.test + self.settings.val else "train"
        if official == "train" and self._val_from_train and where < self.settings.val:
            return "val"
        return official

    @property
    def _val_from_train(self) -> bool:
        return "train" in self.has and "val" not in self.has and self.settings.val > 0

    def drawn(self) -> list[str]:
        """The splits that are not simply the set's own, of which each should get somebody."""
        if self.settings.file:
            return list(self.has or SPLITS)
        if not self.has:
            asked = {"val": self.settings.val, "test": self.settings.test}
            return ["train", *(split for split, share in asked.items() if share)]
        return ["val"] if self._val_from_train else []

    def said(self) -> str:
        """How splits were made, in words, for every result; "" where they are the set's own."""
        some = self.settings
        by = "by group where there is one, else by picture"
        if some.file:
            return f"splits of {some.file.name}"
        if self._dealt:
            counts = Counter(self._dealt.values())
            told = " : ".join(str(counts[split]) for split in SPLITS)
            return f"splits dealt by group, {told} groups, seed {some.seed}: not official"
        if not self.has:
            left = 1 - some.val - some.test
            return (
                f"splits drawn {left:.0%} : {some.val:.0%} : {some.test:.0%} {by}, "
                f"seed {some.seed}: not official"
            )
        if self._val_from_train:
            return f"val is {some.val:.0%} of train, drawn {by}, seed {some.seed}"
        return ""

    def mismatches(self) -> Counter[str]:
        """How many paths of the file the data set has not, and how many of its own it lacks."""
        return Counter(
            {
                "paths of data.split.file that the data set has not": len(
                    self._listed.keys() - self._used
                ),
                "pictures that data.split.file does not list": len(self._unlisted),
            }
        )


def _place(seed: int, key: str) -> float:
    """A number from 0 to 1 that seed and key decide."""
    digest = hashlib.sha256(f"{seed}\0{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _listed(file: Path) -> Iterator[tuple[str, str]]:
    """Path and split of each line. Raises DataError, naming the line, for anything else."""
    seen: dict[str, str] = {}
    try:
        with open(file.expanduser(), newline="", encoding="utf-8-sig") as lines:
            rows = csv.reader(lines)
            for row in rows:
                number = rows.line_num
                if not row or (number == 1 and row == HEADER):
                    continue
                if len(row) != 2 or row[1] not in SPLITS:
                    raise DataError(
                        f"{file}, line {number}: {','.join(row)!r} is no path and split (one of "
                        f"{', '.join(SPLITS)}): see data.split.file"
                    )
                if seen.setdefault(row[0], row[1]) != row[1]:
                    raise DataError(f"{file}, line {number}: {row[0]} stands in two splits")
                yield row[0], row[1]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read ({error}): see data.split.file") from error
