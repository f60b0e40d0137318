"""HEGL: labels as nodes of two graphs, by meaning and by co-occurrence (HugMe)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.labels import HAS


def cosine(rows: Float[Tensor, "C D"]) -> Float[Tensor, "C C"]:
    """Cosine of every pair of rows; 0 with a row of zeros, whose gradient stays finite too."""
    unit = rows * (rows.square().sum(-1, keepdim=True) + 1e-12).rsqrt()
    return unit @ unit.T


def similarity(nodes: Float[Tensor, "C D"]) -> Float[Tensor, "C C"]:
    """A^h_ij = relu(cos(H0_i, H0_j)), with 1 on the diagonal."""
    return _self_loops(cosine(nodes).relu())


def cooccurrence(targets: Float[Tensor, "N C"]) -> Float[Tensor, "C C"]:
    """A^o_ij = O_ij / m_i: the share of persons with label i that also have j.

    targets: label vectors of the *training* persons; what counts as having a label: `train.labels`.
    The diagonal is 1; a label that never occurs has no other neighbour.
    """
    has = (targets > HAS).float()
    together = has.T @ has
    return _self_loops(together / together.diagonal().clamp(min=1)[:, None])


def normalise(adjacency: Float[Tensor, "C C"]) -> Float[Tensor, "C C"]:
    """D^-1/2 A D^-1/2 with D_ii = sum_j A_ij, which is at least 1 where A has its self-loops."""
    scale = adjacency.sum(-1).rsqrt()
    return scale[:, None] * adjacency * scale[None, :]


def _self_loops(adjacency: Float[Tensor, "C C"]) -> Float[Tensor, "C C"]:
    eye = torch.eye(len(adjacency), dtype=adjacency.dtype, device=adjacency.device)
    return adjacency * (1 - eye) + eye


class GraphConvolution(nn.Module):
    """H' = relu(D^-1/2 A D^-1/2 H W) (Kipf and Welling 2017), without a bias."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        nn.init.xavier_uniform_(self.weight)

    def forward(
        self, nodes: Float[Tensor, "C I"], adjacency: Float[Tensor, "C C"]
    ) -> Float[Tensor, "C O"]:
        return (normalise(adjacency) @ (nodes @ self.weight)).relu()


class Branch(nn.Module):
    """Two graph convolutions over one adjacency."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = GraphConvolution(inputs, outputs)
        self.second = GraphConvolution(outputs, outputs)

    def forward(
        self, nodes: Float[Tensor, "C I"], adjacency: Float[Tensor, "C C"]
    ) -> Float[Tensor, "C O"]:
        return self.second(self.first(nodes, adjacency), adjacency)


@dataclass(frozen=True)
class GraphOutput:
    """H (C, D), and for each branch its output (C, D / branches) and its adjacency A (C, C)."""

    nodes: Float[Tensor, "C D"]
    outputs: dict[str, Tensor]
    adjacencies: dict[str, Tensor]


class LabelGraph(nn.Module):
    """H0 = the labels' definitions projected; per graph two convolutions; H = [H^h; H^o].

    text_width: of the definitions' features; width: of H0; outputs: of each branch;
    branches: which graphs, of "similarity" and "cooccurrence".
    """

    def __init__(self, text_width: int, width: int, outputs: int, branches: Sequence[str]):
        super().__init__()
        self.project = nn.Linear(text_width, width, bias=False)
        self.branches = nn.ModuleDict({name: Branch(width, outputs) for name in branches})
        self.width = outputs * len(branches)

    def forward(self, text: Float[Tensor, "C W"], together: Float[Tensor, "C C"]) -> GraphOutput:
        """text: the definitions' features; together: A^o of the training labels."""
        start = self.project(text)
        outputs: dict[str, Tensor] = {}
        adjacencies: dict[str, Tensor] = {}
        for name, branch in self.branches.items():
            adjacency = similarity(start) if name == "similarity" else together
            outputs[name], adjacencies[name] = branch(start, adjacency), adjacency
        return GraphOutput(torch.cat(list(outputs.values()), dim=-1), outputs, adjacencies)
