"""The pipeline under DVC in a clone: it runs once, reruns what changed and nothing else."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from cache.index import Index
from cache.store import open_view
from tests.pipelines.conftest import Done, dvc, git

pytestmark = pytest.mark.slow

STAGES = ["prepare", "extract", "train", "evaluate", "report"]
STUDIES = "pipelines/studies/dvc.yaml"
UNIEMOX = "pipelines/uniemox/dvc.yaml"
VIEWS = ("body", "head", "objects", "depth", "scene", "labels")


def ran(done: Done) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", done.said)


def set_params(folder: Path, section: str, **values) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params[section] |= values
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


@pytest.fixture(scope="module")
def clone(project, tmp_path_factory) -> Path:
    """A copy of the first run, with dvc.lock committed, as a user would."""
    folder = tmp_path_factory.mktemp("dvc") / "project"
    shutil.copytree(project, folder, symlinks=True)
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "first run")
    return folder


def blockers(folder: Path, *names: str) -> Path:
    """A folder of modules that refuse to be imported."""
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} must not be loaded here')\n")
    return folder


@pytest.fixture
def no_networks(tmp_path) -> Path:
    return blockers(tmp_path / "none", "torchvision", "transformers", "ultralytics", "timm")


def test_the_first_run_goes_through_every_stage(first_run):
    folder, done = first_run
    assert ran(done) == STAGES
    metrics = json.loads((folder / "results" / "metrics.json").read_text())
    assert (metrics["test"]["n_evaluated"], metrics["test"]["n_dropped"]) == (11, 0)
    assert 0 <= metrics["test"]["mAP_low"] <= metrics["test"]["mAP"] <= 1
    provenance = json.loads((folder / "results" / "provenance.json").read_text())
    assert provenance["untrained"] == ["Intel/dpt-swinv2-tiny-256"]
    index = Index.read(folder / "features")
    assert (len(index.persons), len(index.pictures)) == (37, 30)
    for name in VIEWS:
        view = open_view(folder / "features", name)
        assert view.done.all() and view.read().any()
    page = (folder / "results" / "report.html").read_text()
    assert "UNTRAINED" in page.upper() and page.count("data:image/") >= 2


def test_git_sees_settings_and_lock_and_nothing_else(project):
    changed = {line[3:] for line in git(project, "status", "--porcelain").splitlines()}
    assert changed <= {"params.yaml", "dvc.lock", "data/.gitignore"} and "dvc.lock" in changed


def test_the_lock_lists_each_view_and_no_byte_code(project):
    lock = (project / "dvc.lock").read_text()
    for name in (*(f"{view}.zarr" for view in VIEWS), "index", "manifest.json"):
        assert f"path: features/{name}\n" in lock
    modules = [p for p in (project / "extract").rglob("*") if p.suffix in (".py", ".yaml")]
    assert any((project / "extract").rglob("__pycache__"))
    entry = re.search(r"- path: extract\n(?:      .*\n)*?      nfiles: (\d+)", lock)
    assert entry is not None and int(entry[1]) == len(modules)


def test_a_second_run_does_nothing(clone):
    done = dvc(clone, "repro", "report")
    assert ran(done) == [] and "up to date" in done.said


def test_metrics_and_plots_are_shown(clone):
    shown = json.loads(dvc(clone, "metrics", "show", "--json").out)
    measured = json.loads((clone / "results" / "metrics.json").read_text())
    del measured["test"]["dropped"]  # empty, which DVC leaves out
    assert shown[""]["data"]["results/metrics.json"]["data"] == measured
    dvc(clone, "plots", "show")
    page = (clone / "dvc_plots" / "index.html").read_text()
    for title in ("AP of each label", "Precision and recall", "Loss", "mAP on val"):
        assert title in page
    assert "Happiness" in page and "<DVC_METRIC" not in page
    assert git(clone, "status", "--porcelain") == ""


def test_studies_run_when_asked_for_and_not_otherwise(clone):
    """The pipeline of the root must not make 180 fits."""
    assert "studies" not in dvc(clone, "repro", "--dry").said
    asked = dvc(clone, "repro", "--dry", STUDIES)
    assert ran(asked) == [f"{STUDIES}:{name}" for name in ("sweep", "tune", "tables", "crossval")]


def test_uniemox_is_fitted_when_asked_for_and_not_otherwise(clone):
    assert "uniemox" not in dvc(clone, "repro", "--dry").said
    asked = dvc(clone, "repro", "--dry", UNIEMOX)
    assert sorted(ran(asked)) == [f"{UNIEMOX}:{name}" for name in ("finetune", "pretrain")]


def test_tables_are_a_stage_that_fits_only_what_changed(clone, no_networks):
    stage = f"{STUDIES}:tables"
    set_params(clone, "tables", heads=["kosti", "linear"], grid=0, seeds=[0], settings={})
    done = dvc(clone, "repro", stage, first=[no_networks])
    assert ran(done) == [stage] and "2 fits, 2 of them now" in done.said
    assert json.loads((clone / "results/tables/tables.json").read_text())["fits"] == 2
    assert ran(dvc(clone, "repro", stage)) == []
    set_params(clone, "tables", settings={"kosti": {"train.lr": 0.002}})
    done = dvc(clone, "repro", stage, first=[no_networks])
    assert ran(done) == [stage] and "2 fits, 1 of them now" in done.said
    git(clone, "add", "-A")
    git(clone, "commit", "-qm", "tables")


def test_another_learning_rate_reruns_the_head_and_loads_no_network(clone, no_networks):
    before = marks(clone, VIEWS)
    params = clone / "params.yaml"
    text = params.read_text()
    params.write_text(re.sub(r"\blr: \S+", "lr: 0.002", text))
    assert params.read_text() != text
    done = dvc(clone, "repro", "report", first=[no_networks])
    assert ran(done) == ["train", "evaluate", "report"]
    assert marks(clone, VIEWS) == before
    assert json.loads((clone / "results" / "train.json").read_text())["epochs"] <= 12
    assert ran(dvc(clone, "repro", "--dry", f"{STUDIES}:tables")) == [f"{STUDIES}:tables"]
    git(clone, "commit", "-qam", "another lr")


def test_an_experiment_in_a_folder_of_its_own_reruns_the_head_only(clone, no_networks):
    """`dvc exp run --temp` takes the features from DVC's cache; needs dvc.lock in git."""
    done = dvc(
        clone, "exp", "run", "--temp", "-S", "train.lr=7e-4", "evaluate", first=[no_networks]
    )
    assert ran(done) == ["train", "evaluate"]
    shown = json.loads(dvc(clone, "exp", "show", "--json").out)
    rates = re.findall(r'"lr": "?([\d.e-]+)', json.dumps(shown))
    assert {float(rate) for rate in rates} >= {0.002, 7e-4}
    assert git(clone, "status", "--porcelain") == ""


def test_another_depth_size_recomputes_depth_only(clone, tmp_path):
    others = [name for name in VIEWS if name != "depth"]
    before, key = marks(clone, others), open_view(clone / "features", "depth").key
    # yolo26n would come by ultralytics: the objects view must not even ask for it
    block = blockers(tmp_path / "none", "ultralytics")
    change = ("-S", "views.depth.size=64")
    done = dvc(clone, "exp", "run", *change, "extract", first=[block])
    assert ran(done) == ["extract"]
    assert "settings.size: 128 -> 64" in done.said and "Intel/dpt" in done.said
    assert "resnet50:" not in done.said
    assert marks(clone, others) == before
    depth = open_view(clone / "features", "depth")
    assert depth.key != key and depth.done.all() and depth.spec.parts["settings"]["size"] == 64


def marks(folder: Path, views) -> dict[str, tuple[int, bytes]]:
    """Time and bytes of every commit record, and times of the arrays' shards."""
    files = [p for view in views for p in (folder / "features" / f"{view}.zarr").rglob("*")]
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in files
        if path.is_file()
    }
