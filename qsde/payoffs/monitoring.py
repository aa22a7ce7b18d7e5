"""When a contract looks at the price: at dates, or at every moment of a window."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.payoffs.base import Bridging, Paths, Payoff, Watched, check_positive, check_times
from qsde.payoffs.picked import Picked
from qsde.payoffs.region import Level, Region

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


@dataclass(frozen=True)
class Exits:
    """How a path leaves a region, as probabilities given what is seen of it.

    Attributes:
        times: when, years, [time].
        touched: probability of leaving through a barrier at that time, [*, path, time].
        jumped: probability of being found beyond it, at `prices`, [*, path, time].
        prices: prices at `times`, [*, path, time].
        survival: probability of never leaving, [*, path].
    """

    times: tuple[float, ...]
    touched: Tensor
    jumped: Tensor
    prices: Tensor
    survival: Tensor

    @property
    def left(self) -> Tensor:
        """Probability of leaving at each time, [*, path, time]."""
        return self.touched + self.jumped


@dataclass(frozen=True)
class Watch:
    """A region and the times at which the price has to be inside it."""

    region: Region
    schedule: Schedule

    def survival(self, paths: Paths) -> Tensor:
        """Probability [*, path] that the price never left; 0 or 1 if it is looked at on dates."""
        if not self.schedule.continuous:
            prices = self.schedule.seen(paths)
            return self.region.inside(prices).all(-1).to(prices.dtype)
        watched = self.schedule.watched(paths)
        near = Picked(self.region.near(watched))
        stays, _, inside = self._stays(near, watched)
        alive = near.back(stays * inside, 1.0).prod(-1)
        return torch.where(self.region.inside(watched.prices[..., 0]), alive, torch.zeros_like(alive))

    def exits(self, paths: Paths) -> Exits:
        """When the price leaves.

        In a watched interval of length h the probability of leaving is shared between its ends so that the mean time is
        exact: discounting at a rate r is off by at most r^2 h^2 / 8 of the payment.
        """
        if self.schedule.continuous:
            return self._exits_between(self.schedule.watched(paths))
        prices = self.schedule.seen(paths)
        times = self.schedule.times[: prices.shape[-1]]
        alive = _alive(torch.ones_like(prices[..., 0]), self.region.inside(prices).to(prices.dtype))
        return Exits(times, torch.zeros_like(prices), -torch.diff(alive, dim=-1), prices, alive[..., -1])

    def _exits_between(self, watched: Watched) -> Exits:
        near = Picked(self.region.near(watched))
        stays, bridges, inside = self._stays(near, watched)
        first = self.region.inside(watched.prices[..., 0]).to(stays.dtype)
        # what is found beyond the barrier at the end of an interval leaves there
        alive = _alive(first, near.back(stays * inside, 1.0))
        before = near.of(alive[..., :-1])
        late = before * self.region.time_to_leave(*bridges)
        early = before * (1.0 - stays) - late
        touched = near.back(early, 0.0, after=1) + near.back(late, 0.0, before=1)
        jumped = near.back(before * stays * (1.0 - inside), 0.0, before=1).select_scatter(1.0 - first, -1, 0)
        return Exits(watched.times, touched, jumped, watched.prices, alive[..., -1])

    def _stays(self, near: Picked, watched: Watched) -> tuple[Tensor, Bridging, Tensor]:
        """Of the intervals near a barrier: the probability of staying, the bridges, and 1 where the end is inside."""
        bridges = watched.bridges_of(near)
        inside = self.region.inside(near.of(watched.prices[..., 1:])).to(watched.prices.dtype)
        return self.region.survival(*bridges), bridges, inside


def _alive(first: Tensor, stays: Tensor) -> Tensor:
    """Probability [*, path, n + 1] of being inside before the first interval and after each."""
    # cumprod() would turn the memory round: all that meets its result would be slow
    return torch.stack(list(itertools.accumulate(stays.unbind(-1), torch.mul, initial=first))).movedim(0, -1)
