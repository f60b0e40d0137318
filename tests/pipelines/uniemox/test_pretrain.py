"""`emocache pretrain`, from pictures to an encoder that stage 1 runs."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cache.errors import DataError, SettingsError
from cache.store import open_view
from pipelines import cli, stages
from pipelines.results import read_csv
from pipelines.uniemox.pretrain import prepare, pretrain
from tests.pipelines.uniemox.conftest import CLIP, TEACHERS, settings_of


def test_pixels_alone_need_no_teacher_and_give_an_encoder_a_page_and_curves(prepared):
    result = pretrain(settings_of(prepared))
    out = prepared / "results/pretrain"
    kept = json.loads((out / "pretrain.json").read_text())
    assert kept == json.loads(json.dumps(result))
    assert result["pictures"] == {"train": 12, "val": 4}
    assert result["losses"] == ["pixels"] and result["fusion"] is None
    assert result["untrained"] == [] and "UNTRAINED" not in result["name"]
    assert len(result["cache_key"]) == 64 and result["seed"] == 0
    curve = read_csv(out / "curves.csv")
    assert [row["epoch"] for row in curve] == [1, 2]
    assert curve[-1]["val_pixels"] == pytest.approx(result["last"]["val_pixels"])
    assert {"val_mean_pixels", "val_visible_pixels"} <= set(curve[-1])
    page = (out / "report.html").read_text()
    assert result["name"] in page and "Where the encoder looks" in page
    assert (out / "grids/epoch-0002.png").stat().st_size > 500
    assert not (out / "resume.pt").exists()


def test_with_teachers_each_loss_is_descended_and_random_weights_are_said_everywhere(prepared):
    settings = settings_of(prepared, *TEACHERS, "pretrain.epochs=12", "pretrain.lr=0.1")
    stages.extract(settings)
    result = pretrain(settings)
    out = prepared / "results/pretrain"
    first, last = (read_csv(out / "curves.csv")[at] for at in (0, -1))
    for name in ("pixels", "similarity", "image"):
        assert last[name] < first[name]
    assert result["untrained"] == [CLIP] and f"UNTRAINED, random weights: {CLIP}" in result["name"]
    about = json.loads((out / "uniemox/emocache.json").read_text())
    assert about["name"] == result["name"]
    assert "UNTRAINED" in (out / "report.html").read_text()
    assert result["described"] == {"train": 12, "val": 4}
    assert result["fusion"] == "weighted"
    assert result["teachers"]["teacher_image"]["crops"] == 0


def test_its_encoder_is_a_backbone_with_its_hash_in_the_key(prepared):
    backbone = (
        "views.scene.network=uniemox",
        "views.scene.size=32",
        "views.body.network=uniemox",
        "views.body.size=32",
        "weights.folder=results/pretrain",
    )
    keys = []
    for seed in (0, 1):
        pretrain(settings_of(prepared, f"pretrain.seed={seed}"))
        settings = settings_of(prepared, *backbone)
        done = stages.extract(settings)
        assert done["untrained"] == []
        view = open_view(settings.cache.root, "scene")
        assert "UniEmoX ViT-tiny" in view.spec.weights[0]["name"]
        assert view.read().shape == (20, 24) and np.isfinite(view.read()).all()
        keys.append(view.key)
    assert keys[0] != keys[1]


def test_a_second_run_with_the_same_seed_gives_the_same_bits(prepared):
    kept = []
    for folder in ("a", "b"):
        pretrain(settings_of(prepared), out=prepared / folder)
        kept.append(load_file(prepared / folder / "uniemox/model.safetensors"))
    assert all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_bits(prepared):
    settings = settings_of(prepared, "pretrain.save_every=0")
    pretrain(settings, out=prepared / "whole")

    def stop(done, total, words):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(settings, stop, prepared / "parts")
    assert (prepared / "parts/resume.pt").exists()
    result = pretrain(settings, out=prepared / "parts")
    assert result["resumed"] >= 3
    whole, parts = (
        load_file(prepared / name / "student.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_other_settings_begin_anew(prepared):
    def stop(done, total, words):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain(settings_of(prepared, "pretrain.save_every=0"), stop)
    assert pretrain(settings_of(prepared, "pretrain.lr=0.01"))["resumed"] == 0


def test_a_person_who_is_the_whole_picture_is_said(prepared):
    table = prepared / "data/persons.jsonl"
    lines = [json.loads(line) | {"box": [0, 0, 64, 48]} for line in table.read_text().splitlines()]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stages.prepare(settings_of(prepared))
    (warning,) = prepare(settings_of(prepared)).warnings
    assert "in 12 of 12 pictures of train the person's box is the whole picture" in warning
    assert "pretrain.without=[person]" in warning
    assert (
        prepare(settings_of(prepared, "pretrain.without=[person, similarity, image]")).warnings
        == []
    )


def test_a_picture_that_is_gone_is_named_in_the_result_and_the_run_goes_on(prepared):
    (prepared / "data/pictures/03.png").unlink()
    result = pretrain(settings_of(prepared))
    assert list(result["lost"]) == ["pictures/03.png"]
    assert result["pictures"] == {"train": 11, "val": 4} and "on 11 pictures" in result["name"]
    assert "N train 11, dropped 0, 1 could not be read" in " ".join(result["said"])
    assert "no such file" in result["lost"]["pictures/03.png"]
    assert "1 could not be read" in (prepared / "results/pretrain/report.html").read_text()


def test_teachers_of_two_widths_are_refused_naming_both(prepared):
    bert = "sentence-transformers/all-MiniLM-L6-v2"
    settings = settings_of(
        prepared,
        "views.teacher_image.network=resnet18",
        f"views.teacher_text.network={bert}",
        f"weights.untrained=[resnet18, {bert}]",
        "weights.source=[untrained]",
        "pretrain.without=[]",
    )
    stages.extract(settings)
    with pytest.raises(SettingsError, match=r"resnet18 and .*MiniLM.* 512 and 384 wide"):
        pretrain(settings)
    alone = settings_of(prepared, "pretrain.without=[similarity]")
    assert pretrain(alone)["losses"] == ["pixels", "image"]


def test_no_picture_of_train_is_refused(prepared):
    table = prepared / "data/persons.jsonl"
    lines = [json.loads(line) | {"split": "test"} for line in table.read_text().splitlines()]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stages.prepare(settings_of(prepared))
    with pytest.raises(DataError, match="no picture of train to learn from"):
        pretrain(settings_of(prepared))


def test_the_command_tells_the_outcome_and_how_to_use_it(prepared, capsys, monkeypatch):
    settings_file = prepared / "params.yaml"
    settings_file.write_text(settings_of(prepared).model_dump_json())
    monkeypatch.setattr("sys.argv", ["emocache", "pretrain"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    said = capsys.readouterr().out
    assert end.value.code in (None, 0)
    assert "held out, N 4: pixels" in said
    assert re.search(r"[\d.]+ % \(.*\) of that of the mean training picture, N 4", said)
    assert re.search(r"seed 0, cache key [0-9a-f]{12}", said)
    assert "--set weights.folder=results/pretrain --set views.scene.network=uniemox" in said


def test_a_page_shows_no_pictures_of_another_run(prepared):
    pretrain(settings_of(prepared, "pretrain.epochs=3", "pretrain.grid_every=1"))
    pretrain(settings_of(prepared, "pretrain.epochs=1"))
    grids = prepared / "results/pretrain/grids"
    assert [path.name for path in grids.iterdir()] == ["epoch-0001.png"]


def test_similarity_to_texts_that_are_not_there_is_not_measured(prepared):
    table = prepared / "data/persons.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines:
        if line["split"] == "val":
            line["attributes"] = {}
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = settings_of(prepared, *TEACHERS)
    stages.prepare(settings)
    stages.extract(settings)
    result = pretrain(settings)
    assert result["described"] == {"train": 12, "val": 0}
    assert "val_similarity" not in result["last"] and "similarity" in result["last"]
    assert "similarity not measured" in " ".join(result["said"])
