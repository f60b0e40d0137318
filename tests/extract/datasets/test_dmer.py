"""DMER: rows of features by subject and video, labels from three places, and what may be wrong."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from cache.errors import DataError
from extract.datasets import PictureRecord
from extract.datasets.dmer import COLUMNS, Dmer
from extract.images import PictureError
from tests.extract.datasets.made import Folder, made
from tests.extract.datasets.made_recordings import (
    VIDEOS,
    dmer,
    dmer_apart,
    dmer_subject,
    mat,
    mat73,
)


def records(root: Path) -> dict[str, PictureRecord]:
    return {one.path: one for one in Dmer(root).records()}


def subject(root: Path, **changed: np.ndarray | None) -> Path:
    """A root with the one file S1.mat, in which some variables are others, or none."""
    held = {name: value for name, value in (dmer_subject(1) | changed).items() if value is not None}
    root.mkdir(exist_ok=True)
    (root / "S1.mat").write_bytes(mat(held))
    return root


def test_columns_are_those_of_the_released_code():
    assert COLUMNS == {"eeg": (0, 90), "gsr": (90, 118), "ppg": (118, 145), "face": (145, 913)}
    assert 18 * 5 == 90
    widths = {name: one.widths for name, one in Dmer.modalities.items()}
    assert widths == {"eeg": (90,), "gsr": (28,), "ppg": (27,), "face": (768,)}
    roles = {name: one.role for name, one in Dmer.modalities.items()}
    assert roles == dict.fromkeys(("eeg", "gsr", "ppg"), "physiological") | {"face": "behavioural"}


def test_a_record_is_a_video_of_a_subject_and_a_person_a_row(tmp_path):
    found = records(dmer(tmp_path))
    assert list(found)[:3] == [f"S1.mat#video-{video}" for video in (0, 1, 2)]
    one = found["S1.mat#video-2"]
    assert (one.group, one.source, one.width, one.height) == ("S1", "video 2", 8, 1)
    assert one.attributes == {"video": 2}
    assert [person.box for person in one.persons] == [(k, 0, k + 5, 1) for k in range(4)]
    assert sum(len(record.persons) for record in found.values()) == 9 + 9 + 6


def test_labels_are_the_row_of_the_video_over_its_sum(tmp_path):
    """As the released code has it: `dis_label[int(vid)]`, then divided by the sum of the row."""
    felt = dmer_subject(2)["dis_label"]
    found = records(dmer(tmp_path))
    for video in (0, 1, 2):
        for person in found[f"S2.mat#video-{video}"].persons:
            assert person.labels == pytest.approx(felt[video] / felt[video].sum(), abs=1e-7)
            assert person.labels.dtype == np.float32 and person.status == "ok"


@pytest.mark.parametrize("write", [mat, mat73], ids=["v5", "v7.3"])
def test_decode_takes_the_rows_of_a_video_in_their_order(write):
    """Those of video 2 stand in two pieces."""
    held = dmer_subject(7)
    rows = np.flatnonzero(np.array(VIDEOS) == 2)
    assert rows.tolist() == [3, 4, 7, 8]
    channels = Dmer.decode(write(held), "video-2")
    for name, (start, end) in COLUMNS.items():
        wanted = held["feas"][rows, start:end].astype(np.float32)
        assert np.array_equal(channels[name].values, wanted)
        assert np.array_equal(channels[name].between(2.0, 7.0), wanted[2:3])


def test_both_versions_are_read_alike(tmp_path):
    held = dmer_subject(7)
    for name, write in (("five", mat), ("seven", mat73)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "S1.mat").write_bytes(write(held))
    five, seven = (list(records(tmp_path / name).values()) for name in ("five", "seven"))
    assert [(one.path, one.width) for one in five] == [(one.path, one.width) for one in seven]
    for one, other in zip(five, seven, strict=True):
        assert np.array_equal(one.persons[0].labels, other.persons[0].labels)


@pytest.mark.parametrize("write", [mat, mat73], ids=["v5", "v7.3"])
def test_of_complex_features_the_real_part_counts(tmp_path, write):
    """The code of the data set takes statistics of a Fourier transform, which is complex."""
    held = dmer_subject(7)
    data = write(held | {"feas": held["feas"] + 2j})
    (tmp_path / "S1.mat").write_bytes(data)
    reader = Dmer(tmp_path)
    assert {person.status for one in reader.records() for person in one.persons} == {"ok"}
    assert reader.counts == {"files with complex features, of which the real part counts": 1}
    given = Dmer.decode(data, "video-0")["gsr"].values
    assert np.array_equal(given, held["feas"][:3, 90:118].astype(np.float32))


def test_vids_may_lie_on_their_side(tmp_path):
    vids = np.array([VIDEOS])
    assert len(records(subject(tmp_path, vids=vids))["S1.mat#video-0"].persons) == 3


def test_every_trap_becomes_a_row_with_a_reason(tmp_path):
    reader = Dmer(dmer(tmp_path))
    found = {
        f"{record.group} {record.source} {at}": (person.status, person.reason)
        for record in reader.records()
        for at, person in enumerate(record.persons)
        if person.status != "ok"
    }
    assert found == {
        "S3 video 0 1": ("unreadable", "1 of 913 features are no finite numbers"),
        "S3 video 1 0": ("unlabelled", "video 1: the shares sum to 0"),
        "S3 video 1 1": ("unlabelled", "video 1: the shares sum to 0"),
        "S3 video 5 0": ("unlabelled", "video 5: dis_label has 3 rows, counted from 0"),
    }
    assert reader.counts["rows with features that are no finite numbers"] == 1


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_an_amount_that_is_none_leaves_the_video_without_labels(tmp_path, bad):
    felt = dmer_subject(1)["dis_label"]
    felt[1, 3] = bad
    found = records(subject(tmp_path, dis_label=felt))
    (one, _) = found["S1.mat#video-1"].persons
    assert one.status == "unlabelled" and not one.labels.any() and one.annotators == 0
    assert one.reason.startswith("video 1: a share is ")
    assert found["S1.mat#video-0"].persons[0].status == "ok"


def test_a_number_too_large_for_float32_is_not_finite(tmp_path):
    feas = dmer_subject(1)["feas"]
    feas[0, 0] = 1e60
    assert records(subject(tmp_path, feas=feas))["S1.mat#video-0"].persons[0].status == "unreadable"


# Where labels stand


def test_labels_may_stand_in_a_folder_of_the_subject(tmp_path):
    reader = Dmer(made(dmer_apart, tmp_path))
    found = {one.path: one for one in reader.records()}
    assert {one.group for one in found.values()} == {"1", "2", "3"}
    felt = dmer_subject(3)["dis_label"]
    labels = found["features/3.mat#video-1"].persons[0].labels
    assert labels == pytest.approx(felt[1] / felt[1].sum(), abs=1e-7)
    assert reader.counts[".mat files of other content, left out"] == 3


def test_labels_may_stand_in_one_file_for_all(tmp_path):
    held = dmer_subject(1)
    felt = held.pop("dis_label")
    for name in ("a", "b"):
        (tmp_path / f"{name}.mat").write_bytes(mat(held))
    (tmp_path / "labels.mat").write_bytes(mat({"dis_label": felt}))
    found = records(tmp_path)
    labels = [found[f"{name}.mat#video-2"].persons[0].labels for name in ("a", "b")]
    assert labels[0] == pytest.approx(felt[2] / felt[2].sum(), abs=1e-7)
    assert np.array_equal(*labels)


def test_no_labels_or_two_of_them_are_refused(tmp_path):
    subject(tmp_path, dis_label=None)
    with pytest.raises(DataError, match=r"S1\.mat has no dis_label, .*are: none; one is needed"):
        Dmer(tmp_path)
    for name in ("x", "y"):
        savemat(tmp_path / f"{name}.mat", {"dis_label": np.ones((3, 10))})
    with pytest.raises(DataError, match=r"are: x\.mat, y\.mat; one is needed"):
        Dmer(tmp_path)


def test_emotions_are_numbered_unless_a_file_names_them(tmp_path):
    """The released code names none."""
    subject(tmp_path)
    assert Dmer(tmp_path).labels == tuple(f"emotion {n}" for n in range(1, 11))
    names = [f"feeling{n}" for n in range(10)]
    (tmp_path / "labels.yaml").write_text("\n".join(f"{name}: as one is" for name in names))
    assert Dmer(tmp_path).labels == tuple(names)
    (tmp_path / "labels.yaml").write_text("joy: glad")
    with pytest.raises(DataError, match=r"labels\.yaml names 1 emotions, and dis_label has 10"):
        Dmer(tmp_path)


def test_files_of_one_name_are_subjects_of_their_own(tmp_path):
    for place in ("one", "two"):
        subject(tmp_path / place)
    assert {one.group for one in Dmer(tmp_path).records()} == {"one/S1", "two/S1"}


# Refusals


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"feas": np.ones((9, 912))}, r"S1\.mat: feas has 912 columns, not 913 \(EEG 90"),
        ({"vids": np.ones((8, 1))}, r"S1\.mat: vids is \(8, 1\), and feas has 9 rows"),
        ({"vids": None}, r"S1\.mat has feas and no vids: is it whole"),
        ({"feas": None}, r"no \.mat file with feas"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(tmp_path, changed, reason):
    with pytest.raises(DataError, match=reason):
        Dmer(subject(tmp_path, **changed))


@pytest.mark.parametrize(
    ("vids", "reason"),
    [
        ([0, 0.5, 0, 2, 2, 1, 1, 2, 2], r"vids\(2\) is 0\.5, which is no number of a video"),
        ([0, 0, np.nan, 2, 2, 1, 1, 2, 2], r"vids\(3\) is nan"),
        (np.array(VIDEOS) + 1, r"vids run from 1 to 3, .*3 rows of dis_label from 0: take 1"),
    ],
)
def test_videos_that_are_none_are_refused(tmp_path, vids, reason):
    with pytest.raises(DataError, match=reason):
        records(subject(tmp_path, vids=np.array([vids], float)))


def test_words_in_place_of_numbers_are_refused(tmp_path):
    words = np.array([["a"] * 10] * 3, dtype=object)
    with pytest.raises(DataError, match=r"S1\.mat: dis_label is of object, not of numbers"):
        records(subject(tmp_path, dis_label=words))


def test_emotions_must_be_as_many_in_each_file(tmp_path):
    subject(tmp_path)
    (tmp_path / "S2.mat").write_bytes(mat(dmer_subject(2) | {"dis_label": np.ones((3, 9))}))
    with pytest.raises(DataError, match=r"number of emotions: S1.mat \(3, 10\), S2.mat \(3, 9\)"):
        Dmer(tmp_path)


@pytest.mark.parametrize("data", [b"", b"no MATLAB file", mat(dmer_subject(1))[:3000]])
def test_a_damaged_file_is_refused_by_name(tmp_path, data):
    (tmp_path / "S1.mat").write_bytes(data)
    with pytest.raises(DataError, match=r"S1\.mat"):
        records(tmp_path)


def test_decode_refuses_what_is_no_file_and_no_stretch():
    data = mat(dmer_subject(1))
    for stretch in ("video-9", "video-", "7", ""):
        with pytest.raises(PictureError, match="no rows of"):
            Dmer.decode(data, stretch)
    for bad in (b"", data[:3000], mat({"feas": np.ones((2, 913))})):
        with pytest.raises(PictureError):
            Dmer.decode(bad, "video-0")


def test_hidden_files_are_left_out(tmp_path):
    folder = Folder(tmp_path)
    folder.text(".trash/S9.mat", mat(dmer_subject(9)))
    folder.text("S1.mat", mat(dmer_subject(1)))
    assert {one.group for one in Dmer(folder.write()).records()} == {"S1"}
