"""WESAD by what its subjects said: the shares of 24 feelings after each condition.

`S2/S2_quest.csv` beside `S2/S2.pkl` has cells between semicolons; of its lines are read

    # ORDER;Base;TSST;Medi 1;Fun;Medi 2;sRead;fRead    the conditions as they followed each other
    # PANAS;1;1;3;...                                  a line for each of the first five: 1 to 5

The 24 items are the 20 of PANAS (some exchanged: annoyed for upset), then stressed, frustrated,
happy, sad. The line of TSST has two more, angry and irritated, between happy and sad; they are left
out, as they were asked nowhere else. The label of a window is score / sum of the scores of its
condition; as `not at all` scores 1, shares are never 0, and far from 1.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from cache.errors import DataError
from extract.datasets import dataset
from extract.datasets._reading import lines_of, number
from extract.datasets.wesad import Stretches, Wesad

CONDITIONS = {"base": "baseline", "tsst": "stress", "fun": "amusement", "medi": "meditation"}
ITEMS, BEFORE = 24, 23  # items; those before the two that only the line of TSST has
SCORES = range(1, 6)


@dataset("wesad_panas")
class WesadPanas(Wesad):
    """The recordings of WESAD with soft labels. A condition with an item left out, and a subject
    whose conditions are not those of the signals, are `unlabelled`."""

    kind = "distribution"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.note = "WESAD by PANAS"

    def targets(self, path: Path, stretches: Stretches) -> Iterator[tuple[np.ndarray, str]]:
        nothing = np.zeros(len(self.labels), np.float32)
        told, fault = self._told(path.with_name(f"{path.stem}_quest.csv"), stretches)
        if fault:
            self.counts["subjects without answers that fit"] += 1
            yield from ((nothing, fault) for _ in stretches)
            return
        missing = 0
        for (_, scores), some in zip(told, _conditions(stretches), strict=True):
            left_out = np.flatnonzero(np.isnan(scores))
            missing += bool(len(left_out))
            for _ in some:
                if len(left_out):
                    yield nothing, f"no answer for {self.labels[left_out[0]]}"
                else:
                    yield (scores / scores.sum()).astype(np.float32), ""
        if missing:
            self.counts["conditions with an item that was not answered"] += missing

    def _told(self, file: Path, stretches: Stretches) -> tuple[list[tuple[str, np.ndarray]], str]:
        """Of each condition in order of time its label and the scores, NaN where there is none; or
        why they are not of these stretches."""
        if not file.is_file():
            return [], f"there is no {file.name}"
        order: list[str] = []
        scores: list[np.ndarray] = []
        for at, line in enumerate(lines_of(file), 1):
            what, *cells = (cell.strip() for cell in line.strip().split(";"))
            if what == "# ORDER":
                words = [cell.lower().split(" ")[0] for cell in cells]
                order = [CONDITIONS[word] for word in words if word in CONDITIONS]
            elif what == "# PANAS":
                scores.append(_scores(cells, f"{file}, line {at}"))
        if len(order) != len(scores) or not order:
            raise DataError(
                f"{file} has {len(scores)} lines of PANAS for {len(order)} conditions of ORDER: "
                "see data.root"
            )
        found = [some[0] for some in _conditions(stretches)]
        if order != found:
            return [], f"{file.name} has {', '.join(order)}, the signals {', '.join(found)}"
        return list(zip(order, scores, strict=True)), ""


def _conditions(stretches: Stretches) -> list[list[str]]:
    """The labels of the stretches of each condition: those that follow each other."""
    return [list(some) for _, some in groupby(label for _, label, _, _ in stretches)]


def _scores(cells: Sequence[str], where: str) -> np.ndarray:
    """The scores of the 24 items of a line; NaN for one that was left out."""
    last = max((at for at, cell in enumerate(cells, 1) if cell), default=0)
    if last not in (ITEMS, ITEMS + 2):
        raise DataError(f"{where} has {last} answers, not {ITEMS} or {ITEMS + 2}: see data.root")
    given = [*cells[:BEFORE], cells[last - 1]]
    found = np.array([number(cell) for cell in given])
    for cell, score in zip(given, found, strict=True):
        if cell.lower() not in ("", "nan") and score not in SCORES:
            raise DataError(f"{where} has the answer {cell!r}, which is none of 1 to 5")
    return found
