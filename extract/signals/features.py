"""From a window of signals to features: what each measure is called, and what it computes.

A measure looks at one channel, or at several, side by side. It answers with finite features, or
with the reason why there are none: a flat line, values that are no numbers, too short a window, no
beats. Which single features have a stated value where the rest can be measured stands with each.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from extract.signals import body, heart
from extract.signals.window import NoSignal, finite

LARGEST = float(np.finfo(np.float32).max)  # what views store

Names = Callable[[str, int], tuple[str, ...]]  # of a channel with so many columns
Compute = Callable[[np.ndarray, float], Float64[np.ndarray, " F"]]  # of (n, D) at that rate


@dataclass(frozen=True)
class Measure:
    """version: raise it when a feature's value changes; libraries: whose versions decide values
    too."""

    version: int
    libraries: tuple[str, ...]
    _names: Names
    _compute: Compute

    def names(self, columns: Mapping[str, int]) -> tuple[str, ...]:
        """The features of channels with so many columns, `channel_feature`, in their order."""
        return tuple(
            f"{channel}_{name}" if name else channel
            for channel, width in columns.items()
            for name in self._names(channel, width)
        )

    def __call__(
        self, window: Mapping[str, np.ndarray], rates: Mapping[str, float]
    ) -> tuple[Float64[np.ndarray, " F"] | None, str]:
        """The features of one window and "", or None and the reason.

        window: of each channel the samples (n, D), in the order of `names`; rates: samples a second
        of each. The same window has the same features to the last bit, whatever came before.
        """
        found = []
        for channel, values in window.items():
            try:
                with np.errstate(all="ignore"):  # what is not finite is looked for below
                    features = self._compute(np.asarray(values), rates[channel])
            except NoSignal as error:
                return None, f"{channel}: {error}"
            if not (np.abs(features) <= LARGEST).all():  # nor NaN
                return None, f"{channel}: its values are too large to be measured"
            found.append(features)
        return np.concatenate(found), ""


def given(values: np.ndarray, rate: float) -> Float64[np.ndarray, " F"]:
    """The row itself, of ready features (1, D)."""
    if len(values) != 1:
        raise NoSignal(f"{len(values)} rows where one is wanted")
    return finite(np.repeat(values, 2, axis=0), rate, 0)[0]


def _numbered(channel: str, width: int) -> tuple[str, ...]:
    return ("",) if width == 1 else tuple(map(str, range(width)))


def _fixed(names: tuple[str, ...]) -> Names:
    return lambda channel, width: names


def _moved(channel: str, width: int) -> tuple[str, ...]:
    axes = body.AXES if width == len(body.AXES) else tuple(f"axis{n}" for n in range(width))
    return (*(f"{axis}_{what}" for axis in axes for what in ("mean", "std")), *body.MOVEMENT)


FILTERS, BEATS = ("scipy",), ("neurokit2", "scipy")
MEASURES: Mapping[str, Measure] = {
    "given": Measure(1, (), _numbered, given),
    "cardiac_ecg": Measure(1, BEATS, _fixed(heart.NAMES), heart.ecg),
    "cardiac_ppg": Measure(1, BEATS, _fixed(heart.NAMES), heart.ppg),
    "electrodermal": Measure(1, FILTERS, _fixed(body.SKIN), body.electrodermal),
    "muscle": Measure(1, FILTERS, _fixed(body.MUSCLE), body.muscle),
    "respiration": Measure(1, BEATS, _fixed(body.BREATH), body.respiration),
    "temperature": Measure(1, (), _fixed(body.WARMTH), body.temperature),
    "motion": Measure(1, FILTERS, _moved, body.motion),
}
