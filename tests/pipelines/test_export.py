"""The folder that `export` writes, from a fitted head on a made cache: what stands in it, what is
refused, and the head opened again without stage 2."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from huggingface_hub import ModelCard

from cache.errors import CacheError, DataError, FormatError, SettingsError
from cache.statuses import STATUS
from pipelines import model_card, stages
from pipelines.export import export
from pipelines.exported import ExportedHead, ExportedPredictor, is_exported
from pipelines.results import Results, read_csv
from pipelines.settings import Settings
from tests.train import made
from train.export import Port, tensors_of
from train.run import open_head

FILES = ["README.md", "head.onnx", "head.pt2", "predictor.json", "settings.yaml"]
HEAD = {"hidden": [32, 16], "object_embedding": 4, "label_width": 8, "graph_width": 16}


def weights(view: str) -> dict:
    trained = view != "depth"
    facts = {"network": f"net of {view}", "source": "packages", "name": "made | by a test"}
    hashed = "0123456789abcdef" * 4 if trained else "untrained-seed0"
    return {**facts, "sha256": hashed, "licence": "MIT", "trained": trained}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with features and results in it: fitted and measured."""
    folder = tmp_path_factory.mktemp("place")
    given = made.arrays(persons=240)
    given["views"]["head"].status[::5] = STATUS["no_face"]
    given["views"]["objects"].arrays["count"][::7] = 0
    given["targets"][:, 3] = 0  # nobody is tense
    for name, view in given["views"].items():
        settings = {"network": f"net of {name}"}
        parts = {"settings": settings, "dtype": "float16", "precision": "float32"}
        spec = replace(view.spec, weights=[weights(name)], parts={**view.spec.parts, **parts})
        given["views"][name] = replace(view, spec=spec)
    made.write_cache(folder / "features", given)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stages.train(settings_in(folder))
        stages.evaluate(settings_in(folder))
    return folder


def settings_in(folder: Path, **changes) -> Settings:
    return Settings.model_validate(
        {
            "device": "cpu",
            "data": {"name": "made"},
            "cache": {"root": folder / "features"},
            "train": {"epochs": 3, "lr": 3e-3, "batch": 32, "hugme": HEAD},
            "evaluate": {"bootstrap": 100},
            "weights": {"untrained": ["net of depth", "net of another"]},
            **changes,
        }
    )


def export_from(place: Path, folder: Path) -> dict:
    return export(settings_in(place), place / "results" / "head", folder)


@pytest.fixture(scope="module")
def done(place, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("out") / "deep" / "export"
    return folder, export_from(place, folder)


@pytest.fixture(scope="module")
def folder(done) -> Path:
    return done[0]


@pytest.fixture(scope="module")
def about(folder) -> dict:
    return json.loads((folder / "predictor.json").read_text())


@pytest.fixture(scope="module")
def card(folder) -> ModelCard:
    return ModelCard.load(folder / "README.md")


@pytest.fixture(scope="module")
def opened(place):
    return open_head(place / "features", place / "results" / "head")


def test_the_folder_is_whole_and_says_what_was_written(done):
    folder, said = done
    assert sorted(path.name for path in folder.iterdir()) == FILES == list(said["files"])
    assert [path.name for path in folder.parent.iterdir()] == ["export"]  # nothing left beside it
    assert said["measured"] and said["note"] == "made-up labels"
    assert said["untrained"] == ["net of depth"]
    assert said["checked"]["persons"] == 60
    assert json.loads(json.dumps(said)) == said


def test_predictor_json_has_what_a_user_must_know(about, place, opened):
    head = json.loads((place / "results" / "head" / "head.json").read_text())
    for name in ("head", "dataset", "note", "labels", "classes", "positives", "views", "index"):
        assert about[name] == head[name]
    assert about["head_sha256"] == head["sha256"]
    assert about["cache_key"] == opened.features.cache_key
    assert about["kind"] == "multi" and about["scale"] == "probabilities"
    limits = {
        row["label"]: row["threshold"] for row in read_csv(Results(place / "results").per_class)
    }
    assert about["thresholds"] == {name: limits[name] for name in ("calm", "glad", "sad")}
    depth = next(one for one in about["networks"] if one["views"] == ["depth"])
    assert depth == {**weights("depth"), "views": ["depth"]}
    assert [port["name"] for port in about["outputs"]] == ["scores", "attention"]
    assert all(port["about"] for port in (*about["inputs"], *about["outputs"]))


def test_settings_hold_what_the_head_was_fitted_on_and_no_more(folder):
    found = yaml.safe_load((folder / "settings.yaml").read_text())
    assert set(found) == {"device", "people", "weights", "extract", "cache", "views"}
    assert found["views"]["body"] == {"network": "net of body"} and "labels" not in found["views"]
    assert found["weights"]["untrained"] == ["net of depth"]
    assert "folder" not in found["weights"] and "store" not in found["weights"]
    Settings.model_validate(found)  # `predict --params` takes it too


def test_the_card_is_one_that_hubs_read(card, place):
    metrics = Results(place / "results").read_metrics()["test"]
    assert card.data.license == "other" and "emotion-recognition" in card.data.tags
    (found,) = card.data.eval_results
    assert (found.metric_type, found.dataset_split) == ("mAP", "test")
    assert found.metric_value == pytest.approx(metrics["mAP"], abs=1e-6)
    assert found.dataset_name == "made (made-up labels)"
    assert "UNTRAINED net of depth" in found.metric_name


def test_the_card_says_what_numbers_rest_on(card, place, about):
    text, metrics = card.text, Results(place / "results").read_metrics()["test"]
    for said in (
        "> **made: made-up labels.**",
        "> **UNTRAINED: net of depth runs on random weights.",
        f"| mAP | {100 * metrics['mAP']:.2f} % |",
        "| persons in train | 120, dropped: none |",
        "| persons in val | 60, dropped: none |",
        "| persons measured, test | 60 in 30 pictures, dropped: none |",
        "100 resamples, seed 0",
        "made \\| by a test",  # a name breaks no table
        "no score for them: tense.",
        "check the law that applies to you",
        f"seed {about['seed']}",
        about["cache_key"][:12],
    ):
        assert said in text, said
    tables = [line for line in text.splitlines() if line.startswith("| net of")]
    assert [len(re.split(r"(?<!\\)\|", line)) for line in tables] == [5 + 2] * 6


@pytest.mark.slow
def test_the_same_head_gives_the_same_bytes(folder, place, tmp_path):
    export_from(place, tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes(), name


def test_no_file_names_a_place_of_this_machine(folder, place):
    for name in FILES:
        data = (folder / name).read_bytes()
        assert str(place).encode() not in data and str(Path.home()).encode() + b"/" not in data


@pytest.mark.slow
def test_numbers_of_another_head_are_not_taken_for_its_own(place, tmp_path):
    shutil.copytree(place / "results", tmp_path / "results")
    results = Results(tmp_path / "results")
    known = json.loads(results.provenance.read_text())
    results.provenance.write_text(json.dumps({**known, "head_sha256": "0" * 64}))
    fit = json.loads(results.train_json.read_text())
    results.train_json.write_text(json.dumps({**fit, "seed": 9}))
    done = export(settings_in(place), results.head, tmp_path / "export")
    assert not done["measured"] and "is of another head" in done["why_not_measured"]
    text = (tmp_path / "export" / "README.md").read_text()
    assert "**Not measured**" in text and "mAP" not in text and "persons in train" not in text
    assert json.loads((tmp_path / "export" / "predictor.json").read_text())["thresholds"] == {}


def test_what_is_no_export_is_never_taken_away(place, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work")
    for wrong in (tmp_path / "thesis", tmp_path / "thesis" / "chapter.txt"):
        with pytest.raises(SettingsError, match="name a new folder"):
            export_from(place, wrong)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "years of work"


@pytest.mark.slow
def test_an_export_that_fails_leaves_the_one_before(folder, place, tmp_path, monkeypatch):
    target = tmp_path / "export"
    shutil.copytree(folder, target)

    def fails(*given):
        raise RuntimeError("no room")

    monkeypatch.setattr(model_card, "write", fails)
    with pytest.raises(RuntimeError, match="no room"):
        export_from(place, target)
    assert sorted(path.name for path in target.iterdir()) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_without_the_packages_the_command_that_brings_them_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.export.PACKAGES", ("emocache", "onnxfoo"))
    with pytest.raises(SettingsError, match=r"needs onnxfoo: pip install"):
        export_from(place, tmp_path / "export")


# ---- opened again


@pytest.fixture(scope="module")
def head(folder) -> ExportedHead:
    return ExportedHead.open(folder)


@pytest.fixture(scope="module")
def given(head, opened) -> dict[str, np.ndarray]:
    """The features of the persons of test by name."""
    batch = opened.features.batch(opened.features.rows("test"))
    ports = [
        Port(port["name"], tuple(port["shape"]), port["dtype"], port["view"], port["array"])
        for port in head.info["inputs"]
    ]
    return {name: value.numpy() for name, value in tensors_of(ports, batch).items()}


def test_its_scores_are_those_of_evaluation(head, given, place):
    table = pq.read_table(place / "results" / "scores.parquet")
    want = np.array(table["y_score"].to_pylist())
    np.testing.assert_allclose(head(**given)["scores"], want, atol=1e-4)
    alone = head(**{name: values[:1] for name, values in given.items()})
    np.testing.assert_allclose(alone["scores"], want[:1], atol=1e-4)


def test_features_that_are_not_the_heads_are_refused_by_name(head, given):
    with pytest.raises(DataError, match="reads head_features, scene_features too"):
        head(**{n: v for n, v in given.items() if n not in ("head_features", "scene_features")})
    with pytest.raises(DataError, match="does not read more"):
        head(**given, more=given["box"])
    with pytest.raises(DataError, match=r"box of 60 persons is \(60, 3\), not \(60, 4\)"):
        head(**{**given, "box": given["box"][:, :3]})
    with pytest.raises(DataError, match="depth_map holds values that are not finite"):
        head(**{**given, "depth_map": np.full_like(given["depth_map"], np.inf)})


@pytest.mark.parametrize("name", ["head.onnx", "predictor.json"])
def test_a_folder_that_is_not_whole_is_refused(name, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "export")
    (tmp_path / "export" / "head.pt2").unlink()  # which it does not read
    ExportedHead.open(tmp_path / "export")
    (tmp_path / "export" / name).unlink()
    with pytest.raises(CacheError, match=name):
        ExportedHead.open(tmp_path / "export")
    assert is_exported(tmp_path / "export") is (name != "predictor.json")


def test_damage_and_other_formats_are_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "export")
    data = bytearray((tmp_path / "export" / "head.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "export" / "head.onnx").write_bytes(data)
    with pytest.raises(CacheError, match=r"head\.onnx is not the file"):
        ExportedHead.open(tmp_path / "export")
    path = tmp_path / "export" / "predictor.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(FormatError, match="upgrade emocache"):
        ExportedHead.open(tmp_path / "export")
    path.write_text("[")
    with pytest.raises(CacheError, match="is damaged"):
        ExportedHead.open(tmp_path / "export")


def test_a_head_of_signals_takes_no_picture(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "export")
    path = tmp_path / "export" / "predictor.json"
    about = json.loads(path.read_text())
    about["views"] = {"eeg": {**about["views"]["body"]}}
    path.write_text(json.dumps(about))
    (tmp_path / "export" / "settings.yaml").write_text("device: cpu\n")
    with pytest.raises(DataError, match="fitted on their eeg"):
        ExportedPredictor.load(tmp_path / "export")


@pytest.mark.parametrize(
    ("text", "said"),
    [("people: {scores: 1}", "people.scores: unknown setting"), ("a: b: c", "not valid YAML")],
)
def test_settings_that_somebody_changed_wrongly_are_named(text, said, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "export")
    (tmp_path / "export" / "settings.yaml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        ExportedPredictor.load(tmp_path / "export")
