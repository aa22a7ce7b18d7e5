"""Real surfaces and the models calibrated to them."""

import json
from pathlib import Path

import pandas as pd
import pytest

from qsde.calibration import Fit, calibrate
from qsde.market.surface import Surface
from qsde.spec import template

REFERENCE = Path(__file__).parents[1] / "reference"


@pytest.fixture(scope="session")
def spx() -> Surface:
    """SPX 2023-02-15, 96 quotes on 8 expiries, with bid and ask."""
    q = pd.read_csv(REFERENCE / "market_spx_20230215_thin.csv")
    mid = (q["bid_iv"] + q["ask_iv"]) / 2
    return Surface.from_vols(q["T"], q["strike"], mid, q["forward"], 1.0, q["bid_iv"], q["ask_iv"], spot=4147.6)


@pytest.fixture(scope="session")
def dax() -> Surface:
    """DAX 2002-07-05, 104 quotes of one price each."""
    table = pd.read_csv(REFERENCE / "dax_2002_heston_fit_quantlib144.csv")
    factors = json.loads((REFERENCE / "dax_2002_calibration_quantlib144.json").read_text())["discount_factors"]
    df = table["days"].astype(str).map(factors)
    return Surface.from_vols(table["T"], table["strike"], table["market_vol"], 4468.17 / df, df, spot=4468.17)


@pytest.fixture(scope="session")
def fits(spx, dax) -> dict[tuple[str, str], Fit]:
    """Heston and Bates on both."""
    surfaces = {"spx": spx, "dax": dax}
    return {(s, m): calibrate(template(m), surfaces[s]) for s in surfaces for m in ("heston", "bates")}
