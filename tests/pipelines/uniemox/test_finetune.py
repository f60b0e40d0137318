"""`emocache finetune`: an encoder, a linear layer, single labels."""

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from cache.errors import DataError, WeightsError
from pipelines import cli, stages
from pipelines.uniemox.finetune import finetune
from pipelines.uniemox.pretrain import pretrain
from tests.pipelines.uniemox.conftest import CLIP, TEACHERS, settings_of
from train.scores import Scores


@pytest.fixture
def encoded(prepared):
    """A project with a pre-trained encoder; its settings."""
    pretrain(settings_of(prepared, "pretrain.epochs=1"))
    return lambda *more: settings_of(prepared, "weights.folder=results/pretrain", *more)


def test_it_learns_colours_and_says_so_with_n_seed_key_and_interval(encoded, tmp_path):
    result = finetune(
        encoded(
            "finetune.epochs=25",
            "finetune.lr=0.1",
            "finetune.streams=[person]",
            "finetune.mixup=0",
            "finetune.cutmix=0",
            "finetune.smoothing=0",
            "finetune.layer_decay=1.0",
        )
    )
    numbers = result["measured"]
    assert numbers["n_evaluated"] == 4 and numbers["n_dropped"] == 0
    assert numbers["accuracy"] == 1.0
    assert numbers["accuracy_low"] <= 1.0 <= numbers["accuracy_high"]
    said = " ".join(result["said"])
    assert "N evaluated 4 of test" in said and "seed 0" in said
    assert result["cache_key"][:12] in said
    out = tmp_path / "results/finetune"
    kept = json.loads((out / "metrics.json").read_text())["test"]
    assert kept["accuracy"] == 1.0 and kept["kind"] == "single"
    scores = Scores.read(out / "scores.parquet")
    assert np.allclose(scores.y_score.sum(axis=1), 1, atol=1e-5)
    assert np.array_equal(scores.y_score.argmax(1), scores.y_true.argmax(1))
    page = (out / "report.html").read_text()
    assert "Where the encoder looks" in page and "predicted" in page


def test_its_encoder_is_a_backbone_too(encoded, tmp_path):
    finetune(encoded())
    folder = tmp_path / "results/finetune/classifier"
    settings = encoded(
        f"weights.folder={folder}", "views.scene.network=uniemox", "views.scene.size=32"
    )
    stages.extract(settings)
    changed = load_file(folder / "uniemox/model.safetensors")
    before = load_file(tmp_path / "results/pretrain/uniemox/model.safetensors")
    assert set(changed) == set(before)
    assert any(not np.array_equal(changed[name], before[name]) for name in changed)


def test_frozen_leaves_the_encoder_as_it_was(encoded, tmp_path):
    finetune(encoded("finetune.frozen=true"))
    after = load_file(tmp_path / "results/finetune/classifier/uniemox/model.safetensors")
    before = load_file(tmp_path / "results/pretrain/uniemox/model.safetensors")
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_an_encoder_that_no_source_has_is_refused(prepared):
    with pytest.raises(
        WeightsError, match=r"no weights of uniemox.*weights\.folder.*results/pretrain"
    ):
        finetune(settings_of(prepared, "weights.source=[folder]"))


def test_labels_of_which_there_may_be_several_are_refused(encoded, tmp_path):
    table = tmp_path / "data/persons.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    lines[0]["labels"] = ["calm", "alarm"]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stages.prepare(encoded())
    with pytest.raises(DataError, match=r"single labels or shares.*views\.scene\.network"):
        finetune(encoded())


def test_shares_are_measured_as_distributions(encoded, tmp_path):
    table = tmp_path / "data/persons.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines:
        (label,) = line["labels"]
        other = "alarm" if label == "calm" else "calm"
        line["labels"] = {label: 0.75, other: 0.25}
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    stages.prepare(encoded())
    result = finetune(encoded())
    assert result["measured"]["kind"] == "distribution"
    assert "KL divergence" in " ".join(result["said"])
    assert result["measured"]["chance_kl"] < 0.3  # the mean of train


def test_a_split_without_anybody_is_refused_by_its_settings(encoded, tmp_path):
    table = tmp_path / "data/persons.jsonl"
    lines = [json.loads(line) for line in table.read_text().splitlines()]
    for line in lines:
        line["split"] = "train" if line["split"] == "val" else line["split"]
    table.write_text("".join(json.dumps(line) + "\n" for line in lines))
    none = "data.split.val=0"
    stages.prepare(encoded(none))
    with pytest.raises(DataError, match=r"no person of val.*finetune\.select"):
        finetune(encoded(none))
    assert finetune(encoded(none, "finetune.select=last"))["best_epoch"] == 2


def test_the_command_prints_what_the_page_says(encoded, tmp_path, capsys, monkeypatch):
    (tmp_path / "params.yaml").write_text(encoded().model_dump_json())
    monkeypatch.setattr("sys.argv", ["emocache", "finetune"])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert "N evaluated 4 of test, 0 dropped" in said and "accuracy" in said


def test_an_encoder_that_untrained_teachers_taught_is_said_to_be(prepared):
    settings = settings_of(prepared, *TEACHERS, "pretrain.epochs=1")
    stages.extract(settings)
    pretrain(settings)
    result = finetune(settings_of(prepared, "weights.folder=results/pretrain"))
    (warning,) = result["warnings"]
    assert f"UNTRAINED, random weights: {CLIP}" in warning
    assert "UNTRAINED" in (prepared / "results/finetune/report.html").read_text()
