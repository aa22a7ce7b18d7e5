"""Realised volatility of daily returns."""

from __future__ import annotations

import torch
from torch import Tensor

#: Trading days of a year.
YEAR = 252


def realised_volatility(returns: Tensor) -> Tensor:
    """`sqrt(252 / h sum r^2)` of h daily log returns along the last axis: annualised, decimal.

    Example:
        >>> realised_volatility(torch.tensor([0.01, -0.01, 0.01, -0.01]))
        tensor(0.1587)
    """
    return torch.sqrt(YEAR * returns.square().mean(-1))
