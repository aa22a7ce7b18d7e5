"""Fit of an eSSVI surface to quotes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.levenberg_marquardt import solve
from qsde.calibration.objective import quote_weights
from qsde.errors import FitStatus, QuoteError
from qsde.market.ssvi import ESSVI, essvi_parameters, slice_variance
from qsde.market.surface import Surface

#: Skews and shares of the bounds of psi that the search starts from.
_STARTS = ((-0.5, -1.0), (-0.9, 0.0), (0.0, -1.0))
#: Relative fall of the cost that ends the search.
_SAME_COST = 1e-5


@dataclass(frozen=True)
class SSVIFit:
    """An arbitrage-free surface through quotes.

    Attributes:
        surface: the quotes.
        interpolated: the fitted surface.
        status: how the search ended.
        weight: weight of each quote, mean square 1.
    """

    surface: Surface
    interpolated: ESSVI
    status: FitStatus
    weight: np.ndarray

    @cached_property
    def residual_bp(self) -> np.ndarray:
        """Fitted minus quoted implied vol, basis points of vol."""
        quotes = self.surface.quotes
        k, t = _points(quotes)
        gap: np.ndarray = self.interpolated.vol(k, t).numpy() - quotes["iv"].to_numpy()
        return 1e4 * gap

    @property
    def rmse_bp(self) -> float:
        """Root mean square of `residual_bp`, unweighted."""
        return float(np.sqrt(np.mean(self.residual_bp**2)))


def fit_ssvi(
    surface: Surface,
    weights: str | Callable[[pd.DataFrame], np.ndarray] = "spread",
    max_iterations: int = 100,
) -> SSVIFit:
    """Least squares of implied vols over all eSSVI surfaces without static arbitrage (see `ESSVI`).

    Three numbers per expiry; expiries are fitted together, because calendar arbitrage is between them.

    Args:
        surface: the quotes.
        weights: as in `calibrate`.
        max_iterations: Levenberg-Marquardt iterations of each start.

    Raises:
        QuoteError: the surface is empty.

    Example:
        >>> k = np.tile([-0.2, -0.1, 0.0, 0.1], 2)
        >>> truth = ESSVI(*torch.tensor([[0.5, 1.0], [0.02, 0.04], [-0.6, -0.5], [0.2, 0.25]]).double())
        >>> t = np.repeat([0.5, 1.0], 4)
        >>> iv = truth.vol(torch.tensor(k), torch.tensor(t)).numpy()
        >>> round(fit_ssvi(Surface.from_vols(t, 100 * np.exp(k), iv, 100.0)).rmse_bp, 3)
        0.0
    """
    if len(surface) == 0:
        raise QuoteError(f"{surface.name}: the surface has no quotes")
    weight = quote_weights(surface.quotes, weights)
    k, t = _points(surface.quotes)
    row = torch.tensor(surface.quotes["slice"].to_numpy())
    times, market = torch.tensor(surface.slices["t"].to_numpy()), torch.tensor(surface.quotes["iv"].to_numpy())
    scale = torch.tensor(weight) / math.sqrt(len(surface))

    def residual(x: Tensor) -> Tensor:
        theta, rho, psi = essvi_parameters(x)
        variance = slice_variance(k, theta[row], (rho * psi)[row], psi[row])
        return scale * (torch.sqrt(variance / t) - market)

    def residuals(x: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        flat = x[0]
        return torch.vmap(residual)(flat)[None], torch.vmap(torch.func.jacfwd(residual))(flat)[None]

    starts = torch.stack([_start(surface, *start) for start in _STARTS])[None]
    found = solve(residuals, starts, max_iterations, cost_tolerance=_SAME_COST)
    best = int(found.cost[0].argmin())
    status = FitStatus.CONVERGED if bool(found.converged[0, best]) else FitStatus.MAX_ITERATIONS
    return SSVIFit(surface, ESSVI.from_unknowns(times, found.x[0, best]), status, weight)


def _points(quotes: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Log-moneyness and years of the quotes."""
    strike, forward, t = (torch.tensor(quotes[c].to_numpy()) for c in ("strike", "forward", "t"))
    return torch.log(strike / forward), t


def _start(surface: Surface, rho: float, share: float) -> Tensor:
    """Unknowns with one skew for all expiries and the quoted variances at the money, made to rise."""
    quotes = surface.quotes.assign(distance=(surface.quotes["strike"] / surface.quotes["forward"]).map(np.log).abs())
    nearest = quotes.loc[quotes.groupby("slice")["distance"].idxmin()]
    variance = np.maximum.accumulate((nearest["iv"] ** 2 * nearest["t"]).to_numpy())
    growth = torch.tensor(np.maximum(np.diff(variance, prepend=0.0), 1e-3 * variance[0]))
    ones = torch.ones_like(growth)
    return torch.cat([math.atanh(rho) * ones, torch.log(growth), share * ones])
