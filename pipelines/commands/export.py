"""The command `export`: a fitted head and all that goes with it, as a folder."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines import settings as params
from pipelines.console import PARAMS, Json, Params, Set, escape, out, say, untrained
from pipelines.results import Results
from pipelines.wording import size

HERE = Results()


def export(
    folder: Annotated[Path, typer.Argument(help="Made, or an export to be replaced.")] = HERE.folder
    / "export",
    head: Annotated[Path, typer.Option(help="The trained head.")] = HERE.head,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """The head as ONNX and torch.export, with all that a prediction needs, and a model card.

    Both files are compared with the head on persons of evaluate.split first. Weights of frozen
    networks are named, not copied.

    Example: emocache export results/export
    """
    from pipelines.export import export as run

    say(run(params.load(file, set_), head, folder), as_json, _show)


def _show(done: dict[str, Any]) -> None:
    untrained(done["untrained"])
    if done["note"]:
        out.print(f"[yellow]head trained on {done['dataset']}: {escape(done['note'])}[/]")
    if not done["measured"]:
        out.print(f"[yellow]the model card has no numbers: {escape(done['why_not_measured'])}[/]")
    checked = done["checked"]
    worst = {n: max(of.values()) for n, of in checked["largest_difference"].items()}
    told = ", ".join(f"{name} {gap:.1e}" for name, gap in worst.items())
    out.print(
        f"compared with the head on {checked['persons']:,} persons, and where a face or objects "
        f"are missing: largest difference {told} (limit {checked['limit']:g})"
    )
    files = ", ".join(f"{name} ({size(count)})" for name, count in done["files"].items())
    out.print(f"{escape(done['folder'])}: {files}")
