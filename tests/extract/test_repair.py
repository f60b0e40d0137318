"""A damaged cache is made whole again, byte for byte, and only damaged rows are computed."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from cache.check import verify
from cache.errors import CacheError, DataError, KeyMismatch
from cache.settings import Cache
from extract import settings as config
from extract.datasets import readers
from extract.loaded import Networks
from extract.prepare import prepare
from extract.repair import repair
from extract.run import extract
from tests.made_views import MadeData, made_views, many
from tests.shared import quick_folder

PICTURES = 15  # 10 of them with persons; 15 persons, in shards of 8


class Lab:
    """A cache that is damaged and mended again and again, and what it holds when it is whole."""

    def __init__(self, root: Path):
        self.data, self.root = config.Data(name="made", root=root / "data"), root / "cache"
        people = many(root / "data", PICTURES)
        (root / "data" / "people.json").write_text(json.dumps(people))
        self.cache = Cache(root=self.root, shard_rows=8)
        self.settings = config.Extract(batch=4, readers=1)
        prepare(self.data, self.root)
        extract(self.data, self.cache, self.settings, made_views(), Networks(config.Weights()))
        self.files = {path: (self.root / path).read_bytes() for path in self.tree()}

    def tree(self) -> list[str]:
        paths = (Path(folder) / name for folder, _, names in os.walk(self.root) for name in names)
        return sorted(p.relative_to(self.root).as_posix() for p in paths if p.name != ".lock")

    def changed(self) -> list[str]:
        """Files that are not what they were."""
        now = {path: (self.root / path).read_bytes() for path in self.tree()}
        return [p for p in sorted(now.keys() | self.files) if now.get(p) != self.files.get(p)]

    def restore(self) -> None:
        for path in self.changed():
            if (self.root / path).is_dir():
                shutil.rmtree(self.root / path)
            (self.root / path).parent.mkdir(parents=True, exist_ok=True)
            if path in self.files:
                (self.root / path).write_bytes(self.files[path])
            else:
                (self.root / path).unlink()

    def repair(self, views=None):
        views = views or made_views()
        networks = Networks(config.Weights())
        return repair(self.data, self.cache, self.settings, lambda index: views, networks)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    root = quick_folder(tmp_path_factory, "lab")
    readers.add("made")(MadeData)
    yield Lab(root)
    del readers._classes["made"]
    shutil.rmtree(root)


@pytest.fixture
def whole(lab):
    yield lab
    lab.restore()


def computed(views) -> int:
    return sum(sum(view.calls) for view in views.values())


def test_a_whole_cache_is_left_alone(whole):
    views = made_views()
    assert whole.repair(views).damages == [] and computed(views) == 0 and whole.changed() == []


def test_one_flipped_bit_computes_its_rows_again_and_nothing_else(whole):
    shard = whole.root / "colour.zarr/features/c/1/0"
    data = bytearray(shard.read_bytes())
    data[3] ^= 128
    shard.write_bytes(data)
    views = made_views()
    done = whole.repair(views)
    assert done.rows == {"colour": 2} and done.left == []  # a chunk has 2 rows here
    assert {name: sum(view.calls) for name, view in views.items() if view.calls} == {"colour": 2}
    assert whole.changed() == []


def test_a_shard_that_is_gone_with_its_record_is_missed_and_made_again(whole):
    """The manifest counts more rows than there are."""
    for file in ("commits/000001.json", "features/c/1/0", "status/c/1"):
        (whole.root / "area.zarr" / file).unlink()
    (damage,) = verify(whole.root).damages
    assert damage.file == "area.zarr/commits/000001.json"
    assert "7 rows that were committed are gone" in damage.what
    assert damage.rows == tuple(range(8, 15))
    done = whole.repair()
    assert done.rows == {"area": 7} and done.left == [] and whole.changed() == []


def test_a_view_that_is_not_here_is_no_damage_and_left_to_extract(whole):
    shutil.rmtree(whole.root / "area.zarr")
    found = verify(whole.root)
    assert found.whole and "area is not here (15 rows)" in found.notes[0]
    (whole.root / "colour.zarr/status/c/0").unlink()
    assert whole.repair().rows == {"colour": 8}
    extract(whole.data, whole.cache, whole.settings, made_views(), Networks(config.Weights()))
    assert whole.changed() == []


def test_a_view_alone_without_index_and_manifest_can_be_verified(whole):
    for path in whole.root.iterdir():
        if path.name != "colour.zarr" and path.is_dir():
            shutil.rmtree(path)
    (whole.root / "manifest.json").unlink()
    found = verify(whole.root)
    assert found.whole and found.rows == {"colour": 15} and "dvc pull prepare" in found.notes[0]
    flipped = whole.root / "colour.zarr/features/c/1/0"
    flipped.write_bytes(flipped.read_bytes()[:-1] + b"x")
    assert not verify(whole.root).whole


def test_a_stop_is_no_damage(whole):
    manifest = (whole.root / "manifest.json").read_bytes()
    shutil.rmtree(whole.root / "area.zarr")
    extract(whole.data, whole.cache, whole.settings, made_views(area=2), Networks(config.Weights()))
    (whole.root / "manifest.json").write_bytes(manifest)  # as if killed before the last step
    found = verify(whole.root)
    assert found.whole and "older than the views" in found.notes[0]


def test_other_settings_are_refused_before_anything_is_lost(whole):
    (whole.root / "colour.zarr/status/c/0").unlink()
    before = whole.changed()
    with pytest.raises(KeyMismatch, match=r"'colour'.*version: 1 -> 2.*emocache extract"):
        whole.repair(made_views(colour=2))
    assert whole.changed() == before


def test_an_index_of_other_rows_is_refused_before_anything_is_lost(whole):
    people = json.loads((whole.data.root / "people.json").read_text())
    (whole.root / "index/persons.parquet").write_bytes(b"")
    (whole.data.root / "people.json").write_text(json.dumps(dict(reversed(people.items()))))
    before = whole.changed()
    try:
        with pytest.raises(CacheError, match=r"other rows than .*dvc checkout"):
            whole.repair()
    finally:
        (whole.data.root / "people.json").write_text(json.dumps(people))
    assert whole.changed() == before


def test_no_pictures_is_a_sentence_and_the_rows_stay_missing(whole):
    (whole.root / "colour.zarr/status/c/0").unlink()
    here, gone = whole.data.root, whole.data.root.with_name("gone")
    here.rename(gone)
    try:
        with pytest.raises(DataError, match=r"data\.root"):
            whole.repair()
    finally:
        gone.rename(here)
    assert verify(whole.root).absent["colour"] == 8
    extract(whole.data, whole.cache, whole.settings, made_views(), Networks(config.Weights()))
    assert whole.changed() == []


def test_one_more_line_break_at_the_end_of_any_file_is_found_and_mended(whole):
    for path, data in whole.files.items():
        (whole.root / path).write_bytes(data + b"\n")  # what JSON readers do not mind
        assert not verify(whole.root).whole, path
        assert whole.repair().left == [] and whole.changed() == []


def flip(data, at, what):
    data[at % len(data)] ^= 1 << (what % 8)
    return data


def overwrite(data, at, what):
    start = at % len(data)
    noise = np.random.default_rng(what).integers(0, 256, 1 + what % 40, np.uint8).tobytes()
    data[start : start + len(noise)] = noise
    return data


def zeros(data, at, what):
    start = at % len(data)
    data[start : start + 1 + what % 64] = bytes(min(1 + what % 64, len(data) - start))
    return data


DAMAGES = {
    "bit": flip,
    "noise": overwrite,
    "zeros": zeros,
    "cut": lambda data, at, what: data[: at % len(data)],
    "empty": lambda data, at, what: b"",
    "longer": lambda data, at, what: data + bytes([what % 256]) * (1 + at % 9),
    "gone": lambda data, at, what: None,
}


KINDS = [*DAMAGES, "other", "folder", "stray"]
VIEWS = sorted(made_views())


def damaged(kinds) -> st.SearchStrategy:
    """Which file, how, where in it, and with what."""
    return st.tuples(
        st.integers(0, 10**4),
        st.sampled_from(kinds),
        st.integers(0, 10**6),
        st.integers(0, 10**6),
    )


def damage(lab, paths: list[str], choice) -> bool:
    """Damage one of `paths`; False where that put the same bytes there again."""
    file, kind, at, what = choice
    name = paths[file % len(paths)]
    path = lab.root / name
    if kind == "stray":
        top = lab.root / path.relative_to(lab.root).parts[0]
        (top / f"stray{what}").write_bytes(b"x") if top.is_dir() else path.write_bytes(b"x")
    elif kind == "other":
        everything = sorted(lab.files)
        path.write_bytes(lab.files[everything[at % len(everything)]])
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        data = DAMAGES[kind](bytearray(path.read_bytes()), at, what)
        path.unlink() if data is None else path.write_bytes(data)
    return kind in ("stray", "folder") or not path.exists() or path.read_bytes() != lab.files[name]


def mended(lab, found) -> None:
    """Repair gives every byte back, and computes nothing that `found` does not name."""
    done = lab.repair()
    assert done.left == [] and lab.changed() == []
    for view, count in done.rows.items():
        own = [damage for damage in found.damages if damage.view == view]
        lost = {row for damage in own for row in damage.rows}
        # Without its name a view is lost; without the index, rows cannot be told.
        assert count <= len(lost) or any("lost" in damage.what for damage in own)


@pytest.mark.slow
@settings(max_examples=225, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(choices=st.tuples(*(damaged(KINDS) for _ in VIEWS)))
def test_nine_hundred_damages_of_views_are_all_found_and_all_mended(lab, choices):
    """One in each of the four views at a time, as views are looked at apart: each must be found
    as its own."""
    lab.restore()
    hurt = set()
    for view, choice in zip(VIEWS, choices, strict=True):
        paths = [path for path in sorted(lab.files) if path.startswith(f"{view}.zarr/")]
        if damage(lab, paths, choice):
            hurt.add(view)
    found = verify(lab.root)
    assert {damage.view for damage in found.damages} == hurt
    mended(lab, found)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(choice=damaged(KINDS))
def test_a_hundred_damages_of_index_and_manifest_are_all_found_and_all_mended(lab, choice):
    lab.restore()
    if damage(lab, [path for path in sorted(lab.files) if ".zarr/" not in path], choice):
        found = verify(lab.root)
        assert not found.whole
        mended(lab, found)
