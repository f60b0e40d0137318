"""MVEC: two views of the same labels, an MLP and the label graph (HugMe)."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn


class TwoViewClassifier(nn.Module):
    """z1 = MLP(f), two hidden ReLU layers; z2 = fc(f) . H^T.

    graph_width: of H; 0 where there is no label graph, and then z2 is None.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], labels: int, graph_width: int, dropout: float
    ):
        super().__init__()
        first, second = hidden
        self.mlp = nn.Sequential(
            nn.Linear(inputs, first),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(second, labels),
        )
        self.fc = nn.Linear(inputs, graph_width) if graph_width else None

    def forward(
        self, features: Float[Tensor, "B F"], nodes: Float[Tensor, "C D"] | None
    ) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"] | None]:
        second = None if self.fc is None or nodes is None else self.fc(features) @ nodes.T
        return self.mlp(features), second


def combine(
    first: Float[Tensor, "B C"],
    second: Float[Tensor, "B C"] | None,
    beta: float,
    output: Literal["sigmoid", "softmax", "literal"],
) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """p and the logits it comes from, out of both views; the first alone where second is None.

    sigmoid, softmax: z = beta z1 + (1 - beta) z2, p = output(z). Both views are unbounded there,
    so they weigh alike, and the loss can use z.
    literal, the paper: p = beta softmax(z1) + (1 - beta) z2, which mixes a probability with an
    unbounded product; p is returned as both.
    """
    if output == "literal":
        first = first.softmax(-1)
    mixed = first if second is None else beta * first + (1 - beta) * second
    if output == "sigmoid":
        return mixed.sigmoid(), mixed
    if output == "softmax":
        return mixed.softmax(-1), mixed
    return mixed, mixed
