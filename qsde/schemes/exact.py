"""The exact step of geometric Brownian motion."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.models.black_scholes import BlackScholes
from qsde.schemes.base import Scheme, State, Stretch, running
from qsde.schemes.layers import refusal
from qsde.schemes.rows import double, rows


@dataclass(frozen=True)
class Exact(Scheme):
    """`x += -vol^2 dt / 2 + vol sqrt(dt) z`: the exact law of Black-Scholes at any step size.

    State `(x,)`; one normal per step.

    Args:
        averaged: leave the normal out; the state is the mean and the variance of `x` (`Scheme.conditional`).

    Example:
        >>> from qsde.models import BlackScholes
        >>> Exact().coefficients(BlackScholes(vol=0.2), torch.tensor(0.25, dtype=torch.float64))
        tensor([-0.0050,  0.1000], dtype=torch.float64)
    """

    averaged: bool = field(default=False, repr=False)

    weak_order: ClassVar[float] = math.inf
    strong_order: ClassVar[float] = math.inf
    exact: ClassVar[bool] = True
    at_once: ClassVar[bool] = True

    def check(self, model: Model) -> None:
        """Refuses everything but Black-Scholes."""
        if not isinstance(model, BlackScholes):
            raise refusal("Exact steps a BlackScholes", model)

    def conditional(self) -> Exact:
        """The mean and variance of `x`; of use under jumps."""
        return Exact(averaged=True)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """One normal, or none."""
        return int(not self.averaged), 0

    def initial(self, model: Model) -> State:
        """`(0,)`, or `(0, 0)`."""
        zero = torch.zeros_like(model.params["vol"])
        return (zero, zero) if self.averaged else (zero,)

    def coefficients(self, model: Model, dt: Tensor, t: Tensor | None = None) -> Tensor:
        """Drift and deviation of the step: [2, *batch]."""
        p, dt = double(model, dt)
        # vol sqrt(dt), not sqrt(vol^2 dt): its derivative is finite at vol = 0
        return rows(model, -0.5 * p["vol"] * p["vol"] * dt, p["vol"] * torch.sqrt(dt))

    def step(
        self, state: State, c: Tensor, normals: Tensor, uniforms: Tensor, constants: tuple[Tensor, ...] = ()
    ) -> State:
        """Adds a normal increment, or its mean and variance."""
        if self.averaged:
            return state[0] + c[0], state[1] + c[1] * c[1]
        return (state[0] + (c[0] + c[1] * normals[0]),)

    def steps(self, state: State, stretch: Stretch) -> State:
        """Sums of the increments."""
        none = tuple(torch.zeros_like(s) for s in state)
        rise, *rest = self.step(none, stretch.c, stretch.normals, stretch.uniforms)
        return running(state[0], rise, stretch.jumps), *(running(s, r) for s, r in zip(state[1:], rest, strict=True))

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`vol^2 dt`."""
        vol = model.params["vol"].unsqueeze(-1).to(before[0])
        return (vol * vol * dt).expand_as(before[0])
