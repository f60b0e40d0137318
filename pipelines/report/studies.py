"""What the report shows beside its own run: other runs, and what `emocache tables` found."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cache.errors import DataError
from cache.index import Index
from pipelines.comparison import compare_runs
from pipelines.results import Results
from pipelines.settings import Settings
from pipelines.studies import compare_page, table_figures
from pipelines.studies.page import Section, warnings_of


def studies_of(settings: Settings, index: Index, results: Results) -> list[Section]:
    """The runs of `report.beside` beside this one, and the pictures of `report.tables`; none of
    what is not set. Raises DataError for a folder that holds no such thing, or of other data."""
    found: list[Section] = []
    if settings.report.beside:
        for folder in settings.report.beside:
            if folder.resolve() == results.folder.resolve():
                raise DataError(
                    f"report.beside names {folder}, which is this very run: keep another one by "
                    "`cp -r results results-other` before the next is fitted, and name that"
                )
        compared = compare_runs([results.folder, *settings.report.beside], settings.evaluate)
        first, *others = compare_page.sections(compared)
        found += [replace(first, text=compare_page.warnings(compared)), *others]
    if settings.report.tables is not None:
        found += _tables(settings.report.tables, index)
    return found


def _tables(folder: Path, index: Index) -> list[Section]:
    result = _read(folder / "tables.json")
    if result["index"] != index.digest():
        raise DataError(
            f"{folder} is of {result['dataset']} (index {result['index'][:12]}), the report of "
            f"{index.dataset} (index {index.digest()[:12]}): run `emocache tables` on this data, "
            "or set report.tables to null"
        )
    first, *others = table_figures.sections(result) or [
        Section(table_figures.ABLATIONS, ["No part was left out, and no map was asked for."])
    ]
    said = [*warnings_of(result["note"], result["untrained"]), *first.text]
    return [replace(first, text=said), *others]


def _read(path: Path) -> dict[str, Any]:
    try:
        result = json.loads(path.read_text())
        result["cell"], result["index"], result["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} cannot be shown ({type(error).__name__}): run `emocache tables`, or set "
            "report.tables to null"
        ) from None
    return result
