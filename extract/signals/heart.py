"""The heart: beats in an ECG or a PPG, and how the intervals between them vary.

Measures of heart rate variability as in Task Force of the ESC and NASPE, Circulation 93, 1996:
RR_i the intervals in ms, d_i = RR_(i+1) - RR_i of neighbours,

    SDNN = std(RR), RMSSD = sqrt(mean d^2), pNN50 = share of |d| > 50 ms,
    SD1 = std(d) / sqrt 2, SD2 = std(RR_(i+1) + RR_i) / sqrt 2,

deviations with n - 1. LF (0.04-0.15 Hz) and HF (0.15-0.4 Hz) are the roots of the power in the
band, in ms, as SDNN is: Hann periodogram of the intervals, interpolated at 4 Hz and without their
trend.
"""

import numpy as np
from jaxtyping import Bool, Float64

from extract.signals.window import NoSignal, Samples, found_by_neurokit, one_signal

SECONDS = 10.0  # the shortest window
NAMES = (
    "heart_rate_mean", "heart_rate_std", "rr_mean", "sdnn", "rmssd", "pnn50", "sd1", "sd2",
    "lf", "hf", "lf_hf", "has_spectrum", "kept",
)  # fmt: skip

SHORTEST, LONGEST = 0.3, 2.0  # seconds between beats: 200 and 30 beats a minute
OFF = 0.3  # how far from the median of five an interval may be
FEWEST = 5  # intervals
KEPT = 0.5  # the share of them that must be kept

GRID = 4.0  # Hz
LOWEST = 25.0  # seconds that one wave of 0.04 Hz takes
BANDS = {"lf": (0.04, 0.15), "hf": (0.15, 0.4)}
NO_POWER = 1e-3  # ms^2: less than rounding makes
RATIO = 100.0  # the largest LF/HF that is told


def ecg(values: np.ndarray, rate: float) -> Float64[np.ndarray, "13"]:
    """`NAMES` of an electrocardiogram (n, 1) with at least 100 samples a second.

    R peaks by NeuroKit2 (its own method: steepness of the QRS complex, after a high-pass at 0.5 Hz
    and a notch at the 50 Hz of the mains), their place between the samples by a parabola through
    three. Neither offset nor scale of the signal matters.
    """
    from neurokit2 import ecg_clean, ecg_findpeaks

    signal, whole = one_signal(values, rate, SECONDS, 100), round(rate)
    with found_by_neurokit("beats"):
        clean = np.asarray(ecg_clean(_unit(signal), sampling_rate=whole))
        peaks = ecg_findpeaks(clean, sampling_rate=whole)["ECG_R_Peaks"]
    return variability(_between_samples(clean, peaks) / rate)


def ppg(values: np.ndarray, rate: float) -> Float64[np.ndarray, "13"]:
    """`NAMES` of a photoplethysmogram (n, 1) with at least 20 samples a second.

    Systolic peaks by NeuroKit2 (Elgendi et al., PLoS ONE 8, 2013: 0.5-8 Hz), their place between
    the samples by a parabola through three, as 1/64 s is coarse beside RMSSD. Neither offset nor
    scale of the signal matters.
    """
    from neurokit2 import ppg_clean, ppg_findpeaks

    signal, whole = one_signal(values, rate, SECONDS, 20), round(rate)
    with found_by_neurokit("beats"):
        clean = np.asarray(ppg_clean(_unit(signal), sampling_rate=whole))
        peaks = ppg_findpeaks(clean, sampling_rate=whole)["PPG_Peaks"]
    return variability(_between_samples(clean, peaks) / rate)


def variability(beats: Float64[np.ndarray, " N"]) -> Float64[np.ndarray, "13"]:
    """`NAMES` of beats at these seconds.

    Intervals below 0.3 s, above 2 s, or further than 30 % from the median of the five about them
    are left out (missed and ectopic beats); `kept` is the share of the others. What cannot be had
    while the rest can: where less than 25 s are covered, one wave of 0.04 Hz, `has_spectrum`, lf
    and hf are 0 and lf_hf is 1; it is 1 too where both bands are empty, and 100 at most. Raises
    NoSignal where fewer than 5 intervals are kept, less than half of them, or no two neighbours.
    """
    intervals = np.diff(beats)
    kept = _plausible(intervals)
    count = int(kept.sum())
    if count < FEWEST or kept.mean() < KEPT:
        raise NoSignal(f"no regular beats: {count} of {len(intervals)} intervals are plausible")
    pairs = kept[1:] & kept[:-1]
    if pairs.sum() < 2:
        raise NoSignal("no regular beats: no plausible intervals beside each other")
    rr = 1000 * intervals[kept]
    steps = 1000 * np.diff(intervals)[pairs]
    sums = 1000 * (intervals[1:] + intervals[:-1])[pairs]
    rates = 60_000 / rr
    return np.array([
        rates.mean(), rates.std(ddof=1), rr.mean(), rr.std(ddof=1),
        np.sqrt((steps**2).mean()), (np.abs(steps) > 50).mean(),
        *(side.std(ddof=1) / np.sqrt(2) for side in (steps, sums)),
        *_spectrum(beats[1:][kept], rr), kept.mean(),
    ])  # fmt: skip


def _unit(signal: Samples) -> Samples:
    """Without offset, of deviation 1: thresholds are then of no unit."""
    return (signal - signal.mean()) / signal.std()


def _between_samples(signal: Samples, peaks: np.ndarray) -> Float64[np.ndarray, " N"]:
    """The top of the parabola through each peak and its neighbours, in samples."""
    at = np.asarray(peaks, np.float64)
    at = at[np.isfinite(at)].astype(np.int64)
    inner = at[(at > 0) & (at < len(signal) - 1)]
    before, top, after = (signal[inner + step] for step in (-1, 0, 1))
    bend = before - 2 * top + after
    shift = np.divide(before - after, 2 * bend, out=np.zeros(len(inner)), where=bend < 0)
    return inner + np.clip(shift, -0.5, 0.5)


def _plausible(intervals: Float64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    from scipy.ndimage import median_filter

    if not len(intervals):
        return np.zeros(0, bool)
    near = median_filter(intervals, 5, mode="nearest")
    inside = (intervals >= SHORTEST) & (intervals <= LONGEST)
    return inside & (np.abs(intervals - near) <= OFF * near)


def _spectrum(times: Samples, rr: Samples) -> tuple[float, float, float, float]:
    """lf, hf, lf_hf, has_spectrum."""
    from scipy.interpolate import PchipInterpolator
    from scipy.signal import periodogram

    if times[-1] - times[0] < LOWEST:
        return 0.0, 0.0, 1.0, 0.0
    grid = np.arange(times[0], times[-1], 1 / GRID)
    even = PchipInterpolator(times, rr)(grid)
    # Filled up with zeros, so that bands end where they should and not at the nearest bin.
    size = max(2048, len(grid))
    waves, density = periodogram(even, GRID, "hann", size, detrend="linear")
    power = {
        name: float(density[(waves >= low) & (waves < high)].sum() * waves[1])
        for name, (low, high) in BANDS.items()
    }
    low, high = power["lf"], power["hf"]
    empty = low + high < NO_POWER
    ratio = 1.0 if empty else min(low / high, RATIO) if high > 0 else RATIO
    return float(np.sqrt(low)), float(np.sqrt(high)), ratio, 1.0
