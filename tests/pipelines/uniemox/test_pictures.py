"""Which pixels and which teacher's vectors a student is given."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from cache.boxes import area
from cache.errors import CacheError, DataError, KeyMismatch
from cache.index import PERSONS, Index
from extract import images
from pipelines import stages
from pipelines.uniemox.pictures import (
    PictureSource,
    Sample,
    Teachers,
    persons_of,
    pictures_of,
    teachers_of,
)
from tests.pipelines.uniemox.conftest import TEACHERS, settings_of


def source_of(place, *more, teachers=None, samples=None):
    settings = settings_of(place, *more)
    index = Index.read(settings.cache.root)
    if samples is None:
        samples, _ = pictures_of(index, teachers or Teachers())
    own = settings.pretrain
    return PictureSource(
        settings.data.root, samples, own, own.size, (own.size // own.patch) ** 2, teachers
    )


def one(source, split, place, epoch=1):
    return next(source.read(split, [[place]], epoch))


def test_of_held_out_pictures_the_scene_is_all_of_it_and_the_person_their_box(prepared):
    source = source_of(prepared)
    sample = source.samples["val"][1]
    pixels = images.read(prepared / "data" / sample.path).pixels
    found = one(source, "val", 1)
    assert torch.equal(found.scene[0].permute(1, 2, 0), torch.from_numpy(images.resize(pixels, 32)))
    person = images.resize(images.crop(pixels, sample.people[0][0]), 32)
    assert torch.equal(found.person[0].permute(1, 2, 0), torch.from_numpy(person))
    assert not torch.equal(found.scene, found.person)
    assert not found.whole[0]


def test_the_person_stream_of_train_shows_the_person_and_the_scene_more(prepared):
    """Persons are of one colour, and grounds are grey."""
    source = source_of(prepared)
    for place in range(source.count("train")):
        found = one(source, "train", place)
        spread = found.person[0].float().std(dim=(1, 2))
        assert float(spread.max()) == 0, "the person stream shows more than the person"
        assert float(found.scene[0].float().std(dim=(1, 2)).max()) > 0


def test_where_nobody_was_found_both_streams_show_the_picture_and_it_is_said(prepared):
    index = Index.read(prepared / "features")
    samples, _ = pictures_of(index, Teachers())
    first = samples["val"][0]
    whole = (0.0, 0.0, 64.0, 48.0)
    source = source_of(prepared, samples={"val": [replace(first, people=[(whole, True)])]})
    found = one(source, "val", 0)
    assert bool(found.whole[0])
    assert torch.equal(found.scene, found.person)


def test_what_is_drawn_hangs_on_seed_epoch_and_picture_alone(prepared):
    source = source_of(prepared)
    together = list(source.read("train", [[3, 5], [7]], 2))
    apart = list(source.read("train", [[5], [7, 3]], 2))
    for name in ("scene", "person", "noise"):
        a = torch.cat([getattr(batch, name) for batch in together])
        b = torch.cat([getattr(batch, name) for batch in apart])[[2, 0, 1]]
        assert torch.equal(a, b)
    assert not torch.equal(one(source, "train", 3, 2).scene, one(source, "train", 3, 3).scene)
    other = source_of(prepared, "pretrain.seed=1")
    assert not torch.equal(one(source, "train", 3, 2).noise, one(other, "train", 3, 2).noise)


def test_held_out_pictures_are_the_same_in_every_epoch(prepared):
    source = source_of(prepared)
    assert torch.equal(one(source, "val", 0, 1).noise, one(source, "val", 0, 9).noise)
    assert torch.equal(one(source, "val", 0, 1).scene, one(source, "val", 0, 9).scene)


def test_readers_in_processes_give_the_same_as_this_one(prepared):
    batches = [[0, 1], [2, 3], [4]]
    here = list(source_of(prepared).read("train", batches, 1))
    there = list(source_of(prepared, "pretrain.readers=2").read("train", batches, 1))
    for a, b in zip(here, there, strict=True):
        assert torch.equal(a.scene, b.scene) and torch.equal(a.noise, b.noise)


def test_half_of_the_pictures_are_mirrored_in_both_streams_alike(prepared):
    """A ramp from left to right falls instead of rising when it is mirrored."""
    samples, _ = pictures_of(Index.read(prepared / "features"), Teachers())
    path = prepared / "data" / samples["train"][0].path
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8)[None, :, None], (48, 1, 3))
    Image.fromarray(ramp).save(path)
    changed = [
        replace(samples["train"][0], id=images.read(path).id, people=[((8, 8, 56, 40), False)])
    ]
    source = source_of(prepared, samples={"train": changed})
    scenes, persons = [], []
    for epoch in range(1, 25):
        found = one(source, "train", 0, epoch)
        for streams, square in ((scenes, found.scene), (persons, found.person)):
            streams.append(
                bool(square[0, 0, :, 0].float().mean() > square[0, 0, :, -1].float().mean())
            )
    assert scenes == persons
    assert 3 < sum(scenes) < 21
    still = source_of(prepared, "pretrain.flip=false", samples={"train": changed})
    found = [one(still, "train", 0, epoch).scene[0, 0] for epoch in range(1, 25)]
    assert all(square[:, 0].float().mean() < square[:, -1].float().mean() for square in found)


def test_a_picture_that_cannot_be_read_is_named_and_the_others_come(prepared):
    source = source_of(prepared)
    gone, changed = (prepared / "data" / source.samples["train"][at].path for at in (1, 2))
    gone.unlink()
    changed.write_bytes((prepared / "data" / source.samples["train"][0].path).read_bytes())
    found = next(source.read("train", [[0, 1, 2, 3]], 1))
    assert found.row.tolist() == [source.samples["train"][at].row for at in (0, 3)]
    assert "no such file" in found.lost[source.samples["train"][1].row]
    assert "changed" in found.lost[source.samples["train"][2].row]
    none = next(source.read("train", [[1]], 1))
    assert len(none) == 0 and len(none.lost) == 1


def test_of_several_people_one_is_drawn_in_each_epoch(prepared):
    samples, _ = pictures_of(Index.read(prepared / "features"), Teachers())
    first = samples["train"][0]
    boxes = [((0.0, 0.0, 10.0, 10.0), False), ((20.0, 20.0, 60.0, 45.0), False)]
    source = source_of(
        prepared,
        "pretrain.person_crop=[1.0, 1.0]",
        "pretrain.flip=false",
        samples={"train": [replace(first, people=boxes)], "val": [replace(first, people=boxes)]},
    )
    seen = {one(source, "train", 0, epoch).person.numpy().tobytes() for epoch in range(1, 12)}
    assert len(seen) > 1
    pixels = images.read(prepared / "data" / first.path).pixels
    expected = images.resize(images.crop(pixels, boxes[0][0]), 32)
    held_out = one(source, "val", 0).person[0].permute(1, 2, 0).numpy()
    assert np.array_equal(held_out, expected)


# ---- teachers


@pytest.fixture
def taught(prepared):
    def extract(*more):
        settings = settings_of(prepared, *TEACHERS, *more)
        stages.extract(settings)
        index = Index.read(settings.cache.root)
        return settings, teachers_of(settings, index), index

    return extract


def test_each_picture_comes_with_what_its_teachers_say(taught):
    settings, teachers, index = taught()
    samples, dropped = pictures_of(index, teachers)
    assert not dropped
    source = source_of(settings.data.root.parent, *TEACHERS, teachers=teachers)
    found = next(source.read("train", [[4, 2]], 1))
    rows = [samples["train"][at].row for at in (4, 2)]
    assert found.row.tolist() == rows
    assert np.array_equal(found.image.numpy(), teachers.image[rows, 0].astype(np.float32))
    assert np.array_equal(found.text.numpy(), teachers.text[rows].astype(np.float32))
    assert found.described.all()


def test_with_stored_crops_the_student_sees_what_the_teacher_saw(taught):
    settings, teachers, _ = taught("views.teacher_image.crops=3")
    source = source_of(settings.data.root.parent, *TEACHERS, teachers=teachers)
    flips = set()
    for epoch in range(1, 9):
        found = one(source, "train", 0, epoch)
        row = int(found.row[0])
        (seen,) = [n for n in range(3) if np.array_equal(found.image[0], teachers.image[row, n])]
        pixels = images.read(settings.data.root / source.samples["train"][0].path).pixels
        crop = tuple(teachers.crop[row, seen].tolist())
        square = images.resize(images.crop(pixels, crop), 32)
        if teachers.flip[row, seen]:
            square = square[:, ::-1]
        assert np.array_equal(found.scene[0].permute(1, 2, 0).numpy(), square)
        flips.add((seen, bool(teachers.flip[row, seen])))
        assert area(np.array(crop)) <= 64 * 48
    assert len(flips) > 1


def test_teachers_that_the_cache_lacks_are_named_with_the_settings_that_mend_it(prepared):
    settings = settings_of(prepared, "pretrain.without=[]")
    index = Index.read(settings.cache.root)
    with pytest.raises(CacheError, match=r"views\.teacher_image\.network.*pretrain\.without"):
        teachers_of(settings, index)
    alone = settings_of(prepared, "pretrain.without=[similarity, image]")
    assert teachers_of(alone, index).width is None


def test_descriptions_of_no_picture_are_refused(taught, prepared):
    with pytest.raises(DataError, match=r"no picture has a description.*without=\[similarity\]"):
        taught("views.teacher_text.attributes=[human_action]")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("views.teacher_image.crops=3", "crops 0 there, 3 here"),
        ("views.teacher_text.attributes=[scene]", "attributes .* here"),
    ],
)
def test_teachers_made_by_other_settings_are_refused(taught, prepared, more, said):
    _, _, index = taught()
    with pytest.raises(KeyMismatch, match=f"{said}.*emocache extract"):
        teachers_of(settings_of(prepared, *TEACHERS, more), index)
    unset = settings_of(prepared, "pretrain.without=[]")  # null: what is there is meant
    assert teachers_of(unset, index).width == 24


def test_texts_of_attributes_that_have_changed_are_refused(taught, prepared):
    taught()
    table = prepared / "data/persons.jsonl"
    table.write_text(table.read_text().replace("room 3", "kitchen"))
    settings = settings_of(prepared, *TEACHERS)
    stages.prepare(settings)
    with pytest.raises(KeyMismatch, match="attributes, labels or splits have changed"):
        teachers_of(settings, Index.read(settings.cache.root))


def test_a_picture_that_a_teacher_has_not_seen_is_left_out_and_counted(taught):
    _, teachers, index = taught()
    teachers.usable[3] = False
    samples, dropped = pictures_of(index, replace(teachers, reasons={3: "teacher_image: missing"}))
    assert 3 not in [sample.row for sample in samples["train"]]
    assert dropped == {"train: teacher_image: missing": 1}


def test_a_picture_of_both_train_and_val_is_of_train_and_counted(prepared):
    index = Index.read(prepared / "features")
    persons = index.persons.to_pylist()
    persons[13]["picture"] = 0  # one of val, now in a picture of train
    mixed = replace(index, persons=pa.Table.from_pylist(persons, PERSONS))
    samples, dropped = pictures_of(mixed, Teachers())
    assert [sample.row for sample in samples["val"]].count(0) == 0
    assert dropped == {"val: also in train": 1}


def test_a_sample_a_person_has_their_label(prepared):
    index = Index.read(prepared / "features")
    samples, dropped = persons_of(index)
    assert {split: len(some) for split, some in samples.items()} == {
        "train": 12,
        "val": 4,
        "test": 4,
    }
    assert not dropped
    first: Sample = samples["test"][0]
    assert np.array_equal(first.target, index.targets[first.row])
