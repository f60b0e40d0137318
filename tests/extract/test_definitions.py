"""Definitions of labels: the set's own, or the user's, whatever YAML makes of them elsewhere."""

import json
from pathlib import Path

import pytest
from PIL import Image

from cache.errors import DataError
from cache.index import Index
from extract import datasets
from extract.definitions import definitions_of, read, shipped
from extract.prepare import check, prepare
from extract.settings import Data

OWN = {"joy": "glad", "fear": "afraid", "awe": "awe"}
LABELS = tuple(OWN)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "definitions.yaml"


def given(file: Path, text: str) -> dict[str, str]:
    file.write_text(text)
    return definitions_of("some", LABELS, OWN, file)


# The user's words


def test_without_a_file_the_set_has_its_own():
    assert definitions_of("some", LABELS, OWN, None) == OWN


def test_a_file_replaces_single_labels(file):
    found = given(file, "fear: what makes one run\n")
    assert found == OWN | {"fear": "what makes one run"} and tuple(found) == LABELS


def test_an_unknown_label_is_refused_with_the_nearest(file):
    with pytest.raises(DataError) as refused:
        given(file, "joy: glad\nfaer: afraid\n")
    said = str(refused.value)
    assert "defines 'faer', which is no label of some; did you mean 'fear'?" in said
    assert str(file) in said


def test_the_words_reach_the_index(tmp_path, file):
    root = tmp_path / "data"
    root.mkdir()
    Image.new("RGB", (64, 48)).save(root / "a.png")
    line = {"path": "a.png", "box": [1, 1, 9, 9], "labels": ["joy", "fear"]}
    (root / "persons.jsonl").write_text(json.dumps(line))
    data = Data(name="persons", root=root, definitions=file)
    with pytest.raises(DataError, match=r"there is no file .*data\.definitions"):
        check(data)
    file.write_text("joy: a light heart\n")
    prepare(data, tmp_path / "cache")
    found = Index.read(tmp_path / "cache").definitions
    assert [dict(one) for one in found] == [
        {"label": "fear", "definition": "fear"},
        {"label": "joy", "definition": "a light heart"},
    ]
    prepare(data.model_copy(update={"definitions": None}), tmp_path / "cache")
    assert Index.read(tmp_path / "cache").definitions[1]["definition"] == "joy"


# YAML


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("no: refusal\nyes: consent\n", {"no": "refusal", "yes": "consent"}),
        ("joy: no\nfear: yes\n", {"joy": "no", "fear": "yes"}),
        ("1: one\n2.50: two\n", {"1": "one", "2.50": "two"}),
        ("joy: 1e3\nfear: 2020-01-01\n", {"joy": "1e3", "fear": "2020-01-01"}),
        ("null: nothing\n~: home\n", {"null": "nothing", "~": "home"}),
        ("joy:\nfear: ''\nawe: '  '\n", {"joy": "joy", "fear": "fear", "awe": "awe"}),
        ("- joy\n- no\n- 1\n", {"joy": "joy", "no": "no", "1": "1"}),
        ("joy: 'a: b'\nDoubt/Confusion: \"#1\"\n", {"joy": "a: b", "Doubt/Confusion": "#1"}),
        ("joy: >\n  two\n  lines\n", {"joy": "two lines"}),
        ("喜び: 😀\n", {"喜び": "😀"}),
        ("\ufeffjoy: glad\r\nfear: x\r\n", {"joy": "glad", "fear": "x"}),
    ],
)
def test_words_are_words(file, text, found):
    file.write_bytes(text.encode())
    assert read(file) == found and list(read(file)) == list(found)


@pytest.mark.parametrize(
    "text",
    ["", "joy", "joy: [a, b]", "joy: {a: b}", "- [joy]", "- joy: glad", "'': x", "' ': x",
     "# nothing\n", "- ''", "7"],
)  # fmt: skip
def test_other_forms_are_refused(file, text):
    file.write_text(text)
    with pytest.raises(DataError, match="must hold lines of `label: sentence`"):
        read(file)


NO_YAML = {
    "cut": b"joy: [",
    "tab": b"\tjoy: x",
    "colons": b"joy: a: b",
    "bytes": b"joy: \xff\xfe",
    "NUL": b"joy: \x00",
    "key": b"? [a]\n: b",
    "tag": b"!!python/object/apply:os.system {a: b",
    "alias": b"joy: *none",
    "circle": b"&a {joy: *a}",
    "lists": b"[" * 5000,
    "maps": b"{a: " * 5000,
    "dashes": b"- " * 5000,
}


@pytest.mark.parametrize("data", NO_YAML.values(), ids=NO_YAML)
def test_what_is_no_yaml_is_refused(file, data):
    file.write_bytes(data)
    with pytest.raises(DataError) as refused:
        read(file)
    assert str(file) in str(refused.value) and len(str(refused.value)) < 400


def test_a_tag_runs_nothing(file, tmp_path):
    file.write_text(f"joy: !!python/object/apply:os.mkdir ['{tmp_path}/made']")
    with pytest.raises(DataError):
        read(file)
    assert not (tmp_path / "made").exists()


def test_a_label_that_stands_twice_is_refused(file):
    file.write_text("joy: glad\nfear: x\njoy: merry\n")
    with pytest.raises(DataError, match="joy"):
        read(file)


def test_a_missing_file_or_a_folder_is_refused(tmp_path):
    for where in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(DataError, match=r"there is no file .*data\.definitions"):
            read(where)


# The sets' own


def test_shipped_files_hold_a_sentence_for_each_label():
    """Words, also where YAML has another use for them."""
    files = sorted((Path(datasets.__file__).parent / "labels").glob("*.yaml"))
    assert files
    for one in files:
        found = shipped(one.stem)
        assert all(isinstance(word, str) for pair in found.items() for word in pair), one
        assert found == read(one), one
