"""WESAD (Schmidt et al., ICMI 2018) as a table of ready features: a CSV with a row a window.

Columns: the features; `raw_label`, WESAD's condition (1 baseline, 2 stress, 3 amusement, 4
meditation); `time_end_sec`, when the window ends, in seconds of the session; `subject_id`; and
`label`, which is compared with raw_label. The name of a feature says its modality, after `raw_` (as
measured) or `z_` (in standard deviations of the subject's own baseline):

    acc_              motion          behavioural
    eda_, scl_, scr_  electrodermal   physiological
    hrv_              cardiac         physiological
    temp_             temperature     physiological

Another column is refused, so that none is lost unseen. A feature that is empty or NaN makes its
window `unreadable`, with a reason; a word in its place is a fault of the table. Other conditions
(0 between the tasks, 5 to 7) are `unlabelled`.

A stretch is a run of windows of one subject and one condition that touch or overlap: `S10 baseline
180-1290` has those that end from 180 to 1290 s. The table says where windows end, not how long they
are: `data.window.seconds`, 60 where nothing is set. A window is the box (start, 0, start + length,
1) in seconds from the begin of its run's first, so windows 30 s apart overlap in the index as they
did on the wrist. Its features are one row: a channel here finds it by its start (`Windows`).

In the tables of 54 features that were at hand no window ends before 180 s, though a baseline may
begin sooner: that fits what is said of the program that made them, features of heart rate in
frequency over the last 180 s and all others over the last 60 s. data.window.seconds: 180 parts
those too. z_ features know the whole baseline of their subject, whatever the split.
"""

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from cache.errors import DataError, in_few
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.datasets._reading import found_below, number
from extract.datasets._rows import Windows, bytes_of
from extract.definitions import shipped
from extract.images import PictureError
from extract.signals.recording import Channels, Modality, Role

CONDITIONS = ("baseline", "stress", "amusement", "meditation")  # raw_label 1 to 4
MODALITIES: dict[str, tuple[Role, tuple[str, ...]]] = {
    "motion": ("behavioural", ("acc_",)),
    "electrodermal": ("physiological", ("eda_", "scl_", "scr_")),
    "cardiac": ("physiological", ("hrv_",)),
    "temperature": ("physiological", ("temp_",)),
}
FORM = ("raw_label", "time_end_sec", "subject_id")
OTHERS = (*FORM, "label")
STRETCH = re.compile(r"(?P<subject>.+) (?P<condition>\S+) (?P<first>\S+)-(?P<last>\S+)")


@dataclass(frozen=True, eq=False)
class _Table:
    """Windows sorted by subject and time. columns: names of the features; features (N, F) float32;
    conditions: a name, or what stands in place of one; ends (N,) seconds; apart: how many rows have
    another `label` than their condition asks for."""

    columns: tuple[str, ...]
    features: np.ndarray
    conditions: list[str]
    ends: np.ndarray
    subjects: list[str]
    apart: int


@dataset("wesad_features")
class WesadFeatures(Dataset):
    """Ready features of WESAD's windows; `data.file` chooses one of several tables."""

    kind = "single"
    splits = ()
    choosable = True

    def __init__(self, root: Path, file: Path | None = None) -> None:
        super().__init__(root)
        self._file = found_below(self.root, file, "*.csv", "the table of features")
        table = self._table()
        self.definitions = shipped("wesad")
        self.labels = CONDITIONS
        names = {m: tuple(c for c in table.columns if _modality(c) == m) for m in MODALITIES}
        self.modalities = {
            name: Modality(MODALITIES[name][0], columns, "given", "wesad_features")
            for name, columns in names.items()
            if columns
        }
        self.note = f"WESAD, features as given in {self._file.name}"

    def records(self) -> Iterator[PictureRecord]:
        """Runs by subject and time."""
        self.counts.clear()
        table = self._table()
        if table.apart:
            self.counts["windows whose label is not that of raw_label"] = table.apart
        below, length = self._file.relative_to(self.root).as_posix(), self.window[0]
        for rows in _runs(table, length):
            subject, condition = table.subjects[rows[0]], table.conditions[rows[0]]
            first, last = float(table.ends[rows[0]]), float(table.ends[rows[-1]])
            persons = [self._person(table, row, float(table.ends[row]) - first) for row in rows]
            self.counts.update(f"windows {one.status}" for one in persons if one.status != "ok")
            yield PictureRecord(
                f"{below}#{subject} {condition} {_told(first)}-{_told(last)}", "", condition,
                math.ceil(last - first + length), 1, persons, subject,
            )  # fmt: skip

    @classmethod
    def decode(cls, data: bytes, stretch: str) -> Channels:
        """Each feature, a channel of the windows of one run."""
        try:
            table = _parsed(data)
        except DataError as error:
            raise PictureError(str(error)) from error
        rows = _rows_of(table, stretch)
        if not len(rows):
            raise PictureError(f"the table has no windows of {stretch!r}")
        starts = table.ends[rows] - table.ends[rows[0]]
        rate = (len(rows) - 1) / starts[-1] if starts[-1] else 1.0
        values = table.features[rows]
        return {
            name: Windows(values[:, at : at + 1], float(rate), starts)
            for at, name in enumerate(table.columns)
        }

    def _table(self) -> _Table:
        try:
            return _parsed(bytes_of(self._file))
        except DataError as error:
            raise DataError(f"{self._file}: {error}: see data.root and data.file") from error

    def _person(self, table: _Table, row: int, start: float) -> PersonRecord:
        condition = table.conditions[row]
        known = condition in CONDITIONS
        labels = np.array([condition == name for name in self.labels], np.float32)
        wrong = np.flatnonzero(~np.isfinite(table.features[row]))
        status = "ok" if known else "unlabelled"
        reason = "" if known else f"{condition} is none of the conditions"
        if len(wrong):
            status = "unreadable"
            reason = f"{in_few([table.columns[at] for at in wrong])}: no finite number"
        return PersonRecord(
            (start, 0, start + self.window[0], 1), "", labels, annotators=int(known),
            status=status, reason=reason,
        )  # fmt: skip


def _modality(column: str) -> str:
    """What a feature is of, or ""."""
    plain = column.removeprefix("raw_").removeprefix("z_")
    return next((name for name, (_, ends) in MODALITIES.items() if plain.startswith(ends)), "")


def _runs(table: _Table, length: float) -> Iterator[np.ndarray]:
    """The rows of each run, in the order of time."""
    breaks = [
        at
        for at in range(1, len(table.ends))
        if table.subjects[at] != table.subjects[at - 1]
        or table.conditions[at] != table.conditions[at - 1]
        or table.ends[at] - table.ends[at - 1] > length
    ]
    yield from np.split(np.arange(len(table.ends)), breaks)


def _rows_of(table: _Table, stretch: str) -> np.ndarray:
    found = STRETCH.fullmatch(stretch)
    if found is None:
        return np.zeros(0, int)
    first, last = number(found["first"]), number(found["last"])
    return np.array(
        [
            row
            for row, end in enumerate(table.ends)
            if table.subjects[row] == found["subject"]
            and table.conditions[row] == found["condition"]
            and first - 1e-3 <= end <= last + 1e-3
        ],
        int,
    )


def _told(seconds: float) -> str:
    """1290 or 1290.5, to the millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


@lru_cache(maxsize=1)  # the runs of a table are asked for one after the other
def _parsed(data: bytes) -> _Table:
    """The table in a file. Raises DataError, naming the line, for what is none."""
    try:
        rows = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), strict=True)
        header = tuple(name.strip() for name in rows.fieldnames or ())
        columns = tuple(name for name in header if name not in OTHERS)
        _require_columns(header, columns)
        found = [_row(cells, header, columns, f"line {rows.line_num}") for cells in rows]
    except UnicodeDecodeError as error:
        raise DataError(f"it is not UTF-8 ({error.reason})") from error
    except csv.Error as error:
        raise DataError(f"it is no CSV file ({error})") from error
    if not found:
        raise DataError("it has no rows")
    found.sort(key=lambda row: row[:2])
    for one, next_one in pairwise(found):
        if one[:2] == next_one[:2]:
            raise DataError(f"two windows of {one[0]} end at {_told(one[1])} s")
    subjects, ends, conditions, words, features = zip(*found, strict=True)
    apart = sum(
        word not in ("", "stress" if condition == "stress" else "non-stress")
        for word, condition in zip(words, conditions, strict=True)
    )
    with np.errstate(over="ignore"):  # what float32 cannot hold is a window that is not finite
        values = np.array(features, np.float64).astype(np.float32)
    return _Table(columns, values, list(conditions), np.array(ends), list(subjects), apart)


def _require_columns(header: tuple[str, ...], columns: tuple[str, ...]) -> None:
    missing = set(FORM) - set(header)
    if missing:
        raise DataError(f"it has no column {', '.join(sorted(missing))}")
    twice = [name for name, times in Counter(header).items() if times > 1]
    if twice:
        raise DataError(f"it has the column {twice[0]!r} twice")
    other = [name for name in columns if not _modality(name)]
    if other or not columns:
        known = ", ".join(end for _, ends in MODALITIES.values() for end in ends)
        raise DataError(
            f"it has {f'the column {other[0]!r}' if other else 'no column of features'}: features "
            f"begin with {known}, after raw_, z_ or nothing; take others out"
        )


def _row(
    cells: dict[str, str], header: tuple[str, ...], columns: tuple[str, ...], where: str
) -> tuple[str, float, str, str, list[float]]:
    """Subject, end, condition, `label` and features of a line."""
    if None in cells:
        raise DataError(f"{where} has more cells than the header has columns")
    text = dict(zip(header, ((cell or "").strip() for cell in cells.values()), strict=True))
    subject, end = text["subject_id"], number(text["time_end_sec"])
    if not subject or "#" in subject:
        raise DataError(f"{where} has the subject_id {subject!r}, which cannot name a subject")
    if not (math.isfinite(end) and end >= 0):
        raise DataError(f"{where} has the time_end_sec {text['time_end_sec']!r}")
    features = [number(text[name]) for name in columns]
    for name, value in zip(columns, features, strict=True):
        if math.isnan(value) and text[name].lower() not in ("", "nan", "na"):
            raise DataError(f"{where} has {text[name]!r} for {name}, which is no number")
    label = number(text["raw_label"] or "nan")
    if not label.is_integer() and text["raw_label"].lower() not in ("", "nan", "na"):
        raise DataError(f"{where} has the raw_label {text['raw_label']!r}")
    names = dict(enumerate(CONDITIONS, 1))
    condition = f"raw_label={text['raw_label'] or 'none'}"
    if label.is_integer():
        condition = names.get(int(label), f"raw_label={int(label)}")
    return subject, end, condition, text.get("label", ""), features
