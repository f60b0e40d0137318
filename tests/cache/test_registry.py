"""Classes are found by the name of their file, and nothing is loaded before it is asked for."""

import sys

import pytest

from cache.errors import SettingsError
from cache.registry import Registry


@pytest.fixture
def registry(tmp_path, monkeypatch):
    package = tmp_path / "made_heads"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from cache.registry import Registry\nmade = Registry(__name__, 'train.head')\n"
    )
    (package / "plain.py").write_text(
        "from made_heads import made\n@made.add('plain')\nclass Plain: ...\n"
    )
    (package / "other.py").write_text(
        "from made_heads import made\n@made.add('another')\nclass Other: ...\n"
    )
    (package / "_shared.py").write_text("raise AssertionError('nobody asked')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import made_heads  # type: ignore[import-not-found]

    yield made_heads.made
    for name in [name for name in sys.modules if name.startswith("made_heads")]:
        del sys.modules[name]


def test_names_are_known_before_any_class_is_loaded(registry):
    assert registry.names() == ["other", "plain"]
    assert "made_heads.plain" not in sys.modules
    assert registry.get("plain").__name__ == "Plain"


def test_an_unknown_name_is_refused_with_the_nearest(registry):
    with pytest.raises(
        SettingsError, match=r"train\.head: there is no 'plan'; did you mean 'plain'"
    ):
        registry.get("plan")


def test_a_file_that_registers_another_name_is_refused(registry):
    with pytest.raises(SettingsError, match=r"other\.py.* registers no class 'other'"):
        registry.get("other")


def test_a_class_may_come_from_elsewhere():
    made = Registry[type]("train.heads", "train.head")
    made.add("mine")(int)
    assert made.get("mine") is int
