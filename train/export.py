"""A fitted head as a function of named tensors, in two files that need no code of ours:

head.pt2    `torch.export.load`; torch alone runs it
head.onnx   the same for ONNX runtimes; beyond `ONE_FILE` bytes its weights lie beside it, in
            head.onnx.data

Both take any number of persons. What they give is compared with what the head itself gives.
"""

import copy
import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn

from cache.errors import DataError, SettingsError, first_line
from cache.files import write_atomic
from train.data import Batch, Features
from train.labels import is_distribution

PT2, ONNX = "head.pt2", "head.onnx"
OPSET = 18  # of the ONNX operators
LIMIT = 1e-4  # a number of a file may be so far from that of the head
PERSONS = "persons"  # what the dimension is called that may be of any size
OUTPUTS = ("scores", "attention", "vad", "transport")  # of `train.head.Output`, where there is any
TRACED = 3  # persons of the made-up batch that the head is followed on
ONE_FILE = 1_500_000_000  # ONNX can hold 2 GB in one file
OF_PERSONS = {"box": (4,), "diagonal": ()}  # what a batch has beside views, and its shapes


# What scores are: probabilities that sum to 1, a probability a label, or no probabilities.
Scale = Literal["shares", "probabilities", "scores"]


@dataclass(frozen=True)
class Port:
    """A tensor that goes in or comes out. shape: of one person; view and array: where it comes
    from, "" for `box` and `diagonal` and for what comes out."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    view: str = ""
    array: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {**asdict(self), "shape": list(self.shape)}


@dataclass(frozen=True)
class Checked:
    """How far the files are from the head. persons: of the cache, that both scored; batches: sizes
    of the batches, those of the edge among them; largest: by file and output, the largest
    difference of a number."""

    persons: int
    batches: tuple[int, ...]
    largest: Mapping[str, Mapping[str, float]]

    @property
    def worst(self) -> float:
        """The largest of all."""
        return max(max(of.values()) for of in self.largest.values())


@dataclass(frozen=True)
class Files:
    """What was written: what goes in, what comes out, what the scores of a person are, and how it
    was checked."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    scale: Scale
    checked: Checked


class NamedHead(nn.Module):
    """A head on tensors by name: what a batch of persons holds goes in, as `ports` say, and what is
    not None of `OUTPUTS` comes out."""

    def __init__(self, head: nn.Module, ports: Sequence[Port]):
        super().__init__()
        self.head = head
        self.ports = tuple(ports)

    def forward(self, **given: Tensor) -> dict[str, Tensor]:
        views: dict[str, dict[str, Tensor]] = {}
        plain: dict[str, Tensor] = {}
        for port in self.ports:
            if port.view:
                views.setdefault(port.view, {})[port.array] = given[port.name]
            else:
                plain[port.name] = given[port.name]
        some = next(iter(given.values()))
        for name, shape in OF_PERSONS.items():  # a head that does not read it gets zeros
            if name not in plain:
                plain[name] = some.new_zeros((some.shape[0], *shape), dtype=torch.float32)
        return outputs_of(self.head(Batch(plain["box"], plain["diagonal"], None, views)))


def outputs_of(output: Any) -> dict[str, Tensor]:
    """What of a head's output is exported, by name."""
    found = {name: getattr(output, name, None) for name in OUTPUTS}
    return {name: value for name, value in found.items() if value is not None}


def write(
    model: nn.Module,
    features: Features,
    rows: Int[Tensor, " N"],
    folder: Path,
    name: str,
    about: Mapping[str, Any] | None = None,
) -> Files:
    """Write both files into `folder`, open them again, and compare what they give with what the
    head gives: on the persons `rows` all at once, on one alone, and on persons whose face, objects
    or both are missing. name: of the head, as `train.head` has it; about: plain values that
    head.onnx carries with it.

    Same head, same bytes (with one version of torch and onnx). Raises SettingsError for a head that
    cannot be followed, DataError where a number is further away than `LIMIT`.
    """
    if not len(rows):
        raise DataError("there is no person to check an export on: prepare data with some")
    head = copy.deepcopy(model).cpu().eval().requires_grad_(False)
    batch = features.batch(rows)
    ports = inputs_of(head, batch)
    program = _followed(NamedHead(head, ports).eval(), name)
    with torch.no_grad():
        output = head(batch)
    found = outputs_of(output)
    outputs = tuple(Port(n, tuple(x.shape[1:]), _dtype(x)) for n, x in found.items())
    write_atomic(folder / PT2, _pt2(program))
    _write_onnx(program, list(found), folder / ONNX, about or {})
    return Files(ports, outputs, scale_of(output), check(head, ports, batch, folder))


def inputs_of(head: nn.Module, batch: Batch) -> tuple[Port, ...]:
    """What a head reads of a batch, found by watching it: in the order of the batch."""
    watched = _Watched(batch.box, batch.diagonal, None, {})
    read: set[tuple[str, str]] = set()
    views = {n: _Noted(n, arrays, read) for n, arrays in batch.views.items()}
    object.__setattr__(watched, "views", views)
    object.__setattr__(watched, "read", read)
    with torch.no_grad():
        head(watched)
    ports = [
        Port(name, shape, "float32") for name, shape in OF_PERSONS.items() if ("", name) in read
    ]
    names = {port.name for port in ports}
    for view, arrays in batch.views.items():
        for array, values in arrays.items():
            if (view, array) not in read:
                continue
            name = _identifier(f"{view}_{array}", names)
            names.add(name)
            ports.append(Port(name, tuple(values.shape[1:]), _dtype(values), view, array))
    return tuple(ports)


def tensors_of(ports: Sequence[Port], batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch by the names of what goes in."""
    return {
        port.name: batch.views[port.view][port.array] if port.view else getattr(batch, port.name)
        for port in ports
    }


def scale_of(output: Any) -> Scale:
    """What the scores of a head are, by those that it gave."""
    if is_distribution(output.scores.numpy()):
        return "shares"
    each = torch.allclose(output.scores, output.logits.sigmoid(), atol=1e-5)
    return "probabilities" if each else "scores"


def check(head: nn.Module, ports: Sequence[Port], batch: Batch, folder: Path) -> Checked:
    """How far both files in `folder` are from the head: see `write`."""
    from onnxruntime import InferenceSession

    with _quiet():
        loaded = torch.export.load(folder / PT2).module()
        session = InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    # What the graph does not need may be gone from it.
    taken = {one.name for one in session.get_inputs()}

    def by_onnx(given: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        feed = {name: value.numpy() for name, value in given.items() if name in taken}
        return dict(zip(names, session.run(names, feed), strict=True))

    def by_torch(given: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in loaded(**given).items()}

    batches = [batch, _some(batch, slice(0, 1)), *_edges(batch)]
    largest: dict[str, dict[str, float]] = {PT2: {}, ONNX: {}}
    for one in batches:
        with torch.no_grad():
            want = {name: value.numpy() for name, value in outputs_of(head(one)).items()}
            given = tensors_of(ports, one)
            for file, run in ((PT2, by_torch), (ONNX, by_onnx)):
                got = run(given)
                for name, values in want.items():
                    gap = _gap(got[name], values)
                    largest[file][name] = max(largest[file].get(name, 0.0), gap)
    found = Checked(len(batch.box), tuple(len(one.box) for one in batches), largest)
    for file, of in largest.items():
        for name, gap in of.items():
            if not gap <= LIMIT:
                raise DataError(
                    f"{file} gives other {name} than the head that it was made of: {gap:.1e} apart "
                    f"at most, over the limit of {LIMIT:g}; nothing is exported. Fit with "
                    "train.standardise, which keeps numbers small, or set train.head to another "
                    "head"
                )
    return found


def _gap(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference; infinite for another shape, or where a number is none."""
    if got.shape != want.shape:
        return float("inf")
    gap = np.abs(got.astype(np.float64) - want).max(initial=0.0)
    return float(gap) if np.isfinite(gap) else float("inf")


def _edges(batch: Batch) -> Iterator[Batch]:
    """The first persons without a face, without objects, and without all that can be missing."""
    some = _some(batch, slice(0, 2))
    gone = {name: _missing(arrays) for name, arrays in some.views.items() if "mask" in arrays}
    for name, arrays in gone.items():
        yield replace(some, views={**some.views, name: arrays})
    if len(gone) > 1:
        yield replace(some, views={**some.views, **gone})


def _missing(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arrays of a view of which nothing was found, as the cache has them."""
    return {n: torch.full_like(x, -1 if n == "label" else 0) for n, x in arrays.items()}


def _some(batch: Batch, at: slice) -> Batch:
    views = {v: {n: values[at] for n, values in some.items()} for v, some in batch.views.items()}
    return Batch(batch.box[at], batch.diagonal[at], None, views)


class _Watched(Batch):
    """A batch that notes what is read of it."""

    read: set[tuple[str, str]]

    def __getattribute__(self, name: str) -> Any:
        if name in OF_PERSONS and "read" in self.__dict__:
            self.__dict__["read"].add(("", name))
        return super().__getattribute__(name)


class _Noted(Mapping[str, Tensor]):
    """The arrays of a view; which of them were taken goes into `read`."""

    def __init__(self, view: str, arrays: Mapping[str, Tensor], read: set[tuple[str, str]]):
        self.view, self.arrays, self.read = view, arrays, read

    def __getitem__(self, name: str) -> Tensor:
        values = self.arrays[name]
        self.read.add((self.view, name))
        return values

    def __iter__(self) -> Iterator[str]:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def _followed(module: NamedHead, name: str) -> Any:
    """The program of a head, for any number of persons. Followed on made-up persons: what of the
    data set stands in the file is what the head has learned, and nothing else."""
    given = _made(module.ports)
    persons = torch.export.Dim(PERSONS, min=1)
    shapes = {"given": {port: {0: persons} for port in given}}
    try:
        with _quiet(), torch.no_grad():
            program = torch.export.export(
                module, (), kwargs=given, dynamic_shapes=shapes, strict=False
            )
    except Exception as error:  # of what torch cannot follow there is no end
        raise SettingsError(
            f"train.head {name} cannot be exported: torch.export does not follow it for any number "
            f"of persons ({first_line(error)}). Write it without branches and loops that hang on "
            "values, and ask for sizes by `.shape`, not by `len`; or set train.head to another head"
        ) from error
    # They would stand in the file, and be compared against.
    program.example_inputs = None
    for node in program.graph.nodes:  # where the code lay on this machine
        for told in ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn"):
            node.meta.pop(told, None)
    return program


def _made(ports: Sequence[Port]) -> dict[str, Tensor]:
    """Made-up persons, everything present."""
    drawn = torch.Generator().manual_seed(0)
    made: dict[str, Tensor] = {}
    for port in ports:
        shape = (TRACED, *port.shape)
        if port.dtype == "bool":
            made[port.name] = torch.ones(shape, dtype=torch.bool)
        elif port.dtype == "int64":
            made[port.name] = torch.zeros(shape, dtype=torch.int64)
        else:
            made[port.name] = torch.rand(shape, generator=drawn) + 1
    return made


def _pt2(program: Any) -> bytes:
    held = io.BytesIO()
    with _quiet():
        torch.export.save(program, held)
    return held.getvalue()


def _write_onnx(program: Any, outputs: Sequence[str], path: Path, about: Mapping[str, Any]) -> None:
    import onnx

    held = sum(value.numel() * value.element_size() for value in program.state_dict.values())
    with _quiet():
        made = torch.onnx.export(
            program, dynamo=True, verbose=False, opset_version=OPSET, output_names=list(outputs)
        )
        assert made is not None  # it is where nothing is written at once
        made.save(path, external_data=held > ONE_FILE)
    proto = onnx.load(path, load_external_data=False)
    _tidy(proto)
    for name, value in about.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        proto.metadata_props.add(key=name, value=text)
    write_atomic(path, proto.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)


def _tidy(proto: Any) -> None:
    """Take out where the code lay on this machine, and give the open dimension its name."""
    graph = proto.graph
    symbols = {
        side.dim_param
        for value in graph.input
        for side in value.type.tensor_type.shape.dim
        if side.dim_param
    }
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.ClearField("metadata_props")
        for side in value.type.tensor_type.shape.dim:
            if side.dim_param in symbols:
                side.dim_param = PERSONS
    nodes = [*graph.node, *(node for function in proto.functions for node in function.node)]
    for one in (*nodes, *graph.initializer, *proto.functions, graph):
        one.ClearField("metadata_props")
        one.ClearField("doc_string")


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _identifier(name: str, taken: set[str]) -> str:
    """The name as Python's functions take it, and no other's."""
    plain = "".join(sign if sign.isalnum() or sign == "_" else "_" for sign in name)
    plain = plain if plain[:1].isalpha() else f"view_{plain}"
    while plain in taken:
        plain += "_"
    return plain


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch and onnx say of themselves: what does not fit, we say ourselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
