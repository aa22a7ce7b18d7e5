"""A scheme of functions as pricing wants it: one tensor for each component of the state."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.models.sde import SDE
from qsde.schemes.base import Scheme, State

if TYPE_CHECKING:  # SDEScheme makes them
    from qsde.schemes.sde.base import SDEScheme


@dataclass(frozen=True)
class Components(Scheme):
    """The same steps on states of one tensor [*batch, P] for each component, `x = log(S / F)` first.

    Args:
        scheme: bound to the functions of the model.
    """

    scheme: SDEScheme

    time_dependent: ClassVar[bool] = True

    def __post_init__(self) -> None:
        assert self.scheme.dynamics is not None, "made by bind"
        orders = self.scheme.orders[self.scheme.dynamics.noise]
        object.__setattr__(self, "strong_order", orders.strong)
        object.__setattr__(self, "weak_order", orders.weak)

    def __repr__(self) -> str:
        return repr(self.scheme)

    def check(self, model: Model) -> None:
        """That of the scheme."""
        self.scheme.check(model)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Those of the scheme."""
        return self.scheme.draws(model, dt)

    def initial(self, model: Model) -> State:
        """The components of the initial state, then those of what the scheme carries along."""
        return tuple(part for s in self.scheme.initial(model) for part in s.flatten().unbind(0))

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Those of the scheme."""
        return self.scheme.coefficients(model, dt, t)

    def constants(self, model: Model) -> tuple[Tensor, ...]:
        """Those of the scheme."""
        return self.scheme.constants(model)

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """One step of the components."""
        new = self.scheme.step(self._whole(state), c, normals, uniforms, constants)
        return tuple(part for s in new for part in s.flatten(state[0].dim()).unbind(-1))

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`sum_j diffusion_0j^2 dt` at the start of the step."""
        assert isinstance(model, SDE)
        dynamics = self.scheme.dynamics
        assert dynamics is not None
        equation = dynamics.at([k.to(before[0]) for k in self.constants(model)])
        parts = []
        for y, size, start in zip(self._whole(before)[0], dt.flatten(), t.flatten(), strict=True):
            g = equation.diffusion(start, y)
            g = g.expand(*y.shape, -1) if dynamics.layout == "matrix" else g.unsqueeze(-1)
            parts.append(g[:, 0].square().sum(-1) * size)
        return torch.stack(parts)

    def _whole(self, state: State) -> State:
        """The components [*, P] put together to the tensors [*, P, *shape] of the scheme."""
        out: list[Tensor] = []
        first = 0
        for tail in self.scheme.tails:
            n = math.prod(tail)
            out.append(torch.stack(state[first : first + n], -1).unflatten(-1, tail))
            first += n
        return tuple(out)
