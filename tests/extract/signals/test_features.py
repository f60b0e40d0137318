"""Features of windows: against signals whose truth is known, computed by hand, or by others.

NeuroKit2 simulates; SciPy and NeuroKit2's own indices are oracles of what is computed here.
"""

import functools
import re
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.signals import body, heart
from extract.signals.features import MEASURES

ECG, PPG = ("cardiac_ecg", 700), ("cardiac_ppg", 64)
EVERY = {
    "cardiac_ecg": 700, "cardiac_ppg": 64, "electrodermal": 4, "muscle": 700, "respiration": 700,
    "temperature": 4, "motion": 32,
}  # fmt: skip


def measured(measure: str, signal, rate: float) -> dict[str, float]:
    """Features by name; fails where there are none."""
    found, reason = answer(measure, signal, rate)
    assert reason == ""
    names = MEASURES[measure].names({"c": np.shape(signal)[1] if np.ndim(signal) > 1 else 1})
    assert len(names) == len(set(names)) == len(found)
    return {n.removeprefix("c_"): float(v) for n, v in zip(names, found, strict=True)}


def answer(measure: str, signal, rate: float):
    values = np.asarray(signal)
    values = values[:, None] if values.ndim == 1 else values
    return MEASURES[measure]({"c": values}, {"c": rate})


@functools.cache
def simulated(measure: str, rate: int = 0) -> np.ndarray:
    """A window of a minute that says something."""
    import neurokit2 as nk

    rate = rate or EVERY[measure]
    rng = np.random.default_rng(1)
    if measure == "motion":
        return rng.normal([0, 0, 1], 0.2, (60 * rate, 3))
    if measure == "temperature":
        return 33 + 0.1 * np.sin(np.arange(60 * rate) / rate / 20) + rng.normal(0, 0.01, 60 * rate)
    make = {
        "cardiac_ecg": functools.partial(nk.ecg_simulate, heart_rate=70),
        "cardiac_ppg": functools.partial(nk.ppg_simulate, heart_rate=70),
        "electrodermal": functools.partial(nk.eda_simulate, scr_number=3),
        "muscle": nk.emg_simulate,
        "respiration": functools.partial(nk.rsp_simulate, respiratory_rate=15),
    }[measure]
    return np.asarray(make(duration=60, sampling_rate=rate, random_state=1))[: 60 * rate]


# The heart


@pytest.mark.parametrize("rate", [250, 700])
@pytest.mark.parametrize("beats", [50, 70, 110, 150])
def test_a_simulated_ecg_has_its_heart_rate(beats, rate):
    import neurokit2 as nk

    signal = nk.ecg_simulate(60, sampling_rate=rate, heart_rate=beats, noise=0.05, random_state=1)
    found = measured("cardiac_ecg", signal, rate)
    assert found["heart_rate_mean"] == pytest.approx(beats, rel=0.01)
    assert found["rr_mean"] == pytest.approx(60_000 / beats, rel=0.01)
    assert found["kept"] > 0.95


@pytest.mark.parametrize("beats", [50, 70, 110])
def test_a_simulated_ppg_has_its_heart_rate(beats):
    import neurokit2 as nk

    signal = nk.ppg_simulate(60, sampling_rate=64, heart_rate=beats, random_state=1)
    assert measured("cardiac_ppg", signal, 64)["rr_mean"] == pytest.approx(60_000 / beats, rel=0.01)


@pytest.mark.parametrize("measure", ["cardiac_ecg", "cardiac_ppg"])
def test_peaks_are_placed_between_the_samples(measure):
    """A pulse of exactly 71.3 beats a minute: what varies is what samples are wide, and less."""
    rate = EVERY[measure]
    times = np.arange(60 * rate) / rate
    phase = (times * 71.3 / 60) % 1
    width = 0.01 if measure == "cardiac_ecg" else 0.1
    found = measured(measure, np.exp(-(((phase - 0.5) / width) ** 2)), rate)
    assert found["heart_rate_mean"] == pytest.approx(71.3, abs=0.02)
    assert found["sdnn"] < 1000 / rate / 10


BEATS = 0.5 + np.cumsum([0.8, 0.82, 0.79, 0.86, 0.80, 0.745, 0.81, 0.84, 0.80, 0.78])


def test_measures_of_variability_are_those_of_hand_computed_intervals():
    found = dict(zip(heart.NAMES, heart.variability(BEATS), strict=True))
    rr = np.array([820, 790, 860, 800, 745, 810, 840, 800, 780.0])
    steps = np.array([-30, 70, -60, -55, 65, 30, -40, -20.0])
    assert found["rr_mean"] == pytest.approx(rr.mean())
    assert found["heart_rate_mean"] == pytest.approx(np.mean(60_000 / rr))
    assert found["rmssd"] == pytest.approx(np.sqrt(np.mean(steps**2)))
    assert found["pnn50"] == pytest.approx(4 / 8)
    assert found["kept"] == 1


def test_measures_of_variability_are_those_of_neurokit():
    import neurokit2 as nk

    rng = np.random.default_rng(3)
    at = np.round(np.cumsum(0.8 + 0.05 * rng.standard_normal(120)) * 1000).astype(int)
    found = dict(zip(heart.NAMES, heart.variability(at / 1000), strict=True))
    times = nk.hrv_time(at, sampling_rate=1000).iloc[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of indices that are not compared
        shape = nk.hrv_nonlinear(at, sampling_rate=1000).iloc[0]
    assert found["kept"] == 1
    assert found["sdnn"] == pytest.approx(times["HRV_SDNN"])
    assert found["rmssd"] == pytest.approx(times["HRV_RMSSD"])
    count = len(at) - 1  # by which NeuroKit2 divides; there is a step less
    assert 100 * found["pnn50"] * (count - 1) / count == pytest.approx(times["HRV_pNN50"])
    assert found["sd1"] == pytest.approx(shape["HRV_SD1"], rel=1e-6)
    assert found["sd2"] == pytest.approx(shape["HRV_SD2"], rel=1e-6)


def waving(frequency: float, size: float, seconds: float = 120) -> np.ndarray:
    """Beats whose intervals of 0.8 s wave so often a second, by `size` seconds."""
    beats = [0.0]
    while beats[-1] < seconds:
        beats.append(beats[-1] + 0.8 + size * np.sin(2 * np.pi * frequency * beats[-1]))
    return np.array(beats)


@pytest.mark.parametrize(("frequency", "band"), [(0.1, "lf"), (0.25, "hf")])
def test_a_wave_of_the_intervals_lies_in_its_band(frequency, band):
    """A wave of amplitude a has the power a^2 / 2."""
    found = dict(zip(heart.NAMES, heart.variability(waving(frequency, 0.04)), strict=True))
    other = {"lf": "hf", "hf": "lf"}[band]
    assert found[band] == pytest.approx(40 / np.sqrt(2), rel=0.1)
    assert found[other] < 0.15 * found[band]
    ratio = (found["lf"] / found["hf"]) ** 2
    assert found["lf_hf"] == pytest.approx(min(ratio, 100))
    assert found["has_spectrum"] == 1


def test_frequencies_that_cannot_be_had_have_the_values_that_are_told():
    short = dict(zip(heart.NAMES, heart.variability(waving(0.1, 0.04, 20)), strict=True))
    assert [short[n] for n in ("lf", "hf", "lf_hf", "has_spectrum")] == [0, 0, 1, 0]
    even = dict(zip(heart.NAMES, heart.variability(np.arange(100) * 0.8), strict=True))
    assert (even["lf_hf"], even["has_spectrum"]) == (1, 1)
    assert even["lf"] + even["hf"] == pytest.approx(0, abs=1e-6)
    assert even["sdnn"] == pytest.approx(0, abs=1e-6)


def test_missed_and_extra_beats_are_left_out():
    beats = waving(0.1, 0.02)
    whole = dict(zip(heart.NAMES, heart.variability(beats), strict=True))
    torn = np.sort(np.append(np.delete(beats, 40), beats[80] + 0.3))
    found = dict(zip(heart.NAMES, heart.variability(torn), strict=True))
    assert found["kept"] == pytest.approx(1 - 3 / (len(torn) - 1))
    for name in ("rr_mean", "sdnn", "rmssd", "heart_rate_mean"):
        assert found[name] == pytest.approx(whole[name], rel=0.03)


@pytest.mark.parametrize(
    "beats",
    [
        [],
        [1.0],
        np.arange(4) * 0.8,  # three intervals
        np.arange(40) * 5.0,  # 12 a minute
        np.arange(400) * 0.1,
        np.cumsum([0.4, 0.9, 1.9] * 10),
    ],
)
def test_beats_that_are_not_regular_are_none(beats):
    with pytest.raises(heart.NoSignal, match="no regular beats"):
        heart.variability(np.asarray(beats, float))


# The skin


@pytest.mark.parametrize("rate", [4, 50, 700])
@pytest.mark.parametrize("count", [1, 3, 6])
def test_simulated_responses_of_the_skin_are_counted(count, rate):
    import neurokit2 as nk

    signal = nk.eda_simulate(60, sampling_rate=rate, scr_number=count, noise=0.01, random_state=1)
    found = measured("electrodermal", signal, rate)
    assert found["scr_count"] == pytest.approx(count)
    assert found["scr_amplitude_sum"] == pytest.approx(count * found["scr_amplitude_mean"])
    assert 0.5 < found["scr_rise_mean"] < 5


def response(times: np.ndarray, start: float, size: float) -> np.ndarray:
    """Up in 2 s by half a cosine, down in 6."""
    up = np.clip((times - start) / 2, 0, 1)
    down = np.clip((times - start - 2) / 6, 0, 1)
    return size / 4 * (1 - np.cos(np.pi * up)) * (1 + np.cos(np.pi * down))


def test_a_drawn_response_has_its_size_and_its_rise():
    times = np.arange(0, 60, 1 / 8)
    signal = 5 + response(times, 10, 0.4) + response(times, 40, 0.8)
    found = measured("electrodermal", signal, 8)
    assert found["scr_count"] == 2
    assert found["scr_amplitude_mean"] == pytest.approx(0.6, rel=0.1)
    assert found["scr_amplitude_max"] == pytest.approx(0.8, rel=0.1)
    assert found["scr_amplitude_sum"] == pytest.approx(1.2, rel=0.1)
    assert found["scr_rise_mean"] == pytest.approx(2, abs=0.6)


def test_a_level_that_rises_without_responses_says_so():
    """0.5 µS a minute."""
    found = measured("electrodermal", 3 + np.arange(240) / 4 / 120, 4)
    assert found["scl_mean"] == pytest.approx(3.25, abs=0.01)
    assert found["scl_slope"] == pytest.approx(0.5, rel=0.05)
    responses = {name: value for name, value in found.items() if name.startswith("scr_")}
    assert set(responses.values()) == {0}


def test_the_level_is_what_neurokit_leaves_below_the_same_frequency():
    import neurokit2 as nk

    signal = simulated("electrodermal")
    smooth = np.convolve(np.pad(signal, (2, 1), mode="edge"), np.ones(4) / 4, "valid")
    level = nk.signal_filter(smooth, 4, highcut=0.05, method="butterworth", order=2)
    found = measured("electrodermal", signal, 4)
    assert found["scl_mean"] == pytest.approx(level.mean(), rel=1e-3)
    assert found["scl_std"] == pytest.approx(level.std(), rel=0.05)


def test_noise_of_a_sensor_is_no_response():
    rng = np.random.default_rng(0)
    signal = 2 + np.round(rng.normal(0, 0.002, 240), 3)
    assert measured("electrodermal", signal, 4)["scr_count"] == 0


# Muscles


@pytest.mark.parametrize("frequency", [61, 149])
def test_a_tone_has_the_features_of_a_sine(frequency):
    times = np.arange(0, 10, 1 / 700)
    signal = 0.3 + 0.02 * np.sin(2 * np.pi * frequency * times)
    found = measured("muscle", signal, 700)
    assert found["rms"] == pytest.approx(0.02 / np.sqrt(2), rel=0.01)
    assert found["mean_absolute"] == pytest.approx(0.02 * 2 / np.pi, rel=0.01)
    assert found["peak"] == pytest.approx(0.02, rel=0.01)
    assert found["line_length"] == pytest.approx(np.abs(np.diff(signal)).sum() / 10, rel=0.01)
    assert found["zero_crossings"] == pytest.approx(2 * frequency, rel=0.01)
    assert found["mean_frequency"] == pytest.approx(frequency, rel=0.02)
    assert found["median_frequency"] == pytest.approx(frequency, abs=1)
    assert found["envelope_p10"] == pytest.approx(found["envelope_p90"], rel=0.05)


def test_bursts_raise_the_upper_envelope_alone():
    rng = np.random.default_rng(0)
    signal = rng.normal(0, 0.01, 42_000)
    calm = measured("muscle", signal, 700)
    signal[7_000:14_000] *= 10
    found = measured("muscle", signal, 700)
    assert found["envelope_p10"] == pytest.approx(calm["envelope_p10"], rel=0.1)
    assert found["envelope_p90"] > 5 * calm["envelope_p90"]


def test_what_lies_below_20_hz_is_no_muscle():
    times = np.arange(0, 10, 1 / 700)
    noise = np.random.default_rng(0).normal(0, 0.01, len(times))
    alone = measured("muscle", noise, 700)
    moved = measured("muscle", noise + np.sin(2 * np.pi * times), 700)
    assert moved["rms"] == pytest.approx(alone["rms"], rel=0.01)


# Breath


@pytest.mark.parametrize("rate", [25, 700])
@pytest.mark.parametrize("breaths", [8, 15, 25])
def test_simulated_breath_has_its_rate(breaths, rate):
    import neurokit2 as nk

    signal = nk.rsp_simulate(60, sampling_rate=rate, respiratory_rate=breaths, random_state=1)
    found = measured("respiration", signal[: 60 * rate], rate)
    assert found["rate_mean"] == pytest.approx(breaths, rel=0.05)


def test_slow_exhaling_shows_in_the_ratio():
    """Waves of 4 s, up in 1 and down in 3, between -2 and 2."""
    phase = np.arange(0, 60, 1 / 25) % 4
    signal = np.where(phase < 1, -np.cos(np.pi * phase), np.cos(np.pi * (phase - 1) / 3)) * 2
    found = measured("respiration", signal, 25)
    assert found["rate_mean"] == pytest.approx(15, rel=0.01)
    assert found["rate_std"] == pytest.approx(0, abs=0.3)
    assert found["inhale_mean"] == pytest.approx(1, abs=0.1)
    assert found["exhale_mean"] == pytest.approx(3, abs=0.1)
    assert found["inhale_exhale"] == pytest.approx(1 / 3, abs=0.05)
    assert found["amplitude_mean"] == pytest.approx(4, rel=0.05)
    assert found["range"] == pytest.approx(4, rel=0.01)


# Warmth and movement


@pytest.mark.parametrize("rate", [4, 700])
def test_a_line_of_temperature_has_its_slope(rate):
    """0.6 °C a minute, from 33 °C."""
    found = measured("temperature", 33 + 0.01 * np.arange(60 * rate) / rate, rate)
    assert found["slope"] == pytest.approx(0.6)
    assert found["mean"] == pytest.approx(33.3, abs=0.002)
    assert found["std"] == pytest.approx(0.6 / np.sqrt(12), rel=0.01)
    assert found["min"] == pytest.approx(33, abs=0.002)
    assert found["max"] == pytest.approx(33.6, abs=0.003)
    assert found["range"] == pytest.approx(found["max"] - found["min"])


def test_the_slope_is_that_of_least_squares():
    signal = np.random.default_rng(0).normal(33, 1, 240)
    oracle = 60 * np.polyfit(np.arange(240) / 4, signal, 1)[0]
    assert measured("temperature", signal, 4)["slope"] == pytest.approx(oracle)


def test_a_temperature_that_stays_is_one():
    found = measured("temperature", np.full(240, 33.5), 4)
    assert found == {"mean": 33.5, "std": 0, "min": 33.5, "max": 33.5, "range": 0, "slope": 0}


def test_movement_is_that_computed_by_hand():
    """Four samples a second of an arm that swings by 3 along x and lies on z."""
    swing = np.tile([0.0, 3, 0, -3], 8)
    signal = np.stack([swing, np.zeros(32), np.full(32, 4.0)], axis=1)
    found = measured("motion", signal, 4)
    sizes = np.tile([4.0, 5, 4, 5], 8)
    assert found == pytest.approx({
        "x_mean": 0, "x_std": np.sqrt(4.5), "y_mean": 0, "y_std": 0, "z_mean": 4, "z_std": 0,
        "magnitude_mean": 4.5, "magnitude_std": 0.5, "magnitude_max": 5,
        "energy": 4.5, "absolute": 1.5, "jerk": 12,
        "peak_frequency": 2,
    })  # fmt: skip
    assert np.sqrt((signal**2).sum(axis=1)).tolist() == sizes.tolist()


@pytest.mark.parametrize("rate", [32, 700])
def test_the_frequency_of_a_shake_is_found(rate):
    times = np.arange(0, 60, 1 / rate)
    up = 1 + 0.2 * np.sin(2 * np.pi * 1.75 * times)
    signal = np.stack([np.zeros_like(up), np.zeros_like(up), up], axis=1)
    assert measured("motion", signal, rate)["peak_frequency"] == pytest.approx(1.75, abs=0.02)


def test_a_body_at_rest_moves_by_nothing():
    found = measured("motion", np.tile([0.0, 0.6, 0.8], (320, 1)), 32)
    nonzero = {name for name, value in found.items() if abs(value) > 1e-12}
    assert nonzero == {"y_mean", "z_mean", "magnitude_mean", "magnitude_max"}


# Ready features


def test_rows_of_ready_features_are_passed_on():
    window = {"eeg": np.array([[1.0, 2.0]], np.float32), "gsr": np.array([[3.0]], np.float32)}
    given = MEASURES["given"]
    found, reason = given(window, {"eeg": 1, "gsr": 1})
    assert (found.tolist(), reason) == ([1, 2, 3], "")
    assert found.dtype == np.float64
    assert given.names({"eeg": 2, "gsr": 1}) == ("eeg_0", "eeg_1", "gsr")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.zeros((2, 3)), "c: 2 rows where one is wanted"),
        (np.zeros((0, 3)), "c: 0 rows where one is wanted"),
        (np.array([[1.0, np.nan, 2.0]]), "c: 2 of 2 samples are no numbers"),
    ],
)
def test_rows_that_are_none_say_why(rows, reason):
    assert MEASURES["given"]({"c": rows}, {"c": 1}) == (None, reason)


# What holds for all


@pytest.mark.parametrize("measure", EVERY)
def test_what_cannot_be_measured_has_a_reason(measure):
    rate, signal = EVERY[measure], simulated(measure)
    steady = measure in ("temperature", "motion")  # a flat line is a measurement
    broken = signal.copy()
    broken[5] = np.nan
    endless = signal.copy()
    endless[5] = -np.inf
    wanted = {
        "no number": (broken, "1 of .* samples are no numbers"),
        "endless": (endless, "1 of .* samples are no numbers"),
        "too short": (signal[: rate // 2], "s, at least .* are needed"),
        "nothing": (signal[:0], "s, at least .* are needed"),
        "one sample": (signal[:1], "s, at least .* are needed"),
        "too large": (signal * 1e305, "too large|no .*beats|breaths"),
    }
    if not steady:
        clipped = np.clip(signal, np.quantile(signal, 0.4), np.quantile(signal, 0.41))
        wanted |= {
            "flat": (np.full_like(signal, 2.5), "a flat line"),
            "zeros": (np.zeros_like(signal), "a flat line"),
            "saturated": (clipped, "saturated"),
            "two columns": (np.stack([signal, signal], axis=1), "2 columns"),
        }
    for name, (values, reason) in wanted.items():
        found, said = answer(measure, values, rate)
        if name == "too large" and found is not None:
            assert np.isfinite(found).all()
            continue
        assert found is None, name
        assert re.search(f"^c: .*({reason})", said), (name, said)


@pytest.mark.parametrize(
    ("measure", "rate"), [("cardiac_ecg", 50), ("cardiac_ppg", 10), ("muscle", 32)]
)
def test_a_sensor_that_is_too_slow_says_so(measure, rate):
    signal = np.random.default_rng(0).normal(size=60 * rate)
    assert "samples a second, at least" in answer(measure, signal, rate)[1]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("measure", EVERY)
def test_noise_is_measured_or_refused_without_a_warning(measure, seed):
    """Warnings are errors here."""
    rng, rate = np.random.default_rng(seed), EVERY[measure]
    for seconds in (10, 15, 16, 31):
        n = seconds * rate
        for values in (
            rng.normal(size=n), rng.normal(size=n).cumsum(), np.sin(np.arange(n) * rng.random()),
            np.arange(n) * 1.0, (rng.random(n) < 0.3) * 1.0, 1e-200 * rng.normal(size=n),
            np.sign(np.sin(np.arange(n) / rate * 6)) + 1e-9 * rng.normal(size=n),
        ):  # fmt: skip
            values = np.stack([values] * 3, axis=1) if measure == "motion" else values
            found, reason = answer(measure, values, rate)
            assert (found is None) == bool(reason)
            assert found is None or np.isfinite(found).all()


def test_filters_of_warnings_are_left_as_they_were():
    before = list(warnings.filters)
    answer("respiration", np.random.default_rng(0).normal(size=700 * 20), 700)
    assert warnings.filters == before


@pytest.mark.parametrize("measure", EVERY)
def test_a_window_has_the_same_features_to_the_bit(measure):
    """Whatever array it was cut from, whatever its type and order, and in whatever thread."""
    signal, rate = simulated(measure).astype(np.float32), EVERY[measure]
    first, _ = answer(measure, signal, rate)
    longer = np.concatenate([signal[:7] * 0, signal, signal[:9]])[7 : 7 + len(signal)]
    answer(measure, signal[::-1], rate)
    for other in (longer, signal.astype(np.float64), np.asfortranarray(signal)):
        assert answer(measure, other, rate)[0].tobytes() == first.tobytes()
    with ThreadPoolExecutor(4) as pool:
        for found, _ in pool.map(lambda _: answer(measure, signal, rate), range(8)):
            assert found.tobytes() == first.tobytes()


@pytest.mark.parametrize("measure", EVERY)
def test_the_window_is_not_changed(measure):
    signal = simulated(measure).copy()
    signal.flags.writeable = False
    answer(measure, signal, EVERY[measure])
    assert signal.tobytes() == simulated(measure).tobytes()


LEVELS = {
    "electrodermal": {"scl_mean", "scl_min", "scl_max"},
    "temperature": {"mean", "min", "max"},
}
SCALED = {
    "cardiac_ecg": set(),
    "cardiac_ppg": set(),
    "muscle": {"rms", "mean_absolute", "peak", "line_length", "envelope_p10", "envelope_p90"},
    "respiration": {"amplitude_mean", "amplitude_std", "range"},
    "temperature": set(body.WARMTH),
    "motion": {
        *(f"{axis}_{what}" for axis in "xyz" for what in ("mean", "std")), "absolute", "jerk",
        "magnitude_mean", "magnitude_std", "magnitude_max",
    },
}  # fmt: skip


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("measure", [name for name in EVERY if name != "motion"])
@given(offset=st.floats(-50, 50))
def test_an_offset_moves_levels_alone(measure, offset):
    signal, rate = simulated(measure), EVERY[measure]
    before, after = (measured(measure, one, rate) for one in (signal, signal + offset))
    for name, value in before.items():
        moved = offset if name in LEVELS.get(measure, ()) else 0
        assert after[name] == pytest.approx(value + moved, rel=1e-4, abs=1e-4), name


@settings(max_examples=8, deadline=None)
@pytest.mark.parametrize("measure", SCALED)
@given(scale=st.floats(0.01, 100))
def test_a_scale_is_that_of_sizes_alone(measure, scale):
    signal, rate = simulated(measure), EVERY[measure]
    before, after = (measured(measure, one, rate) for one in (signal, signal * scale))
    for name, value in before.items():
        wanted = value * (scale**2 if name == "energy" else scale if name in SCALED[measure] else 1)
        assert after[name] == pytest.approx(wanted, rel=1e-6, abs=1e-9), name


def test_several_channels_stand_side_by_side():
    first, second = simulated("temperature"), simulated("temperature") + 1
    measure = MEASURES["temperature"]
    window = {"chest": first[:, None], "wrist": second[:, None]}
    found, _ = measure(window, {"chest": 4, "wrist": 4})
    apart = [answer("temperature", one, 4)[0] for one in (first, second)]
    assert found.tolist() == np.concatenate(apart).tolist()
    names = measure.names({"chest": 1, "wrist": 1})
    assert names[0] == "chest_mean" and names[len(names) // 2] == "wrist_mean"
    window["wrist"] = window["wrist"][:1]
    assert measure(window, {"chest": 4, "wrist": 4})[1].startswith("wrist: ")


def test_axes_are_named_by_letters_where_there_are_three():
    names = MEASURES["motion"].names({"acc": 3})
    assert names[:6] == (
        "acc_x_mean",
        "acc_x_std",
        "acc_y_mean",
        "acc_y_std",
        "acc_z_mean",
        "acc_z_std",
    )
    assert MEASURES["motion"].names({"acc": 2})[:2] == ("acc_axis0_mean", "acc_axis0_std")
