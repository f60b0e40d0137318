"""Pages about recordings: windows in place of pictures, nothing is opened."""

import html
import re

import numpy as np
import pytest

from cache.errors import CacheError
from cache.index import Index
from pipelines import stages
from pipelines.contact_sheet import write
from pipelines.recordings import PEOPLE, WINDOWS, place_of, terms_of
from tests.pipelines.recordings import SUBJECTS, settings, write_recordings
from tests.pipelines.recordings import WINDOWS as EACH
from train.probe import probe

HELO = ("train.head=helo", "train.helo.width=16", "train.helo.tokens=[3, 2]", "train.helo.heads=2")


def text_of(page: str) -> str:
    shown = re.sub(r"<script.*?</script>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", shown)))


@pytest.fixture(params=["distribution", "single", "multi"])
def recorded(request, tmp_path, monkeypatch):
    """A cache of that kind of labels."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "features", write_recordings(tmp_path / "features", request.param)


def test_a_report_says_which_window_in_place_of_a_picture(recorded):
    root, _ = recorded
    given = settings(root, *HELO)
    stages.train(given)
    numbers = stages.evaluate(given)["test"]
    page = stages.report(given).read_text()
    said = text_of(page)
    assert numbers["n_evaluated"] == EACH and numbers["n_subjects"] == 1
    assert re.search(r"window \d+ to \d+ s of S5/S5.pkl#\d+-baseline", said)
    assert "no interval" in said and "Windows" in said
    assert "pictures" not in said.lower().replace("interval over pictures", "")
    assert "transport plan, 3 × 2 tokens" in said
    assert "eeg" in said and "face" in said
    assert not re.search(r"<img|<image", page)


def test_a_contact_sheet_is_a_table_of_windows(recorded):
    root, index = recorded
    prepared = {
        "dataset": "made",
        "note": "made-up labels",
        "root": "gone",
        "labels": 4,
        "kind": index.kind,
        "pictures": {"train": {"ok": 8}},
        "persons": {"train": {"ok": 80}},
        "labels_per_person": {"train": 1.0},
        "origins": {"annotated": 80},
        "rows": {},
        "oddities": {},
        "warnings": [],
        "dropped": [],
    }
    page = write(settings(root), prepared, root.parent / "sheet.html").read_text()
    said = text_of(page)
    assert "<img" not in page and "eeg" in said and "physiological" in said
    for subject in range(SUBJECTS):  # some of each
        assert f"S{subject}/S{subject}.pkl#" in said


def test_words_and_places(recorded, tmp_path):
    _, index = recorded
    assert terms_of(index) == WINDOWS != PEOPLE
    assert place_of(index, 1) == "window 30 to 90 s of S0/S0.pkl#1-baseline"
    again = Index.read(tmp_path / "features")
    assert again.drawn == "subjects"
    assert len(np.unique(again.units)) == SUBJECTS


def test_a_head_of_pictures_is_refused_with_the_heads_that_can(recorded):
    root, _ = recorded
    with pytest.raises(CacheError, match=r"recordings, with the views eeg, face, .*train.head"):
        stages.train(settings(root, "train.head=hugme"))
    with pytest.raises(CacheError, match=r"no view 'eegg'; did you mean 'eeg'"):
        stages.train(settings(root, "train.mlp.views=[eegg]"))


def test_probe_says_nothing_of_a_signal_where_one_subject_is_tested(recorded):
    root, _ = recorded
    found = probe(root, settings(root).train, settings(root).evaluate)
    assert {row["signal"] for row in found["rows"]} == {None} and found["drawn"] == "subjects"
