"""Prices of all vanillas under a local volatility from one solution of Dupire's forward equation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import expm, solve_banded

from qsde.calibration.jump_generator import jump_generator, jump_reach
from qsde.models.jumps import JumpLaw

Floats = NDArray[np.float64]
#: First steps, which the kink of the payoff would make ring, are implicit and this many.
_DAMPED = 4
#: Spacing at the forward, in deviations of the first expiry, times the number of points.
_FINE = 25.0


@dataclass(frozen=True)
class ForwardEquation:
    """Finite differences for `u_T = L^2(T, log y) y^2 u_yy / 2`, undiscounted calls over the forward at `y = K / F`.

    Second differences on a grid that need not be even; Crank-Nicolson steps after a few implicit ones. With jumps, of
    which each adds `jump_generator`, half of a step's jumps come before and half after it, exactly. Second order in
    both directions. Straight lines stay, so that the forward is priced exactly.

    Attributes:
        y: grid of strikes over the forward, from far below 1 to far above.
        starts, ends: of the steps, years.
        expiries: years at which prices are wanted, ends of steps.
        jumps: laws of the jumps of the log-price.

    References:
        B. Dupire, Pricing with a smile, Risk 7 (1994); J. Andreasen and B. Huge, Volatility interpolation, Risk (March
        2011).

    Example:
        >>> grid = ForwardEquation.of([0.5, 1.0], vol=0.2)
        >>> prices, _ = grid.solve(lambda t, x: (0.04 * np.ones_like(x), np.zeros((len(x), 0))))
        >>> round(float(np.interp(1.0, grid.y, prices[1])), 3)                        # Black: 0.0797
        0.08
    """

    y: Floats
    starts: Floats
    ends: Floats
    expiries: tuple[float, ...]
    jumps: tuple[JumpLaw, ...] = ()

    @classmethod
    def of(
        cls,
        expiries: Sequence[float],
        vol: float,
        points: int = 401,
        steps: int = 32,
        far: float = 7.0,
        jumps: Sequence[JumpLaw] = (),
    ) -> ForwardEquation:
        """A grid for expiries (years, increasing).

        Args:
            expiries: when prices are wanted.
            vol: a typical volatility, decimal.
            points: points of the grid.
            steps: steps to the first expiry; between expiries their share of the time to the later one, 4 at least.
            far: ends of the grid in deviations of the last expiry, and beyond by what jumps reach.
            jumps: laws of the jumps.
        """
        reach = far * vol * np.sqrt(expiries[-1]) + max((jump_reach(law) for law in jumps), default=0.0)
        fine = _FINE * vol * np.sqrt(expiries[0]) / points
        # sinh spacing whose step at the forward is `fine`
        stretched = np.linspace(-1, 1, points)
        low, high = 1e-3, 50.0
        for _ in range(80):
            c = np.sqrt(low * high)
            low, high = (c, high) if reach / np.sinh(c) * c * 2 / (points - 1) > fine else (low, c)
        y = np.exp(reach * np.sinh(c * stretched) / np.sinh(c))
        nodes = [0.0]
        for i, end in enumerate(expiries):
            n = max(4, math.ceil(steps * (end - nodes[-1]) / end))
            # quadratic towards 0: the first prices change fastest
            share = (np.arange(1, n + 1) / n) ** (2 if i == 0 else 1)
            nodes.extend(nodes[-1] + share * (end - nodes[-1]))
        times = np.array(nodes)
        return cls(y, times[:-1], times[1:], tuple(expiries), tuple(jumps))

    def solve(self, local: Callable[[float, Floats], tuple[Floats, Floats]]) -> tuple[Floats, Floats]:
        """Calls [E, N] on the grid, and their derivatives [E, N, P].

        Args:
            local: from a time and points `log y` [N] to local variances [N] and their derivatives [N, P].
        """
        y, x = self.y, np.log(self.y)
        lower, upper = _second_difference(y)
        value = np.maximum(y - 1, 0.0)  # puts: straight lines, by which calls differ, stay
        slope: Floats | None = None
        found: list[tuple[Floats, Floats]] = []
        for i, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            variance, by_parameter = local(0.5 * (start + end), x)
            slope = np.zeros((len(y), by_parameter.shape[1])) if slope is None else slope
            value, slope = self._jumped(value, slope, i)
            value, slope = _step(value, slope, variance, by_parameter, 0.5 * (end - start) * y * y, lower, upper,
                                 1.0 if i < _DAMPED else 0.5)  # fmt: skip
            value, slope = self._jumped(value, slope, i)
            if any(abs(end - t) < 1e-12 for t in self.expiries):
                found.append((value + 1 - y, slope))
        return np.stack([v for v, _ in found]), np.stack([s for _, s in found])

    def _jumped(self, value: Floats, slope: Floats, step: int) -> tuple[Floats, Floats]:
        """After the jumps of half a step."""
        if not self.jumps:
            return value, slope
        matrix = self._half_steps[step]
        return matrix @ value, matrix @ slope

    @cached_property
    def _half_steps(self) -> list[Floats]:
        """For each step, what the jumps of half of it do to prices [N, N]."""
        speed = sum(jump_generator(law, self.y) for law in self.jumps)
        sizes, which = np.unique((self.ends - self.starts).round(12), return_inverse=True)
        matrices = [expm(0.5 * size * speed) for size in sizes]
        return [matrices[i] for i in which]


def _second_difference(y: Floats) -> tuple[Floats, Floats]:
    """Weights of the neighbours below and above in the second derivative, 0 at both ends."""
    gap = np.diff(y)
    lower, upper = np.zeros_like(y), np.zeros_like(y)
    lower[1:-1] = 2 / (gap[:-1] * (gap[:-1] + gap[1:]))
    upper[1:-1] = 2 / (gap[1:] * (gap[:-1] + gap[1:]))
    return lower, upper


def _step(
    value: Floats, slope: Floats, variance: Floats, by_parameter: Floats, half: Floats, lower: Floats, upper: Floats,
    implicit: float,
) -> tuple[Floats, Floats]:  # fmt: skip
    """One step: `(1 - w A) u' = (1 + (1 - w) A) u`, `A = half L^2 D^2`, and its derivatives."""

    def curvature(u: Floats) -> Floats:
        out = np.zeros_like(u)
        low, up = (w[1:-1].reshape(-1, *(1,) * (u.ndim - 1)) for w in (lower, upper))
        out[1:-1] = low * u[:-2] - (low + up) * u[1:-1] + up * u[2:]
        return out

    rate = half * variance
    bands = np.zeros((3, len(value)))
    bands[0, 1:] = -(implicit * rate * upper)[:-1]
    bands[1] = 1 + implicit * rate * (lower + upper)
    bands[2, :-1] = -(implicit * rate * lower)[1:]
    bent = curvature(value)
    new = solve_banded((1, 1), bands, value + (1 - implicit) * rate * bent, check_finite=False)
    mixed = half * (implicit * curvature(new) + (1 - implicit) * bent)
    moving = np.flatnonzero(by_parameter.any(0) | slope.any(0))  # parameters of later times have not moved anything yet
    mine, moved = slope[:, moving], np.zeros_like(slope)
    right = mine + (1 - implicit) * rate[:, None] * curvature(mine) + mixed[:, None] * by_parameter[:, moving]
    if len(moving):
        moved[:, moving] = solve_banded((1, 1), bands, right, check_finite=False)
    return new, moved
