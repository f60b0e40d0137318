"""Splits that a set has not: drawn by seed and bytes or group alone, or given in a file."""

import json
import math
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cache.errors import DataError, SettingsError
from cache.index import SPLITS, Index
from extract.prepare import Prepared, check, prepare
from extract.settings import Data, Split
from extract.splits import Splitter

KEYS = [f"picture {i}" for i in range(20_000)]

# Seed 0, a tenth each: which of twelve are not train.
DRAWN = {1: "val", 8: "test"}
GROUPS = {7: "test"}


def drawn(identity: str, group="", has=(), official="", **split: Any) -> str:
    """The split of one picture by a splitter that has seen no other."""
    return Splitter(Split(**split), has).split(official, "a.png", group, identity)


def close(count: int, share: float, total=20_000) -> bool:
    """Whether a count is within five standard deviations of what a binomial gives."""
    return abs(count - share * total) <= 5 * math.sqrt(share * (1 - share) * total)


class Own:
    """A folder with pictures and a table of persons, without splits."""

    def __init__(self, base: Path) -> None:
        self.root, self.base = base / "data", base
        self.root.mkdir()
        self.lines: list[dict[str, Any]] = []

    def add(self, name: str, colour: int, **cells: Any) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (colour % 256, colour // 256, 7)).save(path)
        self.lines.append({"path": name, "box": [1, 1, 7, 7], "labels": ["joy"], **cells})

    def data(self, **split: Any) -> Data:
        text = "\n".join(json.dumps(line) for line in self.lines)
        (self.root / "persons.jsonl").write_text(text)
        return Data(name="persons", root=self.root, split=split)

    def check(self, **split: Any) -> Prepared:
        return check(self.data(**split))

    def splits(self, name="cache", **split: Any) -> dict[str, str]:
        """The split of each picture, by path."""
        prepare(self.data(**split), self.base / name)
        table = Index.read(self.base / name).pictures
        return dict(zip(table["path"].to_pylist(), table["split"].to_pylist(), strict=True))


@pytest.fixture
def own(tmp_path) -> Own:
    return Own(tmp_path)


# Drawn


@pytest.mark.parametrize(("val", "test"), [(0.1, 0.1), (0.25, 0.5), (0, 0.2), (0.3, 0), (0, 0)])
def test_shares_are_those_asked_for(val, test):
    splitter = Splitter(Split(val=val, test=test), ())
    found = Counter(splitter.split("", key, "", key) for key in KEYS)
    for split, share in zip(SPLITS, (1 - val - test, val, test), strict=True):
        assert close(found[split], share), found


@given(st.lists(st.text(max_size=5), unique=True), st.integers(0, 99), st.randoms())
def test_a_draw_depends_on_seed_and_bytes_alone(keys, seed, shuffle):
    """Not on the order, nor on what else is there, nor on the path."""
    one = Splitter(Split(seed=seed), ())
    first = {key: one.split("", f"{i}.png", "", key) for i, key in enumerate(keys)}
    shuffle.shuffle(keys)
    assert {key: drawn(key, seed=seed) for key in keys} == first


def test_draws_are_those_of_the_first_version():
    """A new version must not move pictures between splits."""
    by_bytes = {i: drawn(str(i)) for i in range(12)}
    by_group = {i: drawn("", group=str(i)) for i in range(12)}
    assert {i: split for i, split in by_bytes.items() if split != "train"} == DRAWN
    assert {i: split for i, split in by_group.items() if split != "train"} == GROUPS


def test_other_seeds_are_other_draws():
    by_seed = [[drawn(key, seed=seed) for key in KEYS[:500]] for seed in range(4)]
    for i, one in enumerate(by_seed):
        for other in by_seed[:i]:
            assert sum(a != b for a, b in zip(one, other, strict=True)) > 100


def test_a_group_is_drawn_as_a_whole():
    splitter = Splitter(Split(val=0.3, test=0.3), ())
    for at in range(50):
        assert len({splitter.split("", key, f"film {at}", key) for key in KEYS[:20]}) == 1
    found = Counter(splitter.split("", key, key, "") for key in KEYS)
    assert close(found["val"], 0.3) and close(found["test"], 0.3)


def test_a_group_and_bytes_of_one_name_are_drawn_apart():
    apart = sum(drawn(key) != drawn("", group=key) for key in KEYS[:500])
    assert apart > 100


def test_more_pictures_move_none(own):
    for at in range(40):
        own.add(f"{at}.png", at)
    before = own.splits("one", val=0.3, test=0.3)
    assert set(before.values()) == set(SPLITS)
    for at in range(40, 80):
        own.add(f"{at}.png", at)
    random.Random(0).shuffle(own.lines)
    after = own.splits("two", val=0.3, test=0.3)
    assert {path: after[path] for path in before} == before
    assert own.splits("one", val=0.3, test=0.3).items() >= before.items()  # in the old cache too


def test_equal_bytes_under_many_names_are_in_one_split(own):
    for at in range(8):
        for name in range(5):
            own.add(f"{at}-{name}.png", at)
    report = own.check(val=0.4, test=0.4)
    assert not any(" and " in oddity for oddity in report.oddities), report.oddities
    assert report.oddities["pictures with the bytes of another picture, joined"] == 32


def test_equal_bytes_of_two_groups_are_in_one_split_whatever_comes_first(own):
    groups = {drawn("", group=f"g{i}"): f"g{i}" for i in range(100)}
    own.add("a.png", 1, group=groups["train"])
    own.add("b.png", 1, group=groups["test"])
    assert not [what for what in own.check().oddities if what.startswith("pictures in ")]
    first = min(groups["train"], groups["test"])
    assert set(own.splits().values()) == {drawn("", group=first)}


def test_groups_of_the_table_stay_together(own):
    for at in range(60):
        own.add(f"{at}.png", at, group=f"film {at % 12}")
    of = defaultdict(set)
    for path, split in own.splits(val=0.3, test=0.3).items():
        of[int(path.removesuffix(".png")) % 12].add(split)
    assert all(len(found) == 1 for found in of.values()) and len(set.union(*of.values())) == 3


def test_what_was_done_is_said(own):
    own.add("a.png", 1)
    note = own.check(val=0.2, seed=7).note
    assert "splits drawn 70% : 20% : 10%" in note and "seed 7: not official" in note


# The set's own splits


def test_official_splits_are_kept(own):
    for at in range(60):
        own.add(f"{at}.png", at, split=SPLITS[at % 3])
    found = own.splits(val=0.5, test=0.4)
    assert all(found[f"{at}.png"] == SPLITS[at % 3] for at in range(60))
    assert own.check().note == "own pictures, persons.jsonl"


def test_val_comes_from_train_where_the_set_has_none():
    found = Counter(drawn(key, has=("train", "test"), official="train") for key in KEYS[:5000])
    assert set(found) == {"train", "val"} and close(found["val"], 0.1, 5000)
    assert {drawn(key, has=("train", "test"), official="test") for key in KEYS[:500]} == {"test"}


@pytest.mark.parametrize("official", SPLITS)
def test_nothing_is_drawn_where_the_set_has_val(official):
    some = {drawn(key, has=SPLITS, official=official, val=0.5, test=0.4) for key in KEYS[:200]}
    assert some == {official}


def test_no_val_is_made_where_none_is_asked_for():
    some = {drawn(k, has=("train", "test"), official="train", val=0) for k in KEYS[:500]}
    assert some == {"train"}


# Shares that leave nothing


@pytest.mark.parametrize(("val", "test"), [(0.5, 0.5), (0.9, 0.1), (0.9, 0.9)])
def test_shares_that_leave_nothing_for_train_are_refused(val, test):
    with pytest.raises(DataError, match=r"data\.split\.val and data\.split\.test leave nothing"):
        Splitter(Split(val=val, test=test), ())


@pytest.mark.parametrize("share", [-0.1, 1.0, math.nan, "much"], ids=str)
def test_a_share_out_of_range_is_refused_by_the_settings(share):
    with pytest.raises((SettingsError, ValueError)):
        Split(val=share)


# Groups in paths


def test_a_pattern_finds_groups_and_paths_without_are_counted(own):
    for at in range(30):
        own.add(f"clip{at % 5}_{at}.png", at)
    own.add("other.png", 99)
    own.add("another.png", 98)
    pattern = r"^(clip\d+)_"
    report = own.check(val=0.4, test=0.4, group=pattern)
    assert report.oddities["pictures whose path data.split.group does not match"] == 2
    prepare(own.data(val=0.4, test=0.4, group=pattern), own.base / "cache")
    table = Index.read(own.base / "cache").pictures.to_pylist()
    of = defaultdict(set)
    for picture in table:
        of[picture["group"]].add(picture["split"])
    assert set(of) == {*(f"clip{i}" for i in range(5)), ""}
    assert all(len(found) == 1 for group, found in of.items() if group)


def test_a_group_of_the_set_goes_before_the_pattern():
    splitter = Splitter(Split(group="^(.)"), ())
    assert splitter.group("a.png", "film") == "film"
    assert splitter.group("a.png", "") == "a"


def test_a_group_that_the_pattern_leaves_empty_is_none():
    splitter = Splitter(Split(group="^(x)?a"), ())
    assert splitter.group("a.png", "") == ""


@pytest.mark.parametrize("pattern", ["clip", "(a)(b)", "(", "(?:a)"])
def test_a_pattern_without_one_group_is_refused(pattern):
    with pytest.raises((SettingsError, ValueError), match="one group|regular expression"):
        Split(group=pattern)


# A file of splits


def listed(own: Own, *lines: str, encoding="utf-8") -> Path:
    file = own.base / "splits.csv"
    file.write_bytes("\n".join(lines).encode(encoding))
    return file


def test_the_file_overrules_official_splits_and_draws(own):
    own.add("a.png", 1, split="train")
    own.add("b.png", 2, split="train")
    file = listed(own, "path,split", "", "a.png,test", "gone.png,val", "away.png,val")
    assert own.splits(file=file) == {"a.png": "test", "b.png": own.splits("two")["b.png"]}
    report = own.check(file=file)
    assert report.oddities["paths of data.split.file that the data set has not"] == 2
    assert "splits of splits.csv" in report.note


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_the_header_of_the_file_may_be_left_out(own, encoding):
    own.add("a.png", 1)
    for lines in (("a.png,test",), ("path,split", "a.png,test")):
        assert own.splits(file=listed(own, *lines, encoding=encoding)) == {"a.png": "test"}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png", "line 3: 'a.png' is no path and split"),
        ("a.png,valid", "line 3: 'a.png,valid' is no path and split (one of train, val, test)"),
        ("a.png,test,x", "line 3: 'a.png,test,x' is no path and split"),
        ("a.png,train", "line 3: a.png stands in two splits"),
    ],
)
def test_a_fault_of_the_file_is_named_with_its_line(own, line, said):
    own.add("a.png", 1)
    with pytest.raises(DataError) as refused:
        own.check(file=listed(own, "path,split", "a.png,test", line))
    assert said in str(refused.value)


def test_lines_are_counted_as_an_editor_does(own):
    own.add("a.png", 1)
    with pytest.raises(DataError, match=r"splits\.csv, line 3: "):
        own.check(file=listed(own, '"two\nlines.png",test', "a.png,none"))


def test_a_file_that_cannot_be_read_is_refused(own):
    own.add("a.png", 1)
    for file in (own.base / "none.csv", own.base, listed(own, "é.png,test", encoding="latin-1")):
        with pytest.raises(DataError, match=r"cannot be read .*: see data\.split\.file"):
            own.check(file=file)


SUBJECTS = [f"S{number}" for number in range(2, 18)]


def dealt(groups, **settings) -> dict[str, str]:
    splitter = Splitter(Split(**settings), ())
    splitter.deal(groups)
    return {group: splitter.split("", f"{group}.pkl#1", group, "id") for group in groups}


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("count", "sizes"), [(16, (12, 2, 2)), (5, (3, 1, 1)), (3, (1, 1, 1))])
def test_few_groups_are_dealt_so_that_no_split_is_empty(count, sizes, seed):
    found = Counter(dealt(SUBJECTS[:count], seed=seed).values())
    assert (found["train"], found["val"], found["test"]) == sizes


def test_one_group_is_for_train_and_shares_of_0_get_none():
    assert dealt(["S2"]) == {"S2": "train"}
    assert sorted(dealt(["S2", "S3"]).values()) == ["test", "train"]
    assert set(dealt(SUBJECTS, val=0, test=0).values()) == {"train"}
    assert Counter(dealt(SUBJECTS, val=0.25, test=0.5).values())["test"] == 8


def test_groups_are_dealt_by_seed_and_name_not_by_order():
    one = dealt(SUBJECTS)
    assert dealt(SUBJECTS[::-1]) == one != dealt(SUBJECTS, seed=1)


def test_a_group_that_was_not_dealt_is_drawn():
    """A subject that cannot be read takes no place from the others."""
    splitter = Splitter(Split(), ())
    splitter.deal(["S2", "S3", "S4"])
    assert splitter.split("", "S5/S5.pkl#0", "S5", "id") in ("train", "val", "test")
    assert splitter.said() == "splits dealt by group, 1 : 1 : 1 groups, seed 0: not official"
