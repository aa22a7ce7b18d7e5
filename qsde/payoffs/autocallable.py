"""Notes that redeem themselves early."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Flows, Payoff, Piece, Stage, Staged
from qsde.payoffs.checks import Levels, as_like, check_not_negative, check_positive, check_times, refuse_gradient
from qsde.payoffs.monitoring import survived
from qsde.payoffs.seen import Paths
from qsde.payoffs.stages import lowest


@dataclass(frozen=True)
class Autocallable(Payoff):
    """A note with coupons that is redeemed at the first observation at or above its autocall barrier.

    Levels are fractions of `initial`. As long as the note lives, at each observation, paid on that date:

    - a coupon of `coupon * notional` if the price is at or above the coupon barrier; with `memory` also every coupon
      missed since the last one paid, otherwise a missed coupon is lost;
    - `notional`, and the note ends, if the price is at or above the autocall barrier (also at the last observation,
      knocked in or not).

    A note that lives through the last observation then pays `notional`, less `notional * max(strike - S / initial, 0)`
    if it is knocked in: if the price was at or below `knock_in` on one of the `knock_in_dates`.

    It is not continuous in the path: pathwise gradients are refused, also to `initial` and the barriers.

    Args:
        observations: times in years, increasing, after today; the last is the maturity.
        initial: reference price.
        coupon: fraction of the notional for each observation, not negative.
        autocall_barrier: one level, or one for each observation (a step-down); on dates without a call a level out of
            reach, such as `math.inf`; 1e9 in JSON.
        coupon_barrier: one level, or one for each observation; 0 pays every coupon; None takes the autocall barrier,
            so that with `memory` the note pays one coupon for each period gone by when it is called, and no other.
        memory: whether missed coupons are made up for.
        knock_in: level of the knock-in; None protects the notional.
        knock_in_dates: times at which the knock-in is watched, none after the last observation; None is the last
            observation alone.
        strike: level of the put that the holder is short once knocked in.
        notional: positive.

    Raises:
        InputError: times that do not increase, a number of levels that differs from that of the observations, a level
            that is not positive, a negative coupon, or dates of a knock-in that is not there.

    Example:
        >>> note = Autocallable((1.0, 2.0), initial=100.0, coupon=0.05, memory=True, knock_in=0.6, notional=100.0)
        >>> prices = torch.tensor([[101.0, 90.0], [90.0, 101.0], [90.0, 61.0], [90.0, 60.0]])
        >>> note.flows(Paths(prices)).amounts.round()
        tensor([[105.,   0.],
                [  0., 110.],
                [  0., 100.],
                [  0.,  60.]])
    """

    observations: Sequence[float]
    initial: float | Tensor
    coupon: float | Tensor
    autocall_barrier: Levels = 1.0
    coupon_barrier: Levels | None = None
    memory: bool = False
    knock_in: float | Tensor | None = None
    knock_in_dates: Sequence[float] | None = None
    strike: float | Tensor = 1.0
    notional: float | Tensor = 1.0

    continuous: ClassVar[bool] = False

    def __post_init__(self) -> None:
        self._check_dates()
        check_positive(self.name, initial=self.initial, strike=self.strike, notional=self.notional)
        check_not_negative(self.name, coupon=self.coupon)
        self._check_levels("autocall_barrier", self.autocall_barrier, zero=False)
        if self.coupon_barrier is not None:
            self._check_levels("coupon_barrier", self.coupon_barrier, zero=True)
        if self.knock_in is not None:
            check_positive(self.name, knock_in=self.knock_in)

    def _check_dates(self) -> None:
        object.__setattr__(self, "observations", check_times(f"{self.name}.observations", self.observations))
        if self.observations[0] == 0:
            raise InputError(f"{self.name}: observations[0] is 0; the first observation comes after today")
        if self.knock_in_dates is None:
            return
        if self.knock_in is None:
            raise InputError(f"{self.name}: knock_in_dates are given but knock_in is not; give its level")
        dates = check_times(f"{self.name}.knock_in_dates", self.knock_in_dates)
        if dates[-1] > self.maturity:
            raise InputError(
                f"{self.name}: knock_in_dates end at {dates[-1]}, after the last observation, {self.maturity}; drop "
                "the later ones"
            )
        object.__setattr__(self, "knock_in_dates", dates)

    def _check_levels(self, field: str, levels: Levels, zero: bool) -> None:
        tensor = torch.as_tensor(levels)
        if tensor.dim() and tensor.shape != (len(self.observations),):
            raise InputError(
                f"{self.name}: {field} has {tensor.numel()} levels for {len(self.observations)} observations; give one "
                "level, or one for each observation"
            )
        if not holds(tensor >= 0 if zero else tensor > 0):
            raise InputError(f"{self.name}: {field} must be {'at least' if zero else 'above'} 0, got {levels}")

    @property
    def maturity(self) -> float:
        """The last observation."""
        return self.observations[-1]

    @property
    def times(self) -> tuple[float, ...]:
        """The observations and the dates of the knock-in."""
        return tuple(sorted({*self.observations, *self._watched}))

    @property
    def _watched(self) -> tuple[float, ...]:
        """The dates of the knock-in."""
        if self.knock_in is None:
            return ()
        return (self.maturity,) if self.knock_in_dates is None else tuple(self.knock_in_dates)

    def flows(self, paths: Paths) -> Flows:
        """Coupons and redemption at the observations, [*, path, observation]."""
        refuse_gradient(
            self.name, initial=self.initial, autocall_barrier=self.autocall_barrier,
            coupon_barrier=self.coupon_barrier, knock_in=self.knock_in,
        )  # fmt: skip
        level = paths.prices / as_like(self.initial, paths.prices)
        observed = self._at(self.observations, level)
        stays = (observed < as_like(self.autocall_barrier, level)).to(level.dtype)
        alive = survived(stays.unbind(-1))
        before, called = alive[..., :-1], alive[..., :-1] - alive[..., 1:]
        coupons = as_like(self.coupon, level) * self._coupons_paid(before * self._earns(observed))
        last = alive[..., -1] * self._redemption(level)
        amounts = (coupons + called).movedim(-1, 0)
        amounts = torch.cat([amounts[:-1], (amounts[-1] + last).unsqueeze(0)]).movedim(0, -1)
        return Flows(tuple(self.observations), as_like(self.notional, level) * amounts)

    def stages(self) -> Staged | None:
        """It ends where it is called, unless coupons or a knock-in remember what came before."""
        remembers = self.memory and self.coupon_barrier is not None
        if remembers or self._watched not in ((), (self.maturity,)):
            return None
        return [(1.0, [self._stage(k) for k in range(len(self.observations))])]

    def _stage(self, k: int) -> Stage:
        time, n = self.observations[k], self.notional
        called, coupon = self._price_of(self.autocall_barrier, k), n * self.coupon
        earned = called if self.coupon_barrier is None else self._price_of(self.coupon_barrier, k)
        coupon = coupon * (k + 1) if self.memory else coupon
        pieces = [Piece(at, None, pays, 0.0, time) for at, pays in ((called, n), (earned, coupon)) if at is not None]
        if time == self.maturity:
            pieces.append(Piece(None, called, n, 0.0, time))
            if self.knock_in is not None:
                reach = lowest(self.knock_in * self.initial, self.strike * self.initial, called)
                pieces.append(Piece(None, reach, -n * self.strike, n / self.initial, time))
        return Stage(time, tuple(pieces), (None, called))

    def _price_of(self, levels: Levels, k: int) -> float | Tensor | None:
        """The price at the level of one observation; None if it is out of reach."""
        level = levels if isinstance(levels, float | int) or torch.as_tensor(levels).dim() == 0 else levels[k]
        return None if bool(torch.isinf(torch.as_tensor(level))) else level * self.initial  # type: ignore[operator]

    def _at(self, dates: Sequence[float], level: Tensor) -> Tensor:
        """The columns of `level` at some of `times`."""
        rows = dict(zip(self.times, level.unbind(-1), strict=True))
        return torch.stack([rows[t] for t in dates]).movedim(0, -1)

    def _earns(self, observed: Tensor) -> Tensor:
        """1 where the price is high enough for a coupon."""
        barrier = self.autocall_barrier if self.coupon_barrier is None else self.coupon_barrier
        return (observed >= as_like(barrier, observed)).to(observed.dtype)

    def _coupons_paid(self, earned: Tensor) -> Tensor:
        """How many coupons are paid at each observation, from 1 where one is earned and 0 elsewhere."""
        if not self.memory:
            return earned
        first, *others = (row * (k + 1) for k, row in enumerate(earned.unbind(-1)))
        so_far = torch.stack(list(itertools.accumulate(others, torch.maximum, initial=first)))
        return torch.cat([so_far[:1], so_far[1:] - so_far[:-1]]).movedim(0, -1)

    def _redemption(self, level: Tensor) -> Tensor:
        """What a note that was never called pays back of a notional of 1, [*, path]."""
        whole = torch.ones_like(level[..., -1])
        if self.knock_in is None:
            return whole
        knocked_in = (self._at(self._watched, level) <= as_like(self.knock_in, level)).any(-1)
        return torch.where(knocked_in, whole - torch.relu(self.strike - level[..., -1]), whole)
