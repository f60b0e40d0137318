"""MVEC: two views of the same labels, an MLP and the label graph (HugMe)."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from train.layers.dropout import Dropout


class CachedLinear(nn.Linear):
    """A linear layer on features that come from the cache, but for the columns `learned` (start,
    stop): in training cached ones need no gradient, which is a third of the layer's work. In
    evaluation mode all have theirs, for who asks what of the features a label rests on.
    """

    def __init__(self, inputs: int, outputs: int, learned: tuple[int, int]):
        super().__init__(inputs, outputs)
        self.learned = learned

    def forward(self, features: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        if not self.training:
            return super().forward(features)
        return _CachedLinear.apply(features, self.weight, self.bias, *self.learned)


class _CachedLinear(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(features: Tensor, weight: Tensor, bias: Tensor, start: int, stop: int) -> Tensor:
        return nn.functional.linear(features, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        features, weight, _, *ctx.learned = inputs
        ctx.save_for_backward(features, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None, None]:
        features, weight = ctx.saved_tensors
        start, stop = ctx.learned
        back = None
        if ctx.needs_input_grad[0] and stop > start:
            around = (start, weight.shape[1] - stop)
            back = nn.functional.pad(gradient @ weight[:, start:stop], around)
        return back, gradient.T @ features, gradient.sum(0), None, None


class TwoViewClassifier(nn.Module):
    """z1 = MLP(f), two hidden ReLU layers; z2 = fc(f) . H^T.

    graph_width: of H; 0 where there is no label graph, and then z2 is None. learned: the columns
    (start, stop) of f that are learned, None for all; see `CachedLinear`.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        labels: int,
        graph_width: int,
        dropout: float,
        learned: tuple[int, int] | None = None,
    ):
        super().__init__()
        first, second = hidden

        def linear(outputs: int) -> nn.Linear:
            if learned is None:
                return nn.Linear(inputs, outputs)
            return CachedLinear(inputs, outputs, learned)

        self.mlp = nn.Sequential(
            linear(first),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(first, second),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(second, labels),
        )
        self.fc = linear(graph_width) if graph_width else None

    def forward(
        self, features: Float[Tensor, "B F"], nodes: Float[Tensor, "C D"] | None
    ) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"] | None]:
        second = None if self.fc is None or nodes is None else self.fc(features) @ nodes.T
        return self.mlp(features), second


def combine(
    first: Float[Tensor, "B C"],
    second: Float[Tensor, "B C"] | None,
    beta: tuple[float, float] | Float[Tensor, "2"],
    output: Literal["sigmoid", "softmax", "literal"],
) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B C"]]:
    """p and the logits it comes from, out of both views; the first alone where second is None.
    beta: the two weights, beta and 1 - beta.

    sigmoid, softmax: z = beta z1 + (1 - beta) z2, p = output(z). Both views are unbounded there,
    so they weigh alike, and the loss can use z.
    literal, the paper: p = beta softmax(z1) + (1 - beta) z2, which mixes a probability with an
    unbounded product; p is returned as both.
    """
    if output == "literal":
        first = first.softmax(-1)
    mixed = first if second is None else beta[0] * first + beta[1] * second
    if output == "sigmoid":
        return mixed.sigmoid(), mixed
    if output == "softmax":
        return mixed.softmax(-1), mixed
    return mixed, mixed
