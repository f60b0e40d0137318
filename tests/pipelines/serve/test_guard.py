"""Who may ask: this machine's names, this server's own page, and programs."""

import pytest
from starlette.testclient import TestClient

from pipelines.serve.app import make_app
from pipelines.serve.run import is_loopback
from tests.pipelines.serve.conftest import HOME, picture, send

GOOD = picture()
ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:8517", "localhost:8517", "LOCALHOST", "[::1]:8517", "127.0.0.1"],
)
def test_names_of_this_machine_are_answered(client, host):
    assert client.get("/healthz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8517", "127.0.0.1.evil.example", "localhost.evil", "", "[", "@"],
)
def test_a_foreign_name_that_leads_here_is_refused(client, host):
    for way, path in (("GET", "/"), ("GET", "/api/about"), ("POST", "/api/predict")):
        answer = client.request(way, path, headers={"host": host})
        assert answer.status_code == 400
        assert "the names of this machine alone" in answer.json()["detail"]


def test_on_a_named_address_any_name_is_answered(desk):
    with TestClient(make_app(desk, None), base_url=HOME) as client:
        assert client.get("/healthz", headers={"host": "lab-3.example"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"origin": ""},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8517"},  # another origin than 127.0.0.1:8517
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": HOME, "sec-fetch-site": "cross-site"},
    ],
)
@pytest.mark.parametrize("path", ["/api/predict", "/api/predict/batch", "/api/what-if"])
def test_a_page_of_another_site_is_refused(client, finds, path, headers):
    before = finds.calls
    answer = client.post(path, files={"picture": ("a", GOOD)}, headers=headers)
    assert answer.status_code == 403
    assert "a page of another site" in answer.json()["detail"]
    assert finds.calls == before  # no network ran for it


@pytest.mark.parametrize("path", ["/api/persons", "/api/persons/1"])
def test_a_page_of_another_site_has_no_person_shown(client, desk, path):
    """It could not read the answer, but each takes the place of a picture that is kept."""
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert client.get(path, headers=headers).status_code == 403
    assert not desk._kept
    assert client.get(path, headers={"sec-fetch-site": "same-origin"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"origin": HOME}, {"origin": HOME, "sec-fetch-site": "same-origin"}],
)
def test_its_own_page_and_programs_are_answered(client, headers):
    files = {"picture": ("a", GOOD)}
    assert client.post("/api/predict", files=files, headers=headers).status_code == 200


def test_nobody_else_may_read_and_nothing_is_remembered(client, desk, monkeypatch):
    """On every answer, of errors too; no cookie, and no leave for other origins."""
    monkeypatch.setattr(desk.predictor, "answer", lambda *a, **k: 1 / 0)
    answers = {
        200: client.get("/", headers={"origin": "http://evil.example"}),
        404: client.get("/none"),
        403: client.post("/api/predict", headers={"origin": "null"}),
        500: send(client, GOOD),
    }
    for status, answer in answers.items():
        assert answer.status_code == status
        assert ALWAYS.items() <= answer.headers.items()
        assert "script-src 'self';" in answer.headers["content-security-policy"]
        assert "unsafe" not in answer.headers["content-security-policy"]
        for name in ("set-cookie", "access-control-allow-origin", "server"):
            assert name not in answer.headers
    assert answers[500].json() == {"detail": "the server failed on this: where it runs stands why"}
    monkeypatch.undo()
    assert send(client, GOOD).status_code == 200


def test_the_api_page_runs_its_own_script_by_its_hash(client):
    policy = client.get("/docs").headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy and "script-src 'self' 'unsafe" not in policy


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.7", False),
        ("lab-3.example", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host, here):
    assert is_loopback(host) == here
