"""Early fusion: what a head sees of all its views, as one row a person."""

import torch
from jaxtyping import Float
from torch import Tensor

from train.data import Batch, view_of
from train.layers.inputs import Standardise, mean_object


def side_by_side(see: Standardise, names: list[str], batch: Batch) -> Float[Tensor, "B W"]:
    """The views of these names next to each other, in this order; objects as their mean, zeros
    where a face or every object is missing."""
    seen = []
    for name in names:
        values = see(name, batch)
        if values.ndim == 3:
            values = mean_object(values, batch.views[view_of(name)]["mask"])
        seen.append(values)
    return torch.cat(seen, dim=-1)
