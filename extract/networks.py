"""What all frozen networks share: a name, weights, preprocessing, batches, arithmetic.

Kept free of heavy imports, so that asking which networks exist costs nothing.
"""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from cache.errors import DeviceMemoryError
from extract.weights import Weights
from extract.weights.untrained import SEED

if TYPE_CHECKING:
    import torch

log = logging.getLogger("extract")
Result = TypeVar("Result")


class Network:
    """One frozen network on one device.

    Attributes: `name`, `weights` (which, and their hash), `device`, and `preprocessing`, a plain
    dict of everything besides the weights that decides the numbers; it belongs in a cache key.
    `batch` is how many inputs run together (on a CPU at most `cpu_batch`), `precision` the
    arithmetic: float32, or autocast to bfloat16 or float16, which belongs in a cache key too.
    """

    kind = ""  # what it is for: picture, depth, text, words; faces, objects
    any_name = False  # whether names that no pattern knows may be of this class
    looks = False  # whether it has `look`, which says where on a picture its features come from
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
    def takes(cls, config: Mapping[str, Any]) -> bool:
        """Whether weights with this `config.json` are of the class, whatever they are called."""
        return False

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
