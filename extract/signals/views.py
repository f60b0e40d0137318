"""Views of signals: the features of each modality in each window. No network is run."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from cache.index import Index
from cache.spec import ArraySpec, Row
from extract.datasets import get_dataset
from extract.families import Families
from extract.loaded import Networks
from extract.signals.features import MEASURES
from extract.signals.recording import Excerpt, Modality
from extract.views import View

# What is measured: of each channel the samples (n, D), and how many there are a second.
Windows = tuple[dict[str, np.ndarray], dict[str, float]]


class Signals(View):
    """One modality: `features` (F,) float32 of each window, whatever `cache.dtype` says, as a
    feature may be in milliseconds, or in their squares. A window that says nothing (a flat line, no
    beat) has zeros and the status `no_signal`, with the reason."""

    space = "persons"

    def __init__(self, name: str, modality: Modality):
        super().__init__(None, "float32")
        self.name, self.modality = name, modality  # type: ignore[misc]  # one class, many views
        self.measure = MEASURES[modality.measure]
        self.decoder = modality.decoder
        self.names = self.measure.names(modality.columns)

    def parts(self, networks: Networks) -> dict[str, Any]:
        return {
            "view": self.name,
            "version": self.version,
            "settings": self.modality.as_dict(),
            "measure": self.measure.version,
            "libraries": {name: version(name) for name in self.measure.libraries},
            "decoding": get_dataset(self.decoder).decoding,
            "dtype": self.dtype,
        }

    def _networks(self) -> list[tuple[Families[Any], str, str]]:
        return []

    def facts(self, networks: Networks) -> dict[str, Any]:
        return {"role": self.modality.role, "features": list(self.names)}

    def arrays(self, networks: Networks) -> dict[str, ArraySpec]:
        return {"features": ArraySpec((len(self.names),), self.dtype, dims=("feature",))}

    def prepare(self, subject: Excerpt) -> Windows:
        channels = {name: subject.channels[name] for name in self.modality.channels}
        return (
            {name: one.between(subject.start, subject.end) for name, one in channels.items()},
            {name: one.rate for name, one in channels.items()},
        )

    def compute(self, inputs: Sequence[Windows], networks: Networks) -> list[Row]:
        return list(networks.map(self._row, inputs))

    def _row(self, window: Windows) -> Row:
        features, reason = self.measure(*window)
        if features is None:
            return Row("no_signal", reason=reason)
        return Row("ok", {"features": features})


def make_signals(index: Index) -> dict[str, Signals]:
    """The views that an index of recordings names."""
    return {name: Signals(name, Modality.of(facts)) for name, facts in index.modalities.items()}
