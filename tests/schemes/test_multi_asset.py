"""Schemes side by side: each underlying steps as it would alone, and together they have the right correlations."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.models import BlackScholes, Heston, Model, MultiAsset
from qsde.schemes import Correlated, Exact, HestonQE, LogEuler, Milstein, Scheme, State, scheme_for

FIRST = Heston(0.04, 1.5, 0.06, 0.5, -0.7)
SECOND = Heston(0.09, 1.0, 0.05, 1.0, 0.4)
FLAT = BlackScholes(0.2)
THREE = [[1.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 1.0]]
MIXED = MultiAsset([FIRST, FLAT, SECOND], THREE)
#: variances that move together more than their prices make them
FULL = MultiAsset(
    [FIRST, SECOND],
    [[1.0, 0.5, -0.7, 0.1], [0.5, 1.0, -0.2, 0.4], [-0.7, -0.2, 1.0, 0.6], [0.1, 0.4, 0.6, 1.0]],
)
DT = torch.tensor(0.25, dtype=torch.float64)


def draws(scheme: Scheme, model: Model, n_paths: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    shape = scheme.draws(model, 0.25)[0], n_paths
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def start(scheme: Scheme, model: Model) -> State:
    return tuple(s.unsqueeze(-1) for s in scheme.initial(model))


def test_defaults_and_repr() -> None:
    scheme = scheme_for(MIXED)
    assert scheme == Correlated((HestonQE(), Exact(), HestonQE()), (Heston, BlackScholes, Heston))
    assert not scheme.exact
    assert scheme_for(MultiAsset([FLAT, FLAT], [[1.0, 0.5], [0.5, 1.0]])).exact
    assert scheme.draws(MIXED, 0.1) == (5, 0)


def test_refusals() -> None:
    scheme = scheme_for(FULL)
    for model in (MIXED, FIRST):
        with pytest.raises(InputError, match="MultiAsset of exactly these models, got"):
            scheme.check(model)
    with pytest.raises(InputError, match=r"HestonQE steps a Heston, got MultiAsset.*use Correlated\("):
        HestonQE().check(FULL)
    with pytest.raises(InputError, match="Exact steps a BlackScholes, got Heston"):
        Correlated((HestonQE(), Exact()), (Heston, Heston))
    with pytest.raises(InputError, match="1 schemes for 2 models"):
        Correlated((HestonQE(),), (Heston, Heston))
    averaged = HestonQE().conditional()
    assert averaged is not None
    with pytest.raises(InputError, match="leaves out noise"):
        Correlated((averaged, Exact()), (Heston, BlackScholes))
    state = start(scheme, FULL)
    with pytest.raises(InputError, match="cannot be watched"):
        scheme.variance(FULL, state, state, DT, DT)


@pytest.mark.parametrize("qe", [HestonQE(), LogEuler(), Milstein()], ids=lambda s: type(s).__name__)
def test_without_correlation_each_is_stepped_as_alone(qe: Scheme) -> None:
    model = MultiAsset([FIRST, FLAT, SECOND], torch.eye(3, dtype=torch.float64))
    scheme = Correlated((qe, Exact(), qe), (Heston, BlackScholes, Heston))
    z = draws(scheme, model, 500)
    c = scheme.coefficients(model, DT).unsqueeze(-1)
    state = start(scheme, model)
    for _ in range(3):
        state = scheme.step(state, c, z, z[:0])
    x1, x2, x3, v1, v3 = state
    for one, own, columns, want in (
        (FIRST, qe, z[:2], (x1, v1)), (FLAT, Exact(), z[2:3], (x2,)), (SECOND, qe, z[3:], (x3, v3)),
    ):  # fmt: skip
        alone = start(own, one)
        for _ in range(3):
            alone = own.step(alone, own.coefficients(one, DT).unsqueeze(-1), columns, z[:0])
        torch.testing.assert_close(tuple(alone), tuple(want), rtol=1e-12, atol=1e-14)


def factor(model: MultiAsset) -> Tensor:
    scheme = scheme_for(model)
    size = scheme.draws(model, 0.1)[0]
    entries = scheme.coefficients(model, DT)[: size * (size + 1) // 2]
    lower = torch.zeros(size, size, dtype=torch.float64)
    lower[tuple(torch.tril_indices(size, size))] = entries
    return lower


@pytest.mark.parametrize("model", [MIXED, FULL], ids=["prices", "full"])
def test_normals_have_the_correlations_of_the_model(model: MultiAsset) -> None:
    """`W_i = rho_i B_i + sqrt(1 - rho_i^2) P_i` gives the full matrix back; normals of one Heston are independent."""
    lower = factor(model)
    correlation = lower @ lower.mT
    n, labels = model.assets, []
    for i, one in enumerate(model.models):
        labels += [("P", i), ("B", i)] if isinstance(one, Heston) else [("W", i)]
    back = torch.zeros(n + len(model.variances), len(labels), dtype=torch.float64)
    for column, (kind, i) in enumerate(labels):
        rho = float(model.models[i].params["rho"]) if kind != "W" else 0.0
        back[i, column] = {"P": (1 - rho * rho) ** 0.5, "B": rho, "W": 1.0}[kind]
        if kind == "B":
            back[n + model.variances.index(i), column] = 1.0
            assert abs(float(correlation[column, column - 1])) < 1e-15
    torch.testing.assert_close(back @ correlation @ back.mT, model.full_correlation, atol=1e-14, rtol=0)
    torch.testing.assert_close(correlation.diagonal(), torch.ones(len(labels), dtype=torch.float64))


@pytest.mark.parametrize("model", [MIXED, FULL], ids=["prices", "full"])
def test_increments_have_the_correlations_of_the_model(model: MultiAsset) -> None:
    """Over a short step, from 200 000 draws: the error of a sample correlation is at most 1/sqrt(n)."""
    scheme, n = scheme_for(model), 200_000
    before = start(scheme, model)
    c = scheme.coefficients(model, torch.tensor(1e-4, dtype=torch.float64)).unsqueeze(-1)
    z = draws(scheme, model, n)
    after = scheme.step(before, c, z, z[:0])
    moves = torch.stack([(b - a).expand(n) for a, b in zip(before, after, strict=True)])
    torch.testing.assert_close(torch.corrcoef(moves), model.full_correlation, atol=4 / n**0.5 + 1e-3, rtol=0)


@pytest.mark.parametrize("dt", [1 / 12, 1.0, 3.0])
@pytest.mark.parametrize("model", [MIXED, FULL], ids=["prices", "full"])
def test_every_price_is_a_martingale(
    model: MultiAsset, dt: float, simulate: Callable, mean_and_error: Callable
) -> None:
    state = simulate(model, scheme_for(model), 2 * dt, 2, 100_000, seed=3)
    for x in state[: model.assets]:
        mean, error = mean_and_error(torch.exp(x))
        assert abs(mean - 1) < 4 * error


@pytest.mark.parametrize("rho", [1.0, -1.0])
def test_perfect_correlation(rho: float) -> None:
    model = MultiAsset([FLAT, BlackScholes(0.4)], [[1.0, rho], [rho, 1.0]])
    scheme = scheme_for(model)
    z = draws(scheme, model, 100)
    x, y = scheme.step(start(scheme, model), scheme.coefficients(model, DT).unsqueeze(-1), z, z[:0])
    torch.testing.assert_close(y + 0.08 * 0.25, 2 * rho * (x + 0.02 * 0.25))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches_step_as_each_alone(dtype: torch.dtype) -> None:
    rho = torch.tensor([[-0.3], [0.2], [1.0]], dtype=torch.float64)
    one = torch.ones_like(rho)
    matrices = torch.stack([torch.stack([one, rho], -1), torch.stack([rho, one], -1)], -2)
    model = MultiAsset([Heston(0.04, 1.0, 0.04, 0.5, [-0.5, 0.1]), FLAT], matrices).map(lambda p: p.to(dtype))  # type: ignore[arg-type]
    scheme = scheme_for(model)
    z = draws(scheme, model, 50, dtype=dtype)

    def stepped(m: Model) -> Tensor:
        c = scheme.coefficients(m, DT)
        assert c.dtype == dtype
        assert c.shape[1:] == m.batch_shape
        after = scheme.step(start(scheme, m), c.unsqueeze(-1), tuple(z), z[:0])  # type: ignore[arg-type]
        return torch.stack([s.expand(*m.batch_shape, 50) for s in after])

    together, alone = stepped(model), stepped(model.map(lambda p: p.expand(3, 2)[1, 1]))
    assert together.shape == (3, 3, 2, 50)
    torch.testing.assert_close(together[:, 1, 1], alone)
    rows = scheme.coefficients(model, torch.tensor([0.1, 0.25], dtype=torch.float64).view(2, 1, 1))
    torch.testing.assert_close(rows[:, 1], scheme.coefficients(model, DT))


EDGES = {
    "perfect": ([FLAT, FLAT], [[1.0, 1.0], [1.0, 1.0]]),
    "opposite": ([FIRST, FLAT], [[1.0, -1.0], [-1.0, 1.0]]),
    "rho = 1": ([Heston(0.04, 1.0, 0.04, 0.5, 1.0), SECOND], [[1.0, 0.5], [0.5, 1.0]]),
    "both rho = -1": ([Heston(0.04, 1.0, 0.04, 0.5, -1.0)] * 2, [[1.0, 1.0], [1.0, 1.0]]),
    "no variance": ([Heston(0.0, 1.0, 0.0, 0.0, -0.5), BlackScholes(0.0)], [[1.0, 0.5], [0.5, 1.0]]),
}


@pytest.mark.parametrize("case", EDGES)
def test_gradients_are_finite(case: str) -> None:
    model = MultiAsset(*EDGES[case])  # type: ignore[arg-type]
    leaves = {k: v.clone().requires_grad_() for k, v in model.params.items()}
    moved = model.with_params(leaves)
    scheme = scheme_for(model)
    z = draws(scheme, model, 1000)
    state = start(scheme, moved)
    for _ in range(3):
        state = scheme.step(state, scheme.coefficients(moved, DT).unsqueeze(-1), z, z[:0])
    assert all(torch.isfinite(s).all() for s in state)
    loss = torch.stack([torch.exp(s).mean() for s in state]).sum()
    for name, slope in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
        assert torch.isfinite(slope).all(), name


def test_gradients_to_every_parameter_and_correlation() -> None:
    """Against central differences, on paths that stay on one side of the switch of QE."""
    calm = Heston(0.09, 1.0, 0.09, 0.2, -0.5)
    model = MultiAsset([calm, FLAT, calm], THREE)
    model = MultiAsset(model.models, model.full_correlation)
    scheme = scheme_for(model)
    z = draws(scheme, model, 20)
    names = list(model.params)

    def moved(*values: Tensor) -> Tensor:
        new = model.with_params(dict(zip(names, values, strict=True)))
        state = start(scheme, new)
        for _ in range(2):
            state = scheme.step(state, scheme.coefficients(new, DT).unsqueeze(-1), z, z[:0])
        return torch.stack([torch.exp(s).sum() for s in state])

    inputs = tuple(v.detach().clone().requires_grad_() for v in model.params.values())
    assert torch.autograd.gradcheck(moved, inputs, atol=1e-6)
    assert torch.autograd.gradcheck(moved, inputs, atol=1e-6, check_forward_ad=True, check_backward_ad=False)


@pytest.mark.slow  # the compiler takes several seconds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_compiled_is_eager(dtype: torch.dtype) -> None:
    torch._dynamo.reset()
    scheme = scheme_for(MIXED)
    z = draws(scheme, MIXED, 4096, dtype=dtype)
    c = scheme.coefficients(MIXED, DT).unsqueeze(-1).to(dtype)
    state = tuple(s.to(dtype).expand(4096).clone() for s in scheme.initial(MIXED))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's own
        got = torch.compile(scheme.step, dynamic=False, fullgraph=True)(state, c, z, z[:0])
    tolerance = 2e-5 if dtype == torch.float32 else 1e-12
    for a, b in zip(got, scheme.step(state, c, z, z[:0]), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)
