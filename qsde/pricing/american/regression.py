"""Least squares with columns that may be constant, zero or repeat each other."""

from __future__ import annotations

import torch
from torch import Tensor

#: Directions with less than this share of the columns' squares get no weight: there is nothing but noise in them, and
#: paths a little way from the others would see huge coefficients that no longer cancel.
_RANK = 1e-7


def least_squares(columns: Tensor, target: Tensor) -> Tensor:
    """Coefficients [p] that bring `columns` [p, n] closest to `target` [n]; zeros if n = 0.

    Columns are scaled to root mean square 1 and the normal equations solved through their eigenvectors. Where columns
    repeat each other they share the weight evenly: of all solutions it is the smallest for the scaled columns.

    Example:
        >>> x = torch.arange(4.0, dtype=torch.float64)
        >>> least_squares(torch.stack([torch.ones_like(x), x, 2 * x]), 1 + 10 * x)
        tensor([1.0000, 5.0000, 2.5000], dtype=torch.float64)
    """
    size = torch.sqrt(columns.square().mean(-1)) if target.numel() else columns.new_zeros(len(columns))
    scale = torch.where(size > 0, 1 / torch.where(size > 0, size, 1.0), 0.0)
    scaled = columns * scale.unsqueeze(-1)
    normal, right = scaled @ scaled.mT, scaled @ target
    solved: Tensor = torch.linalg.pinv(normal, rtol=_RANK, hermitian=True) @ right
    return solved * scale
