"""A step for Stratonovich SDEs that can be undone exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsde.models.dynamics import Equation, Interpretation, NoiseKind
from qsde.schemes.base import State
from qsde.schemes.sde.base import Orders, SDEScheme, Step, commuting


@dataclass(frozen=True)
class ReversibleHeun(SDEScheme):
    """Heun's step with a second state that makes it time-symmetric: one evaluation of the functions a step.

    With a companion state z that starts at y,
    `z' = 2 y - z + f(t, z) dt + g(t, z) dW` and
    `y' = y + (f(t, z) + f(t', z')) dt / 2 + (g(t, z) + g(t', z')) dW / 2`.
    The step from the end with `-dt` and `-dW` leads back to the start, so that gradients need no stored states. The
    state carries `f(t, z)` and `g(t, z)` along. Stiff drifts need small steps: z oscillates about y otherwise.

    Reference:
        Kidger, Foster, Li, Lyons (2021), "Efficient and accurate gradients for neural SDEs", NeurIPS, algorithm 1.

    Example:
        >>> ReversibleHeun.reversible
        True
    """

    interpretation: ClassVar[Interpretation] = "stratonovich"
    orders: ClassVar[Mapping[NoiseKind, Orders]] = {
        **commuting(1.0, 1.0),
        "additive": Orders(1.0, 2.0),
        "general": Orders(0.5, 1.0),
    }
    reversible: ClassVar[bool] = True

    @property
    def tails(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of y, z, f and g."""
        dynamics = self.dynamics
        assert dynamics is not None, "bound comes first"
        shape = dynamics.shape
        return shape, shape, shape, (*shape, dynamics.motions) if dynamics.layout == "matrix" else shape

    def start(self, equation: Equation, t: Tensor, y: Tensor) -> State:
        """Both states at y."""
        return (y, y, *_slopes(equation, t, y))

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """The companion first, then y by the slopes at both companions."""
        y, z, f, g = state
        new = 2 * y - z + f * step.dt + equation.product(g, step.dw)
        f_end, g_end = _slopes(equation, step.t + step.dt, new)
        moved = 0.5 * ((f + f_end) * step.dt + equation.product(g + g_end, step.dw))
        return y + moved, new, f_end, g_end


def _slopes(equation: Equation, t: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    g = equation.diffusion(t, y)
    # additive noise may be given once for all paths
    whole = (*y.shape, g.shape[-1]) if equation.dynamics.layout == "matrix" else y.shape
    return equation.drift(t, y), g.expand(whole)
