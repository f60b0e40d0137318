"""The tensors of a pickle as plain ones, by torch's restricted loader, which runs nothing."""

from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import first_line

if TYPE_CHECKING:
    import torch


def plain_tensors(path: Path) -> dict[str, "torch.Tensor"]:
    """The tensors by name of a .pth, .pt or .bin file that holds nothing else.

    Raises ValueError where it holds more, or is no such file.
    """
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        # Copies, since safetensors refuses two names for one piece of memory.
        return {name: value.contiguous().clone() for name, value in state.items()}
    except Exception as error:  # torch raises many kinds
        raise ValueError(first_line(error)) from error
