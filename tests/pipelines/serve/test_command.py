"""The command `serve`: what it passes on, and what it warns of."""

import json

import pytest
import typer
from typer.testing import CliRunner

from pipelines.commands import serve as command
from pipelines.serve import run as server

runner = CliRunner()


@pytest.fixture
def called(monkeypatch):
    """The settings, head and callback of each call."""
    calls = []
    monkeypatch.setattr(server, "serve", lambda *given: calls.append(given))
    return calls


def call(*arguments):
    app = typer.Typer()
    app.command()(command.serve)
    done = runner.invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done


def test_options_stand_above_settings(called):
    call("--set", "serve.port=9000", "--set", "serve.host=localhost")
    call("--set", "serve.port=9000", "--port", "0", "--host", "::1", "--head", "other/head")
    first, second = (settings.serve for settings, *_ in called)
    assert (first.host, first.port) == ("localhost", 9000)
    assert (second.host, second.port) == ("::1", 0)
    assert [str(head) for _, head, *_ in called] == ["results/head", "other/head"]


@pytest.mark.parametrize("reached", [True, False])
def test_an_address_that_others_reach_is_warned_of(called, reached, capsys):
    call("--json")
    _, _, ready, stop = called[0]
    ready("http://there:1", reached)
    stop()
    said = capsys.readouterr()
    assert json.loads(said.out) == {"url": "http://there:1", "reached_by_others": reached}
    assert ("no password" in said.err) == reached and said.err.endswith("stopping\n")
