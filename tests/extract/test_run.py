"""Extraction with views whose numbers can be checked by hand, on made pictures."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import CacheError, DataError, WeightsError
from cache.paths import view_names
from cache.settings import Cache
from cache.spec import Row
from cache.statuses import STATUS
from cache.store import open_view
from extract import images, run
from extract import settings as config
from extract.loaded import Networks
from extract.plan import make_plan
from extract.views import give_definitions
from tests.made_views import Colour, draw, index_of, made_views, many

DEFINITIONS = ["at peace", "afraid of something"]


class Place:
    """A data folder with made pictures, and a cache with their index."""

    def __init__(self, root: Path, pictures: int = 9):
        self.root, self.data, self.cache = root, root / "data", root / "cache"
        self.people = many(self.data, pictures)
        self.prepare()

    def prepare(self, status: dict[int, str] | None = None) -> None:
        self.index = index_of(self.data, self.people, status)
        labels = zip(self.index.labels, DEFINITIONS, strict=True)
        definitions = tuple({"label": label, "definition": words} for label, words in labels)
        self.index = replace(self.index, definitions=definitions)
        self.index.write(self.cache)

    def extract(self, views=None, batch: int = 4, shard_rows: int = 8, **more) -> run.Outcome:
        return run.extract(
            config.Data(root=self.data),
            Cache(root=self.cache, shard_rows=shard_rows),
            config.Extract(batch=batch),
            views or made_views(),
            Networks(config.Weights()),
            **more,
        )

    def arrays(self) -> dict[str, np.ndarray]:
        return arrays_of(self.cache)

    def plan(self, views=None):
        views = views or made_views()
        give_definitions(views, self.index)
        return make_plan(self.cache, self.index, views, Networks(config.Weights()))

    def pixels(self, picture: int) -> np.ndarray:
        with Image.open(self.data / list(self.people)[picture]) as image:
            return np.array(image)


def arrays_of(cache: Path) -> dict[str, np.ndarray]:
    """Every array of a cache, statuses and reasons included."""
    found = {}
    for name in view_names(cache):
        view = open_view(cache, name)
        found[f"{name}.status"] = view.status
        found[f"{name}.reasons"] = np.array(sorted(view.reasons.items()))
        found |= {f"{name}.{array}": view.read(array) for array in view.arrays}
    return found


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


# ------------------------------------------------------------------------------------- values


@pytest.mark.parametrize("batch, shard_rows", [(1, 8), (4, 8), (100, 1024)])
def test_every_row_holds_its_own_numbers(place, batch, shard_rows):
    outcome = place.extract(batch=batch, shard_rows=shard_rows)
    found = place.arrays()
    boxes, rows = place.index.boxes, place.index.picture_rows
    assert len(boxes) == 9 and len(set(rows)) == 6
    for person, (x1, y1, x2, y2) in enumerate(boxes):
        top, bottom = int(np.floor(y1)), int(np.ceil(y2))
        left, right = int(np.floor(x1)), int(np.ceil(x2))
        part = place.pixels(rows[person])[top:bottom, left:right]
        assert np.allclose(found["colour.features"][person], part.mean((0, 1)), atol=1e-4)
        wide = x2 - x1 >= 15
        expected = (x2 - x1, y2 - y1) if wide else (0, 0)
        assert np.allclose(found["area.features"][person], expected)
        assert found["area.status"][person] == STATUS["ok" if wide else "no_face"]
    for picture in range(9):
        shown = picture in rows
        expected = place.pixels(picture).mean((0, 1)) if shown else np.zeros(3)
        assert np.allclose(found["whole.features"][picture], expected, atol=1e-4)
        assert found["whole.status"][picture] == STATUS["ok" if shown else "absent"]
    assert found["labels.features"][:, 0].tolist() == [len(words) for words in DEFINITIONS]
    assert outcome.rows["colour"] == {"ok": 9} and outcome.rows["whole"] == {"ok": 6}
    assert outcome.rows["area"] == {
        "ok": int((found["area.status"] == STATUS["ok"]).sum()),
        "no_face": int((found["area.status"] == STATUS["no_face"]).sum()),
    }
    assert outcome.rows["area"]["no_face"] > 0 and outcome.skipped == {}


def counted(monkeypatch) -> list[str]:
    """Names of the files that extraction decodes, in the order in which it does."""
    load, seen = images.load, []

    def counting(path, *more):
        seen.append(Path(path).name)
        return load(path, *more)

    monkeypatch.setattr(images, "load", counting)
    return seen


def test_each_picture_is_decoded_once_for_all_views(place, monkeypatch):
    seen = counted(monkeypatch)
    place.extract()
    # pictures 2, 5 and 8 show nobody
    assert sorted(seen) == [f"{number:03d}.png" for number in (0, 1, 3, 4, 6, 7)]


def test_progress_comes_to_the_end(place):
    (place.data / "p" / "003.png").unlink()
    steps = []
    place.extract(batch=2, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(2, 6), (4, 6), (6, 6), (6, 6)]  # blocks end where shards do


def test_the_manifest_names_views_keys_and_rows(place):
    place.extract()
    manifest = json.loads((place.cache / "manifest.json").read_text())
    assert manifest["index"] == place.index.digest()
    assert {name: view["rows"] for name, view in manifest["views"].items()} == {
        "area": 9,
        "colour": 9,
        "labels": 2,
        "whole": 6,
    }
    for name, view in manifest["views"].items():
        assert view["key"] == open_view(place.cache, name).key


# -------------------------------------------------------------------------------- incremental


def test_a_second_run_computes_and_decodes_nothing(place, monkeypatch):
    place.extract()
    before = {path: path.stat().st_mtime_ns for path in place.cache.rglob("*.zarr/**/*")}
    manifest = (place.cache / "manifest.json").read_bytes()
    seen, views = counted(monkeypatch), made_views()
    outcome = place.extract(views)
    assert seen == [] and all(view.calls == [] for view in views.values())
    assert all(sum(rows.values()) == 0 for rows in outcome.rows.values())
    assert before == {path: path.stat().st_mtime_ns for path in place.cache.rglob("*.zarr/**/*")}
    assert (place.cache / "manifest.json").read_bytes() == manifest


def test_new_pictures_and_persons_are_added(place, monkeypatch):
    place.extract()
    before = place.arrays()
    draw(place.data / "p" / "new.png", 99)
    place.people["p/new.png"] = [(0.0, 0.0, 20.0, 20.0)]
    place.prepare()
    seen, views = counted(monkeypatch), made_views()
    place.extract(views)
    assert seen == ["new.png"]
    assert [views[name].calls for name in ("colour", "area", "whole", "labels")] == [[1]] * 3 + [[]]
    after = place.arrays()
    for name in ("colour.features", "area.features", "whole.features"):
        assert np.array_equal(after[name][: len(before[name])], before[name])
    assert len(after["colour.features"]) == 10 and len(after["whole.features"]) == 10
    expected = place.pixels(9)[:20, :20].mean((0, 1))
    assert np.allclose(after["colour.features"][9], expected, atol=1e-4)
    fresh = Place(place.root / "fresh", pictures=0)
    fresh.data, fresh.people = place.data, place.people
    fresh.prepare()
    fresh.extract()
    assert same(after, fresh.arrays())


def test_a_changed_view_is_made_again_and_the_others_stay(place):
    place.extract()
    files = [path for name in ("area", "whole") for path in place.cache.glob(f"{name}.zarr/**/*")]
    before = {path: path.stat().st_mtime_ns for path in files}
    views = made_views(colour=2)
    outcome = place.extract(views)
    assert sum(views["colour"].calls) == 9
    assert views["area"].calls == views["whole"].calls == views["labels"].calls == []
    assert outcome.reasons["colour"] == "other key: version: 1 -> 2; replaces 9 rows"
    assert before == {path: path.stat().st_mtime_ns for path in files}
    assert open_view(place.cache, "colour").spec.parts["version"] == 2


def test_persons_that_left_keep_their_rows(place):
    place.extract()
    before = place.arrays()
    place.prepare({0: "removed", 1: "removed"})
    views = made_views()
    place.extract(views)
    assert all(view.calls == [] for view in views.values())
    assert same(before, place.arrays())


# ------------------------------------------------------------------------------------ failures


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def test_an_unreadable_picture_gives_rows_that_say_so(place):
    """Damaged before `prepare`, which reads headers only."""
    whole = Place(place.root / "whole")
    whole.extract()
    cut(place.data / "p" / "001.png")
    place.prepare()
    outcome = place.extract()
    found, expected = place.arrays(), whole.arrays()
    persons = np.flatnonzero(place.index.picture_rows == 1)
    assert len(persons) == 2
    for name in ("colour", "area"):
        assert (found[f"{name}.status"][persons] == STATUS["unreadable"]).all()
        assert not found[f"{name}.features"][persons].any()
        assert "damaged or truncated" in open_view(place.cache, name).reasons[int(persons[0])]
        others = np.delete(np.arange(9), persons)
        for array in ("status", "features"):
            assert np.array_equal(
                found[f"{name}.{array}"][others], expected[f"{name}.{array}"][others]
            )
    assert found["whole.status"].tolist() == [1, 5, 0, 1, 1, 0, 1, 1, 0]
    assert outcome.rows["colour"] == {"ok": 7, "unreadable": 2} and outcome.skipped == {}
    # It stays as it is: the bytes are the ones that the index knows.
    views = made_views()
    place.extract(views)
    assert all(view.calls == [] for view in views.values())


def gone(path: Path) -> None:
    path.unlink()


def other(path: Path) -> None:
    draw(path, 77)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def folder_now(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("change", [gone, other, cut, emptied, folder_now])
def test_a_picture_that_changed_since_prepare_is_left_out_and_tried_again(place, change):
    whole = Place(place.root / "whole")
    whole.extract()
    path = place.data / "p" / "001.png"
    good = path.read_bytes()
    change(path)
    outcome = place.extract()
    assert list(outcome.skipped) == ["p/001.png"]
    reason = "no such file" if change is gone else "changed since `emocache prepare`"
    assert reason in outcome.skipped["p/001.png"]
    assert outcome.rows["colour"] == {"ok": 7}
    for name, rows in (("colour", (1, 2)), ("area", (1, 2)), ("whole", (1,))):
        status = place.arrays()[f"{name}.status"]
        assert set(np.flatnonzero(status == 0)) - {2, 5, 8} == set(rows) - {2, 5, 8}
        assert (status[list(rows)] == 0).all()
    assert (place.cache / "manifest.json").exists()
    if path.is_dir():
        path.rmdir()
    path.write_bytes(good)
    views = made_views()
    assert place.extract(views).skipped == {}
    assert views["colour"].calls == [2] and views["whole"].calls == [1]
    assert same(place.arrays(), whole.arrays())


class Cut(Colour):
    """The mean colour of each person's box, which is cut out beside the networks."""

    name = "cut"

    def prepare(self, subject):
        return images.crop(subject.pixels, subject.box)

    def row(self, pixels):
        return Row("ok", {"features": pixels.mean((0, 1))})


def test_a_box_without_a_pixel_is_a_row_with_a_reason_and_stops_nothing(place):
    """As older indices hold them: 39.999999 to 40 in a picture 40 wide, in float32."""
    path = next(path for path, boxes in place.people.items() if len(boxes) == 2)
    place.people[path] = [(39.9999999, 0.0, 40.0, 20.0), place.people[path][1]]
    place.prepare()
    before = list(place.people)[: list(place.people).index(path)]
    row = sum(len(place.people[other]) for other in before)
    views = made_views() | {"cut": Cut()}
    del views["colour"]  # cuts the box out in `compute`, as no real view does
    outcome = place.extract(views)
    assert outcome.rows["whole"] == {"ok": 6} and outcome.rows["area"].total() == 9
    assert outcome.rows["cut"] == {"bad_box": 1, "ok": 8} and outcome.skipped == {}
    view = open_view(place.cache, "cut")
    assert np.flatnonzero(view.status != STATUS["ok"]).tolist() == [row]
    assert view.status[row] == STATUS["bad_box"]
    assert "has no pixel in a picture of 40x30" in view.reasons[row]
    assert place.extract({"cut": Cut()}).rows["cut"] == {}


def test_bytes_that_were_read_are_not_read_again_to_know_them(place, monkeypatch):
    """A picture that is damaged as `prepare` knew it fails for good, even if its file goes then."""
    path = place.data / "p" / "001.png"
    known = path.read_bytes()

    def failing(data, *more):
        if data == known:
            path.unlink()
            raise images.PictureError("the picture is damaged or truncated")
        return good(data, *more)

    good = images.read
    monkeypatch.setattr(images, "read", failing)
    outcome = place.extract()
    assert outcome.rows["colour"] == {"ok": 7, "unreadable": 2} and outcome.skipped == {}


def test_a_data_root_that_is_not_there_fills_the_cache_with_nothing(place):
    os.rename(place.data, place.root / "away")
    with pytest.raises(DataError, match=r"no folder .*data\.root"):
        place.extract()
    place.data.mkdir()  # as an empty mount point
    outcome = place.extract()
    assert len(outcome.skipped) == 6 and view_names(place.cache) == ["labels"]
    place.data.rmdir()
    os.rename(place.root / "away", place.data)
    assert place.extract().rows["colour"] == {"ok": 9}


def test_a_network_without_weights_is_refused_before_any_picture_is_read(place, monkeypatch):
    views = made_views()
    views["area"].network_names = lambda: ["resnet50"]
    monkeypatch.setattr(images, "load", lambda *_: pytest.fail("a picture was read"))
    nothing = config.Weights(source=["store"], store=place.root / "empty")
    with pytest.raises(WeightsError, match="resnet50"):
        run.extract(
            config.Data(root=place.data),
            Cache(root=place.cache),
            config.Extract(),
            views,
            Networks(nothing),
        )
    assert view_names(place.cache) == []


def test_without_an_index_there_is_a_sentence(tmp_path):
    with pytest.raises(CacheError, match="emocache prepare"):
        run.extract(
            config.Data(root=tmp_path),
            Cache(root=tmp_path / "cache"),
            config.Extract(),
            made_views(),
            Networks(config.Weights()),
        )


def test_numbers_that_are_not_finite_are_refused_and_the_rest_is_kept(place):
    views = made_views()
    row = views["area"].row
    views["area"].row = lambda subject: type(row(subject))("ok", {"features": (np.nan, 1)})
    with pytest.raises(CacheError, match=r"'area'.*not finite"):
        place.extract(views, batch=1)
    assert not place.arrays()["area.status"].any()
    place.extract()
    whole = Place(place.root / "whole")
    whole.extract()
    assert same(place.arrays(), whole.arrays())


def interrupt_third_block(view) -> None:
    """Ctrl-C where the view computes its third block."""
    compute, calls = view.compute, []

    def interrupted(subjects, networks):
        calls.append(len(subjects))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return compute(subjects, networks)

    view.compute = interrupted


def test_a_view_that_cannot_be_committed_does_not_keep_the_others(place):
    """Ctrl-C in the third block, and one view has buffered what it cannot write."""
    views = made_views()
    views["colour"].row = lambda subject: Row("ok", {"features": (np.nan, 1, 1)})
    interrupt_third_block(views["whole"])
    with pytest.raises(CacheError, match=r"'colour'.*not finite"):
        place.extract(views, batch=2, shard_rows=1024)
    found = place.arrays()
    assert not found["colour.status"].any()
    assert (found["area.status"][:6] > 0).all() and not found["area.status"][6:].any()
    assert found["whole.status"].tolist() == [1, 1, 0, 1, 1, 0, 0, 0, 0]


# ------------------------------------------------------------------------- stops and restarts


def test_an_interrupt_commits_what_is_ready(place):
    """Ctrl-C while the third block is computed: rows of the two before it are kept."""
    views = made_views()
    interrupt_third_block(views["whole"])
    with pytest.raises(KeyboardInterrupt):
        place.extract(views, batch=2, shard_rows=1024)
    found = place.arrays()
    assert found["whole.status"].tolist() == [1, 1, 0, 1, 1, 0, 0, 0, 0]
    assert (found["colour.status"][:6] == 1).all()
    again = made_views()
    place.extract(again, batch=2, shard_rows=1024)
    assert sum(again["whole"].calls) == 2 and again["labels"].calls == []
    whole = Place(place.root / "whole")
    whole.extract()
    assert same(place.arrays(), whole.arrays())


SLOW = """
    import signal, sys
    from pathlib import Path
    from cache.settings import Cache
    from extract import images, run
    from extract import settings as config
    from extract.loaded import Networks
    from tests.made_views import made_views
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background ignores it
    data, root, shard_rows = sys.argv[1:]
    cache = Cache(root=root, shard_rows=int(shard_rows))
    def said(done, total):
        print(done, total, flush=True)
    run.extract(config.Data(root=data), cache, config.Extract(batch=2), made_views(pause=0.004),
                Networks(config.Weights()), said)
    print("whole", flush=True)
"""


def slow(place: Place, shard_rows: int = 8) -> subprocess.Popen:
    """An extraction in a process of its own that takes a while; it says how far it is."""
    command = [sys.executable, "-c", textwrap.dedent(SLOW)]
    command += [str(place.data), str(place.cache), str(shard_rows)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An extraction of 90 pictures, 60 of them with persons, that nobody disturbed."""
    place = Place(tmp_path_factory.mktemp("whole"), pictures=90)
    place.extract()
    return place


def twin(whole: Place, root: Path) -> Place:
    """The same data, another cache."""
    place = Place(root, pictures=0)
    place.data, place.people = whole.data, whole.people
    place.prepare()
    return place


@pytest.mark.slow
def test_killed_at_any_moment_and_resumed_gives_the_same_numbers(whole, tmp_path):
    place, moments = twin(whole, tmp_path), random.Random(4)
    left = []
    for _ in range(5):
        process = slow(place)
        try:
            for _ in range(moments.randint(1, 5)):  # blocks that it says are done
                process.stdout.readline()
            time.sleep(moments.uniform(0.0, 0.1))
        finally:
            process.kill()
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        plan = place.plan()
        left.append(sum(len(rows) for rows in plan.rows.values()))
        for name, rows in plan.rows.items():
            view = open_view(place.cache, name)
            assert not view.status[rows[rows < len(view)]].any()  # uncommitted, so not believed
    assert sorted(left, reverse=True) == left and left[0] > left[-1] > 0
    views = made_views()
    place.extract(views)
    assert place.plan().empty
    assert same(place.arrays(), whole.arrays())
    assert sum(views["colour"].calls) < 90  # the killed runs did some of it
    assert not list(place.cache.rglob("*.partial"))


@pytest.mark.slow
def test_ctrl_c_commits_what_is_ready(whole, tmp_path):
    place = twin(whole, tmp_path)
    process = slow(place, shard_rows=1024)
    process.stdout.readline()
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and "whole" not in said
    assert "KeyboardInterrupt" in errors
    blocks = [line.split() for line in said.splitlines()]
    told = int(blocks[-1][0]) if blocks else 4
    ready = int((open_view(place.cache, "whole").status == STATUS["ok"]).sum())
    assert 4 <= told <= ready < 60  # no shard was full
    place.extract()
    assert same(place.arrays(), whole.arrays())


DIES = """
    import os, sys
    from pathlib import Path
    import zarr
    create, left = zarr.create_array, [int(sys.argv.pop())]
    def dying(*args, **more):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return create(*args, **more)
    zarr.create_array = dying
"""


@pytest.mark.slow
@pytest.mark.parametrize("arrays", [0, 3])
def test_killed_while_a_view_is_laid_out(whole, tmp_path, arrays):
    place = twin(whole, tmp_path)
    code = textwrap.dedent(DIES) + textwrap.dedent(SLOW)
    command = [sys.executable, "-c", code, str(place.data), str(place.cache), "8", str(arrays)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr
    place.extract()
    assert same(place.arrays(), whole.arrays())


# -------------------------------------------------------------------------------------- retry


def test_retry_computes_failed_rows_again_and_no_other(place, monkeypatch):
    good = images.read

    def failing(data, *more):
        if data == (place.data / "p" / "001.png").read_bytes():
            raise images.PictureError("no memory left to decode it")
        return good(data, *more)

    monkeypatch.setattr(images, "read", failing)
    outcome = place.extract()
    assert outcome.rows["colour"] == {"ok": 7, "unreadable": 2}
    assert place.extract().rows["colour"] == {}
    monkeypatch.setattr(images, "read", good)
    views = made_views()
    outcome = place.extract(views, retry=True)
    assert outcome.rows["colour"] == {"ok": 2} and outcome.rows["whole"] == {"ok": 1}
    assert outcome.reasons["colour"] == "2 rows that had failed"
    assert views["colour"].calls == [2] and views["labels"].calls == []
    whole = Place(place.root / "whole")
    whole.extract()
    assert same(place.arrays(), whole.arrays())
    assert place.extract(retry=True).rows["colour"] == {}


def test_retry_computes_what_is_missing_as_well(place, monkeypatch):
    good = images.read

    def failing(data, *more):
        if data == (place.data / "p" / "001.png").read_bytes():
            raise images.PictureError("no memory left to decode it")
        return good(data, *more)

    monkeypatch.setattr(images, "read", failing)
    outcome = place.extract(only={"colour": np.arange(3)})
    assert outcome.rows["colour"] == {"ok": 1, "unreadable": 2}
    monkeypatch.setattr(images, "read", good)
    outcome = place.extract(retry=True)
    assert outcome.rows["colour"] == {"ok": 8} and outcome.rows["whole"] == {"ok": 6}
    assert outcome.reasons["colour"] == "6 rows are not there yet, 2 rows that had failed"
    whole = Place(place.root / "whole")
    whole.extract()
    assert same(place.arrays(), whole.arrays())
