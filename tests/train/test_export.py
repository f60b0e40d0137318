"""Exported files give what the head gives: every head, any number of persons, nobody missing."""

import json
import zipfile

import numpy as np
import onnx
import pytest
import torch
from onnxruntime import InferenceSession
from torch import nn

from cache.errors import DataError, SettingsError
from cache.statuses import STATUS
from tests.train import made
from tests.train.heads.test_peers import READS
from tests.train.heads.test_peers import settings as small
from train import export
from train.data import from_arrays
from train.fit import fit, predict
from train.head import LabelHead
from train.layers.transport import sinkhorn

# What of the views' arrays each of these reads.
INPUTS = {
    "caer_net": ["head_features", "head_mask", "scene_features"],
    "kosti": ["body_features", "scene_features"],
    "rrla": ["box", "body_features", "objects_features", "objects_box", "objects_mask"],
    "hugme": [
        "box",
        "diagonal",
        "body_features",
        "head_features",
        "objects_features",
        "objects_box",
        "objects_label",
        "objects_mask",
        "depth_features",
        "depth_map",
        "scene_features",
    ],
}


def settings(name: str, **changes):
    if name == "hugme":
        return made.settings(epochs=1, **changes)
    own = {"helo": {"steps": 3}, **changes}
    return small(name, epochs=1, **own)


@pytest.fixture(scope="module")
def features():
    """Persons of whom some have no face, no objects, or neither."""
    given = made.arrays(persons=64)
    given["views"]["head"].status[::5] = STATUS["no_face"]
    given["views"]["head"].arrays["features"][::5] = 0
    given["views"]["objects"].arrays["count"][::7] = 0
    given["views"]["objects"].arrays["count"][1::7] = 2
    rated = np.random.default_rng(0).uniform(1, 10, (64, 3)).astype(np.float32)
    return from_arrays(**given, vad=rated)


@pytest.fixture(scope="module")
def exported(features, tmp_path_factory):
    """A head, the folder that it is exported to, and what is said of it; each but once."""
    done = {}

    def of(name: str, **changes):
        at = name, json.dumps(changes)
        if at not in done:
            folder = tmp_path_factory.mktemp(name)
            model = fit(features, settings(name, **changes)).model
            rows = features.rows("test")
            done[at] = model, folder, export.write(model, features, rows, folder, name, {"a": [1]})
        return done[at]

    return of


def run_both(folder, ports, batch):
    """Outputs by name of both files, opened as somebody would who has no emocache."""
    given = export.tensors_of(ports, batch)
    loaded = torch.export.load(folder / "head.pt2").module()
    session = InferenceSession(folder / "head.onnx")
    names = [one.name for one in session.get_outputs()]
    found = session.run(names, {name: value.numpy() for name, value in given.items()})
    with torch.no_grad():
        mine = {name: value.numpy() for name, value in loaded(**given).items()}
    return mine, dict(zip(names, found, strict=True))


CASES = [
    *((name, {}) for name in sorted(READS)),
    ("helo", {"helo": {"transport": "gromov", "rounds": 1, "steps": 2}}),
    ("hugme", {"standardise": True, "hugme": {"output": "literal"}}),
    ("hugme", {"hugme": {"without": ["objects", "hegl"]}}),
    ("rrla", {"rrla": {"without": ["eld", "boa"]}}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "changes"), CASES, ids=[f"{n} {c or ''}" for n, c in CASES])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.export.load, of itself
def test_every_head_gives_the_same_from_both_files(name, changes, features, exported):
    model, folder, files = exported(name, **changes)
    assert files.checked.worst <= export.LIMIT
    for rows in (features.rows(), features.rows("val")[:1]):  # more than was followed, and one
        want = predict(model, features, rows)
        for found in run_both(folder, files.inputs, features.batch(rows)):
            np.testing.assert_allclose(found["scores"], want, atol=1e-4)
            assert set(found) == {port.name for port in files.outputs}
            for port in files.outputs:
                assert found[port.name].shape == (len(rows), *port.shape)
    assert files.checked.batches == (len(features.rows("test")), 1, 2, 2, 2, 2)


@pytest.mark.parametrize("name", sorted(INPUTS))
def test_what_goes_in_is_what_the_head_reads_and_no_more(name, features):
    model = fit(features, settings(name)).model.eval()
    ports = export.inputs_of(model, features.batch(features.rows("test")))
    assert [port.name for port in ports] == INPUTS[name]
    of_one = {port.name: (port.shape, port.dtype) for port in ports}
    assert of_one.get("objects_label", ((made.K,), "int64")) == ((made.K,), "int64")
    assert of_one.get("objects_mask", ((made.K,), "bool")) == ((made.K,), "bool")
    assert of_one.get("box", ((4,), "float32")) == ((4,), "float32")


@pytest.mark.parametrize(("name", "output"), [("hugme", "attention"), ("kosti", "vad")])
def test_attention_and_ratings_come_out_where_a_head_has_them(name, output, exported, features):
    model, folder, files = exported(name)
    assert [port.name for port in files.outputs] == ["scores", output]
    batch = features.batch(features.rows("train"))
    with torch.no_grad():
        want = getattr(model.eval()(batch), output).numpy()
    assert want[1].any() and (output == "vad" or not want[0].any())  # person 0 has no objects
    for found in run_both(folder, files.inputs, batch):
        np.testing.assert_allclose(found[output], want, atol=1e-5)


def test_the_files_carry_no_person_and_no_place_of_this_machine(exported):
    _, folder, _ = exported("hugme")
    for name in ("head.pt2", "head.onnx"):
        data = (folder / name).read_bytes()
        assert not [word for word in (b"site-packages", b"train/heads", b".py") if word in data]
    assert torch.export.load(folder / "head.pt2").example_inputs is None
    with zipfile.ZipFile(folder / "head.pt2") as held:
        inputs = [one for one in held.infolist() if "sample_inputs" in one.filename]
    assert all(one.file_size < 1000 for one in inputs)


def test_the_onnx_file_says_what_it_is(exported, features):
    _, folder, _ = exported("hugme")
    proto = onnx.load(folder / "head.onnx")
    onnx.checker.check_model(proto, full_check=True)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", export.OPSET)]
    assert {one.key: one.value for one in proto.metadata_props} == {"a": "[1]"}
    assert not any(node.metadata_props for node in proto.graph.node)
    for value in (*proto.graph.input, *proto.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "persons"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.export.load, of itself
def test_a_large_head_lies_in_two_files_and_gives_the_same(
    features, exported, tmp_path, monkeypatch
):
    model, whole, files = exported("mlp")
    monkeypatch.setattr(export, "ONE_FILE", 1000)  # bytes
    rows = features.rows("test")
    found = export.write(model, features, rows, tmp_path, "mlp", {"a": [1]})
    assert found.checked.worst <= export.LIMIT
    size = (tmp_path / "head.onnx").stat().st_size
    data = tmp_path / "head.onnx.data"
    assert size < (whole / "head.onnx").stat().st_size and data.stat().st_size > 1000
    assert not (whole / "head.onnx.data").exists()
    for one, other in zip(
        run_both(tmp_path, found.inputs, features.batch(rows)),
        run_both(whole, files.inputs, features.batch(rows)),
        strict=True,
    ):
        np.testing.assert_array_equal(one["scores"], other["scores"])
    data.unlink()
    with pytest.raises(Exception, match=r"head\.onnx\.data"):
        InferenceSession(tmp_path / "head.onnx")


def test_the_same_head_gives_the_same_bytes_and_stays_as_it_was(features, exported, tmp_path):
    model, folder, _ = exported("kosti")
    model.train()
    export.write(model, features, features.rows("test"), tmp_path, "kosti", {"a": [1]})
    for name in ("head.pt2", "head.onnx"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()
    assert model.training and all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize("epsilon", [0.01, 0.1])  # whose kernels are made often, and once
@pytest.mark.parametrize("masked", [False, True])
def test_the_transport_that_is_exported_is_the_one_that_was_trained(epsilon, masked, monkeypatch):
    drawn = torch.Generator().manual_seed(0)
    cost = 2 * torch.rand(6, 4, 3, generator=drawn)
    a, b, least = torch.full((6, 4), 1 / 4), torch.full((6, 3), 1 / 3), None
    if masked:
        a[0], b[1], least = 0, 0, 1 / 12
    masses = (a, b) if masked else (None, None)
    plans = []
    for exporting in (False, True):
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda answer=exporting: answer)
        plans.append(sinkhorn(cost, epsilon, 30, *masses, 2.0, least))
    torch.testing.assert_close(plans[1], plans[0], atol=1e-6, rtol=1e-5)
    assert plans[0].sum() == pytest.approx(4 if masked else 6, abs=1e-3)


class Own(LabelHead):
    """A head of somebody's own, that does something to its logits."""

    def __init__(self, features, how):
        super().__init__(made.settings(), widths={"body": made.WIDTH}, labels=4, kind=features.kind)
        self.linear, self.how = nn.Linear(made.WIDTH, 4), how

    def logits(self, batch):
        return self.how(self.linear(self.see("body", batch)), batch)


def branches(logits, batch):
    return logits * 2 if logits.sum() > 0 else logits


def by_chance(logits, batch):
    return logits + torch.rand_like(logits)


def without_objects_it_is_none(logits, batch):
    count = batch.views["objects"]["mask"].sum(1, keepdim=True)
    return logits * count / count


def counts_persons(logits, batch):
    return logits + logits.new_zeros(len(logits), 1)


@pytest.mark.parametrize("how", [branches, counts_persons])
def test_a_head_that_cannot_be_followed_is_refused_by_name(how, features, tmp_path):
    rows = features.rows("test")
    with pytest.raises(SettingsError, match=r"train\.head mine cannot be exported: .* values"):
        export.write(Own(features, how), features, rows, tmp_path, "mine")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", [by_chance, without_objects_it_is_none])
def test_a_file_that_gives_other_numbers_is_refused(how, tmp_path):
    features = made.features(persons=64)  # all of whom have objects
    rows = features.rows("test")
    with pytest.raises(DataError, match=r"gives other scores than the head .* nothing is exported"):
        export.write(Own(features, how), features, rows, tmp_path, "mine")


def test_what_scores_are_is_read_off_them(features):
    scales = {"hugme": "probabilities", "kosti": "scores", "aa_knn": "probabilities"}
    for name, scale in scales.items():
        model = fit(features, settings(name)).model.eval()
        with torch.no_grad():
            assert export.scale_of(model(features.batch(features.rows("test")))) == scale
    given = made.arrays(persons=32)
    given["targets"] = np.eye(4, dtype=np.float32)[np.arange(32) % 4]
    single = from_arrays(**given, kind="single")
    model = fit(single, settings("kosti")).model.eval()
    with torch.no_grad():
        assert export.scale_of(model(single.batch(single.rows("test")))) == "shares"


def test_names_that_python_cannot_say_stay_apart():
    taken = set()
    for view in ("e-eg", "e eg", "3d"):
        taken.add(export._identifier(f"{view}_features", taken))
    assert taken == {"e_eg_features", "e_eg_features_", "view_3d_features"}


def test_without_persons_nothing_can_be_checked(features, tmp_path):
    model = fit(features, settings("kosti")).model
    with pytest.raises(DataError, match="no person to check"):
        export.write(model, features, features.rows("none"), tmp_path, "kosti")
