"""A hub that answers at first and then stops, at each step of a download; and slow but alive."""

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from cache.errors import WeightsError
from extract.settings import Weights as WeightsSettings
from extract.weights import fetch_hub, find
from extract.weights import hub as source
from tests.extract.local_hub import LocalHub, serving

NETWORK = "owner/tiny-dpt"
NUMBERS = {"weight": np.arange(60_000, dtype=np.float32)}
FILES = {
    "config.json": b"{}",
    "model.safetensors": save(NUMBERS),
    "pytorch_model.bin": b"a pickle",
    "onnx/config.json": b"{}",
}
TIMEOUT = 1.0


def settings(store: Path, **more) -> WeightsSettings:
    return WeightsSettings(store=store, source=["hub"], hub_timeout=TIMEOUT, **more)


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


def point_at(monkeypatch, address: str) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)


# By stage: the request that is left without an answer, or with half of one.
REACHED = {
    "head": "HEAD /",
    "info": "GET /api/models/owner/tiny-dpt",
    "tree": "/tree/",
    "metadata": "HEAD /owner/tiny-dpt/resolve",
    "file": "GET /owner/tiny-dpt/resolve",
    "half": "GET /owner/tiny-dpt/resolve",
}


@pytest.mark.slow
@pytest.mark.parametrize("stage", REACHED)
def test_a_hub_that_stops_at_any_stage_fails_over(stage, tmp_path, monkeypatch):
    store = tmp_path / "store"
    with serving(LocalHub(NETWORK, FILES, stage)) as hub:
        point_at(monkeypatch, hub.url)
        with pytest.raises(WeightsError, match=r"hub: (out of reach|it sent nothing for 3 s)"):
            find(NETWORK, settings(store))
        assert any(REACHED[stage] in asked for asked in hub.asked), hub.asked
    assert not (store / "owner--tiny-dpt").exists()
    assert not list(store.glob(".fetching-*"))


@pytest.mark.slow
def test_a_stalled_hub_leaves_the_next_source_its_turn(tmp_path, monkeypatch):
    with serving(LocalHub(NETWORK, FILES, "half")) as hub:
        point_at(monkeypatch, hub.url)
        found = find(NETWORK, settings(tmp_path, untrained=[NETWORK]))
        assert found.source == "untrained" and not found.trained


@pytest.mark.slow
def test_only_safetensors_and_text_are_asked_for(tmp_path, monkeypatch, caplog):
    with serving(LocalHub(NETWORK, FILES)) as hub:
        point_at(monkeypatch, hub.url)
        with caplog.at_level(logging.INFO, "extract.weights"):
            found = find(NETWORK, settings(tmp_path))
        assert not any("pytorch_model.bin" in asked for asked in hub.asked)
    assert np.array_equal(load_file(found.path / "model.safetensors")["weight"], NUMBERS["weight"])
    kept = sorted(path.name for path in found.path.iterdir())
    assert kept == ["config.json", "model.safetensors", "source.json"]
    assert f"fetching {NETWORK} from the hub" in caplog.text


@pytest.mark.slow
def test_an_older_model_that_is_no_plain_state_dict_is_refused(tmp_path, monkeypatch):
    files = {name: body for name, body in FILES.items() if not name.endswith(".safetensors")}
    with serving(LocalHub(NETWORK, files)) as hub:
        point_at(monkeypatch, hub.url)
        with pytest.raises(WeightsError, match=r"hub: its pytorch_model.bin holds more than"):
            find(NETWORK, settings(tmp_path))
    assert not (tmp_path / "owner--tiny-dpt").exists()


@pytest.mark.slow
def test_an_older_model_is_kept_as_safetensors(tmp_path, monkeypatch):
    import torch

    torch.save({"weight": torch.from_numpy(NUMBERS["weight"])}, tmp_path / "older")
    files = {"config.json": b"{}", "pytorch_model.bin": (tmp_path / "older").read_bytes()}
    with serving(LocalHub(NETWORK, files)) as hub:
        point_at(monkeypatch, hub.url)
        found = find(NETWORK, settings(tmp_path))
    np.testing.assert_array_equal(
        load_file(found.path / "model.safetensors")["weight"], NUMBERS["weight"]
    )
    assert not (found.path / "pytorch_model.bin").exists()


@pytest.mark.slow
def test_a_model_the_hub_does_not_have_is_said_at_once(tmp_path, monkeypatch):
    with serving(LocalHub("owner/other", FILES)) as hub:
        point_at(monkeypatch, hub.url)
        with pytest.raises(WeightsError, match=r"hub: .*Error"):
            find(NETWORK, settings(tmp_path))
        assert len(hub.asked) == len(set(hub.asked)) <= 3, hub.asked  # nothing is tried again


def test_a_name_that_is_looked_up_for_ever_fails_over(tmp_path, monkeypatch):
    """A socket's timeout does not hold for looking up its host's name. Here the answer comes only
    after `find` has given up."""
    over, answered = threading.Event(), threading.Event()

    def slow(*_, **__):
        over.wait()
        answered.set()
        raise socket.gaierror("unknown at last")

    point_at(monkeypatch, "http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", slow)
    with pytest.raises(WeightsError, match=r"out of reach within 1 s \(timed out\)"):
        find(NETWORK, settings(tmp_path))
    assert not answered.is_set()
    over.set()
    assert answered.wait(60)


def test_a_host_is_probed_once_a_process(tmp_path, monkeypatch):
    probed = []

    def problem(address, seconds, method):
        probed.append(address)
        return "down"

    monkeypatch.setattr(source, "_problem", problem)
    point_at(monkeypatch, "http://once.invalid")
    for network in (NETWORK, "owner/another", NETWORK):
        with pytest.raises(WeightsError, match="down"):
            find(network, settings(tmp_path))
    assert probed == ["http://once.invalid"]


SLOW = """
import sys, threading, time
from pathlib import Path
from extract.weights import fetch_hub
folder = Path(sys.argv[1])
threading.Thread(target=fetch_hub.watch, args=(folder, 1.0), daemon=True).start()
with open(folder / "part", "wb") as file:
    for _ in range(12):
        file.write(b"x")
        file.flush()
        time.sleep(0.25)
print("came through")
"""


@pytest.mark.slow
def test_a_slow_download_that_goes_on_is_left_alone(tmp_path):
    """Three seconds in all with a patience of one: it is standing still that counts."""
    done = subprocess.run(
        [sys.executable, "-c", SLOW, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "came through\n"), done.stderr


@pytest.mark.slow
def test_a_download_that_stands_still_ends_its_process(tmp_path):
    code = (
        "import sys, pathlib, extract.weights.fetch_hub as program\n"
        "program.watch(pathlib.Path(sys.argv[1]), 0.5)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == fetch_hub.STALLED
    assert done.stderr == "it sent nothing for 0.5 s\n"


STORED = """
import json, socket, sys
def refuse(*_, **__):
    raise AssertionError("no network in this test")
socket.getaddrinfo = socket.socket.connect = refuse
from pathlib import Path
from extract.settings import Weights
from extract.weights import find
store, opened = Path(sys.argv[1]), []
def watch(event, details):
    if event == "open" and str(store) in str(details[0]):
        opened.append(Path(details[0]).name)
sys.addaudithook(watch)
find(sys.argv[2], Weights(store=store))
heavy = sorted({"torch", "transformers", "torchvision", "huggingface_hub"} & set(sys.modules))
print(json.dumps({"opened": sorted(set(opened)), "heavy": heavy}))
"""


@pytest.mark.slow
def test_what_the_store_has_is_found_by_notes_alone(tmp_path, monkeypatch):
    """No library is loaded and no weights are read or hashed: only what was noted of them."""
    store = tmp_path / "store"
    with serving(LocalHub(NETWORK, FILES)) as hub:
        point_at(monkeypatch, hub.url)
        find(NETWORK, settings(store))
    done = subprocess.run(
        [sys.executable, "-c", STORED, str(store), NETWORK],
        capture_output=True,
        text=True,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"opened": ["hashes.json", "source.json"], "heavy": []}
