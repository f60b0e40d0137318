"""The whole pipeline on sets of recordings, from their own files to the report, and what a cache of
them needs."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cache.errors import DataError
from cache.index import Index
from cache.store import open_view
from pipelines import stages
from pipelines.predict import predict
from pipelines.results import Results
from pipelines.settings import Settings, load
from pipelines.studies.crossval import crossval
from tests.extract.datasets.made import made
from tests.extract.datasets.made_recordings import RECORDINGS
from tests.pipelines.conftest import ROOT
from train.run import open_head
from train.scores import Scores

QUICK = (
    "device=cpu",
    "data.split.val=0",
    "data.split.test=0",
    "train.epochs=2",
    "train.head=mlp",
    "train.mlp.hidden=[8]",
    "evaluate.bootstrap=100",
    "evaluate.split=train",  # the only one: there are three subjects
    "train.select=last",
)
VIEWS = {
    "dmer": {"eeg": 90, "gsr": 28, "ppg": 27, "face": 768},
    "ldl": {"features": 20},
    "wesad_features": {"motion": None, "electrodermal": None, "cardiac": None, "temperature": None},
    "wesad": {"ecg": 13, "wrist_motion": None, "bvp": 13},
    "wesad_panas": {"ecg": 13},
}
KIND = {"wesad_features": "single", "wesad": "single"}
WITHOUT_GROUPS = ("ldl",)


@pytest.fixture(scope="module", params=list(RECORDINGS))
def run(request, tmp_path_factory) -> SimpleNamespace:
    """One set, prepared, extracted, fitted, scored and reported."""
    place = tmp_path_factory.mktemp(request.param)
    root = made(RECORDINGS[request.param][0], place / "data")

    def settings(*more: str) -> Settings:
        where = (f"data.name={request.param}", f"data.root={root}", f"cache.root={place / 'cache'}")
        return load(ROOT / "params.yaml", [*QUICK, *where, *more])

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        done: dict[str, Any] = {"prepare": stages.prepare(settings())}
        done["plan"] = stages.plan(settings())
        done["extract"] = stages.extract(settings())
        done["again"] = stages.extract(settings())
        done["train"] = stages.train(settings())
        done["evaluate"] = stages.evaluate(settings())
        page = stages.report(settings()).read_text()
    index = Index.read(place / "cache")
    return SimpleNamespace(
        name=request.param, place=place, settings=settings, index=index, page=page, **done
    )


def test_views_are_the_modalities(run):
    names = set(run.index.modalities)
    assert names >= set(VIEWS[run.name]) and set(run.extract["rows"]) == names
    for name, width in VIEWS[run.name].items():
        view = open_view(run.place / "cache", name)
        assert view.spec.facts["role"] == run.index.modalities[name]["role"]
        features = view.read()
        assert len(view.spec.facts["features"]) == features.shape[1] == (width or features.shape[1])
        counted = run.index.wanted("persons")
        assert np.isfinite(features[counted]).all() and features[counted].std(axis=0).any()
    assert run.extract["untrained"] == [] and run.extract["networks"] == []


def test_the_plan_says_what_extract_does_and_a_rerun_does_nothing(run):
    planned = {name: view["rows"] for name, view in run.plan["views"].items()}
    done = {name: sum(rows.values()) for name, rows in run.extract["rows"].items()}
    assert planned == done and run.plan["recordings"] is True
    assert not any(run.again["rows"].values()) and not run.plan["warnings"]


def test_results_say_what_they_stand_on(run):
    numbers = run.evaluate["train"]
    assert numbers["kind"] == KIND.get(run.name, "distribution")
    assert numbers["n_evaluated"] > 0 and numbers["cache_key"] and numbers["note"]
    drawn = "samples" if run.name in WITHOUT_GROUPS else "subjects"
    assert f"over {drawn}" in run.evaluate["provenance"]["interval"]
    assert numbers[f"n_{drawn}"] >= 1
    scores = Scores.read(Results(run.place / "results").scores)
    units = run.index.units[scores.person_rows]
    np.testing.assert_array_equal(scores.resampled, units)
    if run.name not in WITHOUT_GROUPS:  # windows of one subject are drawn together
        groups = run.index.pictures["group"].to_pylist()
        subjects = [groups[row] for row in scores.picture_rows]
        assert len(set(zip(subjects, units, strict=True))) == len(set(subjects))


def test_the_report_speaks_of_windows_and_opens_no_picture(run):
    assert "<img" not in run.page.replace('<img class="sign"', "")
    paths = run.index.pictures["path"].to_pylist()
    assert any(path.split("#")[1] in run.page for path in paths)


def test_a_head_is_opened_again_with_the_views_that_it_read(run):
    opened = open_head(run.place / "cache", run.place / "results/head")
    assert set(opened.features.specs) == set(run.index.modalities)
    scores = opened.scores("train")
    stored = Scores.read(Results(run.place / "results").scores)
    np.testing.assert_allclose(scores.y_score, stored.y_score, rtol=1e-6)


def test_crossval_tests_every_window_once(run, monkeypatch):
    monkeypatch.chdir(run.place)
    protocol = "random" if run.name in WITHOUT_GROUPS else "groups"
    settings = run.settings(f"folds.protocol={protocol}", "folds.k=2", "folds.val=0")
    result = crossval(settings)
    counted = run.index.wanted("persons")
    assert result["rows"][0]["n_evaluated"] == len(counted)
    dropped = int(
        (run.index.person_status != "ok").sum() - (run.index.person_status == "removed").sum()
    )
    assert result["rows"][0]["n_dropped"] == dropped


def test_predict_takes_no_recordings(run):
    with pytest.raises(DataError, match="recordings"):
        predict(run.settings(), run.place / "results/head", [run.place / "any.jpg"])


def test_a_changed_file_is_not_extracted_and_said(run, tmp_path, monkeypatch):
    """The rows of a file that has changed since `prepare` wait for the next one."""
    import shutil

    monkeypatch.chdir(tmp_path)
    root, cache = (shutil.copytree(run.place / one, tmp_path / one) for one in ("data", "cache"))
    name = next(iter(run.index.modalities))
    shutil.rmtree(cache / f"{name}.zarr")
    settings = run.settings(f"data.root={root}", f"cache.root={cache}")
    file = run.index.pictures["path"][int(run.index.picture_rows[run.index.wanted("persons")[0]])]
    place = root / file.as_py().rpartition("#")[0]
    place.write_bytes(place.read_bytes() + b" ")
    done = stages.extract(settings)
    assert file.as_py() in done["skipped"] and "changed" in done["skipped"][file.as_py()]


def test_a_damaged_view_is_repaired_alone(run, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    cache = shutil.copytree(run.place / "cache", tmp_path / "cache")
    name = next(iter(run.index.modalities))
    before = open_view(cache, name).read()
    (shard, *_) = [p for p in (cache / f"{name}.zarr/features/c").rglob("*") if p.is_file()]
    shard.write_bytes(shard.read_bytes()[:-9] + b"garbage!!")
    done = stages.repair(run.settings(f"cache.root={cache}"))
    assert set(done["rows"]) == {name} and done["left"] == []
    np.testing.assert_array_equal(open_view(cache, name).read(), before)


def test_a_damaged_index_is_made_again(run, tmp_path, monkeypatch):
    import shutil

    monkeypatch.chdir(tmp_path)
    cache = shutil.copytree(run.place / "cache", tmp_path / "cache")
    (cache / "index/persons.parquet").write_bytes(b"damaged")
    done = stages.repair(run.settings(f"cache.root={cache}"))
    assert done["left"] == [] and Index.read(cache).digest() == run.index.digest()
    assert Index.read(cache).modalities == run.index.modalities


def test_preparing_again_changes_nothing(run, monkeypatch):
    monkeypatch.chdir(run.place)
    before = run.index.files()
    again = stages.prepare(run.settings())
    assert Index.read(run.place / "cache").files() == before
    assert set(again["rows"]["persons"]) and not again["rows"]["persons"].get("new")


def test_everything_is_json(run):
    json.dumps([run.prepare, run.plan, run.extract, run.train, run.evaluate])


def test_windows_are_cut_anew_when_their_length_changes(tmp_path, monkeypatch):
    """Shorter windows are other rows; those of before keep theirs, and are removed."""
    monkeypatch.chdir(tmp_path)
    root = made(RECORDINGS["wesad"][0], tmp_path / "data")

    def settings(*more: str) -> Settings:
        where = ("data.name=wesad", f"data.root={root}", f"cache.root={tmp_path / 'cache'}")
        return load(ROOT / "params.yaml", [*QUICK, *where, *more])

    first = stages.prepare(settings())
    count = sum(sum(of.values()) for of in first["persons"].values())
    second = stages.prepare(settings("data.window.seconds=20", "data.window.step=20"))
    assert second["rows"]["persons"]["new"] > 0
    index = Index.read(tmp_path / "cache")
    live = index.person_status != "removed"
    lengths = index.boxes[live][:, 2] - index.boxes[live][:, 0]
    assert set(lengths[index.person_status[live] == "ok"]) == {20}
    assert (index.person_status == "removed").sum() >= count - 2  # the unreadable one stays


def test_a_signal_without_a_beat_is_a_row_with_a_reason(tmp_path, monkeypatch):
    from tests.extract.signals.made_wesad import python2_pickle, subject

    monkeypatch.chdir(tmp_path)
    for n in (2, 3):
        given = subject(f"S{n}", 65, n)
        if n == 3:
            given["signal"]["chest"]["ECG"][:] = 0.0
        place = Path("data") / f"S{n}" / f"S{n}.pkl"
        place.parent.mkdir(parents=True)
        place.write_bytes(python2_pickle(given))
    where = ("data.name=wesad", "data.root=data", "cache.root=cache", "data.split.test=0")
    settings = load(ROOT / "params.yaml", [*QUICK, *where])
    stages.prepare(settings)
    done = stages.extract(settings)
    assert done["rows"]["ecg"]["no_signal"] == done["rows"]["ecg"]["ok"] > 0
    assert "no_signal" not in done["rows"]["bvp"]
    view = open_view(Path("cache"), "ecg")
    rows = np.flatnonzero(view.status == 7)
    assert not view.read()[rows].any()
    from train.data import load as load_features

    features = load_features("cache", ["ecg", "bvp"])
    assert features.kept.all()  # it counts, with a mask
    batch = features.batch(features.rows())
    mask = batch.views["ecg"]["mask"].numpy()
    assert mask.sum() == done["rows"]["ecg"]["ok"] and not mask[rows].any()
