"""The plan on caches whose views carry real keys over weights that the tests make."""

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cache.errors import CacheError
from cache.spec import ArraySpec, Row, ViewSpec
from cache.writer import ViewWriter
from extract import settings as config
from extract.loaded import Networks
from extract.plan import Who, make_plan
from extract.views import give_definitions, make_views
from tests.made_views import Letters, Made, Whole, draw, index_of, many

SETTINGS = config.Views(
    body=config.Body(network="resnet18"),
    head=config.Head(network="resnet34"),
    objects=config.Objects(network="resnet101", detector="yolo26n"),
    depth=config.Depth(network="Intel/dpt-swinv2-tiny-256"),
    scene=config.Scene(network="resnet152"),
    labels=config.Labels(network="bert-base-uncased"),
)
NETWORKS = (
    "resnet18",
    "resnet34",
    "resnet101",
    "resnet152",
    "blazeface",
    "yolo26n",
    "Intel--dpt-swinv2-tiny-256",
    "bert-base-uncased",
)
PERSONS, PICTURES = ("body", "head", "objects"), ("depth", "scene")


def each(views: tuple[str, ...], rows: list[int]) -> dict[str, list[int]]:
    return {name: rows for name in views}


class Place:
    """A data folder, weights and a cache below one folder."""

    def __init__(self, root: Path):
        self.root, self.cache, self.weights = root, root / "cache", root / "weights"
        self.weights.mkdir()
        for network in NETWORKS:
            self.change(network, 1)
        self.people = many(root, 6)  # 6 persons in 4 of 6 pictures
        self.index = index_of(root, self.people)

    def change(self, network: str, number: int) -> None:
        values = {"weight": np.full(3, number, np.float32)}
        save_file(values, self.weights / f"{network}.safetensors")

    def views(self, settings: config.Views = SETTINGS, dtype: str = "float16") -> dict:
        views = make_views(settings, dtype)
        give_definitions(views, self.index)
        return views

    def networks(self) -> Networks:
        found = config.Weights(source=["folder"], folder=self.weights, store=self.root / "store")
        return Networks(found)

    def plan(self, index=None, views=None):
        views = views or self.views()
        return make_plan(self.cache, index or self.index, views, self.networks())

    def fill(self, plan=None, index=None, shard_rows: int = 8) -> None:
        """Write every row that a plan names, as extraction would but without networks."""
        plan, index, views = plan or self.plan(), index or self.index, self.views()
        for name, rows in plan.rows.items():
            view = views[name]
            parts = view.parts(self.networks())
            spec = ViewSpec(name, view.space, {"features": ArraySpec((2,))}, parts)
            writer = ViewWriter(self.cache, spec, index.ids(view.space), shard_rows)
            writer.expect(rows.tolist())
            for row in rows.tolist():
                writer.put(row, Row("ok", {"features": np.full(2, row)}))
            writer.close()

    def rows(self, plan) -> dict[str, list[int]]:
        return {name: rows.tolist() for name, rows in plan.rows.items() if len(rows)}


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.fixture
def filled(place):
    place.fill()
    return place


def test_an_empty_cache_wants_everything(place):
    plan = place.plan()
    expected = each(PERSONS, [0, 1, 2, 3, 4, 5])
    # pictures 2 and 5 show nobody
    expected |= each(PICTURES, [0, 1, 3, 4]) | {"labels": [0, 1]}
    assert place.rows(plan) == expected
    assert set(plan.reasons.values()) == {"not extracted yet"}
    assert not plan.empty and len(plan.rows["body"]) == 6


def test_each_picture_is_one_task_that_serves_all_its_rows(place):
    plan = place.plan()
    assert [task.picture for task in plan.tasks] == [0, 1, 3, 4]
    served = {name: [] for name in (*PERSONS, *PICTURES)}
    for task in plan.tasks:
        for name, rows in task.rows.items():
            served[name] += rows
            for row, who in rows:
                if name in PERSONS:
                    assert place.index.picture_rows[row] == task.picture
                    assert who == Who(tuple(place.index.boxes[row].tolist()))
                else:
                    assert row == task.picture and who == Who()
    assert place.rows(plan) == {name: [row for row, _ in rows] for name, rows in served.items()} | {
        "labels": [0, 1]
    }


class Told(Made):
    """A row a picture, made of what the index says."""

    name, space, pictureless = "told", "pictures", True


@pytest.mark.parametrize(
    "shard_rows, told",
    [
        (1, [[0], [1], [3], [4]]),
        (2, [[0, 1], [3], [4]]),
        (4, [[0, 1, 3], [4]]),
        (8, [[0, 1, 3, 4]]),
    ],
)
def test_rows_that_need_no_picture_are_in_no_task_and_cut_by_shard(place, shard_rows, told):
    views = {"told": Told(), "whole": Whole(), "labels": Letters()}
    plan = make_plan(place.cache, place.index, views, place.networks(), shard_rows)
    assert plan.pictureless == {"told": [0, 1, 3, 4], "labels": [0, 1]}  # 2 and 5 show nobody
    labels = [[0], [1]] if shard_rows == 1 else [[0, 1]]
    assert plan.parts == [{"told": some} for some in told] + [{"labels": some} for some in labels]
    assert [list(task.rows) for task in plan.tasks] == [["whole"]] * 4
    only = {"told": np.array([1, 2, 4])}
    plan = make_plan(place.cache, place.index, views, place.networks(), shard_rows, only)
    assert plan.pictureless == {"told": [1, 4]} and plan.tasks == []


def test_nothing_to_do_on_an_unchanged_cache(filled):
    plan = filled.plan()
    assert plan.empty and plan.tasks == []
    assert set(plan.reasons.values()) == {"up to date"}


def test_an_unchanged_cache_costs_no_network_library(filled):
    filled.index.write(filled.cache)
    code = f"""
        import sys
        from pathlib import Path
        from cache.index import Index
        from extract.plan import Who, make_plan
        from extract.settings import Views, Weights
        from extract.loaded import Networks
        from extract.views import give_definitions, make_views
        root = Path({str(filled.root)!r})
        views = make_views(Views.model_validate_json({SETTINGS.model_dump_json()!r}), "float16")
        weights = Weights(source=["folder"], folder=root / "weights", store=root / "store")
        index = Index.read(root / "cache")
        give_definitions(views, index)
        plan = make_plan(root / "cache", index, views, Networks(weights))
        assert plan.empty, plan.reasons
        heavy = {{"torch", "torchvision", "transformers", "ultralytics", "huggingface_hub"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_appended_persons_are_computed(filled):
    more = {"more/a.png": [(0.0, 0.0, 9.0, 9.0)], "more/b.png": [(0.0, 0.0, 9.0, 9.0)] * 2}
    for number, path in enumerate(more):
        draw(filled.root / path, 100 + number)
    people = filled.people | more
    plan = filled.plan(index_of(filled.root, people))
    new = each(PERSONS, [6, 7, 8]) | each(PICTURES, [6, 7])
    assert filled.rows(plan) == new
    assert (
        plan.reasons["body"] == "3 rows are not there yet"
        and plan.reasons["labels"] == "up to date"
    )
    assert [task.picture for task in plan.tasks] == [6, 7]


def test_a_person_added_to_a_known_picture_needs_no_picture_row(filled):
    people = dict(filled.people)
    people["p/004.png"] = [*people["p/004.png"], (1.0, 1.0, 9.0, 9.0)]
    plan = filled.plan(index_of(filled.root, people))
    assert filled.rows(plan) == each(PERSONS, [6])


@pytest.mark.parametrize(
    "network, view",
    [
        ("resnet18", "body"),
        ("blazeface", "head"),
        ("yolo26n", "objects"),
        ("Intel--dpt-swinv2-tiny-256", "depth"),
        ("bert-base-uncased", "labels"),
    ],
)
def test_other_weights_make_their_view_stale_and_no_other(filled, network, view):
    filled.change(network, 2)
    plan = filled.plan()
    assert list(filled.rows(plan)) == [view]
    name = network.replace("--", "/")
    assert plan.reasons[view].startswith(f"other key: networks.{name}.sha256: ")
    assert plan.reasons[view].count(";") == 1 and "; replaces " in plan.reasons[view]


@pytest.mark.parametrize(
    "view, change, part",
    [
        ("body", {"size": 160}, "settings.size: 128 -> 160"),
        ("head", {"score": 0.6}, "settings.score: 0.5 -> 0.6"),
        ("objects", {"k": 5}, "settings.k: 10 -> 5"),
        ("depth", {"grid": 4}, "settings.grid: 8 -> 4"),
        ("labels", {"pooling": "cls"}, "settings.pooling: mean -> cls"),
    ],
)
def test_another_setting_makes_its_view_stale_and_no_other(filled, view, change, part):
    section = getattr(SETTINGS, view).model_copy(update=change)
    views = filled.views(SETTINGS.model_copy(update={view: section}))
    plan = filled.plan(views=views)
    assert list(filled.rows(plan)) == [view]
    assert plan.reasons[view].startswith(f"other key: {part}; replaces ")


def test_another_network_says_both_names(filled):
    section = SETTINGS.scene.model_copy(update={"network": "resnet18"})
    plan = filled.plan(views=filled.views(SETTINGS.model_copy(update={"scene": section})))
    assert list(filled.rows(plan)) == ["scene"]
    assert "settings.network: resnet152 -> resnet18" in plan.reasons["scene"]


def test_another_dtype_makes_everything_stale(filled):
    plan = filled.plan(views=filled.views(dtype="float32"))
    expected = "other key: dtype: float16 -> float32; replaces "
    assert all(why.startswith(expected) for why in plan.reasons.values())


def test_other_definitions_make_the_labels_stale(filled):
    views = filled.views()
    views["labels"].definitions = [{"label": "calm", "definition": "at peace"}]
    assert list(filled.rows(filled.plan(views=views))) == ["labels"]


@pytest.mark.parametrize(
    "word", ["removed", "unlabelled", "repeated", "missing", "unreadable", "bad_box"]
)
def test_persons_that_do_not_count_are_not_computed(place, word):
    """Persons 1 and 2 are both of picture 1, which is then not opened at all."""
    plan = place.plan(index_of(place.root, place.people, {1: word, 2: word, 4: word}))
    assert place.rows(plan) == {
        **each(PERSONS, [0, 3, 5]),
        **each(PICTURES, [0, 3, 4]),
        "labels": [0, 1],
    }
    assert [task.picture for task in plan.tasks] == [0, 3, 4]


def test_a_person_who_comes_back_finds_the_features_still_there(filled):
    gone = index_of(filled.root, filled.people, dict.fromkeys(range(6), "removed"))
    assert filled.plan(gone).empty
    assert filled.plan().empty


def test_a_partly_committed_view_is_completed(place):
    plan = place.plan()
    plan.rows["body"] = plan.rows["body"][:4]
    plan.rows["depth"] = plan.rows["depth"][[0, 3]]
    place.fill(plan)
    again = place.plan()
    assert place.rows(again) == {"body": [4, 5], "depth": [1, 3]}
    place.fill(again)
    assert place.plan().empty


def test_a_shard_without_its_commit_is_done_again(filled):
    (filled.cache / "body.zarr" / "commits" / "000000.json").unlink()
    assert filled.rows(filled.plan()) == {"body": [0, 1, 2, 3, 4, 5]}


def test_an_index_shorter_than_the_cache_is_refused(filled):
    few = dict(list(filled.people.items())[:2])
    with pytest.raises(
        CacheError, match=r"has 6 rows but the index 3: .*another index.*cache.root"
    ):
        filled.plan(index_of(filled.root, few))


def test_an_index_of_other_persons_is_refused(filled):
    """As many rows as the cache, but of other people: read by row they would be the wrong ones."""
    people = dict(filled.people)
    people["p/004.png"] = [people["p/004.png"][0], (2.0, 2.0, 9.0, 9.0)]
    with pytest.raises(CacheError, match=r"body.zarr holds other persons.*cache.root"):
        filled.plan(index_of(filled.root, people))


def test_an_index_of_other_labels_is_refused(filled):
    with pytest.raises(CacheError, match=r"labels.zarr holds other labels"):
        filled.plan(index_of(filled.root, filled.people, labels=("alarm", "calm")))
