"""What sharing a cache costs: files, bytes and seconds of `dvc commit`, `push` and `pull` for an
EMOTIC-size cache of all views, and for 1 % more pictures; beside it the same features as one .npy
file a person. The remote is a folder on the same disk, so that no network is measured.

    python benchmarks/team.py [--share 1.0] [--npy-share 0.1] [--json]

Needs about five times the cache's 2.5 GB of disk in the temporary folder.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from made import EMOTIC, machine, make_cache, make_index, size_of

from cache.store import open_view

VIEWS = ("body", "head", "objects", "depth", "scene", "labels")
OUTS = (*(f"features/{view}.zarr" for view in VIEWS), "features/index", "features/manifest.json")
MORE = 0.01
STAGE = """stages:
  extract:
    cmd: "true"
    outs:
"""


def run(folder: Path, *command: str) -> None:
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "DVC_NO_ANALYTICS": "true"},
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout}{done.stderr}")


def dvc(folder: Path, *arguments: str) -> float:
    """Seconds of a dvc command, its start of about a second included."""
    started = time.perf_counter()
    run(folder, sys.executable, "-m", "dvc", *arguments)
    return round(time.perf_counter() - started, 2)


def repository(folder: Path, remote: Path, outs: tuple[str, ...]) -> None:
    """A git and dvc repository whose one stage has `outs`, as the project's dvc.yaml has them."""
    folder.mkdir()
    run(folder, "git", "init", "-q")
    run(folder, sys.executable, "-m", "dvc", "init", "-q")
    run(folder, sys.executable, "-m", "dvc", "config", "cache.type", "reflink,copy")
    run(folder, sys.executable, "-m", "dvc", "remote", "add", "-q", "-d", "team", str(remote))
    lines = [f"      - {out}: {{persist: true}}\n" for out in outs]
    (folder / "dvc.yaml").write_text(STAGE + "".join(lines))


def teammate(folder: Path, of: Path) -> None:
    """What a clone has before it pulls: settings, stages and dvc.lock."""
    shutil.copytree(of, folder, ignore=shutil.ignore_patterns("features", "cache", "tmp"))


def share(
    folder: Path, outs: tuple[str, ...], make: Callable[[Path, float], None], one: str = ""
) -> dict[str, Any]:
    """Make, commit, push and pull; then 1 % more. `one`: an output to pull by itself as well."""
    mine, theirs, remote = folder / "mine", folder / "theirs", folder / "remote"
    remote.mkdir(parents=True)
    repository(mine, remote, outs)
    found: dict[str, Any] = {}
    for name, more in (("whole", 0.0), ("one_percent_more", MORE)):
        make(mine / "features", more)
        before = size_of(remote)
        took = {
            "commit_s": dvc(mine, "commit", "-q", "-f"),
            "push_s": dvc(mine, "push", "-q"),
        }
        after = size_of(remote)
        if not theirs.exists():
            teammate(theirs, mine)
            if one:
                took["pull_one_s"] = dvc(theirs, "pull", "-q", one)
                found["pulled_one"] = size_of(theirs / one)
        else:
            shutil.copy(mine / "dvc.lock", theirs)
        took["pull_s"] = dvc(theirs, "pull", "-q")
        held, pulled = (size_of(*(clone / out for out in outs)) for clone in (mine, theirs))
        if pulled != held:
            raise SystemExit("a pull did not bring what was pushed")
        pushed = {what: after[what] - before[what] for what in after}
        found[name] = {"cache": held, "pushed": pushed, **took}
    return found


def scaled(share: float, more: float) -> dict[str, int]:
    """EMOTIC's persons and pictures, times `share`, with `more` of them added."""
    counts = {name: int(EMOTIC[name] * share * (1 + more)) for name in ("persons", "pictures")}
    return {**EMOTIC, **counts}


def write_npy(source: Path, persons: int, folder: Path, sizes: dict[str, int]) -> None:
    """One .npy a person with the same features: its own rows and its picture's, float16."""
    folder.mkdir(parents=True, exist_ok=True)
    index = make_index(sizes)
    arrays = [
        (view.space, view.read(name).reshape(len(view), -1))
        for view in (open_view(source, name) for name in VIEWS if name != "labels")
        for name in view.spec.arrays
    ]
    for row, picture in enumerate(index.picture_rows[:persons].tolist()):
        path = folder / f"{index.persons['id'][row].as_py()}.npy"
        if not path.exists():
            rows = [values[row if of == "persons" else picture] for of, values in arrays]
            np.save(path, np.concatenate(rows, dtype=np.float16, casting="unsafe"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of EMOTIC's persons")
    parser.add_argument("--npy-share", type=float, default=0.1, help="the same, for .npy files")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    asked = parser.parse_args()

    result: dict[str, Any] = {"machine": machine("dvc", "zarr", "numpy")}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)

        def cache(root: Path, more: float) -> None:
            make_cache(root, scaled(asked.share, more))

        ours = share(folder / "ours", OUTS, cache, one="features/body.zarr")
        result["ours"] = {**scaled(asked.share, 0), **ours}
        shutil.rmtree(folder / "ours")
        few = scaled(asked.npy_share, MORE)
        make_cache(folder / "source", few)

        def npy(root: Path, more: float) -> None:
            write_npy(folder / "source", scaled(asked.npy_share, more)["persons"], root, few)

        result["npy"] = {**scaled(asked.npy_share, 0), **share(folder / "npy", ("features",), npy)}
    if asked.json:
        print(json.dumps(result))
        return
    about = result["machine"]
    print(f"{about['cpu']}, {about['cores']} cores, load {about['load']:.1f}, {about['date']}")
    for name, what in (("ours", "one cache"), ("npy", "one .npy a person")):
        one = result[name]
        print(f"\n{what}: {one['persons']} persons, {one['pictures']} pictures")
        for step in ("whole", "one_percent_more"):
            facts = one[step]
            print(
                f"  {step:17} holds {told(facts['cache'])}; pushed {told(facts['pushed'])}; "
                f"commit {facts['commit_s']} s, push {facts['push_s']} s, pull {facts['pull_s']} s"
            )
        if "pulled_one" in one:
            print(f"  body.zarr alone: {told(one['pulled_one'])} in {one['whole']['pull_one_s']} s")


def told(size: dict[str, int]) -> str:
    return f"{size['files']} files, {size['bytes'] / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
