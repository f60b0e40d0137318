"""Mean average precision where the scores are: on the device, of many heads at once."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def mean_average_precision(
    true: Bool[Tensor, "N C"], scores: Float[Tensor, "*K N C"]
) -> Float[Tensor, "*K"]:
    """As `train.metrics.mean_average_precision`, of one head's scores or of K heads', in float64.

    AP = mean over the positives of the precision among all that score at least as high, which
    counts equal scores as one threshold. NaN where no label has a positive.
    """
    if scores.device.type == "mps":  # which has no float64
        true, scores = true.cpu(), scores.cpu()
    persons = true.shape[0]
    falling = scores.transpose(-1, -2).contiguous()  # (..., C, N)
    ordered, order = falling.sort(-1)
    hits = true.T.expand_as(falling).gather(-1, order).double()
    # Persons from here on, in rising order, score at least as high as each of these.
    start = torch.searchsorted(ordered, ordered)
    above = hits.flip(-1).cumsum(-1).flip(-1).gather(-1, start)
    precision = above / (persons - start)
    positives = hits.sum(-1)
    averages = (precision * hits).sum(-1) / positives.clamp(min=1)
    known = (positives > 0).double()
    return torch.where(
        known.sum(-1) > 0, (averages * known).sum(-1) / known.sum(-1).clamp(min=1), torch.nan
    )
