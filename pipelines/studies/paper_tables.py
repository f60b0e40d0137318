"""Summaries as the papers' tables 1 to 4, in words and rounded numbers: see docs/studies.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from cache.errors import DataError
from pipelines import wording
from pipelines.studies.paper import Papers
from pipelines.studies.rendering import Table
from pipelines.studies.summary import Summary, difference
from pipelines.wording import MINUS, Scale
from train.labels import LabelKind
from train.metrics.distributions import MEASURES
from train.metrics.measures import MAIN

# Numbers of a cell: their unit stands in the title, nothing stands where there is none.
_percent = partial(wording.percent, digits=2, unit="", missing="", minus=MINUS)
_two = partial(wording.number, digits=2, missing="", minus=MINUS)
NAMES = {"scene": "scene (context)"}  # of parts, as the papers call them


def paper_tables(
    found: Sequence[Summary],
    dataset: str,
    confidence: float,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Table]:
    """Tables 1 to 4 as far as the data have them. own: head -> settings of its own. Raises
    DataError where no head has numbers."""
    known = next((one for one in found if not one.missing), None)
    if known is None:
        why = "; ".join(sorted({one.missing for one in found}))
        raise DataError(f"no head could be fitted: {why}")
    kind: LabelKind = known.numbers["kind"]
    papers = Papers(dataset, kind)
    heads = [one for one in found if not one.entry.without]
    made = []
    if kind != "distribution" and not all(one.missing for one in heads):
        made.append(_per_class(heads, papers))
    if kind != "multi" and not all(one.missing for one in heads):
        made.append(_heads(heads, papers, kind))
    for number, head, title in (
        (3, "hugme", "HugMe without each of its parts"),
        (4, "rrla", "RRLA without each of its parts"),
    ):
        rows = [one for one in found if one.entry.head == head]
        if rows:
            made.append(_ablations(number, title, rows, papers, confidence, kind))
    return [replace(table, notes=[*table.notes, *_settings(table, own or {})]) for table in made]


def _per_class(heads: Sequence[Summary], papers: Papers) -> Table:
    """HugMe's Table 1: average precision of each label, heads side by side."""
    there = [one for one in heads if not one.missing]
    labels = list(there[0].per_class)
    rows = []
    for label in labels:
        means = [float(np.mean(one.per_class[label])) for one in there]
        rows.append([label, f"{there[0].positives[label]:,}", *map(_percent, means)])
    rows.append(["mAP", "", *(_percent(one.mean["mAP"]) for one in there)])
    rows.append(["± over seeds", "", *(_percent(one.half["mAP"]) for one in there)])
    both = [
        (one.low, one.high) if one.main == "mAP" else (one.mean["mAP_low"], one.mean["mAP_high"])
        for one in there
    ]
    rows.append(["over pictures, from", "", *(_percent(low) for low, _ in both)])
    rows.append(["to", "", *(_percent(high) for _, high in both)])
    rows.append(["N evaluated", "", *(f"{one.numbers['n_evaluated']:,}" for one in there)])
    rows.append(["N dropped", "", *(f"{one.numbers['n_dropped']:,}" for one in there)])
    if papers.of == "emotic":
        values = [papers.value(one.entry.head, "", "mAP") for one in there]
        rows.append([f"mAP {papers.title}", "", *map(_two, values)])
    chance = f"Random order would reach an mAP of {_percent(there[0].mean['random_mAP'])} %."
    return Table(
        "table1",
        "Table 1: average precision of each label, %",
        ["label", "positives", *(one.entry.head for one in there)],
        rows,
        [*_means(there), chance, *_missing(heads), *_published(heads, papers)],
        groups=[len(labels)],
    )


def _heads(heads: Sequence[Summary], papers: Papers, kind: LabelKind) -> Table:
    """HugMe's Table 2: heads by what single labels, or distributions, are measured by."""
    there = [one for one in heads if not one.missing]
    some = ("accuracy", "balanced_accuracy") if kind == "single" else tuple(MEASURES)
    main = MAIN[kind]
    rows = [
        [
            one.entry.head,
            *(_with_half(one, name) for name in some),
            _interval(one.low, one.high, main.name),
            f"{one.numbers['n_evaluated']:,}",
            f"{one.numbers['n_dropped']:,}",
            *([_two(papers.value(one.entry.head, "", main.name))] if papers.values else []),
        ]
        for one in there
    ]
    return Table(
        "table2",
        f"Table 2: heads side by side{_unit(main.name)}",
        [
            "head",
            *(name.replace("_", " ") for name in some),
            f"{main.name} over pictures",
            "N",
            "dropped",
            *([papers.title] if papers.values else []),
        ],
        rows,
        [*_means(there), *_missing(heads), *_published(heads, papers)],
    )


def _ablations(
    number: int,
    title: str,
    rows: Sequence[Summary],
    papers: Papers,
    confidence: float,
    kind: LabelKind,
) -> Table:
    """A head, and below it the head without each of its parts."""
    full = rows[0]
    there = [one for one in rows if not one.missing]
    main = MAIN[kind].name
    more = ("C_F1", "O_F1") if full.entry.head == "rrla" and kind == "multi" else ()
    whole = papers.value(full.entry.head, "", main)
    cells = []
    for one in there:
        part = one.entry.without
        gap = low = high = math.nan
        if part and not full.missing:
            gap, low, high = difference(full, one, confidence)
        value = papers.value(one.entry.head, part, main)
        cells.append(
            [
                f"without {NAMES.get(part, part)}" if part else one.entry.head,
                _with_half(one, main),
                _interval(one.low, one.high, main),
                *(_with_half(one, extra) for extra in more),
                _signed(gap, main),
                _interval(low, high, main),
                *(
                    [_two(value), _two(value - whole, signed=True) if part else ""]
                    if papers.values
                    else []
                ),
            ]
        )
    return Table(
        f"table{number}",
        f"Table {number}: {title}{_unit(main)}",
        [
            "head",
            main,
            f"{main} over pictures",
            *(extra.replace("_", "-") for extra in more),
            "difference",
            "difference over pictures",
            *([papers.title, "published difference"] if papers.values else []),
        ],
        cells,
        [
            *_means(there),
            f"A difference is that to the first row, with its {confidence:.0%} interval over "
            "resamples of the pictures that both share.",
            *_missing(rows),
            *_published(rows, papers),
        ],
        groups=[1] if len(cells) > 1 else [],
    )


# ---- cells ---------------------------------------------------------------------------------


def _unit(measure: str) -> str:
    """Of a whole table, for its title."""
    unit = Scale.of(measure).unit
    return f",{unit}" if unit else ""


def _with_half(one: Summary, measure: str) -> str:
    """The mean over the seeds, and half of its interval where there are several."""
    scale = Scale.of(measure)
    mean, half = (scale.number(of.get(measure)) for of in (one.mean, one.half))
    return f"{mean} ± {half}" if mean and half else mean


def _interval(low: float, high: float, measure: str) -> str:
    return Scale.of(measure).interval(low, high, minus=MINUS)


def _signed(value: float, measure: str) -> str:
    return Scale.of(measure).number(value, signed=True, minus=MINUS)


# ---- notes ---------------------------------------------------------------------------------


def _means(there: Sequence[Summary]) -> list[str]:
    """What the numbers of these rows are means of; nothing where there is no row."""
    if not there:
        return []
    seeds = [one.seed for one in there[0].entry.settings]
    numbers = there[0].numbers
    level = f"{numbers['confidence']:.0%}"
    over = f"Means over the seeds {', '.join(map(str, seeds))}; ± is half of their {level} t "
    said = f"{over}interval; " if len(seeds) > 1 else f"One fit, seed {seeds[0]}; "
    n = f"{numbers['n_evaluated']:,} persons of {numbers['dataset']}"
    return [
        f"{said}intervals over pictures ({level}) resample the pictures of the {n}: what another "
        "seed would change is not in them."
    ]


def _missing(rows: Sequence[Summary]) -> list[str]:
    """A sentence for each row that is not there."""
    return [f"Not fitted: {one.entry.name} ({one.missing})." for one in rows if one.missing]


def _published(rows: Sequence[Summary], papers: Papers) -> list[str]:
    return papers.note(one.entry.head for one in rows)


def _settings(table: Table, own: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each head of the table that has settings of its own."""
    here = {*table.columns, *(row[0] for row in table.rows)}
    said = []
    for head, some in own.items():
        if head in here and some:
            changes = ", ".join(f"{n.removeprefix('train.')} {v}" for n, v in some.items())
            said.append(f"{head} has settings of its own ({changes}), else those of params.yaml.")
    return said
