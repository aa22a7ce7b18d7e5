"""Payoffs of several underlyings at one date: baskets, spreads, the best and the worst of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Kind, Terminal, vanilla
from qsde.payoffs.checks import as_like, check_finite, check_kind, check_positive


class _Rainbow(Terminal):
    """A call or put on one number made of the prices of several underlyings at `expiry`."""

    strike: float | Tensor
    expiry: float
    kind: Kind

    @property
    def times(self) -> tuple[float, ...]:
        """The expiry."""
        return (float(self.expiry),)

    def __call__(self, prices: Tensor) -> Tensor:
        """Vanilla payoff [*, path] of prices [*, asset, path, time]."""
        return vanilla(self._level(prices[..., -1]), self.strike, self.kind)

    @abstractmethod
    def _level(self, prices: Tensor) -> Tensor:
        """The number [*, path] that the strike is compared with, of prices [*, asset, path]."""

    def _check(self) -> None:
        check_finite(self.name, strike=self.strike)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)


class _Weighted(_Rainbow):
    """One with a weight for each underlying."""

    weights: Sequence[float] | Tensor

    @property
    def assets(self) -> int:
        """As many as there are weights."""
        return len(self.weights)

    def _weighted(self, prices: Tensor) -> Tensor:
        """`w_i S_i`, [*, asset, path]."""
        return as_like(self.weights, prices).unsqueeze(-1) * prices

    def _check(self) -> None:
        super()._check()
        weights = torch.as_tensor(self.weights)
        if weights.dim() != 1 or len(weights) < 2:
            raise InputError(f"{self.name}: weights must be two or more, one for each underlying, got {self.weights}")
        check_finite(self.name, **{f"weights[{i}]": weight for i, weight in enumerate(weights)})


@dataclass(frozen=True)
class Basket(_Weighted):
    """A call or put on the weighted sum of prices `A = w_1 S_1 + ... + w_n S_n`.

    Weights may be negative: a basket of weights (1, -1) is a spread, one of (a, -b) with strike 0 the right to give `b`
    units of the second for `a` of the first (Margrabe 1978).

    Args:
        weights: one for each underlying, in the order of the model; units of each, or `w_i / S_i(0)` for a basket of
            performances.
        strike: strike; it may be 0 or negative.
        expiry: years.
        kind: "call" pays `max(A - K, 0)`, "put" `max(K - A, 0)`.

    Raises:
        InputError: fewer than two weights, weights that are all 0 or not finite, a strike that is not finite, an expiry
            that is not in the future, or an unknown kind.

    Example:
        >>> Basket(weights=(0.5, 0.5), strike=100.0, expiry=1.0)(torch.tensor([[[90.0]], [[130.0]]]))
        tensor([10.])
    """

    weights: Sequence[float] | Tensor
    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    def __post_init__(self) -> None:
        self._check()
        if holds(torch.as_tensor(self.weights) == 0):
            raise InputError(f"{self.name}: all weights are 0, so that the basket is worth nothing; give at least one")

    def _level(self, prices: Tensor) -> Tensor:
        return self._weighted(prices).sum(-2)


@dataclass(frozen=True)
class Spread(_Rainbow):
    """A call or put on the difference of two prices `S_1 - S_2`.

    With `strike=0` it is the right to exchange the second for the first, priced in closed form by Margrabe (1978)
    under Black-Scholes.

    Args:
        strike: strike; it may be 0 or negative.
        expiry: years.
        kind: "call" pays `max(S_1 - S_2 - K, 0)`, "put" `max(K - S_1 + S_2, 0)`.

    Raises:
        InputError: a strike that is not finite, an expiry that is not in the future, or an unknown kind.

    Example:
        >>> Spread(strike=5.0, expiry=1.0)(torch.tensor([[[110.0]], [[90.0]]]))
        tensor([15.])
    """

    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    def __post_init__(self) -> None:
        self._check()

    @property
    def assets(self) -> int:
        """Two."""
        return 2

    def _level(self, prices: Tensor) -> Tensor:
        return prices[..., 0, :] - prices[..., 1, :]


class _Ranked(_Weighted):
    def __post_init__(self) -> None:
        self._check()
        if not holds(torch.as_tensor(self.weights) > 0):
            raise InputError(
                f"{self.name}: weights must be positive, got {self.weights}; leave out what does not count"
            )


@dataclass(frozen=True)
class BestOf(_Ranked):
    """A call or put on the highest of the weighted prices: on the maximum, a rainbow option.

    Where two are level the derivative is shared between them.

    Args:
        weights: positive, one for each underlying; (1, 1) compares prices, `1 / S_i(0)` performances.
        strike: strike.
        expiry: years.
        kind: "call" pays `max(max_i w_i S_i - K, 0)`, "put" `max(K - max_i w_i S_i, 0)`.

    Raises:
        InputError: fewer than two weights, one that is not positive and finite, a strike that is not finite, an expiry
            that is not in the future, or an unknown kind.

    Reference:
        Stulz (1982), "Options on the minimum or the maximum of two risky assets", J. Financial Economics 10.

    Example:
        >>> BestOf(weights=(1.0, 1.0), strike=100.0, expiry=1.0)(torch.tensor([[[110.0]], [[90.0]]]))
        tensor([10.])
    """

    weights: Sequence[float] | Tensor
    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    def _level(self, prices: Tensor) -> Tensor:
        return self._weighted(prices).amax(-2)


@dataclass(frozen=True)
class WorstOf(_Ranked):
    """A call or put on the lowest of the weighted prices: on the minimum.

    Args:
        weights: positive, one for each underlying; (1, 1) compares prices, `1 / S_i(0)` performances.
        strike: strike.
        expiry: years.
        kind: "call" pays `max(min_i w_i S_i - K, 0)`, "put" `max(K - min_i w_i S_i, 0)`.

    Raises:
        InputError: as `BestOf`.

    Reference:
        Stulz (1982), as `BestOf`; Johnson (1987), "Options on the maximum or the minimum of several assets", J.
        Financial and Quantitative Analysis 22.

    Example:
        >>> WorstOf(weights=(1.0, 1.0), strike=100.0, expiry=1.0, kind="put")(torch.tensor([[[110.0]], [[90.0]]]))
        tensor([10.])
    """

    weights: Sequence[float] | Tensor
    strike: float | Tensor
    expiry: float
    kind: Kind = "call"

    def _level(self, prices: Tensor) -> Tensor:
        return self._weighted(prices).amin(-2)
