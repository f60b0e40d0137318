"""What a cross-validation found, as tables and a page."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from cache.files import write_atomic
from pipelines.results import write_csv
from pipelines.studies import rendering
from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.rendering import Table
from pipelines.wording import Scale, between, counts
from train.metrics.measures import MAIN, MEASURES, Measure

# What is shown of each kind of labels, the measure that heads are compared by first.
SHOWN = {
    "multi": ("mAP", "VAD_error"),
    "single": ("accuracy", "macro_F1", "balanced_accuracy", "mAP"),
    "distribution": ("kl", "chebyshev", "clark", "canberra", "cosine", "intersection"),
}
FOLDS = ("head", "fold", "train", "val", "test", "left_out", "best_epoch", "measure", "value")


def write(result: Mapping[str, Any], parts: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    """Write the page crossval.html, table.md, table.tex, table.csv and folds.csv. result: what
    `crossval` gives; parts: a row of `FOLDS` for each head and fold. Gives the page's path."""
    table, gaps = table_of(result), differences_of(result)
    write_atomic(folder / "table.md", rendering.markdown(table).encode())
    write_atomic(folder / "table.tex", rendering.latex(table).encode())
    rendering.write_csv(table, folder / "table.csv")
    write_csv(folder / "folds.csv", FOLDS, parts)
    first = result["rows"][0]
    return write_page(
        folder / "crossval.html",
        title_of(result),
        [
            ("data", result["dataset"]),
            ("N tested", f"{first['n_evaluated']:,} ({first['n_dropped']:,} dropped)"),
            ("folds", result["folds"]),
            ("seed", str(result["seed"])),
            ("cache key", first["cache_key"]),
            ("device", result["device"]),
        ],
        [
            *([result["leaking"]] if result["leaking"] else []),
            *(f"fold {name}: {why}" for name, why in result["lacks"].items()),
            *warnings_of(result["note"], result["untrained"]),
        ],
        [
            Section("Heads on the same folds", table=table),
            *([Section("Differences", table=gaps)] if gaps else []),
            Section("Folds", table=_folds(parts, MAIN[result["kind"]])),
        ],
    )


def shown(kind: Any, numbers: Mapping[str, Any]) -> list[str]:
    """The measures of a table, as far as there are any."""
    return [name for name in SHOWN[kind] if name in numbers and numbers[name] is not None]


def table_of(result: Mapping[str, Any]) -> Table:
    """Heads by measures: each with its interval."""
    rows, kind = result["rows"], result["kind"]
    names = shown(kind, rows[0])
    cells = [[row["head"], *(_cell(row, MEASURES[name]) for name in names)] for row in rows]
    if any(f"chance_{name}" in rows[0] for name in names):
        label = f"{result['chance'] or 'most frequent label'} for everybody"
        cells.append([label, *(Scale.of(n).number(rows[0].get(f"chance_{n}")) for n in names)])
    columns = ["", *(f"{MEASURES[n].title}{Scale.of(n).unit} {_way(MEASURES[n])}" for n in names)]
    notes = [
        f"{result['folds']}.",
        f"N {rows[0]['n_evaluated']:,} tested, {rows[0]['n_dropped']:,} dropped "
        f"({counts(result['dropped'])}); intervals "
        f"({result['confidence']:.0%}): bootstrap over {result['drawn']}, over which folds hang "
        "together as well: they are somewhat narrow.",
    ]
    return Table("crossval", title_of(result), columns, cells, notes)


def title_of(result: Mapping[str, Any]) -> str:
    """Of the page and the table."""
    leaking = "LEAKING cross-validation" if result["leaking"] else "Cross-validation"
    return f"{leaking} on {result['dataset']}"


def differences_of(result: Mapping[str, Any]) -> Table | None:
    """Each head less the first, with interval and p; None where there is one head."""
    first, *others = result["rows"]
    if not others:
        return None
    names = shown(result["kind"], first)
    cells = []
    for row in others:
        for name in names:
            gap, scale = row[f"{name}_less_first"], Scale.of(name)
            better = (gap["difference"] > 0) == MEASURES[name].more
            sure = gap["low"] is not None and (gap["low"] > 0 or gap["high"] < 0)
            word = ("better" if better else "worse") if sure else "no difference shown"
            difference = scale.number(gap["difference"], signed=True)
            ends = between(gap["low"], gap["high"], partial(scale.number, signed=True))
            cells.append([row["head"], MEASURES[name].title, difference, ends, _p(gap), word])
    title = f"Difference to {first['head']}, on the same persons"
    columns = ["head", "measure", "difference", "interval", "p", "verdict"]
    notes = ["p by paired bootstrap; not corrected for the number of comparisons."]
    return Table("differences", title, columns, cells, notes)


def _folds(parts: Sequence[Mapping[str, Any]], main: Measure) -> Table:
    scale = Scale.of(main.name)
    sizes = ("train", "val", "test", "left_out")
    columns = ["head", "fold", "train", "val", "test", "left out", "epoch"]
    cells = [
        [
            row["head"],
            row["fold"],
            *(f"{row[part]:,}" for part in sizes),
            str(row["best_epoch"]),
            scale.number(row["value"]),
        ]
        for row in parts
    ]
    return Table("folds", "", [*columns, f"{main.title}{scale.unit}"], cells)


def _p(gap: Mapping[str, Any]) -> str:
    return "" if gap["p"] is None else f"{gap['p']:.3f}"


def _way(one: Measure) -> str:
    return "↑" if one.more else "↓"


def _cell(row: Mapping[str, Any], one: Measure) -> str:
    scale, name = Scale.of(one.name), one.name
    ends = between(row[f"{name}_low"], row[f"{name}_high"], scale.number)
    return f"{scale.number(row[name])} ({ends})"
