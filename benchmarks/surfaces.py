"""Market surfaces and the QuantLib set-up that the calibration and pricing benchmarks share."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from qsde.market.surface import Surface

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "tests" / "reference"
DAX_SPOT = 4468.17
#: QuantLib's test start: v0, kappa, theta, sigma, rho.
START = (0.1, 1.0, 0.1, 0.5, -0.5)


def dax(scale: ArrayLike = 1.0) -> Surface:
    """DAX 2002-07-05, 104 quotes, maturities in whole weeks as in QuantLib's test; vols times `scale`."""
    table = pd.read_csv(REFERENCE / "dax_2002_heston_fit_quantlib144.csv")
    record = json.loads((REFERENCE / "dax_2002_calibration_quantlib144.json").read_text())
    discount = table["days"].astype(str).map(record["discount_factors"])
    vol = table["market_vol"] * scale
    return Surface.from_vols(table["T"], table["strike"], vol, DAX_SPOT / discount, discount, underlying="DAX")


def quantlib_bates() -> float:
    """SSE, in vol percent squared, of QuantLib 1.44's own Bates fit to DAX."""
    record = json.loads((REFERENCE / "dax_2002_calibration_quantlib144.json").read_text())
    return float(next(run["sse"] for run in record["runs"] if run["name"].startswith("Bates")))


def spx_thin() -> Surface:
    """SPX 2023-02-15, 96 quotes on 8 expiries."""
    q = pd.read_csv(REFERENCE / "market_spx_20230215_thin.csv")
    mid = (q["bid_iv"] + q["ask_iv"]) / 2
    return Surface.from_vols(q["T"], q["strike"], mid, q["forward"], 1.0, q["bid_iv"], q["ask_iv"], underlying="SPX")


def spx_full() -> Surface:
    """SPX 2023-02-15, every two-sided quote: 6,749 on 48 expiries."""
    q = pd.read_parquet(ROOT / "data" / "spx_vix_2023-02-15" / "spx_2023-02-15.parquet")
    q = q[q["iv_bid"].notna() & q["iv_ask"].notna()]
    mid = (q["iv_bid"] + q["iv_ask"]) / 2
    return Surface.from_vols(q["t_years"], q["strike"], mid, q["forward"], 1.0, q["iv_bid"], q["iv_ask"],
                             underlying="SPX")  # fmt: skip


class QuantLibHeston:
    """QuantLib's own test of the DAX calibration: helpers, 64-point Gauss-Laguerre engine, Levenberg-Marquardt."""

    def __init__(self, scale: np.ndarray | float = 1.0) -> None:
        ql: Any = importlib.import_module("QuantLib")
        self.ql = ql
        today = ql.Date(5, 7, 2002)
        ql.Settings.instance().evaluationDate = today
        day_count = ql.Actual365Fixed()
        self.spot = ql.QuoteHandle(ql.SimpleQuote(DAX_SPOT))
        days = [13, 41, 75, 165, 256, 345, 524, 703]
        zeros = [0.0357, 0.0349, 0.0341, 0.0355, 0.0359, 0.0368, 0.0386, 0.0401]
        dates = [today, *(today + d for d in days)]
        self.rates = ql.YieldTermStructureHandle(ql.ZeroCurve(dates, [0.0357, *zeros], day_count))
        self.dividends = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, day_count))
        grid = pd.read_csv(REFERENCE / "dax_2002_heston_surface.csv")
        vols = grid[[f"d{d}" for d in days]].to_numpy().T
        vols = vols * np.broadcast_to(scale, vols.shape)
        self.helpers = [
            ql.HestonModelHelper(
                ql.Period((d + 3) // 7, ql.Weeks), ql.TARGET(), DAX_SPOT, float(k),
                ql.QuoteHandle(ql.SimpleQuote(float(v))), self.rates, self.dividends,
                ql.BlackCalibrationHelper.ImpliedVolError,
            )
            for d, row in zip(days, vols, strict=True) for k, v in zip(grid["strike"], row, strict=True)
        ]  # fmt: skip

    def model(self, params: tuple[float, ...] = START) -> Any:
        """A Heston model whose engine is set on every helper."""
        ql = self.ql
        model = ql.HestonModel(ql.HestonProcess(self.rates, self.dividends, self.spot, *params))
        engine = ql.AnalyticHestonEngine(model, 64)
        for helper in self.helpers:
            helper.setPricingEngine(engine)
        return model

    def calibrate(self) -> float:
        """SSE in vol percent squared from the test's start."""
        ql = self.ql
        model = self.model()
        model.calibrate(
            self.helpers, ql.LevenbergMarquardt(1e-8, 1e-8, 1e-8), ql.EndCriteria(400, 40, 1e-8, 1e-8, 1e-8)
        )
        return sum((100 * helper.calibrationError()) ** 2 for helper in self.helpers)

    def pricer(self, params: tuple[float, ...]) -> Callable[[], list[float]]:
        """Prices of the 104 options under given parameters, engine and model set up before the clock starts."""
        self.model(params)
        return lambda: [helper.modelValue() for helper in self.helpers]
