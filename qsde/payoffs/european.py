"""Payoffs of the price at one date."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.numerics import holds
from qsde.payoffs.base import Kind, Terminal, vanilla
from qsde.payoffs.checks import as_like, check_finite, check_kind, check_positive, refuse_gradient

#: Variances below this are as good as none, and roots are taken here.
_LEAST_VARIANCE = 1e-20


class AtExpiry(Terminal):
    """A payoff of the price at `expiry`: so many assets and so much cash beyond a trigger, nothing before it.

    Its mean is known in closed form wherever the price at expiry is lognormal, as it is under stochastic volatility
    once the path of the variance is given.
    """

    expiry: float
    kind: Kind

    @property
    def times(self) -> tuple[float, ...]:
        """The expiry."""
        return (float(self.expiry),)

    @property
    @abstractmethod
    def legs(self) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
        """Assets, cash, and the trigger beyond which (above for a call, below for a put) they are paid."""

    def given_lognormal(self, forward: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of the amount if `log S` is normal with this variance and `S` has this mean.

        `E[S^n 1{S > k}] = F^n exp(n (n - 1) w / 2) N(d + n sqrt(w))` with `d = log(F / k) / sqrt(w) - sqrt(w) / 2`. It
        is smooth in everything, also where the payoff jumps.

        Example:
            >>> mean, _ = European(100.0, 1.0).given_lognormal(torch.tensor(100.0), torch.tensor(0.04))
            >>> mean
            tensor(7.9656)
        """
        assets, cash, trigger = (as_like(leg, forward) for leg in self.legs)
        side = 1.0 if self.kind == "call" else -1.0
        root = torch.sqrt(variance.clamp(min=_LEAST_VARIANCE))
        d = torch.log(forward / trigger) / root - 0.5 * root
        zero, one, two = (0.5 * torch.special.erfc(-side * math.sqrt(0.5) * (d + n * root)) for n in range(3))
        stock = forward * one
        mean = assets * stock + cash * zero
        square = assets.square() * forward.square() * torch.exp(variance) * two
        square = square + 2 * assets * cash * stock + cash.square() * zero
        return mean, (square - mean.square()).clamp(min=0)


@dataclass(frozen=True)
class European(AtExpiry):
    """A European call or put.

    Args:
        strike: strike, positive.
        expiry: years.
        kind: "call" pays `max(S - K, 0)`, "put" `max(K - S, 0)`.

    Raises:
        InputError: a strike that is not positive, an expiry that is not in the future, or an unknown kind.

    Example:
        >>> European(strike=100.0, expiry=1.0)(torch.tensor([[90.0], [120.0]]))
        tensor([ 0., 20.])
    """

    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)

    @property
    def legs(self) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
        """One asset against the strike."""
        side = 1.0 if self.kind == "call" else -1.0
        return side, -side * self.strike, self.strike

    def __call__(self, prices: Tensor) -> Tensor:
        """`max(S - K, 0)` or `max(K - S, 0)`."""
        return vanilla(prices[..., -1], self.strike, self.kind)


@dataclass(frozen=True)
class Digital(AtExpiry):
    """Cash or nothing: pays `cash` if the price at expiry is above (call) or below (put) the strike.

    At the strike neither pays. The amount jumps there, so its pathwise gradient is refused.

    Args:
        strike: strike, positive.
        expiry: years.
        kind: "call" pays above the strike, "put" below.
        cash: the amount; a negative one is a liability.

    Raises:
        InputError: a strike that is not positive, an expiry that is not in the future, or an unknown kind.

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
        check_finite(self.name, cash=self.cash)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)

    @property
    def legs(self) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
        """The cash."""
        return 0.0, self.cash, self.strike

    def __call__(self, prices: Tensor) -> Tensor:
        """`cash 1{S > K}` or `cash 1{S < K}`."""
        refuse_gradient(self.name, strike=self.strike)
        return as_like(self.cash, prices) * _beyond(prices[..., -1], self.strike, self.kind)


@dataclass(frozen=True)
class AssetDigital(AtExpiry):
    """Asset or nothing: pays the price at expiry if it is above (call) or below (put) the strike.

    At the strike neither pays. The amount jumps there, so its pathwise gradient is refused. A call less `strike` cash
    digitals of 1 is the vanilla call.

    Args:
        strike: strike, positive.
        expiry: years.
        kind: "call" pays above the strike, "put" below.

    Raises:
        InputError: a strike that is not positive, an expiry that is not in the future, or an unknown kind.

    Example:
        >>> AssetDigital(strike=100.0, expiry=1.0)(torch.tensor([[90.0], [120.0]]))
        tensor([  0., 120.])
    """

    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)

    @property
    def legs(self) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
        """One asset."""
        return 1.0, 0.0, self.strike

    def __call__(self, prices: Tensor) -> Tensor:
        """`S 1{S > K}` or `S 1{S < K}`."""
        refuse_gradient(self.name, strike=self.strike)
        price = prices[..., -1]
        return price * _beyond(price, self.strike, self.kind)


@dataclass(frozen=True)
class Gap(AtExpiry):
    """A gap option: a call pays `S - strike` if `S > trigger`, a put `strike - S` if `S < trigger`; it may be negative.

    With `trigger == strike` it is the vanilla. Otherwise the amount jumps at the trigger by the gap between them, and
    its pathwise gradient is refused. After Haug (1998), The Complete Guide to Option Pricing Formulas, p. 88.

    Args:
        strike: what is exchanged for the asset, positive.
        trigger: level that decides whether the option pays, positive.
        expiry: years.
        kind: "call" or "put".

    Raises:
        InputError: a level that is not positive, an expiry that is not in the future, or an unknown kind.

    Example:
        >>> Gap(strike=57.0, trigger=50.0, expiry=0.5)(torch.tensor([[52.0], [60.0]]))
        tensor([-5.,  3.])
    """

    strike: float | Tensor
    trigger: float | Tensor
    expiry: float
    kind: Kind = "call"

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike, trigger=self.trigger)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)

    @property
    def legs(self) -> tuple[float | Tensor, float | Tensor, float | Tensor]:
        """One asset against the strike, beyond the trigger."""
        side = 1.0 if self.kind == "call" else -1.0
        return side, -side * self.strike, self.trigger

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """True where the trigger is the strike, so that nothing jumps."""
        return not holds(torch.as_tensor(self.trigger) != torch.as_tensor(self.strike))

    def __call__(self, prices: Tensor) -> Tensor:
        """`(S - K) 1{S > trigger}` or `(K - S) 1{S < trigger}`."""
        if not self.continuous:
            refuse_gradient(self.name, trigger=self.trigger)
        price = prices[..., -1]
        amount = price - self.strike if self.kind == "call" else self.strike - price
        return amount * _beyond(price, self.trigger, self.kind)


def _beyond(price: Tensor, level: float | Tensor, kind: Kind) -> Tensor:
    """Whether the price is strictly above (call) or below (put) the level."""
    return price > level if kind == "call" else price < level
