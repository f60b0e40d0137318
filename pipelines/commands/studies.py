"""The commands `sweep`, `tune` and `tables`: parse, call `pipelines.studies`, print."""

from typing import Annotated, Any

import typer
from rich.table import Table

from cache.errors import SettingsError
from pipelines import settings as params
from pipelines.console import PARAMS, Json, Params, Set, bar, escape, out, say, untrained
from pipelines.wording import Scale, cell, duration

PARTS = ("train", "val", "test")  # of a fold
FEW = 15  # rows that are printed; all stand in the files
Plan = Annotated[bool, typer.Option("--plan", help="Say what would be fitted, and stop.")]


def sweep(
    over: Annotated[
        list[str],
        typer.Option(
            metavar="A.B=[V, ...]", help="A setting and its values, in place of sweep.over."
        ),
    ] = [],
    plan: Plan = False,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Fit a head at each point of a grid of settings, many at once; compare them on val.

    Example: emocache sweep --over 'train.lr=[1e-4,3e-4]' --over 'train.hugme.beta=[0,0.5,1]'
    """
    from pipelines.studies import sweep as study

    settings = params.load(file, [*set_, *_grid(over)])
    if plan:
        say(study.plan(settings), as_json, _show_plan)
        return
    with bar("fits", as_json) as progress:
        result = study.sweep(settings, progress)
    say(result, as_json, _show_sweep)


def crossval(
    plan: Plan = False,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Test every person once, fold after fold; compare heads on the same folds.

    What a fold takes as a whole (subjects, groups, trials, blocks) is folds.protocol.

    Example: emocache crossval --set folds.protocol=subjects --set 'folds.heads=[helo, mlp]'
    """
    from pipelines.studies import crossval as study

    settings = params.load(file, set_)
    if plan:
        say(study.plan(settings), as_json, _show_folds)
        return
    with bar("fits", as_json) as progress:
        result = study.crossval(settings, progress)
    say(result, as_json, _show_crossval)


def _show_folds(found: dict[str, Any]) -> None:
    table = Table("fold", "train", "val", "test", "left out")
    for row in found["parts"][:FEW]:
        table.add_row(escape(row["fold"]), *(f"{row[n]:,}" for n in (*PARTS, "left_out")))
    out.print(table)
    if len(found["parts"]) > FEW:
        out.print(f"the first {FEW} of {len(found['parts']):,}")
    out.print(escape(f"{found['folds']}; {found['fits']:,} fits of {', '.join(found['heads'])}"))
    for name, why in found["lacks"].items():
        out.print(f"[yellow]{escape(f'fold {name}: {why}')}[/]")


def _show_crossval(result: dict[str, Any]) -> None:
    from pipelines.studies.crossval_page import differences_of, table_of

    if result["leaking"]:
        out.print(f"[bold red]{escape(result['leaking'])}[/]")
    _show_warnings(result)
    for found in (table_of(result), differences_of(result)):
        if found is not None:
            table = Table(*found.columns, title=escape(found.title))
            for row in found.rows:
                table.add_row(*map(escape, row))
            out.print(table)
            for note in found.notes:
                out.print(escape(note))
    for name, why in result["lacks"].items():
        out.print(f"[yellow]{escape(f'fold {name}: {why}')}[/]")
    first = result["rows"][0]
    out.print(
        f"{result['fitted']:,} fits made now, {result['kept']:,} kept from before; seed "
        f"{result['seed']}, cache key {first['cache_key']}"
    )
    out.print(f"page: {escape(result['report'])}")


def _grid(texts: list[str]) -> list[str]:
    """`--over a.b=[1, 2]` as the override that sets sweep.over."""
    pairs = []
    for text in texts:
        name, equals, values = text.partition("=")
        if not equals or not values.strip().startswith("["):
            raise SettingsError(f"--over {text!r}: write it as --over 'train.lr=[1e-4, 3e-4]'")
        pairs.append(f"{name.strip()}: {values}")
    return [f"sweep.over={{{', '.join(pairs)}}}", "sweep.points=[]"] if pairs else []


def _show_plan(found: dict[str, Any]) -> None:
    out.print(
        f"{found['asked']:,} fits: {found['kept']:,} are kept, {found['left']:,} are left, "
        f"{found['refused']:,} cannot be had"
    )
    _show_equal(found.get("equal", 0))
    for reason in found["reasons"]:
        out.print(f"[yellow]{escape(reason)}[/]")
    for group in found["groups"]:
        out.print(
            f"{group['head']}: {group['fits']:,} of one shape, at most {group['epochs']} epochs of "
            f"{group['steps']} steps"
        )
    if found["left"]:
        out.print(
            f"about {duration(found['seconds'])} one after another on {found['device']} if none "
            "stops early (reckoned from a few steps of each)"
        )


def _show_equal(equal: int) -> None:
    if equal:
        out.print(f"points of the grid that equal another one, and are left out: {equal:,}")


def _show_sweep(result: dict[str, Any]) -> None:
    from pipelines.studies.trials_page import ended, interval

    _show_warnings(result)
    main, names = result["measure"], result["names"]
    scale = Scale.of(main)
    short = [name.removeprefix("train.") for name in names]
    table = Table("", *short, f"{main}{scale.unit}", "interval", "best epoch", "remark")
    for place, row in enumerate(result["rows"][:FEW], 1):
        table.add_row(
            str(place),
            *(escape(cell(row.get(name))) for name in names),
            scale.number(row.get(main)),
            interval(row, main),
            cell(row.get("best_epoch")),
            escape(ended(row)),
        )
    out.print(table)
    if len(result["rows"]) > FEW:
        out.print(f"the best {FEW} of {len(result['rows']):,}")
    first = result["rows"][0]
    out.print(
        f"{result['points']:,} points: {result['fitted']:,} fitted now, {result['kept']:,} kept "
        f"from before; N {first['n_evaluated']:,} on val, {first['n_dropped']:,} dropped, cache "
        f"key {first['cache_key'][:12]}"
    )
    _show_equal(result["equal"])
    best = " ".join(f"--set {name}={cell(first[name])}" for name in names)
    out.print(f"the best as a head: emocache train {escape(best)}")
    _show_ways(result["ways"])
    out.print(f"page: {escape(result['report'])}")


def _show_warnings(result: dict[str, Any]) -> None:
    """What must be said above all numbers."""
    untrained(result["untrained"])
    if result["note"]:
        out.print(f"[yellow]{escape(result['note'])}[/]")


def _show_ways(ways: list[str]) -> None:
    if ways:
        out.print(f"heads of one shape were fitted: {'; '.join(ways)}")


def tune(
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """Search settings of a head by Optuna on val; fit the best over seeds, measure it on test.

    Example: emocache tune --set tune.trials=60
    """
    from pipelines.studies.tune import tune as study

    settings = params.load(file, set_)
    with bar("trials", as_json) as progress:
        result = study(settings, progress)
    say(result, as_json, _show_tune)


def _show_tune(result: dict[str, Any]) -> None:
    from pipelines.studies.tune import in_words

    _show_warnings(result)
    states = ", ".join(f"{count} {state}" for state, count in result["states"].items())
    out.print(
        f"study {result['study']}: {result['trials']} trials ({states}), "
        f"{result['fitted']} fits made now"
    )
    for line in in_words(result):
        out.print(escape(line))
    _show_ways(result["ways"])
    out.print(f"its settings: {escape(result['params'])}; page: {escape(result['report'])}")
    out.print(f"look around: optuna-dashboard {escape(result['journal'])}")
    out.print(
        f"the best as a head: emocache train --params {escape(result['params'])}, then emocache "
        f"evaluate --params {escape(result['params'])}"
    )


def tables(
    plan: Plan = False,
    set_: Set = [],
    file: Params = PARAMS,
    as_json: Json = False,
) -> None:
    """The papers' tables and sensitivity figure, from the cache: fits only what is not kept.

    Example: emocache tables --set 'tables.seeds=[0,1,2,3,4]'
    """
    from pipelines.studies import tables as study

    settings = params.load(file, set_)
    if plan:
        say(study.plan(settings), as_json, _show_plan)
        return
    with bar("fits", as_json) as progress:
        result = study.tables(settings, progress)
    made = result.pop("tables")
    say(result, as_json, lambda found: _show_tables(found, made))


def _show_tables(result: dict[str, Any], tables: list[Any]) -> None:
    from pipelines.studies.rendering import markdown

    _show_warnings(result)
    for one in tables:
        out.print(escape(markdown(one)))
    for name, why in result["missing"].items():
        out.print(f"[yellow]not fitted: {escape(name)} ({escape(why)})[/]")
    _show_ways(result["ways"])
    out.print(
        f"{result['fits']:,} fits, {result['fitted']:,} of them now; all as Markdown, LaTeX, CSV "
        f"and one page: {escape(result['report'])}"
    )
