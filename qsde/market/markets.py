"""The market of a claim on several underlyings: one rate curve, and a spot, yield and dividends for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.clock import Clock
from qsde.market.curves import Times
from qsde.market.underlying import Market
from qsde.numerics import holds

#: Years at which the discount factors of the markets are compared.
_COMPARED = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True)
class Markets:
    """Markets of several underlyings in one currency; the methods of `Market` with an axis of assets in front.

    Args:
        markets: one per underlying, in the order of the model's assets; all with the same interest rates.

    Raises:
        InputError: there are no markets, an entry is not a `Market`, or the discount factors of two differ.

    Example:
        >>> Markets([Market(100.0, rate=0.02), Market(50.0, rate=0.02, dividend_yield=0.02)]).forward(1.0)
        tensor([102.0201,  50.0000], dtype=torch.float64)
    """

    markets: Sequence[Market]

    def __post_init__(self) -> None:
        object.__setattr__(self, "markets", tuple(self.markets))
        if not self.markets:
            raise InputError("markets is empty; give one Market per underlying")
        for i, market in enumerate(self.markets):
            if not isinstance(market, Market):
                raise InputError(f"markets[{i}] must be a Market, got {type(market).__name__}")
            gap = torch.log(market.discount(_COMPARED) / self.discount(_COMPARED)).abs()
            if not holds(gap < 1e-12):
                raise InputError(
                    f"markets[{i}] discounts at another rate than markets[0]; give all the same `rate`, and what a "
                    "stock pays or costs beyond it as `dividend_yield`"
                )

    @property
    def spots(self) -> Tensor:
        """Prices now, [asset]."""
        return torch.stack([torch.as_tensor(m.spot) for m in self.markets])

    @property
    def has_cash(self) -> bool:
        """Whether any underlying pays cash dividends."""
        return any(m.has_cash for m in self.markets)

    @property
    def dividend_times(self) -> tuple[float, ...]:
        """Ex-dates of all underlyings in years, increasing, each once."""
        return tuple(sorted({t for m in self.markets for t in m.dividend_times}))

    @property
    def clock(self) -> Clock | None:
        """The one of all markets (see `Market.clock`)."""
        return self.markets[0].clock

    def years(self, dates: Times) -> Tensor:
        """Years from now to dates (see `Market.years`)."""
        return self.markets[0].years(dates)

    def discount(self, t: Times) -> Tensor:
        """Value today of 1 paid at `t` years, in the shape of `t`."""
        return self.markets[0].discount(t)

    def forward(self, t: Times) -> Tensor:
        """Forward prices [asset, *t] (see `Market.forward`)."""
        return torch.stack([m.forward(t) for m in self.markets])

    def affine(self, t: Times, before: bool = False, horizon: Times = math.inf) -> tuple[Tensor, Tensor]:
        """Scales and shifts [asset, *t] of the prices `scale exp(x_t) + shift` (see `Market.affine`)."""
        pairs = [m.affine(t, before, horizon) for m in self.markets]
        scales, shifts = zip(*pairs, strict=True)
        return torch.stack(scales), torch.stack(shifts)
