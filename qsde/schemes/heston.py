"""What the schemes of Heston's variance with a martingale correction share."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from qsde.models.base import Model
from qsde.models.heston import Heston
from qsde.schemes.base import Scheme, State
from qsde.schemes.layers import refusal
from qsde.schemes.log_euler import heston_slope, heston_start, trapezoid


@dataclass(frozen=True)
class HestonScheme(Scheme):
    """State `(x, v)` with `v >= 0` and two normals per step, `z_x` and `z_v`.

    Args:
        averaged: leave `z_x` out; the state is `(E[x], v, sum of w)` (`Scheme.conditional`).
    """

    averaged: bool = field(default=False, repr=False)

    weak_order: ClassVar[float] = 1.0
    strong_order: ClassVar[float] = 0.5

    def check(self, model: Model) -> None:
        """Refuses everything but Heston."""
        if not isinstance(model, Heston):
            raise refusal(f"{type(self).__name__} steps a Heston", model)

    def conditional(self) -> Self:
        """Given the variance path `x` is normal with variance `sum of w` (mixing)."""
        return replace(self, averaged=True)

    def draws(self, model: Model, dt: float) -> tuple[int, int]:
        """Two normals, or that of the variance."""
        return 2 - self.averaged, 0

    def initial(self, model: Model) -> State:
        """`(0, v0)`, or `(0, v0, 0)`."""
        start = heston_start(model)
        return (*start, torch.zeros_like(start[0])) if self.averaged else start

    def variance(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """Trapezoidal rule: `dt (v + v') / 2`."""
        return trapezoid(before[1], after[1], dt)

    def slope(self, model: Model, before: State, after: State, dt: Tensor, t: Tensor) -> Tensor:
        """`rho sigma dt`."""
        return heston_slope(model, before[0], dt)
