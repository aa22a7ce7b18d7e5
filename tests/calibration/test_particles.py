"""Particle method: conditional means, no leverage where none is needed, and vanillas repriced."""

import math

import numpy as np
import pytest
import torch

from qsde.calibration.evaluation import judge
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.lsv import table_of
from qsde.calibration.particles import conditional_mean, leverage_by_particles
from qsde.errors import InputError
from qsde.models import GridLeverage, Heston, JumpDiffusion, MertonJumps, leveraged, merton
from qsde.noise import Antithetic, Threefry
from qsde.pricing.engine import MonteCarlo
from qsde.schemes.layers import layers

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)
BATES = JumpDiffusion(HESTON, MertonJumps(intensity=0.3, mean=-0.15, std=0.1))


def test_mean_given_a_correlated_normal() -> None:
    """`E[exp(a y) | x] = exp(a rho x + a^2 (1 - rho^2) / 2)`."""
    x, z = torch.randn(2, 1 << 17, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rho, a = -0.7, 0.5
    y = torch.exp(a * (rho * x + math.sqrt(1 - rho**2) * z))
    at = torch.linspace(-2, 2, 9).double()
    wanted = torch.exp(a * rho * at + 0.5 * a**2 * (1 - rho**2))
    torch.testing.assert_close(conditional_mean(x, y, at), wanted, rtol=0.02, atol=0)
    far = conditional_mean(x, y, torch.tensor([5.0, 50.0]).double())
    assert float(far.diff()) == 0  # no particles, no new mean


@pytest.fixture(scope="module", params=[HESTON, BATES], ids=["Heston", "Bates"])
def fitted(request, model_surface):
    """A model, vols of it, and the local volatility that has them under its jumps."""
    surface = model_surface(request.param, times=(0.25, 0.5, 1.0), strikes=9, width=2.0)
    return request.param, surface, calibrate_local_vol(surface, jumps=layers(request.param)[1])


def test_the_model_behind_the_quotes_needs_no_leverage(fitted) -> None:
    truth, _, fit = fitted
    leverage = leverage_by_particles(truth, table_of(fit), MonteCarlo(n_paths=1 << 14, max_dt=1 / 64))
    at = 0.22 * torch.sqrt(torch.tensor(0.5)) * torch.linspace(-1.2, 1.2, 7).double()
    assert float((leverage.at(torch.tensor([0.48]).double(), at.unsqueeze(0)) - 1).abs().max()) < 0.06


def test_vanillas_are_repriced_with_another_volatility_of_variance(fitted) -> None:
    """A backbone with half of the vol of variance misses the smile by far; with the leverage it has it."""
    truth, surface, fit = fitted
    backbone = truth.with_params({"sigma": torch.tensor(0.25).double(), "rho": torch.tensor(-0.4).double()})
    engine = MonteCarlo(n_paths=1 << 15, max_dt=1 / 64, noise=Antithetic(Threefry(5)))
    leverage = leverage_by_particles(backbone, table_of(fit), engine)
    assert torch.equal(leverage.times, table_of(fit).times)  # no steps but those of the local volatility
    without = judge(backbone, surface)
    judged = judge(leveraged(backbone, leverage), surface, MonteCarlo(n_paths=1 << 11, max_dt=1 / 64))
    assert np.abs(without.vol - fit.model_iv).max() > 0.01
    error = np.sqrt(judged.std_error**2 + 0.001**2)  # 10 bp for particles and steps
    assert (np.abs(judged.vol - fit.model_iv) / error).max() < 3


def test_another_backbone_is_refused() -> None:
    with pytest.raises(InputError, match="the backbone must be a Heston, with jumps or not, got Merton"):
        leverage_by_particles(merton(0.2, 0.3, -0.1, 0.1), GridLeverage([0.0, 1.0], [0.0], [[0.2], [0.2]]))
