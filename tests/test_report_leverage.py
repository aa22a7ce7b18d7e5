"""Reports of models without Fourier prices: curves from paths, the leverage as a picture."""

import json
import re

import numpy as np
import pytest
import torch

from qsde.calibration import calibrate
from qsde.calibration.fit import Fit
from qsde.calibration.local_vol import calibrate_local_vol
from qsde.market.surface import Surface
from qsde.models import GridLeverage, Heston, LocalStochasticVol
from qsde.pricing.fourier import Fourier, model_vols
from qsde.report import render
from qsde.report.arbitrage import fitted_arbitrage
from qsde.report.prices import calls, vols

HESTON = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.5, rho=-0.7)


@pytest.fixture(scope="module")
def fits() -> list[Fit]:
    t, k = np.repeat([0.25, 1.0], 7), np.tile(np.linspace(80, 120, 7), 2)
    vol = 0.2 - 0.1 * np.log(k / 100)
    surface = Surface.from_vols(t, k, vol, 100.0, 0.99, vol - 0.002, vol + 0.002, underlying="X", spot=100.0)
    return [calibrate(Heston.typical(), surface, starts=1), calibrate_local_vol(surface)]


def test_curves_of_paths_are_those_of_fourier() -> None:
    """Leverage 1 is Heston: vols within a few of the 5 bp of noise, and at the money within 15."""
    t, forward = torch.tensor([0.25, 1.0]).double(), torch.tensor([100.0, 102.0]).double()
    strike = forward.unsqueeze(-1) * torch.tensor([0.85, 0.95, 1.0, 1.05, 1.15]).double()
    flat = LocalStochasticVol(HESTON, GridLeverage([0.0], [0.0], [[1.0]], scale=0.2))
    found = vols(flat, t, forward, strike, Fourier())
    exact = model_vols(HESTON, t, strike, forward)
    assert float((found - exact).abs().max()) < 3e-3
    assert float((found - exact)[:, 2].abs().max()) < 1.5e-3


def test_prices_of_paths_have_no_butterflies() -> None:
    t, forward = torch.tensor([0.5]).double(), torch.tensor([100.0]).double()
    strike = torch.linspace(50, 150, 101).double().unsqueeze(0)
    flat = LocalStochasticVol(HESTON, GridLeverage([0.0], [0.0], [[1.0]], scale=0.2))
    price = calls(flat, t, forward, strike, Fourier())[0]
    assert float(price.diff(n=2).min()) > -1e-10
    assert bool((price >= (100 - strike[0]).clamp(min=0) - 1e-9).all())


def test_page_shows_smiles_and_leverage(fits: list[Fit]) -> None:
    page = render(fits)
    match = re.search(r'id="report-data">(.*?)</script>', page, re.DOTALL)
    assert match
    figures = json.loads(match[1])["figures"]
    assert 'id="leverage-1"' in page
    assert 'id="leverage-0"' not in page
    values = np.array(figures["leverage-1"]["data"][0]["z"])
    assert 0.1 < values.min() < values.max() < 0.5
    assert values[:, 0].mean() > values[:, -1].mean()  # down is more volatile
    lines = [line for line in figures["smiles"]["data"] if line["name"] == "LocalVol"]
    assert lines
    assert np.isfinite(np.array(lines[-1]["y"], dtype=float)).mean() > 0.8


def test_a_simulated_model_has_no_arbitrage_beyond_its_noise(fits: list[Fit]) -> None:
    assert len(fitted_arbitrage(fits[1])) == 0
