"""Drift-implicit Milstein scheme for the variance of Heston."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.models.heston import Heston
from qsde.schemes.base import Scheme, State
from qsde.schemes.layers import refusal
from qsde.schemes.log_euler import FLOOR, correlated, heston_slope, heston_start, log_step, trapezoid
from qsde.schemes.rows import double, rows


@dataclass(frozen=True)
class Milstein(Scheme):
    """Milstein's scheme for the variance with its drift taken implicitly, log-Euler for `x`.

    `v' = (v + kappa theta dt + sigma sqrt(v+ dt) z_v + sigma^2 dt (z_v^2 - 1) / 4) / (1 + kappa dt)`, `v+ = max(v, 0)`.
    It stays positive if `4 kappa theta >= sigma^2` (half of Feller); otherwise `v` may be negative between steps and
    its value is `v+`. The implicit drift keeps long steps stable. `E[exp(x')] = exp(x)` holds exactly.

    The strong order 1 is that of the variance, where 0 is out of reach; `x` is of order 1/2, since order 1 would need
    the Levy area of the two Brownian motions.

    State `(x, v)`, normals `(z_perp, z_v)`.

    Reference:
        Kahl, Jaeckel (2006), "Fast strong approximation Monte Carlo schemes for stochastic volatility models",
        Quantitative Finance 6(6).

    Example:
        >>> m = Heston(v0=0.04, kappa=1.5, theta=0.05, sigma=0.4, rho=-0.7)
        >>> Milstein().coefficients(m, torch.tensor(0.01)).shape
        torch.Size([7])
    """

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 1.0

    def check(self, model: Model) -> None:
        """Refuses everything but Heston."""
        if not isinstance(model, Heston):
            raise refusal("Milstein steps a Heston", model)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Two normals."""
        return 2, 0

    def initial(self, model: Model) -> State:
        """`(0, v0)`."""
        return heston_start(model)

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """`[dt, sqrt(dt), rho, rho_perp, sigma / 2, (kappa theta - sigma^2 / 4) dt, 1 / (1 + kappa dt)]`."""
        p, dt = double(model, dt)
        pull = (p["kappa"] * p["theta"] - 0.25 * p["sigma"] * p["sigma"]) * dt
        return rows(model, *correlated(p, dt), 0.5 * p["sigma"], pull, 1 / (1 + p["kappa"] * dt))

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """The Milstein terms complete a square: `(sqrt(v+) + sigma sqrt(dt) z_v / 2)^2`."""
        x, v = state
        plus = v.clamp(min=FLOOR)
        root = torch.sqrt(plus)
        tip = root + c[4] * c[1] * normals[1]
        new = (tip * tip + (v - plus) + c[5]) * c[6]
        return log_step(x, plus, root * c[1], c, normals), new

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """Trapezoidal rule: `dt (v + v') / 2`."""
        return trapezoid(before[1], after[1], dt)

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`rho sigma dt`."""
        return heston_slope(model, before[0], dt)
