"""Classifiers out of a graph of labels: ML-GCN (Chen et al., 2019), and ELD in RRLA."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.layers.label_graph import cooccurrence, normalise


def reweighted(
    targets: Float[Tensor, "N C"], threshold: float, share: float
) -> Float[Tensor, "C C"]:
    """A of ML-GCN and of RRLA's ELD, from the labels of the training persons (N, C).

    P_ij = P(j | i) is 1 from `threshold` on, else 0; then A_ij = share P_ij / sum_j P_ij off the
    diagonal and A_ii = 1 - share, so that a node does not drown in its neighbours.
    """
    together = cooccurrence(targets)
    eye = torch.eye(len(together), dtype=together.dtype, device=together.device)
    linked = (together >= threshold).float() * (1 - eye)
    return share * linked / linked.sum(-1, keepdim=True).clamp(min=1) + (1 - share) * eye


class LabelClassifiers(nn.Module):
    """Two convolutions A H W over label features, LeakyReLU(0.2) between: inputs -> hidden ->
    outputs. Each row is the linear classifier of a label (ML-GCN; ELD in RRLA)."""

    def __init__(self, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.first = nn.Linear(inputs, hidden, bias=False)
        self.second = nn.Linear(hidden, outputs, bias=False)

    def forward(
        self, text: Float[Tensor, "C I"], adjacency: Float[Tensor, "C C"]
    ) -> Float[Tensor, "C O"]:
        scaled = normalise(adjacency)
        hidden = nn.functional.leaky_relu(scaled @ self.first(text), 0.2)
        return scaled @ self.second(hidden)
