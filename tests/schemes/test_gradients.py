"""Gradients are finite everywhere, right where they are smooth, and alike in either precision."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qsde.models import BlackScholes, Heston, JumpDiffusion, KouJumps, MertonJumps, Model, bates, kou, merton
from qsde.schemes import (
    Exact,
    HestonNearExact,
    HestonQE,
    HestonTQ,
    LogEuler,
    Milstein,
    Scheme,
    State,
    WithJumps,
    scheme_for,
)

SCHEMES = [HestonQE(), HestonTQ(), HestonNearExact(), LogEuler(), Milstein()]
#: v0, kappa, theta, sigma, rho, and dt where it is not 1/8
HESTONS = {
    "feller holds": (0.04, 1.5, 0.05, 0.2, -0.7),
    "psi just below 3/2": (0.04, 0.5, 0.04, 1.0, -0.9, 0.0602),
    "psi just above 3/2": (0.04, 0.5, 0.04, 1.0, -0.9, 0.0636),
    "feller violated by a lot": (0.04, 0.1, 0.01, 3.0, -0.9),
    "v = 0": (0.0, 1.5, 0.05, 0.4, -0.7),
    "v = 0 for ever": (0.0, 1.5, 0.0, 0.4, -0.7),
    "no reversion": (0.04, 0.0, 0.05, 0.4, -0.7),
    "nothing at all": (0.0, 0.0, 0.0, 0.0, 0.0),
    "sigma = 0": (0.04, 1.5, 0.05, 0.0, -0.7),
    "sigma = 0 and v = 0": (0.0, 1.5, 0.05, 0.0, -0.7),
    "tiny sigma": (0.04, 1.5, 0.05, 1e-7, -0.7),
    "rho = 1": (0.04, 1.5, 0.05, 0.4, 1.0),
    "rho = -1": (0.04, 1.5, 0.05, 0.4, -1.0),
    "huge v": (1e6, 1.5, 0.05, 0.4, -0.7),
    "huge sigma": (0.04, 1.5, 0.05, 100.0, 0.9),
}
JUMPS: dict[str, Model] = {
    "no merton jumps": merton(0.2, 0.0, -0.1, 0.15),
    "merton jumps of size 0": merton(0.2, 1.0, 0.0, 0.0),
    "no kou jumps": kou(0.2, 0.0, 0.4, 10.0, 5.0),
    "kou jumps up only": kou(0.2, 2.0, 1.0, 10.0, 5.0),
    "kou jumps down only": kou(0.2, 2.0, 0.0, 10.0, 5.0),
    "bates from zero": bates(0.0, 0.5, 0.04, 1.0, -0.9, 0.3, -0.1, 0.15),
    "nested": JumpDiffusion(bates(0.04, 0.5, 0.04, 1.0, -0.9, 0.3, -0.1, 0.15), KouJumps(0.5, 0.4, 10.0, 5.0)),
    "no vol": BlackScholes(0.0),
}


def few_steps(model: Model, scheme: Scheme, dt: Tensor, dtype: torch.dtype, n_paths: int = 4096) -> State:
    n, m = scheme.draws(model, float(dt.detach()))
    generator = torch.Generator().manual_seed(5)
    c = scheme.coefficients(model, dt).unsqueeze(-1)
    state = tuple(s.unsqueeze(-1) for s in scheme.initial(model))
    for _ in range(4):
        normals = torch.randn(n, n_paths, dtype=torch.float64, generator=generator)
        uniforms = torch.rand(m, n_paths, dtype=torch.float64, generator=generator).clamp(1e-7, 1 - 1e-7)
        state = scheme.step(state, c, normals.to(dtype), uniforms.to(dtype))
    return state


def gradients(model: Model, scheme: Scheme, dt: float, dtype: torch.dtype) -> dict[str, Tensor]:
    leaves = {k: v.to(dtype).clone().requires_grad_() for k, v in model.params.items()}
    time = torch.tensor(dt, dtype=dtype, requires_grad=True)
    state = few_steps(model.with_params(leaves), scheme, time, dtype)
    assert state[0].dtype == dtype
    loss = torch.exp(state[0]).clamp(max=10).mean() + sum(s.mean() for s in state)
    found = torch.autograd.grad(loss, [*leaves.values(), time])
    return dict(zip([*leaves, "dt"], found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("case", HESTONS)
def test_heston_gradients_are_finite(case: str, scheme: Scheme, dtype: torch.dtype) -> None:
    model, dt = Heston(*HESTONS[case][:5]), (*HESTONS[case], 0.125)[5]
    for name, g in gradients(model, scheme, dt, dtype).items():
        assert torch.isfinite(g).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", JUMPS)
def test_jump_gradients_are_finite(case: str, dtype: torch.dtype) -> None:
    for name, g in gradients(JUMPS[case], scheme_for(JUMPS[case]), 0.25, dtype).items():
        assert torch.isfinite(g).all(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scheme", SCHEMES, ids=repr)
@pytest.mark.parametrize("dt", [0.0, 1e-12])
def test_steps_of_no_length(scheme: Scheme, dt: float, dtype: torch.dtype) -> None:
    model = Heston(0.04, 1.5, 0.05, 0.4, -0.7).map(lambda p: p.to(dtype))
    x, v = few_steps(model, scheme, torch.tensor(dt, dtype=dtype), dtype)
    of_x, of_v = (1e-4, 2e-4) if isinstance(scheme, HestonNearExact) else (1e-5, 1e-4)
    assert float(x.abs().max()) < of_x
    torch.testing.assert_close(v, torch.full_like(v, 0.04), rtol=of_v, atol=0)


SMOOTH: list[tuple[Model, Scheme]] = [
    (BlackScholes(0.2), Exact()),
    (Heston(0.09, 1.5, 0.09, 0.3, -0.7), HestonQE()),
    (Heston(0.09, 1.5, 0.09, 0.0, -0.7), HestonQE()),
    (Heston(0.09, 1.5, 0.09, 0.3, -0.7), LogEuler()),
    (Heston(0.09, 1.5, 0.09, 0.3, -0.7), Milstein()),
    (Heston(0.01, 0.5, 0.04, 1.0, -0.9), HestonQE()),
    (JumpDiffusion(BlackScholes(0.2), MertonJumps(0.8, -0.1, 0.15)), WithJumps(Exact())),
    (kou(0.2, 1.5, 0.4, 10.0, 5.0), scheme_for(kou(0.2, 1.5, 0.4, 10.0, 5.0))),
]


@pytest.mark.parametrize(("model", "scheme"), SMOOTH, ids=lambda p: p.name if isinstance(p, Model) else repr(p))
def test_gradient_is_the_slope_of_a_path(model: Model, scheme: Scheme) -> None:
    """One step, path by path, against central differences, on the paths whose branch does not change."""
    dt, h = torch.tensor(0.25, dtype=torch.float64), 1e-6
    n, m = scheme.draws(model, 0.25)
    generator = torch.Generator().manual_seed(3)
    normals = torch.randn(n, 64, dtype=torch.float64, generator=generator)
    uniforms = torch.rand(m, 64, dtype=torch.float64, generator=generator)

    def end(name: str, value: Tensor) -> Tensor:
        one = model.with_params({name: value})
        start = tuple(s.unsqueeze(-1) for s in scheme.initial(one))
        return torch.stack(scheme.step(start, scheme.coefficients(one, dt).unsqueeze(-1), normals, uniforms))

    for name, value in model.params.items():
        down = h if float(value) > 0 or name == "rho" else 0.0
        tangent = torch.func.jvp(lambda p, name=name: end(name, p), (value,), (torch.ones_like(value),))[1]
        slope = (end(name, value + h) - end(name, value - down)) / (h + down)
        torch.testing.assert_close(tangent, slope, rtol=1e-4, atol=2e-5)


def in_both_precisions(case: str, scheme: Scheme) -> list[tuple[Tensor, Tensor]]:
    model, dt = Heston(*HESTONS[case]), torch.tensor(0.125, dtype=torch.float64)
    double = few_steps(model, scheme, dt, torch.float64)
    single = few_steps(model.map(Tensor.float), scheme, dt, torch.float32)
    assert single[0].dtype == torch.float32
    return list(zip(single, double, strict=True))


@pytest.mark.parametrize("case", ["feller holds", "feller violated by a lot", "v = 0", "sigma = 0", "huge v"])
def test_single_precision_follows_double(case: str) -> None:
    for a, b in in_both_precisions(case, HestonQE()):
        off = (a.double() - b).abs() > 1e-4 * (b.abs() + 0.01 * b.abs().max())
        # where psi sits at the switch within rounding the two precisions may take different branches
        assert float(off.double().mean()) < 2e-3


WITHOUT_BRANCHES: list[tuple[str, Scheme, float]] = [
    *((case, HestonTQ(), 5e-3) for case in ("feller violated by a lot", "v = 0", "sigma = 0", "huge v")),
    *((case, HestonNearExact(), 1e-2) for case in ("feller violated by a lot", "v = 0", "huge v")),
]


@pytest.mark.parametrize(("case", "scheme", "most"), WITHOUT_BRANCHES)
def test_without_branches_single_precision_follows_double_on_every_path(case: str, scheme: Scheme, most: float) -> None:
    for a, b in in_both_precisions(case, scheme):
        assert float(((a.double() - b).abs() / (b.abs() + 0.01 * b.abs().max())).max()) < most


def test_the_atom_of_tq_is_at_zero_in_either_precision() -> None:
    """Rounding next to it would give variances of 1e-17, whose derivatives float32 cannot hold."""
    found = {}
    for dtype in (torch.float64, torch.float32):
        model = Heston(*HESTONS["no reversion"]).map(lambda p, dtype=dtype: p.to(dtype).requires_grad_())
        state = few_steps(model, HestonTQ(), torch.tensor(0.125, dtype=dtype), dtype)
        loss = torch.exp(state[0]).clamp(max=10).mean() + state[1].mean()
        slopes = torch.autograd.grad(loss, list(model.params.values()))
        found[dtype] = torch.stack(slopes).double(), (state[1] == 0).sum()
    assert int(found[torch.float32][1]) == int(found[torch.float64][1]) > 0
    torch.testing.assert_close(found[torch.float32][0], found[torch.float64][0], rtol=1e-3, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(
    v0=st.floats(0, 1),
    kappa=st.floats(0, 20),
    theta=st.floats(0, 1),
    sigma=st.floats(0, 5),
    rho=st.floats(-1, 1),
    dt=st.floats(1e-4, 2),
)
def test_nearly_exact_gradients_are_finite_everywhere(
    v0: float, kappa: float, theta: float, sigma: float, rho: float, dt: float
) -> None:
    model = Heston(v0, kappa, theta, sigma, rho)
    for name, g in gradients(model, HestonNearExact(), dt, torch.float64).items():
        assert torch.isfinite(g).all(), name


def test_nearly_exact_batches_are_models_side_by_side() -> None:
    sets = [(0.0225, 2.0, 0.0225, 0.25, -0.5), (0.09, 1.0, 0.09, 1.0, -0.3)]
    dt = torch.tensor(0.25, dtype=torch.float64)
    batch = Heston(*(torch.tensor(column, dtype=torch.float64) for column in zip(*sets, strict=True)))
    together = few_steps(batch, HestonNearExact(), dt, torch.float64)
    for i, one in enumerate(sets):
        for both, alone in zip(together, few_steps(Heston(*one), HestonNearExact(), dt, torch.float64), strict=True):
            torch.testing.assert_close(both[i], alone)
