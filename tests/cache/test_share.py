"""Caches of a team become one; what was computed anywhere is never computed again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from cache.check import verify
from cache.errors import CacheError, KeyMismatch
from cache.index import PERSONS, Index
from cache.settings import Cache
from cache.share import merge
from cache.spec import Row
from cache.store import open_view
from cache.writer import ViewWriter
from extract import settings as config
from extract.datasets import readers
from extract.loaded import Networks
from extract.prepare import prepare
from extract.run import extract
from tests.cache.test_index import index
from tests.cache.test_store import row, spec
from tests.extract.test_crash import files
from tests.made_views import MadeData, made_views, many

SHARD_ROWS = 8


@pytest.fixture(scope="module", autouse=True)
def reader():
    readers.add("made")(MadeData)
    yield
    del readers._classes["made"]


class Clone:
    """One member's clone: the pictures that she has, and her cache."""

    def __init__(self, root, people, source, take_from=()):
        self.data = config.Data(name="made", root=root / "data")
        self.cache = Cache(root=root / "cache", shard_rows=SHARD_ROWS, take_from=take_from)
        for path in people:
            (self.data.root / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / path, self.data.root / path)
        (self.data.root / "people.json").write_text(json.dumps(people))
        prepare(self.data, self.cache.root)

    def extract(self, **versions):
        views = made_views(**versions)
        networks = Networks(config.Weights())
        self.outcome = extract(self.data, self.cache, config.Extract(batch=4), views, networks)
        return {name: sum(view.calls) for name, view in views.items() if view.calls}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """24 pictures, 16 of them with persons, 24 persons."""
    folder = tmp_path_factory.mktemp("source")
    return folder, many(folder, 24)


@pytest.fixture
def clone(source, tmp_path):
    """Makes a clone with some of the pictures, by number, and extracts it."""

    def make(name, numbers, take_from=(), **versions):
        folder, people = source
        some = {path: people[path] for path in list(people)[numbers]}
        made = Clone(tmp_path / name, some, folder, take_from)
        made.computed = made.extract(**versions)
        return made

    return make


def test_two_halves_become_one_cache(clone):
    one, two, whole = (
        clone("one", slice(0, 12)),
        clone("two", slice(12, 24)),
        clone("all", slice(24)),
    )
    done = merge(one.cache, two.cache.root)
    assert (done.persons, done.pictures) == (12, 12)
    assert done.taken == {"area": 12, "colour": 12, "labels": 0, "whole": 8}
    assert done.both == {"area": 0, "colour": 0, "labels": 2, "whole": 0}
    assert verify(one.cache.root).whole
    one.data = whole.data
    prepare(one.data, one.cache.root)
    assert one.extract() == {}  # nothing is left to compute
    assert files(one.cache.root) == files(whole.cache.root)


def test_merging_again_changes_nothing(clone):
    one, two = clone("one", slice(0, 12)), clone("two", slice(6, 24))
    first = merge(one.cache, two.cache.root)
    assert first.both["colour"] == 6 and first.differ["colour"] == 0
    before = files(one.cache.root)
    again = merge(one.cache, two.cache.root)
    assert set(again.taken.values()) == {0} and (again.persons, again.pictures) == (0, 0)
    assert files(one.cache.root) == before


def test_merging_into_nothing_copies(clone, tmp_path):
    one = clone("one", slice(24))
    cache = Cache(root=tmp_path / "empty", shard_rows=64)
    merge(cache, one.cache.root)
    assert files(cache.root) == files(one.cache.root)


def test_other_keys_are_refused_and_both_sides_named(clone):
    one, two = clone("one", slice(0, 12)), clone("two", slice(12, 24), colour=2)
    before = files(one.cache.root)
    a, b = (open_view(c.cache.root, "colour").key[:12] for c in (one, two))
    with pytest.raises(KeyMismatch, match=rf"colour \({a} in .*one.*{b} in .*two.*version: 1 -> 2"):
        merge(one.cache, two.cache.root)
    assert files(one.cache.root) == before


def test_other_labels_of_one_person_are_refused(clone):
    one, two = clone("one", slice(0, 12)), clone("two", slice(6, 24))
    index = Index.read(two.cache.root)
    persons = index.persons.to_pylist()
    persons[0]["labels"] = [1.0, 0.0]
    table = pa.Table.from_pylist(persons, PERSONS)
    changed = Index(index.dataset, "", index.labels, index.pictures, table, index.definitions)
    changed.write(two.cache.root)
    with pytest.raises((KeyMismatch, CacheError)) as refused:
        merge(one.cache, two.cache.root)
    # The manifest notices the edit first; without it the labels are held against each other.
    (two.cache.root / "manifest.json").unlink()
    assert "damaged" in str(refused.value) or "calm" in str(refused.value)


def test_other_values_are_refused_and_both_sides_named(clone):
    one, two = clone("one", slice(0, 12)), clone("two", slice(6, 24))
    views = made_views()
    views["colour"].row = lambda subject, inner=views["colour"].row: _brighter(inner(subject))
    shutil.rmtree(two.cache.root / "colour.zarr")
    networks = Networks(config.Weights())
    extract(two.data, two.cache, config.Extract(), views, networks)
    before = files(one.cache.root)
    with pytest.raises(CacheError, match=r"'colour': 6 rows differ.*by 9.*row 6 in .*row 0 in "):
        merge(one.cache, two.cache.root)
    assert files(one.cache.root) == before
    ours = open_view(one.cache.root, "colour").read()
    done = merge(one.cache, two.cache.root, keep_ours=True)
    assert done.differ["colour"] == 6
    np.testing.assert_array_equal(open_view(one.cache.root, "colour").read()[:12], ours)


def test_other_statuses_are_refused_though_the_values_agree(tmp_path):
    """Rows without features all hold the fill value."""
    for name, word in (("one", "no_face"), ("two", "no_object")):
        index().write(tmp_path / name)
        writer = ViewWriter(tmp_path / name, spec(), index().ids("persons"), SHARD_ROWS)
        writer.expect(range(3))
        for number in range(3):
            writer.put(number, Row(word) if number == 1 else row(number))
    one, two = Cache(root=tmp_path / "one"), tmp_path / "two"
    before = files(one.root)
    with pytest.raises(CacheError, match=r"1 rows differ.*row 1 .*\(no_face\).*\(no_object\)"):
        merge(one, two)
    assert files(one.root) == before
    assert merge(one, two, keep_ours=True).differ == {"body": 1}


def _brighter(row):
    row.values["features"] = row.values["features"] + 9
    return row


def test_a_damaged_cache_gives_nothing(clone):
    one, two = clone("one", slice(0, 12)), clone("two", slice(12, 24))
    (two.cache.root / "area.zarr/status/c/0").unlink()
    with pytest.raises(CacheError, match=r"two.*is damaged.*cache repair"):
        merge(one.cache, two.cache.root)
    with pytest.raises(CacheError, match="the cache itself"):
        merge(one.cache, one.cache.root)


def test_pictures_extracted_anywhere_are_not_extracted_again(clone):
    mine = clone("mine", slice(24))
    hers = clone("hers", slice(24), take_from=[mine.cache.root])
    assert hers.computed == {}
    assert hers.outcome.taken == {"colour": 24, "area": 24, "whole": 16, "labels": 2}
    assert files(hers.cache.root) == files(mine.cache.root)


def test_only_what_nobody_has_is_computed(clone):
    one, two = clone("one", slice(0, 6)), clone("two", slice(6, 12))
    whole = clone("whole", slice(24))
    hers = clone("hers", slice(24), take_from=[one.cache.root, two.cache.root])
    assert hers.computed == {"colour": 12, "area": 12, "whole": 8}
    assert files(hers.cache.root) == files(whole.cache.root)


def test_rows_of_another_key_are_not_taken(clone):
    one = clone("one", slice(24), colour=2)
    hers = clone("hers", slice(24), take_from=[one.cache.root])
    assert hers.computed == {"colour": 24}


def test_a_donor_that_is_none_or_damaged_is_refused(clone, tmp_path):
    one = clone("one", slice(24))
    with pytest.raises(CacheError, match=r"cache\.take_from names .*nowhere"):
        clone("a", slice(24), take_from=[tmp_path / "nowhere"])
    shard = one.cache.root / "colour.zarr/features/c/1/0"
    data = bytearray(shard.read_bytes())
    data[0] ^= 1
    shard.write_bytes(data)
    with pytest.raises(CacheError, match=r"one.*damaged.*cache repair --set cache\.root="):
        clone("b", slice(24), take_from=[one.cache.root])


def test_caches_of_other_data_sets_stay_apart(source, tmp_path):
    folder, people = source
    one, two = (Clone(tmp_path / name, people, folder) for name in ("one", "two"))
    replace(Index.read(two.cache.root), dataset="another", note="true labels").write(two.cache.root)
    before = files(one.cache.root)
    with pytest.raises(KeyMismatch, match=r"holds made, .* holds another.*stay apart"):
        merge(one.cache, two.cache.root)
    assert files(one.cache.root) == before


def test_a_row_that_two_caches_offer_is_taken_once(source, tmp_path):
    folder, people = source
    donors = []
    for name in ("one", "two"):
        donors.append(Clone(tmp_path / name, people, folder))
        donors[-1].extract()
    roots = tuple(donor.cache.root for donor in donors)
    hers = Clone(tmp_path / "hers", people, folder, take_from=roots)
    assert hers.extract() == {}
    assert hers.outcome.taken == {"colour": 24, "area": 24, "whole": 16, "labels": 2}


def written(root, values):
    """A cache of one view with these rows."""
    index(len(values)).write(root)
    writer = ViewWriter(root, spec(), index(len(values)).ids("persons"), 8)
    for number, value in enumerate(values):
        writer.put(number, value)
    writer.close()
    return root


def test_a_row_that_failed_here_is_taken_from_where_it_is_sound(tmp_path):
    ours = written(tmp_path / "ours", [row(0), Row("unreadable", reason="cut"), row(2)])
    theirs = written(tmp_path / "theirs", [row(0), row(1), Row("unreadable", reason="cut")])
    with pytest.raises(CacheError, match="1 rows differ"):  # ours is sound and theirs is not
        merge(Cache(root=ours), theirs)
    done = merge(Cache(root=ours), theirs, keep_ours=True)
    view = open_view(ours, "body")
    assert done.taken == {"body": 1} and not view.reasons
    np.testing.assert_array_equal(view.read()[1], open_view(theirs, "body").read()[1])
    assert verify(ours).whole


def test_other_ratings_of_one_person_are_refused_and_who_left_stays_away(tmp_path):
    ours = written(tmp_path / "ours", [row(n) for n in range(2)])
    theirs = written(tmp_path / "theirs", [row(n) for n in range(2)])
    there = Index.read(theirs)
    at = there.persons.schema.get_field_index("valence")
    rated = there.persons.set_column(at, "valence", pa.array([7.0, np.nan], pa.float32()))
    replace(there, persons=rated).write(theirs)
    with pytest.raises(KeyMismatch, match="valence 7"):
        merge(Cache(root=ours), theirs)
    there.write(theirs)
    at = there.persons.schema.get_field_index("status")
    replace(there, persons=there.persons.set_column(at, "status", [["removed", "ok"]])).write(ours)
    merge(Cache(root=ours), theirs)
    assert Index.read(ours).person_status.tolist() == ["removed", "ok"]
