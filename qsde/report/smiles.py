"""Numbers behind the plots: market and model smiles per expiry, residual bins, total variance at fixed moneyness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from qsde.calibration.fit import Fit
from qsde.market.surface import Surface
from qsde.models import Model
from qsde.pricing.fourier import Fourier
from qsde.report.prices import vols

Array = np.ndarray
CURVE_POINTS = 61
#: Log-moneyness levels whose total variance is plotted, where the quotes reach them.
LEVELS = (-0.4, -0.2, -0.1, 0.0, 0.05, 0.1, 0.2, 0.4)
#: Plots need fewer digits than prices.
_ENGINE = Fourier(tolerance=1e-7)


@dataclass(frozen=True)
class Smile:
    """One expiry: quotes sorted by strike, and each model's curve and residuals.

    Attributes:
        expiry: label as printed by the exchange.
        t: years to expiry.
        forward: forward price.
        strike: strikes of the quotes; `bid`, `mid`, `ask` are their vols in percent, NaN where there is none.
        curve_strike: strikes of the model curves.
        curves: vols of each model on `curve_strike`, percent, NaN where the model gives no time value.
        residuals: model minus mid of each model at the quotes, basis points of vol.
    """

    expiry: str
    t: float
    forward: float
    strike: Array
    bid: Array
    mid: Array
    ask: Array
    curve_strike: Array
    curves: tuple[Array, ...]
    residuals: tuple[Array, ...]

    @property
    def moneyness(self) -> Array:
        """`ln(K/F)` of the quotes."""
        return np.asarray(np.log(self.strike / self.forward))

    @property
    def atm_vol(self) -> float:
        """Mid vol of the quote nearest the forward, annualised decimal."""
        return float(self.mid[np.abs(self.moneyness).argmin()]) / 100

    @property
    def deviations(self) -> Array:
        """`ln(K/F) / (ATM vol sqrt(t))` of the quotes."""
        return np.asarray(self.moneyness / (self.atm_vol * np.sqrt(self.t)))


def smiles(fits: list[Fit]) -> list[Smile]:
    """One smile per expiry of the surface that all `fits` share, earliest first."""
    surface = fits[0].surface
    grid = _curve_strikes(surface)
    curves = [_model_vols(fit.model, surface, grid) for fit in fits]
    residuals = [fit.residual_bp for fit in fits]
    slice_of = surface.quotes["slice"].to_numpy()
    return [
        _smile(surface, i, grid[i], [c[i] for c in curves], [r[slice_of == i] for r in residuals])
        for i in range(len(surface.slices))
    ]


def _smile(surface: Surface, i: int, grid: Array, curves: list[Array], residuals: list[Array]) -> Smile:
    row = surface.slices.iloc[i]
    quotes = surface.quotes[surface.quotes["slice"] == i]
    bid, mid, ask = (100 * quotes[c].to_numpy(dtype=float) for c in ("iv_bid", "iv", "iv_ask"))
    return Smile(str(row["expiry"]), float(row["t"]), float(row["forward"]), quotes["strike"].to_numpy(dtype=float),
                 bid, mid, ask, grid, tuple(curves), tuple(residuals))  # fmt: skip


def _curve_strikes(surface: Surface) -> Array:
    """`CURVE_POINTS` strikes per expiry over its quoted range, evenly spaced in log-moneyness."""
    ends = surface.quotes.groupby("slice")["strike"].agg(["min", "max"]).to_numpy(dtype=float)
    low, high = np.log(ends[:, :1]) - 1e-4, np.log(ends[:, 1:]) + 1e-4
    return np.asarray(np.exp(low + (high - low) * np.linspace(0.0, 1.0, CURVE_POINTS)))


def _model_vols(model: Model, surface: Surface, strikes: Array) -> Array:
    """Vols of `model` in percent at `strikes` [expiries, K]; NaN where it gives the option no time value."""
    t, forward = (torch.tensor(surface.slices[c].to_numpy(dtype=float)) for c in ("t", "forward"))
    with torch.no_grad():
        found = vols(model, t, forward, torch.tensor(strikes), _ENGINE).numpy()
    return np.where(found > 0, 100 * found, np.nan)


def representative(count: int, wanted: int = 12) -> list[int]:
    """Positions of about `wanted` expiries out of `count`, evenly spread, first and last included.

    Example:
        >>> representative(5, 3), representative(2)
        ([0, 2, 4], [0, 1])
    """
    return sorted({round(x) for x in np.linspace(0, count - 1, min(count, wanted))})


def residual_bins(all_smiles: list[Smile], model: int, edges: Array) -> Array:
    """Mean residual in bp of one model by expiry and standardised moneyness; NaN where a bin has no quote."""
    rows = []
    for smile in all_smiles:
        which = np.clip(np.digitize(smile.deviations, edges) - 1, 0, len(edges) - 2)
        means = pd.Series(smile.residuals[model]).groupby(which).mean()
        rows.append(means.reindex(range(len(edges) - 1)).to_numpy(dtype=float))
    return np.array(rows)


@dataclass(frozen=True)
class VarianceLine:
    """Total variance at one fixed log-moneyness against expiry: market and each model; NaN where not quoted."""

    moneyness: float
    t: Array
    market: Array
    models: tuple[Array, ...]


def variance_lines(fits: list[Fit], all_smiles: list[Smile]) -> list[VarianceLine]:
    """Total variance lines at a few fixed log-moneyness levels, read from the slices that quote them."""
    t = np.array([s.t for s in all_smiles])
    levels = _levels(all_smiles)
    market = np.array([[_variance_at(s, level) for level in levels] for s in all_smiles])
    strikes = np.array([[s.forward * np.exp(level) for level in levels] for s in all_smiles])
    models = [(_model_vols(fit.model, fits[0].surface, strikes) / 100) ** 2 * t[:, None] for fit in fits]
    quoted = np.where(np.isnan(market), np.nan, 1.0)
    return [
        VarianceLine(level, t, market[:, j], tuple((m * quoted)[:, j] for m in models))
        for j, level in enumerate(levels)
    ]


def _levels(all_smiles: list[Smile]) -> list[float]:
    low = np.median([s.moneyness.min() for s in all_smiles])
    high = np.median([s.moneyness.max() for s in all_smiles])
    return [k for k in LEVELS if k == 0.0 or low <= k <= high]


def _variance_at(smile: Smile, level: float) -> float:
    variance = (smile.mid / 100) ** 2 * smile.t
    return float(np.interp(level, smile.moneyness, variance, left=np.nan, right=np.nan))
