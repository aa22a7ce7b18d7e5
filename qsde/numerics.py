"""Guarded elementary functions: finite values and finite gradients at the points where the plain formula divides by 0.

The rule everywhere: make the input of a branch safe first, then select with `torch.where`. A bare `where` over an
expression that is NaN on the unused side has NaN gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Below this modulus the quotients here use their Taylor series: the plain formula would lose more than the series.
_SMALL = 1e-4


def norm_cdf(x: Tensor) -> Tensor:
    """Standard normal distribution function, accurate in relative terms in the lower tail.

    Example:
        >>> round(float(norm_cdf(torch.tensor(-10.0, dtype=torch.float64))), 30)
        7.619853e-24
    """
    return torch.special.erfc(-x / math.sqrt(2.0)) / 2.0


def norm_pdf(x: Tensor) -> Tensor:
    """Standard normal density."""
    return torch.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)


def exp_quotient(y: Tensor) -> Tensor:
    """`(1 - exp(-y)) / y`, which is 1 at 0; real or complex, with finite derivatives everywhere.

    Example:
        >>> exp_quotient(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([1.0000, 0.6321], dtype=torch.float64)
    """
    small = y.abs() < _SMALL
    safe = torch.where(small, torch.ones_like(y), y)
    series = 1 - y / 2 * (1 - y / 3 * (1 - y / 4))
    return torch.where(small, series, (1 - torch.exp(-safe)) / safe)


def log1p_quotient(y: Tensor) -> Tensor:
    """`log(1 + y) / y`, which is 1 at 0; real or complex (principal branch), with finite derivatives everywhere.

    Example:
        >>> log1p_quotient(torch.tensor([0.0, 1.0], dtype=torch.float64))
        tensor([1.0000, 0.6931], dtype=torch.float64)
    """
    small = y.abs() < _SMALL
    safe = torch.where(small, torch.ones_like(y), y)
    series = 1 - y * (1 / 2 - y * (1 / 3 - y * (1 / 4 - y / 5)))
    return torch.where(small, series, torch.log(1 + safe) / safe)


def nonzero(y: Tensor) -> Tensor:
    """`y` with exact zeros replaced by the smallest normal number, so that it can be a divisor."""
    return torch.where(y == 0, torch.full_like(y, torch.finfo(torch.float64).tiny), y)
