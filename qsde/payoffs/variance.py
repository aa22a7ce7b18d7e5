"""Contracts on realised variance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Kind, OfNumbers, vanilla
from qsde.payoffs.checks import as_like, check_kind, check_not_negative, check_positive, check_times


class _Realised(OfNumbers):
    """A payoff of the variance that is realised on `observations`."""

    observations: Sequence[float]
    periods_per_year: float | None

    @property
    def times(self) -> tuple[float, ...]:
        """The observation times."""
        return tuple(self.observations)

    @property
    def alike(self) -> Hashable:
        """The convention of the variance."""
        return "realised variance", self.periods_per_year

    def numbers(self, prices: Tensor) -> Tensor:
        """Annualised realised variance [*, path] of prices [*, path, observation]."""
        squares = torch.log(prices[..., 1:] / prices[..., :-1]).square()
        if self.periods_per_year is None:
            return squares.sum(-1) / (self.observations[-1] - self.observations[0])
        return squares.mean(-1) * self.periods_per_year

    def _check_observations(self) -> None:
        """Checks the fields above and makes the times floats."""
        object.__setattr__(self, "observations", check_times(f"{self.name}.observations", self.observations))
        if len(self.observations) < 2:
            raise InputError(f"{self.name}: observations has one time; a return needs two, the first may be 0")
        if self.periods_per_year is not None:
            check_positive(self.name, periods_per_year=self.periods_per_year)


@dataclass(frozen=True)
class _Swap(_Realised):
    strike: float | Tensor
    observations: Sequence[float]
    notional: float | Tensor = 1.0
    periods_per_year: float | None = None

    def __post_init__(self) -> None:
        check_not_negative(self.name, strike=self.strike)
        check_positive(self.name, notional=self.notional)
        self._check_observations()


@dataclass(frozen=True)
class VarianceSwap(_Swap):
    """Pays `notional (R - strike)` at the last observation, `R` the annualised realised variance.

    `R = sum_i log(S_i / S_{i-1})^2 / (t_n - t_0)` over the `n` returns between neighbouring observations, or
    `periods_per_year / n` times the sum; the mean return is not subtracted.

    Args:
        strike: annualised variance, decimal: 0.04 is a volatility of 20 %; 0 leaves the floating leg.
        observations: times in years, increasing, at least two; the first (0 is today) only sets the first level.
        notional: paid per 1.00 of variance. A vega notional `N` per 1.00 of volatility is `N / (2 sqrt(strike))`.
        periods_per_year: None divides by the length of the observation period in years, 252 is the market's
            convention for daily closes.

    Raises:
        InputError: fewer than two observations, times that do not increase, or a negative strike.

    Example:
        >>> swap = VarianceSwap(strike=0.04, observations=(0.0, 0.5, 1.0), notional=100.0)
        >>> swap(100 * torch.exp(torch.tensor([[0.0, 0.2, 0.1]])))
        tensor([1.0000])
    """

    def paid(self, numbers: Tensor) -> Tensor:
        """`notional (R - strike)`."""
        return as_like(self.notional, numbers) * (numbers - self.strike)


@dataclass(frozen=True)
class VolatilitySwap(_Swap):
    """Pays `notional (sqrt(R) - strike)` at the last observation, `R` as in `VarianceSwap`.

    Args:
        strike: annualised volatility, decimal: 0.2 is 20 %; 0 leaves the floating leg.
        observations: times in years, increasing, at least two; the first (0 is today) only sets the first level.
        notional: paid per 1.00 of volatility.
        periods_per_year: as in `VarianceSwap`.

    Raises:
        InputError: fewer than two observations, times that do not increase, or a negative strike.

    Example:
        >>> swap = VolatilitySwap(strike=0.2, observations=(0.0, 1.0), notional=100.0)
        >>> swap(100 * torch.exp(torch.tensor([[0.0, 0.3]])))
        tensor([10.0000])
    """

    def paid(self, numbers: Tensor) -> Tensor:
        """`notional (sqrt(R) - strike)`."""
        flat = numbers == 0
        volatility = torch.where(flat, 0.0, torch.where(flat, 1.0, numbers).sqrt())
        return as_like(self.notional, numbers) * (volatility - self.strike)


@dataclass(frozen=True)
class VarianceOption(_Realised):
    """A call or put on realised variance: pays `notional max(R - strike, 0)`, `R` as in `VarianceSwap`.

    Args:
        strike: annualised variance, decimal, positive: 0.04 is a volatility of 20 %.
        observations: times in years, increasing, at least two; the first (0 is today) only sets the first level.
        kind: "call" or "put".
        notional: paid per 1.00 of variance.
        periods_per_year: as in `VarianceSwap`.

    Raises:
        InputError: fewer than two observations, times that do not increase, or a strike that is not positive.

    Example:
        >>> option = VarianceOption(strike=0.05, observations=(0.0, 1.0), notional=100.0)
        >>> option(100 * torch.exp(torch.tensor([[0.0, 0.3], [0.0, 0.1]])))
        tensor([4.0000, 0.0000])
    """

    strike: float | Tensor
    observations: Sequence[float]
    kind: Kind = "call"
    notional: float | Tensor = 1.0
    periods_per_year: float | None = None

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike, notional=self.notional)
        check_kind(self.name, self.kind)
        self._check_observations()

    def paid(self, numbers: Tensor) -> Tensor:
        """Vanilla payoff of the realised variance."""
        return as_like(self.notional, numbers) * vanilla(numbers, self.strike, self.kind)
