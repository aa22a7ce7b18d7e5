"""How the parameters of a fit move with the quotes, by the implicit function theorem through the least squares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from qsde.calibration.fit import Fit
from qsde.calibration.levenberg_marquardt import solve
from qsde.calibration.objective import Data, Objective
from qsde.calibration.penalties import Penalty
from qsde.calibration.space import Space
from qsde.errors import InputError, NumericsError
from qsde.models.base import Model, fourier_model

Hessian = Literal["full", "gauss-newton"]

#: Moves of the differences of exact first derivatives: of the unknowns, and as a share of each vol.
_MOVE, _VOL_MOVE = 3e-4, 1e-4
#: Fall of the cost by one Gauss-Newton step, as a share of the cost and in squared vols, that a minimum may leave.
_LEFT, _LEFT_VOL = 1e-5, 1e-13
#: Iterations of a recalibration, which starts next to its end, its last Newton steps, and the least that they may be.
_ITERATIONS, _POLISH, _SETTLED = 500, 3, 1e-7
#: Least curvature of the cost over the largest, both on the scale of each parameter.
_LEAST_CURVATURE = 1e-13


def quote_jacobian(fit: Fit, hessian: Hessian = "full") -> Tensor:
    r"""`d parameter / d quote` [free, quotes]: how far recalibration moves each parameter per 1.00 of a quoted vol.

    A fit minimises half the sum of squares of `r(p, q)`: the weighted errors of all quotes and the penalties. At the
    minimum `g(p, q) = J^T r = 0` with `J = dr/dp`, so that

        dp/dq = -H^{-1} dg/dq,    H = dg/dp = J^T J + sum_i r_i d2 r_i / dp dp.

    Gauss-Newton leaves out the sum, which is right where residuals are small against the curvature of the vols; the
    full Hessian is what recalibration to a moved quote follows in every case. `dg/dq` and the sum are central
    differences of the exact first derivatives.

    Held fixed: forwards, discount factors, weights, penalties, fixed parameters, and parameters at a bound, which stay
    there as long as the move is small (their rows are 0).

    Args:
        fit: a converged fit.
        hessian: "full" or "gauss-newton"; fits by simulation know their Jacobian only, and take the second.

    Raises:
        InputError: the fit did not converge, or is no minimum of what it says it minimised, or is one by simulation
            and the full Hessian is asked for.
        NumericsError: the quotes do not determine the parameters.

    References:
        M. Henrard, Adjoint algorithmic differentiation: calibration and implicit function theorem, OpenGamma
        Quantitative Research 1 (2011); M. Giles and P. Glasserman, Smoking adjoints: fast Monte Carlo Greeks, Risk
        (January 2006).

    Example:
        >>> from qsde.calibration import calibrate
        >>> from qsde.market.surface import Surface
        >>> from qsde.models import BlackScholes
        >>> surface = Surface.from_vols(t=[0.5, 1.0], strike=[90.0, 110.0], iv=[0.21, 0.19], forward=100.0)
        >>> fit = calibrate(BlackScholes(0.3), surface, weights="equal")
        >>> quote_jacobian(fit)                                             # the fit is the mean of the two vols
        tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    if hessian not in get_args(Hessian):
        raise InputError(f"hessian must be 'full' or 'gauss-newton', got {hessian!r}")
    if fit.simulation is not None:
        return _of_simulated(fit, hessian)
    moving, problem = _problem(fit)
    problem.check_minimum()
    curvature = problem.curvature(hessian, problem.solution)
    _check_determined(curvature, problem.space.free)
    jacobian = torch.zeros(len(fit.free), len(fit.surface), dtype=torch.float64)
    slope = problem.space.slope(problem.space.to_params(problem.solution)).unsqueeze(-1)
    return jacobian.index_copy(0, moving, slope * torch.linalg.solve(curvature, -problem.mixed()))


def recalibrated(fit: Fit, move: ArrayLike) -> Model:
    """The model after the quotes have moved: the minimum that the fit's own goes to, found by iteration.

    What `quote_jacobian` is the derivative of, with the same things held fixed.

    Args:
        fit: a converged fit.
        move: changes of the quoted implied vols, one for each row of `fit.surface.quotes`, or one for all; small
            against what would send a parameter to a bound or to another minimum.

    Raises:
        InputError: the fit did not converge, or a move leaves a vol that is not positive.
        NumericsError: the search did not end.

    Example:
        >>> from qsde.calibration import calibrate
        >>> from qsde.market.surface import Surface
        >>> from qsde.models import BlackScholes
        >>> surface = Surface.from_vols(t=[0.5, 1.0], strike=[90.0, 110.0], iv=[0.21, 0.19], forward=100.0)
        >>> fit = calibrate(BlackScholes(0.3), surface, weights="equal")
        >>> round(float(recalibrated(fit, [0.01, 0.0]).vol), 6)
        0.205
    """
    shift = np.broadcast_to(np.asarray(move, dtype=float), (len(fit.surface),))
    if not (np.isfinite(shift).all() and (fit.surface.quotes["iv"].to_numpy(float) + shift > 0).all()):
        raise InputError("move: every quoted vol must stay finite and positive")
    if fit.simulation is not None:
        raise InputError("the fit is one by simulation; calibrate it again to the moved surface")
    _, problem = _problem(fit)
    data = problem.objective.data
    moved = torch.where(data.position >= 0, torch.tensor(shift.copy())[data.position.clamp(min=0)], 0.0)
    problem = replace(problem, objective=problem.requoted(data.vol + moved, fit.penalties or ()))
    start = problem.solution.reshape(1, 1, -1)
    found = solve(problem.objective.residuals, start, _ITERATIONS, cost_tolerance=1e-13, step_tolerance=1e-10)
    x = found.x[0, 0]
    for _ in range(_POLISH):  # costs that agree to the last digit leave half of the digits of the unknowns open
        step, _ = torch.linalg.solve_ex(problem.curvature("full", x), problem.gradient(x))
        x = x - step
    if not float(step.abs().max()) < _SETTLED:
        raise NumericsError("recalibration did not settle; make the move smaller")
    return problem.space.with_free(problem.space.to_params(x))


def _problem(fit: Fit) -> tuple[Tensor, _LeastSquares]:
    """Which of the fitted parameters move with the quotes, and the least squares in them."""
    moving = _moving(fit)
    return moving, _LeastSquares.of(fit, tuple(fit.free[i] for i in moving.tolist()))


def _of_simulated(fit: Fit, hessian: Hessian) -> Tensor:
    """`quote_jacobian` from the Jacobian that a fit by simulation brings."""
    if hessian == "full":
        raise InputError(
            "the fit is one by simulation, without second derivatives: pass hessian='gauss-newton', which is right as "
            "far as the model fits its quotes, or calibrate without engine=MonteCarlo(...)"
        )
    moving = _moving(fit)
    weight = torch.tensor(fit.weight).unsqueeze(-1) / math.sqrt(len(fit.surface))
    weighted = weight * fit.jacobian[:, moving]
    rows = torch.cat([weighted, *(_slope(penalty, fit, moving) for penalty in fit.penalties or ())])
    curvature = rows.mT @ rows
    _check_determined(curvature, [fit.free[i] for i in moving.tolist()])
    moved = torch.linalg.solve(curvature, (weight * weighted).mT)
    return torch.zeros(len(fit.free), len(fit.surface), dtype=torch.float64).index_copy(0, moving, moved)


def _slope(penalty: Penalty, fit: Fit, moving: Tensor) -> Tensor:
    """Derivatives of a penalty's residuals to the parameters that move [m, P]."""
    names = [fit.free[i] for i in moving.tolist()]
    at = torch.stack([fit.model.params[name].detach() for name in names])

    def residuals(p: Tensor) -> Tensor:
        return penalty(fit.model.params | dict(zip(names, p.unbind(), strict=True)))

    slope: Tensor = torch.autograd.functional.jacobian(residuals, at)
    return slope


def _moving(fit: Fit) -> Tensor:
    """Which of the fitted parameters move with the quotes."""
    if not fit.status.converged:
        raise InputError(f"the fit did not converge ({fit.status.value}), so quotes have no sensitivity through it")
    moving = [i for i, name in enumerate(fit.free) if name not in fit.at_bounds]
    if not moving:
        raise InputError("every fitted parameter is at a bound: nothing moves with the quotes; widen the bounds")
    return torch.tensor(moving)


@dataclass(frozen=True)
class _LeastSquares:
    """The calibration's own problem at its solution.

    Attributes:
        objective: residuals of the calibration.
        space: the parameters that move with the quotes.
        solution: the unknowns of the fit [P].
    """

    objective: Objective
    space: Space
    solution: Tensor

    @classmethod
    def of(cls, fit: Fit, names: tuple[str, ...]) -> _LeastSquares:
        model = fourier_model(fit.model)
        p = torch.stack([model.params[name].detach() for name in names])
        lower, upper = torch.tensor([_bounds(fit, name) for name in names], dtype=torch.float64).T
        space = Space(model, names, lower, upper)
        data = Data.of([fit.surface], "equal")
        weight = torch.tensor(fit.weight)[data.position.clamp(min=0)] / math.sqrt(len(fit.surface))
        data = replace(data, weight=torch.where(data.position >= 0, weight, 0.0))
        in_vol = fit.objective == "implied_vol"
        objective = Objective(data, space, fit.penalties or (), in_vol, 2 * data.nodes)
        return cls(objective, space, torch.logit((p - lower) / (upper - lower)))

    def residuals(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Residuals [n, R] and Jacobians [n, R, P] at unknowns [n, P]; quotes first, penalties last."""
        r, jacobian = self.objective.residuals(x.unsqueeze(0), torch.tensor([0]))
        return r[0], jacobian[0]

    def gradient(self, x: Tensor) -> Tensor:
        """Gradient [P] of half the cost at unknowns [P]."""
        r, jacobian = self.residuals(x.unsqueeze(0))
        return (jacobian.mT @ r.unsqueeze(-1)).flatten()

    def curvature(self, hessian: Hessian, x: Tensor) -> Tensor:
        """Hessian [P, P] of half the cost at unknowns [P]."""
        n = len(x)
        if hessian == "gauss-newton":
            _, jacobian = self.residuals(x.unsqueeze(0))
            return jacobian[0].mT @ jacobian[0]
        step = _MOVE * torch.eye(n, dtype=torch.float64)
        r, jacobian = self.residuals(torch.cat([x + step, x - step]))
        up, down = (jacobian.mT @ r.unsqueeze(-1)).squeeze(-1).split(n)
        found: Tensor = (up - down) / (2 * _MOVE)
        return 0.5 * (found + found.mT)

    def mixed(self) -> Tensor:
        """`dg/dq`, [P, quotes], per 1.00 of each quoted vol. A residual depends on its own quote only."""
        data = self.objective.data
        move = _VOL_MOVE * data.vol
        up, down = (self._by_quote(data.vol + sign * move) for sign in (1, -1))
        slots = ((up - down) / (2 * move.reshape(-1, 1))).mT
        order = torch.where(data.position >= 0, data.position, data.position.numel()).flatten().argsort()
        return slots[:, order[: int((data.position >= 0).sum())]]

    def _by_quote(self, vol: Tensor) -> Tensor:
        """The part of the gradient that each quote brings, [slots, P], with other quoted vols."""
        r, jacobian = self.requoted(vol, ()).residuals(self.solution.reshape(1, 1, -1), torch.tensor([0]))
        return r[0, 0].unsqueeze(-1) * jacobian[0, 0]

    def requoted(self, vol: Tensor, penalties: Sequence[Penalty]) -> Objective:
        """The same residuals with other quoted vols, on the same quadrature nodes."""
        moved = Objective(replace(self.objective.data, vol=vol), self.space, penalties, self.objective.in_vol, 2)
        moved.grid = self.objective.grid
        return moved

    def check_minimum(self) -> None:
        """Raises InputError if a Gauss-Newton step would still lower the cost."""
        r, jacobian = (x[0] for x in self.residuals(self.solution.unsqueeze(0)))
        step = torch.linalg.pinv(jacobian, rtol=1e-9) @ r
        fall, cost = float((jacobian @ step).square().sum()), float(r.square().sum())
        if fall > _LEFT * cost + _LEFT_VOL:
            raise InputError(
                f"the fit is not a minimum of its weighted quotes (a step would lower the cost by {fall / cost:.1e} of "
                "it); if it was read from a file, say what it minimised: "
                "dataclasses.replace(fit, objective=..., penalties=...)"
            )


def _bounds(fit: Fit, name: str) -> tuple[float, float]:
    """Those of the parameter table, made wider where the fit had wider ones and needed them."""
    value, (low, high) = float(fit.model.params[name]), fit.model.table[name].bounds
    if low < value < high:
        return low, high
    margin = 0.1 * max(abs(value), 1e-4)
    return min(low, value - margin), max(high, value + margin)


def _check_determined(curvature: Tensor, names: Sequence[str]) -> None:
    scale = torch.sqrt(curvature.diagonal().abs()).clamp(min=1e-150)
    values, vectors = torch.linalg.eigh(curvature / torch.outer(scale, scale))
    if float(values[0]) > _LEAST_CURVATURE * float(values[-1]):
        return
    most = int((vectors[:, 0] / scale).abs().argmax())
    raise NumericsError(
        f"the quotes do not determine the parameters {', '.join(names)}: the cost is flat or not a minimum, most of "
        f"all along {names[most]}; fix it in the calibration, or give a prior"
    )
