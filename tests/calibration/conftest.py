"""Surfaces: model vols on a grid, and the market surfaces of tests/reference."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from qsde.market.surface import Surface
from qsde.models import Model
from qsde.pricing.fourier import model_vols

REFERENCE = Path(__file__).parents[1] / "reference"
TIMES = (0.08, 0.25, 0.5, 1.0, 2.0)


def make(model: Model, times=TIMES, strikes=13, width=2.5, noise=0.0, half_spread=np.nan, seed=0) -> Surface:
    """Vols of the model on strikes within `width` deviations, plus normal noise of the given size."""
    t = torch.tensor(times, dtype=torch.float64)
    deviation = torch.sqrt(model.total_variance(t.unsqueeze(-1)))
    strike = 100 * torch.exp(torch.linspace(-width, width, strikes, dtype=torch.float64) * deviation)
    vol = model_vols(model, t, strike, 100.0).flatten().numpy()
    vol = vol + noise * np.random.default_rng(seed).standard_normal(vol.shape)
    return Surface.from_vols(
        np.repeat(times, strikes), strike.flatten(), vol, 100.0, 0.97, vol - half_spread, vol + half_spread
    )


@pytest.fixture(scope="session")
def model_surface():
    """`make`, for tests."""
    return make


@pytest.fixture(scope="session")
def dax(quantlib) -> Surface:
    """DAX 2002-07-05, 104 quotes, maturities in whole weeks as in QuantLib's test."""
    table = pd.read_csv(REFERENCE / "dax_2002_heston_fit_quantlib144.csv")
    discount = table["days"].astype(str).map(quantlib["discount_factors"])
    return Surface.from_vols(table["T"], table["strike"], table["market_vol"], 4468.17 / discount, discount)


@pytest.fixture(scope="session")
def quantlib() -> dict:
    """QuantLib 1.44's own fits to DAX."""
    return json.loads((REFERENCE / "dax_2002_calibration_quantlib144.json").read_text())


@pytest.fixture(scope="session")
def spx_thin() -> Surface:
    """SPX 2023-02-15, 96 quotes on 8 expiries."""
    q = pd.read_csv(REFERENCE / "market_spx_20230215_thin.csv")
    mid = (q["bid_iv"] + q["ask_iv"]) / 2
    return Surface.from_vols(q["T"], q["strike"], mid, q["forward"], 1.0, q["bid_iv"], q["ask_iv"])
