"""The reader that docs/data.md shows, as it stands there."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from cache.index import Index
from extract import datasets
from extract.prepare import prepare
from extract.settings import Data
from tests.extract.finding import finder, middle

PAGE = Path(__file__).resolve().parents[3] / "docs" / "data.md"


def test_the_reader_of_the_page_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.readers, "_classes", dict(datasets.readers._classes))
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    exec(compile(code, PAGE, "exec"), {})
    (tmp_path / "mine").mkdir()
    for number, name in enumerate(("joy1.jpg", "calm1.jpg", "joy2.jpg")):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "mine" / name)
    data = Data(name="mine", root=tmp_path / "mine")
    done = prepare(data, tmp_path / "cache", finder=finder(data, tmp_path / "cache", middle))
    index = Index.read(tmp_path / "cache")
    assert done.origins == {"found": 3} and index.kind == "single"
    assert index.targets.argmax(1).tolist() == [0, 1, 1]
