"""FER+: two forms of its votes, faces that nobody knows, and the unpacking of arrays."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cache.errors import DataError
from cache.index import Index
from extract.datasets import get_dataset
from extract.datasets.ferplus import unpack
from extract.prepare import prepare
from extract.settings import Data
from tests.extract.datasets.made import (
    VOTES,
    Folder,
    ferplus,
    ferplus_parts,
    made,
    persons,
    prepared,
)
from tests.shared import quick_folder, shared

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)
UNKNOWN = "no emotion has more votes than unknown or NF"


# The real faces


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    """The faces of FER2013Valid, unpacked and prepared."""
    arrays = shared("data/ferplus/ferplus_FER2013Valid.npz")
    base = quick_folder(tmp_path_factory, "ferplus")
    written = unpack([arrays], base / "data")
    report = prepare(Data(name="ferplus", root=base / "data"), base / "cache")
    with np.load(arrays) as held:
        yield written, report, Index.read(base / "cache"), dict(held), base / "data"
    shutil.rmtree(base)


def test_real_faces_have_the_shares_of_their_votes(valid):
    written, report, _, held, root = valid
    votes = held["votes"].astype(float)
    known = votes[:, :8].max(axis=1) > votes[:, 8:].max(axis=1)
    shares = np.where(known[:, None], votes[:, :8], 0)
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    people = {r.path: r.persons[0] for r in get_dataset("ferplus")(root).records()}
    found = [people[f"FER2013Valid/{name}"] for name in held["names"]]
    assert np.abs(np.stack([one.labels for one in found]) - shares).max() < 1e-6
    assert (np.stack([one.votes for one in found]) == votes[:, :8]).all()
    assert [one.status == "ok" for one in found] == known.tolist()
    assert written == {"val": len(found)} == {"val": 3_579}
    assert report.oddities["faces that unknown or NF wins"] == (~known).sum()


def test_real_faces_with_equal_bytes_are_one_person(valid):
    _, report, index, held, _ = valid
    votes, faces = held["votes"], held["images"].reshape(3_579, -1)
    known = votes[:, :8].max(axis=1) > votes[:, 8:].max(axis=1)
    assert len(index.pictures) == len(np.unique(faces, axis=0))
    assert report.persons["val"]["ok"] == len(np.unique(faces[known], axis=0))


def test_real_faces_are_written_as_they_are(valid):
    *_, held, root = valid
    for at in range(0, 3_579, 500):
        with Image.open(root / "FER2013Valid" / str(held["names"][at])) as face:
            assert (np.array(face) == held["images"][at]).all()


# Both forms


@pytest.mark.parametrize(("maker", "inner"), [(ferplus, "images/"), (ferplus_parts, "")])
def test_votes_become_shares_and_are_kept(tmp_path, maker, inner):
    _, index = prepared("ferplus", made(maker, tmp_path / "data"), tmp_path / "cache")
    found = persons(index)
    one = found[f"{inner}FER2013Train/fer1.png"]
    wanted = {"neutral": 0.4, "sadness": 0.1, "anger": 0.3, "disgust": 0.2}
    assert one["felt"] == pytest.approx(wanted)
    assert (one["votes"], one["annotators"]) == ([4, 0, 0, 1, 3, 2, 0, 0], 10)
    assert (one["x1"], one["y1"], one["x2"], one["y2"]) == (0, 0, 48, 48)
    assert (one["face"], one["origin"]) == ([0, 0, 48, 48], "annotated")
    splits = {path.split("/")[-1]: person["split"] for path, person in found.items()}
    assert splits == dict(
        zip(VOTES, ["train", "val", "test", "train", "val", "test", "train"], strict=True)
    )


@pytest.mark.parametrize(("maker", "inner"), [(ferplus, "images/"), (ferplus_parts, "")])
def test_faces_that_unknown_or_nf_wins_are_unlabelled(tmp_path, maker, inner):
    report, index = prepared("ferplus", made(maker, tmp_path / "data"), tmp_path / "cache")
    found = {p.split("/")[-1]: (one["status"], one["reason"]) for p, one in persons(index).items()}
    assert found == {
        "fer1.png": ("ok", ""),
        "fer2.png": ("ok", ""),
        "fer3.png": ("unlabelled", UNKNOWN),
        "fer4.png": ("unlabelled", UNKNOWN),
        "fer5.png": ("unlabelled", UNKNOWN),
        "fer6.png": ("ok", ""),
        "gone.png": ("missing", "no such file"),
    }
    assert report.oddities["faces that unknown or NF wins"] == 3
    lost = persons(index)[f"{inner}FER2013Test/fer3.png"]
    assert (lost["felt"], lost["annotators"]) == ({}, 0)
    assert lost["votes"] == [3, 0, 0, 1, 0, 0, 0, 0]


def test_rows_that_fer_plus_left_out_have_no_picture(tmp_path):
    reader = get_dataset("ferplus")(made(ferplus, tmp_path))
    assert len(list(reader.records())) == len(VOTES)
    assert reader.counts["rows without a picture"] == 1


def test_a_tie_is_no_single_label(tmp_path):
    root = made(ferplus, tmp_path / "data")
    _, index = prepared("ferplus", root, tmp_path / "cache", target="single")
    found = persons(index)
    assert found["images/FER2013Train/fer1.png"]["felt"] == {"neutral": 1}
    tied = found["images/FER2013Test/fer6.png"]
    reason = "no label has the largest share alone: neutral and happiness"
    assert (tied["status"], tied["reason"]) == ("unlabelled", reason)


def test_a_part_that_is_absent_is_counted(tmp_path):
    root = made(ferplus_parts, tmp_path)
    (root / "FER2013Test" / "label.csv").unlink()
    reader = get_dataset("ferplus")(root)
    assert {record.split for record in reader.records()} == {"train", "val"}
    assert reader.counts["split test absent"] == 1


def test_a_face_listed_twice_comes_once(tmp_path):
    folder = Folder(tmp_path)
    line = 'a.png,"(0, 0, 48, 48)",1,0,0,0,0,0,0,0,0,0'
    folder.lines("FER2013Train/label.csv", [line, line])
    assert len(list(get_dataset("ferplus")(folder.write()).records())) == 1


# Refusals


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("Private,a.png,1,0,0,0,0,0,0,0,0,0", "'Private' is none of Training, PublicTest"),
        ("Training,a.png,1,0,0,0,0,0,0,0,0,x", "has votes that are no counts"),
        ("Training,a.png,1,0,0,0,0,0,0,0,0,-1", "has votes that are no counts"),
        ("Training,a.png,1,0,0,0,0,0,0,0", "has votes that are no counts"),
        ("Training,a.png,1,0,0,0,0,0,0,0,0,0,0", "more cells than the header"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number(tmp_path, line, reason):
    folder = Folder(tmp_path)
    folder.lines("fer2013new.csv", ["Training,b.png,1,0,0,0,0,0,0,0,0,0", line], HEADER)
    with pytest.raises(DataError, match=f"fer2013new.csv, line 3.*{reason}"):
        list(get_dataset("ferplus")(folder.write()).records())


def test_a_part_of_another_width_is_refused(tmp_path):
    folder = Folder(tmp_path)
    folder.lines("FER2013Train/label.csv", ["a.png,1,0,0"])
    with pytest.raises(DataError, match="label.csv, line 1 has 4 cells, not 12"):
        list(get_dataset("ferplus")(folder.write()).records())


def test_a_folder_that_is_not_ferplus_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither fer2013new.csv nor FER2013Train/label.csv"):
        get_dataset("ferplus")(tmp_path)


# Arrays


def arrays(folder: Path, name: str = "made_FER2013Test.npz", **changes) -> Path:
    """A file of two faces."""
    rng = np.random.default_rng(1)
    held = {
        "images": rng.integers(0, 256, (2, 48, 48), np.uint8),
        "votes": np.array([[9, 1, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0, 10]]),
        "names": np.array(["a.png", "b.png"]),
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / name, **{key: value for key, value in held.items() if value is not None})
    return folder / name


def test_unpacked_arrays_are_read_again(tmp_path):
    file = arrays(tmp_path)
    assert unpack([file], tmp_path / "data") == {"test": 2}
    with open(tmp_path / "data" / "FER2013Test" / "label.csv", newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0] == ["a.png", "(0, 0, 48, 48)", *"9100000000"]
    _, index = prepared("ferplus", tmp_path / "data", tmp_path / "cache")
    assert persons(index)["FER2013Test/a.png"]["felt"] == pytest.approx(
        {"neutral": 0.9, "happiness": 0.1}
    )
    assert index.person_status.tolist() == ["ok", "unlabelled"]
    with np.load(file) as held, Image.open(tmp_path / "data/FER2013Test/b.png") as face:
        assert (np.array(face) == held["images"][1]).all()


FACES = np.zeros((2, 48, 48), np.uint8)


@pytest.mark.parametrize(
    "changes",
    [
        {"names": None},
        {"names": np.array(["a.png", "b.png"], object)},  # a pickle
        {"names": np.array(["a.png"])},
        {"images": FACES.astype(float)},
        {"images": FACES[:, :40]},
        {"images": FACES[0]},
        {"votes": np.zeros((2, 8), int)},
        {"votes": np.zeros((3, 10), int)},
    ],
    ids=["no names", "pickled", "one name", "floats", "flat", "one face", "8 votes", "3 votes"],
)
def test_arrays_of_another_form_are_refused(tmp_path, changes):
    file = arrays(tmp_path, **changes)
    with pytest.raises(DataError, match="FER2013Test.npz"):
        unpack([file], tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["a/b.png", "../b.png", "/b.png", "..", "", "b", "label.csv"])
def test_a_name_that_is_no_picture_in_its_folder_is_refused(tmp_path, name):
    file = arrays(tmp_path, names=np.array(["a.png", name]))
    with pytest.raises(DataError, match="names the picture"):
        unpack([file], tmp_path / "data")
    assert not list(tmp_path.rglob("b.png"))


@pytest.mark.parametrize("keep", [0, 100, 3000], ids=["empty", "short", "cut"])
def test_a_damaged_file_is_refused(tmp_path, keep):
    file = arrays(tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match="FER2013Test.npz"):
        unpack([file], tmp_path / "data")


def test_flipped_bytes_are_refused(tmp_path):
    file = arrays(tmp_path)
    data = bytearray(file.read_bytes())
    data[300:340] = bytes(40)
    file.write_bytes(bytes(data))
    with pytest.raises(DataError, match="FER2013Test.npz"):
        unpack([file], tmp_path / "data")


def test_an_array_alone_is_refused(tmp_path):
    with open(tmp_path / "made_FER2013Test.npz", "wb") as file:
        np.save(file, FACES)
    with pytest.raises(DataError, match="FER2013Test.npz"):
        unpack([tmp_path / "made_FER2013Test.npz"], tmp_path / "data")


def test_files_are_known_by_the_names_of_their_folders(tmp_path):
    with pytest.raises(DataError, match="named after none of FER2013Train"):
        unpack([arrays(tmp_path, "made.npz")], tmp_path / "data")
    with pytest.raises(DataError, match=r"FER2013Valid.npz does not hold images"):
        unpack([tmp_path / "gone_FER2013Valid.npz"], tmp_path / "data")
