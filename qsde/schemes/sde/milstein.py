"""Milstein's step, in the sense of Ito and of Stratonovich."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step

_ORDERS: Mapping[NoiseKind, Orders] = {
    "diagonal": Orders(1.0, 1.0),
    "scalar": Orders(1.0, 1.0),
    "additive": Orders(1.0, 1.0),
}


@dataclass(frozen=True)
class _Milstein(SDEScheme):
    """Euler's step plus `(dg/dy) g (dW^2 - c) / 2`, where `c` is dt for Ito and 0 for Stratonovich."""

    orders: ClassVar[Mapping[NoiseKind, Orders]] = _ORDERS
    strong_order: ClassVar[float] = 1.0
    weak_order: ClassVar[float] = 1.0

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """The derivative of the diffusion is a Jacobian-vector product, no formula is asked of the user."""
        (y,) = state
        moved = y + equation.drift(step.t, y) * step.dt
        if equation.dynamics.noise == "additive":
            return (moved + equation.shock(step.t, y, step.dw),)
        g = equation.diffusion(step.t, y)
        bend = torch.func.jvp(lambda s: equation.diffusion(step.t, s), (y,), (g,))[1]
        square = step.dw * step.dw
        square = square - step.dt if self.interpretation == "ito" else square
        return (moved + g * step.dw + 0.5 * bend * square,)


@dataclass(frozen=True)
class ItoMilstein(_Milstein):
    """Euler's step plus `(dg/dy) g (dW^2 - dt) / 2`: strong order 1 for diagonal and scalar noise.

    Reference:
        Kloeden, Platen (1992), section 10.3, equations (3.1) and (3.12).

    Example:
        >>> ItoMilstein.strong_order
        1.0
    """

    interpretation: ClassVar[Interpretation] = "ito"


@dataclass(frozen=True)
class StratonovichMilstein(_Milstein):
    """Euler's step plus `(dg/dy) g dW^2 / 2`: strong order 1 for diagonal and scalar noise.

    Reference:
        Kloeden, Platen (1992), section 10.3, equations (3.2) and (3.13).

    Example:
        >>> StratonovichMilstein.interpretation
        'stratonovich'
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
