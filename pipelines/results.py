"""The files of a results folder: where each lies, and how they are written and read.

<folder>/head/            the fitted head: `train.checkpoint`
<folder>/train.json       what `train` says of the fit; curves.csv its epochs
<folder>/scores.parquet   each person's labels and scores: `train.scores`
<folder>/plots/           per_class.csv, pr.csv, confusion.csv
<folder>/metrics.json     the numbers of each split, for people and DVC
<folder>/provenance.json  what these rest on. Written last: it proves that all four belong together
<folder>/report.html      all of this as a page
<folder>/contact_sheet.html  some persons of the index, by `prepare`

Whatever is written here, a kill leaves the old file or the new one, never half of one.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DataError
from cache.files import write_atomic, write_json

RESULTS = Path("results")  # of the project, where commands run
NAMES = ("label", "actual", "predicted")  # columns of tables whose text is never a number


@dataclass(frozen=True)
class Results:
    """The paths of a results folder, and the numbers in it."""

    folder: Path = RESULTS

    @property
    def head(self) -> Path:
        return self.folder / "head"

    @property
    def train_json(self) -> Path:
        return self.folder / "train.json"

    @property
    def curves(self) -> Path:
        return self.folder / "curves.csv"

    @property
    def resume(self) -> Path:
        """What a fit that was stopped goes on from."""
        return self.folder / "resume.pt"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.parquet"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def provenance(self) -> Path:
        return self.folder / "provenance.json"

    @property
    def per_class(self) -> Path:
        return self.folder / "plots" / "per_class.csv"

    @property
    def pr(self) -> Path:
        return self.folder / "plots" / "pr.csv"

    @property
    def confusion(self) -> Path:
        return self.folder / "plots" / "confusion.csv"

    @property
    def contact_sheet(self) -> Path:
        return self.folder / "contact_sheet.html"

    @property
    def report(self) -> Path:
        return self.folder / "report.html"

    @property
    def predictions(self) -> Path:
        """Where `predict` puts its overlay pictures."""
        return self.folder / "predictions"

    @property
    def trials(self) -> Path:
        """Fits that are kept, of sweep, tune and tables."""
        return self.folder / "trials"

    @property
    def sweep(self) -> Path:
        return self.folder / "sweep"

    @property
    def tune(self) -> Path:
        return self.folder / "tune"

    @property
    def crossval(self) -> Path:
        return self.folder / "crossval"

    @property
    def tables(self) -> Path:
        return self.folder / "tables"

    @property
    def pretrain(self) -> Path:
        return self.folder / "pretrain"

    @property
    def finetune(self) -> Path:
        return self.folder / "finetune"

    def read_metrics(self) -> dict[str, Any]:
        """The numbers of each split, and under `provenance` what they rest on. Raises DataError
        where `evaluate` has not run, or was stopped while it wrote."""
        missing = [str(path) for path in (self.metrics, self.provenance) if not path.exists()]
        if missing:
            raise DataError(f"no {', '.join(missing)}: run `emocache evaluate` first")
        numbers, about = (
            json.loads(path.read_text("utf-8")) for path in (self.metrics, self.provenance)
        )
        return {**numbers, "provenance": about}

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """What `read_metrics` reads; `provenance` goes into a file of its own, for DVC shows every
        number of metrics.json as a column."""
        write_json(self.metrics, {name: of for name, of in metrics.items() if name != "provenance"})
        write_json(self.provenance, metrics["provenance"])


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table that `read_csv` gives back number for number; NaN is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(row[name]) for name in columns})
    write_atomic(path, text.getvalue().encode())


def _cell(value: Any) -> Any:
    """Every digit: a score that is equal to its threshold must be equal to it in the file too."""
    if not isinstance(value, float | np.floating):
        return value
    return "" if math.isnan(value) else repr(float(value))


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Rows of a results table; what reads as a number is one, but in a column of names, and an
    empty cell is NaN."""

    def cell(text: str) -> Any:
        try:
            return float(text) if text else math.nan
        except ValueError:
            return text

    with path.open(newline="", encoding="utf-8") as file:
        return [
            {name: text if name in NAMES else cell(text) for name, text in row.items()}
            for row in csv.DictReader(file)
        ]


def plain(value: Any) -> Any:
    """Only what JSON and DVC know: numpy numbers as Python's, NaN as null, the rest as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
