"""What all frozen networks share: a name, weights, preprocessing, and the register that finds them.

Kept free of heavy imports, so that asking which networks exist costs nothing.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

from cache.errors import DeviceMemoryError, SettingsError, WeightsError, first_line

if TYPE_CHECKING:
    import torch

    from extract.weights import Weights

log = logging.getLogger("extract")
Result = TypeVar("Result")
SEED = 0  # of every untrained network: the same name gives the same numbers on every run


class Network:
    """One frozen network on one device.

    Attributes: `name`, `weights` (which, and their hash), `device`, and `preprocessing`, a plain
    dict of everything besides the weights that decides the numbers; it belongs in a cache key.
    `batch` is how many inputs run together (on a CPU at most `cpu_batch`), `precision` the
    arithmetic: float32, or autocast to bfloat16 or float16, which belongs in a cache key too.
    """

    kind = ""  # what it is for: picture, depth, text, words; faces, objects, people
    any_name = False  # whether names that no pattern knows may be of this class
    code = 1  # raise it when a change to a class changes a number
    cpu_batch = 256  # more at a time gain nothing there, and take memory
    precision = "float32"

    def __init__(self, weights: Weights, device: str = "cpu"):
        import torch

        self.name = weights.network
        self.weights = weights
        self.device = torch.device(device)
        self.preprocessing = self.describe(weights)
        self.batch = 32

    def batched(self, items: Any, run: Callable[[Any], Result]) -> list[Result]:
        """`run` on one part of `items` after another, at most `batch` long. Where the memory of
        the device does not hold a part, parts are half as long from then on.

        Raises DeviceMemoryError where it does not hold a single input.
        """
        results: list[Result] = []
        start = 0
        while start < len(items):
            size = min(self.batch, len(items) - start)
            if self.device.type == "cpu":
                size = min(size, self.cpu_batch)
            done = self._run(run, items[start : start + size])
            if done:
                results += done
                start += size
            elif size == 1:
                raise DeviceMemoryError(
                    f"the memory of {self.device} does not hold {self.name} with one input: set "
                    "device to another one, or a smaller size or network of the view"
                )
            else:
                self.batch = size // 2
                free_memory(self.device)
                log.warning(
                    "%s: out of memory on %s, going on with %d at a time (extract.batch)",
                    self.name,
                    self.device,
                    self.batch,
                )
        return results

    def _run(self, run: Callable[[Any], Result], part: Any) -> list[Result]:
        """One result; none where memory ran out. The error is let go here: it holds tensors."""
        try:
            with frozen():
                return [run(part)]
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            return []

    @property
    def memory_format(self) -> torch.memory_format:
        """How pixels and kernels of convolutions lie in memory: on a CPU by position, all channels
        together, which is 1.4 to 1.7 times as fast (docs/benchmarks.md)."""
        import torch

        return torch.channels_last if self.device.type == "cpu" else torch.contiguous_format

    def arithmetic(self) -> Any:
        """The context for what runs at `precision`: layers that give features, never what decides
        where a box lies."""
        import torch

        low = self.precision != "float32"
        dtype = getattr(torch, self.precision) if low else None
        return torch.autocast(self.device.type, dtype, enabled=low)

    @classmethod
    def describe(cls, weights: Weights) -> dict[str, Any]:
        """`preprocessing` of a network with these weights, without building it."""
        facts = {"code": cls.code, **cls.rule(weights)}
        if not weights.trained:
            # torch draws the untrained numbers, so its version decides them
            facts["untrained"] = f"seed {SEED}, torch {importlib.metadata.version('torch')}"
        return facts

    @classmethod
    def rule(cls, weights: Weights) -> dict[str, Any]:
        """What the class adds to `describe`: scale, mean, std, thresholds and the like."""
        raise NotImplementedError


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the device's memory is full: torch has a class for it on
    accelerators, and words on a CPU."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> None:
    """Give back what torch keeps of the device's memory for later."""
    import torch

    if device.type == "cuda":
        torch.cuda.empty_cache()


class Registry:
    """Networks by name. A name is exact (`resnet50`) or a pattern (`intel/dpt-*`), without case."""

    def __init__(self, what: str, package: str, modules: tuple[str, ...]):
        self.what, self.package, self.modules = what, package, modules
        self.classes: dict[str, type[Network]] = {}

    def add(self, *names: str) -> Callable[[type], type]:
        """Decorator: the class below answers to these names."""

        def put(cls: type[Network]) -> type[Network]:
            self.classes.update({name.lower(): cls for name in names})
            return cls

        return put

    def get(self, name: str, kind: str | None = None) -> type[Network]:
        """The class behind a name. Raises SettingsError naming the nearest name, or what kind of
        network the name is when another kind was asked for.

        A name no pattern knows is allowed where `kind` says which family it is of and that family
        takes any name (depth, text and word networks out of a folder of the user's own).
        """
        self.load()
        low = name.lower()
        found = self.classes.get(low)
        if found is None:
            patterns = (p for p in self.classes if "*" in p and fnmatchcase(low, p))
            found = self.classes.get(next(patterns, ""))
        if found is None and kind is not None:
            family = (c for c in self.classes.values() if c.kind == kind and c.any_name)
            found = next(family, None)
        if found is None:
            raise SettingsError(f"there is no {self.what} named {name!r}{self.nearest(low, kind)}")
        if kind is not None and found.kind != kind:
            raise SettingsError(
                f"the {self.what} {name!r} is for {found.kind}, but this place needs {kind}"
                f"{self.nearest(low, kind)}"
            )
        return found

    def nearest(self, name: str, kind: str | None = None) -> str:
        known = self.names(kind)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        return f"; the nearest is {close[0]!r}" if close else f" (known: {', '.join(known)})"

    def names(self, kind: str | None = None) -> list[str]:
        """Every exact name, sorted; with `kind`, those of one kind."""
        self.load()
        classes = self.classes.items()
        return sorted(n for n, c in classes if "*" not in n and kind in (None, c.kind))

    def load(self) -> None:
        for module in self.modules:
            importlib.import_module(f"{self.package}.{module}")


@contextmanager
def seeded(seed: int = SEED) -> Iterator[None]:
    """Draw untrained weights from one seed, and leave torch's own generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def frozen() -> Iterator[None]:
    """No gradients, and true float32 on a GPU (no TF32), so that devices agree closely."""
    import torch

    cudnn = torch.backends.cudnn
    with (
        torch.inference_mode(),
        cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
    ):
        yield


def load_state(model: torch.nn.Module, weights: Weights) -> None:
    """Fill a network from a .safetensors file; every tensor must have its place.

    Raises WeightsError naming the file and the tensors that do not fit.
    """
    from safetensors.torch import load_file

    if weights.path is None:
        raise WeightsError(f"the weights of {weights.network} from {weights.source} have no file")
    try:
        state = load_file(weights.path)
        missing, extra = model.load_state_dict(state, strict=False)
    except Exception as error:  # torch and safetensors raise several kinds for a wrong file
        raise WeightsError(
            f"{weights.path} does not hold weights of {weights.network}: {first_line(error)}; "
            "see weights.folder and weights.source"
        ) from error
    # a counter that only training reads, absent from files saved with frozen batch norms
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or extra:
        raise WeightsError(
            f"{weights.path} does not fit {weights.network}: {len(missing)} tensors missing "
            f"{missing[:3]}, {len(extra)} unknown {extra[:3]}; see weights.folder and "
            "weights.source"
        )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and reports of its own while transformers loads; what is missing we say ourselves."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_transformer(auto: Any, weights: Weights, unused: tuple[str, ...], setting: str) -> Any:
    """A transformers model out of a local folder of safetensors, float32, never from a hub.

    transformers fills tensors that the folder lacks with random numbers: that is refused, except
    for those of layers whose output nobody reads (`unused`, by the start of their names).
    Raises WeightsError naming the folder and what is wrong with it.
    """
    import torch

    try:
        with quiet_transformers():
            model, report = auto.from_pretrained(
                weights.path,
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(
            f"{weights.path} does not hold {weights.network} as transformers saves it: "
            f"{first_line(error)}; see weights.folder and {setting}"
        ) from error
    missing = sorted(n for n in report["missing_keys"] if not n.startswith(unused))
    if missing:
        raise WeightsError(
            f"{weights.path} lacks {len(missing)} tensors of {weights.network} {missing[:3]}; "
            f"see weights.folder and {setting}"
        )
    return model


def normalise(pictures: torch.Tensor, facts: dict[str, Any], device: torch.device) -> torch.Tensor:
    """uint8 (B,3,H,W) RGB -> float32: (pixel * scale - mean) / std."""
    import torch

    if pictures.dtype != torch.uint8 or pictures.ndim != 4 or pictures.shape[1] != 3:
        shape = tuple(pictures.shape)
        raise ValueError(f"pictures must be uint8 (B, 3, H, W), not {pictures.dtype} {shape}")
    mean, std = (
        torch.tensor(facts[key], dtype=torch.float32, device=device)[:, None, None]
        for key in ("mean", "std")
    )
    return (pictures.to(device).float() * facts["scale"] - mean) / std
