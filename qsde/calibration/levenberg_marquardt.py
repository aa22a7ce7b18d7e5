"""Levenberg-Marquardt on a whole batch of least-squares problems at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

#: `residuals(x [S, n, P], surfaces [S]) -> (r [S, n, Q], J [S, n, Q, P])`
Residuals = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

#: Cost that counts as an exact fit: a residual (in vol) of 1e-9, near the rounding of implied vols.
_ZERO_COST = 1e-18


@dataclass(frozen=True)
class Solution:
    """State of every problem when the solver stopped.

    Attributes:
        x: unknowns [S, n, P].
        cost: sum of squared residuals [S, n]; inf where no finite residual was ever seen.
        converged: [S, n] bool, by the tests of `solve`.
        stalled: [S, n] bool: damping grew to its limit without a better point.
        iterations: [S, n] int64, trial points evaluated.
    """

    x: Tensor
    cost: Tensor
    converged: Tensor
    stalled: Tensor
    iterations: Tensor


def solve(
    residuals: Residuals,
    x: Tensor,
    max_iterations: int,
    cost_tolerance: float = 1e-8,
    step_tolerance: float = 1e-7,
    gradient_tolerance: float = 1e-8,
    max_step: float = 2.0,
    on_iteration: Callable[[int], None] | None = None,
) -> Solution:
    """Minimises the sum of squares of each of S x n problems, which share nothing but the clock.

    S indexes data sets (surfaces) and n starts on the same data. Damping follows Nielsen (1999), "Damping parameter in
    Marquardt's method", on Marquardt's diagonal scaling. A problem has converged when an accepted step lowers its cost
    by less than `cost_tolerance` (relative) with the model of the cost agreeing, when a step that heavy damping did not
    shorten is below `step_tolerance` or changes the cost by less than `cost_tolerance`, when the cosine between
    residuals and Jacobian columns is below `gradient_tolerance`, or when the cost is 0 to rounding. Data sets whose
    problems have all ended are dropped from later evaluations.

    Args:
        residuals: residuals and Jacobian at x, for the data sets whose indices are given.
        x: starting points [S, n, P].
        max_iterations: trial points per problem.
        cost_tolerance: relative gain below which an accepted step ends the search.
        step_tolerance: step below which the search ends.
        gradient_tolerance: cosine between residuals and Jacobian columns below which the search ends.
        max_step: largest change of any unknown in one step.
        on_iteration: called after each iteration with its number.
    """
    state = _State.start(residuals, x)
    for iteration in range(max_iterations):
        rows = torch.nonzero(state.active.any(1)).squeeze(-1)
        if rows.numel() == 0:
            break
        columns = torch.nonzero(state.active[rows].any(0)).squeeze(-1)
        state.advance(residuals, rows, columns, cost_tolerance, step_tolerance, gradient_tolerance, max_step)
        if on_iteration is not None:
            on_iteration(iteration + 1)
    return Solution(state.x, state.cost, state.converged, state.stalled, state.iterations)


@dataclass
class _State:
    x: Tensor
    cost: Tensor
    normal: Tensor
    gradient: Tensor
    damping: Tensor
    growth: Tensor
    active: Tensor
    converged: Tensor
    stalled: Tensor
    iterations: Tensor

    @classmethod
    def start(cls, residuals: Residuals, x: Tensor) -> _State:
        cost, normal, gradient = _normal_equations(*residuals(x, torch.arange(x.shape[0])))
        flags = torch.zeros(x.shape[:2], dtype=torch.bool)
        return cls(
            x.clone(), cost, normal, gradient, torch.full_like(cost, 1e-2), torch.full_like(cost, 2.0),
            torch.isfinite(cost), flags, flags.clone(), torch.zeros(x.shape[:2], dtype=torch.int64),
        )  # fmt: skip

    def advance(
        self, residuals: Residuals, rows: Tensor, columns: Tensor,
        cost_tol: float, step_tol: float, gradient_tol: float, max_step: float,
    ) -> None:  # fmt: skip
        at = (rows.unsqueeze(1), columns.unsqueeze(0))
        x, cost, normal, gradient = self.x[at], self.cost[at], self.normal[at], self.gradient[at]
        damping, growth, active = self.damping[at], self.growth[at], self.active[at]
        diagonal = normal.diagonal(dim1=-2, dim2=-1)
        scale = torch.maximum(diagonal, 1e-12 * diagonal.amax(-1, keepdim=True) + 1e-300) * damping.unsqueeze(-1)
        step, _ = torch.linalg.solve_ex(normal + torch.diag_embed(scale), -gradient)
        step = torch.nan_to_num(step, nan=0.0, posinf=0.0, neginf=0.0).clamp(-max_step, max_step)
        trial = x + step
        new_cost, new_normal, new_gradient = _normal_equations(*residuals(trial, rows))
        predicted = -(step * (2 * gradient + (normal @ step.unsqueeze(-1)).squeeze(-1))).sum(-1)
        gain = (cost - new_cost) / predicted.clamp(min=1e-300)
        better = active & (new_cost < cost)

        small_gain = better & (cost - new_cost <= cost_tol * cost) & (predicted <= 10 * cost_tol * cost)
        # A step that heavy damping made small says nothing: only one that is small by itself, or lowers the cost.
        undamped = better | (damping <= 1)
        small_step = active & undamped & (step.abs().amax(-1) <= step_tol) & (predicted <= 1e3 * cost_tol * cost)
        no_gain = (
            active & (damping <= 1) & (predicted <= cost_tol * cost) & ((new_cost - cost).abs() <= cost_tol * cost)
        )
        accepted_gradient = torch.where(better.unsqueeze(-1), new_gradient, gradient)
        accepted_diagonal = torch.where(better.unsqueeze(-1), new_normal.diagonal(dim1=-2, dim2=-1), diagonal)
        accepted_cost = torch.where(better, new_cost, cost)
        cosine = accepted_gradient.abs() / torch.sqrt(
            accepted_diagonal * accepted_cost.unsqueeze(-1)
        ).clamp(min=1e-300)  # fmt: skip
        flat = active & ((cosine.amax(-1) <= gradient_tol) | (accepted_cost <= _ZERO_COST))
        converged = small_gain | small_step | no_gain | flat

        shrink = torch.clamp(1 - (2 * gain - 1) ** 3, min=1 / 3)
        damping = torch.where(better, damping * shrink, damping * growth).clamp(min=1e-15)
        growth = torch.where(better, torch.full_like(growth, 2.0), growth * 2)
        stalled = active & ~converged & (damping > 1e12)

        self.x[at] = torch.where(better.unsqueeze(-1), trial, x)
        self.cost[at] = accepted_cost
        self.normal[at] = torch.where(better[..., None, None], new_normal, normal)
        self.gradient[at] = accepted_gradient
        self.damping[at], self.growth[at] = damping, growth
        self.iterations[at] = self.iterations[at] + active
        self.converged[at] = self.converged[at] | converged
        self.stalled[at] = self.stalled[at] | stalled
        self.active[at] = active & ~converged & ~stalled


def _normal_equations(r: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    cost = (r * r).sum(-1)
    transposed = jacobian.mT
    normal = transposed @ jacobian
    gradient = (transposed @ r.unsqueeze(-1)).squeeze(-1)
    finite = torch.isfinite(cost) & torch.isfinite(gradient).all(-1) & torch.isfinite(normal).all(-1).all(-1)
    cost = torch.where(finite, cost, torch.full_like(cost, torch.inf))
    normal = torch.where(finite[..., None, None], normal, torch.zeros_like(normal))
    return cost, normal, torch.where(finite.unsqueeze(-1), gradient, torch.zeros_like(gradient))
