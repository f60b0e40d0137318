"""Real networks: a picture's features do not depend on what is extracted beside it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs

from cache.settings import Cache
from cache.store import open_view
from extract import run
from extract import settings as config
from extract.loaded import Networks
from extract.views import make_views
from tests.made_views import index_of
from tests.networks import real, untrained

pytestmark = pytest.mark.slow

# float32 sums in another order, in features of up to about 10; boxes in pixels
ALIKE = {"features": 5e-3, "box": 0.05, "score": 1e-3, "map": 5e-3}
DEPTH = "Intel/dpt-swinv2-tiny-256"  # no package has it
SIZES = [(512, 512), (512, 512), (320, 240), (320, 240), (400, 600)]


@pytest.fixture(scope="module")
def networks():
    for name in ("resnet50", "blazeface", "yolo26n"):
        settings = real(name)
    found = Networks(settings, batch=3)
    found._found[DEPTH] = dataclasses.replace(untrained(DEPTH), sha256="untrained")
    found.settings = settings.model_copy(
        update={"source": [*settings.source, "untrained"], "untrained": [DEPTH]}
    )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """One photograph of a person in five sizes and crops: `one.png` is the one looked at."""
    root = tmp_path_factory.mktemp("photographs")
    astronaut = Image.fromarray(photographs.astronaut())
    astronaut.save(root / "one.png")
    for number, size in enumerate(SIZES):
        moved = astronaut.rotate(3 + number).resize(size)
        moved.save(root / f"{number}.png")
    return root


def extract(folder: Path, root: Path, names: list[str], networks, mask: str):
    """Arrays of the row of `one.png` by view and name: of all views, or with the mask "drop" of
    the only one that has a mask."""
    people = {}
    for name in names:
        with Image.open(folder / name) as picture:
            width, height = picture.size
        people[name] = [(0.1 * width, 0.0, 0.8 * width, 1.0 * height), (0.0, 0.0, 50.0, 60.0)]
    index_of(folder, people).write(root)
    views = make_views(
        config.Views(
            objects=config.Objects(detector="yolo26n", k=4, score=0.05, mask=mask),
            depth=config.Depth(network=DEPTH, size=128),
        ),
        "float32",
    )
    del views["labels"]
    if mask == "drop":
        views = {"objects": views["objects"]}
    run.extract(
        config.Data(root=folder),
        Cache(root=root, dtype="float32", shard_rows=64),
        config.Extract(batch=4),
        views,
        networks,
    )
    at = names.index("one.png")
    found = {}
    for name in views:
        view = open_view(root, name)
        row = at if view.space == "pictures" else 2 * at
        found |= {f"{name}.{array}": view.read(array)[row] for array in view.spec.arrays}
    return found


NEIGHBOURS = {
    "first, beside its size": ["one.png", "0.png", "1.png"],
    "last, beside its size": ["0.png", "1.png", "one.png"],
    "beside other sizes": ["2.png", "one.png", "3.png", "4.png"],
    "in a second block": ["2.png", "3.png", "4.png", "0.png", "1.png", "one.png"],
}


@pytest.mark.parametrize("mask", ["subject", "drop"])
def test_features_are_the_same_whatever_stands_beside(folder, tmp_path, networks, mask):
    alone = extract(folder, tmp_path / "alone", ["one.png"], networks, mask)
    assert alone["objects.count"] > 0
    assert mask == "drop" or alone["head.score"] > 0.5
    for number, names in enumerate(NEIGHBOURS.values()):
        found = extract(folder, tmp_path / str(number), names, networks, mask)
        same(alone, found)
    # Resumed: half of the pictures are in the cache, `one.png` comes with the other half.
    root = tmp_path / "resumed"
    extract(folder, root, ["one.png", "2.png"], networks, mask)
    again = extract(folder, root, ["one.png", "2.png", "0.png", "4.png"], networks, mask)
    same(alone, again)


def same(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> None:
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        limit = ALIKE.get(name.split(".")[1], 0)
        apart = np.abs(value.astype(np.float64) - found[name]).max()
        assert apart <= limit, (name, apart)
