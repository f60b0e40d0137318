"""Persons of the cache: the same answers as from all its features at once, no network run, and no
file opened but the one that the index names."""

import base64
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from cache.errors import CacheError, DataError, KeyMismatch
from cache.store import StoredView
from extract import images
from pipelines.serve import run as server
from pipelines.serve.app import make_app
from pipelines.serve.desk import Desk
from pipelines.serve.persons import Persons
from pipelines.serve.run import persons_of
from tests.pipelines.serve.conftest import (
    FAILED,
    HOME,
    LIMITS,
    LINK,
    OTHER,
    OUTSIDE,
    REMOVED,
    THERE,
    picture,
    send,
)
from tests.train import made
from train.run import open_head
from train.whatif import Without, what_if

SOME = (0, 1, 2, 63, 64, 65, 128, 159)  # of shards of 64 rows, the first and last of each


@pytest.fixture(scope="module")
def opened(results):
    """The oracle: the head with all features of the cache in memory."""
    return open_head(results.folder.parent / "features", results.head)


def get(client, row, **asked):
    answer = client.get(f"/api/persons/{row}", params=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("row", SOME)
def test_what_a_head_reads_of_a_person_is_what_it_reads_of_all(persons, opened, row):
    ours, theirs = persons.features(row), opened.features
    one = ours.batch(torch.tensor([0]))
    same = theirs.batch(torch.tensor([row]))
    assert torch.equal(one.box, same.box) and torch.equal(one.diagonal, same.diagonal)
    assert one.views.keys() == same.views.keys()
    for name, arrays in same.views.items():
        assert one.views[name].keys() == arrays.keys()
        for array, values in arrays.items():
            assert torch.equal(one.views[name][array], values), (name, array)


def test_a_person_is_shown_as_the_head_sees_it(client, opened):
    for row in SOME:
        found, seen = get(client, row), opened.explain([row])
        (person,) = found["people"]
        want = dict(zip(seen.labels, seen.y_score[0].tolist(), strict=True))
        assert person["emotions"] == pytest.approx(want, abs=1e-4)
        scores = list(person["emotions"].values())
        assert scores == sorted(scores, reverse=True)
        assert person["box"] == pytest.approx(seen.boxes[0].tolist(), abs=0.06)
        weights = [one["weight"] for one in person["objects"]]
        assert weights == sorted(weights, reverse=True)
        assert weights == pytest.approx(sorted(seen.attention[0].tolist(), reverse=True), abs=1e-6)


def test_its_true_labels_split_and_grounds_are_named(client, opened, predictor):
    features = opened.features
    for row in SOME:
        found = get(client, row)
        has = features.has(torch.tensor([row]))[0].tolist()
        assert found["true"] == [name for name, one in zip(made.NAMES, has, strict=True) if one]
        assert (found["row"], found["split"]) == (row, features.split[row])
        assert found["shares"] is None  # labels are no distributions here
        assert {name: found[name] for name in predictor.about()} == predictor.about()
        assert (found["width"], found["height"]) == (640, 480)
    assert any(get(client, row)["true"] for row in SOME)


def test_true_shares_are_given_where_labels_are_distributions(predictor, results, persons):
    shares = np.tile(np.float32([0.5, 0.25, 0.25, 0]), (160, 1))
    persons.index.__dict__["targets"] = shares  # as a cached property keeps it
    info = {**predictor.info, "spec": {**predictor.info["spec"], "kind": "distribution"}}
    desk = Desk(replace(predictor, info=info), LIMITS, persons)
    assert desk.person(0)["shares"] == {"calm": 0.5, "glad": 0.25, "sad": 0.25, "tense": 0}


def test_the_rows_of_a_split_are_those_that_count(client, opened):
    every = client.get("/api/persons").json()
    assert every["rows"] == opened.features.rows().tolist()
    assert not {REMOVED, FAILED} & set(every["rows"])
    assert list(every["splits"]) == ["train", "val", "test"]
    for split, count in every["splits"].items():
        rows = client.get("/api/persons", params={"split": split}).json()["rows"]
        assert rows == opened.features.rows(split).tolist() and len(rows) == count
    assert client.get("/api/about").json()["splits"] == every["splits"]


@pytest.mark.parametrize(
    ("path", "status", "says"),
    [
        ("/160", 404, "no person 160: the cache has 160, numbered from 0"),
        ("/-1", 404, "no person -1"),
        (f"/{10**40}", 404, "no person 1000"),
        (f"/{REMOVED}", 404, "person 6 has no features: removed"),
        (f"/{FAILED}", 404, "person 9 has no features: body: bad_box"),
        ("/1.5", 422, "should be a valid integer"),
        ("/..%2f..%2fetc%2fpasswd", 404, "nothing here"),
        ("/%2e%2e", 422, "should be a valid integer"),
        ("/0?show=all", 422, "should be 'none', 'plain' or 'marked'"),
        ("?split=tset", 404, "no split 'tset': the cache has train, val, test"),
        ("?split=" + "x" * 65, 422, "at most 64"),
    ],
)
def test_another_person_or_split_is_refused_with_a_sentence(client, path, status, says):
    answer = client.get(f"/api/persons{path}")
    assert answer.status_code == status and says in answer.json()["detail"], answer.text


# ---- what if


def ask(client, token, **without):
    answer = client.post("/api/what-if", json={"token": token, "person": 0, **without})
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("row", SOME)
def test_what_if_says_what_it_says_of_all_features(client, opened, row):
    found = get(client, row)
    (person,) = found["people"]
    edge = client.get("/api/about").json()["edges"][0]
    seen = opened.explain([row])
    heaviest = int(seen.attention[0].argmax())
    labels = opened.features.labels
    cases = {
        "views": (["scene"], Without(views=("scene",))),
        "objects": ([0], Without(objects=(heaviest,))),
        "edges": ([edge], Without(edges=((labels.index(edge[0]), labels.index(edge[1])),))),
    }
    for name, (asked, case) in cases.items():
        answer = ask(client, found["token"], **{name: asked})
        (want,) = what_if(opened.model, opened.features, row, [case])
        assert answer["scores"] == pytest.approx(person["emotions"], abs=1e-4)
        assert answer["without"] == pytest.approx(
            dict(zip(labels, want.tolist(), strict=True)), abs=1e-4
        )
        assert answer["scores"] != answer["without"]


def test_no_network_runs_and_no_view_is_read_whole(settings, predictor, results, monkeypatch):
    def never(*given, **more):
        raise AssertionError(f"called with {given}")

    monkeypatch.setattr(StoredView, "read", never)
    persons = Persons.open(settings, predictor.model, predictor.info)
    desk = Desk(predictor, LIMITS, persons)
    for view in predictor.views.values():
        monkeypatch.setattr(view, "run", never)
    calls = predictor.networks.detector("", "").calls
    found = desk.person(1, "plain")
    desk.what_if(found["token"], 0, views=["body"])
    assert predictor.networks.detector("", "").calls == calls


def test_persons_and_pictures_are_kept_together(client):
    """So many in all: who is asked about last stays."""
    sent, shown = send(client, picture()).json(), get(client, 1)
    get(client, 2)
    assert ask(client, shown["token"])["scores"]
    answer = client.post("/api/what-if", json={"token": sent["token"], "person": 0})
    assert answer.status_code == 404 and "ask for it again" in answer.json()["detail"]


# ---- pictures


def of_picture(number):
    return 2 * number  # the first of its two persons


def test_its_picture_is_shown_if_wished(client):
    row = of_picture(THERE)
    found = get(client, row, show="plain")
    assert found["no_picture"] == "" and found["picture"] == f"{THERE}.jpg"
    with Image.open(io.BytesIO(base64.b64decode(found["shown"].partition(",")[2]))) as image:
        assert image.size == (640, 480)
    assert get(client, row, show="marked")["shown"] != found["shown"]
    assert get(client, row)["shown"] is None and get(client, row)["no_picture"] == ""


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (0, "no such file"),
        (OTHER, "the file is another one than `emocache prepare` found"),
        (LINK, "a link leads out of data.root"),
        (OUTSIDE, "the path is not below data.root: it is not opened"),
    ],
)
def test_a_picture_that_is_not_there_costs_only_itself(client, number, says, monkeypatch):
    if number in (LINK, OUTSIDE):
        monkeypatch.setattr(images, "load", lambda *given: 1 / 0)
    found = get(client, of_picture(number), show="plain")
    assert found["shown"] is None and says in found["no_picture"]
    assert found["people"][0]["emotions"] and found["people"][0]["box"]
    assert ask(client, found["token"], views=["body"])


# ---- where they are not offered


def not_offered(predictor, results, why):
    """What a server says that has none."""
    with TestClient(make_app(Desk(predictor, LIMITS, why)), base_url=HOME) as client:
        about = client.get("/api/about").json()
        assert (about["splits"], about["no_persons"]) == ({}, why)
        for path in ("/api/persons", "/api/persons/1"):
            answer = client.get(path)
            assert answer.status_code == 404
            assert answer.json()["detail"] == f"persons of the cache are not shown: {why}"
        assert send(client, picture()).status_code == 200


def test_a_cache_that_the_head_was_not_fitted_on_is_not_offered(settings, predictor, results):
    info = json.loads(json.dumps(predictor.info))
    info["views"]["body"]["key"] = "0" * 64
    with pytest.raises(KeyMismatch, match="view 'body'"):
        Persons.open(settings, predictor.model, info)
    why = persons_of(settings, replace(predictor, info=info))
    assert "view 'body': the head was fitted on key 0000" in why
    not_offered(predictor, results, why)


def test_without_a_cache_there_are_no_persons(settings, predictor, results, tmp_path):
    cache = settings.cache.model_copy(update={"root": tmp_path / "none"})
    away = settings.model_copy(update={"cache": cache})
    with pytest.raises(CacheError, match="there is no cache folder"):
        Persons.open(away, predictor.model, predictor.info)
    assert "there is no cache folder" in persons_of(away, predictor)


def test_of_another_data_set_there_are_no_persons(settings, predictor):
    data = settings.data.model_copy(update={"name": "demo"})
    other = settings.model_copy(update={"data": data})
    with pytest.raises(DataError, match="holds made, the settings say demo"):
        Persons.open(other, predictor.model, predictor.info)
    assert "holds made, the settings say demo" in persons_of(other, predictor)


def test_a_cache_of_nobody_who_counts_is_not_offered(settings, predictor, monkeypatch):
    monkeypatch.setattr(Persons, "rows", np.array([], int))
    with pytest.raises(DataError, match="no person in .* has features"):
        Persons.open(settings, predictor.model, predictor.info)


def test_other_machines_are_shown_no_person(settings, predictor, results, monkeypatch):
    monkeypatch.setattr("pipelines.predict.predictor_of", lambda *given: predictor)
    assert isinstance(server.desk_of(settings, results.head, True).persons, Persons)
    monkeypatch.setattr(Persons, "open", lambda *given: 1 / 0)
    desk = server.desk_of(settings, results.head, False)
    assert desk.persons == server.REACHED
    not_offered(predictor, results, desk.persons)


def test_the_cache_at_hand_is_offered(settings, predictor):
    assert persons_of(settings, predictor).splits == {"train": 79, "val": 40, "test": 39}


def test_a_shard_that_changes_under_the_server_is_noticed(tmp_path, results, settings, predictor):
    root = tmp_path / "features"
    shutil.copytree(results.folder.parent / "features", root)
    cache = settings.cache.model_copy(update={"root": root})
    here = settings.model_copy(update={"cache": cache})
    desk = Desk(predictor, LIMITS, Persons.open(here, predictor.model, predictor.info))
    with TestClient(make_app(desk), base_url=HOME) as client:
        assert get(client, 70)
        (file,) = [path for path in root.glob("body.zarr/features/c/1/*") if path.is_file()]
        data = bytearray(file.read_bytes())
        data[40] ^= 1
        file.write_bytes(data)
        answer = client.get("/api/persons/64")
        assert answer.status_code == 503 and "start it again" in answer.json()["detail"]
        file.unlink()
        assert client.get("/api/persons/64").status_code == 503
        assert get(client, 1)  # of another shard
