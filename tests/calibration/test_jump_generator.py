"""Jumps in the forward equation: Fourier prices of Merton and Kou, lines that stand still, derivatives and quotes."""

import math

import numpy as np
import pytest
import torch

from qsde.calibration.forward_equation import ForwardEquation
from qsde.calibration.jump_generator import jump_generator, jump_reach
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.errors import InputError
from qsde.market.black import black_price, black_vega
from qsde.models import JumpDiffusion, kou, merton
from qsde.pricing.fourier import model_vols

MERTON = merton(0.2, 0.5, -0.1, 0.15)
#: And a typical vol: up to 12 jumps a year, and jumps to several times the price.
MODELS = {
    "Merton": (MERTON, 0.25),
    "many small jumps": (merton(0.15, 12.0, -0.02, 0.04), 0.22),
    "huge jumps": (merton(0.4, 0.03, -3.0, 2.5), 0.45),
    "Kou": (kou(0.16, 1.0, 0.4, 10.0, 5.0), 0.25),
}


def constant(vol: float):
    return lambda t, x: (np.full_like(x, vol * vol), np.zeros((len(x), 0)))


def vol_error_bp(model: JumpDiffusion, vol: float, points: int, steps: int) -> float:
    """Largest error from 2.5 deviations below the forward to 2 above, by interpolation of time values."""
    expiries = (0.1, 1.0)
    grid = ForwardEquation.of(expiries, vol, points=points, steps=steps, jumps=[model.jumps])
    calls, _ = grid.solve(constant(float(model.params["vol"])))
    worst = 0.0
    for t, prices in zip(expiries, calls, strict=True):
        z = np.log(grid.y) / (vol * math.sqrt(t))
        near = (z > -2.5) & (z < 2.0)
        years, y = torch.tensor(t, dtype=torch.float64), torch.tensor(grid.y[near])
        exact = model_vols(model, years, y, 1.0).flatten()
        gap = torch.tensor(prices[near]) - black_price(1.0, y, years, exact)
        worst = max(worst, 1e4 * float((gap / black_vega(1.0, y, years, exact)).abs().max()))
    return worst


@pytest.mark.parametrize("name", MODELS)
def test_fourier_prices_to_second_order(name: str) -> None:
    coarse, fine = (vol_error_bp(*MODELS[name], points=n, steps=m) for n, m in ((201, 16), (401, 32)))
    assert fine < 3
    assert 3.0 < coarse / fine < 6


@pytest.mark.parametrize("name", MODELS)
def test_straight_lines_stand_still(name: str) -> None:
    """So that the forward stays where it is: away from the ends, by as far as jumps reach."""
    jumps = MODELS[name][0].jumps
    reach = 1.0 + jump_reach(jumps)
    y = np.exp(np.linspace(-reach, reach, 401))
    speed = jump_generator(jumps, y) @ (y - y[0])
    assert float(np.abs(speed[np.abs(np.log(y)) < 1]).max()) < 1e-6


def test_derivatives_are_those_of_the_prices() -> None:
    grid = ForwardEquation.of([0.5, 1.0], 0.25, points=101, steps=8, jumps=[MERTON.jumps])

    def local(shift: float):
        def at(t: float, x: np.ndarray):
            return 0.04 * np.exp(-0.2 * np.tanh(x)) + shift * np.cos(x) * t, (np.cos(x) * t)[:, None]

        return at

    _, slope = grid.solve(local(0.0))
    up, down = (grid.solve(local(s))[0] for s in (1e-5, -1e-5))
    np.testing.assert_allclose(slope[..., 0], (up - down) / 2e-5, atol=1e-8)


def test_quotes_of_merton_leave_a_constant_local_volatility(model_surface) -> None:
    """What its jumps do not explain is its diffusion, 20 %, where the quotes can tell."""
    fit = calibrate_local_vol(
        model_surface(MERTON, times=(0.25, 0.5, 1.0), strikes=11, width=2.0), jumps=[MERTON.jumps]
    )
    assert fit.rmse_bp < 1
    assert fit.model.name == "LocalVol+MertonJumps"
    x = torch.linspace(-0.25, 0.2, 10).double().expand(3, 10)
    found = fit.model.diffusion.leverage.at(torch.tensor([0.2, 0.45, 0.9]).double(), x)
    assert float((found - 0.2).abs().max()) < 0.01


def test_dupires_formula_knows_no_jumps(spx_thin) -> None:
    with pytest.raises(InputError, match="jumps: Dupire's formula knows none"):
        calibrate_local_vol(spx_thin, stiffness=math.inf, jumps=[MERTON.jumps])
