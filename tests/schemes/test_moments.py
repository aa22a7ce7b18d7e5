"""Moments of the QE variance against the exact ones of the square-root process."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import norm

from qsde.models import Heston
from qsde.noise import Threefry
from qsde.schemes import HestonQE
from qsde.schemes.heston_qe import SWITCH, exceedance

CASES = {
    "quadratic": (0.2, 1.5, 0.05, 0.4, 0.1),
    "just below": (0.04, 0.5, 0.04, 1.0, 0.0601),
    "just above": (0.04, 0.5, 0.04, 1.0, 0.0637),
    "exponential": (0.01, 0.5, 0.04, 1.0, 0.5),
    "nearly all at zero": (1e-5, 0.5, 0.001, 1.0, 0.1),
    "from zero": (0.0, 1.0, 0.04, 0.3, 0.25),
    "long step": (0.04, 2.0, 0.09, 0.8, 5.0),
    "no reversion": (0.04, 0.0, 0.0, 0.5, 0.25),
}


@pytest.mark.parametrize("case", CASES)
def test_two_moments_are_exact(case: str, exact_moments) -> None:
    """By quadrature over the variance normal: in either branch, mean and variance are those of the exact law."""
    v0, kappa, theta, sigma, dt = CASES[case]
    z = torch.linspace(-13, 13, 2_000_001, dtype=torch.float64)
    density = torch.exp(-0.5 * z * z) * (z[1] - z[0]) / (2 * torch.pi) ** 0.5
    model = Heston(v0, kappa, theta, sigma, -0.5)
    scheme = HestonQE()
    c = scheme.coefficients(model, torch.tensor(dt, dtype=torch.float64)).unsqueeze(-1)
    start = tuple(s.unsqueeze(-1) for s in scheme.initial(model))
    v = scheme.step(start, c, torch.stack([z, z]), z[:0])[1]
    mean, variance = exact_moments(v0, kappa, theta, sigma, dt)
    assert bool((v >= 0).all())
    got = float((v * density).sum())
    assert got == pytest.approx(mean, rel=1e-5)
    assert float(((v - mean) ** 2 * density).sum()) == pytest.approx(variance, rel=1e-5)
    if case.startswith("just"):
        assert (variance / mean**2 < SWITCH) == (case == "just below")


def test_many_steps_keep_the_moments(simulate, mean_and_error, exact_moments) -> None:
    """Moments of v after many steps are exact at any step size, since conditional means and variances are."""
    v0, kappa, theta, sigma = 0.09, 1.0, 0.04, 1.0
    v = simulate(Heston(v0, kappa, theta, sigma, -0.5), HestonQE(), 2.0, 6, 200_000, dtype=torch.float32)[1]
    mean, variance = exact_moments(v0, kappa, theta, sigma, 2.0)
    got, error = mean_and_error(v)
    assert abs(got - mean) < 4 * error
    got, error = mean_and_error((v.double() - mean) ** 2)
    assert abs(got - variance) < 4 * error


def test_exceedance_is_exponential() -> None:
    z = Threefry(3).block(torch.arange(1000), 1, 1, 0, torch.float64, "cpu").draw(0)[0][0]
    torch.testing.assert_close(exceedance(z), -torch.from_numpy(norm.logsf(z.numpy())))
