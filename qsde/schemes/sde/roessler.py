"""Stochastic Runge-Kutta steps of strong order 1.5 for Ito SDEs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step


@dataclass(frozen=True)
class SRA1(SDEScheme):
    """Rossler's SRA1 for additive noise: strong order 1.5, weak order 2, two evaluations of each function.

    It takes the integral of Brownian motion over the step, `I = int (W_s - W_t) ds = dt (dW / 2 + H)`:
    `z = y + 3/4 f(t, y) dt + 3/2 g(t') I / dt`,
    `y' = y + (f(t, y) + 2 f(t + 3/4 dt, z)) dt / 3 + g(t') dW + (g(t) - g(t')) I / dt`.

    Reference:
        Rossler (2010), "Runge-Kutta methods for the strong approximation of solutions of stochastic differential
        equations", SIAM J. Numer. Anal. 48, table 6.1.

    Example:
        >>> SRA1.levy, SRA1.orders["additive"].strong
        (True, 1.5)
    """

    interpretation: ClassVar[Interpretation] = "ito"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {"additive": Orders(1.5, 2.0)}
    levy: ClassVar[bool] = True

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Two stages."""
        (y,) = state
        t, dt, mean = step.t, step.dt, 0.5 * step.dw + step.area
        first, last = equation.diffusion(t, y), equation.diffusion(t + dt, y)
        f = equation.drift(t, y)
        z = y + 0.75 * f * dt + 1.5 * equation.product(last, mean)
        drift = (f + 2 * equation.drift(t + 0.75 * dt, z)) / 3
        return (y + drift * dt + equation.product(last, step.dw) + equation.product(first - last, mean),)


# rows of the tableau, stage by stage: times, weights of earlier drifts and diffusions
_DRIFT_TIME, _NOISE_TIME = (0.0, 1.0, 0.5), (0.0, 0.25, 1.0, 0.25)
_DRIFT_BY_F, _DRIFT_BY_G = ((), (1.0,), (0.25, 0.25)), ((), (0.0,), (1.0, 0.5))
_NOISE_BY_F, _NOISE_BY_G = (
    ((), (0.25,), (1.0, 0.0), (0.0, 0.0, 0.25)),
    ((), (-0.5,), (1.0, 0.0), (2.0, -1.0, 0.5)),
)
_DRIFT = (1 / 6, 1 / 6, 2 / 3)
#: Weights of dW, (dW^2 - dt) / (2 sqrt(dt)), I / dt and (dW^3 - 3 dt dW) / (6 dt) for each diffusion.
_NOISE = ((-1.0, 1.0, 2.0, -2.0), (4 / 3, -4 / 3, -4 / 3, 5 / 3), (2 / 3, 1 / 3, -2 / 3, -2 / 3), (0.0, 0.0, 0.0, 1.0))


@dataclass(frozen=True)
class SRID2(SDEScheme):
    """Rossler's SRID2 for diagonal and scalar noise: strong and weak order 1.5.

    Three evaluations of the drift and four of the diffusion, no derivatives.

    Reference:
        Rossler (2010), SIAM J. Numer. Anal. 48, section 7; torchsde's "srk" has the same table.

    Example:
        >>> SRID2.levy, SRID2.orders["diagonal"].strong
        (True, 1.5)
    """

    interpretation: ClassVar[Interpretation] = "ito"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {"diagonal": Orders(1.5, 1.5), "scalar": Orders(1.5, 1.5)}
    levy: ClassVar[bool] = True

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Stage by stage; each drift and diffusion is found at its own point."""
        (y,) = state
        t, dt, dw = step.t, step.dt, step.dw
        root = torch.sqrt(dt)
        mean = 0.5 * dw + step.area
        integrals = (dw, (dw * dw - dt) / (2 * root), mean, dw * (dw * dw / dt - 3) / 6)
        f: list[Tensor] = []
        g: list[Tensor] = []
        new = y
        for stage, time in enumerate(_NOISE_TIME):
            if stage < len(_DRIFT):
                z = y + _sum(_DRIFT_BY_F[stage], f) * dt + _sum(_DRIFT_BY_G[stage], g) * mean
                f.append(equation.drift(t + _DRIFT_TIME[stage] * dt, z))
                new = new + _DRIFT[stage] * dt * f[-1]
            z = y + _sum(_NOISE_BY_F[stage], f) * dt + _sum(_NOISE_BY_G[stage], g) * root
            g.append(equation.diffusion(t + time * dt, z))
            new = new + g[-1] * _sum(_NOISE[stage], integrals)
        return (new,)


def _sum(weights: tuple[float, ...], values: list[Tensor] | tuple[Tensor, ...]) -> Tensor | float:
    total: Tensor | float = 0.0
    for weight, value in zip(weights, values, strict=False):
        if weight:
            total = total + weight * value
    return total
