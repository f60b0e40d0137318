"""DMER (Yang et al., Scientific Data 2024), in the features on which HeLo was fitted.

A .mat file for each subject, version 5 to 7.3, anywhere below the root, with

    feas (N, 913)   a row a second of a video: EEG 0:90, GSR 90:118, PPG 118:145, face 145:913
    vids (N, 1)     the video of each row, or (1, N)

and dis_label (videos, C), what the subject felt at each video: in the same file, as the code of
HeLo reads it; else in a file of a folder that is called as the subject (`1/datas.mat` beside
`features/1.mat`), as the code of the data set writes it; else in the one file left that has it.
The label of a row is dis_label[video] / its sum. EEG's 90 columns are 18 channels of 5 bands.

The code of the data set takes a row's GSR and PPG from five seconds that begin a second after those
of the row before, and EEG and face from the last of them. So rows near each other share signal,
and say so: a row is the box (k, 0, k + 5, 1) in seconds of its video. That code also puts complex
numbers among the features (of Fourier transforms); the real part counts, as in a cast to float.

From these two programs are: the names, the columns, the division, the five seconds, and that `vids`
counts from 0. No file of DMER was at hand. The names of the C = 10 emotions stand in neither: they
are called `emotion 1` to `emotion 10`, unless `labels.yaml` in the root names them, in the order of
dis_label.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from cache.errors import DataError
from extract.datasets import Dataset, PictureRecord, dataset
from extract.datasets._matlab import arrays, shapes
from extract.datasets._rows import Windows, bytes_of, row_record, shares_of
from extract.definitions import read
from extract.images import PictureError
from extract.signals.recording import Channels, Modality

COLUMNS = {"eeg": (0, 90), "gsr": (90, 118), "ppg": (118, 145), "face": (145, 913)}
WIDTH = 913
SECONDS = 5  # of signal in a row; the next begins a second later
STRETCH = re.compile(r"video-(-?\d+)")


@dataset("dmer")
class Dmer(Dataset):
    """DMER by its feature files. A stretch is a video of a subject, `1.mat#video-7`: its rows in
    the order of the file, though others may stand between them. The video is an attribute too."""

    kind = "distribution"
    splits = ()
    modalities: Mapping[str, Modality] = {
        name: Modality(
            "behavioural" if name == "face" else "physiological",
            (name,), "given", "dmer", (end - start,),
        )
        for name, (start, end) in COLUMNS.items()
    }  # fmt: skip

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        held = {
            path: _shapes(path)
            for path in sorted(self.root.rglob("*.mat"))
            if not any(part.startswith(".") for part in path.relative_to(self.root).parts)
        }
        # eegfea.mat of the data set has both names too, and `feas` in three dimensions.
        self._files = [path for path, has in held.items() if len(has.get("feas", ())) == 2]
        if not self._files:
            raise DataError(
                f"{self.root} has no .mat file with feas (N, {WIDTH}) and vids: set data.root to "
                "the feature files of DMER"
            )
        self._others = [path for path, has in held.items() if _only_labels(has)]
        self._left = len(held) - len(self._files) - len(self._others)
        for path in self._files:
            self._require_shapes(path, held[path])
        self._labels = {path: self._place(path, held[path]) for path in self._files}
        counts = {path: held[path]["dis_label"] for path in set(self._labels.values())}
        if len({shape[1:] for shape in counts.values()}) > 1:
            told = ", ".join(f"{path.name} {shape}" for path, shape in sorted(counts.items()))
            raise DataError(f"{self.root}: dis_label differs in its number of emotions: {told}")
        self.definitions = self._definitions(next(iter(counts.values()))[1])
        self.labels = tuple(self.definitions)
        self.note = "DMER, features as given"

    def records(self) -> Iterator[PictureRecord]:
        """Subjects in the order of their files, videos in that of their numbers."""
        self.counts.clear()
        if self._left:
            self.counts[".mat files of other content, left out"] = self._left
        stems = Counter(path.stem for path in self._files)
        for path in self._files:
            below = path.relative_to(self.root)
            subject = path.stem if stems[path.stem] == 1 else below.with_suffix("").as_posix()
            yield from self._subject(path, below.as_posix(), subject)

    @classmethod
    def decode(cls, data: bytes, stretch: str) -> Channels:
        """eeg (n, 90), gsr (n, 28), ppg (n, 27) and face (n, 768) of the n rows of a video."""
        try:
            feas, vids, _ = _parsed(data)
        except DataError as error:
            raise PictureError(str(error)) from error
        video = STRETCH.fullmatch(stretch)
        rows = feas[vids == int(video[1])] if video else feas[:0]
        if not len(rows):
            raise PictureError(f"the file has no rows of {stretch!r}")
        starts = np.arange(len(rows), dtype=np.float64)
        return {name: Windows(rows[:, a:b], 1.0, starts) for name, (a, b) in COLUMNS.items()}

    def _subject(self, path: Path, below: str, subject: str) -> Iterator[PictureRecord]:
        try:
            feas, vids, is_complex = _parsed(bytes_of(path))
        except DataError as error:
            raise DataError(f"{path}: {error}: see data.root") from error
        if is_complex:
            self.counts["files with complex features, of which the real part counts"] += 1
        shares = _shares(self._labels[path])
        videos = np.unique(vids)
        if len(shares) in videos and 0 not in videos:
            raise DataError(
                f"{path}: vids run from {videos.min()} to {videos.max()}, but number the "
                f"{len(shares)} rows of dis_label from 0: take 1 from them"
            )
        for video in videos.tolist():
            target, fault = self._target(shares, video)
            rows = feas[vids == video]
            if target is None:
                self.counts[f"videos of subjects without labels: {fault}"] += 1
            persons = [
                row_record(at, row, target, len(self.labels), f"video {video}: {fault}", SECONDS)
                for at, row in enumerate(rows)
            ]
            if wrong := sum(one.status == "unreadable" for one in persons):
                self.counts["rows with features that are no finite numbers"] += wrong
            yield PictureRecord(
                f"{below}#video-{video}", "", f"video {video}", len(rows) + SECONDS - 1, 1,
                persons, subject, {"video": video},
            )  # fmt: skip

    def _target(self, shares: np.ndarray, video: int) -> tuple[np.ndarray | None, str]:
        if not 0 <= video < len(shares):
            return None, f"dis_label has {len(shares)} rows, counted from 0"
        return shares_of(shares[video], np.inf)

    def _require_shapes(self, path: Path, has: Mapping[str, tuple[int, ...]]) -> None:
        rows, width = has["feas"]
        if "vids" not in has:
            raise DataError(f"{path} has feas and no vids: is it whole? See data.root")
        if width != WIDTH:
            raise DataError(
                f"{path}: feas has {width} columns, not {WIDTH} (EEG 90, GSR 28, PPG 27, face "
                "768): see data.root"
            )
        if has["vids"] not in ((rows, 1), (1, rows)):
            raise DataError(f"{path}: vids is {has['vids']}, and feas has {rows} rows")

    def _place(self, path: Path, has: Mapping[str, tuple[int, ...]]) -> Path:
        """Where the labels of a subject stand."""
        if "dis_label" in has:
            return path
        own = [other for other in self._others if other.parent.name == path.stem]
        stems = {file.stem for file in self._files}
        common = [other for other in self._others if other.parent.name not in stems]
        found = own or common
        if len(found) != 1:
            told = ", ".join(one.relative_to(self.root).as_posix() for one in found) or "none"
            raise DataError(
                f"{path} has no dis_label, and the files with labels for it are: {told}; one "
                "is needed (see data.root)"
            )
        return found[0]

    def _definitions(self, count: int) -> dict[str, str]:
        file = self.root / "labels.yaml"
        if not file.is_file():
            return {f"emotion {n}": f"what DMER calls its emotion {n}" for n in range(1, count + 1)}
        named = read(file)
        if len(named) != count:
            raise DataError(f"{file} names {len(named)} emotions, and dis_label has {count}")
        return named


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        return shapes(path)
    except DataError as error:
        raise DataError(f"{path} is {error}: see data.root") from error


def _shares(path: Path) -> np.ndarray:
    """dis_label (videos, C)."""
    try:
        found = arrays(path, ["dis_label"])["dis_label"]
        if np.iscomplexobj(found):
            raise DataError("dis_label is complex")
    except DataError as error:
        raise DataError(f"{path}: {error}: see data.root") from error
    return found


def _only_labels(has: Mapping[str, tuple[int, ...]]) -> bool:
    return len(has.get("dis_label", ())) == 2 and len(has.get("feas", ())) != 2


@lru_cache(maxsize=1)  # the stretches of a file are asked for one after the other
def _parsed(data: bytes) -> tuple[np.ndarray, np.ndarray, bool]:
    """feas (N, 913) float32 and vids (N,) of a subject's file, and whether feas was complex."""
    held = arrays(data, ["feas", "vids"])
    if {"feas", "vids"} - held.keys() or held["feas"].shape[1:] != (WIDTH,):
        raise DataError(f"it has no feas of {WIDTH} columns with vids")
    vids = held["vids"].ravel().real
    if len(vids) != len(held["feas"]):
        raise DataError(f"feas has {len(held['feas'])} rows, vids {len(vids)}")
    whole = np.isfinite(vids) & (vids == np.floor(vids))
    if not whole.all():
        at = int(np.argmin(whole))
        raise DataError(f"vids({at + 1}) is {vids[at]}, which is no number of a video")
    with np.errstate(over="ignore"):  # what float32 cannot hold is a row that is not finite
        feas = held["feas"].real.astype(np.float32)
    return feas, vids.astype(np.int64), np.iscomplexobj(held["feas"])
