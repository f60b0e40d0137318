"""`params.yaml`: complete profiles, and refusals that name the key and what was meant."""

import re
from pathlib import Path

import pytest
import yaml

from cache.errors import SettingsError
from pipelines.settings import Settings, load, paths

ROOT = Path(__file__).resolve().parents[2]
PROFILES = sorted((ROOT / "pipelines" / "profiles").glob("*.yaml"))
DEMO = ROOT / "pipelines" / "profiles" / "demo.yaml"


FREE = {"sweep.over", "tune.space", "tables.settings"}  # whose keys are settings themselves


def keys(tree: dict, prefix: str = "") -> set[str]:
    found = set()
    for name, value in tree.items():
        found.add(prefix + name)
        if isinstance(value, dict) and prefix + name not in FREE:
            found |= keys(value, f"{prefix}{name}.")
    return found


def refused(text: str, tmp_path: Path) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError) as refusal:
        load(path)
    return str(refusal.value)


def refused_set(*overrides: str) -> str:
    with pytest.raises(SettingsError) as refusal:
        load(DEMO, overrides)
    return str(refusal.value)


# ---- profiles


def test_params_is_the_demo_profile():
    assert (ROOT / "params.yaml").read_bytes() == DEMO.read_bytes()


def test_there_are_profiles():
    assert {path.stem for path in PROFILES} >= {"demo", "paper"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_holds_every_setting_and_nothing_else(path):
    assert keys(yaml.safe_load(path.read_text())) == set(paths())
    load(path)


def test_the_paths_reach_every_depth():
    known = set(paths())
    assert {"device", "train", "train.lr", "train.hugme.darn.unit", "views.depth.grid"} <= known


def test_the_papers_numbers():
    """Section 5 of the design: HugMe's training on EMOTIC."""
    train = load(ROOT / "pipelines" / "profiles" / "paper.yaml").train
    assert (train.lr, train.weight_decay, train.batch, train.epochs) == (1e-4, 2.5e-4, 60, 50)
    assert (train.hugme.beta, train.hugme.lambda_c) == (0.5, 0.8)
    assert (train.hugme.darn.distance, train.hugme.darn.unit) == ("corner", "pixel")


def test_an_empty_file_means_the_defaults(tmp_path):
    (tmp_path / "params.yaml").write_text("# nothing\n")
    assert load(tmp_path / "params.yaml") == Settings()


# ---- unknown keys


@pytest.mark.parametrize(
    ("given", "path", "meant"),
    [
        ("train.lrr=1", "train.lrr", "train.lr"),
        ("trian.lr=1", "trian", "train"),
        ("views.depht.size=64", "views.depht", "views.depth"),
        ("views.head.scores=0.5", "views.head.scores", "views.head.score"),
        ("train.hugme.drop_out=0.1", "train.hugme.drop_out", "train.hugme.dropout"),
        ("train.hugme.darn.units=pixel", "train.hugme.darn.units", "train.hugme.darn.unit"),
        # in the wrong section
        ("evaluate.lr=1", "evaluate.lr", "train.lr or pretrain.lr or finetune.lr"),
        ("lr=1", "lr", "train.lr or pretrain.lr or finetune.lr"),
        (
            "train.dropout=0.1",
            "train.dropout",
            "train.hugme.dropout or train.helo.dropout or train.kosti.dropout or "
            "train.caer_net.dropout or train.mlp.dropout",
        ),
        ("extract.shard_rows=64", "extract.shard_rows", "cache.shard_rows"),
        ("depth.size=64", "depth", "views.depth"),
        ("train.split=val", "train.split", "evaluate.split"),
    ],
)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(given, path, meant):
    assert refused_set(given) == f"{path}: unknown setting; did you mean {meant}?"


def test_an_unknown_key_like_no_other_gets_no_hint():
    assert refused_set("zzzzzz=1") == "zzzzzz: unknown setting"


def test_a_key_that_is_no_text_is_refused(tmp_path):
    assert "5" in refused("5: x\n", tmp_path)


# ---- wrong values


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("train.lr=0", ["train.lr: should be greater than 0", "(got 0)"]),
        ("train.lr=fast", ["train.lr: should be a valid number", "(got 'fast')"]),
        ("train.lr=.inf", ["train.lr: should be a finite number", "(got inf)"]),
        ("train.weight_decay=.nan", ["train.weight_decay: should be a finite number"]),
        ("train.epochs=2.5", ["train.epochs: should be a valid integer", "(got 2.5)"]),
        ("views.depth.size=16", ["views.depth.size: should be", "equal to 32", "(got 16)"]),
        ("views.head.score=1.5", ["views.head.score: should be", "equal to 1", "(got 1.5)"]),
        ("cache.dtype=float8", ["cache.dtype: should be 'float16' or 'float32' (got 'float8')"]),
        ("evaluate.split=tset", ["evaluate.split: should be 'train', 'val' or 'test'"]),
        ("weights.source=[stor]", ["weights.source.0: should be 'folder', 'store'", "'stor'"]),
        ("train.hugme.hidden=5", ["train.hugme.hidden: should be a list, as [a, b] (got 5)"]),
        ("train.hugme.hidden=[512]", ["train.hugme.hidden: ", "at least 2", "(got [512])"]),
        ("train.hugme.without=[dept]", ["train.hugme.without.0: should be 'objects'", "'dept'"]),
        ("train.standardise=perhaps", ["train.standardise: should be a valid boolean"]),
        ("device=gpu", ["device: should be auto, cpu, mps, cuda or cuda:N (got 'gpu')"]),
        ("device=cuda:x", ["device: should be auto"]),
        ("cache.root=null", ["cache.root: should be a path (got None)"]),
        ("data.name=null", ["data.name: should be a valid string (got None)"]),
        ("train=5", ["train: is a section", "(got 5)"]),
    ],
)
def test_a_wrong_value_is_refused_by_its_path(given, parts):
    said = refused_set(given)
    assert all(part in said for part in parts), said
    assert "pydantic" not in said and "<class" not in said and "Input" not in said


def test_every_error_is_named(tmp_path):
    said = refused("train: {lrr: 1, epochs: 0}\ndevice: gpu\nfoo: {}\n", tmp_path)
    for path in ("train.lrr: unknown", "train.epochs: should", "device: should", "foo: unknown"):
        assert path in said
    assert "\n" not in said


def test_a_section_without_its_settings_is_named(tmp_path):
    assert "train: is a section" in refused("train:\n", tmp_path)


# ---- the file


def test_a_missing_file_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(SettingsError, match=r"no .*params.yaml here.*profile"):
        load(tmp_path / "params.yaml")
    with pytest.raises(SettingsError, match="here"):  # a folder of that name
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("train: {lr: 1", "not valid YAML"),
        ("train:\n\tlr: 1\n", "line 2"),
        ("- train\n", "sections such as `train:`, not a list"),
        ("train\n", "not a str"),
        ("train: {lr: 1}\ntrain: {epochs: 3}\n", "train is given twice"),
        ("train:\n  lr: 1\n  lr: 2\n", "lr is given twice"),
        ("a: !!python/object/apply:os.getcwd []\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_settings_is_refused_in_one_line(text, says, tmp_path):
    said = refused(text, tmp_path)
    assert says in said and "params.yaml" in said and "\n" not in said


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "params.yaml").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0")
    with pytest.raises(SettingsError, match="not valid YAML"):
        load(tmp_path / "params.yaml")


# ---- --set


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("train.lr=1e-4", 1e-4),
        ("train.lr=0.5", 0.5),
        ("train.epochs=7", 7),
        ("train.hugme.hidden=[64, 32]", [64, 32]),
        ("train.hugme.without=[depth,darn]", ["depth", "darn"]),
        ("train.hugme.without=[]", []),
        ("weights.folder=null", None),
        ("weights.folder=/w eights/a=b", Path("/w eights/a=b")),
        ("train.standardise=false", False),
        ("views.labels.pooling=cls", "cls"),
        ("device=cuda:1", "cuda:1"),
        (" train.lr =3e-4", 3e-4),
    ],
)
def test_set_changes_one_setting(given, value):
    settings = load(DEMO, [given])
    found = settings
    for name in given.partition("=")[0].strip().split("."):
        found = getattr(found, name)
    assert found == value and type(found) is type(value)


def test_the_last_set_wins_and_others_stay():
    settings = load(DEMO, ["train.lr=1", "train.lr=2", "views.objects.k=9"])
    assert settings.train.lr == 2 and settings.views.objects.k == 9
    assert settings.train.hugme.hidden == load(DEMO).train.hugme.hidden


def test_set_fills_a_section_that_the_file_leaves_empty(tmp_path):
    (tmp_path / "params.yaml").write_text("train:\n")
    assert load(tmp_path / "params.yaml", ["train.hugme.beta=0.1"]).train.hugme.beta == 0.1


@pytest.mark.parametrize("given", ["train.lr", "=1", ".lr=1", "train.=1", "train..lr=1", ""])
def test_a_set_of_another_form_is_refused(given):
    assert refused_set(given) == f"--set {given!r}: write it as --set section.key=value"


@pytest.mark.parametrize("given", ["train.lr=[", "train.lr=a: b: c", "train.lr={a: 1, a: 2}"])
def test_a_set_whose_value_is_no_yaml_is_refused(given):
    assert refused_set(given) == f"--set {given!r}: the value is not valid YAML"


def test_a_set_below_a_value_is_refused():
    assert "lr is a value, not a section" in refused_set("train.lr.x=1")


def test_a_home_is_expanded_and_an_address_refused(tmp_path):
    settings = load(DEMO, ["cache.root=~/features"])
    assert settings.cache.root == Path.home() / "features"
    with pytest.raises(SettingsError, match=r"cache\.root: is an address.*dvc push"):
        load(DEMO, ["cache.root=s3://bucket/features"])
    with pytest.raises(SettingsError, match=r"cache\.take_from: should be a list"):
        load(DEMO, ["cache.take_from=/team/features"])


# ---- each of them


def leaves(model=Settings, prefix=""):
    """Every setting that is no section."""
    every = list(paths(model, prefix))
    return [name for name in every if not any(other.startswith(f"{name}.") for other in every)]


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_each_setting_is_explained_where_it_stands(path):
    said, stack = {}, []
    for line in path.read_text().splitlines():
        key = re.match(r"( *)([a-z_]+):", line)
        if key:
            stack = [*stack[: len(key[1]) // 2], key[2]]
            said[".".join(stack)] = "#" in line
    assert [name for name in leaves() if not said[name]] == []


def test_each_setting_is_read():
    """By its own name, in a file that does not define settings; `train.options` is read by heads of
    one's own."""
    rooms = (ROOT / name for name in ("cache", "extract", "train", "pipelines"))
    files = [file for room in rooms for file in room.rglob("*.py") if "settings" not in file.stem]
    code = "\n".join(file.read_text() for file in files)
    names = {name.rpartition(".")[2] for name in leaves()}
    unread = {name for name in names if not re.search(rf"\.{name}\b", code)}
    assert unread == {"options"}
