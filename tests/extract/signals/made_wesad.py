"""WESAD's folder in small: simulated signals in the pickles that Python 2 wrote.

Signals are told apart by condition: the heart is faster and the skin more active under stress.
"""

import io
import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Label, what the questionnaire calls it, beats and responses of the skin a minute.
ORDER = (
    (1, "Base", 65, 1), (2, "TSST", 95, 6), (4, "Medi 1", 60, 1), (3, "Fun", 75, 3),
    (4, "Medi 2", 62, 2),
)  # fmt: skip
BETWEEN = 5  # seconds of label 0 before each condition, and of label 6 at the end
PANAS = {
    "Base": (1, 1, 3, 2, 1, 3, 1, 1, 1, 2, 2, 1, 2, 1, 4, 2, 3, 4, 1, 1, 2, 1, 3, 1),
    "TSST": (3, 3, 4, 1, 3, 3, 1, 2, 1, 4, 2, 4, 3, 1, 5, 4, 4, 4, 2, 3, 5, 3, 2, 5, 4, 1),
    "Medi 1": (1, 1, 2, 3, 1, 2, 1, 1, 1, 1, 1, 1, 3, 1, 2, 1, 2, 3, 1, 1, 1, 1, 4, 1),
    "Fun": (2, 1, 4, 3, 1, 3, 1, 1, 1, 4, 2, 1, 4, 1, 4, 1, 1, 3, 1, 1, 1, 1, 5, 1),
    "Medi 2": (1, 1, 1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 3, 2),
}


def make(
    root: Path,
    subjects: Sequence[int] = (2, 3),
    seconds: int = 120,
    seed: int = 0,
    protocol: int = 2,
) -> Path:
    """The folders `S<n>` below `root`, each with `S<n>.pkl` and `S<n>_quest.csv`; every condition
    lasts so many seconds. Gives `root`."""
    for number in subjects:
        name = f"S{number}"
        (root / name).mkdir(parents=True, exist_ok=True)
        held = subject(name, seconds, seed + number)
        (root / name / f"{name}.pkl").write_bytes(python2_pickle(held, protocol))
        (root / name / f"{name}_quest.csv").write_text(questionnaire(name))
    return root


def subject(name: str, seconds: int, seed: int) -> dict[str, Any]:
    """What the pickle of one subject holds."""
    parts = [_between(0, seed)]
    for at, (label, _, heart, skin) in enumerate(ORDER):
        parts += [_condition(label, seconds, heart, skin, 100 * seed + at), _between(0, seed)]
    parts.append(_between(6, seed))
    return {
        "signal": {
            device: {
                channel: np.concatenate([part["signal"][device][channel] for part in parts])
                for channel in parts[0]["signal"][device]
            }
            for device in ("chest", "wrist")
        },
        "label": np.concatenate([part["label"] for part in parts]),
        "subject": name,
    }


def questionnaire(name: str, order: Sequence[str] = ("Base", "TSST", "Medi 1", "Fun", "Medi 2")):
    """Its lines, in the form and of the width of the published ones."""
    lines = [
        ["# Subj", name],
        ["# ORDER", *order, "sRead", "fRead"],
        ["# START", *(f"{10 * n}.08" for n in range(len(order) + 2))],
        ["# END", *(f"{10 * n + 8}.5" for n in range(len(order) + 2))],
        [""],
        *(["# PANAS", *PANAS[one]] for one in order),
        [""],
        *(["# STAI", 3, 2, 1, 4, 2, 3] for _ in order),
    ]
    return "".join(";".join([*map(str, line), *[""] * (27 - len(line))]) + "\n" for line in lines)


def _between(label: int, seed: int) -> dict[str, Any]:
    return _condition(label, BETWEEN, 70, 0, seed)


def _condition(label: int, seconds: int, heart: int, skin: int, seed: int) -> dict[str, Any]:
    import neurokit2 as nk

    rng = np.random.default_rng(seed)
    long = {"duration": seconds, "random_state": seed}

    def noise(rate: int, size: float, width: int = 1) -> np.ndarray:
        return rng.normal(0, size, (seconds * rate, width))

    def column(signal: np.ndarray, rate: int) -> np.ndarray:
        return np.asarray(signal, float)[: seconds * rate, None]

    def conductance(rate: int) -> np.ndarray:
        count = round(skin * seconds / 60)
        return 2 + nk.eda_simulate(sampling_rate=rate, scr_number=count, noise=0, drift=0, **long)

    move = 0.3 if label == 2 else 0.05
    ecg = nk.ecg_simulate(sampling_rate=700, heart_rate=heart, method="simple", **long)
    bvp = nk.ppg_simulate(sampling_rate=64, heart_rate=heart, motion_amplitude=0, **long)
    breath = np.sin(2 * np.pi * heart / 300 * np.arange(seconds * 700) / 700)
    warm = np.linspace(33, 33.5, seconds * 700)[:, None]
    return {
        "signal": {
            "chest": {
                "ACC": np.array([0.9, 0.0, -0.2]) + noise(700, move, 3),
                "ECG": column(ecg, 700) + noise(700, 0.01),
                "EMG": noise(700, 0.01),
                "EDA": column(conductance(700), 700) + noise(700, 0.002),
                "Temp": warm + noise(700, 0.005),
                "Resp": 3 * column(breath, 700) + noise(700, 0.05),
            },
            "wrist": {
                "ACC": np.round(np.array([60.0, 0, 10]) + noise(32, 64 * move, 3)),
                "BVP": 50 * column(bvp, 64),
                "EDA": column(conductance(4), 4),
                "TEMP": np.round(np.linspace(32, 32.2, seconds * 4)[:, None], 2),
            },
        },
        "label": np.full(seconds * 700, label, np.int32),
    }


# Python 2's pickles, which Python 3 cannot write: strings that are bytes


def python2_pickle(value: Any, protocol: int = 2) -> bytes:
    """The pickle that Python 2 would write, of protocol 0 or 2: dicts, text, arrays."""
    out = io.BytesIO()
    if protocol == 2:
        out.write(b"\x80\x02")
    _write(out, value, protocol)
    return out.getvalue() + b"."


def _write(out: io.BytesIO, value: Any, protocol: int) -> None:
    if isinstance(value, Mapping):
        out.write(b"}" if protocol == 2 else b"(d")
        for key, one in value.items():
            _write(out, key, protocol)
            _write(out, one, protocol)
            out.write(b"s")
    elif isinstance(value, np.ndarray):
        _write_array(out, value, protocol)
    elif isinstance(value, str):
        _write_bytes(out, value.encode("latin1"), protocol)
    else:
        raise TypeError(type(value))


def _write_bytes(out: io.BytesIO, data: bytes, protocol: int) -> None:
    if protocol == 2:
        out.write(b"T" + struct.pack("<i", len(data)) + data)
    else:
        out.write(b"S" + repr(data)[1:].encode("ascii") + b"\n")


def _write_array(out: io.BytesIO, array: np.ndarray, protocol: int) -> None:
    def numbers(*values: int) -> None:
        for value in values:
            out.write(b"I%d\n" % value)

    code = array.dtype.str
    out.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(")
    numbers(0)
    out.write(b"t")
    _write_bytes(out, b"b", protocol)
    out.write(b"tR(")
    numbers(1)
    out.write(b"(")
    numbers(*array.shape)
    out.write(b"tcnumpy\ndtype\n(")
    _write_bytes(out, code[1:].encode(), protocol)
    numbers(0, 1)
    out.write(b"tR(")
    numbers(3)
    _write_bytes(out, code[:1].encode(), protocol)
    out.write(b"NNN")
    numbers(-1, -1, 0)
    out.write(b"tbI00\n")
    _write_bytes(out, array.tobytes(), protocol)
    out.write(b"tb")


def oracle(data: bytes) -> Any:
    """What Python's own pickle makes of it."""
    return pickle.loads(data, encoding="latin1")
