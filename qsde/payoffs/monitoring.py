"""When a contract looks at the price: at dates, or at every moment of a window."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Payoff
from qsde.payoffs.checks import check_positive, check_times
from qsde.payoffs.picked import Picked
from qsde.payoffs.region import Level, Region
from qsde.payoffs.seen import Paths, Watched

#: "continuous", or the dates in years.
Monitoring = Literal["continuous"] | Sequence[float]

#: Where a payment is made at a hit, years between the times on which it is booked at most.
_BOOKING = 0.25


def checked_monitoring(owner: str, monitoring: Monitoring, expiry: float) -> Monitoring:
    """Dates as floats, or "continuous".

    Raises:
        InputError: an expiry that is not in the future, dates that are not in order or lie after it, or another word.
    """
    check_positive(owner, expiry=expiry)
    if isinstance(monitoring, str):
        if monitoring != "continuous":
            raise InputError(f"{owner}: monitoring must be 'continuous' or dates in years, got {monitoring!r}")
        return monitoring
    dates = check_times(f"{owner}.monitoring", monitoring)
    if dates[-1] > expiry:
        raise InputError(f"{owner}: monitoring ends at {dates[-1]}, after the expiry {expiry}; drop the later dates")
    return dates


@dataclass(frozen=True)
class Schedule:
    """Times at which a contract needs the price.

    Attributes:
        monitoring: "continuous" or dates, as `checked_monitoring` returns them.
        expiry: when the contract ends, years.
        start: start of the continuous watch.
        end: its end; None is the expiry.
        at_hit: whether something is paid at the moment of a hit.
    """

    monitoring: Monitoring
    expiry: float
    start: float = 0.0
    end: float | None = None
    at_hit: bool = False

    @property
    def continuous(self) -> bool:
        """Whether every moment counts."""
        return self.monitoring == "continuous"

    @property
    def times(self) -> tuple[float, ...]:
        """What `Claim.times` has to contain."""
        if not self.continuous:
            return tuple(sorted({*self._dates, float(self.expiry)}))
        return tuple(sorted({*self._booking, self.start, self.end or 0.0, float(self.expiry)} - {0.0}))

    @property
    def window(self) -> tuple[float, float] | None:
        """What `Claim.window` has to be."""
        return (self.start, float(self.expiry if self.end is None else self.end)) if self.continuous else None

    @property
    def watches_now(self) -> bool:
        """Whether the present spot counts."""
        return (self.start if self.continuous else self._dates[0]) == 0.0

    @property
    def _dates(self) -> tuple[float, ...]:
        return tuple(float(t) for t in self.monitoring)

    @property
    def looks(self) -> tuple[float, ...]:
        """The dates at which it looks."""
        return self._dates

    @property
    def _booking(self) -> list[float]:
        n = math.ceil(self.expiry / _BOOKING) if self.at_hit else 1
        return [self.expiry * i / n for i in range(1, n)]

    def exits(self, region: Region, paths: Paths) -> Exits:
        """How the price leaves a region, once for all payoffs that ask.

        Raises:
            InputError: the paths do not have what lies between the times.
        """
        if self.continuous:
            watched = self.watched(paths)
            return watched.once(region, lambda: BetweenDates(region, watched))
        looks = self.looks
        return paths.once((region, looks), lambda: OnDates(region, looks, paths.prices[..., : len(looks)]))

    def watched(self, paths: Paths) -> Watched:
        """What lies between the times.

        Raises:
            InputError: the paths do not have it.
        """
        if paths.watched is None:
            raise InputError("a continuously watched contract needs Paths(prices, watched=Watched(...))")
        return paths.watched

    def seen(self, paths: Paths) -> Tensor:
        """Prices at the monitoring dates."""
        return paths.prices[..., : len(self.monitoring)]


class Monitored(Payoff):
    """A payoff that looks at the price on dates or at every moment of a window."""

    @property
    @abstractmethod
    def _schedule(self) -> Schedule:
        """When it looks."""

    @property
    def times(self) -> tuple[float, ...]:
        """Monitoring dates, or what a continuous watch needs, and the expiry."""
        return self._schedule.times

    @property
    def window(self) -> tuple[float, float] | None:
        """The stretch in which every moment counts, if watched continuously."""
        return self._schedule.window


class Crossing(Monitored):
    """A payoff that turns on whether the price leaves a region."""

    @property
    def continuous(self) -> bool:  # type: ignore[override]
        """True if it is watched continuously: the probability of survival has no jumps, a look at a date has one."""
        return self._schedule.continuous

    @property
    @abstractmethod
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barriers below and above, None where there is none."""

    @property
    def steep(self) -> bool:  # type: ignore[override]
        """As `continuous`: the probability of survival falls to 0 at the barrier as fast as little variance is left."""
        return self.continuous


class Exits(ABC):
    """How paths leave a region, as probabilities given what is seen of them."""

    #: When, years, [time].
    times: tuple[float, ...]

    @property
    @abstractmethod
    def prices(self) -> Tensor:
        """Prices at `times`, [*, path, time]."""

    @property
    @abstractmethod
    def survival(self) -> Tensor:
        """Probability of never leaving, [*, path]."""

    @property
    @abstractmethod
    def left(self) -> Tensor:
        """Probability of leaving at each time, [*, path, time]."""

    @property
    @abstractmethod
    def jumped(self) -> Tensor:
        """Probability of being found beyond the barrier at each time, at `prices`, [*, path, time]."""

    @property
    def touched(self) -> Tensor:
        """Probability of leaving through the barrier at each time, [*, path, time]."""
        return self.left - self.jumped


class OnDates(Exits):
    """Where the price is looked at on dates: each probability is 0 or 1.

    Args:
        region: where the price has to be.
        times: the dates, years.
        prices: prices [*, path, time] at them.
    """

    def __init__(self, region: Region, times: tuple[float, ...], prices: Tensor) -> None:
        self.times, self._prices = times, prices
        self._inside = region.inside(prices)

    @property
    def prices(self) -> Tensor:
        """As given."""
        return self._prices

    @cached_property
    def survival(self) -> Tensor:
        """1 where all prices are inside."""
        return self._inside.all(-1).to(self._prices.dtype)

    @cached_property
    def left(self) -> Tensor:
        """1 at the first date outside."""
        alive = survived(self._inside.to(self._prices.dtype).unbind(-1))
        return alive[..., :-1] - alive[..., 1:]

    @property
    def jumped(self) -> Tensor:
        """All that leaves."""
        return self.left


class BetweenDates(Exits):
    """Where every moment counts.

    In a watched interval of length h the probability of leaving is shared between its ends so that the mean time is
    exact: discounting at a rate r is off by at most r^2 h^2 / 8 of the payment.

    Args:
        region: where the price has to be.
        watched: what is known between the dates.
    """

    def __init__(self, region: Region, watched: Watched) -> None:
        # not `watched` itself, which keeps what is made of it: neither would go before the garbage is collected
        self.times, self._region, self._logs = watched.times, region, watched.logs
        self._near = near = Picked(region.near(watched))
        self._bridges = region.scaled(*watched.bridges_of(near))
        self._stays = region.survival(*self._bridges)
        # what is found beyond the barrier at the end of an interval leaves there
        self._inside = region.inside_logs(near.of(watched.logs[..., 1:])).to(self._stays.dtype)
        self._first = region.inside_logs(watched.logs[..., 0]).to(self._stays.dtype)
        self._lives = near.back(self._stays * self._inside, 1.0)

    @cached_property
    def prices(self) -> Tensor:
        """As watched."""
        return torch.exp(self._logs)

    @cached_property
    def survival(self) -> Tensor:
        """Bridges of different intervals are independent."""
        return self._first * self._lives.prod(-1)

    @cached_property
    def _alive(self) -> Tensor:
        return survived([self._first, *self._lives.unbind(-1)])

    @cached_property
    def _before(self) -> Tensor:
        return self._near.of(self._alive[..., 1:-1])

    @cached_property
    def left(self) -> Tensor:
        """Each interval's probability of leaving, less what is booked at its start."""
        late = self._before * self._region.time_to_leave(*self._bridges)
        early = self._near.back(self._before * (1.0 - self._stays) - late, 0.0, before=1, after=1)
        return early.diff(dim=-1) - self._alive.diff(dim=-1)

    @cached_property
    def jumped(self) -> Tensor:
        """What stays inside until the end of an interval and is outside then."""
        jumps = self._before * self._stays * (1.0 - self._inside)
        return self._near.back(jumps, 0.0, before=1).select_scatter(1.0 - self._first, -1, 0)


def survived(stays: Iterable[Tensor]) -> Tensor:
    """Probability [*, path, n + 1] of being inside: 1, and that after each of n tests."""
    first, *others = stays
    # cumprod() would turn the memory round: all that meets its result would be slow
    rows = itertools.accumulate(others, torch.mul, initial=first)
    return torch.stack([torch.ones_like(first), *rows]).movedim(0, -1)
