"""What the measures share: what a window must be, averaging to a lower rate, slopes.

Everything is computed in float64 on an own copy, so that a window has the same features whatever
array it was cut from.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float64

Samples = Float64[np.ndarray, " n"]

STUCK = 0.5  # share of samples at the smallest or largest value above which a sensor is saturated


_SILENCING = threading.Lock()  # filters of warnings are of all threads


class NoSignal(Exception):
    """Nothing can be measured in a window; the reason in words."""


def one_signal(
    values: np.ndarray, rate: float, seconds: float, slowest: float, rests: bool = False
) -> Float64[np.ndarray, " n"]:
    """A window (n, 1) of one signal that says something.

    Raises NoSignal where it has several columns, values that are no numbers, lasts less than
    `seconds`, has fewer than `slowest` samples a second, is flat, or is saturated: more than half
    of its samples are equal to the largest or, unless that is where the signal `rests`, to the
    smallest.
    """
    if values.shape[1] != 1:
        raise NoSignal(f"{values.shape[1]} columns where one signal is measured")
    signal = finite(values, rate, seconds)[:, 0].copy()
    if rate < slowest:
        raise NoSignal(f"{rate:g} samples a second, at least {slowest:g} are needed")
    low, high = signal.min(), signal.max()
    if not high - low > 1e-9 * max(abs(low), abs(high)):
        raise NoSignal("a flat line")
    for name, end in (("largest", high), *([] if rests else [("smallest", low)])):
        if (signal == end).mean() > STUCK:
            raise NoSignal(f"saturated: most samples are equal to the {name}")
    return signal


def finite(values: np.ndarray, rate: float, seconds: float) -> Float64[np.ndarray, "n D"]:
    """A copy of a window whose values are all numbers. Raises NoSignal where some are not, or where
    it lasts less than `seconds`; one sample less than that is forgiven, as windows begin
    anywhere."""
    if not rate > 0:
        raise NoSignal(f"{rate:g} samples a second")
    if len(values) + 1 < seconds * rate or len(values) < 2:
        raise NoSignal(f"{len(values) / rate:.3g} s, at least {seconds:g} are needed")
    found = np.array(values, dtype=np.float64, order="C")
    bad = int((~np.isfinite(found)).any(axis=1).sum())
    if bad:
        raise NoSignal(f"{bad} of {len(found)} samples are no numbers")
    return found


def averaged(
    values: Float64[np.ndarray, "n *D"], rate: float, wanted: float
) -> tuple[Float64[np.ndarray, "m *D"], float]:
    """Means of as many neighbouring samples as bring `rate` down to about `wanted` and not below
    it, and the rate that they have; the same where it is not above. Samples that fill no block are
    left out."""
    size = int(rate // wanted)
    if size < 2:
        return values, rate
    count = len(values) // size
    blocks = values[: count * size].reshape(count, size, *values.shape[1:])
    return blocks.mean(axis=1), rate / size


def slope(signal: Float64[np.ndarray, " n"], rate: float) -> float:
    """Change per second, by least squares: sum (t - mean t) x / sum (t - mean t)^2."""
    times = (np.arange(len(signal)) - (len(signal) - 1) / 2) / rate
    return float((times * (signal - signal.mean())).sum() / (times**2).sum())


@contextmanager
def found_by_neurokit(what: str) -> Iterator[None]:
    """Round its search for beats or breaths: where there are none, it warns of empty means or
    stumbles. Raises NoSignal then."""
    with _SILENCING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except (IndexError, ValueError) as error:
            raise NoSignal(f"no {what}") from error
