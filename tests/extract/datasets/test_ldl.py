"""Label-distribution sets: the real files, what their columns are, and files that are none."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.io import loadmat

from cache.errors import DataError
from extract.datasets.ldl import LabelDistributions
from extract.images import PictureError
from tests.extract.datasets.made_recordings import FEATURES, ldl, mat, mat73, shares
from tests.shared import shared

SIZES = {"SJAFFE": (213, 243, 6), "SBU_3DFE": (2500, 243, 6), "emotion6": (1980, 168, 7)}
SIZES |= {"Movie": (7755, 1869, 5)}


def real(name: str) -> LabelDistributions:
    file = shared(f"data/ldl/{name}.mat")
    return LabelDistributions(file.parent, Path(file.name))


def target(name: str) -> np.ndarray:
    """Labels (N, C) of a real set, as the reader gives them."""
    return np.stack([one.persons[0].labels for one in real(name).records()])


def written(root: Path, file: str = "made.mat", **matrices: np.ndarray) -> LabelDistributions:
    (root / file).write_bytes(mat(matrices))
    return LabelDistributions(root)


# Real files, against SciPy's reading of them


@pytest.mark.parametrize("name", SIZES)
def test_real_sets_have_their_rows_and_shares(name):
    rows, width, labels = SIZES[name]
    reader = real(name)
    found = list(reader.records())
    assert len(found) == rows and len(reader.labels) == labels
    assert reader.modalities["features"].widths == (width,)
    assert {one.persons[0].status for one in found} == {"ok"}
    assert [one.path for one in found[:2]] == [f"{name}.mat#1", f"{name}.mat#2"]
    given = np.stack([one.persons[0].labels for one in found])
    assert np.abs(given.sum(1) - 1).max() < 1e-6
    assert np.abs(given - loadmat(shared(f"data/ldl/{name}.mat"))["labels"]).max() < 2e-6


@pytest.mark.parametrize("name", SIZES)
def test_decode_gives_the_row_of_its_number(name):
    file = shared(f"data/ldl/{name}.mat")
    features = loadmat(file)["features"].astype(np.float32)
    data = file.read_bytes()
    for row in (0, 16, len(features) - 1):
        channel = LabelDistributions.decode(data, str(row + 1))["features"]
        assert np.array_equal(channel.between(0.0, 1.0), features[row : row + 1])


def test_sjaffe_is_in_the_order_of_jaffes_table():
    """Ratings 2.87 2.52 2.10 1.97 1.97 2.06 of picture 1, of happiness, sadness, surprise, anger,
    disgust and fear, over their sum."""
    reader = real("SJAFFE")
    assert reader.labels == ("happiness", "sadness", "surprise", "anger", "disgust", "fear")
    ratings = np.array([2.87, 2.52, 2.10, 1.97, 1.97, 2.06])
    assert target("SJAFFE")[0] == pytest.approx(ratings / ratings.sum(), abs=1e-6)


def test_faces_that_pose_an_expression_have_most_of_it_in_sjaffe():
    """JAFFE's KM poses them as 4-7, 9-13, 14-16, 17-19, 20-22, 23-25; 8, 12 and 21 are missing.
    Anger and disgust are near to each other there, and so are disgust and fear."""
    felt = target("SJAFFE").argmax(1)
    assert felt[3:7].tolist() == [0] * 4 and felt[7:11].tolist() == [1] * 4
    assert felt[11:14].tolist() == [2] * 3 and felt[14:17].tolist() == [3] * 3
    assert felt[17:19].tolist() == [4] * 2


def test_the_columns_of_sbu_3dfe_are_those_that_rise_with_the_level_of_an_expression():
    """Files sort as AN01-04, DI01-04, FE01-04, HA01-04, NE, SA01-04, SU01-04."""
    reader, mean = real("SBU_3DFE"), target("SBU_3DFE").reshape(100, 25, 6).mean(0)
    begins = {"anger": 0, "disgust": 4, "fear": 8, "happiness": 12, "sadness": 17, "surprise": 21}
    for name, at in begins.items():
        rise = mean[at + 3] - mean[at]
        assert reader.labels[int(rise.argmax())] == name
        assert reader.labels[int(mean[at + 3].argmax())] == name
    assert mean[16].max() - mean[16].min() < 0.05  # the neutral face says least


def test_joy_and_surprise_go_together_and_against_the_rest_in_emotion6():
    reader, felt = real("emotion6"), target("emotion6")
    at = {name: felt[:, column] for column, name in enumerate(reader.labels)}

    def r(one: str, other: str) -> float:
        return float(np.corrcoef(at[one], at[other])[0, 1])

    assert r("joy", "surprise") > 0.4
    against = [r(one, o) for one in ("joy", "surprise") for o in ("anger", "disgust", "fear")]
    assert max(against) < -0.2
    assert at["joy"].mean() > at["surprise"].mean()


def test_movie_has_ratings():
    assert real("Movie").labels == tuple(f"rating {stars}" for stars in range(1, 6))


def test_persons_of_sjaffe_are_jaffes_ten():
    found = Counter(one.group for one in real("SJAFFE").records())
    assert found == {
        "KM": 22, "KA": 23, "YM": 22, "KR": 20, "NM": 20, "MK": 21, "UY": 21, "KL": 22, "TM": 21,
        "NA": 21,
    }  # fmt: skip


@pytest.mark.parametrize(("name", "at_least"), [("SJAFFE", 0.85), ("SBU_3DFE", 0.85)])
def test_the_nearest_face_is_mostly_one_of_the_same_person(name, at_least):
    """Groups come from the order of the rows; the features say that it is right."""
    groups = np.array([one.group for one in real(name).records()])
    features = loadmat(shared(f"data/ldl/{name}.mat"))["features"]
    scaled = (features - features.mean(0)) / features.std(0)
    apart = ((scaled**2).sum(1)[:, None] - 2 * scaled @ scaled.T) + (scaled**2).sum(1)
    np.fill_diagonal(apart, np.inf)
    nearest = apart.argmin(1)
    same = (groups[nearest] == groups).mean()
    moved = np.roll(groups, 8)
    assert same > at_least > (moved[nearest] == moved).mean()


@pytest.mark.parametrize("name", ["emotion6", "Movie"])
def test_rows_of_other_sets_have_no_group(name):
    assert {one.group for one in real(name).records()} == {""}


def test_rows_in_another_order_have_no_persons(tmp_path):
    held = loadmat(shared("data/ldl/SJAFFE.mat"))
    features, labels = held["features"], held["labels"]
    reader = written(tmp_path, "SJAFFE.mat", features=features[::-1], labels=labels[::-1])
    assert {one.group for one in reader.records()} == {""}
    assert reader.counts == {"rows in an order that is not known: no persons": 213}


def test_a_copy_in_float32_has_the_same_persons(tmp_path):
    for name in ("SJAFFE", "SBU_3DFE"):
        held = loadmat(shared(f"data/ldl/{name}.mat"))
        labels = held["labels"].astype(np.float32)
        (tmp_path / f"{name}.mat").write_bytes(mat({"features": labels, "labels": labels}))
        reader = LabelDistributions(tmp_path, Path(f"{name}.mat"))
        assert "" not in {one.group for one in reader.records()}


# Any file


def test_a_row_is_a_record_and_a_sample(tmp_path):
    reader = LabelDistributions(ldl(tmp_path))
    one = next(iter(reader.records()))
    assert (one.path, one.width, one.height) == ("made.mat#1", 1, 1)
    assert (one.group, one.source) == ("", "made")
    assert one.persons[0].box == (0, 0, 1, 1)
    assert reader.labels == ("label 1", "label 2", "label 3", "label 4")
    modality = reader.modalities["features"]
    assert (modality.role, modality.measure, modality.decoder) == ("", "given", "ldl")


def test_every_trap_becomes_a_row_with_a_reason(tmp_path):
    reader = LabelDistributions(ldl(tmp_path))
    people = {one.path: one.persons[0] for one in reader.records()}
    assert {path: (p.status, p.reason) for path, p in people.items() if p.status != "ok"} == {
        "made.mat#4": ("unreadable", f"1 of {FEATURES} features are no finite numbers"),
        "made.mat#8": ("unlabelled", "the shares sum to 0.5"),
    }
    assert len(people) == 60 and not people["made.mat#8"].labels.any()
    assert people["made.mat#4"].annotators == 1  # its labels are good


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        ("features", "labels"),
        ("feature", "labelDistribution"),
        ("Feature", "Distribution"),
        ("yeastFeature", "yeastDistribution"),
        ("X", "Y"),
        ("x", "D"),
    ],
)
def test_variables_may_be_called_as_in_any_release(tmp_path, features, labels):
    given = shares(5, 3, 1)
    reader = written(tmp_path, **{features: np.ones((5, 2)), labels: given})
    found = np.stack([one.persons[0].labels for one in reader.records()])
    assert found == pytest.approx(given, abs=1e-6)


def test_version_7_3_is_read_alike(tmp_path):
    held = {"features": np.arange(10.0).reshape(5, 2), "labels": shares(5, 3, 1)}
    assert np.array_equal(
        LabelDistributions.decode(mat(held), "3")["features"].values,
        LabelDistributions.decode(mat73(held), "3")["features"].values,
    )
    (tmp_path / "made.mat").write_bytes(mat73(held))
    first = next(iter(LabelDistributions(tmp_path).records()))
    assert first.persons[0].labels == pytest.approx(held["labels"][0], abs=1e-6)


def test_labels_may_be_named(tmp_path):
    (tmp_path / "labels.yaml").write_text("calm: at rest\njoy: glad\nfear: afraid\nawe: amazed")
    reader = LabelDistributions(ldl(tmp_path))
    assert reader.labels == ("calm", "joy", "fear", "awe")
    (tmp_path / "labels.yaml").write_text("calm: at rest")
    with pytest.raises(DataError, match=r"labels\.yaml names 1 labels, and .*made\.mat has 4"):
        LabelDistributions(tmp_path)


def test_a_known_name_with_other_labels_has_numbers(tmp_path):
    reader = written(tmp_path, "SJAFFE.mat", features=np.ones((5, 2)), labels=shares(5, 3, 1))
    assert reader.labels == ("label 1", "label 2", "label 3")


# Refusals


@pytest.mark.parametrize(
    ("matrices", "reason"),
    [
        ({"features": np.ones((5, 2))}, "it has no matrices that are called as label or labels"),
        ({"labels": np.ones((5, 2))}, "it has no matrices that are called as feature or features"),
        (
            {"features": np.ones((5, 2)), "x": np.ones((5, 2))},
            "it has 2 matrices .* or X: .*features, x",
        ),
        (
            {"features": np.ones((5, 2)), "labels": np.ones((4, 2))},
            r"features is \(5, 2\) and labels \(4, 2\): as many rows",
        ),
    ],
)
def test_matrices_that_do_not_fit_are_refused(tmp_path, matrices, reason):
    with pytest.raises(DataError, match=rf"made\.mat: {reason}"):
        written(tmp_path, **matrices)


def test_one_file_must_be_there_or_be_chosen(tmp_path):
    with pytest.raises(DataError, match=r"has no \*\.mat"):
        LabelDistributions(tmp_path)
    for name in ("a.mat", "b.mat"):
        held = {"features": np.ones((5, 2)), "labels": shares(5, 3, 1)}
        (tmp_path / name).write_bytes(mat(held))
    with pytest.raises(DataError, match=r"several files .*a\.mat, b\.mat.*data\.file"):
        LabelDistributions(tmp_path)
    first = next(iter(LabelDistributions(tmp_path, Path("b.mat")).records()))
    assert first.path == "b.mat#1"


@pytest.mark.parametrize("data", [b"", b"no MATLAB file", b"\x89HDF\r\n\x1a\n and no more"])
def test_a_damaged_file_is_refused_by_name(tmp_path, data):
    (tmp_path / "made.mat").write_bytes(data)
    with pytest.raises(DataError, match=r"made\.mat: no MATLAB file that can be read"):
        LabelDistributions(tmp_path)
    with pytest.raises(PictureError, match="no MATLAB file"):
        LabelDistributions.decode(data, "1")


@pytest.mark.parametrize("stretch", ["0", "6", "-1", "x", "", "1.5"])
def test_a_row_that_is_none_is_refused(stretch):
    data = mat({"features": np.ones((5, 2)), "labels": shares(5, 3, 1)})
    with pytest.raises(PictureError, match="rows 1 to 5"):
        LabelDistributions.decode(data, stretch)


def test_a_file_is_taken_apart_once_for_all_of_its_rows(monkeypatch):
    """2,500 to 10,000 rows name the same file."""
    import extract.datasets.ldl as module

    calls = []
    real_arrays = module.arrays
    monkeypatch.setattr(module, "arrays", lambda *a: calls.append(1) or real_arrays(*a))
    data = mat({"features": np.arange(80.0).reshape(40, 2), "labels": shares(40, 3, 9)})
    for row in range(1, 41):
        LabelDistributions.decode(data, str(row))
        LabelDistributions.decode(bytes(bytearray(data)), str(row))  # an equal copy
    assert len(calls) == 1
