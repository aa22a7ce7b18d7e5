"""From surfaces to fits: explore from many starts, refine the best, verify with exact prices, report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.levenberg_marquardt import Solution, solve
from qsde.calibration.objective import FAR, Data, Objective, rank_in_slice
from qsde.calibration.penalties import Penalty
from qsde.calibration.space import Space
from qsde.errors import FitStatus, InputError, NumericsError, QuoteError
from qsde.market.surface import Surface
from qsde.models.base import Model
from qsde.pricing.fourier import Fourier, model_vols

Weights = str | Callable[[pd.DataFrame], np.ndarray]
Progress = Callable[[int, int], None]

#: Iterations of every start before the best are kept, and how many are kept.
_EXPLORE, _KEEP = 12, 4
#: Quadrature nodes of the residuals: more until the exact prices agree to _AGREE (in vol).
_MAX_NODES, _AGREE, _INACCURATE = 2048, 1e-5, 1e-3
#: Starts are explored on about this many quotes of a larger surface, within this many standard deviations.
_EXPLORE_QUOTES, _EXPLORE_FAR = 300, 12.0
#: Complex numbers that one evaluation may hold at once; longer lists of surfaces are fitted in chunks.
_CHUNK = 8_000_000


def calibrate(
    model: Model,
    surface: Surface,
    *,
    weights: Weights = "spread",
    objective: str = "implied_vol",
    starts: int | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    penalties: Sequence[Penalty] = (),
    max_iterations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit:
    """Fits a model with a characteristic function to one surface by weighted least squares.

    Args:
        model: template: its type says what to fit, its parameter values are the first start.
        surface: the quotes.
        weights: "spread" (`1 / sqrt(half_spread^2 + (50 bp)^2)` in vol), "equal", or a function from
            `surface.quotes` to one weight per quote.
        objective: "implied_vol" minimises errors of implied vol, "price" errors of price divided by market vega.
        starts: starting points, the template among them; by default 8, and 4 more for each parameter beyond 5.
        bounds: bounds by parameter name, in place of those of the model's table.
        fixed: names of parameters to keep at the template's value, or a mapping of names to values.
        penalties: soft constraints such as `Feller()` and `Prior(...)`.
        max_iterations: Levenberg-Marquardt iterations of the final stage.
        seed: seed of the extra starts; same seed, same digits.
        progress: called with (done, total) as the work goes on.

    Returns:
        The fit. One that did not converge says so in `status`; nothing is raised for it.

    Raises:
        InputError: an argument makes no sense; the message names it.
        QuoteError: the surface is empty.

    Example:
        >>> from qsde.models import Heston
        >>> t = np.repeat([0.25, 1.0], 7)
        >>> strike = np.tile(np.linspace(80, 120, 7), 2)
        >>> truth = Heston(v0=0.04, kappa=2.0, theta=0.06, sigma=0.5, rho=-0.6)
        >>> iv = model_vols(truth, torch.tensor([0.25, 1.0]), torch.tensor(strike[:7]), 100.0).flatten().numpy()
        >>> fit = calibrate(Heston.typical(), Surface.from_vols(t, strike, iv, forward=100.0))
        >>> fit.status.converged, {name: round(value, 4) for name, value in fit.params.items()}
        (True, {'v0': 0.04, 'kappa': 2.0, 'theta': 0.06, 'sigma': 0.5, 'rho': -0.6})
    """
    return calibrate_many(
        model, [surface], weights=weights, objective=objective, starts=starts, bounds=bounds, fixed=fixed,
        penalties=penalties, max_iterations=max_iterations, seed=seed, progress=progress,
    )[0]  # fmt: skip


def calibrate_many(
    model: Model,
    surfaces: Sequence[Surface],
    *,
    weights: Weights = "spread",
    objective: str = "implied_vol",
    starts: int | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    fixed: Sequence[str] | Mapping[str, float] = (),
    penalties: Sequence[Penalty] = (),
    max_iterations: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Fit]:
    """Fits the same model to many surfaces as one tensor problem; arguments as in `calibrate`, one fit per surface.

    The result for a surface does not depend on the others in the list beyond rounding.
    """
    if objective not in ("implied_vol", "price"):
        raise InputError(f"objective must be 'implied_vol' or 'price', got {objective!r}")
    if starts is not None and starts < 1:
        raise InputError(f"starts must be at least 1, got {starts}")
    if max_iterations < 1:
        raise InputError(f"max_iterations must be at least 1, got {max_iterations}")
    for surface in surfaces:
        if len(surface) == 0:
            raise QuoteError(f"{surface.name}: the surface has no quotes to calibrate to")
    space = Space.of(model, bounds, fixed)
    n_starts = starts or (8 + 4 * max(0, len(space.free) - 5) if len(space.free) > 1 else 1)
    job = _Job(space, weights, tuple(penalties), objective == "implied_vol", n_starts, max_iterations, seed)
    chunks = _chunks(surfaces, n_starts * 64 * (12 + len(space.free)))
    report = progress or (lambda done, total: None)
    fits: list[Fit] = []
    for i, chunk in enumerate(chunks):
        fits.extend(job.run(chunk, _stage(report, 100 * i, 100 * len(chunks))))
    return fits


@dataclass(frozen=True)
class _Job:
    space: Space
    weights: Weights
    penalties: tuple[Penalty, ...]
    in_vol: bool
    n_starts: int
    max_iterations: int
    seed: int

    def run(self, surfaces: Sequence[Surface], progress: Callable[[float], None]) -> list[Fit]:
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
            rows = rows[(found.gap > _AGREE) & (nodes <= _MAX_NODES)]
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
        p = self.space.to_params(x)
        data = objective.data
        vol, jacobian, vega = objective.vols(p.unsqueeze(1))
        exact = _exact_vols(self.space, p, data)
        gap = objective.quadrature_gap(p, exact, vega.squeeze(1))
        _, weighted = objective.residuals(x.unsqueeze(1), torch.arange(x.shape[0]))
        weighted = weighted.squeeze(1) / self.space.slope(p).unsqueeze(-2)
        exact = torch.where(torch.isnan(exact), vol.squeeze(1), exact)
        return _Outcome(x, p, cost, converged, stalled, iterations, agreeing, exact, jacobian.squeeze(1),
                        weighted.mT @ weighted, gap)  # fmt: skip

    def _fits(self, surfaces: Sequence[Surface], data: Data, outcome: _Outcome, seconds: float) -> list[Fit]:
        sizes = torch.tensor([len(surface) for surface in surfaces])
        used = (data.weight > 0).sum((-1, -2))
        freedom = used - len(self.space.free)
        variance = torch.where(freedom > 0, outcome.cost / freedom.clamp(min=1), torch.nan)
        covariance = _covariance(outcome.normal, variance)
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
                    warnings=_warnings(
                        n - int(used[i]),
                        int(used[i]),
                        len(self.space.free),
                        at_bounds,
                        bool(determined[i]),
                        float(outcome.gap[i]),
                    ),
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


def _exact_vols(space: Space, p: Tensor, data: Data) -> Tensor:
    """Vols [S, E, K] by the verified quadrature at parameters [S, P]; NaN for surfaces where it does not converge."""
    try:
        return model_vols(space.with_free(p), data.t, torch.exp(data.k), 1.0, Fourier(tolerance=1e-8))
    except NumericsError:
        if p.shape[0] == 1:
            return torch.full_like(data.k, torch.nan)
        rows = torch.arange(p.shape[0]).split(1)
        return torch.cat([_exact_vols(space, p[row], data.rows(row)) for row in rows])


def _in_quote_order(position: Tensor) -> Tensor:
    """For each surface, where in the padded grid its quotes are, in the order of `surface.quotes`: [S, E K]."""
    flat = position.flatten(1)
    return torch.where(flat >= 0, flat, flat.shape[1]).argsort(-1)


def _covariance(normal: Tensor, variance: Tensor) -> Tensor:
    """`variance * normal^-1` on the correlation scale; NaN where the data do not determine the parameters."""
    normal = torch.nan_to_num(normal, nan=0.0, posinf=0.0, neginf=0.0)
    scale = torch.sqrt(normal.diagonal(dim1=-2, dim2=-1)).clamp(min=1e-150)
    outer = scale.unsqueeze(-1) * scale.unsqueeze(-2)
    values, vectors = torch.linalg.eigh(normal / outer)
    known = (values[:, :1] > 1e-14 * values[:, -1:]).unsqueeze(-1)
    inverse = (vectors / values.clamp(min=1e-300).unsqueeze(-2)) @ vectors.mT
    return torch.where(known, variance[:, None, None] * inverse / outer, torch.nan)


def _status(outcome: _Outcome, i: int) -> FitStatus:
    if not bool(torch.isfinite(outcome.cost[i])):
        return FitStatus.FAILED
    if not float(outcome.gap[i]) <= _INACCURATE:
        return FitStatus.INACCURATE
    if bool(outcome.converged[i]):
        return FitStatus.CONVERGED
    return FitStatus.STALLED if bool(outcome.stalled[i]) else FitStatus.MAX_ITERATIONS


def _warnings(
    unused: int, used: int, free: int, at_bounds: tuple[str, ...], determined: bool, gap: float
) -> tuple[str, ...]:
    found = []
    if unused:
        found.append(f"{unused} quotes have weight 0 or lie over {FAR:g} standard deviations away: not in the fit")
    if used <= free:
        found.append(
            f"quotes in the fit: {used}, parameters: {free}; standard errors need more quotes than parameters: fix some"
        )
    elif not determined:
        found.append("the quotes do not determine all parameters: standard errors are not available; fix some")
    if at_bounds:
        found.append(f"at a bound: {', '.join(at_bounds)}; widen the bound or fix the parameter")
    if math.isnan(gap):
        found.append("the exact prices did not converge at the solution: model vols are those of the residuals")
    elif gap > _AGREE:
        found.append(f"the residuals' quadrature was off by up to {gap * 1e4:.2g} bp of vol at the solution")
    return tuple(found)


def _chunks(surfaces: Sequence[Surface], per_expiry: int) -> list[list[Surface]]:
    chunks: list[list[Surface]] = []
    held = 0
    for surface in surfaces:
        size = len(surface.slices) * per_expiry
        if not chunks or held + size > _CHUNK:
            chunks.append([])
            held = 0
        chunks[-1].append(surface)
        held += size
    return chunks


def _stage(progress: Progress, done: int, total: int) -> Callable[[float], None]:
    return lambda share: progress(done + round(100 * share), total)
