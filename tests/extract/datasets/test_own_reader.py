"""The reader that docs/data.md shows, as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import DataError
from cache.index import Index
from extract import datasets
from extract.prepare import check, prepare
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


def reader(monkeypatch, **more) -> None:
    """A reader `wrong` of one person, with these attributes."""
    monkeypatch.setattr(datasets.readers, "_classes", dict(datasets.readers._classes))

    class Wrong(datasets.Dataset):
        labels, definitions, note = ("joy", "fear"), {"joy": "joy", "fear": "fear"}, ""
        vector = np.array([1, 0], np.float32)

        def records(self):
            person = datasets.PersonRecord((1, 1, 5, 5), "train", self.vector)
            yield datasets.PictureRecord("a.png", "train", "", None, None, [person])

    for name, value in more.items():
        setattr(Wrong, name, value)
    datasets.dataset("wrong")(Wrong)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"kind": "singel"}, "reader wrong has the kind 'singel', which is none of multi, single"),
        ({"vector": np.ones(3)}, r"reader wrong gives a\.png a label vector of \(3,\), and has 2"),
    ],
)
def test_a_reader_that_cannot_be_right_is_refused(tmp_path, monkeypatch, more, words):
    reader(monkeypatch, **more)
    with pytest.raises(DataError, match=words):
        check(Data(name="wrong", root=tmp_path))


def test_a_split_that_the_draw_left_empty_is_warned_of(tmp_path, monkeypatch):
    reader(monkeypatch, splits=())
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    said = " ".join(check(Data(name="wrong", root=tmp_path)).warnings)
    assert said.count("no person that counts is in") == 2 and "raise data.split.val" in said
