"""Labels that attend to each other by what correlates, in the data and as learned (HeLo)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.layers.label_graph import cosine


def correlation(
    targets: Float[Tensor, "N C"], kind: Literal["pearson", "cosine"]
) -> Float[Tensor, "C C"]:
    """Pearson correlation, or cosine, of the columns of the *training* label vectors. 1 on the
    diagonal; a label that never changes (cosine: that nobody has) has no other correlation."""
    columns = targets.T.double()
    if kind == "pearson":
        columns = columns - columns.mean(1, keepdim=True)
    size = columns.norm(dim=1, keepdim=True)
    # What float32 shares leave of a constant column is rounding, and rounding correlates too.
    flat = size <= 1e-6 * targets.T.double().norm(dim=1, keepdim=True).clamp(min=1e-6)
    unit = torch.where(flat, 0, columns / size.clamp(min=1e-12))
    found = (unit @ unit.T).to(targets.dtype)
    return found.fill_diagonal_(1)


class LabelAttention(nn.Module):
    """F + softmax(q(E) k(F)^T / sqrt(d) + s R) v(F), normalised; R: the cosine matrix of the label
    embedding E, s: learned, from 1 on."""

    def __init__(self, width: int):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in "qkv")
        self.scale = nn.Parameter(torch.ones(()))
        self.norm = nn.LayerNorm(width)

    def weights(
        self, embedding: Float[Tensor, "C D"], tokens: Float[Tensor, "B C D"]
    ) -> Float[Tensor, "B C C"]:
        """Of each label, how it attends to the tokens of all."""
        logits = self.query(embedding) @ self.key(tokens).mT / embedding.shape[-1] ** 0.5
        return (logits + self.scale * cosine(embedding)).softmax(-1)

    def forward(
        self, embedding: Float[Tensor, "C D"], tokens: Float[Tensor, "B C D"]
    ) -> Float[Tensor, "B C D"]:
        """tokens: one a label."""
        seen = self.weights(embedding, tokens) @ self.value(tokens)
        return self.norm(tokens + seen)


def started(text: Float[Tensor, "C W"], width: int) -> Float[Tensor, "C D"]:
    """Principal components of the labels' texts, as long on average as normal vectors of this
    width; zeros where there are fewer components than numbers."""
    centred = text.double() - text.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    parts = (u * s)[:, :width]
    found = torch.zeros(len(text), width, dtype=torch.float64, device=text.device)
    found[:, : parts.shape[1]] = parts
    scale = (width / found.square().sum(1).mean().clamp(min=1e-12)).sqrt()
    return (found * scale).to(text.dtype)
