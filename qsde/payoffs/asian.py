"""Options on the average of the price at several dates."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Claim, Kind, OfNumbers, Terminal, vanilla
from qsde.payoffs.checks import (
    Average,
    as_like,
    as_number,
    check_choice,
    check_each_positive,
    check_kind,
    check_list,
    check_positive,
    check_times,
)


class _Averaging(Claim):
    """A payoff of the average of past and future fixings, paid at `expiry`."""

    fixings: Sequence[float]
    average: Average
    expiry: float | None
    past: Sequence[float] | Tensor

    @property
    def maturity(self) -> float:
        """The expiry; the last fixing where none is given."""
        return float(self.fixings[-1] if self.expiry is None else self.expiry)

    def _check_average(self) -> None:
        """Checks the fields above and makes the fixings floats."""
        check_choice(self.name, "average", self.average, Average)
        check_list(self.name, fixings=self.fixings, past=self.past)
        check_each_positive(self.name, past=self.past)
        if not len(self.fixings):
            raise InputError(f"{self.name}: fixings is empty; give at least one future fixing (past ones go in past)")
        last = float(as_number(self.name, "fixings[-1]", self.fixings[-1]))
        paid = last if self.expiry is None else float(as_number(self.name, "expiry", self.expiry))
        if paid < last:
            raise InputError(
                f"{self.name}: expiry = {paid} comes before the last fixing, {last}; pay after the fixings"
            )
        dates = [*self.fixings, paid] if paid > last else self.fixings
        object.__setattr__(self, "fixings", check_times(f"{self.name}.fixings", dates)[: len(self.fixings)])

    def _mean(self, fixed: Tensor) -> Tensor:
        """The average [*, path] of the fixings [*, path, fixing] and the past ones."""
        past, count = as_like(self.past, fixed), len(self.past) + fixed.shape[-1]
        if self.average == "arithmetic":
            return (fixed.sum(-1) + past.sum()) / count
        tiny = torch.finfo(fixed.dtype).tiny  # a price that underflowed to 0 keeps a finite gradient
        return torch.exp((fixed.clamp_min(tiny).log().sum(-1) + past.log().sum()) / count)


@dataclass(frozen=True)
class Asian(_Averaging, OfNumbers):
    """An average-price option: the vanilla payoff of the mean `A` of the price at `fixings`.

    `A` is the arithmetic mean `sum S_i / n` or the geometric one `(prod S_i)^(1/n)`, past fixings included, each with
    the same weight. For options on `S_T - A` see `AverageStrike`.

    Args:
        strike: strike, positive.
        fixings: fixing times in years, increasing, the first may be 0 (today's price); irregular schedules are fine.
        kind: "call" pays `max(A - K, 0)`, "put" `max(K - A, 0)`.
        average: "arithmetic" or "geometric".
        expiry: time of payment, at or after the last fixing; None pays at the last fixing.
        past: fixings already made, positive prices: a seasoned option.

    Raises:
        InputError: no fixing left, unsorted or negative fixing times, a past fixing or a strike that is not positive,
            or an expiry before the last fixing.

    Example:
        >>> path = torch.tensor([[90.0, 130.0]])
        >>> Asian(strike=100.0, fixings=(0.5, 1.0))(path)
        tensor([10.])
        >>> Asian(strike=100.0, fixings=(0.5, 1.0), past=[95.0, 105.0])(path)
        tensor([5.])
    """

    strike: float | Tensor
    fixings: Sequence[float]
    kind: Kind = "call"
    average: Average = "arithmetic"
    expiry: float | None = None
    past: Sequence[float] | Tensor = ()

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_kind(self.name, self.kind)
        self._check_average()

    @property
    def times(self) -> tuple[float, ...]:
        """The fixing times."""
        return tuple(self.fixings)

    @property
    def alike(self) -> Hashable:
        """The kind of average and the past fixings."""
        return "average", self.average, *self.past

    def numbers(self, prices: Tensor) -> Tensor:
        """The mean."""
        return self._mean(prices)

    def paid(self, numbers: Tensor) -> Tensor:
        """Vanilla payoff of the mean."""
        return vanilla(numbers, self.strike, self.kind)


@dataclass(frozen=True)
class AverageStrike(_Averaging, Terminal):
    """An average-strike option: the strike is the mean `A` of the price at `fixings`.

    `A` is the arithmetic or the geometric mean as in `Asian`, past fixings included.

    Args:
        fixings: fixing times in years, increasing, the first may be 0 (today's price).
        kind: "call" pays `max(S_T - A, 0)`, "put" `max(A - S_T, 0)`.
        average: "arithmetic" or "geometric".
        expiry: time `T` of payment, at or after the last fixing; None is the last fixing.
        past: fixings already made, positive prices: a seasoned option.

    Raises:
        InputError: no fixing left, unsorted or negative fixing times, a past fixing that is not positive, an expiry
            before the last fixing, or nothing to compare the price at expiry with.

    Example:
        >>> AverageStrike(fixings=(0.5, 1.0), expiry=2.0)(torch.tensor([[90.0, 130.0, 115.0]]))
        tensor([5.])
    """

    fixings: Sequence[float]
    kind: Kind = "call"
    average: Average = "arithmetic"
    expiry: float | None = None
    past: Sequence[float] | Tensor = ()

    def __post_init__(self) -> None:
        check_kind(self.name, self.kind)
        self._check_average()
        if len(self.past) + len(self.times) < 2:
            raise InputError(
                f"{self.name}: the only fixing, {self.fixings[0]}, is the expiry, so it pays nothing; add fixings or "
                "a later expiry"
            )

    @property
    def times(self) -> tuple[float, ...]:
        """The fixing times, and the expiry where it is later."""
        return (*self.fixings, self.maturity) if self.maturity > self.fixings[-1] else tuple(self.fixings)

    def __call__(self, prices: Tensor) -> Tensor:
        """Vanilla payoff of the last price, struck at the mean."""
        return vanilla(prices[..., -1], self._mean(prices[..., : len(self.fixings)]), self.kind)
