"""What the benchmarks share: made numbers in the paper's shapes, as a cache or in memory, and the
machine."""

import hashlib
import os
import platform
import sys
from collections.abc import Collection, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from cache.index import PERSONS, PICTURES, Index
from cache.manifest import write_manifest
from cache.shards import Compression
from cache.spec import ArraySpec, Row, ViewSpec
from cache.writer import ViewWriter
from pipelines.process import settle

if TYPE_CHECKING:
    from train.data import Features

ROOT = Path(__file__).resolve().parents[1]
# Python looks for modules in this folder first: extract.py would stand before the package.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT / "benchmarks"]
settle()  # as the command does, before torch is imported
EMOTIC = {"persons": 34_320, "pictures": 23_450, "labels": 26}
WIDTHS = {"picture": 2048, "depth": 768, "text": 768}  # ResNet-50, DPT-Hybrid (MiDaS), BERT-base
REGIONS, CLASSES = 1024, 91  # Faster R-CNN's region features and COCO's classes


class Shapes:
    """Stands where `extract.loaded.Networks` stands, and knows widths only."""

    def backbone(self, name: str, kind: str) -> Any:
        return SimpleNamespace(width=WIDTHS[kind])

    def detector(self, name: str, kind: str) -> Any:
        return SimpleNamespace(region_width=REGIONS, classes=[str(n) for n in range(CLASSES)])


def paper_specs() -> dict[str, ViewSpec]:
    """Every view of HugMe as `pipelines/profiles/paper.yaml` sets it."""
    from extract.views import make_views
    from pipelines.settings import load

    settings = load(ROOT / "pipelines/profiles/paper.yaml")
    views = make_views(settings.views, settings.cache.dtype)
    shapes: Any = Shapes()
    return {
        name: ViewSpec(
            name, view.space, view.arrays(shapes), {"made": name}, facts=view.facts(shapes)
        )
        for name, view in views.items()
    }


def make_cache(root: Path, sizes: Mapping[str, int], shard_rows: int = 1024) -> Index:
    """A whole cache of `sizes` persons, pictures and labels; adds rows where it has fewer."""
    index = make_index(sizes)
    index.write(root)
    for spec in paper_specs().values():
        fill(root, spec, index.ids(spec.space), shard_rows)
    write_manifest(root, index.digest())
    return index


def fill(
    root: Path,
    spec: ViewSpec,
    ids: list[str],
    shard_rows: int = 1024,
    compression: Compression = "none",
    features: np.ndarray | None = None,
) -> None:
    """Put every row that the view lacks: those of `features`, else drawn ones."""
    writer = ViewWriter(root, spec, ids, shard_rows, compression)
    missing = np.flatnonzero(~writer.done)
    writer.expect(missing.tolist())
    for start in range(0, len(missing), 1024):
        rows = missing[start : start + 1024]
        if features is not None:
            blocks = {"features": features[rows]}
        else:
            rng = np.random.default_rng([*spec.name.encode(), int(rows[0])])
            blocks = {name: draw(rng, array, len(rows)) for name, array in spec.arrays.items()}
        for at, row in enumerate(rows.tolist()):
            writer.put(row, Row("ok", {name: block[at] for name, block in blocks.items()}))
    writer.close()


def draw(rng: np.random.Generator, array: ArraySpec, rows: int) -> np.ndarray:
    """Random normal features; of integers, classes of objects or how many there are."""
    if array.dtype.startswith("float"):
        return rng.standard_normal((rows, *array.shape), np.float32).astype(array.dtype)
    return rng.integers(0, 10, (rows, *array.shape)).astype(array.dtype)


def made_features(
    persons: int, val: int = 60, skipped: Collection[str] = (), device: str = "cpu"
) -> "Features":
    """Persons of train and of val in memory, a picture each; arrays named in `skipped` left out."""
    from train.data import ViewData, from_arrays

    count, labels = persons + val, EMOTIC["labels"]
    rng = np.random.default_rng(0)
    views = {}
    for name, spec in paper_specs().items():
        rows = labels if spec.space == "labels" else count
        kept = {n: array for n, array in spec.arrays.items() if n not in skipped}
        arrays = {n: _by_blocks(rng, array, rows) for n, array in kept.items()}
        views[name] = ViewData(spec, arrays, np.ones(rows, np.uint8))
    corner = rng.uniform(0, 200, (count, 2))
    return from_arrays(
        views=views,
        boxes=np.concatenate([corner, corner + 100], 1).astype(np.float32),
        sizes=np.tile([[640, 480]], (count, 1)),
        pictures=np.arange(count),
        labels=[f"label {n}" for n in range(labels)],
        targets=(rng.random((count, labels)) < 0.1).astype(np.float32),
        splits=np.array(["train"] * persons + ["val"] * val),
        device=device,
    )


def _by_blocks(rng: np.random.Generator, array: ArraySpec, rows: int) -> np.ndarray:
    """As `draw`, a block at a time, so that float32 noise of all rows never stands at once."""
    out = np.empty((rows, *array.shape), array.dtype)
    for start in range(0, rows, 1024):
        out[start : start + 1024] = draw(rng, array, len(out[start : start + 1024]))
    return out


def make_index(sizes: Mapping[str, int]) -> Index:
    persons, pictures = np.arange(sizes["persons"]), np.arange(sizes["pictures"])
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (EMOTIC["persons"] * 2, 2))[: len(persons)]
    votes = rng.random((EMOTIC["persons"] * 2, sizes["labels"]))[: len(persons)] < 0.1
    columns: dict[str, Any] = {
        "id": [_hash(f"person {row}") for row in persons],
        "picture": persons * EMOTIC["pictures"] // EMOTIC["persons"],
        **dict(zip(("x1", "y1"), corner.T, strict=True)),
        **dict(zip(("x2", "y2"), corner.T + 100, strict=True)),
        "split": ["train"] * len(persons),
        "labels": list(votes.astype(np.float32)),
        "status": ["ok"] * len(persons),
    }
    made = {
        "id": [_hash(f"picture {row}") for row in pictures],
        "path": [f"{row}.jpg" for row in pictures],
        "width": [640] * len(pictures),
        "height": [480] * len(pictures),
        "status": ["ok"] * len(pictures),
    }
    labels = tuple(f"label {number}" for number in range(sizes["labels"]))
    return Index("made", "made numbers", labels, _table(made, PICTURES), _table(columns, PERSONS))


def _table(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    rows = len(columns["id"])
    whole = {
        name: columns.get(name, [""] * rows if schema.field(name).type == pa.string() else None)
        for name in schema.names
    }
    return pa.table({n: [None] * rows if v is None else v for n, v in whole.items()}, schema)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def size_of(*places: Path) -> dict[str, int]:
    """Files at and below some places, and their bytes."""
    found = [path for place in places for path in (place, *place.rglob("*")) if path.is_file()]
    return {"files": len(found), "bytes": sum(path.stat().st_size for path in found)}


def machine(*packages: str) -> dict[str, Any]:
    """What a figure was measured on, with the versions of `packages`."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],  # of other programs too: what else ran
        "date": date.today().isoformat(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
