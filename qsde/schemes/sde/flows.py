"""Flows of vector fields over unit time, by one step of a Runge-Kutta method."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

#: `field(s, y)`: the slope at the share `s` of the way.
Field = Callable[[float, Tensor], Tensor]


def runge_kutta(field: Field, y: Tensor) -> Tensor:
    """The classical method of order 4.

    Example:
        >>> import math, torch
        >>> y = runge_kutta(lambda s, y: 0.1 * y, torch.ones((), dtype=torch.float64))
        >>> abs(float(y) - math.exp(0.1)) < 1e-7
        True
    """
    a = field(0.0, y)
    b = field(0.5, y + 0.5 * a)
    c = field(0.5, y + 0.5 * b)
    d = field(1.0, y + c)
    return y + (a + 2 * (b + c) + d) / 6


def midpoint(field: Field, y: Tensor) -> Tensor:
    """The explicit midpoint method, order 2."""
    return y + field(0.5, y + 0.5 * field(0.0, y))
