"""The commands up to the features: `scenes`, `prepare`, `plan`, `extract`."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Column, Table

from cache.contents import weights_in_words
from pipelines import settings as params
from pipelines import stages
from pipelines.console import (
    PARAMS,
    Json,
    Params,
    Set,
    bar,
    dropped,
    err,
    escape,
    failed,
    out,
    say,
    untrained,
)
from pipelines.recordings import terms
from pipelines.wording import counts, duration, number, shares, size


def scenes(
    folder: Annotated[Path, typer.Argument(help="Where to write the data set.")] = Path(
        "data/demo"
    ),
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Make the demo data set: collages with made-up labels, in EMOTIC's format.

    Example: emocache scenes data/demo --set demo.pictures=40
    """
    from pipelines.demo.scenes import make_scenes

    settings = params.load(file, set_)
    made = make_scenes(folder, settings.demo)
    say({"folder": str(folder), **made}, as_json, _show_scenes)


def _show_scenes(made: dict[str, Any]) -> None:
    out.print(escape(", ".join(f"{name}: {value}" for name, value in made.items())))


def prepare(
    check: Annotated[
        bool, typer.Option("--check", help="Say what is wrong with the annotation; write nothing.")
    ] = False,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Read the annotation into the index; say what was clipped, dropped and why. Where there are
    no boxes, people are looked for. A contact sheet shows some of them.

    Example: emocache prepare --set data.name=emotic --set data.root=/data/emotic
    """
    settings = params.load(file, set_)
    with bar("pictures", as_json) as progress:
        report = (stages.check if check else stages.prepare)(settings, progress)
    if not check:
        say(report, as_json, _show_prepare)
        return
    say(report, as_json, _show_check)
    if report["fault_count"]:
        raise typer.Exit(1)


def _show_check(report: dict[str, Any]) -> None:
    for fault in report["faults"]:
        out.print(escape(fault))
    more = report["fault_count"] - len(report["faults"])
    if more:
        out.print(f"and {more:,} more")
    if report["fault_count"]:
        one = report["fault_count"] == 1
        some = f"{report['fault_count']:,} fault{'' if one else 's'}"
        out.print(f"[yellow]{some}; nothing was written; mend the annotation[/]")
        return
    _show_prepare(report)
    out.print("no faults in the annotation; nothing was written")


def unpack(
    arrays: Annotated[list[Path], typer.Argument(help="FER+ as .npz: images, votes, names.")],
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Write FER+ faces that lie in arrays as pictures with their votes, below data.root.

    Example: emocache unpack FER2013Valid.npz --set data.name=ferplus --set data.root=data/ferplus
    """
    made = stages.unpack(params.load(file, set_), arrays)
    say(made, as_json, _show_unpacked)


def _show_unpacked(made: dict[str, Any]) -> None:
    out.print(f"{escape(made['folder'])}: faces of {escape(counts(made['faces']))}")


def _show_prepare(report: dict[str, Any]) -> None:
    out.print(f"{report['dataset']} at {escape(report['root'])}: {report['labels']} labels")
    if report["note"]:
        out.print(f"[yellow]{escape(report['note'])}[/]")
    called = terms(report["recordings"])
    columns = ["split", called.sources, called.many, f"labels per {called.one}"]
    grouped = ["subjects" if report["recordings"] else "groups"] if report["groups"] else []
    table = Table(*columns, *grouped)
    for split in report["persons"]:
        table.add_row(
            split,
            counts(report["pictures"].get(split, {})),
            counts(report["persons"][split]),
            number(report["labels_per_person"].get(split), missing="nan"),
            *([str(report["groups"].get(split, 0))] if grouped else []),
        )
    out.print(table)
    _show_labels(report, called.many)
    if set(report["origins"]) - {"annotated"}:
        out.print(f"boxes: {counts(report['origins'])}")
    for what, rows in report["rows"].items():
        out.print(f"rows of {what}: {counts(rows)}")
    if report["oddities"]:
        out.print("found on the way: " + escape(counts(report["oddities"])))
    if report["dropped"]:
        out.print(f"{called.many} that do not count:")
    dropped(report["dropped"])
    for warning in report["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")
    if "contact_sheet" in report:
        out.print(f"look at some of them: {escape(report['contact_sheet'])}")


def _show_labels(report: dict[str, Any], persons: str, most: int = 60) -> None:
    """How many of those that count have each label, a row a label."""
    share = "a share of " if report["kind"] == "distribution" else ""
    splits, found = list(report["persons"]), report["persons_per_label"]
    table = Table("label", *(Column(split, justify="right") for split in splits))
    for label, counted in list(found.items())[:most]:
        table.add_row(escape(label), *(f"{counted.get(split, 0):,}" for split in splits))
    out.print(f"{persons} that count and have {share}each label:")
    out.print(table)
    if len(found) > most:
        out.print(f"and {len(found) - most:,} more labels; --json has them all")


def plan(
    probe: Annotated[
        bool, typer.Option(help="Compute a few pictures to tell minutes and sizes.")
    ] = True,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Say what `extract` would compute, why, how long it takes and how big it gets. To measure
    takes half a minute and more; --no-probe does not.

    Example: emocache plan --no-probe --set views.depth.network=Intel/dpt-large
    """
    say(stages.plan(params.load(file, set_), probe), as_json, _show_plan)


def _show_plan(found: dict[str, Any]) -> None:
    table = Table("view", "rows", "why")
    for name, view in found["views"].items():
        table.add_row(name, f"{view['rows']:,}", escape(view["reason"]))
    out.print(table)
    pictures = terms(found["recordings"]).sources
    out.print(f"{pictures} to decode: {found['pictures']:,}")
    if found["estimate"]:
        of = found["estimate"]
        out.print(
            f"about {duration(of['seconds'])} on one {of['device']}, {size(of['bytes'])} in "
            f"{of['files']:,} files (reckoned from {of['pictures']} {pictures} computed now)"
        )
        out.print(f"time goes to {shares(of['parts'])}")
    failed(found["failed"])
    untrained(found["untrained"])
    for warning in found["warnings"]:
        out.print(f"[yellow]{escape(warning)}[/]")


def extract(
    retry: Annotated[
        bool, typer.Option("--retry", help="Try pictures and rows again that had failed.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Compute in N processes, on GPUs one GPU each."),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Compute on the workers of this Dask scheduler."),
    ] = None,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Bring the cache up to date: only rows that are missing or stale are computed.

    Example: emocache extract --set views.objects.k=20
    """
    if workers and cluster:
        raise typer.BadParameter("--workers starts processes here, --cluster asks others: give one")
    given = [f"extract.workers={workers}"] if workers else []
    given += [f"extract.cluster={cluster}"] if cluster else []
    settings = params.load(file, [*set_, *given])

    def loading(weights: Any) -> None:
        if not as_json:
            out.print(escape(weights_in_words(weights.facts())))

    with bar("pictures", as_json) as progress:
        result = stages.extract(settings, progress, loading, retry)
    say(result, as_json, _show_extract)
    if result["skipped"]:
        path, reason = next(iter(result["skipped"].items()))
        err.print(
            f"{len(result['skipped'])} of the pictures that `prepare` saw are gone or changed (the "
            f"first: {escape(path)}: {escape(reason)}); everything else is extracted. Check "
            "data.root, then run `emocache prepare` and `emocache extract`"
        )
        raise typer.Exit(1)


def _show_extract(result: dict[str, Any]) -> None:
    table = Table("view", "rows written", "why")
    for name, rows in result["rows"].items():
        taken = result["taken"].get(name)
        table.add_row(
            name,
            counts({**rows, **({"taken from cache.take_from": taken} if taken else {})}),
            escape(result["why"][name]),
        )
    out.print(table)
    failed(result["failed"])
    untrained(result["untrained"])
    speed, pictures = result["speed"], terms(result["recordings"]).sources
    if speed["rows"]:
        out.print(
            f"{speed['pictures']:,} {pictures}, {speed['rows']:,} rows in "
            f"{duration(speed['seconds'])}: {speed['pictures_per_s']:.1f} {pictures}/s, "
            f"{speed['rows_per_s']:.1f} rows/s; time went to {shares(speed['parts'])}"
        )
    if not result["networks"] and not result["skipped"]:
        out.print("the cache is up to date; no network was loaded")
