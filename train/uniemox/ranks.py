"""Several processes that learn one network together, as torchrun starts them."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from cache.errors import SettingsError

NAMED = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # by torchrun, beside WORLD_SIZE
Value = TypeVar("Value")


@dataclass(frozen=True)
class World:
    """One of `size` processes, the `rank`-th (from 0), and its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    def wrap(self, module: nn.Module, unused: bool = False) -> nn.Module:
        """The module with gradients that are the mean over all processes, and with the weights of
        the first; unused: whether a loss may leave out parameters that learn."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=unused)

    def gather(self, value: Value) -> list[Value]:
        """What each process gives here, in the order of their ranks, for every one of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found

    def agree(self, value: Value) -> Value:
        """What the first process gives here, for every one of them."""
        if self.size == 1:
            return value
        said = [value]
        dist.broadcast_object_list(said, src=0)
        return said[0]


def apart(model: nn.Module) -> AbstractContextManager[None]:
    """Within it a backward pass adds to the gradients of this process alone."""
    if isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


@contextmanager
def joined(device: torch.device | str) -> Iterator[World]:
    """This process among those that torchrun started; alone where there are no others.

    device: "cuda" is the GPU of LOCAL_RANK where there are several. One `joined` may stand within
    another, and the outermost closes the process group; stand it around all that a command does,
    since a group that is opened again can hang. Where one process has an error, torchrun ends the
    others. Raises SettingsError for an environment that torchrun has not made, or too few GPUs.
    """
    device = torch.device(device)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(device)
        return
    device = _own(device)
    if dist.is_initialized():
        yield World(device, dist.get_rank(), dist.get_world_size())
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(device, dist.get_rank(), dist.get_world_size())
    except BaseException:
        # NCCL would wait here for the others, who wait for this one.
        if device.type != "cuda":
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def _own(device: torch.device) -> torch.device:
    """The device of this one of several processes."""
    missing = [name for name in NAMED if name not in os.environ]
    if missing:
        raise SettingsError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set: start "
            "several processes with torchrun, or unset WORLD_SIZE"
        )
    if device.type != "cuda":
        return device
    local, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
    if local >= there:
        raise SettingsError(
            f"process {local} of this machine has no GPU of its own (there are {there}): give "
            f"torchrun --nproc-per-node {max(there, 1)} or less"
        )
    own = torch.device("cuda", local)
    torch.cuda.set_device(own)  # where NCCL and pickled values go
    return own
