"""What the server answers: the same as the command, what if as a picture without, a page of its
API."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pipelines.predict import thresholds_of
from pipelines.serve.desk import Desk
from tests.pipelines.serve.conftest import LIMITS, THRESHOLDS, picture, send
from tests.train import made

TWO = picture(200, 120, seed=1)


def test_a_picture_gives_what_the_command_gives(client, predictor, tmp_path):
    (tmp_path / "a.png").write_bytes(TWO)
    answer = send(client, TWO)
    assert answer.status_code == 200
    found = answer.json()
    assert len(found["people"]) == 2
    want = predictor.answer(tmp_path / "a.png").result(0.4)
    assert {name: found[name] for name in want} == want
    assert {name: found[name] for name in predictor.about()} == predictor.about()
    assert (found["picture"], found["width"], found["height"]) == ("a.png", 200, 120)
    for person in found["people"]:
        scores = list(person["emotions"].values())
        assert scores == sorted(scores, reverse=True) and len(scores) == 4
        assert sum(one["weight"] for one in person["objects"]) == pytest.approx(1, abs=1e-5)


def test_every_answer_says_what_must_be_said(client):
    found = send(client, TWO).json()
    batch = client.post("/api/predict/batch", files={"pictures": ("a", TWO)}).json()
    asked = {"token": found["token"], "person": 0}
    what_if = client.post("/api/what-if", json=asked).json()
    about = client.get("/api/about").json()
    for one in (found, batch, what_if, about):
        assert one["note"] == "made-up labels" and one["untrained"] == ["deep"]
    assert "not what anyone feels" in about["caution"]
    assert "random weights" in client.get("/openapi.json").json()["info"]["description"]


def test_about_names_labels_views_thresholds_and_licences(client, results):
    about = client.get("/api/about").json()
    assert about["labels"] == list(made.NAMES) and about["head"] == "hugme"
    assert set(about["removable"]) == {"body", "head", "objects", "depth", "scene"}
    assert about["thresholds"] == {"calm": 0.25, "glad": 0.5, "tense": 0.75}  # sad has none
    assert any("UNTRAINED" in line for line in about["weights"])
    assert all(len(edge) == 2 and set(edge) <= set(made.NAMES) for edge in about["edges"])
    assert about["edges"]
    assert str(results.folder) not in json.dumps(about)


def test_thresholds_of_another_head_are_not_shown(results, predictor):
    assert set(thresholds_of(results.head, predictor.info)) < set(THRESHOLDS)
    other = {**predictor.info, "sha256": "0" * 64}
    assert thresholds_of(results.head, other) == {}
    assert thresholds_of(results.head / "none", predictor.info) == {}


def test_nobody_found_is_an_answer(client):
    held = io.BytesIO()
    Image.new("RGB", (200, 120), "white").save(held, "PNG")
    found = send(client, held.getvalue()).json()
    assert (found["status"], found["people"], found["token"]) == ("no_person", [], None)
    assert found["reason"] == "no person above people.score 0.4"


def test_of_a_crowd_the_surest_are_answered_and_the_others_counted(client):
    found = send(client, picture(600, 120)).json()
    assert len(found["people"]) == LIMITS.people == 3 and found["left_out"] == 3
    assert [person["box"][0] for person in found["people"]] == [5, 105, 205]


@pytest.mark.parametrize("show", ["plain", "marked"])
def test_the_picture_comes_back_if_wished(client, show):
    shown = send(client, TWO, show=show).json()["shown"]
    kind, _, data = shown.partition(",")
    assert kind == "data:image/webp;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (200, 120)
        back = np.asarray(image.convert("RGB"), int)
    with Image.open(io.BytesIO(TWO)) as image:
        gap = np.abs(back - np.asarray(image.convert("RGB"), int)).mean()
    assert (gap < 12) == (show == "plain")
    assert send(client, TWO).json()["shown"] is None
    assert send(client, TWO, show="all").status_code == 422


def test_a_turned_picture_is_answered_and_shown_upright(client):
    held = io.BytesIO()
    with Image.open(io.BytesIO(TWO)) as image:
        exif = image.getexif()
        exif[0x0112] = 6
        image.convert("RGB").save(held, "JPEG", exif=exif)
    found = send(client, held.getvalue(), show="plain").json()
    assert (found["width"], found["height"]) == (120, 200)
    with Image.open(io.BytesIO(base64.b64decode(found["shown"].partition(",")[2]))) as image:
        assert image.size == (120, 200)


def test_a_batch_gives_a_result_each_and_a_bad_one_says_why(client):
    files = [("a.png", TWO), ("b.txt", b"no picture"), ("c.png", picture(100, 120, 3))]
    answer = client.post("/api/predict/batch", files=[("pictures", one) for one in files])
    assert answer.status_code == 200
    first, bad, third = answer.json()["pictures"]
    assert [one["picture"] for one in (first, bad, third)] == ["a.png", "b.txt", "c.png"]
    assert (bad["status"], bad["people"]) == ("unreadable", [])
    assert "not a picture in one of" in bad["reason"]
    alone = send(client, TWO).json()
    assert first["people"] == alone["people"] and len(third["people"]) == 1


# ---- what if


def ask(client, found, person=0, **without):
    return client.post("/api/what-if", json={"token": found["token"], "person": person, **without})


def test_without_nothing_the_scores_are_those_of_the_prediction(client):
    found = send(client, TWO).json()
    for number, person in enumerate(found["people"]):
        answer = ask(client, found, number).json()
        assert answer["scores"] == answer["without"] == pytest.approx(person["emotions"], abs=1e-4)
        assert list(answer["scores"]) == list(person["emotions"])


def test_without_an_object_the_scores_are_those_of_a_picture_without_it(
    client, predictor, monkeypatch
):
    """Objects are numbered as the answer lists them, by falling weight. The oracle: a prediction of
    the same pixels by a view of objects that never found it."""
    found = send(client, TWO).json()
    objects = found["people"][1]["objects"]
    moved = 0
    for number, gone in enumerate(objects):
        answer = ask(client, found, 1, objects=[number]).json()
        view = predictor.views["objects"]
        row = type(view)._row

        def without(subject, view=view, row=row, gone=gone):
            seen = row(view, subject)
            boxes = np.round(seen.values["box"].astype(float), 1)
            kept = np.flatnonzero(np.abs(boxes - gone["box"]).max(1) > 0.06)
            count = len(kept)
            for name in ("features", "box", "label", "score"):
                value = seen.values[name]
                seen.values[name] = np.zeros_like(value)
                seen.values[name][:count] = value[kept]
            seen.values["count"] = np.int16(count)
            return seen

        monkeypatch.setattr(view, "_row", without)
        fresh = predictor.answer(TWO).marks[1]
        monkeypatch.undo()
        assert len(fresh.objects) == len(objects) - 1
        assert answer["without"] == pytest.approx(dict(fresh.emotions), abs=2e-4)
        moved = max(moved, *(abs(answer["scores"][n] - answer["without"][n]) for n in made.NAMES))
    assert moved > 0.005


@pytest.mark.parametrize("view", ["body", "head", "objects", "depth", "scene"])
def test_each_view_can_be_taken_away(client, view):
    found = send(client, TWO).json()
    answer = ask(client, found, views=[view]).json()
    gap = max(abs(answer["scores"][name] - answer["without"][name]) for name in made.NAMES)
    assert gap > 1e-3


def test_an_edge_can_be_cut(client):
    found = send(client, TWO).json()
    edges = client.get("/api/about").json()["edges"]
    answer = ask(client, found, edges=edges).json()
    assert answer["scores"] != answer["without"]
    back = ask(client, found, edges=[[b, a] for a, b in edges]).json()
    assert back == answer


@pytest.mark.parametrize(
    ("without", "says"),
    [
        ({"person": 2}, "no person 2: there are 2"),
        ({"person": -1}, "person: should be greater than or equal to 0"),
        ({"views": ["bdoy"]}, "no view 'bdoy'"),
        ({"objects": [3]}, "no object 3"),
        ({"objects": [-1]}, "no object -1"),
        ({"edges": [["calm", "glda"]]}, "no label 'glda'; did you mean 'glad'"),
        ({"edges": [["calm", "calm"]]}, "cannot be cut"),
        ({"edges": [["calm"]]}, "edges.0"),
        ({"objects": "all"}, "objects: should be"),
        ({"more": 1}, "more"),
    ],
)
def test_what_cannot_be_taken_away_is_refused_in_a_sentence(client, without, says):
    found = send(client, TWO).json()
    answer = client.post("/api/what-if", json={"token": found["token"], "person": 0, **without})
    assert answer.status_code == 422 and says in answer.json()["detail"], answer.text


def test_only_the_last_pictures_are_kept(client):
    first, *_ = [send(client, TWO).json() for _ in range(3)]  # of which two are kept
    answer = ask(client, first)
    assert answer.status_code == 404 and "2 of them" in answer.json()["detail"]


def test_a_picture_that_is_asked_about_stays(client):
    first, second = (send(client, TWO).json() for _ in range(2))
    assert ask(client, first).status_code == 200
    send(client, TWO)
    assert ask(client, first).status_code == 200
    assert ask(client, second).status_code == 404


def test_tokens_cannot_be_guessed(client):
    tokens = {send(client, TWO).json()["token"] for _ in range(4)}
    assert len(tokens) == 4 and all(len(token) >= 20 for token in tokens)


def test_a_head_without_graph_and_objects_is_served(predictor, results, tmp_path):
    """Of one that reads the body alone there is nothing else to take away."""
    from train.checkpoint import load_head, save_head
    from train.data import from_arrays
    from train.fit import fit

    features = from_arrays(**made.arrays(persons=80)).only(["body"])
    settings = made.settings(head="mlp", epochs=2, mlp={"views": ["body"]})
    fitted = fit(features, settings)
    positives = dict.fromkeys(made.NAMES, 1)
    save_head(tmp_path, fitted.model, settings, features, {}, {"positives": positives})
    model, info = load_head(tmp_path)
    info["views"]["body"]["weights"] = []
    alone = replace(
        predictor, model=model, info=info, views={"body": predictor.views["body"]}, thresholds={}
    )
    desk = Desk(alone, LIMITS)
    about = desk.about()
    assert about["removable"] == ["body"] and about["edges"] == [] == list(about["thresholds"])
    found = desk.predict("a", TWO, keep=True)
    assert found["people"][0]["objects"] == [] and found["people"][0]["head"] is None
    answer = desk.what_if(found["token"], 0, views=["body"])
    assert answer["scores"] != answer["without"]


# ---- pages


def test_the_pages_ask_nothing_of_others(client):
    for path in ("/", "/docs"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        linked = re.findall(r"(?:src|href)=\"([^\"]+)\"", answer.text)
        assert linked and all(one.startswith(("/", "data:")) and one[:2] != "//" for one in linked)
        for one in linked:
            if one.startswith("/"):
                assert client.get(one).status_code == 200, one


def test_the_schema_names_every_way_in(client):
    found = client.get("/openapi.json").json()
    assert found["info"]["title"] == "emocache"
    ways = {(path, way) for path, ways in found["paths"].items() for way in ways}
    assert ways == {
        ("/api/about", "get"),
        ("/api/persons", "get"),
        ("/api/persons/{row}", "get"),
        ("/api/predict", "post"),
        ("/api/predict/batch", "post"),
        ("/api/what-if", "post"),
        ("/healthz", "get"),
    }
    form = found["paths"]["/api/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["required"] == ["picture"]
    assert client.get("/healthz").json() == {"status": "ok", "waiting": 0}
