"""Least squares on simulated prices: many starts on few paths, the best of them on more and more."""

from __future__ import annotations

import math
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
#: Relative gain of the cost that ends the damped search; Gauss-Newton steps finish it.
_COST_TOLERANCE = 1e-5
#: A search is at its minimum if a Gauss-Newton step promises to lower the cost by less than this, relative to the cost
#: plus (0.01 bp)^2: with 100 quotes it would move the parameters by 0.1 standard errors. Steps end at a tenth of it.
_PROMISE, _NO_COST = 1e-4, 1e-12
#: Gauss-Newton steps at most, how far one may go, and by how much the cost may rise: prices are rough in the small, so
#: that the cost of a step towards the minimum need not fall.
_STEPS, _LONGEST, _RISE = 6, 1.0, 1e-3
#: Starts agree if their costs differ by less than this.
_SAME_COST = 1e-2
#: From about this many paths a kernel is compiled: the last stage runs it a dozen times on the same shape.
_WORTH_COMPILING = 1 << 15
#: Sets of fresh paths after the fit, and of those with half the step.
FRESH_SETS, HALVED_SETS = 8, 4


@dataclass(frozen=True)
class Ramped:
    """Where the search ended.

    Attributes:
        x: unknowns [P].
        status: how it ended.
        iterations: Levenberg-Marquardt iterations of the winner in all stages.
        agreeing: starts of the last stage that had several with nearly the cost of the best.
    """

    x: Tensor
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
    x, at_minimum, steps = _finish(residuals(compiled(engine)), x)
    status = FitStatus.CONVERGED if at_minimum else _status(found)
    return Ramped(x[0, 0], status, int(iterations[0, 0]) + steps, agreeing)


def compiled(engine: MonteCarlo) -> MonteCarlo:
    """The engine for what runs many times on all paths."""
    many = engine.compile == "auto" and engine.n_paths >= _WORTH_COMPILING
    return replace(engine, compile="always") if many else engine


def fresh(engine: MonteCarlo) -> list[MonteCarlo]:
    """The same engine with other random numbers, `FRESH_SETS` times."""
    return [replace(compiled(engine), noise=reseeded(engine.noise, i)) for i in range(1, FRESH_SETS + 1)]


def fresh_halved(engine: MonteCarlo) -> list[MonteCarlo]:
    """As `fresh`, again with other random numbers, with steps half as long and half the paths."""
    half = replace(engine, n_paths=max(2, engine.n_paths // 2), max_dt=engine.max_dt / 2)
    return [replace(half, noise=reseeded(engine.noise, i)) for i in range(FRESH_SETS + 1, FRESH_SETS + HALVED_SETS + 1)]


def _plain(engine: MonteCarlo) -> Compile:
    """Early stages change their shape too often to compile each, unless the user insists."""
    return "never" if engine.compile == "auto" else engine.compile


def reseeded(noise: Noise, i: int) -> Noise:
    """The noise with another seed, the i-th after its own.

    Raises:
        InputError: it has none.
    """
    if isinstance(noise, Antithetic):
        return Antithetic(reseeded(noise.noise, i))
    if not hasattr(noise, "seed"):
        raise InputError(f"{type(noise).__name__} has no seed, so a fit cannot be checked on fresh paths; use Threefry")
    other: Noise = replace(noise, seed=(noise.seed + i) % (1 << 64))  # type: ignore[type-var]
    return other


def _finish(residuals: Residuals, x: Tensor) -> tuple[Tensor, bool, int]:
    """Undamped steps from x [1, 1, P]: where they lead, whether another promises little, and how many they were.

    Where the quotes hardly tell two parameters apart the damped search creeps, and gains too little to go on, long
    before it is there.
    """
    (r, jacobian), rows = residuals(x, torch.arange(1)), torch.arange(1)
    for steps in range(_STEPS + 1):
        cost = float(r.square().sum())
        if not (math.isfinite(cost) and bool(torch.isfinite(jacobian).all())):
            return x, False, steps
        solved = torch.linalg.lstsq(jacobian[0, 0], r[0, 0].unsqueeze(-1), rcond=1e-10, driver="gelsd").solution
        promise = float((jacobian[0, 0] @ solved).square().sum()) / (cost + _NO_COST)
        if promise <= 0.1 * _PROMISE or steps == _STEPS:
            break
        step = solved.squeeze(-1)
        trial = x - step * min(1.0, _LONGEST / float(step.abs().max()))
        new, new_jacobian = residuals(trial, rows)
        if not float(new.square().sum()) <= cost * (1 + _RISE) + _NO_COST:
            break
        x, r, jacobian = trial, new, new_jacobian
    return x, promise <= _PROMISE, steps


def _status(found: Solution) -> FitStatus:
    if not bool(torch.isfinite(found.cost[0, 0])):
        return FitStatus.FAILED
    if bool(found.converged[0, 0]):
        return FitStatus.CONVERGED
    return FitStatus.STALLED if bool(found.stalled[0, 0]) else FitStatus.MAX_ITERATIONS
