"""An exported head behind the server: what it says, and what it cannot be asked."""

import shutil

import pytest
from starlette.testclient import TestClient

from cache.errors import CacheError
from pipelines.export import export
from pipelines.exported import ExportedHead, ExportedPredictor, Needed
from pipelines.predict import predictor_of
from pipelines.serve import run as server
from pipelines.serve.app import make_app
from pipelines.serve.desk import NO_WHAT_IF, Desk
from tests.pipelines.serve.conftest import HOME, LIMITS, picture, running, send
from tests.pipelines.serve.test_browser import all_of, choose, wait

pytestmark = pytest.mark.slow

TWO = picture(200, 120, seed=1)


@pytest.fixture(scope="module")
def folder(results, settings, tmp_path_factory):
    """The head of `results`, exported, with an empty card: its numbers are none."""
    found = tmp_path_factory.mktemp("exported") / "export"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.model_card.write", lambda *given: "")
        export(settings, results.head, found)
    return found


@pytest.fixture
def exported(folder, predictor) -> ExportedPredictor:
    """With the views of the other tests, which need no networks."""
    head = ExportedHead.open(folder)
    return ExportedPredictor(
        head, Needed(), predictor.networks, predictor.views, ["body: a 1 -> 2"]
    )


@pytest.fixture
def client(exported, folder):
    desk = Desk(exported, LIMITS, server.EXPORTED)
    with TestClient(make_app(desk), base_url=HOME) as found:
        yield found


def test_it_predicts_what_the_head_predicts(client, predictor):
    found, want = send(client, TWO).json(), predictor.answer(TWO).result(0.4)
    assert len(found["people"]) == 2
    for ours, theirs in zip(found["people"], want["people"], strict=True):
        assert (ours["box"], ours["head"]) == (theirs["box"], theirs["head"])
        assert ours["emotions"] == pytest.approx(theirs["emotions"], abs=1e-4)
        weights = [[one["weight"] for one in person["objects"]] for person in (ours, theirs)]
        assert weights[0] == pytest.approx(weights[1], abs=1e-4)
    batch = client.post("/api/predict/batch", files={"pictures": ("a", TWO)}).json()
    assert batch["pictures"][0]["people"] == found["people"]
    assert send(client, TWO, show="marked").json()["shown"]


def test_its_thresholds_are_its_own(client):
    about = client.get("/api/about").json()
    assert about["thresholds"] == {"calm": 0.25, "glad": 0.5, "tense": 0.75}
    assert about["kind"] == "multi" and about["differs"] == ["body: a 1 -> 2"]


def test_what_it_cannot_be_asked_is_said(client):
    about = client.get("/api/about").json()
    assert (about["removable"], about["edges"]) == ([], [])
    assert about["no_what_if"] == NO_WHAT_IF
    assert about["no_persons"] == server.EXPORTED
    found = send(client, TWO).json()
    assert found["token"] is None
    answer = client.post("/api/what-if", json={"token": "none", "person": 0})
    assert answer.status_code == 422 and answer.json()["detail"] == NO_WHAT_IF
    answer = client.get("/api/persons/1")
    assert answer.status_code == 404 and "exported" in answer.json()["detail"]


def test_the_server_takes_whichever_folder_it_is_given(
    folder, results, settings, predictor, exported, monkeypatch
):
    monkeypatch.setattr("pipelines.predict.Predictor.load", lambda *given: (predictor, given))
    monkeypatch.setattr(ExportedPredictor, "load", lambda *given: (exported, given))
    found, given = predictor_of(settings, results.head)
    assert found is predictor and given == (settings, results.head)
    found, given = predictor_of(settings, folder)
    assert found is exported and given == (folder, settings.weights, settings.device)
    assert server.persons_of(settings, exported) == server.EXPORTED


def test_a_damaged_folder_is_refused_before_it_serves(folder, settings, tmp_path):
    other = tmp_path / "export"
    shutil.copytree(folder, other)
    (other / "head.onnx").write_bytes(b"other")
    with pytest.raises(CacheError, match=r"head\.onnx is not the file"):
        predictor_of(settings, other)


def test_the_page_lists_objects_and_says_why_nothing_can_be_taken_away(
    browser, exported, folder, predictor, tmp_path
):
    with running(Desk(exported, LIMITS, server.EXPORTED)) as url:
        browser.get_log("browser")
        browser.get(url)
        choose(browser, tmp_path)
        wait(browser, lambda: len(all_of(browser, ".card")) == 2)
        assert all_of(browser, ".what-if") == []
        said = [one.text for one in all_of(browser, ".what-if-not")]
        assert said == [f"{NO_WHAT_IF[0].upper()}{NO_WHAT_IF[1:]}."] * 2
        listed = all_of(browser, ".card:first-child .seen-objects li")
        want = predictor.answer(TWO).marks[0].objects
        assert [one.text.split()[0] for one in listed] == [thing.name for thing in want]
        assert browser.get_log("browser") == []
        browser.get("about:blank")
