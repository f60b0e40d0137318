import hashlib
import importlib.util
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from cache.errors import CacheError, KeyMismatch
from tests.train import made
from train.checkpoint import check_keys, load_head, save_head
from train.data import from_arrays
from train.fit import fit, predict


@pytest.fixture(scope="module")
def fitted():
    features = made.features(persons=64)
    settings = made.settings(epochs=2, standardise=True)
    return fit(features, settings).model, settings, features


def test_a_loaded_head_scores_to_the_last_bit_as_the_saved(tmp_path, fitted):
    model, settings, features = fitted
    info = save_head(tmp_path, model, settings, features, {"torch": "1"}, {"seed": 0})
    loaded, read = load_head(tmp_path)
    assert read == json.loads(json.dumps(info))
    rows = features.rows()
    np.testing.assert_array_equal(predict(loaded, features, rows), predict(model, features, rows))
    assert read["labels"] == list(made.NAMES) and read["classes"] == list("abcde")
    assert read["views"]["body"]["key"] == features.specs["body"].key and read["versions"] == {
        "torch": "1"
    }


def test_the_files_are_plain_tensors_and_json_and_the_same_each_time(tmp_path, fitted):
    model, settings, features = fitted
    for name in ("one", "two"):
        save_head(tmp_path / name, model, settings, features, {})
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "head.json",
        "head.safetensors",
    ]
    for file in ("head.json", "head.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert set(load_file(tmp_path / "one" / "head.safetensors")) == set(model.state_dict())


@pytest.mark.parametrize("without", [["objects", "depth"], ["hegl"], ["similarity"], ["darn"]])
def test_ablated_heads_come_back_too(tmp_path, without):
    features = made.features(persons=64)
    settings = made.settings(epochs=1, hugme={"without": without, "output": "literal"})
    model = fit(features, settings).model
    save_head(tmp_path, model, settings, features, {})
    loaded, _ = load_head(tmp_path)
    rows = features.rows()
    assert torch.equal(loaded(features.batch(rows)).scores, model(features.batch(rows)).scores)


def test_a_head_whose_code_has_changed_is_named(tmp_path, fitted, caplog):
    """Its class, registered in a file of its own, is edited after the fit."""
    file = tmp_path / "mine.py"
    text = """
from train.heads import register
from train.heads.mlp import Mlp

@register("mine_%d")
class Mine(Mlp):
    pass
"""
    name = f"mine_{id(tmp_path)}"
    file.write_bytes(text.replace("mine_%d", name).encode())
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    features = made.features(persons=64)
    settings = made.settings(epochs=1, head=name)
    info = save_head(tmp_path / "head", fit(features, settings).model, settings, features, {})
    assert info["code"] == hashlib.sha256(file.read_bytes()).hexdigest()
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))  # checked out elsewhere
    load_head(tmp_path / "head")
    assert not caplog.records
    file.write_text(file.read_text() + "# and more\n")
    load_head(tmp_path / "head")
    (said,) = [one.getMessage() for one in caplog.records]
    assert f"the code of the head {name} has changed" in said and str(tmp_path / "head") in said


def test_absent_damaged_and_newer_heads_are_refused(tmp_path, fitted):
    with pytest.raises(CacheError, match="emocache train"):
        load_head(tmp_path)
    with pytest.raises(CacheError, match="there is no folder"):
        load_head(tmp_path / "misspelt")
    save_head(tmp_path, *fitted, {})
    weights, about = tmp_path / "head.safetensors", tmp_path / "head.json"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CacheError, match="not the file"):
        load_head(tmp_path)
    about.write_text(about.read_text().replace('"format": 3', '"format": 99'))
    with pytest.raises(CacheError, match="format 99"):
        load_head(tmp_path)
    about.write_text(about.read_text()[:50])
    with pytest.raises(CacheError, match="damaged"):
        load_head(tmp_path)


def test_a_cache_that_defines_the_labels_otherwise_is_refused(tmp_path, fitted):
    """Only a cache without definitions may do, for the head brings its own."""
    info = save_head(tmp_path, *fitted, {})
    given = made.arrays(persons=64)
    old = given["views"]["labels"]
    other = replace(old.spec, parts={"definitions": "other"})
    given["views"]["labels"] = replace(old, spec=other)
    with pytest.raises(KeyMismatch, match=f"'labels'.*{old.spec.key[:12]}.*{other.key[:12]}"):
        check_keys(info, from_arrays(**given))


def test_a_cache_of_another_key_is_refused_naming_both_sides(tmp_path, fitted):
    info = save_head(tmp_path, *fitted, {})
    check_keys(info, fitted[2])
    given = made.arrays(persons=64)
    del given["views"]["labels"]  # the head has them
    check_keys(info, from_arrays(**given))
    old = given["views"]["depth"]
    other = replace(old.spec, parts={"network": "other"})
    given["views"]["depth"] = replace(old, spec=other)
    keys = f"{old.spec.key[:12]}.*{other.key[:12]}"
    with pytest.raises(KeyMismatch, match=rf"'depth'.*{keys}.*network: absent -> other"):
        check_keys(info, from_arrays(**given))
    given = made.arrays(persons=64)
    given["labels"] = ("calm", "glad", "sad", "bored")
    with pytest.raises(KeyMismatch, match=r"tense.*bored"):
        check_keys(info, from_arrays(**given))
