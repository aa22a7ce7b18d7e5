"""The transition transform: agreement with `log_cf`, Chapman-Kolmogorov, closed forms and the Riccati equation."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from torch import Tensor

from qsde.errors import InputError
from qsde.models import (
    SDE,
    BlackScholes,
    FourierModel,
    Heston,
    JumpDiffusion,
    KouJumps,
    MertonJumps,
    bates,
    kou,
    merton,
)
from qsde.models.affine import Affine, affine, log_moment, moment_exists

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.06, sigma=0.5, rho=-0.7)
MODELS = [
    BlackScholes(0.2),
    HESTON,
    Heston(v0=0.01, kappa=0.2, theta=0.02, sigma=1.5, rho=-0.95),
    Heston(v0=0.04, kappa=0.3, theta=0.04, sigma=1.2, rho=0.9),
    merton(0.1, 0.5, -0.1, 0.2),
    kou(0.16, 1.0, 0.4, 10.0, 5.0),
    bates(0.02, 1.5, 0.03, 0.4, -0.7, 0.1, -0.3, 0.25),
    JumpDiffusion(HESTON, KouJumps(0.5, 0.3, 20.0, 6.0)),
    JumpDiffusion(bates(0.02, 1.5, 0.03, 0.4, -0.7, 0.1, -0.3, 0.25), MertonJumps(1.0, 0.0, 0.02)),
]
each = pytest.mark.parametrize("model", MODELS, ids=[f"{i}-{m.name}" for i, m in enumerate(MODELS)])
#: `u` on the line of Lewis, from the centre to where the function has died.
U = torch.complex(torch.linspace(-300.0, 300.0, 121, dtype=torch.float64), torch.tensor(-0.5, dtype=torch.float64))


def real(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def cx(x: complex) -> Tensor:
    return torch.tensor(x, dtype=torch.complex128)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-13) -> None:
    """Agreement relative to the size, or absolute below 1."""
    gap = (found - expected).abs() / expected.abs().clamp(min=1.0)
    assert float(gap.max()) <= tolerance


def whole(model: Affine, u: Tensor, t: Tensor) -> Tensor:
    a, b = model.transition(u, torch.zeros_like(u), t)
    return a + b * model.initial_variance


@each
@pytest.mark.parametrize("t", [1 / 365, 0.25, 1.0, 10.0])
def test_from_no_end_value_it_is_log_cf(model: FourierModel, t: float) -> None:
    close(whole(affine(model), U, real(t)), model.log_cf(U, real(t)))


def number(low: float, high: float) -> st.SearchStrategy[float]:
    """A number of at most nine decimals: torch's complex functions give NaN at subnormal ones."""
    return st.floats(low, high).map(lambda x: round(x, 9))


HESTONS = st.builds(
    Heston, v0=number(0, 2), kappa=number(0, 30), theta=number(0, 2), sigma=number(0, 6), rho=number(-1, 1)
)
LAWS = st.one_of(
    st.builds(MertonJumps, intensity=number(0, 10), mean=number(-1, 0.5), std=number(0.01, 0.8)),
    st.builds(KouJumps, intensity=number(0, 10), p_up=number(0, 1), eta_up=number(1.2, 80), eta_down=number(0.5, 80)),
)
ANY = st.one_of(HESTONS, st.builds(JumpDiffusion, HESTONS, LAWS), st.builds(BlackScholes, number(0, 3)))


@settings(max_examples=150, deadline=None)
@given(model=ANY, t=number(1e-3, 20))
def test_from_no_end_value_it_is_log_cf_everywhere(model: FourierModel, t: float) -> None:
    close(whole(affine(model), U, real(t)), model.log_cf(U, real(t)), 1e-10)


@settings(max_examples=150, deadline=None)
@given(model=ANY, t=number(1e-3, 10), share=number(0.02, 0.98), weight=number(0, 1), scale=number(0, 1))
def test_two_steps_are_one(model: FourierModel, t: float, share: float, weight: float, scale: float) -> None:
    """Chapman-Kolmogorov, from an end value that an earlier step with other weights left. A wrong branch shows."""
    m, z = affine(model), 1j * U
    _, b = m.transition(-1j * (weight * (1 - scale) + scale * z), torch.zeros_like(z), real(1.0))
    a, whole_b = m.transition(U, b, real(t))
    later_a, later_b = m.transition(U, b, real(t * (1 - share)))
    first_a, first_b = m.transition(U, later_b, real(t * share))
    alive = torch.isfinite(whole_b.abs()) & torch.isfinite(a.abs())
    close((first_a + later_a)[alive], a[alive], 1e-9)
    close(first_b[alive], whole_b[alive], 1e-9)


def test_at_zero_it_is_the_transform_of_the_cir_variance() -> None:
    """`E exp(b v_t)` in the form of Cox, Ingersoll and Ross (1985)."""
    m, t = HESTON, real(0.8)
    b = torch.tensor([-30.0, -1.0, 0.5, 2.0 + 3.0j], dtype=torch.complex128)
    lost = 1 - b * m.sigma**2 * (1 - torch.exp(-m.kappa * t)) / (2 * m.kappa)
    a, next_b = m.transition(cx(0.0), b, t)
    close(a, -2 * m.kappa * m.theta / m.sigma**2 * torch.log(lost))
    close(next_b, b * torch.exp(-m.kappa * t) / lost)


@pytest.mark.parametrize("model", MODELS[1:4])
@pytest.mark.parametrize("z", [0.5 + 2j, 0.5 + 40j, 1.0 + 0j, 0j, 0.3 - 5j])
@pytest.mark.parametrize("b", [-2.0 + 0j, -0.3 + 4j])
def test_it_solves_the_riccati_equation(model: Heston, z: complex, b: complex) -> None:
    kappa, theta, sigma, rho = (float(model.params[name]) for name in ("kappa", "theta", "sigma", "rho"))

    def slope(_: float, y: list[complex]) -> list[complex]:
        return [kappa * theta * y[1], (z * z - z) / 2 + (rho * sigma * z - kappa) * y[1] + sigma**2 / 2 * y[1] ** 2]

    expected = solve_ivp(slope, (0.0, 1.5), [0j, b], method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    found = model.transition(cx(-1j * z), cx(b), real(1.5))
    close(torch.stack(found), torch.from_numpy(expected), 1e-9)


def test_at_no_volatility_of_variance_it_is_the_deterministic_variance() -> None:
    m = Heston(v0=0.09, kappa=2.0, theta=0.04, sigma=0.0, rho=-0.5)
    t, b = real(0.7), cx(-1.0 + 2j)
    a, next_b = m.transition(U, b, t)
    close(next_b, b * math.exp(-1.4) - (U * U + 1j * U) / 2 * (1 - math.exp(-1.4)) / 2)
    later = m.theta + (m.v0 - m.theta) * math.exp(-1.4)
    close(a + next_b * m.v0, m.log_cf(U, t) + b * later)
    tiny = Heston(v0=0.09, kappa=2.0, theta=0.04, sigma=1e-9, rho=-0.5)
    close(torch.stack(tiny.transition(U, b, t)), torch.stack((a, next_b)), 1e-6)


@each
def test_increments_are_martingales(model: FourierModel) -> None:
    """The joint transform at exponents 1 is 1, and an increment of exponent 0 or 1 at the end can be left out."""
    m, steps = affine(model), [0.3, 0.5, 1.0]
    one, z = cx(1.0), 1j * U
    assert abs(complex(log_moment(m, torch.stack([one, one, one]), steps))) < 1e-14
    for last in (0 * one, one):
        whole = log_moment(m, torch.stack([z, z, last.expand_as(z)]), steps)
        close(whole, log_moment(m, torch.stack([z, z]), steps[:2]), 1e-12)
    close(log_moment(m, torch.stack([z, z, z]), steps), model.log_cf(U, real(1.8)), 1e-12)


@each
def test_moments_exist_in_the_strip_of_the_model(model: FourierModel) -> None:
    t = real(2.0)
    lower, upper = (x.clamp(-1e6, 1e6) for x in model.moment_range(t))
    m, none = affine(model), real(0.0)
    for edge, inside in ((lower, 0.999), (upper, 0.999)):
        p = 0.5 + (edge - 0.5) * inside
        assert bool(m.transition_exists(p, none, t))
        if abs(float(edge)) < 1e6:
            assert not bool(m.transition_exists(0.5 + (edge - 0.5) * 1.001, none, t))


def test_moments_of_the_variance_exist_up_to_their_explosion() -> None:
    """`E exp(b v_t)` is finite below `2 kappa / (sigma^2 (1 - exp(-kappa t)))`."""
    t = real(0.8)
    limit = 2 * HESTON.kappa / (HESTON.sigma**2 * (1 - torch.exp(-HESTON.kappa * t)))
    assert bool(HESTON.transition_exists(real(0.0), 0.9999 * limit, t))
    assert not bool(HESTON.transition_exists(real(0.0), 1.0001 * limit, t))


def test_joint_moments_explode_no_sooner_than_two_steps_together() -> None:
    p = torch.linspace(-40, 40, 801, dtype=torch.float64)
    together = HESTON.transition_exists(p, torch.zeros_like(p), real(2.0))
    assert torch.equal(moment_exists(HESTON, torch.stack([p, p]), [0.7, 1.3]), together)
    assert 0 < int(together.sum()) < 801


@pytest.mark.parametrize("z", [0j, 1.0 + 0j, 0.5 + 1j])
@pytest.mark.parametrize(
    "edge", [{}, {"v0": 0.0}, {"kappa": 0.0}, {"theta": 0.0}, {"sigma": 0.0}, {"rho": 1.0}, {"rho": -1.0},
             {"kappa": 0.0, "sigma": 0.0}, {"kappa": 0.1, "rho": 0.9, "sigma": 2.0}],
)  # fmt: skip
def test_gradients_are_finite_at_the_edges(edge: dict[str, float], z: complex) -> None:
    params = {k: real(edge.get(k, float(v))).requires_grad_() for k, v in HESTON.params.items()}
    b = cx(-0.4 + 0j).requires_grad_()
    model = HESTON.with_params(params)
    a, next_b = model.transition(cx(-1j * z), b, real(0.5))
    gradient = torch.autograd.grad((a + next_b * model.v0).real, [*params.values(), b])
    assert all(torch.isfinite(g).all() for g in gradient)


@pytest.mark.parametrize("model", MODELS[1:4])
@pytest.mark.parametrize("z", [1.0 + 0j, 0.5 + 3j])
def test_gradients_equal_bumps(model: Heston, z: complex) -> None:
    def value(**params: Tensor) -> Tensor:
        m = model.with_params(params)
        a, b = m.transition(cx(-1j * z), cx(-0.4 + 0.1j), real(0.5))
        return (a + b * m.v0).real

    params = {k: v.clone().requires_grad_() for k, v in model.params.items()}
    gradient = dict(zip(params, torch.autograd.grad(value(**params), list(params.values())), strict=True))
    for name, x in model.params.items():
        up, down = (value(**{**model.params, name: x + h}) for h in (1e-6, -1e-6))
        assert float(gradient[name]) == pytest.approx(float(up - down) / 2e-6, rel=1e-6, abs=1e-8), name


def test_models_without_a_transition_are_refused() -> None:
    bachelier = SDE(
        drift=lambda t, y, p: torch.zeros_like(y),
        diffusion=lambda t, y, p: p["vol"] * torch.ones_like(y),
        initial=[0.0],
        parameters={"vol": 0.2},
    )
    with pytest.raises(InputError, match="SDE has no transition transform"):
        affine(bachelier)
    with pytest.raises(InputError, match="SDE has no transition transform"):
        affine(JumpDiffusion(bachelier, MertonJumps(1.0, 0.0, 0.1))).transition(U, U, real(1.0))
