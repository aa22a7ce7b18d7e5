"""Two-stage steps for Stratonovich SDEs: Heun, midpoint, Euler-Heun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step

_ORDERS: Mapping[NoiseKind, Orders] = {
    "diagonal": Orders(1.0, 1.0),
    "scalar": Orders(1.0, 1.0),
    "additive": Orders(1.0, 1.0),
    "general": Orders(0.5, 1.0),
}


@dataclass(frozen=True)
class Heun(SDEScheme):
    """The mean of Euler's step from the start and from its own end: strong order 1 where the noise commutes.

    `z = y + f(y) dt + g(y) dW`, `y' = y + (f(y) + f(z)) dt / 2 + (g(y) + g(z)) dW / 2`. Diagonal, scalar and additive
    noise commutes; with general noise that does not the strong order is 1/2.

    Reference:
        Rumelin (1982), "Numerical treatment of stochastic differential equations", SIAM J. Numer. Anal. 19.

    Example:
        >>> Heun.interpretation
        'stratonovich'
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = _ORDERS
    strong_order: ClassVar[float] = 0.5
    weak_order: ClassVar[float] = 1.0

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Euler's step, and the mean of both ends."""
        (y,) = state
        end = step.t + step.dt
        f, g = equation.drift(step.t, y), equation.diffusion(step.t, y)
        z = y + f * step.dt + equation.product(g, step.dw)
        drift = 0.5 * (f + equation.drift(end, z))
        return (y + drift * step.dt + equation.product(0.5 * (g + equation.diffusion(end, z)), step.dw),)
