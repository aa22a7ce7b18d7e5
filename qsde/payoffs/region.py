"""Where a price has to stay: over a barrier, under one, or between two."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs import bridge
from qsde.payoffs.checks import as_like, check_positive
from qsde.payoffs.seen import Watched

Level = float | Tensor
#: Distances from the barrier at the start and the end, the width if there are two barriers, and the variance.
Scaled = tuple[Tensor, ...]
#: Under a root, where a path is on the barrier at both ends.
_LEAST_SQUARE = 1e-24


class Region(ABC):
    """Prices that do not touch a barrier. A price on the barrier has touched it."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barriers below and above, None where there is none."""

    def inside(self, price: Tensor) -> Tensor:
        """Which prices have not touched a barrier."""
        return _between(price, *self.bounds)

    def inside_logs(self, x: Tensor) -> Tensor:
        """Which log prices have not."""
        return _between(x, *(None if level is None else _log(level, x) for level in self.bounds))

    def near(self, watched: Watched) -> Tensor:
        """In which intervals the price may leave for the first time: in others with a probability below 1e-13."""
        sides = zip(self.bounds, (-1.0, 1.0), strict=True)
        given = (watched.may_pass(_log(level, watched.logs), side) for level, side in sides if level is not None)
        return functools.reduce(torch.logical_or, given)

    @abstractmethod
    def scaled(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Scaled:
        """Bridges as the other methods take them.

        Args:
            start: log price at the start.
            end: log price at the end.
            variance: quadratic variation of log price in between.
            slope: its change per unit of log price (`bridge.variance_to`).
        """

    @abstractmethod
    def survival(self, *scaled: Tensor) -> Tensor:
        """Probability that a bridge stays inside."""

    @abstractmethod
    def time_to_leave(self, *scaled: Tensor) -> Tensor:
        """Mean share of the interval before the bridge leaves, times the probability that it does."""


@dataclass(frozen=True)
class Beside(Region):
    """Prices under (side 1) or over (-1) a barrier."""

    level: Level
    side: float

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barrier."""
        return (None, self.level) if self.side > 0 else (self.level, None)

    def scaled(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Scaled:
        """Distances and variance to the barrier."""
        level = _log(self.level, start)
        first, last = self.side * (level - start), self.side * (level - end)
        return first, last, bridge.variance_to(variance, slope, (0.5 * self.side) * (first + last))

    def survival(self, *scaled: Tensor) -> Tensor:
        """See `bridge.survival`."""
        return bridge.survival(*scaled)

    def time_to_leave(self, *scaled: Tensor) -> Tensor:
        """See `bridge.time_to_hit`."""
        return bridge.time_to_hit(*scaled)


@dataclass(frozen=True)
class Between(Region):
    """Prices between two barriers."""

    lower: Level
    upper: Level

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """Both barriers."""
        return self.lower, self.upper

    def scaled(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Scaled:
        """Heights, width and variance; the width is such that each barrier alone counts with its own variance."""
        low, high = start - _log(self.lower, start), end - _log(self.lower, start)
        width = _log(self.upper, start) - _log(self.lower, start)
        if slope is None:
            return low, high, width, variance
        middle = 0.5 * (low + high)
        down = bridge.variance_to(variance, slope, -middle)
        up = bridge.variance_to(variance, slope, width - middle)
        above = torch.relu(width - low) * torch.relu(width - high) * down / up
        root = torch.sqrt((low - high).square() + 4.0 * above + _LEAST_SQUARE)
        return low, high, middle + 0.5 * root, down

    def survival(self, *scaled: Tensor) -> Tensor:
        """See `bridge.survival_between`."""
        return bridge.survival_between(*scaled)

    def time_to_leave(self, *scaled: Tensor) -> Tensor:
        """See `bridge.time_to_exit`."""
        return bridge.time_to_exit(*scaled)


def _between(x: Tensor, lower: Level | None, upper: Level | None) -> Tensor:
    over = torch.ones_like(x, dtype=torch.bool) if lower is None else x > lower
    return over if upper is None else over & (x < upper)


def _log(level: Level, like: Tensor) -> Tensor:
    return torch.log(as_like(level, like))


def region(lower: Level | None, upper: Level | None) -> Region:
    """The region that these barriers leave.

    Raises:
        InputError: no barrier at all.
    """
    if lower is not None:
        return Beside(lower, -1.0) if upper is None else Between(lower, upper)
    if upper is not None:
        return Beside(upper, 1.0)
    raise InputError("a region needs a barrier: give lower, upper or both")


def check_barriers(owner: str, lower: Level | None, upper: Level | None) -> None:
    """Raises InputError, naming the field, unless the barriers are positive, finite and in order."""
    given = {"lower": lower, "upper": upper}
    check_positive(owner, **{field: level for field, level in given.items() if level is not None})
    if lower is None and upper is None:
        raise InputError(f"{owner}: there is no barrier; give lower, upper or both")
    if lower is not None and upper is not None and not holds(torch.as_tensor(lower < upper)):
        raise InputError(f"{owner}: lower = {lower} must be below upper = {upper}; swap them")
