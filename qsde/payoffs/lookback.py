"""Options on the highest or lowest price of a stretch of time."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Flows, Kind, vanilla
from qsde.payoffs.bridge import may_reach, sampled_maximum, sampled_minimum
from qsde.payoffs.checks import as_like, check_kind, check_positive
from qsde.payoffs.monitoring import Monitored, Monitoring, Schedule, checked_monitoring
from qsde.payoffs.picked import Picked
from qsde.payoffs.region import Level
from qsde.payoffs.seen import Paths, Watched


class _Lookback(Monitored):
    """An option on the maximum or the minimum, looked for on dates or at every moment of a window."""

    expiry: float
    kind: Kind
    extreme: Level | None
    monitoring: Monitoring

    @property
    @abstractmethod
    def _highest(self) -> bool:
        """Whether the extreme is the maximum."""

    def _check(self) -> None:
        check_kind(self.name, self.kind)
        if self.extreme is not None:
            check_positive(self.name, extreme=self.extreme)
        object.__setattr__(self, "monitoring", checked_monitoring(self.name, self.monitoring, self.expiry))

    def _check_inside(self, field: str, time: float) -> None:
        """Raises InputError unless an end of the window lies in the life of a continuously watched option."""
        if not self._schedule.continuous:
            raise InputError(f"{self.name}: {field} is for continuous monitoring; give the dates of the window alone")
        if not 0 < time < self.expiry:
            raise InputError(f"{self.name}: {field} = {time} must lie between today (0) and the expiry {self.expiry}")

    def _found(self, paths: Paths) -> Tensor:
        """The maximum or minimum [*, path], the past one included."""
        found = self._watched(paths) if self._schedule.continuous else self._extreme(self._schedule.seen(paths))
        if self.extreme is None:
            return found
        past = as_like(self.extreme, found)
        return torch.maximum(found, past) if self._highest else torch.minimum(found, past)

    def _watched(self, paths: Paths) -> Tensor:
        """The extreme of all bridges and of the prices, which may jump between them; once for all who ask."""
        watched = self._schedule.watched(paths)
        return watched.once(("extreme", self._highest), lambda: self._sampled(watched))

    def _sampled(self, watched: Watched) -> Tensor:
        seen = self._extreme(watched.logs)
        near = Picked(self._beyond(watched, seen.detach().unsqueeze(-1)))
        sample = sampled_maximum if self._highest else sampled_minimum
        start, end, variance, slope = watched.bridges_of(near)
        inner = sample(start, end, variance, near.of(watched.uniforms), slope)
        inner = self._extreme(near.back(inner, -math.inf if self._highest else math.inf))
        return torch.exp(torch.maximum(inner, seen) if self._highest else torch.minimum(inner, seen))

    def _beyond(self, watched: Watched, seen: Tensor) -> Tensor:
        """Intervals [*, path, n] whose extreme may lie beyond what is seen at the dates, [*, path, 1]."""
        side = 1.0 if self._highest else -1.0
        gap = side * (seen - watched.farther(side))
        slope = None if watched.slope is None else watched.slope.detach()
        return may_reach(gap, watched.variance.detach(), slope, side, watched.depths)

    def _extreme(self, values: Tensor) -> Tensor:
        return values.amax(-1) if self._highest else values.amin(-1)

    def check_spot(self, spot: Tensor) -> None:
        """Raises InputError if the past extreme of a continuous watch is less extreme than the spot."""
        if self.extreme is None or not self._schedule.continuous:
            return
        past = torch.as_tensor(self.extreme, dtype=spot.dtype, device=spot.device)
        if not holds(past >= spot if self._highest else past <= spot):
            side, word = ("below", "highest") if self._highest else ("above", "lowest")
            raise InputError(
                f"{self.name}: extreme = {self.extreme} lies {side} the spot {float(spot):g}, but it is the {word} "
                "price so far, this moment included; update it, or leave it out if the window begins now"
            )


@dataclass(frozen=True)
class FixedLookback(_Lookback):
    """Fixed-strike lookback: `max(max S - K, 0)` for a call, `max(K - min S, 0)` for a put, paid at expiry.

    Watched continuously, the extreme of each step is drawn from the law of a Brownian bridge's extreme: no bias under
    Black-Scholes, at one step already. The amount is continuous in the path and may be differentiated path by path.

    Args:
        strike: strike.
        expiry: years.
        kind: "call" (on the maximum) or "put" (on the minimum).
        start: when a continuous watch begins (partial-time lookback).
        extreme: the maximum (call) or minimum (put) seen before today, if the watch has begun.
        monitoring: "continuous", or dates in years, none after the expiry; then only prices at these count.

    Raises:
        InputError: a level that is not positive, a start outside the option's life, a past extreme of a watch that has
            not begun, or dates that are not in order.

    References:
        Conze and Viswanathan, "Path dependent options: the case of lookback options", Journal of Finance 46 (1991);
        Heynen and Kat, "Lookback options with discrete and partial monitoring", Applied Mathematical Finance 2 (1995).

    Example:
        >>> option = FixedLookback(strike=100.0, expiry=1.0, monitoring=(0.5, 1.0), extreme=105.0)
        >>> option.flows(Paths(torch.tensor([[110.0, 90.0], [90.0, 101.0]]))).amounts
        tensor([[10.],
                [ 5.]])
    """

    strike: Level
    expiry: float
    kind: Kind = "call"
    start: float = 0.0
    extreme: Level | None = None
    monitoring: Monitoring = "continuous"

    def __post_init__(self) -> None:
        check_positive(self.name, strike=self.strike)
        self._check()
        if self.start != 0:
            self._check_inside("start", self.start)
            if self.extreme is not None:
                raise InputError(
                    f"FixedLookback: extreme is of a watch under way, start = {self.start} is to come; drop one"
                )

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.monitoring, self.expiry, start=float(self.start))

    @property
    def _highest(self) -> bool:
        return self.kind == "call"

    def flows(self, paths: Paths) -> Flows:
        """The vanilla on the extreme, at expiry."""
        amount = vanilla(self._found(paths), self.strike, self.kind)
        return Flows((self.maturity,), amount.unsqueeze(-1))


@dataclass(frozen=True)
class FloatingLookback(_Lookback):
    """Floating-strike lookback: `max(S_T - c min S, 0)` for a call, `max(c max S - S_T, 0)` for a put, at expiry.

    The extremes are those of `FixedLookback`.

    Args:
        expiry: years.
        kind: "call" (on the minimum) or "put" (on the maximum).
        end: when a continuous watch ends (partial-time lookback); None is the expiry.
        scale: the factor c (Haug's lambda): usually at least 1 for a call, at most 1 for a put (fractional lookback).
        extreme: the minimum (call) or maximum (put) seen before today.
        monitoring: "continuous", or dates in years, none after the expiry; then only prices at these count.

    Raises:
        InputError: a level that is not positive, an end outside the option's life, or dates that are not in order.

    References:
        Goldman, Sosin and Gatto, "Path dependent options: buy at the low, sell at the high", Journal of Finance 34
        (1979); Haug, The Complete Guide to Option Pricing Formulas (1998), pp. 61-66.

    Example:
        >>> option = FloatingLookback(expiry=1.0, monitoring=(0.5, 1.0))
        >>> option.flows(Paths(torch.tensor([[90.0, 100.0], [110.0, 105.0]]))).amounts
        tensor([[10.],
                [ 0.]])
    """

    expiry: float
    kind: Kind = "call"
    end: float | None = None
    scale: Level = 1.0
    extreme: Level | None = None
    monitoring: Monitoring = "continuous"

    def __post_init__(self) -> None:
        check_positive(self.name, scale=self.scale)
        self._check()
        if self.end is not None and self.end != self.expiry:
            self._check_inside("end", self.end)

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.monitoring, self.expiry, end=self.end)

    @property
    def _highest(self) -> bool:
        return self.kind == "put"

    def flows(self, paths: Paths) -> Flows:
        """The last price against the extreme, at expiry."""
        extreme = self._found(paths)
        amount = vanilla(paths.prices[..., -1], as_like(self.scale, extreme) * extreme, self.kind)
        return Flows((self.maturity,), amount.unsqueeze(-1))
