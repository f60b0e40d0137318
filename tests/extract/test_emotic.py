"""EMOTIC's reader: the published counts, both forms, and every oddity that occurs in the wild."""

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from cache.errors import DataError, SettingsError
from extract.datasets import PersonRecord, PictureRecord, get_dataset
from extract.datasets.emotic import Emotic
from tests.shared import shared

COLUMNS = ["Index", "Folder", "Filename", "Image Size", "BBox", "Categorical_Labels",
           "Continuous_Labels", "Gender", "Age"]  # fmt: skip


def struct(*items: dict) -> np.ndarray:
    """A MATLAB struct array (1, N)."""
    array = np.empty((1, len(items)), [(name, object) for name in items[0]])
    for i, item in enumerate(items):
        array[0, i] = tuple(item.values())
    return array


def cell(*items: str) -> np.ndarray:
    array = np.empty((1, len(items)), object)
    array[0, :] = items
    return array


def vad(valence: float, arousal: float, dominance: float) -> dict:
    return {"valence": valence, "arousal": arousal, "dominance": dominance}


def one(box, labels, scores, gender="Male", age="Adult") -> dict:
    """A person of the training split: one annotator."""
    return {
        "body_bbox": np.array([box], float),
        "annotations_categories": struct({"categories": cell(*labels)}),
        "annotations_continuous": struct(vad(*scores)),
        "gender": gender,
        "age": age,
    }


def many(box, answers, combined, scores, combined_scores) -> dict:
    """A person of val or test: several annotators and what was made of them."""
    return {
        "body_bbox": np.array([box], float),
        "annotations_categories": struct(*({"categories": cell(*a)} for a in answers)),
        "combined_categories": cell(*combined),
        "annotations_continuous": struct(*(vad(*s) for s in scores)),
        "combined_continuous": struct(vad(*combined_scores)),
        "gender": "Female",
        "age": "Kid",
    }


def picture(filename, persons, folder="mscoco/images", size=(640, 480), database="mscoco") -> dict:
    return {
        "filename": filename,
        "folder": folder,
        "image_size": struct({"n_col": size[0], "n_row": size[1]}),
        "original_database": struct({"name": database, "info": struct({"image_id": 7})}),
        "person": struct(*persons) if persons else np.empty((0, 0)),
    }


def official(root: Path, nested: bool = True, **splits: list[dict]) -> Emotic:
    path = root / "Annotations" / "Annotations.mat" if nested else root / "Annotations.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: struct(*pictures) for name, pictures in splits.items()})
    return Emotic(root)


def row(**cells: str) -> dict[str, str]:
    full = {
        "Index": "0",
        "Folder": "mscoco/images",
        "Filename": "a.jpg",
        "Image Size": "[640, 480]",
        "BBox": "[1, 2, 30, 40]",
        "Categorical_Labels": "['Peace']",
        "Continuous_Labels": "[5, 3, 9]",
        "Gender": "Male",
        "Age": "Adult",
    }
    return full | {name.replace("_", " ") if name == "Image_Size" else name: text
                   for name, text in cells.items()}  # fmt: skip


def table(root: Path, split: str, *rows: dict[str, str], encoding="utf-8") -> Emotic:
    root.mkdir(parents=True, exist_ok=True)
    with open(root / f"{split}.csv", "w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return Emotic(root)


def names(reader: Emotic, person: PersonRecord) -> set[str]:
    return {label for label, value in zip(reader.labels, person.labels, strict=True) if value}


# The release as it is


@pytest.fixture(scope="module")
def release() -> tuple[Emotic, list[PictureRecord]]:
    reader = get_dataset("emotic")(shared("data/emotic_csv"))
    return reader, list(reader.records())


def test_release_has_the_published_counts(release):
    reader, records = release
    persons = Counter(person.split for record in records for person in record.persons)
    assert persons == {"train": 23_266, "val": 3_315, "test": 7_203}
    pictures = Counter(s for record in records for s in {p.split for p in record.persons})
    assert pictures == {"train": 16_977, "val": 2_085, "test": 4_388}
    assert len(records) == 16_977 + 2_085 + 4_388 - 376
    for split, mean in {"train": 1.96, "val": 6.15, "test": 4.41}.items():
        labels = [p.labels.sum() for r in records for p in r.persons if p.split == split]
        assert np.mean(labels) == pytest.approx(mean, abs=0.005)
    assert reader.note == "EMOTIC, CSV release"
    assert not reader.counts


def test_release_has_the_positive_rates_that_its_text_has(release):
    """Against a count of the quoted names in the file's text, which never sees the reader."""
    reader, records = release
    targets = np.array([p.labels for r in records for p in r.persons if p.split == "test"])
    rates = dict(zip(reader.labels, 100 * targets.mean(axis=0, dtype=float), strict=True))
    text = shared("data/emotic_csv/test.csv").read_text()
    for label, rate in rates.items():
        assert rate == pytest.approx(100 * text.count(f"'{label}'") / 7_203)
    known = {"Anger": 2.4, "Anticipation": 47.3, "Engagement": 77.6, "Happiness": 48.1,
             "Embarrassment": 1.8}  # fmt: skip
    assert {label: round(rates[label], 1) for label in known} == known
    assert np.mean(list(rates.values())) == pytest.approx(17.0, abs=0.05)


def test_release_values_of_one_person(release):
    reader, records = release
    first = next(r for r in records if r.path == "mscoco/images/COCO_val2014_000000562243.jpg")
    person = first.persons[0]
    assert (first.width, first.height, first.source) == (640, 640, "mscoco")
    assert person.box == (86, 58, 564, 628)
    assert names(reader, person) == {"Disconnection", "Doubt/Confusion"}
    assert person.vad == (5, 3, 9)
    assert (person.gender, person.age, person.annotators) == ("Male", "Adult", 1)


def test_labels_stand_in_the_official_order_with_definitions(tmp_path):
    reader = table(tmp_path, "train", row())
    assert len(reader.labels) == 26
    assert reader.labels[0] == "Affection" and reader.labels[-1] == "Yearning"
    assert reader.labels[8:10] == ("Disquietment", "Doubt/Confusion")
    by_letters = sorted(reader.labels)
    assert reader.labels == tuple(by_letters)
    assert reader.definitions["Pain"] == "physical suffering"
    assert all(isinstance(text, str) and len(text) > 10 for text in reader.definitions.values())


# The official form


def test_official_form(tmp_path):
    reader = official(
        tmp_path,
        train=[
            picture("a.jpg", [one((1, 2, 30, 40), ["Peace"], (5, 3, 9)),
                              one((5, 5, 90, 99), ["Anger", "Fear"], (1, 2, 3), "Female", "Kid")]),
            picture("b.jpg", [one((-3.5, 0, 700, 99), ["Doubt/Confusion"], (6, 6, 6))],
                    "framesdb/images", (1280, 720), "framesdb"),
        ],
        val=[
            picture("a.jpg", [many((1, 2, 30, 40),
                                   [["Peace", "Pleasure"], ["Peace"], ["Happiness"]],
                                   ["Happiness", "Peace", "Pleasure"],
                                   [(5, 5, 5), (6, 6, 6), (7, 7, 7)], (6, 6, 6))]),
        ],
        test=[
            picture("c.jpg", [many((1, 1, 9, 9), [["Esteem"]], ["Esteem"], [(4, 4, 4)],
                                   (4, np.nan, 4))]),
        ],
    )  # fmt: skip
    a, b, c = reader.records()
    assert reader.note == "EMOTIC, official Annotations.mat"
    assert (a.path, a.width, a.height, a.source) == ("mscoco/images/a.jpg", 640, 480, "mscoco")
    assert [person.split for person in a.persons] == ["train", "train", "val"]
    single, double, voted = a.persons
    assert names(reader, single) == {"Peace"} and single.vad == (5, 3, 9)
    assert names(reader, double) == {"Anger", "Fear"}
    assert (double.gender, double.age, double.annotators) == ("Female", "Kid", 1)
    assert names(reader, voted) == {"Happiness", "Peace", "Pleasure"}
    assert voted.annotators == 3 and voted.vad == (6, 6, 6)
    votes = dict(zip(reader.labels, voted.votes.tolist(), strict=True))
    assert {label: n for label, n in votes.items() if n} == {
        "Happiness": 1, "Peace": 2, "Pleasure": 1,
    }  # fmt: skip
    assert (b.source, b.width, b.persons[0].box) == ("framesdb", 1280, (-3.5, 0, 700, 99))
    assert c.persons[0].vad[0] == 4 and np.isnan(c.persons[0].vad[1])
    assert reader.counts == {"persons without valence, arousal or dominance": 1}


def test_official_form_at_the_root_with_splits_absent(tmp_path):
    person = one((1, 2, 3, 4), ["Pain"], (1, 1, 1))
    reader = official(tmp_path, nested=False, test=[picture("a.jpg", [person])])
    (record,) = reader.records()
    assert record.persons[0].split == "test"
    assert reader.counts == {"split train absent": 1, "split val absent": 1}


def test_official_person_without_answers_is_kept_and_counted(tmp_path):
    empty = many((1, 2, 3, 4), [[]], [], [(np.nan,) * 3], (np.nan,) * 3)
    bare = {"body_bbox": np.empty((0, 0))}
    reader = official(tmp_path, test=[picture("a.jpg", [empty]), picture("b.jpg", [bare]),
                                      picture("c.jpg", [])])  # fmt: skip
    a, b, c = reader.records()
    assert a.persons[0].annotators == 0 and not a.persons[0].labels.any()
    assert (a.persons[0].status, a.persons[0].reason) == ("unlabelled", "no labels")
    assert a.persons[0].votes is None
    assert b.persons[0].status == "bad_box" and np.isnan(b.persons[0].box).all()
    assert c.persons == []
    assert reader.counts["persons without labels"] == 2
    assert reader.counts["pictures without persons"] == 1
    assert reader.counts["persons without valence, arousal or dominance"] == 2


def test_official_person_without_combined_labels_gets_what_anyone_gave(tmp_path):
    scores = [(2, 2, 2), (4, 4, np.nan), (3, 3, 3)]
    person = many((1, 2, 3, 4), [["Peace"], ["Pain"], []], [], scores, (np.nan,) * 3)
    reader = official(tmp_path, val=[picture("a.jpg", [person])])
    (record,) = reader.records()
    (found,) = record.persons
    assert names(reader, found) == {"Peace", "Pain"}
    assert found.annotators == 2
    assert found.vad == (3, 3, 2.5)
    assert reader.counts["combined labels made from the annotators' labels"] == 1


def test_official_label_that_is_none_is_refused_with_its_place(tmp_path):
    bad = picture("a.jpg", [one((1, 2, 3, 4), ["Peace"], (1, 1, 1)),
                            one((1, 2, 3, 5), ["Joyfulness"], (1, 1, 1))])  # fmt: skip
    with pytest.raises(DataError, match=r"train\(1\)\.person\(2\).*'Joyfulness'.*data\.root"):
        list(official(tmp_path, train=[bad]).records())


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_damaged_mat_is_refused(tmp_path, share):
    official(tmp_path, train=[picture("a.jpg", [one((1, 2, 3, 4), ["Peace"], (1, 1, 1))])])
    path = tmp_path / "Annotations" / "Annotations.mat"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match=r"Annotations\.mat"):
        list(Emotic(tmp_path).records())


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    answers=st.lists(
        st.lists(st.sampled_from(["Peace", "Pain", "Fear", "Yearning"]), unique=True, max_size=4),
        min_size=1,
        max_size=5,
    )
)
def test_votes_are_the_sum_over_annotators(tmp_path, answers):
    """However MATLAB's singletons come back, the votes are those that were given."""
    combined = sorted({label for answer in answers for label in answer})
    person = many((1, 2, 3, 4), answers, combined, [(1, 1, 1)] * len(answers), (1, 1, 1))
    reader = official(tmp_path, val=[picture("a.jpg", [person])])
    (record,) = reader.records()
    (found,) = record.persons
    assert names(reader, found) == set(combined)
    given_votes = Counter(label for answer in answers for label in answer)
    votes = found.votes if found.votes is not None else np.zeros(26, int)
    assert Counter(dict(zip(reader.labels, votes.tolist(), strict=True))) == given_votes
    assert found.annotators == sum(bool(answer) for answer in answers)


# The CSV form


def test_csv_rows_of_one_picture_are_joined_across_splits(tmp_path):
    table(tmp_path, "train", row(), row(BBox="[5, 5, 9, 9]"), row(Filename="b.jpg"))
    reader = table(tmp_path, "val", row())
    a, b = reader.records()
    assert [p.split for p in a.persons] == ["train", "train", "val"]
    assert (a.split, b.path) == ("train", "mscoco/images/b.jpg")
    assert reader.counts == {"split test absent": 1}
    assert len(list(reader.records())) == 2  # reading again neither fails nor adds up
    assert reader.counts == {"split test absent": 1}


def test_csv_oddities_are_rows_with_reasons_and_counts(tmp_path):
    reader = table(
        tmp_path,
        "train",
        row(Filename="1.jpg", Continuous_Labels="[nan, 3, 4]"),
        row(Filename="2.jpg", Continuous_Labels=""),
        row(Filename="3.jpg", BBox="[1, 2, 3]"),
        row(Filename="4.jpg", BBox="[1, 2, inf, oops"),
        row(Filename="5.jpg", Categorical_Labels="[]"),
        row(Filename="6.jpg", Image_Size="unknown"),
        row(Filename="7.jpg", Categorical_Labels="[' doubt / confusion', 'Peace']"),
        row(Filename="8.jpg", Categorical_Labels="Engagement"),
        row(Filename="9.jpg", Folder="emodb_small\\images"),
        encoding="utf-8-sig",
    )
    records = {Path(record.path).stem: record for record in reader.records()}
    persons = {name: record.persons[0] for name, record in records.items()}
    assert np.isnan(persons["1"].vad[0]) and persons["1"].vad[1:] == (3, 4)
    assert np.isnan(persons["2"].vad).all()
    for name in "34":
        assert persons[name].status == "bad_box" and "four numbers" in persons[name].reason
    assert (persons["5"].status, persons["5"].annotators) == ("unlabelled", 0)
    assert records["6"].width is None
    assert names(reader, persons["7"]) == {"Doubt/Confusion", "Peace"}
    assert names(reader, persons["8"]) == {"Engagement"}
    assert (records["9"].path, records["9"].source) == ("emodb_small/images/9.jpg", "emodb_small")
    assert reader.counts == {
        "persons without valence, arousal or dominance": 2,
        "persons without labels": 1,
        "pictures without an annotated size": 1,
        "read as 'Doubt/Confusion', spelt 'doubt / confusion'": 1,
        "split val absent": 1,
        "split test absent": 1,
    }


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ({"Categorical_Labels": "['Pece']"}, r"line 2.*'Pece'.*did you mean 'Peace'"),
        ({"Categorical_Labels": "['Peace', 3]"}, "line 2.*no list of names"),
        ({"Categorical_Labels": "['Peace'"}, "line 2.*no list of names"),
        ({"Categorical_Labels": "[__import__('os').getcwd()]"}, "no list of names"),
        ({"Filename": ""}, "line 2 has no Filename"),
    ],
)
def test_csv_that_cannot_be_right_is_refused(tmp_path, cells, words):
    with pytest.raises(DataError, match=words):
        list(table(tmp_path, "train", row(**cells)).records())


def test_csv_of_another_kind_is_refused(tmp_path):
    (tmp_path / "train.csv").write_text("Folder,Filename,label\na,b,c\n")
    with pytest.raises(DataError, match=r"no column BBox, Categorical_Labels.*data\.root"):
        list(Emotic(tmp_path).records())
    (tmp_path / "train.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    with pytest.raises(DataError, match="line 1 is not UTF-8"):
        list(Emotic(tmp_path).records())


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    cells=st.fixed_dictionaries(
        {name: st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
         for name in ("Image_Size", "BBox", "Continuous_Labels", "Gender", "Age")}
    )
)  # fmt: skip
def test_csv_with_any_text_in_its_cells_gives_a_person(tmp_path, cells):
    (record,) = table(tmp_path, "train", row(**cells)).records()
    (person,) = record.persons
    assert len(person.box) == 4 and len(person.vad) == 3
    assert person.status == "ok" or np.isnan(person.box).all()


# Finding it


def test_pictures_are_found_below_the_root_or_below_emotic(tmp_path):
    (tmp_path / "emotic" / "mscoco" / "images").mkdir(parents=True)
    (tmp_path / "framesdb" / "images").mkdir(parents=True)
    rows = row(), row(Folder="framesdb/images"), row(Folder="ade20k/images")
    paths = [record.path for record in table(tmp_path, "train", *rows).records()]
    assert paths == ["emotic/mscoco/images/a.jpg", "framesdb/images/a.jpg", "ade20k/images/a.jpg"]


def test_absent_data_and_unknown_names_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"no folder .*nowhere: set data\.root"):
        Emotic(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"neither Annotations/Annotations\.mat nor.*data\.root"):
        Emotic(tmp_path)
    with pytest.raises(SettingsError, match=r"data\.name.*'emotik'.*did you mean 'emotic'"):
        get_dataset("emotik")


def test_the_demo_says_that_its_labels_are_made_up(tmp_path):
    official(tmp_path, train=[picture("a.jpg", [one((1, 2, 3, 4), ["Peace"], (1, 1, 1))])])
    demo = get_dataset("demo")(tmp_path)
    assert demo.note == "made-up labels, no claim about people"
    assert (demo.name, get_dataset("emotic").name) == ("demo", "emotic")
    (record,) = demo.records()
    assert names(demo, record.persons[0]) == {"Peace"}
