"""Options that may be exercised before they expire: on dates, or at any time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.barrier import Style
from qsde.payoffs.base import EarlyExercise, Kind, Knock, Terminal
from qsde.payoffs.basket import BestOf, WorstOf
from qsde.payoffs.checks import (
    as_like,
    check_choice,
    check_kind,
    check_list,
    check_not_negative,
    check_positive,
    check_times,
)
from qsde.payoffs.monitoring import BetweenDates
from qsde.payoffs.region import Region, region
from qsde.payoffs.seen import Watched

#: Exercise dates beyond which an American is refused.
_MOST_DATES = 2000


class _OnPrice(EarlyExercise):
    """A call or put on the price of one underlying."""

    strike: float | Tensor
    kind: Kind

    def exercise(self, prices: Tensor) -> Tensor:
        """`S - K` for a call, `K - S` for a put."""
        return prices - self.strike if self.kind == "call" else self.strike - prices


@dataclass(frozen=True)
class Bermudan(_OnPrice):
    """A call or put that may be exercised on certain dates.

    Args:
        strike: strike, positive.
        dates: exercise dates in years, increasing; 0 is today. The last one is the expiry.
        kind: "call" pays `S - K`, "put" `K - S`.

    Raises:
        InputError: a strike that is not positive, dates that are negative or not in order, or an unknown kind.

    Example:
        >>> Bermudan(strike=100.0, dates=(0.5, 1.0), kind="put").exercise(torch.tensor([[90.0, 105.0]]))
        tensor([[10., -5.]])
    """

    strike: float | Tensor
    dates: Sequence[float]
    kind: Kind = "put"

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        object.__setattr__(self, "dates", check_times(f"{self.name}.dates", self.dates))
        check_kind(self.name, self.kind)

    @property
    def times(self) -> tuple[float, ...]:
        """The exercise dates."""
        return tuple(self.dates)


@dataclass(frozen=True)
class American(_OnPrice):
    """A call or put that may be exercised at any time, simulated as one with many exercise dates.

    Under Black-Scholes with a constant rate and yield its price is exact (see `qsde.pricing.price`), and the dates do
    not matter. Otherwise they are today, the expiry and equal steps between them. Of the value of an American put under
    Black-Scholes fifty a year leave out some 0.2 %; the error falls as one over the number of dates. Ex-dates of
    dividends are added: on them the holder may exercise before or after the price drops.

    Args:
        strike: strike, positive.
        expiry: years.
        kind: "call" pays `S - K`, "put" `K - S`.
        dates_per_year: exercise dates per year, rounded up to a whole number of steps.

    Raises:
        InputError: a strike that is not positive, an expiry that is not in the future, an unknown kind, or more than
            2000 dates.

    Example:
        >>> American(strike=100.0, expiry=0.5, dates_per_year=8).times
        (0.0, 0.125, 0.25, 0.375, 0.5)
    """

    strike: float | Tensor
    expiry: float
    kind: Kind = "put"
    dates_per_year: float = 50.0

    anytime: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)
        _check_dates(self.name, self.expiry, self.dates_per_year)

    @property
    def times(self) -> tuple[float, ...]:
        """Today, equal steps, and the expiry."""
        return _equal_steps(self.expiry, self.dates_per_year)


@dataclass(frozen=True)
class Exercisable(EarlyExercise):
    """The right to be paid, on one of several dates, what another payoff would pay at expiry.

    It makes Bermudan options of baskets, of the best of several underlyings, of digitals and of every other payoff of
    the prices at one date that has a `kind`.

    Args:
        payoff: a payoff of the prices at its expiry.
        dates: exercise dates in years, increasing, none after the expiry; 0 is today. The expiry is always one.

    Raises:
        InputError: dates that are negative, not in order or after the expiry; a payoff of more than one date.

    Example:
        >>> from qsde.payoffs import BestOf
        >>> right = Exercisable(BestOf((1.0, 1.0), strike=100.0, expiry=1.0), dates=(0.5,))
        >>> right.times, right.exercise(torch.tensor([[[110.0, 70.0]], [[90.0, 80.0]]]))
        ((0.5, 1.0), tensor([[ 10., -20.]]))
    """

    payoff: Terminal
    dates: Sequence[float]

    def __post_init__(self) -> None:
        if not isinstance(self.payoff, Terminal) or len(self.payoff.times) != 1 or not hasattr(self.payoff, "kind"):
            raise InputError(f"{self.name}: payoff must be a call or put on the prices at one date, got {self.payoff}")
        expiry = self.payoff.maturity
        check_list(self.name, dates=self.dates)
        late = [t for t in self.dates if t > expiry]
        if late:
            raise InputError(f"{self.name}: dates has {late[0]}, after the expiry {expiry}; drop the later dates")
        dates = self.dates if expiry in self.dates else [*self.dates, expiry]
        object.__setattr__(self, "dates", check_times(f"{self.name}.dates", dates))

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """As the payoff."""
        return self.payoff.continuous

    @property
    def times(self) -> tuple[float, ...]:
        """The exercise dates, the expiry among them."""
        return tuple(self.dates)

    @property
    def assets(self) -> int:
        """Those of the payoff."""
        return self.payoff.assets

    def exercise(self, prices: Tensor) -> Tensor:
        """What the payoff pays, or else minus what the payoff of the other kind does."""
        own: Any = self.payoff
        other = dataclasses.replace(own, kind="put" if own.kind == "call" else "call")
        pays, misses = (torch.stack([f(p) for p in prices.split(1, -1)], -1) for f in (own, other))
        return torch.where(pays != 0, pays, -misses.abs())

    def signals(self, prices: Tensor) -> Tensor:
        """Log-prices; of the best or the worst of several in order of size, so that they may change places."""
        if not isinstance(self.payoff, (BestOf, WorstOf)):
            return super().signals(prices)
        weighted = as_like(self.payoff.weights, prices).reshape(-1, 1, 1) * prices
        return super().signals(weighted).sort(0, descending=True).values


@dataclass(frozen=True)
class AmericanBarrier(_OnPrice):
    """An American call or put that ends, or begins, when the price touches a barrier.

    It is watched at every moment, through Brownian bridges between the dates, and priced with many exercise dates, see
    `American`. The holder of a knock-out may exercise on the way to the barrier: touching it is worth the rebate or
    what exercising there pays, whichever is more. Jumps over the barrier leave the rebate only. After a knock-in the
    option may be exercised from the next date on.

    Args:
        strike: strike, positive.
        barrier: level, positive.
        expiry: years.
        style: "up-and-out", "down-and-out", "up-and-in" or "down-and-in".
        kind: "call" or "put".
        rebate: paid at the moment a knock-out ends, or at expiry if a knock-in never begins; not negative.
        dates_per_year: exercise dates per year, rounded up to a whole number of steps.

    Raises:
        InputError: a level that is not positive, a negative rebate, or an unknown style or kind.

    Example:
        >>> option = AmericanBarrier(strike=100.0, barrier=110.0, expiry=1.0, style="up-and-out", kind="call")
        >>> option.inside(torch.tensor([105.0, 111.0]))
        tensor([ True, False])
    """

    strike: float | Tensor
    barrier: float | Tensor
    expiry: float
    style: Style
    kind: Kind = "call"
    rebate: float | Tensor = 0.0
    dates_per_year: float = 50.0

    anytime: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike, barrier=self.barrier)
        check_not_negative(self.name, rebate=self.rebate)
        check_choice(self.name, "style", self.style, Style)
        check_positive(self.name, expiry=self.expiry)
        check_kind(self.name, self.kind)
        _check_dates(self.name, self.expiry, self.dates_per_year)

    @property
    def times(self) -> tuple[float, ...]:
        """Today, equal steps, and the expiry."""
        return _equal_steps(self.expiry, self.dates_per_year)

    @property
    def window(self) -> tuple[float, float]:
        """From now to the expiry."""
        return 0.0, float(self.expiry)

    @property
    def knocks_in(self) -> bool:  # type: ignore[override]
        """Whether the style ends in "in"."""
        return self.style.endswith("in")

    @property
    def never(self) -> float | Tensor:
        """The rebate of a knock-in."""
        return self.rebate

    def inside(self, prices: Tensor) -> Tensor:
        """Prices on the side of the barrier where the spot is."""
        return self._region.inside(prices)

    def between(self, watched: Watched) -> Knock:
        """Survival of the Brownian bridges; touches are booked at the two ends so that their mean time is right."""
        exits = BetweenDates(self._region, watched)
        if self.knocks_in:
            return Knock(exits.survival, torch.zeros_like(exits.survival), torch.zeros_like(exits.survival))
        rebate = as_like(self.rebate, watched.prices)
        touch = torch.maximum(rebate, self.exercise(as_like(self.barrier, watched.prices)))
        times = as_like(watched.times, watched.prices)
        late = (times - times[0]) / (times[-1] - times[0])
        early = touch * (exits.touched * (1.0 - late)).sum(-1)
        return Knock(exits.survival, early, (touch * exits.touched * late + rebate * exits.jumped).sum(-1))

    def check_spot(self, spot: Tensor) -> None:
        """Raises InputError if the barrier has been touched already."""
        if bool(self.inside(spot.detach()).all()):
            return
        instead = f"price American({self.strike}, {self.expiry}, {self.kind!r})" if self.knocks_in else (
            f"it is worth its rebate, {self.rebate}"
        )  # fmt: skip
        raise InputError(
            f"{self.name}: the spot {float(spot):g} has touched the barrier {self.barrier}: the option is knocked "
            f"{'in' if self.knocks_in else 'out'} already, {instead}"
        )

    @property
    def _region(self) -> Region:
        return region(None, self.barrier) if self.style.startswith("up") else region(self.barrier, None)


def _equal_steps(expiry: float, per_year: float) -> tuple[float, ...]:
    n = max(1, math.ceil(expiry * per_year - 1e-9))
    return tuple(expiry * i / n for i in range(n + 1))


def _check_dates(owner: str, expiry: float, per_year: float) -> None:
    check_positive(owner, dates_per_year=per_year)
    if expiry * per_year > _MOST_DATES:
        raise InputError(
            f"{owner}: dates_per_year = {per_year:g} makes {expiry * per_year:.0f} exercise dates up to {expiry:g} "
            f"years; take at most {_MOST_DATES / expiry:g} a year"
        )
