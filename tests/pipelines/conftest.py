"""One real run that the tests of the top floor share: DVC, the command line, 37 EMOTIC persons."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipelines.cli import main
from tests.conftest import ONE_RUN
from tests.networks import real
from tests.shared import shared

ROOT = Path(__file__).resolve().parents[2]
NETWORKS = ("resnet50", "blazeface", "yolo26n", "sentence-transformers/all-MiniLM-L6-v2")


@dataclass(frozen=True)
class Done:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


def environment(folder: Path, first: Sequence[Path] = ()) -> dict[str, str]:
    """Stages call `emocache`: the one beside this interpreter, with the code of `folder`; modules
    in `first` hide all others of their name."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # Byte code is written, as it is for users: DVC must not mistake it for a change.
    kept = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **kept,
        "PATH": path,
        "PYTHONPATH": os.pathsep.join(map(str, [*first, folder])),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        "COLUMNS": "200",
    }


def run(folder: Path, *command: str, first: Sequence[Path] = ()) -> Done:
    """Run a command in `folder` as a process of its own."""
    done = subprocess.run(
        command, cwd=folder, env=environment(folder, first), capture_output=True, text=True
    )
    return Done(done.returncode, done.stdout, done.stderr)


def dvc(folder: Path, *arguments: str, first: Sequence[Path] = ()) -> Done:
    """Run dvc in a project; it must succeed."""
    done = run(folder, sys.executable, "-m", "dvc", *arguments, first=first)
    assert done.code == 0, done.said
    return done


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    done = run(folder, "git", *who, *arguments)
    assert done.code == 0, done.said
    return done.out


def copy_of_checkout(folder: Path) -> None:
    """A fresh repository of this working tree: what git tracks, and what it would."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("needs git and a git checkout")
    for name in run(ROOT, "git", "ls-files", "-co", "--exclude-standard", "-z").out.split("\0"):
        if name and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    git(folder, "init", "-q", ".")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "as checked out")


@pytest.fixture(scope="session")
def pictures() -> Path:
    """30 real pictures with 37 persons, in EMOTIC's CSV form."""
    return shared("data/emotic_pictures")


@pytest.fixture(scope="session")
def first_run(tmp_path_factory, pictures, request) -> tuple[Path, Done]:
    """A clone in which DVC ran from `prepare` to `report` once, and what it said. About a minute
    on two cores, so it is shared: copy it before you change anything."""
    used = {item.path.stem for item in request.session.items if "first_run" in item.fixturenames}
    assert used <= set(ONE_RUN), f"add {used - set(ONE_RUN)} to ONE_RUN in tests/conftest.py"
    for network in NETWORKS:
        real(network)
    folder = tmp_path_factory.mktemp("clone") / "project"
    folder.mkdir()
    copy_of_checkout(folder)
    changes = {
        "data.name": "emotic",
        "data.root": str(pictures),
        "train.epochs": "12",
        "evaluate.bootstrap": "100",
        "report.people": "2",
    }
    done = dvc(folder, "exp", "run", *_set(changes, "-S"), "report")
    return folder, done


@pytest.fixture(scope="session")
def project(first_run) -> Path:
    """The clone with index, views, head, metrics and report in it. Copy it to change it."""
    return first_run[0]


@pytest.fixture
def workplace(project, tmp_path, monkeypatch) -> Path:
    """A folder to work in, with a copy of the run's settings, features and results."""
    folder = tmp_path / "work"
    for name in ("features", "results"):
        shutil.copytree(project / name, folder / name)
    shutil.copy(project / "params.yaml", folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def emocache(monkeypatch, capsys):
    """Run a command in this process, through the same `main` that the installed command calls."""

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["emocache", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        return Done(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium without a window, that logs what pages ask for and what goes wrong in them."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (chromium and chromedriver):
        pytest.skip("needs chromium and chromedriver (Debian: chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "no-first-run",
        "disable-sync",
        "disable-background-networking",
        "disable-component-update",
        "disable-dev-shm-usage",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
        "window-size=1400,1000",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=chromedriver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


def _set(changes: Mapping[str, str], flag: str) -> list[str]:
    return [part for key, value in changes.items() for part in (flag, f"{key}={value}")]
