"""Guarded elementary functions: finite values and finite gradients at the points where the plain formula divides by 0.

The rule everywhere: make the input of a branch safe first, then select with `torch.where`. A bare `where` over an
expression that is NaN on the unused side has NaN gradients.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
