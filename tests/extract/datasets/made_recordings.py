"""Small folders of recordings, in the form of each reader of them, with their traps.

Each maker fills a `Folder`, as those of `made` do; `dmer`, `ldl` and `wesad_features` write one.
"""

import csv
import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

from tests.extract.datasets.made import Folder, Maker, made
from tests.extract.signals.made_wesad import python2_pickle, questionnaire, subject

# Rows of each video, in the order in which they stand: those of video 2 are in two pieces.
VIDEOS = (0, 0, 0, 2, 2, 1, 1, 2, 2)
EMOTIONS = 10
FEATURES = 20  # of the label-distribution set


def mat(variables: Mapping[str, np.ndarray]) -> bytes:
    """A MATLAB file of version 5."""
    data = io.BytesIO()
    savemat(data, dict(variables))
    # MATLAB writes when; the same folder must be the same bytes.
    return b"MATLAB 5.0 MAT-file".ljust(116) + data.getvalue()[116:]


def mat73(variables: Mapping[str, np.ndarray]) -> bytes:
    """A MATLAB file of version 7.3: HDF5 after 512 bytes, matrices turned over."""
    data = io.BytesIO()
    with h5py.File(data, "w", userblock_size=512) as file:
        for name, value in variables.items():
            turned = np.asarray(value).T
            if np.iscomplexobj(turned):
                parts = np.empty(turned.shape, [("real", "f8"), ("imag", "f8")])
                parts["real"], parts["imag"] = turned.real, turned.imag
                turned = parts
            file.create_dataset(name, data=turned)
    header = b"MATLAB 7.3 MAT-file".ljust(512)
    return header + data.getvalue()[512:]


def shares(count: int, emotions: int, seed: int) -> np.ndarray:
    """(count, emotions), each row summing to 1."""
    return np.random.default_rng(seed).dirichlet(np.full(emotions, 0.5), count)


def dmer_subject(seed: int, videos: tuple[int, ...] = VIDEOS) -> dict[str, np.ndarray]:
    """feas, vids and dis_label, amounts from 0 to 4, of one subject."""
    rng = np.random.default_rng(seed)
    felt = rng.integers(0, 5, (3, EMOTIONS)).astype(float)
    felt[:, 0] += 1
    feas = rng.standard_normal((len(videos), 913))
    return {"feas": feas, "vids": np.array([videos], float).T, "dis_label": felt}


def dmer_files(folder: Folder) -> None:
    """As HeLo's code reads it. S3 is of version 7.3, has a row with NaN, one of a video without a
    label, and nothing felt at video 1."""
    folder.text("S1.mat", mat(dmer_subject(1)))
    folder.text("S2.mat", mat(dmer_subject(2)))
    third = dmer_subject(3, (0, 0, 1, 1, 2, 5))
    third["feas"][1, 100] = np.nan
    third["dis_label"][1] = 0
    folder.text("S3.mat", mat73(third))


def dmer_apart(folder: Folder) -> None:
    """As the code of the data set writes it: labels in a folder for each subject."""
    for number in (1, 2, 3):
        subject = dmer_subject(number)
        felt = subject.pop("dis_label")
        folder.text(f"features/{number}.mat", mat(subject))
        folder.text(f"{number}/datas.mat", mat({"dis_label": felt, "eeg_datas": np.ones((2, 5))}))
        eeg = {"feas": np.ones((9, 5, 18)), "vids": np.array([VIDEOS])}
        folder.text(f"{number}/eegfea.mat", mat(eeg))


def ldl_file(folder: Folder) -> None:
    """One set; of its rows one has a NaN, and one shares that sum to 0.5."""
    rng = np.random.default_rng(4)
    labels = shares(60, 4, 5)
    labels[7] /= 2
    features = rng.standard_normal((60, FEATURES))
    features[3, 2] = np.nan
    folder.text("made.mat", mat({"features": features, "labels": labels}))


# A feature of each modality but one, which has two.
COLUMNS = ("acc_sma", "eda_skewness", "z_scl_mean", "raw_hrv_mean_hr", "z_temp_slope")
# Runs of a subject: condition, the end of the first window, and how many.
RUNS = ((1, 180, 12), (2, 900, 8), (3, 1500, 6), (4, 2100, 5), (4, 3000, 5))


def wesad_rows(subject: str, seed: int, step: int = 30) -> list[dict[str, str]]:
    """Windows `step` seconds apart; the features of each condition lie about its number."""
    rng = np.random.default_rng(seed)
    rows = []
    for condition, first, count in RUNS:
        for at in range(count):
            values = condition + rng.standard_normal(len(COLUMNS))
            row = {name: f"{value:.6f}" for name, value in zip(COLUMNS, values, strict=True)}
            row |= {"raw_label": str(condition), "time_end_sec": f"{first + step * at:.1f}"}
            row["label"] = "stress" if condition == 2 else "non-stress"
            rows.append(row | {"subject_id": subject})
    return rows


def wesad_csv(rows: list[dict[str, str]]) -> str:
    """The table of these rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def wesad_table(folder: Folder) -> None:
    """Four subjects; a cell of one window is empty, and one window is of no condition."""
    rows = [row for n in range(1, 5) for row in wesad_rows(f"S{n}", n)]
    rows[2]["z_scl_mean"] = ""
    rows[-1]["raw_label"] = "0"
    folder.text("features.csv", wesad_csv(rows))


def dmer(root: Path) -> Path:
    """Three subjects with three videos each, 24 rows."""
    return made(dmer_files, root)


def ldl(root: Path) -> Path:
    """`made.mat`, 60 rows of 20 features and 4 labels."""
    return made(ldl_file, root)


def wesad_features(root: Path) -> Path:
    """`features.csv`, 4 subjects with 36 windows each."""
    return made(wesad_table, root)


@cache
def wesad_files(n: int) -> tuple[bytes, bytes]:
    """Signals and questionnaire of a subject whose conditions last 65 s each."""
    name = f"S{n}"
    return python2_pickle(subject(name, 65, n)), questionnaire(name).encode()


def wesad_folder(folder: Folder) -> None:
    """Two subjects, and a third whose file is none."""
    for n in (2, 3):
        signals, answers = wesad_files(n)
        folder.text(f"S{n}/S{n}.pkl", signals)
        folder.text(f"S{n}/S{n}_quest.csv", answers)
    folder.text("S4/S4.pkl", b"no pickle")


# Every reader of recordings with the makers of its forms.
RECORDINGS: dict[str, tuple[Maker, ...]] = {
    "dmer": (dmer_files, dmer_apart),
    "ldl": (ldl_file,),
    "wesad_features": (wesad_table,),
    "wesad": (wesad_folder,),
    "wesad_panas": (wesad_folder,),
}
