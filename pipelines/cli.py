"""The command `emocache`: its commands by name, how it ends, and the demo. What each command says
stands in `pipelines.commands`, what it does in `pipelines.stages`."""

import importlib.metadata
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from cache.errors import EmocacheError, SettingsError
from pipelines import settings as params
from pipelines.commands import cache, data, export, heads, serve, studies, uniemox
from pipelines.console import PARAMS, err, escape, out
from pipelines.process import settle
from pipelines.results import Results

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    data.scenes,
    data.prepare,
    data.unpack,
    data.plan,
    data.extract,
    heads.train,
    heads.evaluate,
    heads.probe,
    heads.compare,
    studies.sweep,
    studies.crossval,
    studies.tune,
    studies.tables,
    uniemox.pretrain,
    uniemox.finetune,
    heads.report,
    heads.predict,
    serve.serve,
    export.export,
):
    app.command()(command)
app.add_typer(cache.app, name="cache")
INTERRUPTED = 130
GO_ON = {  # commands that keep what they have done
    *("prepare", "extract", "repair", "train", "sweep", "tune", "tables", "crossval"),
    *("pretrain", "finetune", "demo"),
}


def _version(asked: bool) -> None:
    if asked:
        out.print(f"emocache {importlib.metadata.version('emocache')}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_version, help="Print the version."),
    ] = False,
) -> None:
    """Extract features once, train emotion heads in seconds, share the cache."""


def main() -> None:
    """Run a command: exit 0 done, 1 refused with a reason, 2 wrong usage."""
    settle()
    # What takes a while is said while it goes on: weights that are being fetched, heads that are
    # fitted one after another and why.
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    for room in ("extract", "train"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        app()
    except EmocacheError as refusal:
        err.print(f"[bold red]refused:[/] {escape(refusal)}")
        sys.exit(1)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer makes this of Ctrl-C
            goes_on = GO_ON & set(sys.argv[1:3])
            more = "; what was committed stays, run the same command to go on" if goes_on else ""
            err.print(f"stopped{more}")
        raise


@app.command()
def demo() -> None:
    """The whole pipeline on made-up scenes: dvc repro, then a prediction on two photographs.

    Example: emocache demo
    """
    settings = params.load(PARAMS)
    if settings.data.name != "demo":
        raise SettingsError(
            f"the demo needs its own settings, and params.yaml has data.name {settings.data.name}: "
            "cp pipelines/profiles/demo.yaml params.yaml"
        )
    # The stages call `emocache`: the one beside this interpreter, activated or not.
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], env={**os.environ, "PATH": paths})
    if done.returncode:
        raise typer.Exit(done.returncode)
    out.rule("demo")
    results = Results()
    heads.show_metrics(results.read_metrics())
    heads.predict(
        pictures=_photographs(),
        box=[],
        folder=results.predictions,
        top=5,
        head=results.head,
        set_=[],
        file=PARAMS,
        as_json=False,
    )
    out.print(f"report: {escape(results.report.resolve())}")


def _photographs() -> list[Path]:
    """Two photographs of people that ship inside the ultralytics package."""
    from importlib.util import find_spec

    spec = find_spec("ultralytics")
    assert spec is not None and spec.origin is not None
    return [Path(spec.origin).parent / "assets" / name for name in ("bus.jpg", "zidane.jpg")]


if __name__ == "__main__":
    main()
