"""Geometric Brownian motion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.models.base import FourierModel, Parameter, Parametric


@dataclass(frozen=True, eq=False)
class BlackScholes(Parametric, FourierModel):
    """Black and Scholes (1973): `dx = -vol^2/2 dt + vol dW`.

    Args:
        vol: volatility, annualised decimal, at most 10 (1000 %): more is percent.

    Example:
        >>> BlackScholes(vol=0.2).total_variance(torch.tensor(2.0, dtype=torch.float64))
        tensor(0.0800, dtype=torch.float64)
    """

    vol: Tensor

    PARAMETERS: ClassVar[Mapping[str, Parameter]] = {
        "vol": Parameter(
            "volatility, annualised decimal", constraints.interval(0.0, 10.0), (1e-4, 10.0), (0.3, 1.2), 0.2, "vol"
        ),
    }

    @property
    def table(self) -> Mapping[str, Parameter]:
        """Description, domain, bounds and typical value of each parameter."""
        return self.PARAMETERS

    def log_cf(self, u: Tensor, t: Tensor) -> Tensor:
        """`-vol^2 t (u^2 + i u) / 2`."""
        return -0.5 * self.vol * self.vol * t * (u * u + 1j * u)

    def log_cf_gradient(self, u: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """`log_cf` and its derivative to `vol`."""
        slope = -t * (u * u + 1j * u) * self.vol
        return 0.5 * self.vol * slope, slope[None]

    @property
    def gaussian(self) -> bool:
        """True."""
        return True

    @property
    def initial_variance(self) -> Tensor:
        """`vol^2`, the variance at all times."""
        return self.vol * self.vol

    def transition(self, u: Tensor, b: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
        """As `Affine.transition`: `log_cf` and `b`."""
        return self.log_cf(u, dt), b

    def riccati(self, u: Tensor, dt: Tensor) -> tuple[None, Callable[[Tensor], Tensor]]:
        """As `Affine.riccati`: the variance stays as it is."""
        return None, lambda b: self.log_cf(u, dt)

    def transition_exists(self, p: Tensor, b: Tensor, dt: Tensor) -> Tensor:
        """Always."""
        return torch.ones_like(p * b * dt * self.vol, dtype=torch.bool)

    def total_variance(self, t: Tensor) -> Tensor:
        """`vol^2 t`."""
        return self.vol * self.vol * t

    def moment_range(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """All moments exist."""
        whole = torch.full_like(self.vol * t, torch.inf)
        return -whole, whole
