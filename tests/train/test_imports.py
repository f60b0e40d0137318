"""Stage 2 never opens a picture and never sees stage 1."""

import subprocess
import sys
from pathlib import Path

import train

FORBIDDEN = ("extract", "pipelines", "torchvision", "transformers", "ultralytics", "PIL", "cv2")
ALL = """
import importlib, pkgutil, sys, train
for module in pkgutil.walk_packages(train.__path__, "train."):
    if not module.name.startswith("train.uniemox."):  # which learns a backbone
        importlib.import_module(module.name)
"""


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(train.__file__).parents[1],
    )
    return set(done.stdout.split())


def test_no_module_of_train_loads_what_stage_1_needs():
    loaded = loaded_by(ALL)
    assert "train.heads.hugme" in loaded and "train.run" in loaded
    assert not loaded & set(FORBIDDEN)


def test_settings_and_the_registry_load_no_torch():
    loaded = loaded_by("import train.settings, train.heads; train.heads.names()")
    assert "train.heads" in loaded and "torch" not in loaded
