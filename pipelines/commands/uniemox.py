"""The commands `pretrain` and `finetune`: parse, call `pipelines.uniemox`, print."""

import os
from typing import Any

from pipelines import settings as params
from pipelines.console import PARAMS, Json, Params, Set, bar, escape, out, say, untrained
from pipelines.results import Results


def _first() -> bool:
    """Whether this is the first of the processes that torchrun starts, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def pretrain(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Pre-train UniEmoX's encoder on pictures, with what frozen teachers say of them in the cache.

    On several GPUs: torchrun --nproc-per-node 4 -m pipelines.cli pretrain

    Example: emocache pretrain --set pretrain.epochs=100 --set pretrain.fusion=gated
    """
    from pipelines.uniemox import pretrain as stage

    settings = params.load(file, set_)
    with bar("steps", as_json or not _first()) as progress:
        result = stage.pretrain(settings, progress)
    if _first():
        say(result, as_json, _show_pretrain)


def _show_pretrain(result: dict[str, Any]) -> None:
    _show_warnings(result)
    for line in result["said"]:
        out.print(escape(line))
    folder = Results().pretrain
    out.print(f"page: {folder / 'report.html'}")
    out.print(
        f"as a backbone: emocache extract --set weights.folder={folder} --set "
        "views.scene.network=uniemox --set views.scene.size="
        f"{result['settings']['size']}"
    )


def finetune(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Fit an encoder and a linear layer on pictures and their single labels, or shares.

    On several GPUs: torchrun --nproc-per-node 4 -m pipelines.cli finetune

    Example: emocache finetune --set weights.folder=results/pretrain
    """
    from pipelines.uniemox import finetune as stage

    settings = params.load(file, set_)
    with bar("steps", as_json or not _first()) as progress:
        result = stage.finetune(settings, progress)
    if _first():
        say(result, as_json, _show_finetune)


def _show_finetune(result: dict[str, Any]) -> None:
    _show_warnings(result)
    for line in result["said"]:
        out.print(escape(line))
    out.print(f"page: {Results().finetune / 'report.html'}")


def _show_warnings(result: dict[str, Any]) -> None:
    untrained(result["untrained"])
    for line in (result["note"], *result["warnings"]):
        if line:
            out.print(f"[yellow]{escape(line)}[/]")
    if lost := result["lost"]:
        first = next(iter(lost))
        out.print(
            f"[yellow]{len(lost):,} pictures could not be read[/], as {escape(first)}: "
            f"{escape(lost[first])}"
        )
    if result["resumed"]:
        out.print(f"went on after step {result['resumed']:,} of a run that was stopped")
