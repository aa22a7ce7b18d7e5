"""Euler's step for Ito SDEs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting


@dataclass(frozen=True)
class EulerMaruyama(SDEScheme):
    """`y' = y + f dt + g dW`: weak order 1, strong order 1/2, or 1 where the noise is additive.

    Reference:
        Kloeden, Platen (1992), "Numerical Solution of Stochastic Differential Equations", section 10.2.

    Example:
        >>> EulerMaruyama.orders["additive"].strong
        1.0
    """

    interpretation: ClassVar[Interpretation] = "ito"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {
        **commuting(0.5, 1.0),
        "additive": Orders(1.0, 1.0),
        "general": Orders(0.5, 1.0),
    }

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Drift and diffusion at the start of the step."""
        (y,) = state
        return (y + equation.drift(step.t, y) * step.dt + equation.shock(step.t, y, step.dw),)
