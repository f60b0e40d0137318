"""The index on disk: what is written is read, and a newer format is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cache.errors import CacheError
from cache.files import sha256_file
from cache.index import PERSONS, PICTURES, Index, person_id
from cache.keys import of_sealed_text, sealed_text


def index(persons=3, labels=("joy", "fear")):
    pictures = [
        dict(
            id=f"p{i}",
            path=f"{i}.jpg",
            width=10,
            height=20,
            split="train",
            source="made",
            status="ok",
            reason="",
        )
        for i in range(2)
    ]
    people = [
        dict(
            id=person_id("p0", (0, 0, i + 1, 5)),
            picture=i % 2,
            x1=0,
            y1=0,
            x2=i + 1,
            y2=5,
            split="train",
            labels=[float(i == 1), 1.0],
            annotators=1,
            votes=None,
            valence=5,
            arousal=float("nan"),
            dominance=1,
            gender="",
            age="",
            status="ok",
            reason="",
        )
        for i in range(persons)
    ]
    tables = pa.Table.from_pylist(pictures, PICTURES), pa.Table.from_pylist(people, PERSONS)
    return Index("made", "made-up labels", tuple(labels), *tables)


def test_round_trip(tmp_path):
    index().write(tmp_path)
    back = Index.read(tmp_path)
    assert (back.dataset, back.note, back.labels) == ("made", "made-up labels", ("joy", "fear"))
    np.testing.assert_array_equal(back.boxes[2], [0, 0, 3, 5])
    np.testing.assert_array_equal(back.targets, [[0, 1], [1, 1], [0, 1]])
    np.testing.assert_array_equal(back.picture_rows, [0, 1, 0])
    assert back.digest() == index().digest()


def test_no_index_is_a_sentence(tmp_path):
    with pytest.raises(CacheError, match=r"emocache prepare.*cache\.root"):
        Index.read(tmp_path)


def test_newer_format_is_refused(tmp_path):
    index().write(tmp_path)
    path = tmp_path / "index" / "index.json"
    about = of_sealed_text(path.read_bytes()) | {"format": 99}
    path.write_bytes(sealed_text(about))
    with pytest.raises(CacheError, match="format 99"):
        Index.read(tmp_path)


def test_digest_notices_a_changed_label():
    one, other = index(), index()
    people = other.persons.to_pylist()
    people[0]["labels"] = [1.0, 1.0]
    changed = Index(
        other.dataset,
        other.note,
        other.labels,
        other.pictures,
        pa.Table.from_pylist(people, PERSONS),
    )
    assert one.digest() != changed.digest()


def test_digest_notices_a_person_of_another_split_status_or_picture():
    people = index().persons.to_pylist()
    digests = {index().digest()}
    for change in ({"split": "test"}, {"status": "removed"}, {"picture": 1}):
        changed = pa.Table.from_pylist([people[0] | change, *people[1:]], PERSONS)
        digests.add(replace(index(), persons=changed).digest())
    assert len(digests) == 4


def test_person_id_is_of_picture_and_box():
    box = (1.0, 2.0, 3.0, 4.0)
    assert person_id("a", box) == person_id("a", box)
    assert len({person_id("a", box), person_id("b", box), person_id("a", (1, 2, 3, 4.5))}) == 3


def test_another_sealed_file_in_the_place_of_the_index_is_damage(tmp_path):
    from tests.train import made

    made.write_cache(tmp_path, made.arrays(persons=8))
    for other in ({"rows": [0]}, {"format": 2, "views": {}}):
        (tmp_path / "index" / "index.json").write_bytes(sealed_text(other))
        with pytest.raises(CacheError, match="missing or damaged"):
            Index.read(tmp_path)


def test_an_index_of_format_2_is_read_with_what_it_did_not_know(tmp_path):
    """As an emocache wrote it that knew no groups, faces, origins and kinds; and written as 3."""
    index().write(tmp_path)
    folder = tmp_path / "index"
    about = of_sealed_text((folder / "index.json").read_bytes())
    for name, new in (("pictures", ["group", "attributes"]), ("persons", ["origin", "face"])):
        path = folder / f"{name}.parquet"
        pq.write_table(pq.read_table(path).drop_columns(new), path)
        about["files"][path.name] = sha256_file(path)
    about = {key: value for key, value in about.items() if key != "kind"} | {"format": 2}
    (folder / "index.json").write_bytes(sealed_text(about))
    back = Index.read(tmp_path)
    assert (back.kind, back.faces) == ("", [None] * 3) and back.digest() == index().digest()
    assert back.persons["origin"].to_pylist() == ["annotated"] * 3
    assert back.pictures["group"].to_pylist() == [""] * len(back.pictures)
    back.write(tmp_path)
    assert of_sealed_text((folder / "index.json").read_bytes())["format"] == 3
    assert Index.read(tmp_path).digest() == index().digest()


@pytest.mark.parametrize("kind", ["single", "distribution"])
def test_the_kind_and_the_faces_are_kept(tmp_path, kind):
    """What labels are decides a head's result; that they are `multi` was so before."""
    made = index()
    face = pa.array([[1.0, 2.0, 3.0, 4.0], None, None], pa.list_(pa.float32()))
    place = made.persons.column_names.index("face")
    made = replace(made, kind=kind, persons=made.persons.set_column(place, "face", face))
    made.write(tmp_path)
    back = Index.read(tmp_path)
    assert back.kind == kind and back.faces == [(1, 2, 3, 4), None, None]
    assert back.digest() != index().digest() == replace(index(), kind="multi").digest()


def test_a_person_is_of_the_face_and_of_nobody_too():
    whole = (0, 0, 9, 9)
    ids = {
        person_id("p", whole),
        person_id("p", whole, (1, 1, 2, 2)),
        person_id("p", whole, (1, 1, 2, 3)),
        person_id("p", whole, nobody=True),
    }
    assert len(ids) == 4
