"""Several runs side by side, as a page: what they are, whether they differ, and in which labels."""

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.studies.page import Section, warnings_of, write_page
from pipelines.studies.rendering import Table
from pipelines.wording import MINUS, Scale, between
from train.metrics.measures import Measure, measure

if TYPE_CHECKING:  # loaded when a figure is drawn
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
SHARE_ERROR = Measure("share_error", "mean |d − p|", more=False)
AP = Measure("AP", "average precision", percent=True)


def write(found: Mapping[str, Any], path: Path) -> Path:
    """Write the page to `path` and return it. found: what `comparison.compare_runs` gives."""
    runs = found["runs"]
    first = runs[0]
    return write_page(
        path,
        f"{len(runs)} runs on {first['dataset']}, {found['split']}",
        [
            ("data", first["dataset"]),
            ("split", found["split"]),
            ("N scored by all", f"{found['n_evaluated']:,} in {found['n_pictures']:,} pictures"),
            ("resamples", f"{found['resamples']:,} of {found['drawn']}, shared"),
            ("interval", f"{found['confidence']:.0%}, basic"),
            ("seed of the resamples", str(found["seed"])),
        ],
        warnings(found),
        sections(found),
    )


def sections(found: Mapping[str, Any]) -> list[Section]:
    """The runs that `comparison.compare_runs` compared, their differences, those of each label."""
    first = found["runs"][0]
    return [
        Section("Runs", table=runs_table(found)),
        Section(
            "Differences",
            [f"Each run less {first['name']}, person by person on the same resamples."],
            tests_table(found),
        ),
        *_by_label(found),
    ]


def warnings(found: Mapping[str, Any]) -> list[str]:
    """What must be said above the numbers: of the data, of networks without trained weights, of
    heads fitted on other data, and of many comparisons."""
    runs, tests = found["runs"], len(found["tests"])
    notes = dict.fromkeys(run["note"] for run in runs if run["note"])
    untrained = dict.fromkeys(one for run in runs for one in run["untrained"])
    elsewhere = [f"{run['name']} was {run['elsewhere']}." for run in runs if run["elsewhere"]]
    several = (
        f"{tests} comparisons, and more by label: of heads of equal worth one in twenty differs "
        "with p below 0.05 by chance. Go by p (Holm), choose on val, compare once on test."
    )
    said = [*notes, *warnings_of("", list(untrained)), *elsewhere]
    return [*said, several] if tests > 1 else said


def runs_table(found: Mapping[str, Any]) -> Table:
    """A row a run: what it is, and its measures with intervals."""
    runs = found["runs"]
    names = list(runs[0]["numbers"])
    columns = ["", "head", "seed", "folder", "cache key", "N dropped", "N not scored by all"]
    cells = [
        [
            run["name"],
            run["head"],
            str(run["seed"]),
            run["folder"],
            run["cache_key"][:12],
            f"{run['n_dropped']:,}",
            f"{run['n_only']:,}",
            *(_with_interval(run["numbers"][name], Scale.of(name)) for name in names),
        ]
        for run in runs
    ]
    heads = [f"{measure(n).title}{Scale.of(n).unit} {_way(measure(n))}" for n in names]
    note = (
        f"Numbers are of the {found['n_evaluated']:,} persons that all have scored, and may differ "
        "from those of a run by itself. An interval tells what other pictures would change, not "
        "another seed."
    )
    return Table("runs", "", [*columns, *heads], cells, [note])


def tests_table(found: Mapping[str, Any]) -> Table:
    """A row a test: the difference to the first run with interval, p and Holm's p."""
    runs = {run["name"]: run for run in found["runs"]}
    first = found["runs"][0]
    rows, groups, last = [], [], ""
    for number, row in enumerate(found["tests"]):
        if row["run"] != last:
            groups.append(number)
            last = row["run"]
        what, scale = measure(row["measure"]), Scale.of(row["measure"])
        rows.append(
            [
                f"{row['run']}, {runs[row['run']]['head']}",
                what.title + scale.unit,
                scale.number(row["a"], minus=MINUS),
                scale.number(row["b"], minus=MINUS),
                *_difference(row, scale),
                _p(row["p"], found["resamples"]),
                _p(row["p_holm"]),
                _verdict(row, what, 1 - found["confidence"]),
            ]
        )
    columns = ["run", "measure", first["name"], "run", "difference", "interval", "p"]
    notes = [
        f"Percent differ in points. p by paired bootstrap, never below 2 / "
        f"({found['resamples']:,} + 1); p (Holm) is adjusted for all tests of this table. The "
        "verdict goes by it and the interval.",
    ]
    return Table("tests", "", [*columns, "p (Holm)", "verdict"], rows, notes, groups)


def labels_table(found: Mapping[str, Any], run: str) -> Table:
    """A row a label, as `found` has them: both values, the difference, p and Holm's p."""
    what = _of_labels(found)
    scale = Scale(100, " %", 2) if what.percent else Scale(1, "", 4)
    shares = found["kind"] == "distribution"
    rows = [
        [
            row["label"],
            *([] if shares else [f"{row['positives']:,}"]),
            scale.number(row["a"], missing="–"),
            scale.number(row["b"], missing="–"),
            *_difference(row, scale),
            _p(row["p"], found["resamples"]),
            _p(row["p_holm"]),
        ]
        for row in found["per_label"]
        if row["run"] == run
    ]
    first = found["runs"][0]["name"]
    counted = [] if shares else ["positives"]
    columns = ["label", *counted, first, run, "difference", "interval", "p", "p (Holm)"]
    known = sum(row["p"] is not None for row in found["per_label"])
    notes = [f"p (Holm) is adjusted for all {known} labels and runs."]
    if known * 2 / (found["resamples"] + 1) >= 1 - found["confidence"]:
        enough = math.ceil(2 * known / (1 - found["confidence"]))
        notes.append(
            f"So many tests on {found['resamples']:,} resamples cannot show one that stands: set "
            f"evaluate.bootstrap above {enough:,}."
        )
    return Table(f"labels-{run}", f"{what.title}{scale.unit}", columns, rows, notes)


def figure_of(found: Mapping[str, Any], run: str) -> "Figure":
    """The differences of each label that has one as dots with intervals, the greatest gain on
    top."""
    from pipelines.studies.figures import differences

    what = _of_labels(found)
    factor = 100 if what.percent else 1
    rows = [
        (
            row["label"],
            *(
                math.nan if row[name] is None else factor * row[name]
                for name in ("difference", "low", "high")
            ),
        )
        for row in found["per_label"]
        if row["run"] == run and row["difference"] is not None
    ]
    if not what.more:
        rows.sort(key=lambda row: (math.isnan(row[1]), row[1]))
    unit = ", points" if what.percent else ""
    return differences(rows, f"{what.title}{unit}: {run} − A", what.more)


def _by_label(found: Mapping[str, Any]) -> list[Section]:
    sections = []
    first, *others = found["runs"]
    for run in others:
        tested = sum(
            row["run"] == run["name"] and row["low"] is not None for row in found["per_label"]
        )
        caption = (
            f"{run['name']} ({run['head']}) less {first['name']} ({first['head']}), each label "
            f"with its {found['confidence']:.0%} interval. Filled: the interval leaves out 0, "
            f"better in blue and worse in red; hollow: it does not. Of {tested} labels about one "
            "in twenty is filled by chance."
        )
        sections.append(
            Section(
                f"Labels: {run['name']} ({run['head']}) less {first['name']} ({first['head']})",
                table=labels_table(found, run["name"]),
                figures=[(caption, figure_of(found, run["name"]))],
            )
        )
    return sections


def _of_labels(found: Mapping[str, Any]) -> Measure:
    return AP if found["per_label_measure"] == "AP" else SHARE_ERROR


def _with_interval(one: Row, scale: Scale) -> str:
    ends = between(one["low"], one["high"], scale.number)
    return f"{scale.number(one['value'], missing='–')} ({ends})"


def _difference(row: Row, scale: Scale) -> list[str]:
    shown = partial(scale.number, signed=True, minus=MINUS, missing="–")
    return [shown(row["difference"]), between(row["low"], row["high"], shown)]


def _p(p: float | None, resamples: int = 0) -> str:
    """resamples: of a bootstrap's own p, whose least value they decide; 0 where it is adjusted."""
    if p is None:
        return "–"
    return f"{'≤ ' if resamples and p <= 2 / (resamples + 1) else ''}{p:.2g}"


def _verdict(row: Row, what: Measure, level: float) -> str:
    if row["p_holm"] is None or row["low"] is None:
        return "unknown"
    if not (row["low"] > 0 or row["high"] < 0):
        return "no difference shown"
    if row["p_holm"] >= level:
        return "not after adjustment"
    return "better" if (row["difference"] > 0) == what.more else "worse"


def _way(one: Measure) -> str:
    return "↑" if one.more else "↓"
