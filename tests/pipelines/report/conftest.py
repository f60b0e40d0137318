"""Pages of reports on made-up results, one of each kind of labels."""

from dataclasses import replace

import pytest

from pipelines.report import page as pages
from tests.pipelines.report_data import (
    report_data,
)
from tests.shared import shared


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return report_data(tmp_path_factory.mktemp("results"), shared("data/emotic_pictures"))


@pytest.fixture(scope="session")
def page(data, tmp_path_factory):
    return pages.write(data, tmp_path_factory.mktemp("report") / "deep" / "report.html")


@pytest.fixture(scope="session")
def of_kind(tmp_path_factory):
    """kind -> what its report shows, made once."""
    made = {}

    def get(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            made[kind] = report_data(folder, shared("data/emotic_pictures"), kind=kind)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def page_of(of_kind, tmp_path_factory):
    """kind -> the page of its report, written once."""
    made = {}

    def get(kind):
        if kind not in made:
            path = tmp_path_factory.mktemp("report") / f"{kind}.html"
            made[kind] = pages.write(of_kind(kind), path)
        return made[kind]

    return get


def written(data, folder, **numbers) -> str:
    """The page, with other numbers of the split."""
    metrics = {**data.metrics, "test": {**data.metrics["test"], **numbers}}
    return pages.write(replace(data, metrics=metrics), folder / "report.html").read_text()
