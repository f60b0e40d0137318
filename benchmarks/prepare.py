"""What `emocache prepare` costs at the size of CAER-S, and where it goes.

    python benchmarks/prepare.py [--pictures 70000] [--lines 1000000] [--kb 30] [--rounds 3]
    [--json]

Makes a folder of JPEG files of different bytes (one photograph of noise, 512 x 384, then as many
more bytes as --kb asks for) and tables of persons with boxes, and measures, each in a process of
its own:

hash       reading every file and its SHA-256, in one thread and in two: the limit prepare
`extract.prepare.prepare` into a new cache, with one reader and with two, and once more on what is
there (median of --rounds): seconds, and most memory table      `prepare --check` of a table of
--lines lines for a tenth of the pictures
"""

import argparse
import hashlib
import io
import json
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from made import machine  # isort: split

from PIL import Image

from extract.prepare import check, prepare
from extract.settings import Data

LABELS = ("joy", "anger", "fear", "sadness", "surprise", "disgust", "calm")
SIZE = (512, 384)


def make(root: Path, pictures: int, kb: int) -> None:
    """The files, a thousand a folder, and `persons.csv`."""
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    held = io.BytesIO()
    Image.fromarray(noise).resize(SIZE).save(held, "JPEG", quality=80)
    filler = np.random.default_rng(1).bytes(max(0, kb * 1024 - held.tell()))
    with open(root / "persons.csv", "w") as table:
        table.write("path,labels,split,x1,y1,x2,y2\n")
        for number in range(pictures):
            path = f"{number // 1000:03d}/{number % 1000:03d}.jpg"
            (root / path).parent.mkdir(exist_ok=True)
            # What follows the end of a JPEG is read by nobody.
            (root / path).write_bytes(held.getvalue() + number.to_bytes(8, "big") + filler)
            split = "test" if number % 10 < 3 else "val" if number % 10 == 3 else "train"
            table.write(
                f"{path},{LABELS[number % 7]},{split},{number % 100},10,{200 + number % 50},300\n"
            )


def make_table(root: Path, lines: int, pictures: int) -> None:
    """`many.csv`: persons of the first pictures, each with a box of their own."""
    with open(root / "many.csv", "w") as table:
        table.write("path,labels,split,x1,y1,x2,y2\n")
        for line in range(lines):
            number, person = line % pictures, line // pictures
            path = f"{number // 1000:03d}/{number % 1000:03d}.jpg"
            left, top = person % 200, person // 200 % 150
            box = f"{left},{top},{left + 100},{top + 120}"
            table.write(f"{path},{LABELS[line % 7]},train,{box}\n")


def hashed(root: str, threads: int) -> None:
    """The files' bytes and their SHA-256, and nothing else."""
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda p: hashlib.sha256(p.read_bytes()).digest(), files(root)):
            pass


def files(root: str) -> list[Path]:
    return sorted(Path(root).glob("*/*.jpg"))


def prepared(root: str, cache: str, readers: int) -> None:
    prepare(Data(name="persons", root=Path(root), file=Path("persons.csv")), Path(cache), readers)


def checked(root: str) -> None:
    check(Data(name="persons", root=Path(root), file=Path("many.csv")), 2)


WORK: dict[str, Callable[..., None]] = {"hash": hashed, "prepare": prepared, "check": checked}


def measured(work: str, *given: Any) -> dict[str, float]:
    """Seconds and most memory of one of `WORK` in a process of its own."""
    asked = json.dumps([work, *map(str, given)])
    command = [sys.executable, __file__, "--one", asked]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def one(work: str, *given: str) -> None:
    started = time.perf_counter()
    WORK[work](*(int(text) if text.isdigit() else text for text in given))
    seconds = time.perf_counter() - started
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "mb": most / 1024}))


def median(some: list[dict[str, float]]) -> dict[str, float]:
    return {k: round(statistics.median(one[k] for one in some), 4) for k in ("seconds", "mb")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=70_000)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--kb", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(*given.one)
        return
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        root, cache = Path(folder) / "data", Path(folder) / "cache"
        root.mkdir()
        make(root, given.pictures, given.kb)
        hashed(str(root), 2)  # the files are in memory from here on, for every row alike
        for _ in range(given.rounds):
            for threads in (1, 2):
                row = found.setdefault(f"hash, {threads} thread{'s'[: threads - 1]}", [])
                row.append(measured("hash", root, threads))
            for readers in (1, 2):
                shutil.rmtree(cache, ignore_errors=True)
                row = found.setdefault(f"prepare, new, {readers} reader{'s'[: readers - 1]}", [])
                row.append(measured("prepare", root, cache, readers))
            row = found.setdefault("prepare, again, 2 readers", [])
            row.append(measured("prepare", root, cache, 2))
        make_table(root, given.lines, max(1, given.pictures // 10))
        found["check of the table"] = [measured("check", root)]
    result = {
        "pictures": given.pictures,
        "kb": given.kb,
        "lines": given.lines,
        "rounds": given.rounds,
        "rows": {name: median(some) for name, some in found.items()},
        "machine": machine("pillow", "pyarrow"),
    }
    for name, row in result["rows"].items():
        print(f"{name:32} {row['seconds']:8.1f} s {row['mb']:8.0f} MB")
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
