"""The market a payoff is priced in: a spot and two curves."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.curves import Curve, FlatCurve, Times, as_curve


@dataclass(frozen=True)
class Market:
    """Spot, interest rates and dividend yield of one underlying.

    Args:
        spot: price now; a tensor that requires grad gives delta.
        rate: continuous zero rate, annualised decimal (a tensor that requires grad gives rho), or a curve.
        dividend_yield: continuous yield, or a curve.

    Raises:
        InputError: the spot is not a positive finite number.

    Example:
        >>> Market(spot=100.0, rate=0.03, dividend_yield=0.01).forward(1.0)
        tensor(102.0201, dtype=torch.float64)
    """

    spot: float | Tensor
    rate: float | Tensor | Curve = 0.0
    dividend_yield: float | Tensor | Curve = 0.0

    def __post_init__(self) -> None:
        spot = torch.as_tensor(self.spot, dtype=torch.float64)
        if spot.dim() or not (bool(spot > 0) and bool(torch.isfinite(spot))):
            raise InputError(f"spot must be one positive finite number, got {self.spot}")
        object.__setattr__(self, "spot", spot)
        for name in ("rate", "dividend_yield"):
            given = getattr(self, name)
            curve = FlatCurve(given) if isinstance(given, Tensor) else as_curve(given, name)
            object.__setattr__(self, name, curve)

    def discount(self, t: Times) -> Tensor:
        """Value today of 1 paid at `t` years."""
        return _curve(self.rate).discount(t)

    def forward(self, t: Times) -> Tensor:
        """Forward price: `spot * D_dividend(t) / D_rate(t)`."""
        return self.spot * _curve(self.dividend_yield).discount(t) / self.discount(t)


def _curve(rate: float | Tensor | Curve) -> Curve:
    assert isinstance(rate, Curve), "curves are made when the market is"
    return rate
