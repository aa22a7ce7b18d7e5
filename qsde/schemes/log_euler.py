"""Euler's scheme in the log-price, with full truncation of the variance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.models.heston import Heston
from qsde.schemes.base import Scheme, State
from qsde.schemes.exact import Exact
from qsde.schemes.layers import refusal
from qsde.schemes.rows import double, rows

#: Truncated variances stay above this, where the square root still has a derivative.
FLOOR = 1e-16
#: Largest weight of a squared normal in a log-price: at 1/2 a step would have no mean, at 1/4 it has no variance.
LARGEST_TILT = 0.25


@dataclass(frozen=True)
class LogEuler(Scheme):
    """Log-Euler: `x' = x - v+ dt / 2 + sqrt(v+ dt) z_s`, `v' = v + kappa (theta - v+) dt + sigma sqrt(v+ dt) z_v`.

    `v+ = max(v, 0)` in drift and diffusion (full truncation) and `z_s = rho z_v + sqrt(1 - rho^2) z_perp`. The variance
    may be negative between steps: its value is `v+`. `E[exp(x')] = exp(x)` holds exactly at every step size. For
    Black-Scholes it is the exact step.

    State `(x, v)` and normals `(z_perp, z_v)` for Heston, `(x,)` and one normal for Black-Scholes. Biased upwards where
    Feller is violated by a lot: there `HestonQE` needs far fewer steps.

    Reference:
        Lord, Koekkoek, van Dijk (2010), "A comparison of biased simulation schemes for stochastic volatility models",
        Quantitative Finance 10(2).

    Example:
        >>> LogEuler().draws(Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7), 0.01)
        (2, 0)
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5

    def check(self, model: Model) -> None:
        """Refuses everything but Black-Scholes and Heston."""
        if not isinstance(model, BlackScholes | Heston):
            raise refusal("LogEuler steps a BlackScholes or a Heston", model)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """One normal for Black-Scholes, two for Heston."""
        return (1 if isinstance(model, BlackScholes) else 2), 0

    def initial(self, model: Model) -> State:
        """`(0,)` or `(0, v0)`."""
        return Exact().initial(model) if isinstance(model, BlackScholes) else heston_start(model)

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """As `Exact`, or for Heston `[dt, sqrt(dt), rho, rho_perp, kappa dt, theta, sigma]`, each [*batch]."""
        if isinstance(model, BlackScholes):
            return Exact().coefficients(model, dt)
        p, dt = double(model, dt)
        return rows(model, *correlated(p, dt), p["kappa"] * dt, p["theta"], p["sigma"])

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step of either model, told apart by their states."""
        if len(state) == 1:
            return Exact().step(state, c, normals, uniforms)
        x, v = state
        reversion, theta, sigma = c[4], c[5], c[6]
        plus = v.clamp(min=FLOOR)
        root = torch.sqrt(plus) * c[1]
        return log_step(x, plus, root, c, normals), v + reversion * (theta - plus) + sigma * root * normals[1]

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`vol^2 dt`, or the trapezoidal rule for Heston."""
        if len(before) == 1:
            return Exact().variance(model, before, after, dt, t)
        return trapezoid(before[1], after[1], dt)

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor | None:
        """`rho sigma dt` for Heston."""
        return None if len(before) == 1 else heston_slope(model, before[0], dt)


def heston_start(model: Model) -> State:
    """`(0, v0)`."""
    v0 = model.params["v0"].expand(model.batch_shape)
    return torch.zeros_like(v0), v0


def correlated(p: dict[str, Tensor], dt: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`dt, sqrt(dt), rho, sqrt(1 - rho^2)`, the last with a finite derivative at rho = +-1."""
    rho = p["rho"]
    return dt, torch.sqrt(dt), rho, torch.sqrt((1 - rho * rho).clamp(min=FLOOR))


def log_step(x: Tensor, plus: Tensor, root: Tensor, c: Tensor, normals: Tensor) -> Tensor:
    """Euler step of the log-price with the variance frozen at `plus`, `root = sqrt(plus dt)`."""
    return x + (root * (c[2] * normals[1] + c[3] * normals[0]) - 0.5 * c[0] * plus)


def quadratic(e: Tensor, m: Tensor, z: Tensor) -> Tensor:
    """`e z + m z^2` less the logarithm of the mean of its exponential over a standard normal z; `m < 1/2`."""
    rest = 1 - 2 * m
    return z * (e + m * z) + 0.5 * (torch.log(rest) - e.square() / rest)


def trapezoid(before: Tensor, after: Tensor, dt: Tensor) -> Tensor:
    """Integral over a step of the variance, given its values at the ends; what is below 0 counts as 0."""
    return 0.5 * dt * (before.clamp(min=0) + after.clamp(min=0))


def heston_slope(model: Model, like: Tensor, dt: Tensor) -> Tensor:
    """`rho sigma dt`: how the variance of a step changes with the log-price at which the path is."""
    p = model.params
    return (p["rho"] * p["sigma"]).unsqueeze(-1).to(like) * dt
