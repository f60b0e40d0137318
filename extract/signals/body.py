"""Skin, muscles, breath, warmth and movement: features of a window of each."""

import numpy as np
from jaxtyping import Float64

from extract.signals.window import (
    NoSignal,
    Samples,
    averaged,
    finite,
    found_by_neurokit,
    one_signal,
    slope,
)

SKIN = (
    "scl_mean", "scl_std", "scl_min", "scl_max", "scl_slope", "scr_count", "scr_amplitude_mean",
    "scr_amplitude_max", "scr_amplitude_sum", "scr_rise_mean",
)  # fmt: skip
MUSCLE = (
    "rms", "mean_absolute", "peak", "line_length", "zero_crossings", "mean_frequency",
    "median_frequency", "envelope_p10", "envelope_p90",
)  # fmt: skip
BREATH = (
    "rate_mean", "rate_std", "amplitude_mean", "amplitude_std", "inhale_mean", "exhale_mean",
    "inhale_exhale", "range",
)  # fmt: skip
WARMTH = ("mean", "std", "min", "max", "range", "slope")
MOVEMENT = (
    "magnitude_mean", "magnitude_std", "magnitude_max", "energy", "absolute", "jerk",
    "peak_frequency",
)  # fmt: skip
AXES = ("x", "y", "z")

SKIN_RATE = 8.0  # Hz, what slower sensors have is kept
LEVEL = 0.05  # Hz
LEAST_RESPONSE = 0.02  # µS, of the 0.01 to 0.05 in use
TROUGH = 5.0  # seconds that a response may take to rise
ONSET = 0.05  # of the rise, above the trough: it has begun
BREATH_RATE = 25.0
WARMTH_RATE = 4.0
MOVEMENT_RATE = 32.0
EMG_FROM = 20.0  # Hz: below it lie movements of skin and cable
ENVELOPE = 0.25  # seconds


def electrodermal(values: np.ndarray, rate: float) -> Float64[np.ndarray, "10"]:
    """`SKIN` of skin conductance (n, 1) in µS: level (SCL) and responses (SCR).

    Faster signals are averaged to about 8 Hz, as nothing above 3 Hz is of the skin, and smoothed
    over 1 s. Level is what a second-order Butterworth filter, forth and back, leaves below 0.05 Hz.
    Responses are told from trough to peak (Boucsein, Electrodermal Activity, 2012): peaks that
    stand out by 0.02 µS or more (prominence), at least 1 s apart, each from the lowest value of the
    5 s before. scl_slope in µS a minute; scr_count a minute; amplitudes in µS; scr_rise_mean from
    where 5 % of the rise are passed to the peak, in seconds. Without a response, amplitudes and
    rise are 0: there is no reaction, and scr_count says so. An onset before the window counts from
    the window's begin. Offset changes scl_mean, scl_min and scl_max alone. At least 10 s."""
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, find_peaks, sosfiltfilt

    seconds = len(values) / rate
    signal, rate = averaged(one_signal(values, rate, 10, 2, rests=True), rate, SKIN_RATE)
    smooth = uniform_filter1d(signal, max(round(rate), 1), mode="nearest")
    middle = smooth.mean()
    level = sosfiltfilt(butter(2, LEVEL, fs=rate, output="sos"), smooth - middle) + middle
    peaks, _ = find_peaks(smooth, prominence=LEAST_RESPONSE, distance=max(round(rate), 1))
    lows, onsets = _troughs(smooth, peaks, round(TROUGH * rate))
    sizes = smooth[peaks] - lows if len(peaks) else np.zeros(1)
    rises = (peaks - onsets) / rate if len(peaks) else np.zeros(1)
    return np.array([
        level.mean(), level.std(), level.min(), level.max(), 60 * slope(level, rate),
        60 * len(peaks) / seconds, sizes.mean(), sizes.max(), sizes.sum(), rises.mean(),
    ])  # fmt: skip


def _troughs(
    signal: Samples, peaks: np.ndarray, back: int
) -> tuple[Float64[np.ndarray, " k"], Float64[np.ndarray, " k"]]:
    """The lowest value before each peak, at most `back` samples away and not before the last peak,
    and where the signal leaves it: the last sample within a twentieth of the rise."""
    lows, onsets = np.zeros(len(peaks)), np.zeros(len(peaks))
    last = 0
    for at, peak in enumerate(peaks.tolist()):
        begin = max(last, peak - back)
        before = signal[begin : peak + 1]
        lows[at] = before.min()
        near = before <= lows[at] + ONSET * (signal[peak] - lows[at])
        onsets[at], last = begin + int(np.flatnonzero(near)[-1]), peak
    return lows, onsets


def muscle(values: np.ndarray, rate: float) -> Float64[np.ndarray, "9"]:
    """`MUSCLE` of an electromyogram (n, 1) with at least 100 samples a second, in its unit.

    After a high-pass at 20 Hz (Butterworth, fourth order, forth and back): root mean square, mean
    and 99th percentile of the absolute values, line length (sum of |steps|) a second, changes of
    sign a second, mean and median of the spectrum in Hz (Welch, 1 s), and the 10th and 90th
    percentile of the root mean square over 0.25 s. Offset does not matter; scale is that of rms,
    mean_absolute, peak, line_length and the envelope. At least 2 s.
    """
    from scipy.ndimage import uniform_filter1d
    from scipy.signal import butter, sosfiltfilt, welch

    signal = one_signal(values, rate, 2, 100)
    signal = sosfiltfilt(
        butter(4, EMG_FROM, "highpass", fs=rate, output="sos"), signal - signal.mean()
    )
    size = np.abs(signal)
    if size.max() == 0:
        raise NoSignal("nothing above 20 Hz")
    squares = uniform_filter1d(signal**2, max(round(ENVELOPE * rate), 1), mode="nearest")
    envelope = np.sqrt(np.maximum(squares, 0))  # sliding sums may end below 0
    waves, power = welch(signal, rate, nperseg=min(round(rate), len(signal)))
    below = np.cumsum(power)
    seconds = len(signal) / rate
    return np.array([
        np.sqrt((signal**2).mean()), size.mean(), np.percentile(size, 99),
        np.abs(np.diff(signal)).sum() / seconds,
        (np.signbit(signal[1:]) != np.signbit(signal[:-1])).sum() / seconds,
        (waves * power).sum() / power.sum(),
        waves[np.searchsorted(below, below[-1] / 2)],
        *np.percentile(envelope, [10, 90]),
    ])  # fmt: skip


def respiration(values: np.ndarray, rate: float) -> Float64[np.ndarray, "8"]:
    """`BREATH` of a chest belt (n, 1), which grows as one breathes in.

    Averaged to 25 Hz, then extrema by NeuroKit2 (Khodadad et al., Physiological Measurement 39,
    2018: 0.05-3 Hz). Breaths a minute, from peak to peak; amplitude from trough to peak in the
    signal's unit; inhale, trough to peak, and exhale, peak to trough, in seconds, and the ratio of
    their means; range of the whole window. Offset does not matter; scale is that of amplitudes and
    range. At least 15 s; raises NoSignal where there are fewer than three breaths.
    """
    from neurokit2 import rsp_clean, rsp_findpeaks

    signal, rate = averaged(one_signal(values, rate, 15, 10), rate, BREATH_RATE)
    unit = (signal - signal.mean()) / signal.std()
    with found_by_neurokit("breaths"):
        clean = np.asarray(rsp_clean(unit, sampling_rate=round(rate)))
        found = rsp_findpeaks(clean, sampling_rate=round(rate))
    peaks, troughs = (np.asarray(found[f"RSP_{name}"], np.int64) for name in ("Peaks", "Troughs"))
    # Each peak with the trough before it; each but the last with the one after.
    before = np.searchsorted(troughs, peaks) - 1
    peaks, before = peaks[before >= 0], before[before >= 0]
    if len(peaks) < 3:
        raise NoSignal(f"{len(peaks)} breaths, at least 3 are needed")
    begins = troughs[before]
    after = before + 1
    ends = troughs[after[after < len(troughs)]]
    sizes = (clean[peaks] - clean[begins]) * signal.std()
    rates = 60 * rate / np.diff(peaks)
    inhale = (peaks - begins).mean() / rate
    exhale = (ends - peaks[: len(ends)]).mean() / rate
    return np.array([
        rates.mean(), rates.std(), sizes.mean(), sizes.std(), inhale, exhale, inhale / exhale,
        np.ptp(signal),
    ])  # fmt: skip


def temperature(values: np.ndarray, rate: float) -> Float64[np.ndarray, "6"]:
    """`WARMTH` of skin temperature (n, 1) in °C: of means over 0.25 s where the signal is faster,
    as the rest is noise of the sensor. slope in °C a minute, by least squares. A flat line is a
    temperature: its deviation, range and slope are 0. At least 2 s."""
    if values.shape[1] != 1:
        raise NoSignal(f"{values.shape[1]} columns where one temperature is measured")
    signal, rate = averaged(finite(values, rate, 2)[:, 0].copy(), rate, WARMTH_RATE)
    low, high = signal.min(), signal.max()
    return np.array([
        signal.mean(), signal.std(), low, high, high - low, 60 * slope(signal, rate)
    ])  # fmt: skip


def motion(values: np.ndarray, rate: float) -> Float64[np.ndarray, " F"]:
    """Mean and deviation of each axis of an accelerometer (n, D), then `MOVEMENT`.

    Averaged to about 32 Hz where it is faster: people move below 15 Hz. With a_i(t) the axes and
    m(t) = sqrt(sum a_i^2): mean, deviation and maximum of m; energy = mean sum (a_i - mean a_i)^2;
    absolute = mean sum |a_i - mean a_i|; jerk = mean |a(t+1) - a(t)| * rate; peak_frequency, of the
    largest power of m between 0.1 and 10 Hz, in Hz (Hann periodogram), and 0 where m stands still.
    A flat line is a body at rest: all but means and the maximum are 0. At least 2 s.
    """
    axes, rate = averaged(finite(values, rate, 2), rate, MOVEMENT_RATE)
    size = np.sqrt((axes**2).sum(axis=1))
    rest = axes - axes.mean(axis=0)
    steps = np.sqrt((np.diff(axes, axis=0) ** 2).sum(axis=1))
    sides = np.stack([axes.mean(axis=0), axes.std(axis=0)], axis=1)
    return np.array([
        *sides.ravel(), size.mean(), size.std(), size.max(),
        (rest**2).sum(axis=1).mean(), np.abs(rest).sum(axis=1).mean(), steps.mean() * rate,
        _peak_frequency(size, rate),
    ])  # fmt: skip


def _peak_frequency(signal: Samples, rate: float) -> float:
    from scipy.signal import periodogram

    waves, power = periodogram(signal, rate, "hann", detrend="constant")
    inside = (waves >= 0.1) & (waves <= 10)
    still = np.ptp(signal) <= 1e-9 * np.abs(signal).max()
    if still or not inside.any():
        return 0.0
    return float(waves[inside][power[inside].argmax()])
