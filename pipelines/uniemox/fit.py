"""What `pretrain` and `finetune` have in common: one fit, its key and the facts of it."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from cache.contents import weights_summary
from cache.index import Index
from cache.keys import key_of
from pipelines.uniemox.pictures import PictureSource
from train.run import versions
from train.uniemox.descent import Course
from train.uniemox.ranks import World
from train.uniemox.settings import Descent

Settings = TypeVar("Settings", bound=Descent)
WITHOUT_EFFECT = {"readers", "save_every", "log"}  # on the numbers


@dataclass(kw_only=True)
class Fit(ABC, Generic[Settings]):
    """All that one fit is made of."""

    settings: Settings
    index: Index
    source: PictureSource
    dropped: Counter[str]
    warnings: list[str] = field(default_factory=list)

    @property
    @abstractmethod
    def weights(self) -> Sequence[Mapping[str, Any]]:
        """Facts of those that were given."""

    @property
    @abstractmethod
    def cache_key(self) -> str:
        """Of all that was given but the settings."""

    @property
    def key(self) -> str:
        """Of everything that decides the numbers but the code and the devices."""
        return key_of(
            {
                "settings": self.settings.model_dump(mode="json", exclude=WITHOUT_EFFECT),
                "cache": self.cache_key,
                "torch": str(torch.__version__),
            }
        )

    def seen(self, done: Course) -> dict[str, int]:
        """By split, how many samples could be read."""
        return {
            split: sum(sample.row not in done.lost for sample in samples)
            for split, samples in self.source.samples.items()
        }

    def facts(self, network: nn.Module, done: Course, here: World) -> dict[str, Any]:
        """Of pretrain.json and of finetune.json."""
        paths = {s.row: s.path for samples in self.source.samples.values() for s in samples}
        return {
            "dataset": self.index.dataset,
            "note": self.index.note,
            "cache_key": self.cache_key,
            "seed": self.settings.seed,
            "dropped": dict(sorted(self.dropped.items())),
            "lost": {paths[row]: why for row, why in sorted(done.lost.items())},
            "warnings": self.warnings,
            **weights_summary(self.weights),
            "epochs": len(done.history),
            "resumed": done.resumed,
            "skipped": done.skipped,
            "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
            "device": str(here.device),
            "devices": here.size,
            "seconds": round(sum(row["seconds"] for row in done.history), 1),
            "versions": versions(),
            "settings": self.settings.model_dump(mode="json"),
        }
