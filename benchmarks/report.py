"""How long the report of EMOTIC's test split takes to write and to open, and how big it is.

    python benchmarks/report.py [--persons 7203] [--pictures 4388] [--objects 10] [--from FOLDER]
    [--rounds 5] [--keep PAGE] [--json]

Made-up scores of 26 labels, boxes and objects; no cards of single persons. The pictures are files
of their own, hard links to those of FOLDER (JPEG, below it), or else to 100 made ones of 640 x 480:
noise that falls off as photographs do, so that a thumbnail weighs as much as one of theirs.

gather   `everybody`: all columns, and every picture read, made small and written as WebP
write    `page.write`: the page from what was gathered
open     from asking a new Chromium for the page, empty caches, until a tile of the list is shown
filter   from choosing a label until the list is drawn anew, two frames at least; then by text
card     from the click on a tile until its card is drawn
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made import EMOTIC, ROOT, machine, make_index  # isort: split

from PIL import Image

from pipelines.evaluation import measure
from pipelines.report import page
from pipelines.report.data import ReportData, read_results
from pipelines.report.gallery import Gallery, everybody
from pipelines.report.what_if import WhatIf
from pipelines.results import Results
from pipelines.settings import Report, load
from train.explain import Explanation, Faces, Objects
from train.scores import Scores
from train.settings import Evaluate

WIDE, HIGH = 640, 480
SIZE = np.array((WIDE, HIGH))
DISTINCT = 100
DRAWN = "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)))"


def make_pictures(folder: Path, count: int, given: Path | None) -> None:
    """`folder/0.jpg` and so on, links to the pictures given, or to made ones."""
    kept = sorted(given.rglob("*.jpg")) if given else []
    if not kept:
        kept = [folder / f"made_{number}.jpeg" for number in range(min(count, DISTINCT))]
        for number, path in enumerate(kept):
            noise(number).save(path, quality=90)
    for number in range(count):
        source, link = kept[number % len(kept)], folder / f"{number}.jpg"
        try:
            os.link(source, link)
        except OSError:  # on another disk
            shutil.copy(source, link)


def noise(seed: int) -> Image.Image:
    """Less of the fine and more of the coarse: amplitude falls as frequency to the power 1.45."""
    rng = np.random.default_rng(seed)
    rows, columns = np.fft.fftfreq(HIGH)[:, None], np.fft.fftfreq(WIDE)[None]
    fall = np.maximum(np.hypot(rows, columns), 1 / WIDE) ** -1.45
    made = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4, HIGH, WIDE))) * fall).real
    made /= made.std(axis=(1, 2), keepdims=True)
    pixels = 128 + 55 * (made[:1] + 0.25 * made[1:])
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())


def make_scores(split: str, persons: int, pictures: int, labels: Sequence[str]) -> Scores:
    rng = np.random.default_rng(len(split))
    true = rng.random((persons, len(labels))) < 0.17  # the mean positive rate of EMOTIC's test
    score = 1 / (1 + np.exp(2 - 1.5 * true - rng.normal(0, 1, true.shape)))
    rows = np.arange(persons)
    at = rows * pictures // persons
    return Scores(split, tuple(labels), rows, at, true.astype(np.int8), score.astype(np.float32))


class Opened:
    """Stands where `train.run.Opened` stands, and saw `objects` objects of everybody."""

    def __init__(self, labels: Sequence[str], objects: int) -> None:
        self.labels, self.objects = tuple(labels), objects
        self.info: dict[str, Any] = {"views": {}}

    def explain(self, rows: Sequence[int]) -> Explanation:
        rng, many = np.random.default_rng(rows[0]), len(rows)
        corner = rng.uniform(0, 0.5, (many, 2)) * SIZE
        place = rng.uniform(0, 0.7, (many, self.objects, 2)) * SIZE
        shape = many, self.objects
        return Explanation(
            labels=self.labels,
            classes=tuple(f"class {number}" for number in range(91)),
            person_rows=np.array(rows),
            picture_rows=np.array(rows),
            boxes=np.concatenate([corner, corner + 0.45 * SIZE], axis=1),
            y_score=np.zeros((many, len(self.labels)), np.float32),
            attention=rng.dirichlet(np.ones(self.objects), many),
            objects=Objects(
                np.concatenate([place, place + 0.3 * SIZE], axis=2),
                rng.integers(0, 91, shape),
                rng.uniform(0.3, 1, shape),
                np.ones(shape, bool),
            ),
            faces=Faces(np.concatenate([corner, corner + 80], axis=1), rng.random(many) < 0.8),
            graphs={},
        )


def make_report(
    folder: Path, persons: int, pictures: int, objects: int, given: Path | None
) -> tuple[ReportData, float]:
    """What the report shows, and the seconds in which everybody was gathered."""
    index = make_index({**EMOTIC, "persons": persons, "pictures": pictures})
    make_pictures(folder, pictures, given)
    test, val = (make_scores(s, persons, pictures, index.labels) for s in ("test", "val"))
    facts = {"dataset": "made", "note": "made numbers", "cache_key": "0" * 64, "seed": 0}
    results = Results(folder / "results")
    measure(test, Evaluate(bootstrap=100), {**facts, "fitted_on": facts}, val=val).write(results)
    with results.curves.open("w", newline="") as file:
        csv.writer(file).writerows([["epoch", "train_loss", "val_loss", "val_map"], [1, 1, 1, 0]])
    found = read_results(results)
    limits = {row["label"]: row["threshold"] for row in found["per_class"]}
    asked = (f"data.root={folder}", "data.name=made", "report.what_if=0")  # there is no head
    settings = load(ROOT / "params.yaml", asked)
    opened: Any = Opened(index.labels, objects)
    started = time.perf_counter()
    gallery = everybody(settings, index, opened, test, "multi", limits)
    seconds = time.perf_counter() - started
    views = ("body", "head", "objects", "depth", "scene")
    gallery = replace(
        gallery,
        depth=np.random.default_rng(1).normal(size=(pictures, 8, 8)),
        depth_said="a made network",
        what_if=make_what_if(gallery, Report().what_if, views),
    )
    data = ReportData(
        head="made", dataset="made", note="made numbers", split="test", labels=index.labels,
        networks=[], views=views, persons=[], gallery=gallery, **found,
    )  # fmt: skip
    return data, seconds


def make_what_if(gallery: Gallery, persons: int, views: tuple[str, ...]) -> WhatIf:
    """As many moved scores as a head would give."""
    asked = gallery.worst_first()[:persons]
    counts = [len(gallery.seen.objects_of(place)) for place in asked]
    rng = np.random.default_rng(2)
    labels = len(gallery.labels)
    return WhatIf(
        asked=asked,
        views=views,
        without_view=rng.random((len(asked), len(views), labels)),
        first=np.concatenate([[0], np.cumsum(counts)]),
        without_object=rng.random((sum(counts), labels)),
    )


def chromium(folder: Path) -> Any:
    """A new one, without a window and with nothing kept from before."""
    from selenium import webdriver

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        raise SystemExit("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (
        "headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-dev-shm-usage",
        f"user-data-dir={folder}", "window-size=1280,1000",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    return webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))


def timed(browser: Any, action: str, *arguments: Any) -> float:
    """Seconds from before the action until it is drawn."""
    script = f"const done = arguments[arguments.length - 1], start = performance.now(); {action};"
    return browser.execute_async_script(script + DRAWN, *arguments) / 1000


def visit(path: Path, label: str) -> dict[str, float]:
    """Seconds of each thing that a reader does first, in a new browser."""
    with tempfile.TemporaryDirectory() as folder:
        browser = chromium(Path(folder))
        try:
            started = time.perf_counter()
            browser.get(path.as_uri())
            shown = browser.find_element("css selector", "#list .tile").is_displayed()
            opened = time.perf_counter() - started
            said = browser.find_element("id", "count").text
            if not shown or browser.get_log("browser"):
                raise SystemExit(f"the page does not work: {browser.get_log('browser')}")
            choose = (
                "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
                "e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input'))"
            )
            found = {
                "open_s": opened,
                "filter_s": timed(browser, choose, "label", label),
                "find_s": timed(browser, choose, "find", "7"),
                "card_s": timed(browser, "document.querySelector('#list .tile').click()"),
                "tiles": len(browser.find_elements("css selector", "#list .tile")),
                "heap_MB": browser.execute_script("return performance.memory.usedJSHeapSize") / 1e6,
            }
            if browser.find_element("id", "count").text == said:
                raise SystemExit("the filter filtered nothing")
            return found
        finally:
            browser.quit()


def clocked(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--persons", type=int, default=7_203)
    parser.add_argument("--pictures", type=int, default=4_388)
    parser.add_argument("--objects", type=int, default=10)
    parser.add_argument("--from", dest="given", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where the page is left")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, gather = make_report(
            folder, asked.persons, asked.pictures, asked.objects, asked.given
        )
        path = (asked.keep or folder / "report.html").resolve()
        write = clocked(lambda: page.write(data, path))
        rounds = [visit(path, data.labels[3]) for _ in range(asked.rounds)]
        size = path.stat().st_size / 1e6
    gallery = data.gallery
    found = {
        "persons": asked.persons,
        "pictures": asked.pictures,
        "thumbnails": len(gallery.thumbnails) if gallery else 0,
        "gather_s": round(gather, 2),
        "write_s": round(write, 2),
        "MB": round(size, 1),
        **{k: round(statistics.median(one[k] for one in rounds), 3) for k in rounds[0]},
        "open_s_each": [round(one["open_s"], 2) for one in rounds],
        "machine": machine("pillow", "jinja2", "selenium"),
    }
    if not asked.json:
        for key, value in found.items():
            print(f"{key:12} {value}")
        return
    print(json.dumps(found))


if __name__ == "__main__":
    main()
