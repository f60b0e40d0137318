"""Benchmarks run, and check what they claim, at a size that takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(name: str, *arguments: str) -> dict:
    """The JSON object on the last line of a benchmark's output."""
    command = [sys.executable, str(ROOT / "benchmarks" / name), *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_soak_every_bad_picture_is_a_row_with_its_reason():
    found = run("soak.py", "--pictures", "1600")
    assert set(found["bad"].values()) == {2} and len(found["bad"]) == 8
    assert [one["with_a_reason"] for one in found["runs"]] == [4, 8, 16]
    assert all(one["memory_MB"][-1] < one["memory_MB"][0] + 50 for one in found["runs"])
