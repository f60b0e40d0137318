"""What holds for every reader, each on a small folder in its own form with every trap."""

from pathlib import Path

import numpy as np
import pytest

from cache.index import Index
from extract.datasets import get_dataset, names
from tests.extract.datasets.made import MADE, Maker, made, prepared

FORMS = [(name, maker) for name, makers in MADE.items() for maker in makers]
every_form = pytest.mark.parametrize(
    ("name", "maker"), FORMS, ids=[f"{name}-{maker.__name__}" for name, maker in FORMS]
)


def test_no_reader_is_left_out():
    assert sorted(MADE) == names()


def facts(index: Index) -> tuple[set, set]:
    """Who is there, by what does not depend on row numbers; and what became of each picture."""
    rows = np.flatnonzero(index.person_status == "ok")
    ids = index.persons["id"].to_pylist()
    people = {(ids[row], index.splits[row], tuple(index.targets[row].tolist())) for row in rows}
    columns = ("id", "split", "status", "reason")
    return people, {
        tuple(one.values()) for one in index.pictures.select(list(columns)).to_pylist()
    }


@every_form
def test_each_path_comes_once(name: str, maker: Maker, tmp_path: Path):
    paths = [record.path for record in get_dataset(name)(made(maker, tmp_path)).records()]
    assert len(paths) == len(set(paths)) > 0


@every_form
def test_persons_that_count_have_a_box_in_their_picture(name, maker, tmp_path):
    _, index = prepared(name, made(maker, tmp_path / "data"), tmp_path / "cache")
    rows = index.wanted("persons")
    boxes, pictures = index.boxes[rows], index.pictures.take(index.picture_rows[rows])
    assert len(rows) and np.isfinite(boxes).all()
    assert set(pictures["status"].to_pylist()) == {"ok"}
    limits = np.stack([pictures[side].to_numpy() for side in ("width", "height")], axis=1)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= limits).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


@every_form
def test_no_two_persons_of_a_split_are_one(name, maker, tmp_path):
    _, index = prepared(name, made(maker, tmp_path / "data"), tmp_path / "cache")
    ids = index.persons["id"].to_pylist()
    known = [(ids[row], index.splits[row]) for row in index.wanted("persons")]
    assert len(known) == len(set(known))
    assert set(index.splits) <= {"train", "val", "test"}


@every_form
def test_the_order_of_lines_and_files_decides_nothing(name, maker, tmp_path):
    found = []
    for seed in (None, 1, 2, 3):
        place = tmp_path / str(seed)
        _, index = prepared(name, made(maker, place / "data", seed), place / "cache")
        found.append(facts(index))
    assert all(one == found[0] for one in found)


@every_form
def test_preparing_twice_changes_nothing(name, maker, tmp_path):
    root, cache = made(maker, tmp_path / "data"), tmp_path / "cache"

    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (cache / "index").iterdir()}

    first, index = prepared(name, root, cache)
    before = files()
    again, _ = prepared(name, root, cache)
    assert files() == before
    for table, rows in (("pictures", index.pictures), ("persons", index.persons)):
        assert again.rows[table] == {"new": 0, "kept": len(rows), "revived": 0, "removed": 0}
    assert first.as_dict() | {"rows": {}} == again.as_dict() | {"rows": {}}


@every_form
def test_labels_have_definitions_and_fit_their_kind(name, maker, tmp_path):
    _, index = prepared(name, made(maker, tmp_path / "data"), tmp_path / "cache")
    assert tuple(one["label"] for one in index.definitions) == index.labels
    assert all(one["definition"].strip() for one in index.definitions)
    labels = index.targets[index.wanted("persons")]
    assert index.kind in ("multi", "single", "distribution")
    assert (labels >= 0).all() and labels.any(axis=1).all()
    if index.kind != "distribution":
        assert set(np.unique(labels)) <= {0, 1}
    if index.kind == "single":
        assert (labels.sum(axis=1) == 1).all()
    if index.kind == "distribution":
        assert np.abs(labels.sum(axis=1) - 1).max() < 1e-6
    unlabelled = index.person_status == "unlabelled"
    assert not index.targets[unlabelled].any()


@pytest.mark.parametrize("name", [name for name in MADE if name not in ("coco", "persons")])
def test_definitions_of_sets_with_names_of_their_own_are_sentences(name, tmp_path):
    reader = get_dataset(name)(made(MADE[name][0], tmp_path))
    assert tuple(reader.definitions) == reader.labels
    assert name == "folders" or all(reader.definitions[one] != one for one in reader.labels)
