"""The commands sweep, tune and tables, as a user types them."""

import json

import pytest
import yaml

from pipelines.cli import main
from tests.pipelines.studies.test_tables import RRLA_HERE

SETTINGS = {
    "sweep": {"over": {"train.lr": [1e-3, 3e-3]}},
    "tune": {
        "space": {"train.lr": {"low": 1e-4, "high": 1e-2, "log": True}},
        "trials": 2,
        "batch": 2,
        "seeds": [0, 1],
    },
    "tables": {"heads": ["mlp", "rrla"], "grid": 0, "seeds": [0], "settings": {"rrla": RRLA_HERE}},
}


@pytest.fixture
def emocache(asked, monkeypatch, capsys, tmp_path):
    """Types a command in a folder with params.yaml; gives exit code and what was said."""
    settings = asked(train={"epochs": 2}, **SETTINGS).model_dump(mode="json")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("COLUMNS", "200")

    def types(*words):
        monkeypatch.setattr("sys.argv", ["emocache", *words])
        with pytest.raises(SystemExit) as end:
            main()
            raise SystemExit(0)
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return types


def test_sweep_says_what_it_would_do_does_it_and_does_nothing_again(emocache, tmp_path):
    code, out, _ = emocache("sweep", "--plan")
    assert code == 0 and "2 fits: 0 are kept, 2 are left" in out
    assert not (tmp_path / "results").exists()
    code, out, _ = emocache("sweep")
    assert code == 0 and "2 fitted now, 0 kept" in out and "N 40 on val" in out
    assert "UNTRAINED" in out and "emocache train --set train.lr=0.00" in out
    code, out, _ = emocache("sweep", "--json")
    found = json.loads(out)
    assert (found["fitted"], found["kept"]) == (0, 2)
    assert found["rows"][0]["val_mAP"] >= found["rows"][1]["val_mAP"]


def test_the_grid_can_be_typed(emocache):
    code, out, _ = emocache(
        "sweep", "--over", "train.hugme.beta=[0.2, 0.8]", "--over", "train.seed=[0,1]", "--json"
    )
    rows = json.loads(out)["rows"]
    assert code == 0 and len(rows) == 4
    assert {(row["train.hugme.beta"], row["train.seed"]) for row in rows} == {
        (beta, seed) for beta in (0.2, 0.8) for seed in (0, 1)
    }


def test_equal_points_of_a_grid_are_said(emocache):
    for words in (["--plan"], []):
        _, out, _ = emocache("sweep", "--over", "train.lr=[1e-3, 0.001, 3e-3]", *words)
        assert "that equal another one, and are left out: 1" in out
    _, out, _ = emocache("sweep")
    assert "left out" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--over", "train.lr=3"], "--over 'train.lr=[1e-4, 3e-4]'"),
        (["--over", "lr=[1, 2]"], "sweep.over.lr"),
        (["--over", "train.lrr=[1, 2]"], "did you mean train.lr"),
        (["--over", "train.mlp.dropout=[0, 0.5]"], "set train.head to mlp"),
        (["--set", "data.name=emotic"], "run `emocache prepare`"),
    ],
)
def test_a_refusal_is_a_sentence(emocache, words, said):
    code, _, err = emocache("sweep", *words)
    assert code == 1 and said in " ".join(err.split()) and "Traceback" not in err


def test_tune_prints_the_best_and_how_to_fit_it(emocache, tmp_path):
    code, out, _ = emocache("tune")
    assert code == 0 and "2 trials" in out and "4 fits made now" in out
    assert "On test: mAP" in out and "seeds 0, 1" in out
    assert "emocache train --params results/tune/params.yaml" in out
    code, out, _ = emocache("train", "--params", "results/tune/params.yaml")
    assert code == 0 and "hugme fitted" in out
    code, out, _ = emocache("tune", "--json")
    assert json.loads(out)["fitted"] == 0


def test_tables_prints_them_and_names_what_is_missing(emocache, tmp_path):
    code, out, _ = emocache("tables", "--plan")
    assert code == 0 and "7 fits" in out
    code, out, _ = emocache("tables")
    assert code == 0 and "Table 1" in out and "Table 4" in out and "Table 3" not in out
    assert "without geometry" in out and "cannot be compared" in out and "32.41" in out
    code, out, _ = emocache("tables", "--json")
    found = json.loads(out)
    assert found["fitted"] == 0 and found["fits"] == 7 and "tables" not in found
