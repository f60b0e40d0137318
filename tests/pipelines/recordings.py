"""A small cache of recordings: made-up signals of six subjects, windows of 60 s every 30 s."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from cache.index import Index, LabelKind
from pipelines.settings import Settings, load
from tests.pipelines.conftest import ROOT
from tests.train import made
from train.data import ViewData

LABELS = ("calm", "glad", "sad", "tense")
SUBJECTS, WINDOWS = 6, 20
MODALITIES = {
    "eeg": {"role": "physiological", "channels": ["AF3", "AF4"], "measure": "given"},
    "face": {"role": "behavioural", "channels": ["video"], "measure": "given"},
}


def write_recordings(root: Path, kind: LabelKind = "distribution") -> Index:
    """Two stretches a subject, half of the windows in each; what is felt hangs on both views."""
    rng = np.random.default_rng(0)
    count = SUBJECTS * WINDOWS
    stretch = np.arange(count) // (WINDOWS // 2)
    signal = rng.normal(size=(count, 4))
    shares = np.exp(1.5 * signal) / np.exp(1.5 * signal).sum(1, keepdims=True)
    targets = {
        "distribution": shares,
        "single": np.eye(4)[shares.argmax(1)],
        "multi": signal > 0.5,
    }[kind].astype(np.float32)
    start = 30.0 * (np.arange(count) % (WINDOWS // 2))
    noise = 0.3 * rng.normal(size=(2, count, 8))
    noise[:, :, :4] += signal
    views = {
        name: ViewData.of(
            name,
            "persons",
            {"features": part.astype(np.float32)},
            facts={"role": MODALITIES[name]["role"]},
        )
        for name, part in zip(MODALITIES, noise, strict=True)
    }
    stretches = int(stretch.max()) + 1
    made.write_cache(
        root,
        {
            "views": views,
            "boxes": np.stack([start, 0 * start, start + 60, 0 * start + 1], 1),
            "sizes": np.tile([[400, 1]], (stretches, 1)),
            "pictures": stretch,
            "labels": LABELS,
            "targets": targets,
            "splits": np.array(["train", "train", "train", "train", "val", "test"])[stretch // 2],
            "status": np.full(count, "ok", dtype=object),
        },
    )
    index = Index.read(root)
    found = index.pictures
    for name, values in (
        ("path", [f"S{n // 2}/S{n // 2}.pkl#{n % 2 + 1}-baseline" for n in range(stretches)]),
        ("group", [f"S{n // 2}" for n in range(stretches)]),
    ):
        place = found.schema.get_field_index(name)
        found = found.set_column(place, found.schema.field(name), pa.array(values))
    index = replace(index, pictures=found, kind=kind, modalities=MODALITIES)
    index.write(root)
    return Index.read(root)


def settings(root: Path, *more: str) -> Settings:
    """Of a run on that cache; `data.root` is a folder that is not there."""
    given = ("device=cpu", "data.name=made", f"data.root={root / 'gone'}", f"cache.root={root}")
    quick = ("train.head=mlp", "train.mlp.hidden=[8]", "train.epochs=2", "evaluate.bootstrap=100")
    return load(ROOT / "params.yaml", (*given, *quick, "report.people=3", *more))
