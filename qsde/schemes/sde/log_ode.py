"""Steps that use the space-time Levy area of Brownian motion: log-ODE and ShARK."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step
from qsde.schemes.sde.flows import runge_kutta


@dataclass(frozen=True)
class LogODE(SDEScheme):
    """Solves the ordinary equation that has the path's increment and space-time Levy area.

    `z' = f dt + g dW + dt (Df g - Dg f) H` over unit time, from y, by one step of the fourth-order Runge-Kutta method;
    the bracket of drift and diffusion is found once, at the start. Strong order 1.5 where the noise commutes (diagonal,
    scalar, additive), else 1/2.

    Reference:
        Foster, Oberhauser, Lyons (2020), "An optimal polynomial approximation of Brownian motion", SIAM J. Numer. Anal.
        58; Foster, dos Reis, Strange (2023), "High order splitting methods for SDEs satisfying a commutativity
        condition".

    Example:
        >>> LogODE.interpretation, LogODE.orders["diagonal"].strong
        ('stratonovich', 1.5)
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {
        "diagonal": Orders(1.5, 2.0),
        "scalar": Orders(1.5, 2.0),
        "additive": Orders(1.5, 2.0),
        "general": Orders(0.5, 1.0),
    }
    levy: ClassVar[bool] = True
    strong_order: ClassVar[float] = 0.5
    weak_order: ClassVar[float] = 1.0

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """One step of a Runge-Kutta method along the path's linear part and the bracket."""
        (y,) = state
        t, dt = step.t, step.dt
        one = torch.ones_like(t)

        def area(s: Tensor, x: Tensor) -> Tensor:
            return equation.shock(s, x, step.area)

        f = equation.drift(t, y)
        along = torch.func.jvp(lambda x: equation.drift(t, x), (y,), (area(t, y),))[1]
        across = torch.func.jvp(area, (t, y), (one, f))[1]
        bracket = dt * (along - across)

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
    strong_order: ClassVar[float] = 1.5
    weak_order: ClassVar[float] = 2.0

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
