"""Particle method: conditional means, no leverage where none is needed, and vanillas repriced."""

import math

import pytest
import torch

from qsde.calibration.local_vol import calibrate_local_vol
from qsde.calibration.particles import conditional_mean, leverage_by_particles
from qsde.errors import InputError
from qsde.market.black import black_price, black_vega
from qsde.market.underlying import Market
from qsde.models import GridLeverage, Heston, LocalStochasticVol, merton
from qsde.noise import Antithetic, Threefry
from qsde.payoffs import European
from qsde.pricing.montecarlo import MonteCarlo, price

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)


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


@pytest.fixture(scope="module")
def fitted(model_surface):
    surface = model_surface(HESTON, times=(0.25, 0.5, 1.0), strikes=9, width=2.0)
    return surface, calibrate_local_vol(surface)


def test_the_model_behind_the_quotes_needs_no_leverage(fitted) -> None:
    _, fit = fitted
    leverage = leverage_by_particles(HESTON, fit.model.leverage, MonteCarlo(n_paths=1 << 14, max_dt=1 / 64))
    at = 0.22 * torch.sqrt(torch.tensor(0.5)) * torch.linspace(-1.2, 1.2, 7).double()
    assert float((leverage.at(torch.tensor([0.5]).double(), at.unsqueeze(0)) - 1).abs().max()) < 0.06


def test_vanillas_are_repriced_with_another_volatility_of_variance(fitted) -> None:
    """A backbone with half of the vol of variance misses the smile by far; with the leverage it has it."""
    surface, fit = fitted
    backbone = HESTON.with_params(
        {"sigma": torch.tensor(0.25, dtype=torch.float64), "rho": torch.tensor(-0.4).double()}
    )
    engine = MonteCarlo(n_paths=1 << 15, max_dt=1 / 100, noise=Antithetic(Threefry(5)))
    leverage = leverage_by_particles(backbone, fit.model.leverage, engine)
    ratio, t, vol = (
        torch.tensor(v)
        for v in ((surface.quotes["strike"] / 100).to_numpy(), surface.quotes["t"].to_numpy(), fit.model_iv)
    )
    book = [
        European(k, expiry=e, kind="call" if k >= 1 else "put") for k, e in zip(ratio.tolist(), t.tolist(), strict=True)
    ]
    vega, exact = black_vega(1.0, ratio, t, vol), black_price(1.0, ratio, t, vol, is_call=ratio >= 1)

    def errors_bp(model) -> tuple[torch.Tensor, torch.Tensor]:
        found = price(
            model, book, Market(1.0), MonteCarlo(n_paths=1 << 15, max_dt=1 / 100, noise=Antithetic(Threefry(7)))
        )
        return 1e4 * (found.value - exact) / vega, 1e4 * found.std_error / vega

    gap, error = errors_bp(LocalStochasticVol(backbone, leverage))
    without, _ = errors_bp(backbone)
    assert float(without.square().mean().sqrt()) > 100
    assert float(gap.square().mean().sqrt()) < 20
    assert float((gap.abs() / torch.sqrt(error**2 + 10.0**2)).max()) < 3  # 10 bp for particles and steps


def test_another_backbone_is_refused() -> None:
    with pytest.raises(InputError, match="the backbone must be a Heston, with jumps or not, got Merton"):
        leverage_by_particles(merton(0.2, 0.3, -0.1, 0.1), GridLeverage([0.0, 1.0], [0.0], [[0.2], [0.2]]))
