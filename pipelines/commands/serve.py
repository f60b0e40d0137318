"""The command `serve`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import settings as params
from pipelines.console import PARAMS, Json, Params, Set, err, escape, out, say
from pipelines.results import Results

HERE = Results()


def serve(
    host: Annotated[
        str | None, typer.Option(help="Where it listens; serve.host, this machine alone.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="serve.port; 0: any that is free.")
    ] = None,
    head: Annotated[
        Path, typer.Option(help="The trained head, or a folder of `export`.")
    ] = HERE.head,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Predict in a browser, on this machine: pictures in, people, emotions and what if out.

    Ends with Ctrl-C. Programs send pictures to /api/predict; /docs says how.

    Example: emocache serve --port 9000
    """
    from pipelines.serve.run import serve as run

    settings = params.load(file, set_)
    named = {"host": host, "port": port}
    given = {name: value for name, value in named.items() if value is not None}
    limits = settings.serve.model_copy(update=given)

    def ready(url: str, reached: bool) -> None:
        if reached:
            err.print(
                "[bold yellow]no password[/]: every machine that reaches this one can send "
                "pictures to it; leave --host out to serve this machine alone"
            )
        say(
            {"url": url, "reached_by_others": reached},
            as_json,
            lambda found: out.print(f"emocache serves {escape(url)} (Ctrl-C ends it)"),
        )

    run(settings.model_copy(update={"serve": limits}), head, ready, lambda: err.print("stopping"))
