"""Weights from torchvision's host and from the hub of transformers, where they are in reach."""

import http.client
import logging
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from functools import lru_cache
from pathlib import Path

from cache.errors import WeightsError
from cache.files import sha256_file
from extract import settings as config
from extract.weights.plain import plain_tensors
from extract.weights.record import Absent, Weights
from extract.weights.store import PLAIN, keep, kept, workplace

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
STALL = 3  # times weights.hub_timeout that a download may stand still
FETCH = Path(__file__).with_name("fetch_hub.py")

log = logging.getLogger(__name__)


def find(network: str, settings: config.Weights) -> Weights:
    """What the hub has, from the store where it was fetched before."""
    if found := kept(network, "hub", settings):
        return found
    if network in TORCHVISION:
        return _torchvision(network, settings)
    if "/" in network or network in ALIASES:
        return _transformers(network, settings)
    raise Absent("no hub is known to have it")


def _torchvision(network: str, settings: config.Weights) -> Weights:
    from safetensors.torch import save_file
    from torchvision.models import get_weight

    weights = get_weight(TORCHVISION[network])
    _reach(_host(weights.url), settings.hub_timeout)
    with workplace(settings) as place:
        fetched = Path(place) / "fetched.pth"
        _download(weights.url, fetched, settings.hub_timeout)
        # torchvision names its files after the first digits of their SHA-256.
        prefix = weights.url.rsplit("-", 1)[-1].removesuffix(".pth")
        if not sha256_file(fetched).startswith(prefix):
            raise WeightsError(f"{weights.url} came with another SHA-256 than its name says")
        made = Path(place) / "made"
        made.mkdir()
        save_file(plain_tensors(fetched), made / PLAIN)
        facts = {"name": f"torchvision {weights}", "licence": "BSD-3-Clause"}
        return keep(network, "hub", settings, made, facts)


def _transformers(network: str, settings: config.Weights) -> Weights:
    from huggingface_hub import constants

    repository = ALIASES.get(network, network)
    _reach(_host(constants.ENDPOINT), settings.hub_timeout)
    _reach(f"{constants.ENDPOINT}/api/models/{repository}", settings.hub_timeout, "GET")
    with workplace(settings) as place:
        made = Path(place) / "made"
        made.mkdir()
        log.info("fetching %s from the hub", repository)
        # In a process that ends itself: a hub may answer at first and then deliver nothing.
        what = [constants.ENDPOINT, repository, str(made), str(STALL * settings.hub_timeout)]
        done = subprocess.run(
            [sys.executable, "-P", str(FETCH), *what], capture_output=True, text=True
        )
        if done.returncode:
            raise Absent((done.stderr.strip().splitlines() or ["no reason given"])[-1][:200])
        for below in [path for path in made.iterdir() if path.is_dir()]:
            shutil.rmtree(below, ignore_errors=True)
        if not list(made.glob("model*.safetensors")):
            _as_safetensors(made / "pytorch_model.bin", made / "model.safetensors")
        facts = {"name": network, "licence": "as its model card states"}
        return keep(network, "hub", settings, made, facts)


def _as_safetensors(old: Path, new: Path) -> None:
    """An older model's tensors in the form of today's; the pickle is deleted."""
    from safetensors.torch import save_file

    if not old.exists():
        raise Absent("its files hold no safetensors and no pytorch_model.bin")
    try:
        tensors = plain_tensors(old)
    except ValueError as error:
        raise Absent(f"its {old.name} holds more than tensors") from error
    save_file(tensors, new, metadata={"format": "pt"})
    old.unlink()


def _host(address: str) -> str:
    return "/".join(address.split("/")[:3])


def _reach(address: str, seconds: float, method: str = "HEAD") -> None:
    """Refuse within `seconds` an address that does not answer; asked once a process."""
    if problem := _unreachable(address, seconds, method):
        raise Absent(f"out of reach within {seconds:g} s ({problem})")


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
        raise Absent(f"the download broke off ({error})") from error
    if said is not None and to.stat().st_size != int(said):
        raise Absent(f"the download broke off ({to.stat().st_size} of {said} bytes came)")
