"""Where a price has to stay: over a barrier, under one, or between two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs import bridge
from qsde.payoffs.base import check_positive

Level = float | Tensor


class Region(ABC):
    """Prices that do not touch a barrier. A price on the barrier has touched it."""

    @abstractmethod
    def inside(self, price: Tensor) -> Tensor:
        """Which prices have not touched a barrier."""

    @abstractmethod
    def survival(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """Probability that a bridge of log price from `start` to `end` with this `variance` stays inside."""

    @abstractmethod
    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """Mean share of the interval before the bridge leaves, times the probability that it does."""


@dataclass(frozen=True)
class Under(Region):
    """Prices under an upper barrier."""

    upper: Level

    def inside(self, price: Tensor) -> Tensor:
        """`price < upper`."""
        return price < self.upper

    def survival(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """See `bridge.survival`."""
        return bridge.survival(self._distance(start), self._distance(end), variance)

    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """See `bridge.time_to_hit`."""
        return bridge.time_to_hit(self._distance(start), self._distance(end), variance)

    def _distance(self, price: Tensor) -> Tensor:
        return torch.log(self.upper / price)


@dataclass(frozen=True)
class Over(Region):
    """Prices over a lower barrier."""

    lower: Level

    def inside(self, price: Tensor) -> Tensor:
        """`price > lower`."""
        return price > self.lower

    def survival(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """See `bridge.survival`."""
        return bridge.survival(self._distance(start), self._distance(end), variance)

    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """See `bridge.time_to_hit`."""
        return bridge.time_to_hit(self._distance(start), self._distance(end), variance)

    def _distance(self, price: Tensor) -> Tensor:
        return torch.log(price / self.lower)


@dataclass(frozen=True)
class Between(Region):
    """Prices between two barriers."""

    lower: Level
    upper: Level

    def inside(self, price: Tensor) -> Tensor:
        """`lower < price < upper`."""
        return (price > self.lower) & (price < self.upper)

    def survival(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """See `bridge.survival_between`."""
        return bridge.survival_between(self._height(start), self._height(end), self._width(start), variance)

    def time_to_leave(self, start: Tensor, end: Tensor, variance: Tensor) -> Tensor:
        """See `bridge.time_to_exit`."""
        return bridge.time_to_exit(self._height(start), self._height(end), self._width(start), variance)

    def _height(self, price: Tensor) -> Tensor:
        return torch.log(price / self.lower)

    def _width(self, like: Tensor) -> Tensor:
        return torch.log(torch.as_tensor(self.upper / self.lower, dtype=like.dtype, device=like.device))


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
