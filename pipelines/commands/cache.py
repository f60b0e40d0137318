"""The commands `emocache cache ...`: look after a cache and share it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cache.apart import as_csv, set_apart
from cache.audit import NEAR, audit
from cache.contents import contents, weights_in_words
from cache.files import write_atomic, writing_to
from pipelines import settings as params
from pipelines import stages
from pipelines.console import PARAMS, Json, Params, Set, bar, dropped, escape, out, say, untrained
from pipelines.tracking import track
from pipelines.wording import counts, size
from pipelines.workplace import index_of, views_of

Near = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Least cosine of two pictures that count as one.")
]

app = typer.Typer(no_args_is_help=True, help="Look after the cache.")
SHOWN = 20  # damages and pictures printed; --json has them all
NAMED = 3  # examples of each kind printed by `audit`; --json has up to 20


@app.command("track")
def cache_track(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Name the views of this cache in dvc.yaml, for DVC to keep: after `emocache prepare` of
    recordings, or with views.words.network set.

    Example: emocache cache track --set data.name=wesad
    """
    settings = params.load(file, set_)
    views = list(views_of(settings, index_of(settings)))
    result = {"views": views, "changed": [str(one) for one in track(views)]}
    say(result, as_json, _show_tracked)


def _show_tracked(found: dict[str, Any]) -> None:
    out.print(f"views: {', '.join(found['views'])}")
    changed = ", ".join(found["changed"]) or "nothing: they are named already"
    out.print(f"changed: {escape(changed)}")


@app.command("ls")
def cache_ls(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """List the views: rows by status, key and settings, size, weights; and pictures that failed.

    Example: emocache cache ls
    """
    say(contents(params.load(file, set_).cache.root), as_json, _show_contents)


def _show_contents(found: dict[str, Any]) -> None:
    out.print(
        f"{found['dataset']}: persons {counts(found['persons'])}; {found['pictures']} pictures"
    )
    if found["note"]:
        out.print(f"[yellow]{escape(found['note'])}[/]")
    for name, view in found["views"].items():
        out.print(
            f"[bold]{name}[/]: {counts(view['rows'])}; {size(view['bytes'])} in {view['files']} "
            f"files; key {view['key'][:12]}"
        )
        for why, number in view["reasons"].items():
            out.print(f"    {number} times: {escape(why)}")
        out.print("    " + escape(", ".join(f"{k} {v}" for k, v in view["in_words"].items())))
        for one in view["weights"]:
            out.print("    " + escape(weights_in_words(one)))
    if found["dropped"]:
        out.print("persons that do not count:")
    dropped(found["dropped"])
    if found["quarantined"]:
        number = len(found["quarantined"])
        out.print(
            f"[yellow]{number:,} picture{'' if number == 1 else 's'} could not be used[/]; "
            "`emocache extract --retry` tries again"
        )
    for picture in found["quarantined"][:SHOWN]:
        told = f"{picture['picture']}: {picture['reason']} ({picture['by']})"
        out.print(f"    {escape(told)}")
    if len(found["quarantined"]) > SHOWN:
        out.print(f"    and {len(found['quarantined']) - SHOWN} more; --json has them all")


@app.command("verify")
def cache_verify(
    view: Annotated[
        list[str], typer.Option("--view", metavar="NAME", help="Look at this view only.")
    ] = [],
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Hash every file and compare it with its proof; exit code 1 when anything is damaged.

    Example: emocache cache verify --view body
    """
    from cache import check

    settings = params.load(file, set_)
    with bar("verify: shards", as_json) as progress:
        found = check.verify(settings.cache.root, view or None, progress).as_dict()
    say(found, as_json, _show_findings)
    if not found["whole"]:
        raise typer.Exit(1)


def _show_findings(found: dict[str, Any]) -> None:
    _show_damages(found["damages"])
    for name, rows in found["rows"].items():
        bad = {row for one in found["damages"] if one["view"] == name for row in one["rows"]}
        missing = found["absent"].get(name)
        out.print(
            f"{name}: {rows} rows"
            + (f", {len(bad)} to repair" if bad else "")
            + (f", {missing} more to extract (`emocache extract`)" if missing and not bad else "")
        )
    for note in found["notes"]:
        out.print(f"[yellow]{escape(note)}[/]")
    if found["whole"]:
        what = "what is here is whole" if found["notes"] else "whole"
        out.print(f"{what}: {size(found['bytes'])} of features are as they were committed")
    elif found["writer"]:
        out.print(
            f"[yellow]being written by {escape(found['writer'])}[/]: what that has under way looks "
            "like damage. Verify again when it has ended"
        )
    else:
        rows = any(one["rows"] for one in found["damages"])
        makes = "makes these rows again" if rows else "mends it; no row is lost"
        out.print(f"[bold red]damaged[/]: `emocache cache repair` {makes}")


def _show_damages(damages: list[dict[str, Any]]) -> None:
    for damage in damages[:SHOWN]:
        rows = damage["rows"]
        cost = f" ({len(rows)} rows, {rows[0]} to {rows[-1]})" if rows else ""
        told = damage["what"] if damage["view"] == "" else f"{damage['file']} {damage['what']}"
        out.print(f"[red]{escape(told)}[/]{cost}")
    if len(damages) > SHOWN:
        out.print(f"and {len(damages) - SHOWN} more; --json has them all")


@app.command("repair")
def cache_repair(set_: Set = [], file: Params = PARAMS, as_json: Json = False) -> None:
    """Take out what is damaged and extract exactly those rows again.

    Example: emocache cache repair
    """
    settings = params.load(file, set_)
    with bar("repair: pictures", as_json) as progress:
        done = stages.repair(settings, progress)
    say(done, as_json, _show_repaired)
    if done["left"] or done["skipped"]:
        raise typer.Exit(1)


def _show_repaired(done: dict[str, Any]) -> None:
    untrained(done["untrained"])
    if not done["damages"]:
        out.print("the cache is whole; nothing to repair")
        return
    _show_damages(done["damages"])
    rows = ", ".join(f"{name} {number}" for name, number in done["rows"].items())
    out.print(f"rows extracted again: {rows or 'none'}")
    for path, reason in done["skipped"].items():
        out.print(f"[red]{escape(path)}: {escape(reason)}[/]")
    if done["left"]:
        out.print("[bold red]still damaged:[/]")
        _show_damages(done["left"])
    else:
        out.print("whole again")


@app.command("diff")
def cache_diff(
    first: Annotated[Path, typer.Argument(metavar="FOLDER", help="A cache.")],
    second: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="The other one; else cache.root.")
    ] = None,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Why two caches differ: rows, the key of each view part by part, values.

    The first folder is ours, the second theirs; one folder alone is theirs, against cache.root.
    Ends with 0 whether they differ or not: `--json` says so under `differs`.

    Example: emocache cache diff ../elsewhere/features
    """
    from cache.diff import diff

    ours, theirs = (first, second) if second else (params.load(file, set_).cache.root, first)
    say(diff(ours, theirs), as_json, _show_diff)


def _show_diff(found: dict[str, Any]) -> None:
    index = found["index"]
    out.print(f"dataset: {' | '.join(index['dataset'])}")
    for side in ("ours", "theirs"):
        if index["labels"][side]:
            out.print(f"labels only in {side}: {', '.join(index['labels'][side])}")
    for table in ("persons", "pictures"):
        out.print(f"{table}: {_sides(index[table])}")
    if index["relabelled"]:
        some = ", ".join(index["relabelled"][:3])
        more = ", ..." if len(index["relabelled"]) > 3 else ""
        out.print(f"other labels in {len(index['relabelled'])} pictures: {escape(some)}{more}")
    for name, view in found["views"].items():
        out.print(f"[bold]{name}[/]: rows {_sides(view['rows'])}")
        if isinstance(view["key"], list):
            out.print(f"    the key differs in {len(view['key'])} (ours -> theirs):")
            for part in view["key"]:
                out.print(f"    {escape(part)}")
        elif view["key"] != "same":
            out.print(f"    {view['key']}")
        else:
            values = view["values"]
            out.print(
                f"    same key; of the rows in both, {values['equal']} are equal"
                + (
                    f", {values['differ']} differ, by {values['largest']:.3g} at most"
                    if values["differ"]
                    else ""
                )
            )
    if not found["differs"]:
        out.print("the caches are equal")


def _sides(number: dict[str, int]) -> str:
    return f"{number['both']} in both, {number['ours']} only in ours, {number['theirs']} in theirs"


@app.command("audit")
def cache_audit(
    near: Near = NEAR,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """What the splits share: pictures, persons, and pictures that look the same.

    Ends with 0 whatever it finds.

    Example: emocache cache audit
    """
    settings = params.load(file, set_)
    with bar("audit: blocks of pictures", as_json) as progress:
        found = audit(settings.cache.root, near, progress).as_dict()
    say(found, as_json, _show_audit)


@app.command("split")
def cache_split(
    target: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Where to write it.")],
    near: Near = NEAR,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Write splits in which no picture looks like one of another split, for data.split.file.

    Pictures that look the same go together to the split that has most of their persons. The cache
    stays as it is; `emocache prepare --set data.split.file=FILE.csv` takes the splits over.

    Example: emocache cache split splits.csv
    """
    settings = params.load(file, set_)
    with bar("split: blocks of pictures", as_json) as progress:
        found = set_apart(settings.cache.root, near, progress)
    with writing_to(target):
        write_atomic(target, as_csv(found.splits))
    moved = {f"{a} to {b}": n for (a, b), n in sorted(found.moved.items())}
    persons = {name: {"before": a, "after": b} for name, (a, b) in found.persons.items()}
    result = {
        "file": str(target),
        "near": found.near,
        "clusters": found.clusters,
        "persons": persons,
        "moved": moved,
        "notes": list(found.notes),
    }
    say(result, as_json, _show_split)


def _show_split(found: dict[str, Any]) -> None:
    table = Table("split", "persons before", "after")
    for name, number in found["persons"].items():
        table.add_row(escape(name), f"{number['before']:,}", f"{number['after']:,}")
    out.print(table)
    out.print(
        f"{found['clusters']:,} clusters of pictures that look the same (cosine {found['near']:g} "
        "or more) or are of one group stood in several splits; "
        f"persons moved: {escape(counts(found['moved']))}"
    )
    for name, number in found["persons"].items():
        if number["before"] and not number["after"]:
            out.print(f"[yellow]nobody is left in {escape(name)}[/]: raise --near")
    for note in found["notes"]:
        out.print(f"[yellow]{escape(note)}[/]")
    out.print(f"now: emocache prepare --set data.split.file={escape(found['file'])}")


KINDS = {
    "equal_pictures": "equal pictures",
    "equal_boxes": "equal boxes",
    "near_boxes": "near boxes",
    "near_pictures": "near pictures",
}


def _show_audit(found: dict[str, Any]) -> None:
    if found["overlaps"]:
        table = Table()
        # Most data sets have no groups.
        shown = KINDS | (
            {"groups": "groups"} if any(o["groups"] for o in found["overlaps"]) else {}
        )
        for column in ("splits", *shown.values(), "persons concerned"):
            table.add_column(column, no_wrap=column == "splits")
        for one in found["overlaps"]:
            numbers = ("not sought" if one[name] is None else f"{one[name]:,}" for name in shown)
            concerned = "{:,} and {:,}".format(*one["persons"])
            table.add_row(escape(" and ".join(one["splits"])), *numbers, concerned)
        out.print(table)
    else:
        out.print("fewer than two splits have persons: nothing to compare")
    for one in found["overlaps"]:
        _name_pairs(" and ".join(one["splits"]), one["examples"])
    for one in found["repeats"]:
        if one["equal_boxes"] or one["near_boxes"]:
            told = f"persons repeated {one['equal_boxes']:,}, near boxes {one['near_boxes']:,}"
            out.print(f"within {escape(one['split'])}: {told}")
        _name_pairs(f"within {one['split']}", one["examples"])
    for note in found["notes"]:
        out.print(f"[yellow]{escape(note)}[/]")


def _name_pairs(where: str, examples: dict[str, list[dict[str, Any]]]) -> None:
    for name, pairs in examples.items():
        for pair in pairs[:NAMED]:
            paths, rows = (
                " and ".join(dict.fromkeys(map(str, both)))
                for both in (pair["paths"], pair["rows"])
            )
            of = "picture" if name.endswith("pictures") else "person"
            likeness = f" ({pair['alike']:.3f})" if name.startswith("near") else ""
            told = f"{where}, {KINDS[name]}{likeness}: {paths}, {of} {rows}"
            out.print(f"    {escape(told)}")


@app.command("merge")
def cache_merge(
    other: Annotated[list[Path], typer.Argument(metavar="OTHER...", help="Folders of caches.")],
    keep_ours: Annotated[
        bool, typer.Option("--keep-ours", help="Where the same row has other values, keep ours.")
    ] = False,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Make other caches part of this one; rows are matched by picture bytes, box and key.

    Example: emocache cache merge ../elsewhere/features
    """
    from cache.share import merge

    cache = params.load(file, set_).cache
    merged = {str(one): asdict(merge(cache, one, keep_ours)) for one in other}
    say(merged, as_json, _show_merged)


def _show_merged(found: dict[str, Any]) -> None:
    for source, done in found.items():
        out.print(
            f"{escape(source)}: {done['persons']} persons and {done['pictures']} pictures are new"
        )
        for name, rows in done["taken"].items():
            both, differ = done["both"].get(name, 0), done["differ"].get(name, 0)
            apart = f" ({differ} differ within rounding, or by --keep-ours: ours stay)"
            kept = f", {both} were there" + (apart if differ else "")
            out.print(f"    {name}: {rows} rows taken{kept if both else ''}")


@app.command("export")
def cache_export(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="The HDF5 file to write.")],
    view: Annotated[
        list[str], typer.Option("--view", metavar="NAME", help="Only this view; may be repeated.")
    ] = [],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file.")] = False,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Write the cache to one HDF5 file, with its keys and checksums.

    Example: emocache cache export features.h5 --view body --view head
    """
    from cache.hdf5 import export_hdf5

    settings = params.load(file, set_)
    with bar("export: views", as_json) as progress:
        rows = export_hdf5(settings.cache.root, target, view or None, overwrite, progress)
    done = {"file": str(target), "bytes": target.stat().st_size, "rows": rows}
    say(done, as_json, _show_exported)


def _show_exported(done: dict[str, Any]) -> None:
    rows = ", ".join(f"{name} {number}" for name, number in done["rows"].items())
    out.print(f"{escape(done['file'])}: {size(done['bytes'])}; rows: {rows}")


@app.command("import")
def cache_import(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `cache export`.")],
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Bring an exported HDF5 file into the cache; into an empty one bit for bit.

    Example: emocache cache import features.h5
    """
    from cache.hdf5 import import_hdf5

    settings = params.load(file, set_)
    with bar("import: views", as_json) as progress:
        done = import_hdf5(settings.cache, source, progress)
    say({str(source): done}, as_json, _show_merged)
