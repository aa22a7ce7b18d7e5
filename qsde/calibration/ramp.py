"""Least squares on simulated prices: many starts on few paths, the best of them on more and more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from qsde.calibration.levenberg_marquardt import Residuals, Solution, solve
from qsde.errors import FitStatus, InputError
from qsde.noise import Antithetic, Noise
from qsde.pricing.engine import MonteCarlo
from qsde.solve.compiled import Compile

#: Stages of the search: the fraction of all paths that each takes, and how many starts it hands on.
_STAGES = ((64, 2), (8, 1), (1, 1))
#: No stage has fewer paths.
_FEWEST = 1 << 10
#: Iterations of all stages but the last.
_EXPLORE = 12
#: Relative gain of the cost that ends the search: with 100 quotes the rest is 0.03 standard errors of a parameter.
_COST_TOLERANCE = 1e-5
#: A search that finds nothing better is at its minimum if a Gauss-Newton step promises less than this (relative to the
#: cost, plus a hundredth of a basis point): prices are rough in the small, so the last step rarely keeps its promise.
_PROMISE, _NO_COST = 1e-4, 1e-12
#: Starts agree if their costs differ by less than this.
_SAME_COST = 1e-2
#: From about this many paths a kernel is compiled: the last stage runs it a dozen times on the same shape.
_WORTH_COMPILING = 1 << 15
#: Sets of fresh paths after the fit.
FRESH_SETS = 8


@dataclass(frozen=True)
class Ramped:
    """Where the search ended.

    Attributes:
        x: unknowns [P].
        cost: sum of squared residuals.
        status: how it ended.
        iterations: Levenberg-Marquardt iterations of the winner in all stages.
        agreeing: starts of the last stage that had several with nearly the cost of the best.
    """

    x: Tensor
    cost: float
    status: FitStatus
    iterations: int
    agreeing: int


def ramp(
    residuals: Callable[[MonteCarlo], Residuals],
    x: Tensor,
    engine: MonteCarlo,
    max_iterations: int,
    progress: Callable[[float], None],
) -> Ramped:
    """Minimises the residuals that an engine gives, from starts [1, n, P], with ever more of its paths.

    The paths of a stage are among those of the next, so each starts near its minimum, and the last, which costs most,
    takes a few iterations.
    """
    keep = {max(min(_FEWEST, engine.n_paths), engine.n_paths // share): count for share, count in _STAGES}
    iterations, agreeing = torch.zeros(x.shape[:2], dtype=torch.int64), 1
    for stage, (paths, count) in enumerate(keep.items()):
        last = paths == engine.n_paths
        limit = max_iterations if last else min(_EXPLORE, max_iterations)

        def tell(i: int, limit: int = limit, stage: int = stage) -> None:
            progress((stage + min(1.0, i / limit)) / len(keep))

        stage_engine = compiled(engine) if last else replace(engine, n_paths=paths, compile=_plain(engine))
        found = solve(residuals(stage_engine), x, limit, cost_tolerance=_COST_TOLERANCE, on_iteration=tell)
        if x.shape[1] > 1:
            agreeing = int((found.cost <= found.cost.amin() * (1 + _SAME_COST) + 1e-20).sum())
        best = found.cost[0].argsort()[: 1 if last else count]
        iterations = (iterations + found.iterations)[:, best]
        found = Solution(**{f.name: getattr(found, f.name)[:, best] for f in fields(found)})
        x = found.x
    status = _status(found)
    if status in (FitStatus.STALLED, FitStatus.MAX_ITERATIONS) and _at_minimum(residuals(compiled(engine)), x):
        status = FitStatus.CONVERGED
    return Ramped(x[0, 0], float(found.cost[0, 0]), status, int(iterations[0, 0]), agreeing)


def compiled(engine: MonteCarlo) -> MonteCarlo:
    """The engine for what runs many times on all paths."""
    many = engine.compile == "auto" and engine.n_paths >= _WORTH_COMPILING
    return replace(engine, compile="always") if many else engine


def fresh(engine: MonteCarlo) -> list[MonteCarlo]:
    """The same engine with other random numbers, `FRESH_SETS` times."""
    return [replace(engine, noise=_reseeded(engine.noise, i)) for i in range(1, FRESH_SETS + 1)]


def fresh_halved(engine: MonteCarlo) -> list[MonteCarlo]:
    """As `fresh`, again with other random numbers, with steps half as long and half the paths."""
    half = replace(engine, n_paths=max(2, engine.n_paths // 2), max_dt=engine.max_dt / 2)
    return [replace(half, noise=_reseeded(engine.noise, i)) for i in range(FRESH_SETS + 1, 2 * FRESH_SETS + 1)]


def _plain(engine: MonteCarlo) -> Compile:
    """Early stages change their shape too often to compile each, unless the user insists."""
    return "never" if engine.compile == "auto" else engine.compile


def _reseeded(noise: Noise, i: int) -> Noise:
    if isinstance(noise, Antithetic):
        return Antithetic(_reseeded(noise.noise, i))
    if not hasattr(noise, "seed"):
        raise InputError(f"{type(noise).__name__} has no seed, so a fit cannot be checked on fresh paths; use Threefry")
    other: Noise = replace(noise, seed=(noise.seed + i) % (1 << 64))  # type: ignore[type-var]
    return other


def _at_minimum(residuals: Residuals, x: Tensor) -> bool:
    """Whether an undamped step from x [1, 1, P] would gain nothing worth having."""
    r, jacobian = (v[0, 0] for v in residuals(x, torch.arange(1)))
    seen = jacobian @ torch.linalg.lstsq(jacobian, r.unsqueeze(-1), driver="gelsd").solution
    return bool(seen.square().sum() <= _PROMISE * r.square().sum() + _NO_COST)


def _status(found: Solution) -> FitStatus:
    if not bool(torch.isfinite(found.cost[0, 0])):
        return FitStatus.FAILED
    if bool(found.converged[0, 0]):
        return FitStatus.CONVERGED
    return FitStatus.STALLED if bool(found.stalled[0, 0]) else FitStatus.MAX_ITERATIONS
