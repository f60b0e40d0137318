"""What holds for every reader, each on a small folder in its own form with every trap."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from cache.index import Index
from extract.datasets import get_dataset, names
from extract.prepare import Prepared, prepare
from extract.settings import Data
from tests.extract.datasets.made import MADE, Maker, made, prepared
from tests.extract.datasets.made_recordings import RECORDINGS

EVERY = MADE | RECORDINGS
FORMS = [(name, maker) for name, makers in EVERY.items() for maker in makers]


PICTURES = (".jpg", ".png", ".PNG")


@dataclass(frozen=True)
class Form:
    """A form of a data set, made and prepared once."""

    name: str
    maker: Maker
    root: Path
    cache: Path
    report: Prepared
    index: Index


@pytest.fixture(
    scope="module", params=FORMS, ids=[f"{name}-{maker.__name__}" for name, maker in FORMS]
)
def form(request, tmp_path_factory) -> Form:
    name, maker = request.param
    base = tmp_path_factory.mktemp(name)
    root, cache = made(maker, base / "data"), base / "cache"
    return Form(name, maker, root, cache, *prepared(name, root, cache))


def test_no_reader_is_left_out():
    assert sorted(EVERY) == names()


def facts(index: Index) -> tuple[set, set]:
    """Who is there, by what does not depend on row numbers; and what became of each picture."""
    rows = np.flatnonzero(index.person_status == "ok")
    ids = index.persons["id"].to_pylist()
    people = {(ids[row], index.splits[row], tuple(index.targets[row].tolist())) for row in rows}
    pictures = index.pictures.select(["id", "split", "status", "reason"]).to_pylist()
    return people, {tuple(one.values()) for one in pictures}


def test_each_path_comes_once(form: Form):
    paths = [record.path for record in get_dataset(form.name)(form.root).records()]
    assert len(paths) == len(set(paths)) > 0


def test_persons_that_count_have_a_box_in_their_picture(form: Form):
    rows = form.index.wanted("persons")
    boxes = form.index.boxes[rows]
    pictures = form.index.pictures.take(form.index.picture_rows[rows])
    assert len(rows) and np.isfinite(boxes).all()
    assert set(pictures["status"].to_pylist()) == {"ok"}
    limits = np.stack([pictures[side].to_numpy() for side in ("width", "height")], axis=1)
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= limits).all()
    assert (boxes[:, :2] < boxes[:, 2:]).all()


def test_no_two_persons_of_a_split_are_one(form: Form):
    ids, splits = form.index.persons["id"].to_pylist(), form.index.splits
    known = [(ids[row], splits[row]) for row in form.index.wanted("persons")]
    assert len(known) == len(set(known))
    assert set(splits) <= {"train", "val", "test"}


@pytest.mark.parametrize("seed", [1, 2])
def test_the_order_of_lines_and_files_decides_nothing(form: Form, seed: int, tmp_path: Path):
    report, index = prepared(form.name, made(form.maker, tmp_path / "data", seed), tmp_path / "c")
    assert facts(index) == facts(form.index)
    assert report.persons == form.report.persons
    assert report.oddities == form.report.oddities


def test_preparing_twice_changes_nothing(form: Form):
    def files() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (form.cache / "index").iterdir()}

    before = files()
    again, _ = prepared(form.name, form.root, form.cache)
    assert files() == before
    for table in ("pictures", "persons"):
        count = len(getattr(form.index, table))
        assert again.rows[table] == {"new": 0, "kept": count, "revived": 0, "removed": 0}
    assert form.report.as_dict() | {"rows": {}} == again.as_dict() | {"rows": {}}


def emptied(form: Form, base: Path) -> tuple[Path, Path, dict[Path, bytes]]:
    """A copy of a prepared form whose pictures are empty files, and what they held."""
    if form.name not in MADE:
        pytest.skip("the file of features is the annotation too")
    root, cache = (shutil.copytree(one, base / one.name) for one in (form.root, form.cache))
    held = {path: path.read_bytes() for path in root.rglob("*") if path.suffix in PICTURES}
    for path in held:
        path.write_bytes(b"")
    return root, cache, held


def test_pictures_that_break_and_are_mended_have_the_rows_that_they_had(form: Form, tmp_path):
    root, cache, held = emptied(form, tmp_path)
    _, broken = prepared(form.name, root, cache)
    assert not (broken.person_status == "ok").any()
    for path, data in held.items():
        path.write_bytes(data)
    _, mended = prepared(form.name, root, cache)
    rows = form.index.wanted("persons")
    assert mended.wanted("persons").tolist() == rows.tolist()
    assert [mended.ids("persons")[r] for r in rows] == [form.index.ids("persons")[r] for r in rows]
    # Equal bytes were two pictures meanwhile: a row more, which is removed again.
    known = form.index.ids("pictures")
    assert mended.ids("pictures")[: len(known)] == known
    assert set(mended.pictures["status"].to_pylist()[len(known) :]) <= {"removed"}


def test_where_no_picture_can_be_read_nobody_is_looked_for(form: Form, tmp_path):
    root, cache, _ = emptied(form, tmp_path)
    report = prepare(Data(name=form.name, root=root), cache)  # without a finder
    assert not any("ok" in statuses for statuses in report.persons.values())


def test_labels_have_definitions_and_fit_their_kind(form: Form):
    index = form.index
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
    assert not index.targets[index.person_status == "unlabelled"].any()


OWN = [name for name in EVERY if name not in ("coco", "folders", "persons")]


@pytest.mark.parametrize("name", OWN)
def test_labels_that_a_set_brings_are_defined_by_sentences(name: str, tmp_path: Path):
    reader = get_dataset(name)(made(EVERY[name][0], tmp_path))
    assert tuple(reader.definitions) == reader.labels
    assert all(len(text) > len(label) for label, text in reader.definitions.items())
