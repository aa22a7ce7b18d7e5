"""Calibration to a surface by Monte Carlo: search on common random numbers, check on fresh ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.objective import Data
from qsde.calibration.penalties import Penalty
from qsde.calibration.quality import Simulated, fit_warnings, parameter_covariance, simulation_warnings
from qsde.calibration.ramp import Ramped, compiled, fresh, fresh_halved, ramp
from qsde.calibration.simulated_surface import SimulatedObjective
from qsde.calibration.space import Space
from qsde.market.surface import Surface
from qsde.pricing.engine import MonteCarlo


@dataclass(frozen=True)
class SurfaceJob:
    """A calibration by simulation to one surface; fields as the arguments of `calibrate`."""

    space: Space
    surface: Surface
    engine: MonteCarlo
    weights: str | Callable[[pd.DataFrame], np.ndarray]
    penalties: Sequence[Penalty]
    in_vol: bool

    def run(self, n_starts: int, max_iterations: int, seed: int, progress: Callable[[float], None]) -> Fit:
        """The fit, with its `simulation`."""
        began = time.perf_counter()
        data = Data.of([self.surface], self.weights)

        def objective(engine: MonteCarlo) -> SimulatedObjective:
            return SimulatedObjective(data, self.space, self.penalties, self.in_vol, engine)

        x = self.space.to_unknowns(self.space.starts(n_starts, data.levels, seed))
        ramped = ramp(
            lambda engine: objective(engine).residuals, x, self.engine, max_iterations, lambda s: progress(0.9 * s)
        )
        p = self.space.to_params(ramped.x)
        samples, halved = (
            [_sample(objective(engine), p) for engine in engines]
            for engines in (fresh(self.engine), fresh_halved(self.engine))
        )
        slope = torch.stack([gradient for _, gradient in halved]).mean(0)
        fit = self._fit(objective(compiled(self.engine)), ramped, p, samples, slope, n_starts)
        progress(1.0)
        return replace(fit, seconds=time.perf_counter() - began)

    def _fit(
        self,
        objective: SimulatedObjective,
        ramped: Ramped,
        p: Tensor,
        samples: Sequence[tuple[Tensor, Tensor]],
        halved: Tensor,
        n_starts: int,
    ) -> Fit:
        data, space = objective.data, self.space
        rows = torch.arange(1)
        prices, gradients = (torch.stack(column) for column in zip(*samples, strict=True))
        quotes = _quote_order(data.position[0])
        vol, jacobian, _ = (v[0, 0].flatten(0, 1)[quotes] for v in objective.vols(p.expand(1, 1, -1)))
        mean, vega = (v[0, 0].flatten()[quotes] for v in objective.vols_of(prices.mean(0)[None, None], rows))
        market = objective.market_vol[0].flatten()[quotes]
        weight = data.weight[0].flatten()[quotes]
        residual, weighted = objective.residuals(ramped.x.expand(1, 1, -1), rows)
        weighted = weighted[0, 0] / space.slope(p)
        normal = weighted.mT @ weighted
        used, free = int((weight > 0).sum()), len(space.free)
        variance = residual.square().sum() / (used - free) if used > free else torch.tensor(torch.nan)
        simulation = Simulated.of(
            n_paths=self.engine.n_paths,
            fitted=1e4 * (vol - market),
            fresh=1e4 * (mean - market),
            deviations=1e4 * (prices - prices.mean(0)).flatten(1)[:, quotes] / vega,
            gradients=gradients,
            halved=halved,
            normal=normal,
            unit=torch.full_like(vega, 1e-4),
        )
        by_quotes = parameter_covariance(normal.unsqueeze(0), variance.unsqueeze(0).double())[0]
        at_bounds = space.at_bounds(p)
        warnings = fit_warnings(
            len(self.surface) - used, used, free, at_bounds, bool(torch.isfinite(by_quotes).all()), gap=0.0
        )
        return Fit(
            model=space.with_free(p),
            surface=self.surface,
            status=ramped.status,
            # the market's vol and this one both have the price floor of the residuals
            model_iv=self.surface.quotes["iv"].to_numpy() + (mean - market).numpy(),
            weight=(weight * len(quotes) ** 0.5).numpy(),
            free=space.free,
            jacobian=jacobian,
            covariance=by_quotes + simulation.covariance,
            at_bounds=at_bounds,
            iterations=ramped.iterations,
            starts=n_starts,
            starts_agreeing=ramped.agreeing,
            seconds=0.0,
            warnings=warnings + simulation_warnings(space.free, by_quotes, simulation),
            objective="implied_vol" if self.in_vol else "price",
            penalties=tuple(self.penalties),
            simulation=simulation,
        )


def _sample(objective: SimulatedObjective, p: Tensor) -> tuple[Tensor, Tensor]:
    """Prices [E, K] and gradient of half the sum of squares [P] at parameters [P]."""
    at, rows = p.expand(1, 1, -1), torch.arange(1)
    price, slope = objective.prices(at, rows)
    r, jacobian = objective.weighted(at, price, slope, rows)
    return price[0, 0], (jacobian[0, 0].mT @ r[0, 0]) / objective.space.slope(p)


def _quote_order(position: Tensor) -> Tensor:
    """Where in the padded grid [E, K] each row of `surface.quotes` is."""
    flat = position.flatten()
    return torch.where(flat >= 0, flat, flat.numel()).argsort()[: int((flat >= 0).sum())]
