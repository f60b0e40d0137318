"""WESAD (Schmidt et al., ICMI 2018): chest and wrist signals of 15 people who rest, are stressed,
are amused, and meditate.

A pickle of Python 2 for each subject, `S2/S2.pkl` to `S17/S17.pkl`, below the root or below
`WESAD` in it:

    signal.chest   ACC (T, 3) in g, ECG and EMG in mV, EDA in µS, Temp in °C, Resp in %, each (T,
    1);
                   700 samples a second
    signal.wrist   ACC (n, 3) in 1/64 g, 32 a second; BVP (n, 1), 64 a second; EDA in µS and TEMP in
                   °C, (n, 1), 4 a second
    label          (T,): 1 baseline, 2 stress, 3 amusement, 4 meditation; 0 between them, 5 to 7
    other subject        "S2"

Pickles are read by `extract.signals.unpickle`, which runs nothing. A stretch is as long as one
label lasts, `S2/S2.pkl#1-baseline`, numbered in order of time; windows (`data.window`) lie wholly
in it. There is no official split: subjects are the groups.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cache.boxes import NO_BOX
from cache.errors import DataError, first_line
from cache.index import LabelKind
from extract import images
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.definitions import shipped
from extract.images import PictureError
from extract.signals.recording import Channel, Channels, Modality
from extract.signals.unpickle import load_arrays

CONDITIONS = {1: "baseline", 2: "stress", 3: "amusement", 4: "meditation"}
LABELS = range(8)  # that the published files have
RATE = 700.0  # of the chest and of the labels
# Channel: device, name in the pickle, columns, samples a second, unit.
CHANNELS: Mapping[str, tuple[str, str, int, float, float]] = {
    "ecg": ("chest", "ECG", 1, RATE, 1.0),
    "emg": ("chest", "EMG", 1, RATE, 1.0),
    "eda": ("chest", "EDA", 1, RATE, 1.0),
    "temp": ("chest", "Temp", 1, RATE, 1.0),
    "resp": ("chest", "Resp", 1, RATE, 1.0),
    "bvp": ("wrist", "BVP", 1, 64.0, 1.0),
    "wrist_eda": ("wrist", "EDA", 1, 4.0, 1.0),
    "wrist_temp": ("wrist", "TEMP", 1, 4.0, 1.0),
    "chest_motion": ("chest", "ACC", 3, RATE, 1.0),
    "wrist_motion": ("wrist", "ACC", 3, 32.0, 1 / 64),
}
MEASURED = {
    "ecg": "cardiac_ecg", "emg": "muscle", "eda": "electrodermal", "temp": "temperature",
    "resp": "respiration", "bvp": "cardiac_ppg", "wrist_eda": "electrodermal",
    "wrist_temp": "temperature", "chest_motion": "motion", "wrist_motion": "motion",
}  # fmt: skip
LARGEST = 1 << 33  # bytes of a file: the published ones have about a tenth
APART = 2.0  # seconds by which a channel and the labels may differ in length
UNREADABLE = "0-unreadable"  # what stands for the stretches of a file that cannot be read

Stretches = list[tuple[str, str, int, int]]  # name, label, first sample, one after the last
# Of a file: channels as they are in it, label of each sample, stretches.
Subject = tuple[dict[str, np.ndarray], np.ndarray, Stretches]


@dataset("wesad")
class Wesad(Dataset):
    """WESAD by its synchronised files. Wrist acceleration is given in g, as that of the chest
    is."""

    kind: LabelKind | Literal[""] = "single"
    splits = ()
    modalities: Mapping[str, Modality] = {
        name: Modality(
            "behavioural" if measure == "motion" else "physiological",
            (name,), measure, "wesad", (CHANNELS[name][2],),
        )
        for name, measure in MEASURED.items()
    }  # fmt: skip

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.definitions = shipped(self.name)
        self.labels = tuple(self.definitions)
        self._files = _subjects(self.root) or _subjects(self.root / "WESAD")
        if not self._files:
            raise DataError(
                f"{self.root} has no S2/S2.pkl, S3/S3.pkl, ...: set data.root to the folder of "
                "WESAD"
            )
        self.note = "WESAD"

    def records(self) -> Iterator[PictureRecord]:
        """Subjects in the order of their numbers, stretches in order of time. A file that cannot be
        read is one record, and its only person says why. Raises DataError where none can be."""
        self.counts.clear()
        have = {path.parent.name for path in self._files}
        folders = {path.name for path in self.root.glob("S*") if path.is_dir()}
        lacking = [name for name in folders - have if name[1:].isdecimal()]
        self.counts["subjects' folders without their pickle"] += len(lacking)
        faults = 0
        for path in self._files:
            below = path.relative_to(self.root).as_posix()
            try:
                place = images.place(self.root.resolve(), below, self.follow_links)
                _, label, stretches = _parsed(images.load(place, LARGEST // 8))
            except PictureError as error:
                faults += 1
                if faults == len(self._files):
                    raise DataError(
                        f"no subject of WESAD can be read: {path}: {error.reason}; see data.root"
                    ) from error
                self.counts["subjects that cannot be read"] += 1
                yield self._unreadable(below, path.stem, error)
                continue
            yield from self._stretches(path, below, label, stretches)

    @classmethod
    def decode(cls, data: bytes, stretch: str) -> Channels:
        """Every channel of `CHANNELS` from the begin of the stretch to its end, float64, in the
        units above and in g."""
        held, _, stretches = _last_parsed(data)
        for name, _, start, end in stretches:
            if name == stretch:
                return {
                    channel: _cut(held[channel], start / RATE, end / RATE, rate, unit)
                    for channel, (_, _, _, rate, unit) in CHANNELS.items()
                }
        raise PictureError(f"the file has no stretch {stretch!r}")

    def targets(self, path: Path, stretches: Stretches) -> Iterator[tuple[np.ndarray, str]]:
        """What the windows of each stretch are labelled with, and why they are not."""
        for _, label, _, _ in stretches:
            yield np.array([label == name for name in self.labels], np.float32), ""

    def _stretches(
        self, path: Path, below: str, label: np.ndarray, stretches: Stretches
    ) -> Iterator[PictureRecord]:
        for value, count in _others(label).items():
            self.counts[f"stretches with label {value}, which is no condition"] += count
        targets = self.targets(path, stretches)
        for (name, _, start, end), (target, fault) in zip(stretches, targets, strict=True):
            seconds = (end - start) / RATE
            persons = [
                PersonRecord(
                    (at, 0.0, at + self.window[0], 1.0), "", target, annotators=int(not fault),
                    status="unlabelled" if fault else "ok", reason=fault,
                )
                for at in _begins(seconds, *self.window)
            ]  # fmt: skip
            if not persons:
                self.counts["stretches shorter than a window (data.window.seconds)"] += 1
            yield PictureRecord(
                f"{below}#{name}", "", "WESAD", math.ceil(seconds), 1, persons, path.stem
            )

    def _unreadable(self, below: str, subject: str, error: PictureError) -> PictureRecord:
        nothing = np.zeros(len(self.labels), np.float32)
        person = PersonRecord(
            NO_BOX, "", nothing, annotators=0, status=error.status, reason=error.reason
        )
        return PictureRecord(f"{below}#{UNREADABLE}", "", "WESAD", 1, 1, [person], subject)


def _subjects(root: Path) -> list[Path]:
    """Their files, in the order of their numbers."""
    found = [path for path in root.glob("S*/S*.pkl") if path.stem == path.parent.name]
    return sorted(
        (path for path in found if path.stem[1:].isdecimal()), key=lambda path: int(path.stem[1:])
    )


def _parsed(data: bytes) -> Subject:
    """A subject's file. Raises PictureError for one that is not in the form above; `missing` where
    memory was too small for it."""
    try:
        held = load_arrays(data)
    except DataError as error:
        if isinstance(error.__cause__, MemoryError):
            raise PictureError(first_line(error), "missing") from error
        raise PictureError(first_line(error)) from error
    label = _labels(held)
    channels: dict[str, np.ndarray] = {}
    for channel, (device, name, columns, rate, _) in CHANNELS.items():
        values = held["signal"]
        for key in (device, name):
            values = values.get(key) if isinstance(values, dict) else None
        if values is None:
            raise PictureError(f"it has no channel signal.{device}.{name}")
        if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf":
            raise PictureError(f"signal.{device}.{name} is no array of numbers")
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or values.shape[1] != columns:
            raise PictureError(
                f"signal.{device}.{name} is {values.shape}, not (samples, {columns})"
            )
        seconds, wanted = len(values) / rate, len(label) / RATE
        if abs(seconds - wanted) > APART:
            raise PictureError(
                f"signal.{device}.{name} lasts {seconds:.1f} s at {rate:g} a second, and label "
                f"{wanted:.1f} s"
            )
        channels[channel] = values
    return channels, label, _named(label)


# The stretches of a file are asked for one after the other, and a file takes seconds.
_last_parsed: Callable[[bytes], Subject] = lru_cache(maxsize=1)(_parsed)


def _labels(held: Any) -> np.ndarray:
    if not isinstance(held, dict) or not {"signal", "label"} <= held.keys():
        raise PictureError("it holds no dict of signal, label and subject")
    label = held["label"]
    if not isinstance(label, np.ndarray) or label.dtype.kind not in "iuf" or not label.size:
        raise PictureError("label is no array of numbers")
    label = label.ravel()
    odd = ~np.isin(label, LABELS)
    if odd.any():
        raise PictureError(f"label has {label[odd][0]}, which is none of 0 to {LABELS[-1]}")
    return label.astype(np.int8)


def _runs(label: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """Each value that lasts: value, first sample, one after the last."""
    edges = np.flatnonzero(np.diff(label)) + 1
    bounds = [0, *edges.tolist(), len(label)]
    for start, end in pairwise(bounds):
        yield int(label[start]), start, end


def _named(label: np.ndarray) -> Stretches:
    known = [(CONDITIONS[v], a, b) for v, a, b in _runs(label) if v in CONDITIONS]
    return [(f"{n}-{name}", name, a, b) for n, (name, a, b) in enumerate(known, 1)]


def _others(label: np.ndarray) -> dict[int, int]:
    """Values that are no condition: how many stretches of each."""
    found: dict[int, int] = {}
    for value, _, _ in _runs(label):
        if value not in CONDITIONS:
            found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items()))


def _begins(seconds: float, length: float, step: float) -> list[float]:
    """Where windows begin that lie wholly in so many seconds."""
    count = math.floor((seconds - length) / step + 1e-9) + 1
    return [at * step for at in range(max(count, 0))]


def _cut(values: np.ndarray, start: float, end: float, rate: float, unit: float) -> Channel:
    part = values[round(start * rate) : round(end * rate)]
    return Channel(part.astype(np.float64) * unit, rate)
