"""Guarded elementary functions: finite values and finite gradients at the points where the plain formula divides by 0.

The rule everywhere: make the input of a branch safe first, then select with `torch.where`. A bare `where` over an
expression that is NaN on the unused side has NaN gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

#: Below this modulus the quotients here use their Taylor series: differentiating the plain formula twice would cancel.
_SMALL = 1e-2
_TERMS = 9


def norm_cdf(x: Tensor) -> Tensor:
    """Standard normal distribution function, accurate in relative terms in the lower tail.

    Example:
        >>> round(float(norm_cdf(torch.tensor(-10.0, dtype=torch.float64))), 30)
        7.619853e-24
    """
    tail: Tensor = torch.special.erfc(-x / math.sqrt(2.0))
    return tail / 2.0


def norm_pdf(x: Tensor) -> Tensor:
    """Standard normal density."""
    return torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def exp_quotient(y: Tensor) -> Tensor:
    """`(1 - exp(-y)) / y`, which is 1 at 0; real or complex, with finite derivatives everywhere.

    Example:
        >>> exp_quotient(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([1.0000, 0.6321], dtype=torch.float64)
    """
    return _quotient(y, lambda safe: -torch.expm1(-safe), [(-1) ** n / math.factorial(n + 1) for n in range(_TERMS)])


def log1p_quotient(y: Tensor) -> Tensor:
    """`log(1 + y) / y`, which is 1 at 0; real or complex (principal branch), with finite derivatives everywhere.

    Example:
        >>> log1p_quotient(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([1.0000, 0.6931], dtype=torch.float64)
    """
    return _quotient(y, torch.log1p, [(-1) ** n / (n + 1) for n in range(_TERMS)])


def _quotient(y: Tensor, numerator: Callable[[Tensor], Tensor], coefficients: list[float]) -> Tensor:
    """`numerator(y) / y` away from 0, the power series with these coefficients near it."""
    small = y.abs() < _SMALL
    if not bool(small.any()):
        return numerator(y) / y
    safe = torch.where(small, torch.ones_like(y), y)
    near = torch.where(small, y, torch.zeros_like(y))
    series = torch.full_like(y, coefficients[-1])
    for c in coefficients[-2::-1]:
        series = series * near + c
    return torch.where(small, series, numerator(safe) / safe)


def nonzero(y: Tensor) -> Tensor:
    """`y` with moduli below 1e-100 replaced by 1e-100, so that it can be a divisor (and the quotient be times 0)."""
    return torch.where(y.abs() < 1e-100, torch.full_like(y, 1e-100), y)
