"""Tokens that attend to other tokens, where some may be absent (HeLo)."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from train.layers.dropout import Dropout


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V in `heads` parts of the width, projected (Vaswani et al. 2017).

    Only tokens of `mask` are attended to; where there is none, what comes is zeros before the
    projection. Other than `torch.nn.MultiheadAttention` it has the same numbers in training and
    evaluation, drops no weight, and goes through `torch.vmap`.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.project = (nn.Linear(width, width) for _ in "qkvo")

    def forward(
        self,
        asking: Float[Tensor, "... n D"],
        asked: Float[Tensor, "B k D"],
        mask: Bool[Tensor, "B k"],
    ) -> Float[Tensor, "B n D"]:
        """asking: (B, n, D), or (n, D) for the same questions in all samples."""
        query, key, value = (
            layer(some).unflatten(-1, (self.heads, -1)).transpose(-3, -2)
            for layer, some in ((self.query, asking), (self.key, asked), (self.value, asked))
        )
        logits = query @ key.mT / query.shape[-1] ** 0.5
        seen = masked_softmax(logits, mask[:, None, None]) @ value
        return self.project(seen.transpose(-3, -2).flatten(-2))


class CrossModal(nn.Module):
    """The tokens of each modality ask those of all others; residual, LayerNorm."""

    def __init__(self, modalities: int, width: int, heads: int):
        super().__init__()
        self.attend = nn.ModuleList(Attention(width, heads) for _ in range(modalities))
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(modalities))

    def forward(
        self, tokens: Sequence[Float[Tensor, "B _ D"]], there: Sequence[Bool[Tensor, " B"]]
    ) -> list[Float[Tensor, "B _ D"]]:
        """tokens, there: of each modality, and in which samples it is present."""
        found = []
        for at, (attend, norm) in enumerate(zip(self.attend, self.norm, strict=True)):
            others = [n for n in range(len(tokens)) if n != at]
            asked = torch.cat([tokens[n] for n in others], dim=1)
            mask = torch.cat([expanded(there[n], tokens[n]) for n in others], dim=1)
            found.append(norm(tokens[at] + attend(tokens[at], asked, mask)))
        return found


class EncoderLayer(nn.Module):
    """x = LayerNorm(x + attention(x)), then x = LayerNorm(x + MLP(x))."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float):
        super().__init__()
        self.attend = Attention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, width)
        )
        self.last = nn.LayerNorm(width)

    def forward(
        self, tokens: Float[Tensor, "B n D"], mask: Bool[Tensor, "B n"]
    ) -> Float[Tensor, "B n D"]:
        tokens = self.norm(tokens + self.attend(tokens, tokens, mask))
        return self.last(tokens + self.mlp(tokens))


def masked_softmax(logits: Float[Tensor, "... k"], mask: Bool[Tensor, "... k"]) -> Tensor:
    """The softmax over the entries of `mask`; all zeros where there is none."""
    absent = torch.finfo(logits.dtype).min  # not -inf: a row without any stays finite
    return logits.masked_fill(~mask, absent).softmax(-1) * mask


def expanded(there: Bool[Tensor, " B"], tokens: Float[Tensor, "B n D"]) -> Bool[Tensor, "B n"]:
    """The mask of a modality's tokens, which are all there or all absent."""
    return there[:, None].expand(-1, tokens.shape[1])
