"""The three losses of UniEmoX, in float32 whatever the arithmetic around them."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEAST = 1e-6  # added to the variance of a patch, as the masked autoencoder does
SHORTEST = 1e-8  # added to a squared length: rows of zeros have a finite gradient, too


def pixel_loss(
    predicted: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"], hidden: Float[Tensor, "B N"]
) -> Float[Tensor, ""]:
    """L1: the mean squared error of a hidden patch (He et al. 2022). hidden: 1 for those, 0 for
    the patches that were seen, which do not count."""
    error = (predicted.float() - target.float()).square().mean(-1)
    return (error * hidden).sum() / hidden.sum()


def pixel_errors(
    predicted: Float[Tensor, "B N P"], target: Float[Tensor, "B N P"], hidden: Float[Tensor, "B N"]
) -> Float[Tensor, " B"]:
    """`pixel_loss` of each row; it is their mean, as all rows have as many hidden patches."""
    error = (predicted.float() - target.float()).square().mean(-1)
    return (error * hidden).sum(-1) / hidden.sum(-1)


def similarity_loss(
    fused: Float[Tensor, "B D"],
    image: Float[Tensor, "B D"],
    text: Float[Tensor, "B D"],
    described: Bool[Tensor, " B"],
) -> Float[Tensor, ""]:
    """L2 = 1 - mean cosine of the rows of A = tau Y' L'^T and C = tau O' L'^T.

    Y, O and L: what the student and the teachers say of the picture and of its text; ': rows scaled
    to length 1. Every picture of the batch is a row, every one with a text a column. The cosine
    takes out what its rows are multiplied with, so no tau can change it, and there is none here.

    With fewer than two texts it is 0, and so is its gradient: the cosine of two numbers is 1 or -1
    whatever they are.
    """
    texts = unit(text.float()) * described[:, None]  # a column of zeros adds nothing to a cosine
    with torch.autocast(fused.device.type, enabled=False):  # which would round the products
        said = unit(fused.float()) @ texts.mT
        taught = unit(image.float()) @ texts.mT
    loss = 1 - (unit(said) * unit(taught)).sum(-1).mean()
    return torch.where(described.sum() > 1, loss, 0)  # where, not if: no wait for the device


def image_loss(fused: Float[Tensor, "B D"], image: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """L3 = 1 - mean cosine(Y, O)."""
    return 1 - (unit(fused.float()) * unit(image.float())).sum(-1).mean()


def normalised(patches: Float[Tensor, "B N P"]) -> Float[Tensor, "B N P"]:
    """Each patch with mean 0 and variance 1 over all of its numbers."""
    mean, deviation = spread(patches)
    return (patches - mean) / deviation


def spread(
    patches: Float[Tensor, "B N P"],
) -> tuple[Float[Tensor, "B N 1"], Float[Tensor, "B N 1"]]:
    """Mean and standard deviation of each patch; the latter 1e-3 where all its pixels are one."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return mean, (variance + LEAST).sqrt()


def unit(rows: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """Rows scaled to length 1; zeros stay zeros."""
    return rows * (rows.square().sum(-1, keepdim=True) + SHORTEST).rsqrt()
