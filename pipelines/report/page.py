"""One run as one HTML file: plain data in, a page out.

Charts are SVG written in `templates/report.html` from the values of `charts`, and need no script:
with 26 labels and 12 persons they are about 1 MB. The gallery of everybody, where `data` has one,
is drawn by `templates/report.js`, the only script.
"""

from pathlib import Path
from typing import Any

from cache.errors import DataError
from pipelines import pages
from pipelines.evaluation import fitted_elsewhere
from pipelines.looks import sheet
from pipelines.recordings import PEOPLE
from pipelines.report import calibration, channels, charts, packing, persons, words
from pipelines.report.data import ReportData
from pipelines.studies.page import contents
from train.labels import LabelKind


def write(data: ReportData, path: Path) -> Path:
    """Write the page to `path` and return it.

    Raises DataError when the metrics are not of `data.split`, for a graph that is not (C, C), and
    for a picture that cannot be read.
    """
    script = None if data.gallery is None else "report.js"
    return pages.render("report.html", path, script=script, **_content(data))


def _content(data: ReportData) -> dict[str, Any]:
    """What the template is given."""
    if data.split not in data.metrics:
        raise DataError(
            f"The report is of {data.split}, but the metrics are of "
            f"{', '.join(k for k in data.metrics if k != 'provenance')}: set evaluate.split."
        )
    provenance, numbers = data.metrics["provenance"], data.metrics[data.split]
    kind: LabelKind = numbers["kind"]
    table = charts.table(data.confusion, data.labels) if kind == "single" else None
    shares = kind == "distribution"
    # Learned correlations stand beside the true ones where there are such.
    beside = charts.CORRELATIONS if shares else ()
    graphs = {name: graph for name, graph in data.graphs.items() if name not in beside}
    return {
        "data": data,
        "numbers": numbers,
        "kind": kind,
        "verdict": words.verdict(numbers, data),
        "measures": words.measures(numbers) if shares else [],
        "facts": words.facts(provenance),
        "elsewhere": fitted_elsewhere(provenance),
        "untrained": words.untrained(data.networks),
        "classes": charts.classes(data.per_class, table),
        "confusion": None if table is None else charts.confusion(table, data.labels),
        "shares": charts.shares(data.scores) if shares else None,
        "recorded": data.terms is not PEOPLE,
        "pr": charts.pr(data.pr, data.per_class),
        "training": charts.training(data.curves, provenance.get("best_epoch"), kind),
        "graphs": charts.graphs(data.labels, graphs),
        "calibration": calibration.content(data, kind),
        "correlations": charts.correlations(data.scores, data.graphs) if shares else None,
        "spread": persons.spread(data) if shares else [],
        "cooccurrence": charts.cooccurrences(
            data.scores, [row["threshold"] for row in data.per_class]
        )
        if kind == "multi"
        else None,
        "persons": persons.cards(data, kind),
        "looks": [(look.caption, pages.data_url(sheet(look), 85)) for look in data.looks],
        "gated": channels.said(data.looks),
        "transported": any(person.transport is not None for person in data.persons),
        "weighed": any(one.weight is not None for p in data.persons for one in p.mark.objects),
        "thresholds": any(row["threshold"] == row["threshold"] for row in data.per_class),
        "probabilities": persons.probabilities(data.persons),
        "gallery": _gallery(data),
        "studies": contents(data.studies),
    }


def _gallery(data: ReportData) -> dict[str, Any] | None:
    """What the page's script reads, and the thumbnails; None where there is no gallery."""
    if (everybody := data.gallery) is None:
        return None
    values = [everybody.scores.min(), everybody.scores.max()]
    if everybody.shares is not None:
        values.append(everybody.shares.max())
    ends = persons.scale([float(value) for value in values])
    return {
        "columns": packing.packed(everybody, ends),
        "thumbnails": packing.lines(everybody),
    }
