"""Entropic optimal transport between two sets of tokens, a problem a sample, many at once.

Every plan has its marginals, also where the iteration has not converged, and its gradient is that
of the steps as they were made. A token of mass 0 is absent: nothing goes to it, and no gradient.
"""

import math
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

# ln of the factor by which an entry of a plan may grow before its kernel is made anew. A float32
# kernel loses what is below 1e-38, so nothing above 1e-8 is ever missing.
GROWTH = 69.0
# The same between two kernels: the gradient has squares of factors, which float32 must hold too.
BETWEEN = 40.0


def sinkhorn(
    cost: Float[Tensor, "B n m"],
    epsilon: float,
    steps: int,
    a: Float[Tensor, "B n"] | None = None,
    b: Float[Tensor, "B m"] | None = None,
    most: float = math.inf,
    least: float | None = None,
) -> Float[Tensor, "B n m"]:
    """argmin_T <T, cost> - epsilon H(T) with row sums a and column sums b, by `steps` rounds of
    row and column updates (Cuturi 2013), rounded onto the marginals (Altschuler et al. 2017).

    cost: finite, also at absent tokens; a, b: masses that sum to 1, equal ones where they are not
    given; a mass of 0 is an absent token, and a sample with a side of zeros gets a plan of zeros.
    most: costs lie between 0 and this, where known; least: the least mass of a that is not 0 times
    that of b, where known: to look for it waits for the device, and does not go through vmap. The
    gradient goes to the cost alone.

    Potentials are kept in the log domain. The first round is exact; after it, rounds are matrix
    products on the kernel exp(f_i + g_j - cost_ij / epsilon), which takes f and g in every few
    rounds (Schmitzer 2019). Let r_i a_i be the row sums of a plan a_i K_ij b_j with right columns:
    r_i = sum_j w_ij / c_j, with weights w_ij that sum to 1 and column sums c_j b_j <= 1 before, so
    min b <= r_i <= 1 / min a. A row's factor 1 / r_i lies within these bounds, a column's next
    factor is the inverse of a mean of row factors, and so on: in a round no entry grows by more
    than 1 / (min a min b), whatever cost and epsilon are. Where costs are 23 epsilon at most no
    potential needs the log domain: exp(-cost / epsilon) is the one kernel, since no f_i, and no
    g_j, can differ from another by more than costs do.
    """
    count, n, m = cost.shape
    masked = a is not None or b is not None
    a = cost.new_full((count, n), 1 / n) if a is None else a
    b = cost.new_full((count, m), 1 / m) if b is None else b
    there = None
    if masked:
        there = ((a.sum(1) > 0) & (b.sum(1) > 0))[:, None]
        a, b = torch.where(there, a, 1 / n), torch.where(there, b, 1 / m)
    if least is None:
        least = _least(a) * _least(b) if masked else 1 / (n * m)
    starts = _starts(steps, 1 / least, most / epsilon)
    if torch.compiler.is_exporting():  # which follows no buffer that is written to
        plan = _unrolled(cost / -epsilon, a, b, starts, steps, masked)
    else:
        plan = _Sinkhorn.apply(cost / -epsilon, a, b, starts, steps, masked)[0]
    plan = _rounded(plan, a, b)
    return plan if there is None else plan * there[..., None]


def gromov(
    cost1: Float[Tensor, "B n n"],
    cost2: Float[Tensor, "B m m"],
    epsilon: float,
    steps: int,
    inner: int,
    a: Float[Tensor, "B n"] | None = None,
    b: Float[Tensor, "B m"] | None = None,
    least: float | None = None,
) -> Float[Tensor, "B n m"]:
    """Entropic Gromov-Wasserstein between two sets with costs of their own, squared loss:

        argmin_T sum_ijkl (cost1_ik - cost2_jl)^2 T_ij T_kl - epsilon H(T)

    by `steps` projected gradient steps from a b^T, each of them `inner` rounds of `sinkhorn` on
    the gradient (Peyre et al. 2016). cost1, cost2: symmetric; a, b, least: as in `sinkhorn`.
    """
    (count, n, _), m = cost1.shape, cost2.shape[1]
    rows = cost1.new_full((count, n), 1 / n) if a is None else a
    columns = cost2.new_full((count, m), 1 / m) if b is None else b
    within = (cost1.square() @ rows[..., None]) + (cost2.square() @ columns[..., None]).mT
    plan = rows[..., None] * columns[:, None]
    for _ in range(steps):
        gradient = 2 * within - 4 * (cost1 @ plan @ cost2)
        plan = sinkhorn(gradient, epsilon, inner, a, b, least=least)
    return plan


def cosine_cost(x: Float[Tensor, "B n D"], y: Float[Tensor, "B m D"]) -> Float[Tensor, "B n m"]:
    """1 - cosine of every pair; 1 with a token of zeros, whose gradient stays finite too."""
    return 1 - _unit(x) @ _unit(y).mT


def cut(cost: Float[Tensor, "B n n"], present: Bool[Tensor, "B n"]) -> Float[Tensor, "B n n"]:
    """max(cost - its mean in the sample, 0): what is nearer than the mean is all alike. The mean is
    over the tokens present."""
    pairs = present[:, :, None] & present[:, None]
    mean = (cost * pairs).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return (cost - mean[:, None, None]).relu()


def _unit(tokens: Float[Tensor, "B n D"]) -> Float[Tensor, "B n D"]:
    return tokens * (tokens.square().sum(-1, keepdim=True) + 1e-6).rsqrt()


def _rounded(
    plan: Float[Tensor, "B n m"], a: Float[Tensor, "B n"], b: Float[Tensor, "B m"]
) -> Float[Tensor, "B n m"]:
    """The plan, whose columns are right, with right rows too: rows that have too much are scaled
    down, and what columns then lack comes from the rows that have too little."""
    least = torch.finfo(plan.dtype).eps
    rows = plan.sum(2)
    share = (a / rows.clamp(min=least)).clamp(max=1)
    plan = plan * share[..., None]
    lack = (a - rows * share).clamp(min=0)
    missing = (b - plan.sum(1)).clamp(min=0) / lack.sum(1, keepdim=True).clamp(min=least)
    return plan + lack[..., None] * missing[:, None]


class _Sinkhorn(torch.autograd.Function):
    """The plan a_i q_i K_ij p_j b_j after `steps` rounds, with the gradient of all of them.

    scaled: -cost / epsilon; starts: see `_starts`; masked: whether some mass is 0. q and p: the
    factors of rows and columns since the kernel K was made, of every round.
    """

    @staticmethod
    def forward(
        scaled: Tensor, a: Tensor, b: Tensor, starts: tuple[int, ...], steps: int, masked: bool
    ) -> tuple[Tensor, ...]:
        count, n, m = scaled.shape
        q, p = (scaled.new_empty(steps, count, size, 1) for size in (n, m))
        powers, kernels = scaled, []
        f = g = scaled.new_zeros(())
        if starts[0]:
            f = -(scaled + b.log()[:, None]).logsumexp(2, keepdim=True)
            powers = scaled + f
            kernels.append(_kernel(powers, a, b, masked))
            g = -(powers + a.log()[..., None]).logsumexp(1, keepdim=True)
            powers = powers + g
            q[0], p[0] = 1, 1
        qs, ps = q.unbind(), p.unbind()
        for start, end in pairwise([*starts, steps]):
            kernels.append(_kernel(powers, a, b, masked))
            by_rows, by_columns = _factored(kernels[-1], a, b)
            now = torch.ones_like(ps[0])
            for row, column in zip(qs[start:end], ps[start:end], strict=True):
                torch.bmm(by_rows, now, out=row).reciprocal_()
                torch.bmm(by_columns, row, out=column).reciprocal_()
                now = column
            if end < steps:
                f, g = f + qs[end - 1].log(), g + ps[end - 1].log().mT
                powers = scaled + f + g
        plan = kernels[-1] * (a[..., None] * qs[-1]) * (b[..., None] * ps[-1]).mT
        return plan, q, p, *kernels

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, a, b, ctx.starts, ctx.steps, _ = inputs
        ctx.save_for_backward(a, b, *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Round by round, by x and y, the gradients by the log factors of rows and columns, each
        over its mass: x = -q K b (p y), then y = -p' K' a (q x) with p' of the round before.
        Kept are q x and p y, from which the kernel's gradient is one product."""
        back = gradients[0]
        nothing = (None,) * 5
        if back is None:
            return None, *nothing
        a, b, q, p, *kernels = ctx.saved_tensors
        masses = a[..., None] * b[:, None]
        each = back * kernels[-1] * q[-1] * p[-1].mT
        total = each * masses
        qx, py = torch.empty_like(q), torch.empty_like(p)
        q2, p2 = q.square().neg_().unbind(), p.square().neg_().unbind()
        qxs, pys = qx.unbind(), py.unbind()
        x, y = each @ b[..., None], each.mT @ a[..., None]
        blocks = [*pairwise([*ctx.starts, ctx.steps])]
        for (start, end), kernel in zip(reversed(blocks), reversed(kernels), strict=False):
            if start == end:  # of one round, which is exact
                break
            by_rows, by_columns = _factored(kernel, a, b)
            torch.mul(p[end - 1], y, out=pys[end - 1])
            for t in range(end - 1, start - 1, -1):
                torch.bmm(by_rows, pys[t], out=qxs[t]).mul_(q2[t])
                if t == ctx.steps - 1:
                    qxs[t].addcmul_(q[t], x)
                    x = torch.zeros_like(x)
                if t > start:
                    torch.bmm(by_columns, qxs[t], out=pys[t - 1]).mul_(p2[t - 1])
            y = torch.bmm(by_columns, qxs[start]).neg_()
            moved = _sums(q[start:end], py[start:end]) + qx[start]
            if end > start + 1:
                moved += _sums(qx[start + 1 : end], p[start : end - 1])
            total -= kernel * masses * moved
        if ctx.starts[0]:
            x = x - (kernels[1] * b[:, None]) @ y
            total -= masses * (kernels[1] * y.mT + kernels[0] * x)
        return total, *nothing

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], scaled: Tensor, a: Tensor, b: Tensor, *more: Any
    ) -> tuple[tuple[Tensor], tuple[int]]:
        """Samples are independent: those of all heads are one batch."""
        size = info.batch_size
        each = [
            (x.expand(size, *x.shape) if at is None else x.movedim(at, 0)).flatten(0, 1)
            for x, at in zip((scaled, a, b), in_dims[:3], strict=True)
        ]
        return (_Sinkhorn.apply(*each, *more)[0].unflatten(0, (size, -1)),), (0,)


def _unrolled(
    scaled: Tensor, a: Tensor, b: Tensor, starts: tuple[int, ...], steps: int, masked: bool
) -> Tensor:
    """The plan of `_Sinkhorn`, and nothing kept for its gradient."""
    powers = scaled
    if starts[0]:
        powers = powers - (powers + b.log()[:, None]).logsumexp(2, keepdim=True)
        powers = powers - (powers + a.log()[..., None]).logsumexp(1, keepdim=True)
    row, column = torch.ones_like(a)[..., None], torch.ones_like(b)[..., None]
    for start, end in pairwise([*starts, steps]):
        kernel = _kernel(powers, a, b, masked)
        by_rows, by_columns = _factored(kernel, a, b)
        now = torch.ones_like(column)
        for _ in range(start, end):
            row = torch.bmm(by_rows, now).reciprocal()
            now = column = torch.bmm(by_columns, row).reciprocal()
        if end < steps:
            powers = powers + row.log() + column.log().mT
    return kernel * (a[..., None] * row) * (b[..., None] * column).mT


def _least(masses: Float[Tensor, "B n"]) -> float:
    """The least of those that are not 0."""
    return float(torch.where(masses > 0, masses, 1).min())


def _starts(steps: int, growth: float, powers: float) -> tuple[int, ...]:
    """The rounds, from 0, before which a kernel is made; round 0 is none of them where it is exact.
    growth: the most by which an entry may grow in a round; powers: the greatest of cost / epsilon,
    where costs are not negative."""
    if 3 * powers <= GROWTH:
        return (0,)
    return tuple(range(1, max(steps, 2), max(1, int(BETWEEN / math.log(max(growth, 2))))))


def _sums(rows: Tensor, columns: Tensor) -> Tensor:
    """sum_t rows_t columns_t' (B, n, m), of (T, B, n, 1) and (T, B, m, 1)."""
    return torch.bmm(rows[..., 0].permute(1, 2, 0), columns[..., 0].transpose(0, 1))


def _kernel(powers: Tensor, a: Tensor, b: Tensor, masked: bool) -> Tensor:
    """exp of the powers; 1 with an absent token, whose row or column then is no sum of nothing."""
    if not masked:
        return powers.exp()
    return torch.where((a[..., None] > 0) & (b[:, None] > 0), powers, 0).exp()


def _factored(kernel: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """K b (B, n, m) and K' a (B, m, n), both contiguous."""
    return kernel * b[:, None], kernel.mT.contiguous() * a[:, None]
