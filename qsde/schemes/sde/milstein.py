"""Milstein's step, in the sense of Ito and of Stratonovich, with and without a derivative."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting


@dataclass(frozen=True)
class _Milstein(SDEScheme):
    """Euler's step plus `(dg/dy) g (dW^2 - c) / 2`, where `c` is dt for Ito and 0 for Stratonovich.

    The derivative is a Jacobian-vector product, no formula is asked of the user, or a difference over `g sqrt(dt)`:
    to one side for Ito, where what it is off by has mean 0, to both sides for Stratonovich.

    Args:
        derivative_free: whether to take the difference.
    """

    derivative_free: bool = False

    orders: ClassVar[Mapping[NoiseKind, Orders]] = commuting(1.0, 1.0)

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """Euler's step and the bend of the diffusion along itself."""
        (y,) = state
        moved = y + equation.drift(step.t, y) * step.dt
        if equation.dynamics.noise == "additive":
            return (moved + equation.shock(step.t, y, step.dw),)
        g = equation.diffusion(step.t, y)
        square = step.dw * step.dw
        square = square - step.dt if self.interpretation == "ito" else square
        return (moved + g * step.dw + 0.5 * self._bend(equation, step, y, moved, g) * square,)

    def _bend(self, equation: Equation, step: Step, y: Tensor, moved: Tensor, g: Tensor) -> Tensor:
        if self.derivative_free:
            root = torch.sqrt(step.dt)
            if self.interpretation == "ito":
                return (equation.diffusion(step.t, moved + g * root) - g) / root
            up, down = (equation.diffusion(step.t, y + sign * g * root) for sign in (1, -1))
            return (up - down) / (2 * root)
        bend: Tensor = torch.func.jvp(lambda s: equation.diffusion(step.t, s), (y,), (g,))[1]
        return bend


@dataclass(frozen=True)
class ItoMilstein(_Milstein):
    """Euler's step plus `(dg/dy) g (dW^2 - dt) / 2`: strong order 1 for diagonal and scalar noise.

    The derivative is exact; `derivative_free=True` takes a difference, which costs an evaluation of the diffusion.

    Reference:
        Kloeden, Platen (1992), section 10.3, equations (3.1) and (3.12); section 11.1, equation (1.3).

    Example:
        >>> ItoMilstein.strong_order
        1.0
    """

    interpretation: ClassVar[Interpretation] = "ito"


@dataclass(frozen=True)
class StratonovichMilstein(_Milstein):
    """Euler's step plus `(dg/dy) g dW^2 / 2`: strong order 1 for diagonal and scalar noise.

    The derivative is exact; `derivative_free=True` takes a difference, which costs two evaluations of the diffusion.

    Reference:
        Kloeden, Platen (1992), section 10.3, equations (3.2) and (3.13).

    Example:
        >>> StratonovichMilstein.interpretation
        'stratonovich'
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
