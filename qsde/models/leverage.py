"""Leverage functions `L(t, x)` of a local volatility: what they have in common, and a table of values."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.distributions import constraints

from qsde.errors import InputError
from qsde.models.base import Parameter, check_parameter

#: Bounds of a leverage in a calibration.
BOUNDS = (0.02, 50.0)


class Leverage(ABC):
    """A positive function of time and `x = log(S / F)` that multiplies a volatility, smooth in its parameters.

    Attributes:
        scale: a volatility, annualised decimal: about `scale sqrt(t)` is how far x moves in t years. A scheme tabulates
            the leverage where paths may be by it, so it decides the resolution, not the law.
    """

    scale: float

    @property
    @abstractmethod
    def params(self) -> dict[str, Tensor]:
        """The parameters by name."""

    @property
    @abstractmethod
    def table(self) -> Mapping[str, Parameter]:
        """A row for each parameter."""

    @property
    def knots(self) -> tuple[float, ...]:
        """Times in years at which steps must end, because the leverage changes fast there."""
        return ()

    @abstractmethod
    def at(self, t: Tensor, x: Tensor) -> Tensor:
        """`L` [T, N] at times t [T] and points x [T, N]; differentiable in the parameters, in t and in x."""

    def with_params(self, params: Mapping[str, Tensor]) -> Self:
        """The same function with some parameters replaced, unchecked."""
        new = copy.copy(self)
        for name, value in params.items():
            object.__setattr__(new, name, value)
        return new


@dataclass(frozen=True, eq=False)
class GridLeverage(Leverage):
    """Values on a grid, linear in x and in t between its points, constant beyond its ends.

    Args:
        times: increasing, years, [T].
        x: increasing points `log(S / F)`: [X] for all times, or [T, X], a row for each.
        values: leverage at the points, [T, X], positive.
        scale: see `Leverage`.

    Raises:
        InputError: shapes that do not fit, or points that do not increase.
        ParameterError: a value is not positive and finite.

    Example:
        >>> t, x = torch.tensor([0.5, 1.0]), torch.tensor([-0.1, 0.0, 0.1])
        >>> leverage = GridLeverage(t, x, values=[[1.2, 1.0, 0.9], [1.1, 1.0, 1.0]], scale=0.2)
        >>> leverage.at(torch.tensor([0.75]), torch.tensor([[-0.05, 0.5]]))
        tensor([[1.0750, 0.9500]])
    """

    times: Tensor
    x: Tensor
    values: Tensor
    scale: float = 0.2

    def __post_init__(self) -> None:
        for name in ("times", "x", "values"):
            object.__setattr__(self, name, torch.as_tensor(getattr(self, name), dtype=torch.float64))
        shape = tuple(self.values.shape)
        if self.times.dim() != 1 or shape != (len(self.times), self.x.shape[-1]):
            raise InputError(
                f"GridLeverage: values must be [T, X] = [{len(self.times)}, {self.x.shape[-1]}] for these times and x, "
                f"got {list(shape)}"
            )
        if self.x.dim() not in (1, 2) or (self.x.dim() == 2 and self.x.shape != self.values.shape):
            raise InputError(f"GridLeverage: x must be [X], or [T, X] as the values, got {list(self.x.shape)}")
        for name in ("times", "x"):
            points = getattr(self, name)
            if not bool((points.diff(dim=-1) > 0).all()):
                raise InputError(f"GridLeverage: {name} must increase")
        if not self.scale > 0:
            raise InputError(f"GridLeverage: scale must be a positive volatility, got {self.scale}")
        check_parameter("GridLeverage", "values", self.values.detach(), self.table["values"])

    @property
    def params(self) -> dict[str, Tensor]:
        """The values; the grid stays."""
        return {"values": self.values}

    @property
    def table(self) -> Mapping[str, Parameter]:
        """One row: positive numbers."""
        return {"values": Parameter("leverage on a grid", constraints.positive, BOUNDS, (0.5, 2.0), 1.0)}

    @property
    def knots(self) -> tuple[float, ...]:
        """The times of a table in x: between them it is linear. A function of time alone needs no steps of its own."""
        return tuple(t for t in self.times.tolist() if t > 0) if self.x.shape[-1] > 1 else ()

    def at(self, t: Tensor, x: Tensor) -> Tensor:
        """See `Leverage`: linear in x along the rows on both sides of t, then linear in t."""
        times = self.times.to(t)
        later = torch.searchsorted(times, t.detach().contiguous()).clamp(max=len(times) - 1)
        earlier = (later - 1).clamp(min=0)
        span = (times[later] - times[earlier]).clamp(min=torch.finfo(t.dtype).tiny)
        share = torch.where(later > earlier, (t - times[earlier]) / span, torch.zeros_like(t)).clamp(0, 1)
        low, high = self._row(earlier, x), self._row(later, x)
        return low + share.unsqueeze(-1) * (high - low)

    def _row(self, row: Tensor, x: Tensor) -> Tensor:
        values = self.values.to(x)[row]
        points = self.x.to(x).expand(self.values.shape)[row].contiguous()
        if points.shape[-1] == 1:
            return values.expand_as(x)
        right = torch.searchsorted(points, x.detach().contiguous()).clamp(1, points.shape[-1] - 1)
        left = right - 1
        start = points.gather(-1, left)
        share = ((x - start) / (points.gather(-1, right) - start)).clamp(0, 1)
        below = values.gather(-1, left)
        return below + share * (values.gather(-1, right) - below)
