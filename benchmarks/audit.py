"""What the leakage audit costs at the size of EMOTIC, and which cosine of scene features tells
copies of a picture from other pictures.

    python benchmarks/audit.py [--share 1.0] [--rounds 3] [--pictures 300] [--json]

time      `cache.audit.audit` of made features (23,450 x 2,048 float16 in three splits, with planted
          copies that it must find), beside the matrix products alone, on blocks in memory
copies    COCO pictures and altered copies of them through the scene view of params.yaml: cosines of
          each kind of copy with its picture, and of different pictures; of the features as they are
          and less their mean; left out where pictures or trained weights are not at hand
"""

import argparse
import io
import json
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from made import EMOTIC, ROOT, fill, machine, make_index, paper_specs  # isort: split

from PIL import Image, ImageEnhance, ImageOps

from cache.audit import BLOCK, NEAR, audit
from cache.errors import WeightsError
from extract import images
from extract.loaded import Networks
from extract.views import Subject, make_views
from pipelines.settings import load

SPLITS = {"train": 16_977, "val": 2_085, "test": 4_388}  # pictures of EMOTIC's CSV release
PLANTED = 50  # copies of train pictures in test
COCO = ROOT.parent / "shared/data/coco"


def made_cache(root: Path, share: float) -> dict[str, int]:
    """A cache with index and scene view in EMOTIC's splits; gives pictures by split."""
    sizes = {name: int(number * share) for name, number in EMOTIC.items()} | {"labels": 26}
    index = make_index(sizes)
    starts = np.cumsum([int(number * share) for number in SPLITS.values()])[:-1]
    names = np.array(list(SPLITS))[np.searchsorted(starts, index.picture_rows, side="right")]
    at = index.persons.schema.get_field_index("split")
    persons = index.persons.set_column(at, "split", pa.array(names.tolist()))
    replace(index, persons=persons).write(root)
    rng = np.random.default_rng(0)
    spec = paper_specs()["scene"]
    (width,) = spec.arrays["features"].shape
    features = rng.standard_normal((sizes["pictures"], width), np.float32).astype(np.float16)
    features[-PLANTED:] = features[:PLANTED]
    fill(root, spec, index.ids("pictures"), features=features)
    return {name: len(np.unique(index.picture_rows[names == name])) for name in SPLITS}


def cost(folder: Path, share: float, rounds: int) -> dict[str, Any]:
    pictures = made_cache(folder, share)
    rng = np.random.default_rng(0)
    block = rng.standard_normal((BLOCK, 2048), np.float32)

    def products() -> None:
        for a, b in combinations(pictures.values(), 2):
            for rows in sizes_of(a):
                for others in sizes_of(b):
                    block[:rows] @ block[:others].T

    took: dict[str, list[float]] = {"audit": [], "products": []}
    found: list[int | None] = []

    def ours() -> None:
        found[:] = [one.near_pictures for one in audit(folder).overlaps]

    for _ in range(rounds):
        took["audit"].append(seconds(ours))
        took["products"].append(seconds(products))
    if found != [0, PLANTED, 0]:
        raise SystemExit(f"near-duplicates found: {found}, planted: {PLANTED} in train and test")
    tracemalloc.start()  # after the rounds, as it slows them
    audit(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    ratios = [b / a for a, b in zip(took["audit"], took["products"], strict=True)]
    return {
        "pictures": pictures,
        "s": {name: round(statistics.median(all_), 2) for name, all_ in took.items()},
        "of_products_alone": round(statistics.median(ratios), 3),
        "peak_MB": round(peak / 1e6),
        "features_MB": round(sum(pictures.values()) * 2048 * 2 / 1e6),
    }


def sizes_of(rows: int) -> list[int]:
    return [min(BLOCK, rows - start) for start in range(0, rows, BLOCK)]


def seconds(job: Callable[[], Any]) -> float:
    started = time.perf_counter()
    job()
    return time.perf_counter() - started


# ---------------------------------------------------------------------------- copies of pictures


def saved(picture: Image.Image, quality: int = 85) -> Image.Image:
    """As it comes back from a JPEG file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def scaled(picture: Image.Image, by: float) -> Image.Image:
    size = [max(1, round(side * by)) for side in picture.size]
    return saved(picture.resize((size[0], size[1]), Image.Resampling.BICUBIC))


def cropped(picture: Image.Image, by: float) -> Image.Image:
    """Without the share `by` at each of the four sides."""
    across, down = picture.width * by, picture.height * by
    sides = (across, down, picture.width - across, picture.height - down)
    return saved(picture.crop(tuple(map(round, sides))))  # type: ignore[arg-type]


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG quality 75": lambda picture: saved(picture, 75),
    "JPEG quality 30": lambda picture: saved(picture, 30),
    "half the size": lambda picture: scaled(picture, 0.5),
    "a quarter of the size": lambda picture: scaled(picture, 0.25),
    "2.5 % cut off each side": lambda picture: cropped(picture, 0.025),
    "5 % cut off each side": lambda picture: cropped(picture, 0.05),
    "10 % cut off each side": lambda picture: cropped(picture, 0.1),
    "20 % brighter": lambda picture: saved(ImageEnhance.Brightness(picture).enhance(1.2)),
    "grey": lambda picture: saved(ImageOps.grayscale(picture).convert("RGB")),
    "mirrored": lambda picture: saved(ImageOps.mirror(picture)),
}


def copies(most: int) -> dict[str, Any] | None:
    """Cosines of pictures with their copies and with other pictures."""
    by_name = {path.name: path for path in sorted(COCO.glob("**/*.jpg"))}  # sets overlap
    settings = load(ROOT / "params.yaml")
    networks = Networks(settings.weights)
    view = make_views(settings.views, settings.cache.dtype)["scene"]
    try:
        weights = networks.weights(settings.views.scene.network)
    except WeightsError:
        return None
    if not by_name or not weights.trained:
        return None
    pictures = [Image.fromarray(images.read(by_name[n]).pixels) for n in sorted(by_name)[:most]]

    def features(change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
        found = []
        for start in range(0, len(pictures), 32):
            some = [Subject(np.array(change(one))) for one in pictures[start : start + 32]]
            found += [row.values["features"] for row in view.run(some, networks)]
        return np.stack(found).astype(np.float16).astype(np.float32)

    plain = features(lambda picture: picture)
    altered = {name: features(change) for name, change in COPIES.items()}
    result: dict[str, Any] = {"pictures": len(pictures), "network": weights.name}
    for name, mean in zip(FEATURES, (0.0, plain.mean(0)), strict=True):
        result[name] = told_apart(plain - mean, {n: rows - mean for n, rows in altered.items()})
    return result


def told_apart(plain: np.ndarray, altered: dict[str, np.ndarray]) -> dict[str, Any]:
    """Quantiles of the cosines, and the share of copies at thresholds."""
    plain = unit(plain)
    other = (plain @ plain.T)[np.triu_indices(len(plain), 1)]
    own = {name: (plain * unit(rows)).sum(1) for name, rows in altered.items()}
    return {
        "other pictures": {
            "pairs": len(other),
            "median": round(float(np.median(other)), 3),
            "99.9 %": round(float(np.quantile(other, 0.999)), 3),
            "largest": [round(float(one), 3) for one in np.sort(other)[::-1][:5]],
        },
        "copies": {
            name: {
                "least": round(float(cosines.min()), 3),
                "1 %": round(float(np.quantile(cosines, 0.01)), 3),
                "median": round(float(np.median(cosines)), 3),
                "found": {str(near): round(float((cosines >= near).mean()), 3) for near in TRIED},
            }
            for name, cosines in own.items()
        },
        "others found": {str(near): int((other >= near).sum()) for near in TRIED},
    }


TRIED = sorted({0.7, 0.75, 0.8, 0.85, 0.9, 0.95, NEAR})
FEATURES = ("as they are", "less their mean")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of EMOTIC's rows")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=300, help="at most, of COCO; 0: none")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    result: dict[str, Any] = {"machine": machine("numpy"), "near": NEAR}
    with tempfile.TemporaryDirectory() as folder:
        result["time"] = cost(Path(folder), asked.share, asked.rounds)
    result["copies"] = copies(asked.pictures) if asked.pictures else None
    if asked.json:
        print(json.dumps(result))
        return
    for name, value in result["time"].items():
        print(f"{name:26}{value}")
    if result["copies"] is None:
        print("no COCO pictures or no trained weights: copies were not looked at")
        return
    for name in FEATURES:
        found = result["copies"][name]
        print(f"\nfeatures {name}")
        print(f"{'different pictures':26}{found['other pictures']}")
        for what, one in found["copies"].items():
            print(f"{what:26}{one}")
        print(f"{'different, found':26}{found['others found']}")


if __name__ == "__main__":
    main()
