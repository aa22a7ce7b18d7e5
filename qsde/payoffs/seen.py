"""What payoffs see of a block of paths: the prices at their dates, and what lies between."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from qsde.payoffs.bridge import reach
from qsde.payoffs.picked import Picked

#: Log prices at the start and the end of intervals, variances and their slopes.
Bridging = tuple[Tensor, Tensor, Tensor, Tensor | None]

Made = TypeVar("Made")


@dataclass(frozen=True)
class Shared:
    """What payoffs look at, with all that several of them make of it."""

    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns, made when first asked for."""
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found


@dataclass(frozen=True)
class Watched(Shared):
    """What is known of paths between the dates of a window that a payoff watches continuously.

    Between two neighbouring times the logarithm of the price is a Brownian bridge from `logs[..., i]` to
    `log_ends[..., i]` with quadratic variation `variance[..., i]`; then it jumps to `logs[..., i + 1]`. Bridges of
    different intervals are independent given the ends. This is exact for Black-Scholes. Where the variance moves with
    the price inside an interval, `slope[..., i]` says how (`bridge.variance_to`); where jumps arrive at its end only,
    there is an error of the order of the interval.

    Attributes:
        times: ends of the intervals, years, [n + 1]; the first is the start of the window.
        logs: log prices [*, path, n + 1] at `times`, after jumps.
        log_ends: log prices [*, path, n] just before the jumps and dividends at the end of each interval.
        variance: quadratic variation of log price over each interval, [*, path, n].
        uniforms: one independent uniform for each interval, [path, n], for sampling extremes.
        slope: change of `variance` per unit of log price at which the path is, [*, path, n]; None if there is none.
        reaches: how far beyond both its ends each interval gets on a side (`bridge.reach`), shared by all that have the
            same variance and slope.
    """

    times: tuple[float, ...]
    logs: Tensor
    log_ends: Tensor
    variance: Tensor
    uniforms: Tensor
    slope: Tensor | None = None
    reaches: dict[float, Tensor] = field(default_factory=dict)

    @property
    def prices(self) -> Tensor:
        """Prices at `times`, after jumps."""
        return self.once("prices", lambda: torch.exp(self.logs))

    def bridges_of(self, some: Picked) -> Bridging:
        """Log prices at the start and the end of some intervals, their variances and slopes, [interval] each."""
        slope = None if self.slope is None else some.of(self.slope)
        return some.of(self.logs[..., :-1]), some.of(self.log_ends), some.of(self.variance), slope

    @property
    def depths(self) -> Tensor:
        """Minus logarithms of `uniforms`."""
        return self.once("depths", lambda: -torch.log(self.uniforms))

    def farther(self, side: float) -> Tensor:
        """The highest (1) or lowest (-1) log price [*, path, n] at the ends of each interval, without gradient."""
        start, end, after = (x.detach() for x in (self.logs[..., :-1], self.log_ends, self.logs[..., 1:]))
        pick = _PICK[side]
        return self.once(("farther", side), lambda: pick(pick(start, end), after))

    def so_far(self, side: float) -> Tensor:
        """The highest (1) or lowest (-1) log price [*, path, n + 1] at all times up to each, without gradient."""
        rows = self.logs.detach().unbind(-1)
        return self.once(
            ("so far", side), lambda: torch.stack(list(itertools.accumulate(rows, _PICK[side]))).movedim(0, -1)
        )

    def may_pass(self, level: Tensor, side: float) -> Tensor:
        """In which intervals [*, path, n] the price may be above (1) or below (-1) a log price for the first time."""
        before = self.so_far(side)[..., :-1]
        farthest = self.once(("farthest", side), lambda: self.farther(side) + side * self._reach(side))
        return (farthest >= level) & (before < level) if side > 0 else (farthest <= level) & (before > level)

    def _reach(self, side: float) -> Tensor:
        if side not in self.reaches:
            slope = None if self.slope is None else self.slope.detach()
            self.reaches[side] = reach(self.variance.detach(), slope, side)
        return self.reaches[side]


_PICK = {1.0: torch.maximum, -1.0: torch.minimum}


@dataclass(frozen=True)
class Paths(Shared):
    """What a payoff sees of a block of paths.

    Attributes:
        prices: prices [*, path, time] at the payoff's `times`; [*, asset, path, time] if it is on several assets.
        watched: what lies between, for payoffs with a `window`; None for the others.
    """

    prices: Tensor
    watched: Watched | None = None
