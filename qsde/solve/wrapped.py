"""Schemes around a scheme: what else happens in a step besides the solution moving on."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from qsde.errors import InputError
from qsde.models.dynamics import Dynamics, Equation
from qsde.schemes.base import State
from qsde.schemes.sde import SDEScheme, Step


@dataclass(frozen=True, kw_only=True)
class Wrapped(SDEScheme):
    """A scheme whose state and draws follow those of an inner, bound one.

    Attributes:
        inner: the scheme that moves y.
        uniforms: uniforms of a step.
        seen: components of the state that are kept at the dates.
    """

    inner: SDEScheme
    uniforms: ClassVar[int] = 0
    seen: ClassVar[tuple[int, ...]] = (0,)

    @property
    @abstractmethod
    def more_normals(self) -> int:
        """Normals of a step besides those of the inner scheme."""

    @abstractmethod
    def more(
        self, equation: Equation, before: State, after: State, c: Tensor, normals: Tensor, uniforms: Tensor
    ) -> State:
        """The state after a step, from that before it and the inner state after it."""

    def normals(self, dynamics: Dynamics) -> int:
        """Those of the inner scheme first."""
        return self.inner.normals(dynamics) + self.more_normals

    def advance(self, equation: Equation, state: State, step: Step) -> State:
        """The inner step alone."""
        return self.inner.advance(equation, state, step)

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """The inner step, then what else happens."""
        dynamics = self.inner.dynamics
        assert dynamics is not None, "made from a bound scheme"
        if state[0].dim() > 1 + len(dynamics.shape):
            raise InputError("jumps and events do not work inside torch.func.vmap; solve one after another")
        own, inner = self.inner.normals(dynamics), len(self.inner.tails)
        after = self.inner.step(state[:inner], c[:3], normals[:own], uniforms[:0], constants)
        return self.more(dynamics.at(constants), state, after, c, normals[own:], uniforms)
