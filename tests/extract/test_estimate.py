"""What `plan` says of minutes and sizes, against what an extraction then does."""

import time

import numpy as np
import pytest

from cache.errors import DataError
from cache.settings import Cache
from extract import settings as config
from extract.estimate import MEASURED, estimate
from extract.loaded import Networks
from extract.views import give_definitions
from tests.extract.test_run import Place
from tests.made_views import made_views

PAUSE = 0.01  # seconds a subject


def guess(place: Place, views=None):
    views = views or made_views(pause=PAUSE)
    give_definitions(views, place.index)
    data, cache = config.Data(root=place.data), Cache(root=place.cache, shard_rows=8)
    plan = place.plan(views)
    networks = Networks(config.Weights())
    return estimate(plan, data, cache, config.Extract(batch=4), views, networks), plan


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp("place"), pictures=60)


def test_it_writes_nothing_and_computes_a_few_pictures(place):
    views = made_views()
    before = sorted(place.cache.rglob("*"))
    found, plan = guess(place, views)
    assert sorted(place.cache.rglob("*")) == before
    assert found.pictures == MEASURED and plan.pictures == 40
    assert sum(views["whole"].calls) == MEASURED + 2  # two more, to warm up
    assert found.device == "cpu" and {"decode", "wait"} <= found.parts.keys()


def test_seconds_are_those_of_the_whole_plan(place):
    found, plan = guess(place)
    subjects = sum(len(rows) for name, rows in plan.rows.items() if name != "labels")
    assert found.seconds >= 0.7 * PAUSE * subjects  # the views sleep so long, at the least


def test_networks_are_loaded_before_the_clock_starts(place):
    """Loading is paid once, whatever the number of pictures: here a second, which would count as
    five in a plan of five times the measured pictures."""
    views = made_views()
    compute, loaded = views["whole"].compute, []

    def loads_first(subjects, networks):
        if not loaded:
            time.sleep(1)
            loaded.append(networks)
        return compute(subjects, networks)

    views["whole"].compute = loads_first
    found, plan = guess(place, views)
    assert loaded and len(plan.tasks) == 5 * found.pictures
    assert found.seconds < 4


def test_bytes_and_files_are_those_that_extract_writes(tmp_path):
    place = Place(tmp_path, pictures=24)
    found, plan = guess(place, made_views())
    before = {path for path in place.cache.rglob("*") if path.is_file()}
    place.extract()
    new = {path for path in place.cache.rglob("*") if path.is_file()} - before
    made = [path for path in new if path.name != "manifest.json" and path.name != ".lock"]
    # Shards that hold the fill value only are no files.
    assert len(made) <= found.files <= len(made) + 3
    rows = {name: len(rows) for name, rows in plan.rows.items()}
    assert found.bytes == 13 * rows["colour"] + 9 * rows["area"] + 13 * rows["whole"] + 5 * 2


def test_an_empty_plan_costs_nothing(tmp_path):
    place = Place(tmp_path)
    place.extract()
    found, _ = guess(place, made_views())
    assert (found.seconds, found.bytes, found.files, found.pictures) == (0.0, 0, 0, 0)


def test_no_pictures_is_said(tmp_path):
    place = Place(tmp_path)
    place.data.rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"data\.root"):
        guess(place, made_views())
    assert np.all(place.plan().rows["colour"] == np.arange(9))
