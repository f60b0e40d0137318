"""What every command shares: the two consoles, its usual options, and how results are shown."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import markup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cache.statuses import FAILED
from pipelines import wording

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def _pairs_of(texts: list[str]) -> list[str]:
    for text in texts:
        if not text.partition("=")[1]:
            raise typer.BadParameter(f"{text!r}: write it as --set section.key=value")
    return texts


Set = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="A.B=VALUE",
        callback=_pairs_of,
        help="Change one setting of params.yaml, for now.",
    ),
]
Params = Annotated[Path, typer.Option("--params", help="The settings file.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
PARAMS = Path("params.yaml")


def escape(text: object) -> str:
    return markup.escape(str(text))


def say(result: dict[str, Any], as_json: bool, show: Callable[[dict[str, Any]], None]) -> None:
    if as_json:
        typer.echo(json.dumps(result, default=str))
    else:
        show(result)


def untrained(networks: Iterable[str]) -> None:
    """Say what rests on noise."""
    for name in networks:
        said = escape(wording.untrained(name))
        out.print(said.replace(wording.UNTRAINED, f"[bold yellow]{wording.UNTRAINED}[/]", 1))


def name_failures(reasons: Iterable[str]) -> None:
    """Where persons were dropped because a picture failed (`unreadable`, or `body: unreadable` of a
    view): which command names it."""
    if any(reason.endswith(FAILED) for reason in reasons):
        out.print(
            "`emocache cache ls` names the pictures and persons that could not be used, and why"
        )


def failed(pictures: Sequence[Mapping[str, str]]) -> None:
    """How many pictures could not be used, as `cache.contents.quarantined` gives them."""
    if not pictures:
        return
    one = len(pictures) == 1
    first = f"{'it is' if one else 'the first:'} {pictures[0]['picture']}: {pictures[0]['reason']}"
    out.print(
        f"[yellow]{len(pictures):,} picture{'' if one else 's'} could not be used[/] "
        f"({escape(first)}); `emocache cache ls` names {'it' if one else 'all of them'}, "
        f"`emocache extract --retry` tries {'it' if one else 'them'} again"
    )


def dropped(persons: Sequence[Mapping[str, str]], most: int = 5) -> None:
    """Who does not count though the picture is there, as `cache.contents.dropped_persons` gives
    them; the first ones of each status, so that no kind hides another."""
    statuses = dict.fromkeys(one["status"] for one in persons)
    for status in statuses:
        some = [one for one in persons if one["status"] == status]
        for one in some[:most]:
            told = f"{status}: {one['picture']} ({one['split']}): {one['reason'] or 'no reason'}"
            out.print(f"    {escape(told)}")
        if len(some) > most:
            out.print(f"    and {len(some) - most:,} more {status}; --json has them all")


@contextlib.contextmanager
def bar(what: str, quiet: bool) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr, from the first step on: none where there is nothing to do. Its
    step takes how many are done, how many there are, and a note to stand beside."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    progress = Progress(*columns, console=err, disable=quiet)
    task = progress.add_task(what, total=None, note="")

    def step(done: int, total: int, note: str = "") -> None:
        progress.start()
        progress.update(task, completed=done, total=total, note=note)

    try:
        yield step
    finally:
        if progress.live.is_started:
            progress.stop()
