"""How fast a whole view comes into memory: ours beside other stores, over the same made features,
in one run; then a whole EMOTIC-size cache into torch tensors.

    python benchmarks/read.py [--rows 34000] [--rounds 15] [--json]

Every round runs every reader once, in another order; files are in the page cache. The fast readers
run first, by themselves; then, in fewer rounds, the slow ones with np.load and ours. What needs
`pip install -e '.[bench]'` and is absent is named as "not installed".
"""

import argparse
import importlib
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from awscrt.checksums import crc32c
from made import EMOTIC, fill, machine, make_cache, size_of

from cache.spec import ArraySpec, ViewSpec
from cache.store import open_view

WIDTH = 2048
Read = Callable[[], Any]
PACKAGES = [
    "numpy",
    "zarr",
    "awscrt",
    "zarrs",
    "tensorstore",
    "h5py",
    "torch",
    "datasets",
    "pyarrow",
    "pylance",
    "webdataset",
]


def ours(folder: Path, features: np.ndarray, compression: Any = "none") -> Read:
    root = folder / f"ours_{compression}"
    spec = ViewSpec("body", "persons", {"features": ArraySpec((WIDTH,))}, {"made": "body"})
    fill(root, spec, [str(row) for row in range(len(features))], 1024, compression, features)
    return lambda: open_view(root, "body").read()


def ours_torch(folder: Path, features: np.ndarray) -> Read:
    torch = importlib.import_module("torch")
    return lambda: torch.from_numpy(open_view(folder / "ours_none", "body").read())


def np_load(folder: Path, features: np.ndarray) -> Read:
    np.save(folder / "features.npy", features)
    return lambda: np.load(folder / "features.npy")


def hdf5(folder: Path, features: np.ndarray) -> Read:
    h5py = importlib.import_module("h5py")
    with h5py.File(folder / "features.h5", "w") as file:
        file["features"] = features

    def read() -> np.ndarray:
        with h5py.File(folder / "features.h5") as file:
            return file["features"][:]

    return read


def plain_zarr(folder: Path, features: np.ndarray) -> Read:
    import zarr

    return lambda: zarr.open_array(folder / "ours_none/body.zarr/features", mode="r")[:]


def zarr_zarrs(folder: Path, features: np.ndarray) -> Read:
    import zarr

    importlib.import_module("zarrs")
    read = plain_zarr(folder, features)

    def with_zarrs() -> np.ndarray:
        with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
            return read()

    return with_zarrs


def tensorstore(folder: Path, features: np.ndarray) -> Read:
    ts = importlib.import_module("tensorstore")
    place = str(folder / "ours_none/body.zarr/features")
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": place}}
    return lambda: ts.open(spec, open=True, read=True).result().read().result()


def hugging_face(folder: Path, features: np.ndarray) -> Read:
    datasets = importlib.import_module("datasets")
    import pyarrow as pa

    datasets.disable_progress_bars()
    column = datasets.Features({"features": datasets.List(datasets.Value("float16"), WIDTH)})
    rows = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), WIDTH)
    made = datasets.Dataset(
        pa.table({"features": rows}), info=datasets.DatasetInfo(features=column)
    )
    made.save_to_disk(folder / "arrow")

    def read() -> np.ndarray:
        return datasets.load_from_disk(folder / "arrow").with_format("numpy")[:]["features"]

    return read


def lance(folder: Path, features: np.ndarray) -> Read:
    lance = importlib.import_module("lance")
    import pyarrow as pa

    rows = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), WIDTH)
    lance.write_dataset(pa.table({"features": rows}), folder / "features.lance")

    def read() -> np.ndarray:
        column = lance.dataset(folder / "features.lance").to_table()["features"]
        return column.combine_chunks().flatten().to_numpy().reshape(-1, WIDTH)

    return read


def webdataset(folder: Path, features: np.ndarray) -> Read:
    wds = importlib.import_module("webdataset")
    (folder / "tar").mkdir()
    with wds.ShardWriter(f"{folder}/tar/%04d.tar", maxcount=1024, verbose=0) as sink:
        for row, values in enumerate(features):
            sink.write({"__key__": f"{row:06d}", "npy": values})
    shards = sorted(map(str, (folder / "tar").glob("*.tar")))

    def read() -> np.ndarray:
        samples = wds.WebDataset(shards, shardshuffle=False).decode()
        return np.stack([sample["npy"] for sample in samples])

    return read


READERS: dict[str, Callable[[Path, np.ndarray], Read]] = {
    "ours": ours,
    "ours, torch": ours_torch,
    "ours, zstd": lambda folder, features: ours(folder, features, "zstd"),
    "np.load": np_load,
    "HDF5": hdf5,
    "zarr": plain_zarr,
    "zarr, zarrs pipeline": zarr_zarrs,
    "zarr, tensorstore": tensorstore,
    "Hugging Face datasets": hugging_face,
    "Lance": lance,
    "WebDataset": webdataset,
}
SLOW = 0.08  # seconds for all rows
NOT_PEERS = ("ours", "ours, torch", "ours, zstd", "np.load")


def seconds(job: Read) -> float:
    started = time.perf_counter()
    result = job()
    took = time.perf_counter() - started
    del result  # giving the memory back is not part of reading
    return took


def side_by_side(folder: Path, rows: int, rounds: int) -> dict[str, Any]:
    features = np.random.default_rng(0).standard_normal((rows, WIDTH), np.float32)
    features = features.astype(np.float16)
    jobs, absent, slow = {}, [], []
    for name, prepare in READERS.items():
        try:
            jobs[name] = prepare(folder, features)
        except ImportError:
            absent.append(name)
            continue
        if not np.array_equal(np.asarray(jobs[name]()), features):
            raise SystemExit(f"{name} does not give back what was written")
        if name not in NOT_PEERS and seconds(jobs[name]) > SLOW:
            slow.append(name)
    names = list(jobs)
    took: dict[str, dict[int, float]] = defaultdict(dict)
    # The fast ones among themselves: what a slow one leaves in the machine's caches and free
    # pages is not theirs to bear. Then the slow ones, with np.load and ours among them.
    fast = [name for name in names if name not in slow]
    groups = [fast] * rounds + [[*slow, "np.load", "ours"]] * max(3, rounds // 5)
    for number, group in enumerate(groups):
        for name in group[number % len(group) :] + group[: number % len(group)]:
            took[name][number] = seconds(jobs[name])

    def times(slow: str, fast: str) -> float:
        """How many times as fast, median over the rounds in which both ran."""
        both = took[slow].keys() & took[fast].keys()
        return round(statistics.median(took[slow][n] / took[fast][n] for n in both), 3)

    median = {name: statistics.median(took[name].values()) for name in names}
    flat = features.reshape(-1).view(np.uint8)
    pieces = np.array_split(flat, max(1, flat.nbytes >> 20))
    return {
        "bytes": features.nbytes,
        "of_np_load": times("np.load", "ours"),
        "peers": {name: times(name, "ours") for name in names if name not in NOT_PEERS},
        "not_installed": absent,
        "readers": {
            name: {
                "ms": round(median[name] * 1e3, 1),
                "least_ms": round(min(took[name].values()) * 1e3, 1),
                "GB_s": round(features.nbytes / median[name] / 1e9, 2),
                "of_np_load": times("np.load", name),
                "rounds": len(took[name]),
            }
            for name in names
        },
        "checksum_ms": round(
            statistics.median(seconds(lambda: [crc32c(p) for p in pieces]) for _ in range(5)) * 1e3,
            1,
        ),
    }


def whole_cache(folder: Path, share: float) -> dict[str, Any]:
    """All of HugMe's views for `share` of EMOTIC into torch tensors, as `emocache train` does."""
    import torch

    from train.data import load

    sizes = {**EMOTIC, **{n: int(EMOTIC[n] * share) for n in ("persons", "pictures")}}
    views = ("body", "head", "objects", "depth", "scene", "labels")
    writing = seconds(lambda: make_cache(folder, sizes))

    def every_array() -> list[torch.Tensor]:
        opened = [open_view(folder, name) for name in views]
        return [torch.from_numpy(view.read(name)) for view in opened for name in view.spec.arrays]

    def of_training() -> list[torch.Tensor]:
        features = load(folder, views)
        return [tensor for arrays in features.views.values() for tensor in arrays.values()]

    found: dict[str, Any] = {**sizes, "on_disk": size_of(folder), "write_s": round(writing, 1)}
    for name, job in (("every_array", every_array), ("train_data_load", of_training)):
        nbytes = sum(tensor.nbytes for tensor in job())
        took = statistics.median(seconds(job) for _ in range(5))
        rate = round(nbytes / took / 1e9, 2)
        found[name] = {"bytes": nbytes, "s": round(took, 3), "GB_s": rate}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=34_000, help="of the side-by-side array")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    result: dict[str, Any] = {"rows": asked.rows, "machine": machine(*PACKAGES)}
    with tempfile.TemporaryDirectory() as folder:
        result |= side_by_side(Path(folder), asked.rows, asked.rounds)
    with tempfile.TemporaryDirectory() as folder:
        result["emotic"] = whole_cache(Path(folder) / "features", min(1.0, asked.rows / 34_000))
    if asked.json:
        print(json.dumps(result))
        return
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']:.1f}, {about['date']}")
    print("  ".join(f"{name} {number}" for name, number in about["versions"].items()))
    print(f"\n{asked.rows} x {WIDTH} float16, {result['bytes'] / 1e6:.0f} MB, medians")
    print(f"{'':24}{'ms':>9}{'least':>9}{'GB/s':>8}{'of np.load':>12}{'ours is':>9}{'rounds':>8}")
    for name, one in result["readers"].items():
        ahead = f"{result['peers'][name]:.1f} x" if name in result["peers"] else ""
        print(
            f"{name:24}{one['ms']:9.1f}{one['least_ms']:9.1f}{one['GB_s']:8.2f}"
            f"{one['of_np_load']:12.2f}{ahead:>9}{one['rounds']:8}"
        )
    for name in result["not_installed"]:
        print(f"{name:24}not installed")
    print(f"the checksums alone, on one core: {result['checksum_ms']} ms")
    emotic = result["emotic"]
    disk = emotic["on_disk"]
    print(
        f"\n{emotic['persons']} persons, {emotic['pictures']} pictures, every view: "
        f"{disk['bytes'] / 1e9:.2f} GB in {disk['files']} files, written in {emotic['write_s']} s"
    )
    for name in ("every_array", "train_data_load"):
        one = emotic[name]
        print(f"{name:24}{one['bytes'] / 1e9:.2f} GB in {one['s']:.2f} s, {one['GB_s']} GB/s")


if __name__ == "__main__":
    main()
