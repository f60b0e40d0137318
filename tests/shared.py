"""Where the tests find real pictures, labels and weights that the project may not carry."""

import os
import tempfile
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def shared(path: str) -> Path:
    """`path` below the shared folder beside the checkout; skips the test where it is absent."""
    found = SHARED / path
    if not found.exists():
        pytest.skip(f"needs {path} in a folder `shared` beside the checkout")
    return found


def quick_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A temporary folder in memory where there is such a file system: it flushes at once, and
    tests that commit thousands of shards need not wait for a disk."""
    memory = Path("/dev/shm")
    if os.access(memory, os.W_OK):
        return Path(tempfile.mkdtemp(prefix=f"emocache-{name}-", dir=memory))
    return tmp_path_factory.mktemp(name)
