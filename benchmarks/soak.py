"""A long extraction of small drawn pictures, 1 % of them bad in every way: does it end, is every
bad one a row with its reason, does time grow with the work and memory not?

    python benchmarks/soak.py [--pictures 20000] [--json]

The views need no network (mean colour and area of a box, mean colour of a picture), so that what
is measured is all the rest: reading, decoding, blocks, shards, commits. It runs at a quarter, at
half and at the whole number of pictures; memory is the peak of a process of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from made import ROOT, machine
from PIL import Image

from cache.check import verify
from cache.index import Index
from cache.settings import Cache
from cache.spec import ArraySpec, Row, ViewSpec
from cache.statuses import WORDS
from cache.store import open_view
from extract import images
from extract import settings as config
from extract.datasets import Dataset, PersonRecord, PictureRecord, dataset
from extract.loaded import Networks
from extract.prepare import prepare
from extract.run import extract
from extract.views import View

BOX = (4.0, 4.0, 40.0, 44.0)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("this is no picture")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def missing(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def noise(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 200] = os.urandom(200)
    path.write_bytes(data[: len(data) // 2])


def bomb(path: Path) -> None:
    Image.new("1", (12_000, 9_000)).save(path, "PNG")


def wrong_colours(path: Path) -> None:
    pixels = np.random.default_rng(int(path.stem)).random((48, 48), np.float32)
    Image.fromarray(pixels).save(path, "TIFF")  # no two of equal bytes: they would be one picture


BAD = [empty, text, cut, missing, folder, noise, bomb, wrong_colours]


class Drawn(Dataset):
    """Pictures with one person each; every hundredth is bad."""

    name, note = "drawn", "drawn pictures, nothing to learn"
    labels = ("none",)
    definitions = {"none": "nothing is shown of emotion"}  # noqa: RUF012

    def records(self):
        for number in range(int((self.root / "pictures").read_text())):
            person = PersonRecord(BOX, "train", np.zeros(1, np.float32))
            yield PictureRecord(name_of(number), "train", "drawn", None, None, [person])


def name_of(number: int) -> str:
    return f"{number // 1000:03d}/{number:06d}.jpg"


def draw(root: Path, pictures: int) -> Counter:
    """Draw the pictures; gives how many are bad in each way."""
    bad: Counter = Counter()
    rng = np.random.default_rng(0)
    for number in range(pictures):
        path = root / name_of(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        Image.fromarray(small).resize((48, 48)).save(path, quality=80)
        if number % 100 == 50:
            way = BAD[number // 100 % len(BAD)]
            way(path)
            bad[way.__name__] += 1
    (root / "pictures").write_text(str(pictures))
    return bad


class Plain(View):
    """A view without a network."""

    def network_names(self):
        return []

    def parts(self, networks):
        return {"view": self.name, "drawn": 1}

    def arrays(self, networks):
        return {"features": ArraySpec((3,), "float32")}

    def spec(self, networks):
        return ViewSpec(self.name, self.space, self.arrays(networks), self.parts(networks))

    def compute(self, inputs, networks):
        return [Row("ok", {"features": value}) for value in inputs]


class Colour(Plain):
    name, space = "colour", "persons"

    def prepare(self, subject):
        return images.crop(subject.pixels, subject.box).mean((0, 1))


class Whole(Plain):
    name, space = "whole", "pictures"

    def prepare(self, subject):
        return subject.pixels.mean((0, 1))


def one(root: Path, pictures: int) -> dict[str, Any]:
    """Prepare and extract in this process; memory after each tenth, to see whether it grows."""
    dataset("drawn")(Drawn)
    data = config.Data(name="drawn", root=root / "data")
    cache = Cache(root=root / f"cache{pictures}")
    (data.root / "pictures").write_text(str(pictures))
    started = time.perf_counter()
    prepare(data, cache.root)
    prepared = time.perf_counter()
    memory: list[tuple[int, int]] = []

    def watch(done: int, total: int) -> None:
        if not memory or done - memory[-1][0] >= total // 10:
            memory.append((done, resident()))

    views = {view.name: view(None, "float32") for view in (Colour, Whole)}
    networks = Networks(config.Weights())
    outcome = extract(data, cache, config.Extract(), views, networks, watch)
    ended = time.perf_counter()
    index = Index.read(cache.root)
    colour = open_view(cache.root, "colour")
    statuses = Counter(index.pictures["status"].to_pylist())
    failed = {int(index.picture_rows[row]) for row in colour.reasons}
    reasons = index.pictures["reason"].to_pylist()
    told = sum(bool(reason) for reason in reasons) + len(failed)
    bad = sum(number % 100 == 50 for number in range(pictures))
    good = int((colour.status == 1).sum())
    assert told == bad and good == pictures - bad, (told, bad, good)
    assert verify(cache.root).whole
    return {
        "pictures": pictures,
        "bad": bad,
        "with_a_reason": told,
        "prepare_says": dict(statuses),
        "extract_says": {WORDS[int(c)]: int((colour.status == c).sum()) for c in (1, 5)},
        "prepare_s": round(prepared - started, 2),
        "extract_s": round(ended - prepared, 2),
        "pictures_per_s": outcome.speed["pictures_per_s"],
        "memory_MB": [megabytes for _, megabytes in memory],
        "parts_s": outcome.speed["parts"],
    }


def resident() -> int:
    """Memory of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=20_000)
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # in a process of its own
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(one(asked.one, asked.pictures)))
        return
    with tempfile.TemporaryDirectory() as place:
        bad = draw(Path(place) / "data", asked.pictures)
        runs = []
        for part in (4, 2, 1):
            command = [sys.executable, __file__, "--one", place]
            command += ["--pictures", str(asked.pictures // part)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    result = {"machine": machine("pillow", "zarr"), "bad": dict(bad), "runs": runs}
    if asked.json:
        print(json.dumps(result))
        return
    print(f"bad pictures: {dict(bad)}")
    for run in runs:
        print(json.dumps(run))


if __name__ == "__main__":
    main()
