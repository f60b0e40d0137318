"""Y: what the student says of a picture, fused of its two streams (UniEmoX).

alpha, beta: the class tokens of the scene and of the person, in the width D of the teachers.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu

Vectors = Float[Tensor, "B D"]


class Weighted(nn.Module):
    """G4: Y = lambda alpha + beta, with lambda one learned number that begins at 1."""

    def __init__(self, width: int, terms: int = 3):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, alpha: Vectors, beta: Vectors) -> Vectors:
        return self.scale * alpha + beta


class Scaled(nn.Module):
    """G1: Y = LayerNorm(sum_i (l_i * alpha + m_i * beta)) + b, over `terms` learned pairs of
    vectors l_i and m_i.

    A sum of vectors is a vector, so the number of terms changes how fast they are learned, not what
    Y can be. They begin at 1 / terms. LayerNorm learns a scale; b is its shift.
    """

    def __init__(self, width: int, terms: int = 3):
        super().__init__()
        self.scene = nn.Parameter(torch.full((terms, width), 1 / terms))
        self.person = nn.Parameter(torch.full((terms, width), 1 / terms))
        self.norm = nn.LayerNorm(width, bias=False)
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, alpha: Vectors, beta: Vectors) -> Vectors:
        return self.norm(self.scene.sum(0) * alpha + self.person.sum(0) * beta) + self.shift


class Attended(nn.Module):
    """G2: Y = swish(sum_i (softmax(alpha W_i) * alpha + softmax(beta V_i) * beta)) + b, over
    `terms` learned pairs of matrices W_i and V_i.

    The softmax is over the D features of a picture: over its one token it would always be 1.
    """

    def __init__(self, width: int, terms: int = 3):
        super().__init__()
        self.scene, self.person = (
            nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(terms))
            for _ in ("W", "V")
        )
        self.shift = nn.Parameter(torch.zeros(width))

    def forward(self, alpha: Vectors, beta: Vectors) -> Vectors:
        of_scene, of_person = self.weights(alpha, beta)
        return silu(of_scene.sum(0) * alpha + of_person.sum(0) * beta) + self.shift

    def weights(
        self, alpha: Vectors, beta: Vectors
    ) -> tuple[Float[Tensor, "kappa B D"], Float[Tensor, "kappa B D"]]:
        """The softmaxes of each term, of alpha and of beta. They sum to 1 over D."""
        of_scene = torch.stack([layer(alpha) for layer in self.scene]).softmax(-1)
        return of_scene, torch.stack([layer(beta) for layer in self.person]).softmax(-1)


class Gated(nn.Module):
    """G3: Y = g * h + (1 - g) * s, with the sum s = alpha + beta, h = MLP([alpha; beta]) (two
    layers, GELU) and the gate g = sigmoid(W [alpha; beta] + c).

    Of G3 it is said only that it has sum, concatenation, MLP and gate: how they go together is
    this project's reading.
    """

    def __init__(self, width: int, terms: int = 3):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.Linear(width, width))
        self.gate = nn.Linear(2 * width, width)

    def forward(self, alpha: Vectors, beta: Vectors) -> Vectors:
        both = torch.cat([alpha, beta], dim=-1)
        gate = self.gate(both).sigmoid()
        return gate * self.mlp(both) + (1 - gate) * (alpha + beta)


FUSIONS: dict[str, type[nn.Module]] = {
    "weighted": Weighted,
    "scaled": Scaled,
    "attended": Attended,
    "gated": Gated,
}
