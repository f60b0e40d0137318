"""The plan of the house: imports go one way, and the fast paths stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("cache", "extract", "train", "pipelines")
ALLOWED = {
    "cache": {"cache"},
    "extract": {"cache", "extract"},
    "train": {"cache", "train"},
    "pipelines": set(ROOMS),
}


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports from the top"
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    for path in files:
        wrong = imported(path) & set(ROOMS) - ALLOWED[room]
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_the_cache_knows_no_network_library():
    for path in (ROOT / "cache").rglob("*.py"):
        assert not imported(path) & {"torch", "torchvision", "transformers", "ultralytics", "PIL"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("pipelines.cli", {"torch", "torchvision", "transformers", "ultralytics"}),
        ("extract.plan", {"torch", "torchvision", "transformers", "ultralytics"}),
        ("train.run", {"torchvision", "transformers", "ultralytics", "PIL", "extract"}),
    ],
)
def test_light_paths_load_no_heavy_library(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())
