"""The tables and the sensitivity figure of the papers, from the cache, as text and pictures."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cache.errors import DataError
from cache.files import write_atomic
from pipelines.evaluation import MAIN, PERCENT, plain
from pipelines.settings import Settings
from pipelines.stages import RESULTS
from pipelines.studies import paper, rendering
from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.paper import Papers, Summary, difference
from pipelines.studies.rendering import Table
from pipelines.studies.trials import Trial, measuring
from train import metrics
from train.settings import Train

Points = Sequence[tuple[float, float, Train]]  # beta, lambda, settings
PAPER = (0.5, 0.8)  # HugMe's beta and lambda
NAMES = {"scene": "scene (context)"}


def plan(settings: Settings) -> dict[str, Any]:
    """What `tables` would fit: see `Trials.plan`."""
    rows = paper.entries(settings.train, settings.tables)
    points = paper.grid(settings.train, settings.tables)
    return measuring(settings, ["val", settings.evaluate.split]).plan(_all(rows, points))


def _all(rows: Sequence[paper.Entry], points: Points) -> list[Train]:
    return [one for row in rows for one in row.settings] + [one for _, _, one in points]


def tables(
    settings: Settings,
    progress: Callable[[int, int, str], None] = lambda done, total, note: None,
) -> dict[str, Any]:
    """Every row of the papers' tables and every point of the figure, fitted where that has not
    been done. Below results/tables stand each table as .md, .tex and .csv, the figure as .svg,
    .pdf, .png and .csv, all of them as tables.html, and the numbers as tables.json. Gives those
    numbers, and tables, the `Table`s. Raises DataError where no head could be fitted."""
    split, confidence = settings.evaluate.split, settings.evaluate.confidence
    trials = measuring(settings, ["val", split])
    rows = paper.entries(settings.train, settings.tables)
    points = paper.grid(settings.train, settings.tables)
    asked = _all(rows, points)
    found: dict[int, Trial] = {}

    def watch(number: int, row: Mapping[str, float]) -> None:
        progress(len(found), len(asked), f"{asked[number].head}, epoch {row['epoch']:.0f}")

    progress(0, len(asked), "")
    for number, trial in trials.run(asked, watch):
        found[number] = trial
        progress(len(found), len(asked), "")
    seeds = len(settings.tables.seeds)
    summaries = [
        paper.summarise(row, [found[seeds * at + k] for k in range(seeds)], split, confidence)
        for at, row in enumerate(rows)
    ]
    cells = [found[seeds * len(rows) + n] for n in range(len(points))]
    dataset = trials.index.dataset
    made = papers_tables(summaries, dataset, confidence, settings.tables.settings)
    folder = RESULTS / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    for table in made:
        write_atomic(folder / f"{table.name}.md", rendering.markdown(table).encode())
        write_atomic(folder / f"{table.name}.tex", rendering.latex(table).encode())
        rendering.write_csv(table, folder / f"{table.name}.csv")
    figure = _figure(settings, points, cells, folder)
    missing = {_named(one): one.missing for one in summaries if one.missing}
    for (beta, share, _), trial in zip(points, cells, strict=True):
        if trial.status != "ok":
            missing[f"the figure at beta {beta:g}, lambda {share:g}"] = trial.reason
    records = [trial.record for trial in found.values() if trial.record]
    untrained = sorted({name for one in records for name in one.get("untrained", [])})
    result = {
        "dataset": dataset,
        "note": trials.index.note,
        "split": split,
        "seeds": settings.tables.seeds,
        "confidence": confidence,
        "index": trials.digest,
        "fits": len({trial.key for trial in found.values() if trial.key}),
        "untrained": untrained,
        "missing": missing,
        "rows": [_numbers(one) for one in summaries if not one.missing],
        "figure2": [
            {"beta": beta, "lambda": share, "value": _value(trial, split)}
            for (beta, share, _), trial in zip(points, cells, strict=True)
        ],
    }
    text = json.dumps(plain(result), indent=1, ensure_ascii=False)
    write_atomic(folder / "tables.json", (text + "\n").encode())
    numbers = next(one for one in summaries if not one.missing).numbers
    page = write_page(
        folder / "tables.html",
        "The papers' tables",
        [
            ("data", dataset),
            ("split", split),
            ("N", f"{numbers['n_evaluated']:,} ({numbers['n_dropped']:,} dropped)"),
            ("seeds", ", ".join(map(str, settings.tables.seeds))),
            ("fits", f"{result['fits']:,}"),
            ("index", trials.digest[:12]),
            ("device", "; ".join([trials.device, *trials.words()])),
        ],
        warnings_of(trials.index.note, untrained),
        [
            *(Section(one.title, table=replace(one, title="")) for one in made),
            *([figure] if figure else []),
        ],
    )
    fitted = {t.key for t in found.values() if t.new and t.status in ("ok", "failed")}
    return {
        **result,
        "fitted": len(fitted),
        "ways": trials.words(),
        "tables": made,
        "report": str(page),
    }


def _named(one: Summary) -> str:
    entry = one.entry
    return f"{entry.head} without {entry.without}" if entry.without else entry.head


def _numbers(one: Summary) -> dict[str, Any]:
    return {
        "head": one.entry.head,
        "without": one.entry.without,
        "measure": one.main,
        "mean": dict(one.mean),
        "half_over_seeds": dict(one.half),
        "low": one.low,
        "high": one.high,
        "ap": {label: values.tolist() for label, values in one.per_class.items()},
        **{name: one.numbers[name] for name in ("n_evaluated", "n_dropped", "cache_key")},
        "trials": list(one.keys),
    }


def _value(trial: Trial, split: str) -> float | None:
    numbers = trial.measured(split)
    return numbers[MAIN[numbers["kind"]][0]] if numbers else None


# ---- tables --------------------------------------------------------------------------------


def papers_tables(
    found: Sequence[Summary],
    dataset: str,
    confidence: float,
    own: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Table]:
    """Tables 1 to 4 as far as the data have them: see docs/studies.md."""
    known = next((one for one in found if not one.missing), None)
    if known is None:
        why = "; ".join(sorted({one.missing for one in found}))
        raise DataError(f"no head could be fitted: {why}")
    kind = known.numbers["kind"]
    papers = Papers(dataset, kind)
    heads = [one for one in found if not one.entry.without]
    made = []
    if kind != "distribution":
        made.append(_per_class(heads, papers, dataset))
    if kind != "multi":
        made.append(_heads(heads, papers, dataset, kind))
    for name, head, title in (
        ("table3", "hugme", "HugMe without each of its parts"),
        ("table4", "rrla", "RRLA without each of its parts"),
    ):
        rows = [one for one in found if one.entry.head == head]
        if rows:
            made.append(_ablations(name, title, rows, papers, dataset, confidence))
    return [replace(table, notes=[*table.notes, *_settings(table, own or {})]) for table in made]


def _settings(table: Table, own: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each head of the table that has settings of its own."""
    here = {*table.columns, *(row[0] for row in table.rows)}
    said = []
    for head, some in own.items():
        if head in here and some:
            changes = ", ".join(f"{n.removeprefix('train.')} {v}" for n, v in some.items())
            said.append(f"{head} has settings of its own ({changes}), else those of params.yaml.")
    return said


def _per_class(heads: Sequence[Summary], papers: Papers, dataset: str) -> Table:
    """HugMe's Table 1: average precision of each label, heads side by side."""
    there = [one for one in heads if not one.missing]
    labels = list(there[0].per_class)
    rows = []
    for label in labels:
        values = [one.per_class[label] for one in there]
        means = [float(np.mean(v)) for v in values]
        rows.append([label, f"{there[0].positives[label]:,}", *(_percent(mean) for mean in means)])
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
    if papers.values and papers.of == "emotic":
        values = [papers.value(one.entry.head, "", "mAP") for one in there]
        rows.append([f"mAP {papers.title}", "", *map(_two, values)])
    return Table(
        "table1",
        "Table 1: average precision of each label, %",
        ["label", "positives", *(one.entry.head for one in there)],
        rows,
        [
            _means(there),
            *([f"Random order would reach an mAP of {_percent(there[0].mean['random_mAP'])} %."]),
            *_missing(heads),
            *papers.note(dataset, heads),
        ],
        groups=[len(labels)],
    )


def _heads(heads: Sequence[Summary], papers: Papers, dataset: str, kind: str) -> Table:
    """HugMe's Table 2: heads by what single labels, or distributions, are measured by."""
    there = [one for one in heads if not one.missing]
    some = ("accuracy", "balanced_accuracy") if kind == "single" else metrics.MEASURES
    main, _ = MAIN[kind]  # type: ignore[index]
    rows = [
        [
            one.entry.head,
            *(_with_half(one, name) for name in some),
            _interval(one.low, one.high, main),
            f"{one.numbers['n_evaluated']:,}",
            f"{one.numbers['n_dropped']:,}",
            *([_two(papers.value(one.entry.head, "", main))] if papers.values else []),
        ]
        for one in there
    ]
    unit = ", %" if kind == "single" else ""
    return Table(
        "table2",
        f"Table 2: heads side by side{unit}",
        [
            "head",
            *(name.replace("_", " ") for name in some),
            f"{main} over pictures",
            "N",
            "dropped",
            *([papers.title] if papers.values else []),
        ],
        rows,
        [_means(there), *_missing(heads), *papers.note(dataset, heads)],
    )


def _ablations(
    name: str,
    title: str,
    rows: Sequence[Summary],
    papers: Papers,
    dataset: str,
    confidence: float,
) -> Table:
    full = rows[0]
    there = [one for one in rows if not one.missing]
    main = there[0].main if there else "mAP"
    more = ("C_F1", "O_F1") if name == "table4" and main == "mAP" else ()
    cells = []
    for one in there:
        part = one.entry.without
        gap = math.nan, math.nan, math.nan
        if part and not full.missing:
            gap = difference(full, one, confidence)
        value = papers.value(one.entry.head, part, main)
        whole = papers.value(one.entry.head, "", main)
        cells.append(
            [
                f"without {NAMES.get(part, part)}" if part else one.entry.head,
                _with_half(one, main),
                _interval(one.low, one.high, main),
                *(_with_half(one, extra) for extra in more),
                _signed(gap[0], main) if part else "",
                _interval(gap[1], gap[2], main) if part else "",
                *(
                    [_two(value), _signed_two(value - whole) if part else ""]
                    if papers.values
                    else []
                ),
            ]
        )
    number = name.removeprefix("table")
    return Table(
        name,
        f"Table {number}: {title}{', %' if main in PERCENT else ''}",
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
            _means(there),
            f"A difference is that to the first row, with its {confidence:.0%} interval over "
            "resamples of the pictures that both share.",
            *_missing(rows),
            *papers.note(dataset, rows),
        ],
        groups=[1] if len(cells) > 1 else [],
    )


def _means(there: Sequence[Summary]) -> str:
    seeds = [one.seed for one in there[0].entry.settings] if there else []
    numbers = there[0].numbers if there else {}
    level = f"{numbers.get('confidence', 0.95):.0%}"
    over = f"Means over the seeds {', '.join(map(str, seeds))}; ± is half of their {level} t "
    one = f"One fit, seed {', '.join(map(str, seeds))}; "
    said = f"{over}interval; " if len(seeds) > 1 else one
    n = f"{numbers.get('n_evaluated', 0):,} persons of {numbers.get('dataset', '')}"
    return (
        f"{said}intervals over pictures ({level}) resample the pictures of the {n}: what another "
        "seed would change is not in them."
    )


def _missing(rows: Sequence[Summary]) -> list[str]:
    """A sentence for each row that is not there."""
    return [f"Not fitted: {_named(one)} ({one.missing})." for one in rows if one.missing]


def _scale(measure: str) -> float:
    return 100 if measure in PERCENT else 1


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.2f}"


def _two(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _signed_two(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def _signed(value: float, measure: str) -> str:
    return _signed_two(_scale(measure) * value)


def _with_half(one: Summary, measure: str) -> str:
    value, half = one.mean.get(measure, math.nan), one.half.get(measure, math.nan)
    digits = 2 if measure in PERCENT else 4
    if math.isnan(value):
        return ""
    scale = _scale(measure)
    tail = "" if math.isnan(half) else f" ± {scale * half:.{digits}f}"
    return f"{scale * value:.{digits}f}{tail}"


def _interval(low: float, high: float, measure: str) -> str:
    if math.isnan(low):
        return ""
    digits = 2 if measure in PERCENT else 4
    ends = [f"{_scale(measure) * end:.{digits}f}".replace("-", "−") for end in (low, high)]
    return " to ".join(ends)


# ---- figure --------------------------------------------------------------------------------


def _figure(
    settings: Settings,
    points: Points,
    trials: Sequence[Trial],
    folder: Path,
) -> Section | None:
    """HugMe's Figure 2: the main measure over beta and lambda."""
    from pipelines.studies import figures

    split = settings.evaluate.split
    values = [_value(trial, split) for trial in trials]
    if not any(value is not None for value in values):
        return None
    kind = next(t.measured(split)["kind"] for t in trials if t.measured(split))
    main, more = MAIN[kind]
    scale, unit = (100, " %") if main in PERCENT else (1, "")
    steps = sorted({beta for beta, _, _ in points})
    grid = np.full((len(steps), len(steps)), np.nan)
    for (beta, share, _), value in zip(points, values, strict=True):
        if value is not None:
            grid[steps.index(share), steps.index(beta)] = scale * value
    mark = tuple(steps.index(one) if one in steps else -1 for one in reversed(PAPER))
    ticks = [f"{step:g}" for step in steps]
    figure = figures.heat_map(
        grid,
        ("β", ticks),
        ("λ", ticks),
        f"{main} on {split}{unit}",
        None if -1 in mark else mark,
        more,
    )
    for ending in ("svg", "pdf", "png"):
        figures.save(figure, folder / f"figure2.{ending}")
    rows = [
        [f"{beta:g}", f"{share:g}", "" if value is None else f"{value:.6f}"]
        for (beta, share, _), value in zip(points, values, strict=True)
    ]
    numbers = rendering.Table("figure2", "Figure 2", ["beta", "lambda", main], rows)
    rendering.write_csv(numbers, folder / "figure2.csv")
    seed = settings.tables.seeds[0]
    known = next(t for t in trials if t.measured(split)).measured(split)
    width = 50 * (known[f"{main}_high"] - known[f"{main}_low"]) * (scale / 100)
    framed = "" if -1 in mark else "The frame is the paper's choice. "
    level = f"{settings.evaluate.confidence:.0%}"
    caption = (
        f"HugMe over β, the weight of its classifier against the label view, and λ, that of L_C "
        f"against L_DC; one fit a cell, seed {seed}, N {known['n_evaluated']:,}. {framed}A cell's "
        f"{level} interval over pictures is about ± {width:.2f}{unit}."
    )
    return Section("Figure 2: how HugMe depends on β and λ", figures=[(caption, figure)])
