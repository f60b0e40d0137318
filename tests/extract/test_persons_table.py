"""A table of one's own pictures: both forms are one, and every fault is told with its line."""

import csv
import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cache.errors import DataError
from cache.index import Index
from extract.datasets._reading import KEPT, NAMES, Faults, misspelt
from extract.datasets.persons import Persons, schema
from extract.prepare import Prepared, check, prepare
from extract.settings import Data

DOCS = Path(__file__).resolve().parents[2] / "docs"
SIZE = (64, 48)
HEADER = "path,x1,y1,x2,y2,labels"


class Own:
    """A folder with two pictures and a table."""

    def __init__(self, base: Path) -> None:
        self.root, self.base = base / "data", base
        self.root.mkdir(parents=True)
        for colour, name in enumerate(("a.png", "b.png")):
            Image.new("RGB", SIZE, (colour, 9, 7)).save(self.root / name)

    def csv(self, *lines: str, header=HEADER, encoding="utf-8", end="\n") -> None:
        text = "".join(line + end for line in (header, *lines))
        (self.root / "persons.csv").write_bytes(text.encode(encoding))

    def jsonl(self, *lines: dict[str, Any] | str) -> None:
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (self.root / "persons.jsonl").write_text("\n".join(texts) + "\n")

    def labels(self, text: str) -> None:
        (self.root / "labels.yaml").write_text(text)

    def check(self, **data: Any) -> Prepared:
        return check(Data(name="persons", root=self.root, **data))

    def index(self, name="cache", **data: Any) -> Index:
        prepare(Data(name="persons", root=self.root, **data), self.base / name)
        return Index.read(self.base / name)

    def faults(self) -> list[str]:
        with pytest.raises(Faults) as refused:
            self.check()
        assert refused.value.count == len(refused.value.faults)
        return list(refused.value.faults)


@pytest.fixture
def own(tmp_path) -> Own:
    return Own(tmp_path)


def person(**cells: Any) -> dict[str, Any]:
    return {"path": "a.png", "box": [1, 1, 9, 9], "labels": ["joy"], **cells}


# The two forms


PLAIN = (
    "path,x1,y1,x2,y2,face_x1,face_y1,face_x2,face_y2,labels,split,group,valence,gender,age,"
    "attributes.place,id,width,height",
    (
        "a.png,1,2,30,40,3,4,9,10,joy; fear,train,film,0.5,Male,Adult,park,p1,64,48",
        "a.png,5,5,20.5,20,,,,,fear,train,film,,,,park,p2,64,48",
        "b.png,0,0,64,48,,,,,,test,,,,,,,,",
    ),
    (
        {"path": "a.png", "box": [1, 2, 30, 40], "face": [3, 4, 9, 10], "labels": ["joy", "fear"],
         "split": "train", "group": "film", "valence": 0.5, "gender": "Male", "age": "Adult",
         "attributes": {"place": "park"}, "id": "p1", "width": 64, "height": 48},
        {"path": "a.png", "box": [5, 5, 20.5, 20], "labels": ["fear"], "split": "train",
         "group": "film", "attributes": {"place": "park"}, "id": "p2", "width": 64, "height": 48},
        {"path": "b.png", "box": [0, 0, 64, 48], "labels": [], "split": "test"},
    ),
)  # fmt: skip
SHARES = (
    "path,x1,y1,x2,y2,labels",
    ("a.png,1,2,30,40,joy=0.7; fear=0.3", "b.png,5,5,20,20,fear=1"),
    (
        {"path": "a.png", "box": [1, 2, 30, 40], "labels": {"joy": 0.7, "fear": 0.3}},
        {"path": "b.png", "box": [5, 5, 20, 20], "labels": {"fear": 1}},
    ),
)


@pytest.mark.parametrize("form", [PLAIN, SHARES], ids=["labels", "shares"])
def test_both_forms_give_one_index(own, form):
    header, lines, objects = form
    own.csv(*lines, header=header)
    own.jsonl(*objects)
    one = own.index("one", file=Path("persons.csv"))
    two = own.index("two", file=Path("persons.jsonl"))
    for table in ("pictures", "persons"):
        ours, theirs = getattr(one, table).to_pydict(), getattr(two, table).to_pydict()
        assert str(ours) == str(theirs)  # NaN is NaN
    assert (one.labels, one.kind, one.digest()) == (two.labels, two.kind, two.digest())


def test_what_the_lines_say_is_in_the_index(own):
    header, lines, _ = PLAIN
    own.csv(*lines, header=header)
    index = own.index()
    assert (index.labels, index.kind) == (("fear", "joy"), "multi")
    assert index.boxes.tolist() == [[1, 2, 30, 40], [5, 5, 20.5, 20], [0, 0, 64, 48]]
    assert index.targets.tolist() == [[1, 1], [1, 0], [0, 0]]
    assert index.faces == [(3, 4, 9, 10), None, None]
    assert index.person_status.tolist() == ["ok", "ok", "unlabelled"]
    assert index.splits.tolist() == ["train", "train", "test"]
    assert index.pictures["group"].to_pylist() == ["film", ""]
    assert index.pictures["attributes"].to_pylist() == ['{"place": "park"}', ""]
    assert index.vad[0, 0] == 0.5 and np.isnan(index.vad[0, 1:]).all()
    assert index.persons["gender"].to_pylist() == ["Male", "", ""]


def test_shares_are_a_distribution(own):
    own.csv(*SHARES[1])
    index = own.index()
    assert index.kind == "distribution"
    np.testing.assert_allclose(index.targets, [[0.3, 0.7], [1, 0]], atol=1e-6)


def test_rounded_shares_are_made_to_sum_to_1(own):
    own.csv("a.png,1,1,9,9,joy=0.33;fear=0.33;anger=0.33")
    assert own.index().targets.sum(axis=1) == pytest.approx(1)


def test_one_label_each_is_the_kind_single(own):
    own.csv("a.png,1,1,9,9,joy", "b.png,1,1,9,9,fear")
    assert own.index().kind == "single"


def test_labels_yaml_fixes_order_and_definitions(own):
    own.labels("surprise: of a sudden\njoy:\nanger: hot\n")
    own.csv("a.png,1,1,9,9,Joy;surprise")
    index = own.index()
    assert index.labels == ("surprise", "joy", "anger")
    assert [one["definition"] for one in index.definitions] == ["of a sudden", "joy", "hot"]
    assert index.targets.tolist() == [[1, 1, 0]]
    assert own.check().oddities["read as 'joy', spelt 'Joy'"] == 1


def test_labels_that_differ_in_signs_alone_stay_apart(own):
    """Each word that is a label's very name is that label."""
    own.csv("a.png,1,1,9,9,-1", "a.png,2,2,9,9,+1", "a.png,3,3,9,9,+1", "a.png,4,4,9,9,0")
    index = own.index()
    named = [index.labels[i] for i in index.targets.argmax(axis=1)]
    assert named == ["-1", "+1", "+1", "0"]


def test_two_spellings_of_a_label_are_one(own):
    """Otherwise one of two labels has no persons."""
    own.csv("a.png,1,1,9,9,joy", "a.png,2,2,9,9,Joy", "b.png,1,1,9,9,fear")
    index = own.index()
    assert index.targets.sum(axis=0).all()


@pytest.mark.parametrize("label", ["", " "])
def test_a_label_without_a_name_is_a_fault(own, label):
    own.jsonl(person(), person(labels=[label], box=[2, 2, 9, 9]))
    assert "line 2" in own.faults()[0]


def test_the_schema_in_the_documents_is_that_of_the_reader():
    written = (DOCS / "persons.schema.json").read_text()
    assert written == json.dumps(schema(), indent=2) + "\n"
    assert json.loads(written)["required"] == ["path", "labels"]


# Faults


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"split": "valid"}, "split: should be 'train', 'val' or 'test' (got 'valid')"),
        ({"valence": "high"}, "valence: should be a valid number"),
        ({"valence": math.nan}, "valence: should be a finite number"),
        ({"width": 0}, "width: should be greater than or equal to 1"),
        ({"id": 7}, "id: should be a valid string (got 7)"),
        ({"box": [1, 2, 3]}, "box: "),
        ({"box": [1, 2, 3, 10**400]}, "box: should be four numbers"),
        ({"box": "1,2,3,4"}, "box: should be four numbers"),
        ({"path": ""}, "path: "),
        ({"path": "\ud800.png"}, "path: "),
        ({"path": "../a.png"}, "the path '../a.png' is not below data.root"),
        ({"path": "C:\\..\\a.png"}, "the path 'C:/../a.png' is not below data.root"),
        ({"path": "/a.png"}, "the path '/a.png' is not below data.root"),
        ({"path": "a\0.png"}, r"the path 'a\x00.png' is not below data.root"),
        ({"path": None}, "path: should be a valid string"),
        ({"labels": {"joy": 0.5, "fear": 0.4}}, "has shares that sum to 0.9, not 1"),
        ({"labels": {"joy": -1.0, "fear": 2.0}}, "labels.joy: should be greater than or equal"),
        ({"spilt": "train"}, "the column 'spilt' is unknown; did you mean 'split'?"),
        ({"attributes": 3}, "attributes: should be a valid dictionary"),
    ],
    ids=str,
)
def test_a_fault_is_named_with_its_line(own, line, said):
    labels = {"joy": 1.0} if isinstance(line.get("labels"), dict) else ["joy"]
    own.jsonl(person(labels=labels), "", {**person(labels=labels, box=[2, 2, 9, 9]), **line})
    faults = own.faults()
    assert all(fault.startswith("persons.jsonl, line 3") or fault.startswith(
        f"{own.root}/persons.jsonl, line 3") for fault in faults), faults  # fmt: skip
    assert any(said in fault for fault in faults), faults


@pytest.mark.parametrize("text", ["[1]", "7", "null", '"a"', "{", "{]", "[" * 100_000, "NaN"])
def test_a_line_that_is_no_object_is_a_fault(own, text):
    own.jsonl(person(), text)
    faults = own.faults()
    assert len(faults) == 1 and faults[0].startswith("persons.jsonl, line 2: ")
    assert len(faults[0]) < 300


@pytest.mark.parametrize("name", ["path", "box", "labels", "attributes", "group"])
@pytest.mark.parametrize("depth", [200, 900, 950, 970, 980, 985, 990, 995])
def test_deep_nesting_is_a_fault_or_read(own, name, depth):
    value = "[" * depth + "]" * depth
    own.jsonl(json.dumps(person())[:-1] + f', "{name}": {{"k": {value}}}}}')
    try:
        own.check()
    except DataError as error:
        assert "line 1" in str(error)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png,1,1,9,9,joy,more", "7 cells, and the header has 6 columns"),
        (",1,1,9,9,joy", "path is missing"),
        ('"a.png,1,1,9,9,joy', "no CSV (unexpected end of data)"),
        ("a.png,1,1,9,9," + "j" * 200_000, "no CSV (field larger than field limit (131072))"),
        ("a.png,one,1,9,9,joy", "box: should be four numbers"),
        ("a\0.png,1,1,9,9,joy", r"the path 'a\x00.png' is not below data.root"),
    ],
    ids=["cells", "path", "quote", "long", "word", "NUL"],
)
def test_a_fault_of_the_csv_is_named_with_its_line(own, line, said):
    own.csv("a.png,2,2,9,9,joy", "", line)
    faults = own.faults()
    assert len(faults) == 1
    assert faults[0].startswith("persons.csv, line 4: ") and said in faults[0]


def test_a_cell_of_labels_and_shares_is_a_fault(own):
    own.csv("a.png,1,1,9,9,joy", "a.png,2,2,9,9,joy=0.7; fear")
    assert "line 3" in own.faults()[0]


def test_an_unknown_column_is_named_with_the_nearest(own):
    own.csv("a.png,1,1,9,9,joy,1", header=HEADER + ",valance")
    assert own.faults() == [
        "persons.csv, line 2: the column 'valance' is unknown; did you mean 'valence'?"
    ]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("path,x1", "a column labels; this file has path, x1: rename or add it"),
        ("x1,labels", "a column path; this file has x1, labels: rename or add it"),
        ("", "the columns path and labels, and this line is empty"),
        ("path,lables", "a column labels; this file has path, lables: rename or add it"),
        (
            "Path,Label",
            "the columns path and labels; this file has Path, Label: rename or add them",
        ),
        (
            "path;labels",
            "the columns path and labels, and cells are separated by commas, not by semicolons or "
            "tabs",
        ),
    ],
    ids=lambda value: value[:12],
)
def test_missing_columns_are_refused(own, header, said):
    own.csv("a.png,1", header=header)
    with pytest.raises(DataError) as refused:
        own.check()
    assert str(refused.value) == f"persons.csv, line 1: the table needs {said}"


def test_a_column_that_stands_twice_is_refused(own):
    own.csv("a.png,1,1,9,9,joy,joy", header=HEADER + ",labels")
    with pytest.raises(DataError, match=r"line 1: the column 'labels' stands twice"):
        own.check()


def test_missing_labels_are_a_fault_in_json_lines(own):
    own.jsonl({"path": "a.png"})
    assert own.faults() == ["persons.jsonl, line 1: labels is missing"]


def test_ids_that_stand_twice_name_both_lines(own):
    own.jsonl(person(id="x"), person(id="y", box=[2, 2, 9, 9]), person(id="x", box=[3, 3, 9, 9]))
    assert own.faults() == ["persons.jsonl, line 3: the id 'x' is that of persons.jsonl, line 1"]


@pytest.mark.parametrize(
    "by", ["as it is", "root is a link", "a link too", "with dots", "relative root"]
)
def test_an_absolute_path_below_the_root_is_told_as_it_should_be(own, by, monkeypatch):
    below = own.root / "deep" / "a.png"
    if by in ("root is a link", "a link too"):
        (own.base / "link").symlink_to(own.root)
        own.root = own.base / "link"
        below = own.root / "deep" / "a.png" if by == "a link too" else below
    elif by == "with dots":
        below = own.root / ".." / own.root.name / "deep" / "a.png"
    elif by == "relative root":
        monkeypatch.chdir(own.base)
        own.root = Path(own.root.name)
    own.csv("a.png,1,1,9,9,joy", f"{below},1,1,9,9,joy")
    assert own.faults() == [
        f"persons.csv, line 3: the path '{below}' is absolute: write paths from data.root: "
        "'deep/a.png'"
    ]


@pytest.mark.parametrize("path", ["{root}", "{root}x/a.png", "{root}/../a.png", "/a.png"])
def test_an_absolute_path_elsewhere_is_not_below_the_root(own, path):
    path = path.format(root=own.root)
    own.csv(f"{path},1,1,9,9,joy")
    assert own.faults() == [f"persons.csv, line 2: the path '{path}' is not below data.root"]


def test_labels_beside_shares_are_a_fault(own):
    own.csv("a.png,1,1,9,9,joy=1", "a.png,2,2,9,9,joy")
    (fault,) = own.faults()
    assert "line 3 has labels without shares, and other lines have shares" in fault


def test_a_person_without_labels_stands_beside_shares(own):
    own.csv("a.png,1,1,9,9,joy=1", "a.png,2,2,9,9,")
    assert own.index().person_status.tolist() == ["ok", "unlabelled"]


def test_a_label_that_labels_yaml_has_not_is_a_fault(own):
    own.labels("joy:\nfear:\n")
    own.csv("a.png,1,1,9,9,joy", "a.png,2,2,9,9,jay")
    (fault,) = own.faults()
    assert "persons.csv, line 3 has the label 'jay'" in fault and "did you mean 'joy'?" in fault


def test_a_split_in_some_lines_only_is_refused(own):
    own.jsonl(person(split="train"), person(box=[2, 2, 9, 9]))
    with pytest.raises(DataError, match="1 of 2 lines have no split: give it in every line"):
        own.check()


@pytest.mark.parametrize("cells", [{"group": "g"}, {"width": 64, "height": 48}], ids=str)
def test_lines_of_one_picture_that_disagree_are_a_fault(own, cells):
    own.jsonl(person(), person(path="b.png"), person(box=[2, 2, 9, 9], **cells))
    assert own.faults() == [
        "persons.jsonl, line 3: group or size is not that of the picture's other lines"
    ]


def test_all_faults_are_told_and_three_are_quoted(own):
    own.csv(*["a.png,1,1,9,9,joy"] * 3, *["../a.png,1,1,9,9,joy"] * 5)
    with pytest.raises(Faults) as refused:
        own.check()
    found = refused.value
    assert found.count == 5
    assert [fault.partition(":")[0] for fault in found.faults] == [
        f"persons.csv, line {line}" for line in range(5, 10)
    ]
    said = str(found)
    assert [f"line {line}:" in said for line in range(5, 10)] == [True] * 3 + [False] * 2
    assert said.endswith("; and 2 more: `emocache prepare --check` lists them")


def test_faults_of_labels_are_gathered_too(own):
    own.labels("joy:\n")
    own.csv(*[f"a.png,{i},1,30,9,no" for i in range(6)])
    with pytest.raises(Faults) as refused:
        own.check()
    assert refused.value.count == 6


def test_faults_are_kept_up_to_a_number_and_counted_beyond(own):
    own.csv(*["../a.png,1,1,9,9,joy"] * (KEPT + 5))
    with pytest.raises(Faults) as refused:
        own.check()
    assert (refused.value.count, len(refused.value.faults)) == (KEPT + 5, KEPT)


@pytest.mark.parametrize("wrong", [{"labels": 5}, {"labels": {"joy": "much"}}], ids=str)
def test_a_wrong_cell_is_one_fault(own, wrong):
    own.jsonl(person(**wrong))
    assert len(own.faults()) == 1


# Files as programs write them


def test_byte_order_mark_and_line_ends_of_windows(own):
    lines = ("a.png,1,1,9,9,joy", "b.png,2,2,9,9,fear; joy")
    own.csv(*lines)
    plain = own.index("plain")
    own.csv(*lines, encoding="utf-8-sig", end="\r\n")
    assert own.index("windows").digest() == plain.digest()
    (own.root / "persons.csv").unlink()
    text = json.dumps(person(labels=["joy"])) + "\r\n" + json.dumps(
        {"path": "b.png", "box": [2, 2, 9, 9], "labels": ["fear", "joy"]})  # fmt: skip
    (own.root / "persons.jsonl").write_bytes(text.encode("utf-8-sig"))
    assert own.index("jsonl").digest() == plain.digest()


def test_quoted_cells_may_hold_commas_quotes_and_line_breaks(own):
    header = HEADER + ",attributes.said"
    own.csv('a.png,1,1,9,9,joy,"one, ""two""\nthree"', '"b.png" ,1,1,9,9,joy,', header=header)
    with pytest.raises(Faults):  # a blank after the quote is no CSV
        own.check()
    own.csv('a.png,1,1,9,9,joy,"one, ""two""\nthree"', "../b.png,1,1,9,9,joy,", header=header)
    assert own.faults()[0].startswith("persons.csv, line 4: ")
    own.csv('a.png,1,1,9,9,joy,"one, ""two""\nthree"', "b.png,1,1,9,9,joy,", header=header)
    said = json.loads(own.index().pictures["attributes"].to_pylist()[0])
    assert said == {"said": 'one, "two"\nthree'}


def test_text_that_is_not_utf8_is_refused_with_its_line(own):
    own.csv("a.png,1,1,9,9,joy", "a.png,2,2,9,9,gaieté", encoding="latin-1")
    with pytest.raises(DataError, match=r"persons\.csv, line 3 is not UTF-8 .*: save it as UTF-8"):
        own.check()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32"])
def test_other_unicode_is_refused(own, encoding):
    own.csv("a.png,1,1,9,9,joy", encoding=encoding)
    with pytest.raises(DataError, match=r"persons\.csv, line 1"):
        own.check()


def test_letters_of_all_scripts_are_labels(own):
    own.csv("a.png,1,1,9,9,радость", "a.png,2,2,9,9,喜び", "b.png,2,2,9,9,😀", "b.png,3,3,9,9,😡")
    index = own.index()
    assert index.labels == ("радость", "喜び", "😀", "😡")
    assert index.targets.argmax(axis=1).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["labels", "group", "gender", "age"])
def test_half_a_character_is_a_fault(own, name):
    """JSON may hold half of a pair that stands for one character; no table can."""
    text = json.dumps(person(**{name: ["\ud800"] if name == "labels" else "\ud800"}))
    own.jsonl(text)
    assert own.faults()[0].startswith("persons.jsonl, line 1: ")


# Boxes


@pytest.mark.parametrize(
    ("box", "reason"),
    [
        ("nan,1,9,9", "the box is not four numbers"),
        ("1,1,inf,9", "the box is not four numbers"),
        ("1,1,9,", "the box is not four numbers"),
        ("9,1,1,9", "the box (9, 1, 1, 9) is empty or inverted"),
        ("1,1,1,9", "the box (1, 1, 1, 9) is empty or inverted"),
        ("70,1,90,9", "the box (70, 1, 90, 9) lies outside the picture"),
    ],
)
def test_a_box_that_is_none_is_a_row_with_a_reason(own, box, reason):
    own.csv("a.png,1,1,9,9,joy", f"a.png,{box},joy")
    index = own.index()
    assert index.person_status.tolist() == ["ok", "bad_box"]
    assert index.persons["reason"].to_pylist()[1] == reason


def test_boxes_that_leave_the_picture_are_clipped(own):
    own.csv("a.png,-5,-5,1e300,9,joy")
    assert own.index().boxes.tolist() == [[0, 0, 64, 9]]


def test_boxes_drawn_in_a_larger_copy_follow_the_picture(own):
    own.jsonl(person(box=[2, 4, 20, 40], width=128, height=96))
    assert own.index().boxes.tolist() == [[1, 2, 10, 20]]


@pytest.mark.parametrize("path", ["a.png", "gone.png"])
@pytest.mark.parametrize("side", [5_000_000_000, 10**30, 10**400], ids=["5e9", "1e30", "1e400"])
def test_a_size_that_no_picture_has_is_a_fault_or_a_row(own, path, side):
    own.jsonl(person(path=path, width=side, height=side))
    try:
        found = own.check().persons
    except DataError:
        return
    assert not any("ok" in statuses for statuses in found.values())


def test_a_table_without_any_label_is_not_a_crash(own):
    own.csv("a.png,1,1,9,9,")
    with suppress(DataError):
        assert own.index().person_status.tolist() == ["unlabelled"]


# Labels that may be misspelt


@pytest.mark.parametrize(
    ("rare", "frequent"),
    [
        ("jou", "joy"),  # another letter
        ("exited", "excited"),  # one missing
        ("angery", "angry"),  # one too many
        ("clam", "calm"),  # in each other's place
        ("embarrased", "embarrassed"),
        ("unhappiness", "happiness"),  # an honest pair: a remark is all that is made
        ("Doubt - confusion", "doubt/confusion"),
    ],
)
def test_a_rare_label_near_a_frequent_one_is_remarked(rare, frequent):
    (said,) = misspelt({"neutral": 90, frequent: 40, rare: 1})
    assert said.startswith(
        f"the label {rare!r} (1 person) is spelt nearly as {frequent!r} (40): mend the annotation"
    )


@pytest.mark.parametrize(
    "persons",
    [
        {"joy": 40, "jou": 40},  # neither is rare
        {"joy": 40, "jou": 5},
        {"joy": 1, "jou": 1},
        {"joy": 40, "jou": 0},
        {"sad": 1, "scared": 40},
        {"sadness": 1, "happiness": 40, "fear": 40},
        {"level 1": 1, "level 2": 40},
        {"-1": 1, "1": 40, "no": 2, "go": 40, "\U0001f600": 1, "\U0001f601": 40},
        {"j" * 50: 1, "j" * 51: 40},
        {**{f"jo{number}": 1 for number in range(NAMES)}, "joy": 40, "jou": 1},
    ],
    ids=lambda persons: next(iter(persons))[:12],
)
def test_other_labels_are_not_remarked(persons):
    assert misspelt(persons) == []


def test_more_than_a_few_persons_may_be_few_beside_very_many():
    (said,) = misspelt({"joy": 1000, "jou": 100, "jpy": 101})
    assert "'jou' (100 persons)" in said


def test_of_several_that_are_near_the_nearest_is_named():
    (said,) = misspelt({"excitement": 20, "excited": 40, "exited": 2})
    assert "nearly as 'excited' (40)" in said


def remarks(found: Prepared) -> list[str]:
    return [warning for warning in found.warnings if "is spelt nearly as" in warning]


def test_labels_that_nobody_listed_are_remarked_and_counted(own):
    lines = [f"a.png,{n},1,{n + 9},9,joy,train" for n in range(6)]
    lines += ["b.png,1,1,9,9,jou,train", "b.png,2,1,9,9,fear;joy,test", "b.png,9,9,1,1,joy,test"]
    own.csv(*lines, header=f"{HEADER},split")
    found = own.check(split={"val": 0})
    assert found.persons_per_label == {
        "fear": {"train": 0, "test": 1},
        "jou": {"train": 1, "test": 0},
        "joy": {"train": 6, "test": 1},  # who has a bad box does not count
    }
    (said,) = remarks(found)
    assert "'jou' (1 person) is spelt nearly as 'joy' (8)" in said
    own.labels("joy: joy\nfear: fear\njou: jou\n")
    assert remarks(own.check()) == []


def test_labels_with_definitions_or_made_of_others_are_not_remarked(own):
    lines = [f"a.png,{n},1,{n + 9},9,joy,train" for n in range(6)]
    own.csv(*lines, "b.png,1,1,9,9,jou,train", header=f"{HEADER},split")
    meant = own.base / "definitions.yaml"
    meant.write_text("jou: a word of the dialect\n")
    assert remarks(own.check()) and not remarks(own.check(definitions=meant))
    assert not remarks(own.check(classes={"joy": ["joy"], "jou": ["jou"]}))


def test_shares_above_0_are_counted_as_having_the_label(own):
    own.csv("a.png,1,1,9,9,joy=0.7;fear=0.3,test", "b.png,1,1,9,9,joy=1;fear=0,test",
            header=f"{HEADER},split")  # fmt: skip
    assert own.check().persons_per_label == {"fear": {"test": 1}, "joy": {"test": 2}}


# Which file


def test_two_tables_are_refused_until_one_is_named(own):
    own.csv("a.png,1,1,9,9,joy")
    own.jsonl(person(labels=["fear"]))
    with pytest.raises(DataError, match=r"both persons\.csv and persons\.jsonl.*data\.file"):
        own.check()
    assert own.index("one", file=Path("persons.csv")).labels == ("joy",)
    assert own.index("two", file=Path("persons.jsonl")).labels == ("fear",)


def test_a_table_of_another_name_is_named_in_data_file(own):
    own.csv("a.png,1,1,9,9,joy")
    (own.root / "tables").mkdir()
    (own.root / "persons.csv").rename(own.root / "tables" / "mine.csv")
    with pytest.raises(DataError, match=r"neither persons\.csv nor persons\.jsonl"):
        own.check()
    assert own.check(file=Path("tables/mine.csv")).persons
    for wrong in ("tables/none.csv", "tables", "a.png"):
        with pytest.raises(DataError, match=r"is no \.csv or \.jsonl file: see data\.file"):
            own.check(file=Path(wrong))


@pytest.mark.parametrize("name", ["persons.csv", "persons.jsonl"])
def test_a_table_without_lines_is_refused(own, name):
    (own.root / name).write_text(HEADER + "\n" if name.endswith("csv") else "\n\n")
    with pytest.raises(DataError, match=r"has no lines: see data\.file"):
        own.check()


# Any table


CELLS = {
    "path": ["a.png", "b.png", "gone.png", "../a.png", "/etc/passwd", "a\\b.png", "", "é.png"],
    "box": ["1,1,9,9", "0,0,64,48", "-3,-3,99,99", "9,9,1,1", "nan,1,2,3", "inf,1,1,1", ",,,",
            "1e308,1,1e309,5", "x,1,2,3", "60,40,70,50", "0.001,0.001,0.002,0.002"],
    "labels": ["joy", "joy;fear", "", "joy=0.5;fear=0.5", "joy=0.4", "joy=nan", "joy=", "=", ";",
               "joy=x", "Joy"],
    "split": ["", "", "train", "val", "test", "dev"],
    "group": ["", "", "g"],
    "id": ["", "", "1", "2"],
    "width": ["", "", "64", "128", "0", "x", "99999999999"],
    "height": ["", "", "48", "96", "-1"],
    "valence": ["", "0.5", "nan", "1e300"],
}  # fmt: skip
FIRST = {name: some[0] for name, some in CELLS.items()}
TABLES = st.lists(
    st.dictionaries(st.sampled_from(sorted(CELLS)), st.integers(0, 20), max_size=3),
    min_size=1,
    max_size=6,
)


def inside(records) -> bool:
    """Whether the boxes that count lie in the picture."""
    boxes = [box for box, status in records if status == "ok"]
    return all(0 <= b[0] < b[2] <= SIZE[0] and 0 <= b[1] < b[3] <= SIZE[1] for b in boxes)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TABLES, st.binary(max_size=3), st.integers(0, 400))
def test_any_table_is_read_or_refused(own, tmp_path_factory, lines, noise, place):
    """Lines with one cell or three of another kind, and a few bytes overwritten somewhere."""
    rows = []
    for line in lines:
        cells = {n: CELLS[n][i % len(CELLS[n])] for n, i in line.items()}
        rows.append(FIRST | cells)
    header = ",".join("x1,y1,x2,y2" if name == "box" else name for name in CELLS)
    text = "\n".join([header, *(",".join(row[name] for name in CELLS) for row in rows)])
    written = bytearray(text.encode())
    written[place : place + len(noise)] = noise
    (own.root / "persons.csv").write_bytes(written)
    data_set = Data(name="persons", root=own.root)
    cache = tmp_path_factory.mktemp("any")
    try:
        check(data_set)
    except DataError as error:
        assert str(error)
        return
    try:
        prepare(data_set, cache)
    except DataError as error:  # nobody is there to look for persons without a box
        assert "give a finder" in str(error)
        return
    index = Index.read(cache)
    assert inside(zip(index.boxes.tolist(), index.person_status.tolist(), strict=True))
    sums = index.targets[index.person_status == "ok"].sum(axis=1)
    assert (sums > 0).all() and np.isfinite(index.targets).all()
    if index.kind != "multi":
        assert sums == pytest.approx(1)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats() | st.text(max_size=4),
    lambda some: (
        st.lists(some, max_size=4) | st.dictionaries(st.text(max_size=4), some, max_size=2)
    ),
    max_leaves=5,
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(
                [
                    "path",
                    "box",
                    "face",
                    "labels",
                    "split",
                    "id",
                    "width",
                    "height",
                    "valence",
                    "attributes",
                    "group",
                    "gender",
                ]
            ),
            VALUES,
            max_size=2,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_values_in_json_lines_are_read_or_refused(own, changes):  # fmt: skip
    own.jsonl(*(person(**change) for change in changes))
    try:
        own.check()
    except DataError as error:
        assert str(error)


def test_csv_of_the_csv_module_is_read_back(own):
    """What Python writes, with any text in a cell, comes back as it was."""
    said = ['a "quote"', "two\nlines", "comma, here", "'", "\\", "tab\there", "=1+1"]
    with open(own.root / "persons.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*HEADER.split(","), "group"])
        for i, text in enumerate(said):
            Image.new("RGB", SIZE, (9, i, 9)).save(own.root / f"{i}.png")
            writer.writerow([f"{i}.png", 1, 1, 9, 9, "joy", text])
    groups = [record.group for record in Persons(own.root).records()]
    assert groups == said


def test_boxes_between_0_and_1_are_a_fault(own):
    own.csv("a.png,0.1,0.2,0.5,0.8,joy", "b.png,0,0,1,1,joy")
    assert any("boxes are in pixels" in fault for fault in own.faults())
    own.csv("a.png,0.1,0.2,5,8,joy", "b.png,0,0,1,1,joy")
    own.check()  # which would raise


def test_of_spellings_in_other_case_the_most_frequent_is_the_label(own):
    own.csv("a.png,1,1,9,9,joy", "b.png,1,1,9,9,Joy", "c.png,1,1,9,9,joy")
    assert own.index().labels == ("joy",)
