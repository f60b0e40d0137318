"""Every code block of the README and of docs/ runs, or at least says what the program understands.

Python runs on a real cache. Of the shell, each line is parsed by the program that it calls, and
its settings are checked against `params.yaml` or the profile that the block takes; that the stages
then do what they say is what the other tests are for.
"""

import re
import shlex
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from pipelines.cli import app
from pipelines.settings import load
from tests.pipelines.conftest import ROOT, run

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.DOTALL | re.MULTILINE)
ELSE = {"export.md"}  # whose Python shares one export, in test_exported.py
OTHERS = {"cp", "curl", "git", "source"}  # programs that are not ours to test
# What a block fits by default settings is fitted for a moment.
SHORT = """
import train.settings
train.settings.Train.model_fields["epochs"].default = 2
train.settings.Train.model_rebuild(force=True)
del train
"""


class Block(NamedTuple):
    """A code block, and the number of its line, for the name of its test."""

    page: Path
    language: str
    line: int
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.name}:{self.line}"


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(page, match[1], line, match[2]))
    elsewhere = ELSE if language == "python" else ()
    return [b for b in found if b.language == language and b.page.name not in elsewhere]


def commands(text: str) -> list[list[str]]:
    """Word by word, without comments; `a && b` are two."""
    joined = text.replace("\\\n", " ")
    words = [shlex.split(line, comments=True) for line in joined.splitlines()]
    found: list[list[str]] = []
    for line in words:
        found.append([])
        for word in line:
            if word == "&&":
                found.append([])
            else:
                found[-1].append(word)
    return [command for command in found if command]


def understood(arguments: list[str], params: Path) -> None:
    """Parse a command line of emocache down to its last command, and load its settings."""
    command, name = typer.main.get_command(app), "emocache"
    context = command.make_context(name, list(arguments))
    while hasattr(command, "resolve_command"):
        left = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, left)
        context = command.make_context(name, rest, parent=context)
    load(params, context.params.get("set_") or [])


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.name)
def test_a_shell_block_says_what_the_programs_understand(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    params = ROOT / "pipelines/profiles/demo.yaml"
    for program, *arguments in commands(block.text):
        if program == "emocache":
            if "--help" not in arguments:
                understood(arguments, params)
        elif program == "dvc":
            understood_by_dvc(arguments, params)
        elif program == "make":
            (target,) = arguments
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()
        elif program == "cp" and arguments[0].endswith(".yaml"):
            params = ROOT / arguments[0]
            load(params, [])
        else:
            assert program in OTHERS, f"{block.name}: nobody checks {program}"


def understood_by_dvc(arguments: list[str], params: Path) -> None:
    from dvc.cli import parse_args

    parsed = parse_args(arguments)
    load(params, getattr(parsed, "set_param", None) or [])


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.name)
def test_a_python_block_runs_on_a_real_cache(block, workplace):
    done = run(workplace, sys.executable, "-c", SHORT + block.text, first=[ROOT])
    assert done.code == 0, done.err
    if block.page.name == "README.md":
        assert "(11, 2048) (11, 26)" in done.out


def test_blocks_were_found_at_all():
    assert len(blocks("sh")) > 15 and len(blocks("python")) > 4
