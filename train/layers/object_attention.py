"""BOA: objects attended by what they are to the body and where they lie from it (RRLA)."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

NEAR = 1e-3  # distances and ratios are at least this before their logarithm
FAINT = 1e-6  # w_G is at least this before its logarithm
GEOMETRY = 128  # numbers that the four of the geometry are spread over


def geometry(
    subject: Float[Tensor, "B 4"], objects: Float[Tensor, "B k 4"]
) -> Float[Tensor, "B k 4"]:
    """[log |x_m - x_B| / w_B, log |y_m - y_B| / h_B, log w_m / w_B, log h_m / h_B] of centres and
    sides; boxes x1 y1 x2 y2 in pixels. Every ratio is at least `NEAR`, sides of the subject 1."""
    size = (subject[:, None, 2:] - subject[:, None, :2]).clamp(min=1)
    apart = (objects[..., :2] + objects[..., 2:] - subject[:, None, :2] - subject[:, None, 2:]) / 2
    sides = objects[..., 2:] - objects[..., :2]
    return torch.cat([apart.abs() / size, sides / size], dim=-1).clamp(min=NEAR).log()


def embed(values: Float[Tensor, "*n G"], width: int = GEOMETRY) -> Float[Tensor, "*n W"]:
    """Sine and cosine of 100 g / 1000^(i / n), i < n, of each of the G numbers (Hu et al., Relation
    Networks, 2018); width = 2 n G."""
    n = width // (2 * values.shape[-1])
    scale = 100 / 1000 ** (torch.arange(n, device=values.device) / n)
    angles = (values[..., None] * scale).flatten(-2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class BodyObjectAttention(nn.Module):
    """O_B = project [sum_m w^m V O_A^m of each head];   w = softmax(w_A + log w_G)

        w_A = (W1 O_A) . (W2 B_A) / sqrt(width)        w_G = relu(W_G E(geometry))

    objects, body: widths of O_A and B_A; values: numbers that V gives a head, 0 for O_A as it is.
    """

    def __init__(
        self, objects: int, body: int, heads: int, width: int, values: int, placed: bool = True
    ):
        super().__init__()
        self.heads, self.width = heads, width
        self.of_object = nn.Linear(objects, heads * width, bias=False)
        self.of_body = nn.Linear(body, heads * width, bias=False)
        self.of_place = nn.Linear(GEOMETRY, heads, bias=False) if placed else None
        self.values = nn.Linear(objects, heads * values, bias=False) if values else None
        self.project = nn.Linear(heads * (values or objects), body)

    def weights(
        self,
        objects: Float[Tensor, "B k O"],
        mask: Bool[Tensor, "B k"],
        body: Float[Tensor, "B W"],
        where: Float[Tensor, "B k 4"],
    ) -> Float[Tensor, "B heads k"]:
        """w of each head: sums to 1 over the objects present, zeros where there is none."""
        count, k, _ = objects.shape
        keys = self.of_object(objects).view(count, k, self.heads, self.width)
        query = self.of_body(body).view(count, 1, self.heads, self.width)
        pull = ((keys * query).sum(-1) / self.width**0.5).transpose(1, 2)
        if self.of_place is not None:
            place = self.of_place(embed(where)).relu().clamp(min=FAINT)
            pull = pull + place.log().transpose(1, 2)
        # A row without objects would be all -inf, whose softmax has no gradient.
        pull = pull.masked_fill(~mask[:, None], torch.finfo(pull.dtype).min)
        return pull.softmax(-1) * mask[:, None]

    def forward(
        self,
        objects: Float[Tensor, "B k O"],
        mask: Bool[Tensor, "B k"],
        body: Float[Tensor, "B W"],
        where: Float[Tensor, "B k 4"],
    ) -> tuple[Float[Tensor, "B W"], Float[Tensor, "B k"]]:
        """O_B, and w as mean over the heads."""
        weights = self.weights(objects, mask, body, where)
        if self.values is None:
            seen = weights @ objects
        else:
            count, k, _ = objects.shape
            values = self.values(objects).view(count, k, self.heads, -1).transpose(1, 2)
            seen = (weights[:, :, None] @ values)[:, :, 0]
        return self.project(seen.flatten(1)), weights.mean(1)
