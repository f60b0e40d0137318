"""Transport against POT, against the plain log-domain iteration in float64, and its gradients."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from torch.autograd import gradcheck

from train.layers.transport import _Sinkhorn, cosine_cost, cut, gromov, sinkhorn


def costs(n: int, m: int, count: int = 1, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, n, m, dtype=torch.float64, generator=drawn)


def even(size: int) -> np.ndarray:
    return np.full(size, 1 / size)


def by_log(cost: np.ndarray, epsilon: float, steps: int, a: np.ndarray, b: np.ndarray):
    """The plan after so many rounds, each an exact logsumexp, rounded as in Algorithm 2 of
    Altschuler et al. (2017)."""
    g = np.zeros(cost.shape[1])
    for _ in range(steps):
        f = np.log(a) - logsumexp(g - cost / epsilon, axis=1)
        g = np.log(b) - logsumexp(f[:, None] - cost / epsilon, axis=0)
    plan = np.exp(f[:, None] + g - cost / epsilon)
    plan *= np.minimum(a / plan.sum(1), 1)[:, None]
    plan *= np.minimum(b / plan.sum(0), 1)
    rows, columns = a - plan.sum(1), b - plan.sum(0)
    total = np.abs(rows).sum()
    return plan + (np.outer(rows, columns) / total if total > 1e-15 else 0)


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 1.0])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 4), (7, 3), (3, 16)])
def test_the_plan_is_pots(n, m, epsilon):
    cost = costs(n, m, 3)
    ours = sinkhorn(cost, epsilon, 5000)
    for plan, one in zip(ours.numpy(), cost.numpy(), strict=True):
        theirs = ot.sinkhorn(
            even(n),
            even(m),
            one,
            epsilon,
            "sinkhorn_log",
            numItermax=5000,
            stopThr=1e-13,
            warn=False,
        )
        np.testing.assert_allclose(plan, theirs, atol=1e-9)


def test_the_plan_of_uneven_masses_is_pots():
    rng = np.random.default_rng(0)
    a, b = rng.dirichlet(np.ones(5), 2), rng.dirichlet(np.ones(4), 2)
    cost = costs(5, 4, 2)
    ours = sinkhorn(cost, 0.2, 5000, torch.from_numpy(a), torch.from_numpy(b))
    for k in range(2):
        theirs = ot.sinkhorn(
            a[k],
            b[k],
            cost[k].numpy(),
            0.2,
            "sinkhorn_log",
            numItermax=5000,
            stopThr=1e-12,
            warn=False,
        )
        np.testing.assert_allclose(ours[k], theirs, atol=1e-9)


def blocked(n: int, m: int) -> np.ndarray:
    """The slowest there is: all rows but one are near one column alone, the last near the others,
    so that mass has to cross a gap of 2 and kernels grow by n m in each round."""
    cost = np.full((n, m), 2.0)
    cost[:-1, 0] = 0
    cost[-1, 1:] = 0
    return cost


@pytest.mark.parametrize("epsilon", [0.005, 0.02, 0.1])
@pytest.mark.parametrize(("n", "m"), [(4, 4), (16, 16), (3, 24)])
@pytest.mark.parametrize("steps", [1, 2, 13, 50, 300])
def test_float32_makes_the_rounds_of_exact_logarithms(n, m, epsilon, steps):
    """Also where the iteration is far from its end, and kernels are made anew on the way."""
    cost = np.stack([blocked(n, m), *costs(n, m, 2).numpy()]).astype(np.float32)
    ours = sinkhorn(torch.from_numpy(cost), epsilon, steps)
    for plan, one in zip(ours.numpy(), cost.astype(float), strict=True):
        expected = by_log(one, epsilon, steps, even(n), even(m))
        # A potential of 2 / epsilon has rounding of its own in float32.
        np.testing.assert_allclose(plan, expected, atol=1e-4 * max(1, 0.02 / epsilon) / min(n, m))


@pytest.mark.parametrize(("n", "m"), [(4, 4), (16, 16), (3, 24)])
def test_factors_stay_within_their_bounds(n, m):
    """In each round a row's factor is at least min a and at most 1 / min b, a column's the inverse
    of such a number, whatever the cost."""
    cost = torch.from_numpy(np.stack([blocked(n, m), *costs(n, m, 5).numpy()])).float()
    a, b = torch.full((6, n), 1 / n), torch.full((6, m), 1 / m)
    starts = tuple(range(1, 60, 12))
    _, q, p, *kernels = _Sinkhorn.apply(cost / -0.005, a, b, starts, 60, False)
    assert all(kernel.isfinite().all() for kernel in kernels)
    for t in range(1, 60):
        fresh = t in starts
        row, column = (x[t] / (1 if fresh else x[t - 1]) for x in (q, p))
        slack = 1 + 1e-3
        assert row.min() >= 1 / (n * slack) and row.max() <= m * slack
        assert column.min() >= 1 / (m * slack) and column.max() <= n * slack


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.floats(0.005, 2),
    st.integers(1, 60),
    st.integers(0, 10_000),
)
def test_marginals_always_hold_and_gradients_are_finite(n, m, epsilon, steps, seed):
    """Random costs, ties, masses that are far from even, absent tokens."""
    rng = np.random.default_rng(seed)
    cost = rng.choice([rng.uniform(0, 2, (4, n, m)), rng.integers(0, 3, (4, n, m)).astype(float)])
    cost = torch.tensor(cost, dtype=torch.float32, requires_grad=True)
    masses = []
    for size in (n, m):
        mass = np.maximum(rng.dirichlet(np.ones(size), 4), 1e-3)
        gone = rng.random((4, size)) < 0.3
        gone[:, rng.integers(size)] = False
        mass = np.where(gone, 0, mass)
        masses.append(torch.tensor(mass / mass.sum(1, keepdims=True), dtype=torch.float32))
    for a, b, most in ((*masses, 2.0), (None, None, 2.0), (*masses, float("inf"))):
        plan = sinkhorn(cost, epsilon, steps, a, b, most)
        rows = torch.full((4, n), 1 / n) if a is None else a
        columns = torch.full((4, m), 1 / m) if b is None else b
        assert (plan >= 0).all()
        assert (plan.sum(2) - rows).abs().max() < 5e-6  # what sums in float32 leave
        assert (plan.sum(1) - columns).abs().max() < 5e-6
        cost.grad = None
        (plan * torch.linspace(-1, 1, m)).sum().backward()
        assert cost.grad.isfinite().all()


@pytest.mark.parametrize("steps", [1, 2, 7, 40])
@pytest.mark.parametrize("epsilon", [0.02, 0.1, 1.0])
def test_the_gradient_is_that_of_the_steps(steps, epsilon):
    for n, m in ((1, 3), (3, 4), (5, 2)):
        cost = costs(n, m, 2).requires_grad_()
        for most in (float("inf"), 2.0):
            assert gradcheck(lambda c, m=most: sinkhorn(c, epsilon, steps, most=m), (cost,))


def test_the_gradient_with_absent_tokens_is_that_of_the_steps():
    a = torch.tensor([[0.5, 0.5, 0], [0.2, 0.3, 0.5], [0, 0, 0]], dtype=torch.float64)
    b = torch.tensor([[0.25] * 4, [0, 0.5, 0, 0.5], [0.25] * 4], dtype=torch.float64)
    cost = costs(3, 4, 3).requires_grad_()
    for steps in (1, 5, 40):
        for most in (float("inf"), 2.0):
            assert gradcheck(lambda c, s=steps, m=most: sinkhorn(c, 0.1, s, a, b, m), (cost,))


def test_the_gradient_is_pots():
    """At convergence, through POT's own backend of torch."""
    cost = costs(4, 5)[0].requires_grad_()
    weights = costs(4, 5, seed=1)[0]
    masses = (torch.from_numpy(even(size)) for size in (4, 5))
    theirs = ot.sinkhorn(
        *masses, cost, 0.2, "sinkhorn_log", numItermax=3000, stopThr=1e-14, warn=False
    )
    (expected,) = torch.autograd.grad((theirs * weights).sum(), cost)
    (found,) = torch.autograd.grad((sinkhorn(cost[None], 0.2, 500)[0] * weights).sum(), cost)
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_one_kernel_for_all_rounds_is_as_good_where_costs_are_known():
    cost = costs(6, 5, 8).float()
    apart, once = (sinkhorn(cost, 0.1, 50, most=most) for most in (float("inf"), 2.0))
    torch.testing.assert_close(once, apart, atol=1e-6, rtol=0)
    for plan, one in zip(once.numpy(), cost.double().numpy(), strict=True):
        np.testing.assert_allclose(plan, by_log(one, 0.1, 50, even(6), even(5)), atol=1e-6)


def test_absent_tokens_leave_the_plan_of_the_others():
    cost = costs(4, 5, 2)
    a = torch.tensor([[0.5, 0, 0.5, 0], [0.25] * 4], dtype=torch.float64)
    b = torch.tensor([[0.0, 1, 1, 1, 0], [1, 1, 1, 1, 1]], dtype=torch.float64)
    b = b / b.sum(1, keepdim=True)
    plan = sinkhorn(cost, 0.1, 40, a, b)
    smaller = sinkhorn(cost[:1, [0, 2], 1:4], 0.1, 40)
    torch.testing.assert_close(plan[0, [0, 2], 1:4], smaller[0])
    torch.testing.assert_close(plan[1], sinkhorn(cost[1:], 0.1, 40)[0])
    assert plan[0, [1, 3]].abs().max() == 0 and plan[0, :, [0, 4]].abs().max() == 0


@pytest.mark.parametrize("which", ["first", "other", "both"])
def test_a_side_without_tokens_gets_a_plan_of_zeros(which):
    cost = costs(3, 4).float().requires_grad_()
    a = torch.zeros(1, 3) if which != "other" else torch.full((1, 3), 1 / 3)
    b = torch.zeros(1, 4) if which != "first" else torch.full((1, 4), 1 / 4)
    plan = sinkhorn(cost, 0.1, 20, a, b)
    plan.square().sum().backward()
    assert not plan.any() and not cost.grad.any()


def test_a_sample_does_not_know_its_batch():
    cost = costs(5, 4, 6).float()
    together = sinkhorn(cost, 0.05, 30)
    alone = torch.cat([sinkhorn(one[None], 0.05, 30) for one in cost])
    torch.testing.assert_close(together, alone)


def test_it_goes_through_vmap_with_its_gradient():
    cost = costs(3, 4, 6).float().unflatten(0, (2, 3)).requires_grad_()
    a = torch.tensor([[0.5, 0.5, 0], [1, 0, 0], [0.2, 0.3, 0.5]])

    def one(each):
        return sinkhorn(each, 0.1, 20, a, least=0.2 / 4)  # what it would look for

    mapped = torch.vmap(one)(cost)
    looped = torch.stack([one(each) for each in cost])
    torch.testing.assert_close(mapped, looped)
    weights = torch.rand(4)
    (found,) = torch.autograd.grad((mapped * weights).sum(), cost)
    (expected,) = torch.autograd.grad((looped * weights).sum(), cost)
    torch.testing.assert_close(found, expected)


def within(count: int, size: int, seed: int = 0) -> torch.Tensor:
    drawn = torch.Generator().manual_seed(seed)
    tokens = torch.randn(count, size, 3, dtype=torch.float64, generator=drawn)
    return cosine_cost(tokens, tokens)


@pytest.mark.parametrize("epsilon", [0.1, 0.5])
@pytest.mark.parametrize(("n", "m"), [(3, 3), (4, 6)])
def test_gromovs_plan_is_pots(n, m, epsilon):
    first, other = within(2, n), within(2, m, seed=1)
    ours = gromov(first, other, epsilon, 5, 3000)
    for k in range(2):
        theirs = ot.gromov.entropic_gromov_wasserstein(
            first[k].numpy(),
            other[k].numpy(),
            even(n),
            even(m),
            "square_loss",
            epsilon=epsilon,
            symmetric=True,
            max_iter=5,
            tol=0,
            numItermax=3000,
            stopThr=1e-12,
            warn=False,
        )
        np.testing.assert_allclose(ours[k], theirs, atol=2e-6)


def test_gromovs_gradient_is_pots_and_that_of_its_steps():
    first, other = within(1, 3).requires_grad_(), within(1, 4, seed=1).requires_grad_()
    weights = costs(3, 4, seed=2)[0]
    plan = gromov(first, other, 0.5, 20, 200)[0]
    found = torch.autograd.grad((plan * weights).sum(), (first, other))
    theirs = ot.gromov.entropic_gromov_wasserstein(
        first[0],
        other[0],
        torch.from_numpy(even(3)),
        torch.from_numpy(even(4)),
        "square_loss",
        epsilon=0.5,
        symmetric=True,
        max_iter=20,
        tol=0,
        numItermax=200,
        stopThr=1e-14,
        warn=False,
    )
    expected = torch.autograd.grad((theirs * weights).sum(), (first, other))
    for ours, pots in zip(found, expected, strict=True):
        # A symmetric matrix has one gradient by each pair; how it lies on the two halves is moot.
        torch.testing.assert_close(ours + ours.mT, pots + pots.mT, atol=1e-6, rtol=0)

    def even_halves(x, y):
        return gromov((x + x.mT) / 2, (y + y.mT) / 2, 0.3, 3, 7)

    assert gradcheck(even_halves, (first, other))


def test_gromov_with_absent_tokens_is_that_of_the_others():
    first, other = within(1, 4), within(1, 5, seed=1)
    a = torch.tensor([[0.5, 0, 0.5, 0]], dtype=torch.float64)
    b = torch.tensor([[0, 1 / 3, 1 / 3, 1 / 3, 0]], dtype=torch.float64)
    plan = gromov(first, other, 0.2, 5, 30, a, b)
    here, there = [0, 2], [1, 2, 3]
    smaller = gromov(first[:, here][..., here], other[:, there][..., there], 0.2, 5, 30)
    torch.testing.assert_close(plan[0][here][:, there], smaller[0])
    assert float(plan.sum()) == pytest.approx(float(smaller.sum()))
    assert not gromov(first, other, 0.2, 5, 30, torch.zeros_like(a), b).any()


def test_gromov_does_not_know_how_tokens_are_turned():
    """It sees costs within each side alone: the plan of a set onto itself, turned, is as clear as
    onto itself."""
    drawn = torch.Generator().manual_seed(0)
    tokens = torch.randn(1, 5, 3, dtype=torch.float64, generator=drawn)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=drawn))
    cost = cosine_cost(tokens, tokens)
    turned = cosine_cost(tokens @ turn, tokens @ turn)
    torch.testing.assert_close(
        gromov(cost, turned, 0.05, 50, 200), gromov(cost, cost, 0.05, 50, 200)
    )


def test_the_cosine_cost_is_scipys():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 6)), rng.normal(size=(3, 6))
    found = cosine_cost(torch.from_numpy(x)[None], torch.from_numpy(y)[None])[0]
    np.testing.assert_allclose(found, cdist(x, y, "cosine"), atol=1e-6)


def test_zero_and_identical_tokens_have_finite_gradients():
    tokens = torch.zeros(1, 3, 4)
    tokens[0, 1:] = 1.0
    tokens.requires_grad_()
    cost = cosine_cost(tokens, tokens)
    plans = sinkhorn(cost, 0.1, 20), gromov(cost, cost, 0.1, 3, 20)
    sum(plan.square().sum() for plan in plans).backward()
    assert all(plan.isfinite().all() for plan in plans) and tokens.grad.isfinite().all()


def test_cut_by_hand():
    """The mean of the first three tokens' costs is 12 / 9; the fourth is absent."""
    cost = torch.tensor([[0, 1.0, 2, 9], [1, 0, 3, 9], [2, 3, 0, 9], [9, 9, 9, 0]])[None]
    present = torch.tensor([[True, True, True, False]])
    found = cut(cost, present)[0, :3, :3]
    above = torch.tensor([[0, 0, 2 / 3], [0, 0, 5 / 3], [2 / 3, 5 / 3, 0]])
    torch.testing.assert_close(found, above)
    assert cut(cost, torch.zeros_like(present)).isfinite().all()
