"""Calibration to surfaces by Fourier prices: explore from many starts, refine the best, verify with exact prices."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.levenberg_marquardt import Solution, solve
from qsde.calibration.objective import Data, Objective, rank_in_slice
from qsde.calibration.penalties import Penalty
from qsde.calibration.quality import AGREE, fit_warnings, parameter_covariance
from qsde.calibration.space import Space
from qsde.errors import FitStatus, NumericsError
from qsde.market.surface import Surface
from qsde.pricing.fourier import Fourier, model_vols

#: Iterations of every start before the best are kept, and how many are kept.
_EXPLORE, _KEEP = 12, 4
#: Quadrature nodes of the residuals: more until the exact prices agree to `AGREE` (in vol).
_MAX_NODES, _INACCURATE = 2048, 1e-3
#: Starts are explored on about this many quotes of a larger surface, within this many standard deviations.
_EXPLORE_QUOTES, _EXPLORE_FAR = 300, 12.0


@dataclass(frozen=True)
class FourierJob:
    """A calibration through Fourier prices to many surfaces at once; fields as the arguments of `calibrate_many`."""

    space: Space
    weights: str | Callable[[pd.DataFrame], np.ndarray]
    penalties: tuple[Penalty, ...]
    in_vol: bool
    n_starts: int
    max_iterations: int
    seed: int
    exact: Fourier

    def run(self, surfaces: Sequence[Surface], progress: Callable[[float], None]) -> list[Fit]:
        """The fits: the best starts refined, on more nodes where the exact prices ask for them."""
        began = time.perf_counter()
        data = Data.of(surfaces, self.weights)
        x = self._explore(surfaces, progress)
        outcome: _Outcome | None = None
        rows, nodes = torch.arange(len(surfaces)), data.nodes
        while rows.numel():
            objective = Objective(data.rows(rows), self.space, self.penalties, self.in_vol, nodes)
            solution = solve(
                objective.residuals, x, self.max_iterations, on_iteration=lambda i: progress(min(0.9, 0.5 + i / 100))
            )
            found = self._outcome(objective, solution)
            outcome = found if outcome is None else outcome.updated(rows, found)
            nodes *= 2
            rows = rows[(found.gap > AGREE) & (nodes <= _MAX_NODES)]
            x = outcome.x[rows].unsqueeze(1)
        assert outcome is not None
        progress(1.0)
        seconds = (time.perf_counter() - began) / len(surfaces)
        return self._fits(surfaces, data, outcome, seconds)

    def _explore(self, surfaces: Sequence[Surface], progress: Callable[[float], None]) -> Tensor:
        """Starts [S, n, P] for the full problem: the best of all starts after some iterations on part of the quotes."""
        data = Data.of([_thinned(surface) for surface in surfaces], self.weights, far=_EXPLORE_FAR)
        x = self.space.to_unknowns(self.space.starts(self.n_starts, data.levels, self.seed))
        if self.n_starts == 1:
            return x
        objective = Objective(data, self.space, self.penalties, self.in_vol, data.nodes)
        explored = solve(objective.residuals, x, _EXPLORE, on_iteration=lambda i: progress(0.5 * i / _EXPLORE))
        best = explored.cost.argsort(-1)[:, :_KEEP]
        x = explored.x.gather(1, best.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        if all(len(surface) <= _EXPLORE_QUOTES for surface in surfaces):
            return x
        return solve(objective.residuals, x, self.max_iterations).x

    def _outcome(self, objective: Objective, solution: Solution) -> _Outcome:
        winner = solution.cost.argmin(-1, keepdim=True)
        cost, converged, stalled, iterations = (
            field.gather(1, winner).squeeze(1)
            for field in (solution.cost, solution.converged, solution.stalled, solution.iterations)
        )
        agreeing = (solution.cost <= cost.unsqueeze(-1) * (1 + 1e-4) + 1e-20).sum(-1)
        x = solution.x.gather(1, winner.unsqueeze(-1).expand(-1, -1, solution.x.shape[-1])).squeeze(1)
        x = torch.where(torch.isfinite(cost).unsqueeze(-1), x, torch.zeros_like(x))
        p, rows = self.space.to_params(x), torch.arange(x.shape[0])
        price, gradient = objective.prices(p.unsqueeze(1), rows)
        vol, vega = objective.vols_of(price, rows)
        exact = _exact_vols(self.space, p, objective.data, self.exact)
        gap = objective.quadrature_gap(price.squeeze(1), exact, vega.squeeze(1))
        _, weighted = objective.weighted(p.unsqueeze(1), price, gradient, rows)
        weighted = weighted.squeeze(1) / self.space.slope(p).unsqueeze(-2)
        exact = torch.where(torch.isnan(exact), vol.squeeze(1), exact)
        jacobian = gradient / vega.unsqueeze(-1)
        return _Outcome(x, p, cost, converged, stalled, iterations, agreeing, exact, jacobian.squeeze(1),
                        weighted.mT @ weighted, gap)  # fmt: skip

    def _fits(self, surfaces: Sequence[Surface], data: Data, outcome: _Outcome, seconds: float) -> list[Fit]:
        sizes = torch.tensor([len(surface) for surface in surfaces])
        used = (data.weight > 0).sum((-1, -2))
        freedom = used - len(self.space.free)
        variance = torch.where(freedom > 0, outcome.cost / freedom.clamp(min=1), torch.nan)
        covariance = parameter_covariance(outcome.normal, variance)
        determined = torch.isfinite(covariance).flatten(1).all(-1)
        order = _in_quote_order(data.position)
        vol, weight = (
            x.flatten(1).gather(1, order) for x in (outcome.vol, data.weight * torch.sqrt(sizes)[:, None, None])
        )
        jacobian = outcome.jacobian.flatten(1, 2)
        fits = []
        for i, surface in enumerate(surfaces):
            n = len(surface)
            at_bounds = self.space.at_bounds(outcome.p[i])
            fits.append(
                Fit(
                    model=self.space.with_free(outcome.p[i]),
                    surface=surface,
                    status=_status(outcome, i),
                    model_iv=vol[i, :n].numpy(),
                    weight=weight[i, :n].numpy(),
                    free=self.space.free,
                    jacobian=jacobian[i, order[i, :n]],
                    covariance=covariance[i],
                    at_bounds=at_bounds,
                    iterations=int(outcome.iterations[i]),
                    starts=self.n_starts,
                    starts_agreeing=int(outcome.agreeing[i]),
                    seconds=seconds,
                    warnings=fit_warnings(
                        n - int(used[i]),
                        int(used[i]),
                        len(self.space.free),
                        at_bounds,
                        bool(determined[i]),
                        float(outcome.gap[i]),
                    ),
                    objective="implied_vol" if self.in_vol else "price",
                    penalties=self.penalties,
                )
            )
        return fits


@dataclass(frozen=True)
class _Outcome:
    """The best start of each surface: tensors with the surfaces on the first axis."""

    x: Tensor
    p: Tensor
    cost: Tensor
    converged: Tensor
    stalled: Tensor
    iterations: Tensor
    agreeing: Tensor
    vol: Tensor
    jacobian: Tensor
    normal: Tensor
    gap: Tensor

    def updated(self, rows: Tensor, other: _Outcome) -> _Outcome:
        """A copy with some rows from a later, finer solve; how many starts agreed stays what it was."""
        later = replace(other, agreeing=self.agreeing[rows], iterations=self.iterations[rows] + other.iterations)
        mixed = {f.name: getattr(self, f.name).index_copy(0, rows, getattr(later, f.name)) for f in fields(self)}
        return _Outcome(**mixed)


def _thinned(surface: Surface) -> Surface:
    """About `_EXPLORE_QUOTES` quotes, evenly spaced by rank in each slice, its ends among them."""
    if len(surface) <= _EXPLORE_QUOTES:
        return surface
    per_slice = max(5, _EXPLORE_QUOTES // len(surface.slices))
    rank, size = rank_in_slice(surface.quotes["slice"].to_numpy())
    bucket = rank * (per_slice - 1) // np.maximum(size - 1, 1)
    previous = (rank - 1) * (per_slice - 1) // np.maximum(size - 1, 1)
    return surface.select((rank == 0) | (bucket != previous))


def _exact_vols(space: Space, p: Tensor, data: Data, engine: Fourier) -> Tensor:
    """Vols [S, E, K] by the verified quadrature at parameters [S, P]; NaN for surfaces where it does not converge."""
    try:
        return model_vols(space.with_free(p), data.t, torch.exp(data.k), 1.0, engine)
    except NumericsError:
        if p.shape[0] == 1:
            return torch.full_like(data.k, torch.nan)
        rows = torch.arange(p.shape[0]).split(1)
        return torch.cat([_exact_vols(space, p[row], data.rows(row), engine) for row in rows])


def _in_quote_order(position: Tensor) -> Tensor:
    """For each surface, where in the padded grid its quotes are, in the order of `surface.quotes`: [S, E K]."""
    flat = position.flatten(1)
    return torch.where(flat >= 0, flat, flat.shape[1]).argsort(-1)


def _status(outcome: _Outcome, i: int) -> FitStatus:
    if not bool(torch.isfinite(outcome.cost[i])):
        return FitStatus.FAILED
    if not float(outcome.gap[i]) <= _INACCURATE:
        return FitStatus.INACCURATE
    if bool(outcome.converged[i]):
        return FitStatus.CONVERGED
    return FitStatus.STALLED if bool(outcome.stalled[i]) else FitStatus.MAX_ITERATIONS
