"""Payoffs of the price at one date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.payoffs.base import Kind, Terminal, check_kind, check_positive, check_times, vanilla


@dataclass(frozen=True)
class European(Terminal):
    """A European call or put.

    Example:
        >>> European(strike=100.0, expiry=1.0)(torch.tensor([[90.0], [120.0]]))
        tensor([ 0., 20.])
    """

    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_times(self.name, [self.expiry])
        check_kind(self.name, self.kind)

    @property
    def times(self) -> tuple[float, ...]:
        """The expiry."""
        return (float(self.expiry),)

    def __call__(self, paths: Tensor) -> Tensor:
        """`max(S - K, 0)` or `max(K - S, 0)`."""
        return vanilla(paths[..., -1], self.strike, self.kind)


@dataclass(frozen=True)
class Digital(Terminal):
    """Pays `cash` if the price at expiry is above (call) or below (put) the strike.

    Example:
        >>> Digital(strike=100.0, expiry=1.0, cash=10.0)(torch.tensor([[90.0], [120.0]]))
        tensor([ 0., 10.])
    """

    strike: float | Tensor
    expiry: float
    kind: Kind = "call"
    cash: float | Tensor = 1.0

    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_times(self.name, [self.expiry])
        check_kind(self.name, self.kind)

    @property
    def times(self) -> tuple[float, ...]:
        """The expiry."""
        return (float(self.expiry),)

    def __call__(self, paths: Tensor) -> Tensor:
        """`cash 1{S > K}` or `cash 1{S < K}`."""
        price = paths[..., -1]
        hit = price > self.strike if self.kind == "call" else price < self.strike
        return torch.as_tensor(self.cash, dtype=price.dtype, device=price.device) * hit
