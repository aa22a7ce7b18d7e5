"""Steps of weak order 2."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting
from qsde.schemes.sde.flows import midpoint, runge_kutta


@dataclass(frozen=True)
class PlatenWeak2(SDEScheme):
    """Platen's explicit step of weak order 2 for Ito SDEs with diagonal, scalar or additive noise.

    With `u = y + f dt + g dW` and `v = y + f dt +- g sqrt(dt)`:
    `y' = y + (f(u) + f) dt / 2 + (g(v+) + g(v-) + 2 g) dW / 4 + (g(v+) - g(v-)) (dW^2 - dt) / (4 sqrt(dt))`.

    Reference:
        Kloeden, Platen (1992), section 15.1, equations (1.1) and (1.3).

    Example:
        >>> PlatenWeak2.orders["scalar"].weak
        2.0
    """

    interpretation: ClassVar[Interpretation] = "ito"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = commuting(1.0, 2.0)

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Two drifts and three diffusions; with additive noise two of each."""
        (y,) = state
        t, dt, dw = step.t, step.dt, step.dw
        end, root = t + dt, torch.sqrt(dt)
        f, g = equation.drift(t, y), equation.diffusion(t, y)
        moved = y + f * dt
        drift = 0.5 * (f + equation.drift(end, moved + equation.product(g, dw)))
        if equation.dynamics.noise == "additive":
            noise = equation.product(0.5 * (g + equation.diffusion(end, y)), dw)
        else:
            up, down = (equation.diffusion(end, moved + sign * g * root) for sign in (1, -1))
            noise = 0.25 * ((up + down + 2 * g) * dw + (up - down) * (dw * dw - dt) / root)
        return (y + drift * dt + noise,)


@dataclass(frozen=True)
class NinomiyaVictoir(SDEScheme):
    """Flows of drift and noise in turn: weak order 2 for every kind of noise, for Stratonovich SDEs.

    Half a step along the drift, a step along the noise, half a step along the drift. Noise that commutes is one flow;
    general noise is one flow for each Brownian motion, in their order or backwards by the throw of a coin (the sign of
    a Levy area, which is independent of the increments). Flows of the noise are a fourth-order Runge-Kutta step.

    Reference:
        Ninomiya, Victoir (2008), "Weak approximation of stochastic differential equations and application to
        derivative pricing", Appl. Math. Finance 15.

    Example:
        >>> NinomiyaVictoir.orders["general"]
        Orders(strong=0.5, weak=2.0)
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {**commuting(1.0, 2.0), "general": Orders(0.5, 2.0)}
    levy: ClassVar[bool] = True

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """A symmetric composition of flows."""
        (y,) = state
        t, half = step.t, 0.5 * step.dt
        middle = t + half
        y = midpoint(lambda s, x: equation.drift(t + s * half, x) * half, y)
        if equation.dynamics.noise == "general":
            y = _in_turn(equation, middle, y, step)
        else:
            y = runge_kutta(lambda _, x: equation.shock(middle, x, step.dw), y)
        return (midpoint(lambda s, x: equation.drift(middle + s * half, x) * half, y),)


def _in_turn(equation: Equation, t: Tensor, y: Tensor, step: Step) -> Tensor:
    """The flow of each Brownian motion, first to last or last to first."""
    dw, forwards = step.dw, step.area[..., 0] > 0
    m = dw.shape[-1]
    for j in range(m):

        def field(_: float, x: Tensor, j: int = j) -> Tensor:
            noise = equation.diffusion(t, x) * dw
            return torch.where(forwards, noise[..., j], noise[..., m - 1 - j])

        y = runge_kutta(field, y)
    return y
