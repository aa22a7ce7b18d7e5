"""The nearly exact scheme of Heston: moments, martingale, corners; prices and Greeks of few steps against Fourier."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from qsde.errors import InputError
from qsde.market.underlying import Market
from qsde.models import BlackScholes, Heston, MertonJumps, Model, bates
from qsde.noise import Sobol
from qsde.payoffs import European
from qsde.pricing.fourier import price_european
from qsde.pricing.montecarlo import MonteCarlo, price
from qsde.pricing.simulation import Simulation
from qsde.schemes import HestonNearExact, State, WithJumps

JUMPS = WithJumps(HestonNearExact(), (MertonJumps,))
NAMES = ("v0", "kappa", "theta", "sigma", "rho")
#: v0, kappa, theta, sigma, rho, dt
CASES = {
    "Feller holds": (0.09, 4.0, 0.09, 0.4, -0.7, 0.25),
    "BENCHOP": (0.0225, 2.0, 0.0225, 0.25, -0.5, 1 / 12),
    "Broadie-Kaya": (0.010201, 6.21, 0.019, 0.61, -0.7, 0.25),
    "Andersen III": (0.09, 1.0, 0.09, 1.0, -0.3, 0.25),
    "Andersen II": (0.04, 0.3, 0.04, 0.9, -0.5, 1 / 12),
    "rho > 0": (0.04, 1.5, 0.05, 0.4, 0.7, 0.25),
    "weekly": (0.04, 0.5, 0.04, 1.0, -0.9, 1 / 52),
    "no reversion": (0.04, 0.0, 0.04, 0.4, -0.7, 0.25),
}
_AXIS = torch.linspace(-8, 8, 321, dtype=torch.float64)
_LAW = torch.exp(-0.5 * _AXIS.square())
_LAW = _LAW / _LAW.sum()
#: The normals of the immigration and of the branching on a square, and their probabilities.
Z_G, Z_B = (g.flatten() for g in torch.meshgrid(_AXIS, _AXIS, indexing="ij"))
WEIGHT = torch.outer(_LAW, _LAW).flatten()
_SHORT = torch.linspace(-5, 5, 11, dtype=torch.float64)
Z_I, SHARE = _SHORT, torch.exp(-0.5 * _SHORT.square()) / torch.exp(-0.5 * _SHORT.square()).sum()


def one_step(parameters: tuple[float, ...], dt: float, z_i: float) -> State:
    """E[x'], v' and the variance of x' given v' and I, over the square of normals."""
    scheme, model = HestonNearExact().conditional(), Heston(*parameters)
    c = scheme.coefficients(model, torch.tensor(dt, dtype=torch.float64)).unsqueeze(-1)
    start = tuple(s.unsqueeze(-1) for s in scheme.initial(model))
    return scheme.step(start, c, torch.stack([torch.full_like(Z_G, z_i), Z_G, Z_B]), Z_G[:0])


@pytest.mark.parametrize("case", CASES)
def test_three_moments_of_the_variance(case: str) -> None:
    """Those of a noncentral chi-squared law (Cox, Ingersoll and Ross 1985)."""
    v0, kappa, theta, sigma, _, dt = CASES[case]
    v = one_step(CASES[case][:5], dt, 0.0)[1]
    span = (1 - math.exp(-kappa * dt)) / kappa if kappa else dt
    scale, delta = sigma**2 * span / 4, 4 * kappa * theta / sigma**2
    lam = v0 * math.exp(-kappa * dt) / scale
    mean = float((v * WEIGHT).sum())
    assert float(v.min()) >= 0
    assert mean == pytest.approx(scale * (delta + lam), rel=1e-4)  # kinks, on a grid
    assert float(((v - mean) ** 2 * WEIGHT).sum()) == pytest.approx(scale**2 * 2 * (delta + 2 * lam), rel=5e-4)
    assert float(((v - mean) ** 3 * WEIGHT).sum()) == pytest.approx(scale**3 * 8 * (delta + 3 * lam), rel=3e-3)


@pytest.mark.parametrize("case", ["BENCHOP", "Broadie-Kaya", "Andersen III"])
def test_moments_of_the_integral(case: str) -> None:
    """E[I], Var(I) and Cov(I, v') over both ends, against the closed forms of the square-root process."""
    v0, kappa, theta, sigma, _, dt = CASES[case]
    first = second = cross = 0.0
    for z, share in zip(Z_I.tolist(), SHARE.tolist(), strict=True):
        _, v, w = one_step((v0, kappa, theta, sigma, 0.0), dt, z)  # rho = 0: w = I
        first += share * float((w * WEIGHT).sum())
        second += share * float((w * w * WEIGHT).sum())
        cross += share * float((w * v * WEIGHT).sum())
    decay, y = math.exp(-kappa * dt), kappa * dt
    expected = theta * dt + (v0 - theta) * (1 - decay) / kappa
    spread = sigma**2 / kappa**3 * v0 * (1 - 2 * y * decay - decay**2)
    spread += sigma**2 / (2 * kappa**3) * theta * (2 * y - 5 + 4 * decay * (y + 1) + decay**2)
    common = v0 * sigma**2 / kappa**2 * decay * (y - 1 + decay)
    common += theta * sigma**2 / (2 * kappa**2) * (1 - decay**2 - 2 * y * decay)
    mean = theta + (v0 - theta) * decay
    assert first == pytest.approx(expected, rel=5e-4)
    assert second - first**2 == pytest.approx(spread, rel=5e-3)
    assert cross - first * mean == pytest.approx(common, rel=5e-3)


@pytest.mark.parametrize("case", ["Feller holds", "Broadie-Kaya", "Andersen II", "rho > 0", "weekly"])
def test_the_martingale_is_missed_by_little(case: str) -> None:
    total = 0.0
    for z, share in zip(Z_I.tolist(), SHARE.tolist(), strict=True):
        x, _, w = one_step(CASES[case][:5], CASES[case][5], z)
        total += share * float((torch.exp(x + 0.5 * w) * WEIGHT).sum())
    assert total == pytest.approx(1.0, abs=5e-5)


@pytest.mark.parametrize("v", [0.0, 1e-4, 1e-3, 0.01, 0.04])
@pytest.mark.parametrize("case", ["BENCHOP", "Broadie-Kaya"])
def test_derivatives_are_those_of_the_law(case: str, v: float) -> None:
    """First and second to v, of `E[exp(-q v')] = exp(-B v) / (1 + 2 q c)^(delta / 2)`."""
    _, kappa, theta, sigma, _, dt = CASES[case]
    decay, scale = math.exp(-kappa * dt), sigma**2 * (1 - math.exp(-kappa * dt)) / (4 * kappa)
    q = 0.5 / theta
    load = q * decay / (1 + 2 * q * scale)  # B
    value = math.exp(-load * v) * (1 + 2 * q * scale) ** (-2 * kappa * theta / sigma**2)

    scheme, zero = HestonNearExact().conditional(), torch.zeros(1, dtype=torch.float64)
    c = scheme.coefficients(Heston(*CASES[case][:5]), torch.tensor(dt, dtype=torch.float64)).unsqueeze(-1)
    start = torch.tensor([v], dtype=torch.float64, requires_grad=True)
    after = scheme.step((zero, start, zero), c, torch.stack([torch.zeros_like(Z_G), Z_G, Z_B]), Z_G[:0])[1]
    (first,) = torch.autograd.grad((torch.exp(-q * after) * WEIGHT).sum(), start, create_graph=True)
    (second,) = torch.autograd.grad(first, start)
    assert first.item() == pytest.approx(-load * value, rel=5e-3)
    assert second.item() == pytest.approx(load**2 * value, rel=0.02)


def test_long_steps_are_divided() -> None:
    """A fit to DAX takes eight steps where four were asked for; a batch as many as the neediest of it."""
    engine, dax = MonteCarlo(64, 0.25, HestonNearExact()), (0.195662, 15.6627, 0.0745912, 3.361918, -0.511492)
    assert len(Simulation.of(Heston(*dax), [1.0], engine).job.grid.step_size) == 8
    mild = Heston(*CASES["BENCHOP"][:5])
    assert len(Simulation.of(mild, [1.0], engine).job.grid.step_size) == 4
    jumping = Simulation.of(bates(*dax, 0.3, -0.1, 0.15), [1.0], replace(engine, scheme=JUMPS))
    assert len(jumping.job.grid.step_size) == 8
    both = Heston(*(torch.tensor(pair) for pair in zip(dax, CASES["BENCHOP"][:5], strict=True)))
    assert len(Simulation.of(both, [1.0], engine).job.grid.step_size) == 8


def test_a_deterministic_variance_is_black_scholes() -> None:
    """Sigma = 0: I is its mean, to the 1e-4 that sigma counts as."""
    v0, kappa, theta, dt = 0.09, 2.0, 0.03, 0.5
    _, v, w = one_step((v0, kappa, theta, 0.0, 0.0), dt, 1.0)
    torch.testing.assert_close(v, torch.full_like(v, theta + (v0 - theta) * math.exp(-kappa * dt)), rtol=3e-3, atol=0)
    expected = theta * dt + (v0 - theta) * (1 - math.exp(-kappa * dt)) / kappa
    torch.testing.assert_close(w, torch.full_like(w, expected), rtol=3e-3, atol=0)


@pytest.mark.parametrize(
    "model",
    [
        Heston(*CASES["Broadie-Kaya"][:5]),
        Heston(*CASES["Andersen III"][:5]),
        Heston(*CASES["BENCHOP"][:5]),
        bates(0.04, 1.5, 0.05, 0.4, -0.7, 0.3, -0.1, 0.15),
    ],
    ids=["Broadie-Kaya", "Andersen III", "BENCHOP", "Bates"],
)
def test_prices_of_four_steps_agree_with_fourier(model: Model) -> None:
    """Within 0.1 % and four standard errors, which are below 0.1 %; conditional Monte Carlo for Heston."""
    scheme = JUMPS if model.name == "Bates" else HestonNearExact()
    engine = MonteCarlo(1 << 16, 1 / 4, scheme, Sobol(1), compile="never")
    found = price(model, European(100.0, 1.0), Market(100.0), engine)
    one = torch.tensor(1.0, dtype=torch.float64)
    exact = float(price_european(model, 100.0, 1.0, 100 * one, one).value)
    assert float(found.std_error) < 1e-3 * exact
    assert abs(float(found.value) - exact) < 4 * float(found.std_error) + 1e-3 * exact


def test_greeks_of_four_steps_agree_with_fourier() -> None:
    """BENCHOP's parameters, to 0.5 % and four standard errors."""
    parameters = CASES["BENCHOP"][:5]
    one = torch.tensor(1.0, dtype=torch.float64)
    leaves = [torch.tensor(p, dtype=torch.float64, requires_grad=True) for p in parameters]
    exact = torch.autograd.grad(price_european(Heston(*leaves), 110.0, 1.0, 100 * one, one).value, leaves)
    found = []
    for seed in range(8):
        engine = MonteCarlo(1 << 14, 1 / 4, HestonNearExact(), Sobol(seed, scrambles=2), control_variate=False)
        value = price(Heston(*leaves), European(110.0, 1.0), Market(100.0), engine).value
        found.append(torch.stack(torch.autograd.grad(value, leaves)))
    greeks = torch.stack(found)
    for i, name in enumerate(NAMES):
        error = float(greeks[:, i].std()) / 8**0.5
        size = abs(float(exact[i]))
        assert abs(float(greeks[:, i].mean() - exact[i])) < 4 * error + 0.005 * size, name
        assert error < 0.02 * size, name


def test_what_it_steps() -> None:
    with pytest.raises(InputError, match=r"HestonNearExact steps a Heston, got BlackScholes; use Exact\(\)"):
        HestonNearExact().check(BlackScholes(0.2))
