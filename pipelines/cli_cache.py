"""The commands `emocache cache ...`: look after a cache and share it."""

from typing import Any

import typer
from rich.table import Table

from pipelines import settings as params
from pipelines import stages
from pipelines.console import PARAMS, Json, Params, Set, counts, escape, out, say

app = typer.Typer(no_args_is_help=True, help="Look after the cache.")


@app.command("ls")
def cache_ls(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """List the views: rows by status, key, size, weights.

    Example: emocache cache ls
    """
    say(stages.cache_contents(params.load(file, set_)), as_json, _show_cache)


def _show_cache(found: dict[str, Any]) -> None:
    out.print(
        f"{found['dataset']}: persons {counts(found['persons'])}; {found['pictures']} pictures"
    )
    if found["note"]:
        out.print(f"[yellow]{escape(found['note'])}[/]")
    table = Table("view", "rows", "key", "MB", "files", "weights")
    for name, view in found["views"].items():
        words = ", ".join(
            f"{one['network']} ({one['source'] if one['trained'] else 'UNTRAINED'})"
            for one in view["weights"]
        )
        table.add_row(
            name,
            counts(view["rows"]),
            view["key"][:12],
            f"{view['bytes'] / 1e6:.1f}",
            str(view["files"]),
            escape(words),
        )
    out.print(table)
