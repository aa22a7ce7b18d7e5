"""Where a price has to stay: over a barrier, under one, or between two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs import bridge
from qsde.payoffs.base import Watched, check_positive
from qsde.payoffs.checks import as_like

Level = float | Tensor
#: Under a root, where a path is on the barrier at both ends.
_LEAST_SQUARE = 1e-24


class Region(ABC):
    """Prices that do not touch a barrier. A price on the barrier has touched it."""

    @property
    @abstractmethod
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barriers below and above, None where there is none."""

    @abstractmethod
    def inside(self, price: Tensor) -> Tensor:
        """Which prices have not touched a barrier."""

    @abstractmethod
    def survival(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """Probability that a bridge stays inside.

        Args:
            start: log price at the start.
            end: log price at the end.
            variance: quadratic variation of log price in between.
            slope: its change per unit of log price (`bridge.variance_to`).
        """

    @abstractmethod
    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """Mean share of the interval before the bridge leaves, times the probability that it does."""

    @abstractmethod
    def near(self, watched: Watched) -> Tensor:
        """In which intervals that begin inside the price may leave: in others with a probability below 1e-17."""


@dataclass(frozen=True)
class Under(Region):
    """Prices under an upper barrier."""

    upper: Level

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barrier above."""
        return None, self.upper

    def inside(self, price: Tensor) -> Tensor:
        """`price < upper`."""
        return price < self.upper

    def survival(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """See `bridge.survival`."""
        first, last = self._distance(start), self._distance(end)
        return bridge.survival(first, last, bridge.variance_to(variance, slope, 0.5 * (first + last)))

    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """See `bridge.time_to_hit`."""
        first, last = self._distance(start), self._distance(end)
        return bridge.time_to_hit(first, last, bridge.variance_to(variance, slope, 0.5 * (first + last)))

    def near(self, watched: Watched) -> Tensor:
        """Where the farthest price above is not under the barrier."""
        level = _log(self.upper, watched.highest)
        return (watched.highest >= level) & (watched.logs[..., :-1] < level)

    def _distance(self, log_price: Tensor) -> Tensor:
        return _log(self.upper, log_price) - log_price


@dataclass(frozen=True)
class Over(Region):
    """Prices over a lower barrier."""

    lower: Level

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barrier below."""
        return self.lower, None

    def inside(self, price: Tensor) -> Tensor:
        """`price > lower`."""
        return price > self.lower

    def survival(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """See `bridge.survival`."""
        first, last = self._distance(start), self._distance(end)
        return bridge.survival(first, last, bridge.variance_to(variance, slope, -0.5 * (first + last)))

    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """See `bridge.time_to_hit`."""
        first, last = self._distance(start), self._distance(end)
        return bridge.time_to_hit(first, last, bridge.variance_to(variance, slope, -0.5 * (first + last)))

    def near(self, watched: Watched) -> Tensor:
        """Where the farthest price below is not over the barrier."""
        level = _log(self.lower, watched.lowest)
        return (watched.lowest <= level) & (watched.logs[..., :-1] > level)

    def _distance(self, log_price: Tensor) -> Tensor:
        return log_price - _log(self.lower, log_price)


@dataclass(frozen=True)
class Between(Region):
    """Prices between two barriers."""

    lower: Level
    upper: Level

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """Both barriers."""
        return self.lower, self.upper

    def inside(self, price: Tensor) -> Tensor:
        """`lower < price < upper`."""
        return (price > self.lower) & (price < self.upper)

    def survival(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """See `bridge.survival_between`."""
        return bridge.survival_between(*self._scaled(start, end, variance, slope))

    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None = None) -> Tensor:
        """See `bridge.time_to_exit`."""
        return bridge.time_to_exit(*self._scaled(start, end, variance, slope))

    def _scaled(
        self, start: Tensor, end: Tensor, variance: Tensor, slope: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Heights, width and variance; the width is such that each barrier alone counts with its own variance."""
        low, high, width = self._height(start), self._height(end), self._width(start)
        if slope is None:
            return low, high, width, variance
        middle = 0.5 * (low + high)
        down = bridge.variance_to(variance, slope, -middle)
        up = bridge.variance_to(variance, slope, width - middle)
        above = torch.relu(width - low) * torch.relu(width - high) * down / up
        root = torch.sqrt((low - high).square() + 4.0 * above + _LEAST_SQUARE)
        return low, high, middle + 0.5 * root, down

    def near(self, watched: Watched) -> Tensor:
        """Where either barrier is near."""
        return Over(self.lower).near(watched) | Under(self.upper).near(watched)

    def _height(self, log_price: Tensor) -> Tensor:
        return log_price - _log(self.lower, log_price)

    def _width(self, like: Tensor) -> Tensor:
        return _log(self.upper, like) - _log(self.lower, like)


def _log(level: Level, like: Tensor) -> Tensor:
    return torch.log(as_like(level, like))


def region(lower: Level | None, upper: Level | None) -> Region:
    """The region that these barriers leave.

    Raises:
        InputError: no barrier at all.
    """
    if lower is not None:
        return Over(lower) if upper is None else Between(lower, upper)
    if upper is not None:
        return Under(upper)
    raise InputError("a region needs a barrier: give lower, upper or both")


def check_barriers(owner: str, lower: Level | None, upper: Level | None) -> None:
    """Raises InputError, naming the field, unless the barriers are positive, finite and in order."""
    given = {"lower": lower, "upper": upper}
    check_positive(owner, **{field: level for field, level in given.items() if level is not None})
    if lower is None and upper is None:
        raise InputError(f"{owner}: there is no barrier; give lower, upper or both")
    if lower is not None and upper is not None and not holds(torch.as_tensor(lower < upper)):
        raise InputError(f"{owner}: lower = {lower} must be below upper = {upper}; swap them")
