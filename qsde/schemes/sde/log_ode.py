"""Steps that use the space-time Levy area of Brownian motion: log-ODE and ShARK."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting
from qsde.schemes.sde.flows import runge_kutta

#: `(t, y) -> slope` of y.
VectorField = Callable[[Tensor, Tensor], Tensor]


def _bracket(h: VectorField, f: VectorField, t: Tensor, y: Tensor, frozen: bool = False) -> Tensor:
    """`Df h - Dh f`, and unless time is frozen `- dh/dt`: the drift is what moves time along."""
    along: Tensor = torch.func.jvp(lambda x: f(t, x), (y,), (h(t, y),))[1]
    time = torch.zeros_like(t) if frozen else torch.ones_like(t)
    across: Tensor = torch.func.jvp(h, (t, y), (time, f(t, y)))[1]
    return along - across


@dataclass(frozen=True)
class LogODE(SDEScheme):
    """Solves the ordinary equation that has the path's increment and space-time Levy area.

    `z' = f dt + g dW + dt ([h, f] + [h, [h, f]])` over unit time, from y, by one step of the fourth-order Runge-Kutta
    method, where `h(y) = g(y) H` and `[h, f] = Df h - Dh f`. The brackets are found once, at the start. The second has
    the mean that the step needs; what it lacks given the area is of mean 0. Strong order 1.5 and weak order 2 where the
    noise commutes (diagonal, scalar, additive), else 1/2 and 1.

    Reference:
        Foster, Oberhauser, Lyons (2020), "An optimal polynomial approximation of Brownian motion", SIAM J. Numer. Anal.
        58, equation (1.8), whose last term is `(3/5 H^2 + dt / 30) dt` here `H^2 dt`, of the same mean.

    Example:
        >>> LogODE.interpretation, LogODE.orders["diagonal"].strong
        ('stratonovich', 1.5)
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {**commuting(1.5, 2.0), "general": Orders(0.5, 1.0)}
    levy: ClassVar[bool] = True

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """One step of a Runge-Kutta method along the path's linear part and the bracket."""
        (y,) = state
        t, dt = step.t, step.dt

        def area(now: Tensor, x: Tensor) -> Tensor:
            return equation.shock(now, x, step.area)

        def once(now: Tensor, x: Tensor) -> Tensor:
            return _bracket(area, equation.drift, now, x)

        bracket = dt * (once(t, y) + _bracket(area, once, t, y, frozen=True))

        def along_the_path(s: float, x: Tensor) -> Tensor:
            now = t + s * dt
            slope: Tensor = equation.drift(now, x) * dt + equation.shock(now, x, step.dw) + bracket
            return slope

        return (runge_kutta(along_the_path, y),)


@dataclass(frozen=True)
class ShARK(SDEScheme):
    """Shifted additive-noise Runge-Kutta: strong order 1.5 and weak order 2 from two evaluations of the drift.

    `z = y + g H`, `x = z + 5/6 (f(z) dt + g dW)`, `y' = y + (2 f(z) + 3 f(x)) dt / 5 + int g dW`, the last of which is
    `(g(t) + g(t')) dW / 2 - (g(t') - g(t)) H`.

    Reference:
        Foster, dos Reis, Strange (2023), "High order splitting methods for SDEs satisfying a commutativity condition",
        equation (6.1); time-dependent noise as in Foster, Oberhauser, Lyons (2020).

    Example:
        >>> ShARK.orders["additive"].strong
        1.5
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {"additive": Orders(1.5, 2.0)}
    levy: ClassVar[bool] = True

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Two stages about a start that is shifted by the area."""
        (y,) = state
        t, dt = step.t, step.dt
        first, last = equation.diffusion(t, y), equation.diffusion(t + dt, y)
        z = y + equation.product(first, step.area)
        f = equation.drift(t, z)
        x = z + (5 / 6) * (f * dt + equation.product(first, step.dw))
        drift = 0.4 * f + 0.6 * equation.drift(t + (5 / 6) * dt, x)
        noise = equation.product(0.5 * (first + last), step.dw) - equation.product(last - first, step.area)
        return (y + drift * dt + noise,)
