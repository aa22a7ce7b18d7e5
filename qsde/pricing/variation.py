"""Quadratic variation of a log price with cash in it."""

from __future__ import annotations

from torch import Tensor


def with_cash(variance: Tensor, slope: Tensor | None, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Variance over an interval of `log S`, and its slope, from those of x where `S = scale exp(x) + shift`.

    With `m = (S - shift) / S` the share of the price that moves, `d log S = m dx`, and m itself moves with the price:
    the variance is `w m^2` and its change per unit of log price `m slope + 2 w m (1 - m)`.

    Args:
        variance: quadratic variation of x over the interval, w.
        slope: change of it per unit of x; None if there is none.
        moving: m, of the same shape.

    Example:
        >>> import torch
        >>> with_cash(torch.tensor(0.04), None, torch.tensor(0.5))
        (tensor(0.0100), tensor(0.0200))
    """
    by_share = 2.0 * variance * moving * (1.0 - moving)
    return variance * moving.square(), by_share if slope is None else moving * slope + by_share
