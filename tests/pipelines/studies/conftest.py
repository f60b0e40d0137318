"""A made cache, and settings under which fits on it take a moment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.settings import Settings
from tests.train import made


@pytest.fixture(scope="session")
def cache(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made") / "features"
    made.write_cache(root, made.arrays(persons=160))
    return root


@pytest.fixture
def asked(cache, tmp_path, monkeypatch) -> Callable[..., Settings]:
    """Settings by section; results go to a folder of the test."""
    monkeypatch.chdir(tmp_path)

    def settings(train: dict[str, Any] | None = None, **sections: Any) -> Settings:
        few = made.settings(**{"epochs": 3, "together": 1, **(train or {})})
        return Settings.model_validate(
            {
                "device": "cpu",
                "data": {"name": "made", "root": str(tmp_path)},
                "cache": {"root": str(cache)},
                "train": few.model_dump(),
                "evaluate": {"bootstrap": 100},
                **sections,
            }
        )

    return settings


@pytest.fixture
def fits(monkeypatch) -> list[Any]:
    """The settings of every fit that begins, whichever way."""
    from train import fit_many

    begun: list[Any] = []
    alone, group = fit_many.fit, fit_many._in_step

    def one(features, settings, *more):
        begun.append(settings)
        return alone(features, settings, *more)

    def several(features, settings, some, *more):
        begun.extend(settings[n] for n in some)
        return group(features, settings, some, *more)

    monkeypatch.setattr(fit_many, "fit", one)
    monkeypatch.setattr(fit_many, "_in_step", several)
    return begun
