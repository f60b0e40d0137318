from dataclasses import replace

import numpy as np
import pytest
import torch

from cache.errors import CacheError, DataError
from cache.paths import view_names
from cache.statuses import STATUS
from tests.train import made
from train.data import EVERY, TEACHERS, ViewData, expand, from_arrays, load, views_in
from train.heads import get_head
from train.run import train_head

VIEWS = ("body", "head", "objects", "depth", "scene", "labels")


@pytest.fixture
def given():
    return made.arrays(persons=16)


def same(one, other):
    assert torch.equal(one.box, other.box) and torch.equal(one.diagonal, other.diagonal)
    assert torch.equal(one.target, other.target)
    for name, arrays in other.views.items():
        for array, values in arrays.items():
            assert torch.equal(one.views[name][array], values), (name, array)


def test_a_cache_and_its_arrays_give_the_same_batches(tmp_path, given):
    made.write_cache(tmp_path, given)
    loaded, direct = load(tmp_path, VIEWS), from_arrays(**given)
    rows = torch.tensor([5, 0, 15])
    same(loaded.batch(rows), direct.batch(rows))
    assert torch.equal(loaded.label_views["labels"], direct.label_views["labels"])
    assert loaded.classes == direct.classes == tuple("abcde")
    assert loaded.dataset == "made" and loaded.note == "made-up labels"
    assert loaded.keys["body"] and loaded.index_digest


def test_a_batch_holds_what_the_arrays_hold(given):
    batch = from_arrays(**given).batch(torch.tensor([7, 2]))
    for view, rows in {"body": [7, 2], "objects": [7, 2], "scene": [3, 1], "depth": [3, 1]}.items():
        expected = given["views"][view].arrays["features"][rows].astype(np.float32)
        np.testing.assert_array_equal(batch.views[view]["features"], expected)
    np.testing.assert_array_equal(batch.target, given["targets"][[7, 2]])
    assert batch.diagonal.tolist() == [800, 800]
    assert batch.views["objects"]["label"].dtype == torch.int64


def test_no_face_is_zeros_and_a_mask(given):
    head = given["views"]["head"]
    head.status[3] = STATUS["no_face"]
    features = from_arrays(**given)
    batch = features.batch(torch.tensor([2, 3]))
    assert batch.views["head"]["mask"].tolist() == [True, False]
    assert not batch.views["head"]["features"][1].any()
    assert batch.views["head"]["features"][0].any()
    assert 3 in features.rows()


def test_objects_are_masked_by_their_count(given):
    objects = given["views"]["objects"]
    objects.arrays["count"][:2] = [0, 2]
    objects.arrays["label"][0] = -1
    objects.status[0] = STATUS["no_object"]
    mask = from_arrays(**given).batch(torch.tensor([0, 1])).views["objects"]["mask"]
    assert mask.tolist() == [[False, False, False], [True, True, False]]


def test_every_person_counts_or_is_dropped_with_a_reason_or_was_removed(given):
    given["status"][:4] = ["removed", "repeated", "bad_box", "ok"]  # train, train, train, train
    given["views"]["body"].status[3] = STATUS["unreadable"]
    given["views"]["scene"].status[2] = STATUS["missing"]  # persons 4 and 5, in val
    features = from_arrays(**given)
    assert features.dropped == {
        "train": {"repeated": 1, "bad_box": 1, "body: unreadable": 1},
        "val": {"scene: missing": 2},
    }
    assert features.rows().tolist() == list(range(6, 16))
    assert features.rows("train").tolist() == [8, 9, 10, 11]
    assert features.rows("train", "val").tolist() == [8, 9, 10, 11, 12, 13]


def test_a_missing_view_names_the_command(tmp_path, given):
    del given["views"]["depth"]
    made.write_cache(tmp_path, given)
    with pytest.raises(CacheError, match=r"depth.*emocache extract"):
        load(tmp_path, VIEWS)


def test_a_row_never_extracted_is_refused_unless_its_person_does_not_count(tmp_path, given):
    given["views"]["body"].status[6] = STATUS["absent"]
    with pytest.raises(CacheError, match=r"'body' has no rows for 1 of 16.*person 6.*extract"):
        from_arrays(**given)
    made.write_cache(tmp_path / "unfinished", given)
    with pytest.raises(CacheError, match="no rows for 1 of 16"):
        load(tmp_path / "unfinished", VIEWS)
    given["status"][6] = "missing"
    assert 6 not in from_arrays(**given).rows()


def test_an_index_that_grew_needs_extraction(given):
    body = given["views"]["body"]
    given["views"]["body"] = replace(body, status=body.status[:10])
    with pytest.raises(CacheError, match="no rows for 6 of 16"):
        from_arrays(**given)


def test_labels_of_another_number_are_refused(given):
    given["labels"] = ("a", "b", "c", "d", "e")
    with pytest.raises(ValueError, match="targets of"):
        from_arrays(**given)
    given["targets"] = None
    with pytest.raises(CacheError, match="has 4 labels, the index has 5"):
        from_arrays(**given)


def test_numbers_that_are_not_finite_are_refused(given):
    given["views"]["depth"].arrays["map"][3, 1, 1] = np.inf
    with pytest.raises(DataError, match="'depth', array 'map'"):
        from_arrays(**given)


def test_an_object_class_beyond_the_key_is_refused(given):
    given["views"]["objects"].arrays["label"][4, 1] = 5
    with pytest.raises(CacheError, match="object classes"):
        from_arrays(**given)


def test_persons_without_labels_can_be_batched_and_not_fitted(given):
    for unknown in ("targets", "splits", "status"):
        del given[unknown]
    features = from_arrays(**given)
    assert features.batch(features.rows()).target is None
    with pytest.raises(DataError, match="no labels"):
        features.truth(features.rows())


def test_moments_agree_with_numpy_and_leave_missing_ones_out(given):
    head, objects = given["views"]["head"], given["views"]["objects"]
    head.status[1] = STATUS["no_face"]
    objects.arrays["count"][:] = np.arange(16) % 4
    features = from_arrays(**given)
    for view in ("head", "objects", "scene"):
        mean, deviation = features.moments(features.rows(), view)
        values = given["views"][view].arrays["features"].astype(np.float64)
        if view == "head":
            values = np.delete(values, 1, axis=0)
        if view == "objects":
            values = values[np.arange(3) < objects.arrays["count"][:, None]]
        np.testing.assert_allclose(mean, values.mean(0), atol=1e-6)
        np.testing.assert_allclose(deviation, values.std(0), atol=1e-6)


def test_a_feature_that_never_changes_has_deviation_one(given):
    given["views"]["body"].arrays["features"][:, 2] = 7
    features = from_arrays(**given)
    mean, deviation = features.moments(features.rows(), "body")
    assert mean[2] == 7 and deviation[2] == 1


# ------------------------------------------------------------------------ what no head may read


@pytest.fixture
def taught(tmp_path, given):
    """A cache that holds the teachers too; the image in rows of two crops."""
    rng = np.random.default_rng(0)
    arrays = {"teacher_text": rng.normal(size=(8, 4)), "teacher_image": rng.normal(size=(8, 2, 4))}
    for name, values in arrays.items():
        given["views"][name] = ViewData.of(
            name, "pictures", {"features": values.astype(np.float16)}
        )
    made.write_cache(tmp_path, given)
    assert set(view_names(tmp_path)) == {*VIEWS, *TEACHERS}
    return tmp_path


def test_every_view_is_never_a_teacher(taught, given):
    """Its text tells the label."""
    every = ("body", "head", "objects", "depth", "scene")
    specs = {name: view.spec for name, view in given["views"].items()}
    assert expand([EVERY], specs) == views_in(taught, [EVERY]) == every
    assert expand(["labels", EVERY], specs) == (*every, "labels")
    features = load(taught, [EVERY])
    assert features.views.keys() == set(every)
    assert from_arrays(**given).only([EVERY]).views.keys() == set(every)
    assert expand([EVERY], {name: specs[name] for name in TEACHERS}) == ()


REFUSED = [
    ("teacher_text", r"'teacher_text': its text names the label"),
    ("teacher_text.features", r"'teacher_text': its text names the label"),
    ("teacher_image", r"'teacher_image': .*`emocache pretrain`; set views\.scene\.network"),
]


@pytest.mark.parametrize("name, why", REFUSED)
def test_a_head_that_names_a_teacher_is_refused(taught, given, name, why):
    why = f"a head cannot read the view {why}"
    features = from_arrays(**given)
    for names in ([name], ["body", name], [EVERY, name]):
        with pytest.raises(DataError, match=why):
            load(taught, names)
        with pytest.raises(DataError, match=why):
            views_in(taught, names)
        with pytest.raises(DataError, match=why):
            features.require(names, "mlp")
        with pytest.raises(DataError, match=why):
            features.only(names)


@pytest.mark.parametrize("head", ["mlp", "linear"])
@pytest.mark.parametrize("name", TEACHERS)
def test_no_head_is_fitted_on_a_teacher(taught, tmp_path, given, head, name):
    settings = made.settings(head=head, epochs=1, **{head: {"views": ["body", name]}})
    assert name in get_head(head).views(settings)
    with pytest.raises(DataError, match=f"a head cannot read the view '{name}'"):
        train_head(taught, settings, "cpu", tmp_path / "results")
    with pytest.raises(DataError, match=f"a head cannot read the view '{name}'"):
        get_head(head).setup(settings, from_arrays(**given), torch.arange(8))


def test_a_teacher_that_is_not_there_is_refused_for_what_it_is(tmp_path, given):
    """And not sent to be extracted first."""
    made.write_cache(tmp_path, given)
    with pytest.raises(DataError, match="its text names the label"):
        load(tmp_path, ["body", "teacher_text"])


# ------------------------------------------------------------------- views larger than memory


@pytest.mark.parametrize("memory", [0.8e-6, 2.4e-6], ids=["one person", "four"])
def test_batches_from_a_file_are_the_same_ones(tmp_path, given, memory):
    """The block ends within a batch, or holds several; pictures are shared by persons."""
    made.write_cache(tmp_path, given)
    held, mapped = load(tmp_path, VIEWS), load(tmp_path, VIEWS, memory=memory)
    assert not held.block and 0 < mapped.block < 16
    rows = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    ours, theirs = list(mapped.batches(rows, 3)), list(held.batches(rows, 3))
    assert len(ours) == len(theirs) == 6
    for one, other in zip(ours, theirs, strict=True):
        same(one, other)
    same(mapped.batch(rows[:5]), held.batch(rows[:5]))
    for one, other in zip(
        mapped.moments(rows, "objects"), held.moments(rows, "objects"), strict=True
    ):
        assert torch.equal(one, other)


def test_a_block_is_read_once_and_no_more_than_two_are_held(tmp_path, given, monkeypatch):
    made.write_cache(tmp_path, given)
    mapped = load(tmp_path, VIEWS, memory=2.4e-6)
    read = []
    held = type(mapped)._held
    monkeypatch.setattr(
        type(mapped), "_held", lambda self, rows: read.append(rows) or held(self, rows)
    )
    size = mapped.block // 2 * 2
    for number, _ in enumerate(mapped.batches(mapped.rows(), 2)):
        assert len(read) <= number * 2 // size + 2
    assert torch.equal(torch.cat(read), mapped.rows()) and max(map(len, read)) == size


def test_ratings_come_from_the_index(tmp_path, given):
    given["vad"] = np.full((16, 3), np.nan, np.float32)
    given["vad"][4] = [7, 2, 5]
    made.write_cache(tmp_path, given)
    batch = load(tmp_path, VIEWS).batch(torch.tensor([4, 0]))
    assert batch.vad[0].tolist() == [7, 2, 5] and batch.vad[1].isnan().all()
    given["vad"][4] = np.nan
    assert (
        from_arrays(**given).vad is None
        and from_arrays(**given).batch(torch.tensor([4])).vad is None
    )
