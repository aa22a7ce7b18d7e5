"""Two-stage steps for Stratonovich SDEs: Heun, midpoint, Euler-Heun."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting

_ORDERS: Mapping[NoiseKind, Orders] = {**commuting(1.0, 1.0), "general": Orders(0.5, 1.0)}


@dataclass(frozen=True)
class Heun(SDEScheme):
    """The mean of Euler's step from the start and from its own end: strong order 1 where the noise commutes.

    `z = y + f(y) dt + g(y) dW`, `y' = y + (f(y) + f(z)) dt / 2 + (g(y) + g(z)) dW / 2`. Diagonal, scalar and additive
    noise commutes; with general noise that does not the strong order is 1/2. Weak order 2 where the noise is additive.

    Reference:
        Rumelin (1982), "Numerical treatment of stochastic differential equations", SIAM J. Numer. Anal. 19.

    Example:
        >>> Heun.interpretation
        'stratonovich'
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {**_ORDERS, "additive": Orders(1.0, 2.0)}

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Euler's step, and the mean of both ends."""
        (y,) = state
        end = step.t + step.dt
        f, g = equation.drift(step.t, y), equation.diffusion(step.t, y)
        z = y + f * step.dt + equation.product(g, step.dw)
        drift = 0.5 * (f + equation.drift(end, z))
        return (y + drift * step.dt + equation.product(0.5 * (g + equation.diffusion(end, z)), step.dw),)


@dataclass(frozen=True)
class Midpoint(SDEScheme):
    """Drift and diffusion at the middle of Euler's step: `y' = y + f(z) dt + g(z) dW`, `z = y + (f dt + g dW) / 2`.

    Strong order 1 where the noise commutes, else 1/2.

    Reference:
        Kloeden, Platen (1992), section 4.9; torchsde has the same scheme under this name.

    Example:
        >>> Midpoint.orders["general"].strong
        0.5
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = _ORDERS

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Half of Euler's step, and a whole one with the slopes found there."""
        (y,) = state
        half, middle = 0.5 * step.dt, step.t + 0.5 * step.dt
        z = y + equation.drift(step.t, y) * half + equation.shock(step.t, y, 0.5 * step.dw)
        return (y + equation.drift(middle, z) * step.dt + equation.shock(middle, z, step.dw),)


@dataclass(frozen=True)
class EulerHeun(SDEScheme):
    """Euler for the drift, Heun for the noise: `y' = y + f dt + (g(y) + g(y + g dW)) dW / 2`.

    One evaluation of the drift, two of the diffusion. Strong order 1 where the noise commutes, else 1/2.

    Reference:
        Kloeden, Platen (1992), section 4.9; torchsde and diffrax have the same scheme under this name.

    Example:
        >>> EulerHeun.orders["diagonal"].strong
        1.0
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = _ORDERS

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """The mean of the noise at the start and at where it leads."""
        (y,) = state
        g = equation.diffusion(step.t, y)
        end = equation.diffusion(step.t + step.dt, y + equation.product(g, step.dw))
        return (y + equation.drift(step.t, y) * step.dt + equation.product(0.5 * (g + end), step.dw),)
