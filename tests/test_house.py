"""The plan of the house: imports go one way, and the fast paths stay light."""

import ast
import graphlib
import importlib
import re
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


def modules(path: Path) -> set[str]:
    """The modules of the house that a file imports, wherever in it, for types too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_no_circle_of_files():
    """Also within a room, and also where an import stands in a function to hide one."""
    files = {}
    for path in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        files[name] = path
    graph = {name: (modules(path) & files.keys()) - {name} for name, path in files.items()}
    # A package is imported with each of its files, which may in turn use what it holds.
    sorter = graphlib.TopologicalSorter(graph)
    try:
        sorter.prepare()
    except graphlib.CycleError as circle:
        pytest.fail(" -> ".join(circle.args[1]))


def test_no_file_takes_what_another_keeps_to_itself():
    for path in (file for room in ROOMS for file in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ROOMS:
                private = [alias.name for alias in node.names if alias.name.startswith("_")]
                assert not private, f"{path.relative_to(ROOT)} imports {private}"


def test_the_cache_knows_no_network_library():
    for path in (ROOT / "cache").rglob("*.py"):
        assert not imported(path) & {"torch", "torchvision", "transformers", "ultralytics", "PIL"}


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        (
            "pipelines.cli",
            {"torch", "torchvision", "transformers", "ultralytics", "optuna", "matplotlib"},
        ),
        ("extract.plan", {"torch", "torchvision", "transformers", "ultralytics"}),
        ("train.run", {"torchvision", "transformers", "ultralytics", "PIL", "extract"}),
    ],
)
def test_light_paths_load_no_heavy_library(module, heavy):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not heavy & set(done.stdout.split())


DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_what_the_docs_import_and_point_to_is_there(page):
    text = page.read_text()
    imports = rf"^from ((?:{'|'.join(ROOMS)})\S*) import (.+)$"
    for module, names in re.findall(imports, text, re.M):
        for name in names.split(", "):
            try:
                assert hasattr(importlib.import_module(module), name), f"{module} has no {name}"
            except ModuleNotFoundError as error:
                pytest.fail(f"{page.name}: {error}")
    rooms = "|".join((*ROOMS, "benchmarks", "tests", "docs"))
    for path in re.findall(rf"`((?:{rooms})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
