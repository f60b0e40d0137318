"""Keys: equal for equal parts whatever their order, and differences in words."""

import pytest

from cache.keys import differences, flatten, in_short, key_of


def test_key_does_not_depend_on_the_order_of_parts():
    assert key_of({"a": 1, "b": {"c": 2, "d": 3}}) == key_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_key_changes_with_any_part():
    parts = {"network": {"name": "resnet50", "sha256": "ab"}, "size": 128}
    changed = [
        {"network": {"name": "resnet50", "sha256": "ac"}, "size": 128},
        {"network": {"name": "resnet50", "sha256": "ab"}, "size": 129},
        {"network": {"name": "resnet50", "sha256": "ab"}},
    ]
    assert len({key_of(p) for p in [parts, *changed]}) == 4


def test_nan_has_no_key():
    with pytest.raises(ValueError):
        key_of({"score": float("nan")})


def test_differences_name_the_part_and_both_sides():
    ours = {"weights": {"sha256": "ab"}, "size": 128, "only": None}
    theirs = {"weights": {"sha256": "cd"}, "size": 128}
    assert differences(ours, theirs) == ["only: None -> absent", "weights.sha256: ab -> cd"]


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}}, "d": [1, 2]}) == {"a.b.c": 1, "d": [1, 2]}


def test_in_short_names_settings_before_what_follows_from_them():
    ours = {"settings": {"size": 1}, "rule": {"a": 1, "b": 2}}
    theirs = {"settings": {"size": 2}, "rule": {"a": 3, "b": 4}}
    assert in_short(ours, theirs) == "settings.size: 1 -> 2"
    ours["settings"] = theirs["settings"]
    assert in_short(ours, theirs, most=1) == "rule.a: 1 -> 3; and 1 more"
