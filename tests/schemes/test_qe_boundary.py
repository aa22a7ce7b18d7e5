"""Where QE's paths jump, those of the truncated quadratic do not; and that scheme's moments, martingale and Greeks."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, MertonJumps, bates
from qsde.noise import Sobol
from qsde.payoffs import European
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.schemes import HestonQE, HestonTQ, Scheme, State, WithJumps

#: v0, kappa, theta, sigma, rho, dt
CASES = {
    "feller holds": (0.2, 1.5, 0.05, 0.4, -0.7, 0.1),
    "psi near 3/2": (0.04, 0.5, 0.04, 1.0, -0.9, 0.0602),
    "large psi": (0.01, 0.5, 0.04, 1.0, -0.9, 0.5),
    "from zero": (0.0, 1.0, 0.04, 0.3, 0.5, 0.25),
    "long step": (0.04, 2.0, 0.09, 0.8, -0.3, 5.0),
    "rho and sigma large": (0.04, 0.5, 0.04, 2.0, 0.9, 1.0),
    "no reversion": (0.04, 0.0, 0.0, 0.5, -0.5, 0.25),
    "fast reversion": (0.196, 15.66, 0.0746, 3.362, -0.51, 0.25),
}
Z = torch.linspace(-13, 13, 400_001, dtype=torch.float64)
DENSITY = torch.exp(-0.5 * Z * Z) * (Z[1] - Z[0]) / (2 * torch.pi) ** 0.5


def one_step(model: Heston, scheme: Scheme, dt: float, z: Tensor) -> State:
    """E[x'], v' and the variance of x' given v', from time 0 and x = 0."""
    averaged = scheme.conditional()
    assert averaged is not None
    c = averaged.coefficients(model, torch.tensor(dt, dtype=torch.float64)).unsqueeze(-1)
    return averaged.step(tuple(s.unsqueeze(-1) for s in averaged.initial(model)), c, z.unsqueeze(0), z[:0])


@pytest.mark.parametrize("case", CASES)
def test_two_moments_of_the_variance(case: str, exact_moments: Callable[..., tuple[float, float]]) -> None:
    """By quadrature over the normal: the mean exactly, the variance to 2e-4 of itself."""
    v0, kappa, theta, sigma, rho, dt = CASES[case]
    _, v, _ = one_step(Heston(v0, kappa, theta, sigma, rho), HestonTQ(), dt, Z)
    mean, variance = exact_moments(v0, kappa, theta, sigma, dt)
    assert float(v.min()) >= 0
    assert bool((v.diff() >= 0).all())
    assert float((v * DENSITY).sum()) == pytest.approx(mean, rel=1e-8)
    assert float(((v - mean) ** 2 * DENSITY).sum()) == pytest.approx(variance, rel=2e-4)


@pytest.mark.parametrize("case", CASES)
def test_the_martingale_is_exact(case: str) -> None:
    v0, kappa, theta, sigma, rho, dt = CASES[case]
    x, _, w = one_step(Heston(v0, kappa, theta, sigma, rho), HestonTQ(), dt, Z)
    assert float(w.min()) >= 0
    assert float((torch.exp(x + 0.5 * w) * DENSITY).sum()) == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("case", ["feller holds", "psi near 3/2", "large psi", "from zero", "fast reversion"])
def test_moments_of_the_integrated_variance(case: str, exact_moments: Callable[..., tuple[float, float]]) -> None:
    """E[I] exactly; its variance and that of v' give the regression, against the closed forms of the integral."""
    v0, kappa, theta, sigma, _, dt = CASES[case]
    _, v, w = one_step(Heston(v0, kappa, theta, sigma, 0.0), HestonTQ(), dt, Z)
    decay, y = math.exp(-kappa * dt), kappa * dt
    expected = theta * dt + (v0 - theta) * (1 - decay) / kappa
    spread = sigma**2 / kappa**3 * (v0 * (1 - 2 * y * decay - decay**2))
    spread += sigma**2 / (2 * kappa**3) * theta * (2 * y - 5 + 4 * decay * (y + 1) + decay**2)
    at_zero = theta * sigma**2 / (2 * kappa**2) * ((1 - decay**2) - 2 * y * decay)
    common = v0 * sigma**2 / kappa**2 * decay * (y - 1 + decay) + at_zero
    mean, variance = exact_moments(v0, kappa, theta, sigma, dt)
    residual = spread - common**2 / variance
    assert residual > 0
    got = float((w * DENSITY).sum())
    assert got == pytest.approx(expected + residual / 4, rel=1e-7)  # rho = 0: (kappa rho / sigma - 1 / 2)^2 = 1 / 4
    load = common / variance
    more = min(load + kappa * residual / (variance * (1 + kappa * load)), expected / mean)
    slope = (w[-1] - w[-2]) / (v[-1] - v[-2])
    assert float(slope) == pytest.approx(more, rel=1e-5)


def test_qe_jumps_at_the_switch_and_the_truncated_quadratic_does_not() -> None:
    """One normal, v0 through psi = 3/2 in steps of 1e-6: the largest change of v' between neighbours."""
    v0 = 0.04 + 1e-6 * torch.arange(-500, 501, dtype=torch.float64)
    model = Heston(v0, 0.5, 0.04, 1.0, -0.9)
    largest = {}
    for scheme in (HestonQE(), HestonTQ()):
        _, v, _ = one_step(model, scheme, 0.0619, torch.tensor([-0.3], dtype=torch.float64))
        largest[type(scheme)] = float(v.diff(dim=0).abs().max())
    assert largest[HestonQE] > 1e-3
    assert largest[HestonTQ] < 5e-6


def test_a_deterministic_variance_is_black_scholes(exact_moments: Callable[..., tuple[float, float]]) -> None:
    """Sigma = 0: v' is its mean, and x' has variance `E[I]`, rho included."""
    v0, kappa, theta, rho, dt = 0.09, 2.0, 0.03, -0.6, 0.5
    x, v, w = one_step(Heston(v0, kappa, theta, 0.0, rho), HestonTQ(), dt, Z)
    mean, _ = exact_moments(v0, kappa, theta, 0.0, dt)
    torch.testing.assert_close(v, torch.full_like(v, mean))
    assert float(w[0]) > 0
    total = float(((x * x) * DENSITY).sum() - (x * DENSITY).sum() ** 2 + (w * DENSITY).sum())
    expected = theta * dt + (v0 - theta) * (1 - math.exp(-kappa * dt)) / kappa
    assert total == pytest.approx(expected, rel=0.03)  # the regression keeps E[I] and Cov(x, v'), not Var(x) itself


def test_what_it_steps() -> None:
    with pytest.raises(InputError, match=r"HestonTQ steps a Heston, got BlackScholes; use Exact\(\)"):
        HestonTQ().check(BlackScholes(0.2))
    model = bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15)
    engine = MonteCarlo(1 << 14, 1 / 8, WithJumps(HestonTQ(), (MertonJumps,)), Sobol(1), compile="never")
    found = price(model, European(100.0, 1.0), Market(100.0), engine)
    one = torch.tensor(1.0, dtype=torch.float64)
    exact = price_european(model, 100.0, 1.0, 100 * one, one).value
    assert abs(float(found.value - exact)) < 4 * float(found.std_error) + 0.01


#: Andersen (2008) III and Broadie and Kaya (2006): v0, kappa, theta, sigma, rho.
GREEK_CASES = [(0.09, 1.0, 0.09, 1.0, -0.3), (0.010201, 6.21, 0.019, 0.61, -0.7)]


@pytest.mark.parametrize("parameters", GREEK_CASES, ids=["Andersen III", "Broadie-Kaya"])
def test_pathwise_greeks_agree_with_fourier(parameters: tuple[float, ...]) -> None:
    """To v0 and theta, at 24 steps a year, within 0.5 % and four standard errors."""
    leaves = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in parameters]
    one = torch.tensor(1.0, dtype=torch.float64)
    exact = torch.autograd.grad(price_european(Heston(*leaves), 100.0, 1.0, 100 * one, one).value, leaves)
    found = []
    for seed in range(8):
        engine = MonteCarlo(1 << 11, 1 / 24, HestonTQ(), Sobol(seed, scrambles=2), control_variate=False)
        value = price(Heston(*leaves), European(100.0, 1.0), Market(100.0), engine).value
        found.append(torch.stack(torch.autograd.grad(value, leaves)))
    greeks = torch.stack(found)
    for i in (0, 2):
        error = float(greeks[:, i].std()) / 8**0.5
        assert abs(float(greeks[:, i].mean() - exact[i])) < 4 * error + 0.005 * abs(float(exact[i]))
        assert 4 * error < 0.02 * abs(float(exact[i]))
