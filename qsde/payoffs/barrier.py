"""Options that live or die by one barrier or two."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Flows, Kind, Piece, Stage, Staged, vanilla
from qsde.payoffs.checks import as_like, check_choice, check_finite, check_kind, check_positive, refuse_gradient
from qsde.payoffs.monitoring import Crossing, Monitoring, Schedule, checked_monitoring
from qsde.payoffs.region import Level, Region, check_barriers, region
from qsde.payoffs.seen import Paths
from qsde.payoffs.stages import outside, vanilla_piece

Style = Literal["up-and-out", "down-and-out", "up-and-in", "down-and-in"]
DoubleStyle = Literal["knock-out", "knock-in"]
RebateAt = Literal["hit", "expiry"]


class _BarrierOption(Crossing):
    """A vanilla that is knocked in or out when the price leaves a region, with a rebate."""

    strike: Level
    expiry: float
    kind: Kind
    rebate: Level
    rebate_at: RebateAt
    monitoring: Monitoring

    @property
    @abstractmethod
    def _barriers(self) -> dict[str, Level]:
        """The barriers by the names of their fields."""

    @property
    @abstractmethod
    def region(self) -> Region:
        """Where the price has to stay."""

    @property
    @abstractmethod
    def knocks_in(self) -> bool:
        """Whether leaving the region brings the vanilla to life instead of ending it."""

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barriers below and above, None where there is none."""
        return self.region.bounds

    def _check(self) -> None:
        check_positive(self.name, strike=self.strike)
        check_kind(self.name, self.kind)
        check_finite(self.name, rebate=self.rebate)
        check_choice(self.name, "rebate_at", self.rebate_at, RebateAt)
        object.__setattr__(self, "monitoring", checked_monitoring(self.name, self.monitoring, self.expiry))

    @property
    def _schedule(self) -> Schedule:
        has_rebate = isinstance(self.rebate, Tensor) or self.rebate != 0
        return Schedule(self.monitoring, self.expiry, at_hit=has_rebate and self._pays_at_hit)

    @property
    def _pays_at_hit(self) -> bool:
        return self.rebate_at == "hit" and not self.knocks_in

    def flows(self, paths: Paths) -> Flows:
        """Rebates when they are paid, and the vanilla at expiry.

        Raises:
            InputError: a gradient to a barrier that is looked at on dates only: the amount jumps there.
        """
        if not self.continuous:
            refuse_gradient(self.name, **self._barriers)
        exits = self._schedule.exits(self.region, paths)
        amount = vanilla(paths.prices[..., -1], self.strike, self.kind)
        rebate = as_like(self.rebate, amount)
        if self._schedule.at_hit:
            paid = torch.cat([(rebate * exits.left).movedim(-1, 0), (amount * exits.survival).unsqueeze(0)])
            return Flows((*exits.times, self.maturity), paid.movedim(0, -1))
        weight = 1.0 - exits.survival if self.knocks_in else exits.survival
        return Flows((self.maturity,), (rebate + weight * (amount - rebate)).unsqueeze(-1))

    def stages(self) -> Staged | None:
        """A knock-out ends at the first date on which the price is outside; a knock-in is the vanilla less that."""
        if self.continuous:
            return None
        looks, end, bounds = self._schedule.looks, float(self.expiry), self.bounds
        within = bounds if end in looks else (None, None)
        pays = vanilla_piece(self.strike, self.kind, within, end)
        if self.knocks_in:
            last = Stage(end, (pays, Piece(*within, -self.rebate, 0.0, end)))
            earlier = [Stage(t, stays=bounds) for t in looks if t < end]
            whole = Stage(end, (vanilla_piece(self.strike, self.kind, (None, None), end),))
            return [(1.0, [whole]), (-1.0, [*earlier, last])]
        rebates = {t: outside(bounds, self.rebate, 0.0, t if self._schedule.at_hit else end) for t in looks}
        earlier = [Stage(t, rebates[t], bounds) for t in looks if t < end]
        return [(1.0, [*earlier, Stage(end, (pays, *rebates.get(end, ())))])]

    def check_spot(self, spot: Tensor) -> None:
        """Raises InputError if the option is knocked in or out already."""
        if not self._schedule.watches_now or holds(self.region.inside(spot)):
            return
        vanilla_ = f"European({self.strike}, {self.expiry}, {self.kind!r})"
        when = "now" if self._pays_at_hit else "at expiry"
        worth = f"in: price {vanilla_}" if self.knocks_in else f"out: it is worth its rebate, {self.rebate} {when}"
        raise InputError(f"{self.name}: {self._where(spot)}: the option is already knocked {worth}")

    @abstractmethod
    def _where(self, spot: Tensor) -> str:
        """How the spot lies to the barriers, in words."""


@dataclass(frozen=True)
class Barrier(_BarrierOption):
    """A call or put that lives or dies by one barrier, looked at on dates or at every moment.

    Watched continuously, the payoff of a path is its expectation given the prices at the ends of the steps: the vanilla
    times the probability of survival, a product of `1 - exp(-2 log(B / a) log(B / b) / w)` over the steps, with the
    price before and after each and the quadratic variation w of its logarithm. This has no bias under Black-Scholes, at
    one step already, and no jumps, so it may be differentiated path by path. Where the variance moves within a step the
    error is of the order of the step (Heston with 32 steps a year: an up-and-out call near 4 was 0.09 too cheap). With
    dates the amount jumps. Where the price jumps at expiry itself (a dividend on that day), it jumps over the barrier
    too: pathwise derivatives then miss a term of the order of the last step.

    Args:
        strike: strike of the vanilla.
        barrier: level; touching it counts.
        expiry: years.
        style: "up-and-out", "down-and-out", "up-and-in" or "down-and-in".
        kind: "call" or "put".
        rebate: paid if the option is knocked out, or (at expiry) if it is never knocked in.
        rebate_at: whether a knock-out pays its rebate at the "hit" or at "expiry". At the hit of a continuous barrier
            the payment is shared between the ends of a step with the right mean time; steps are three months at most,
            so the discount factor is off by less than `r^2 / 128`, relatively.
        monitoring: "continuous", or dates in years, none after the expiry.

    Raises:
        InputError: a level that is not positive, an unknown style, or dates that are not in order.

    References:
        Andersen and Brotherton-Ratcliffe, "Exact exotics", Risk 9 (1996), 85-89;
        Glasserman, Monte Carlo Methods in Financial Engineering (2004), section 6.4.

    Example:
        >>> option = Barrier(strike=100.0, barrier=120.0, expiry=1.0, style="up-and-out", monitoring=(0.5, 1.0))
        >>> option.flows(Paths(torch.tensor([[110.0, 115.0], [125.0, 115.0]]))).amounts
        tensor([[15.],
                [ 0.]])
    """

    strike: Level
    barrier: Level
    expiry: float
    style: Style
    kind: Kind = "call"
    rebate: Level = 0.0
    rebate_at: RebateAt = "hit"
    monitoring: Monitoring = "continuous"

    def __post_init__(self) -> None:
        check_positive(self.name, barrier=self.barrier)
        check_choice(self.name, "style", self.style, Style)
        self._check()

    @property
    def _barriers(self) -> dict[str, Level]:
        return {"barrier": self.barrier}

    @property
    def region(self) -> Region:
        """Prices under an up barrier, over a down barrier."""
        return region(None, self.barrier) if self._up else region(self.barrier, None)

    @property
    def knocks_in(self) -> bool:
        """Whether the style is -and-in."""
        return self.style.endswith("in")

    @property
    def _up(self) -> bool:
        return self.style.startswith("up")

    def _where(self, spot: Tensor) -> str:
        side = "at or below" if self._up else "at or above"
        return f"barrier = {self.barrier} lies {side} the spot {float(spot):g} ({self.style})"


@dataclass(frozen=True)
class DoubleBarrier(_BarrierOption):
    """A call or put that is knocked in or out when the price leaves a corridor between two barriers.

    Watched continuously it is the vanilla times the probability that Brownian bridges stay between both barriers, see
    `Barrier` and `qsde.payoffs.bridge.survival_between`.

    Args:
        strike: strike of the vanilla.
        lower: lower barrier.
        upper: upper barrier.
        expiry: years.
        style: "knock-out" or "knock-in".
        kind: "call" or "put".
        rebate: paid if the option is knocked out, or (at expiry) if it is never knocked in.
        rebate_at: when a knock-out pays its rebate, "hit" or "expiry", as in `Barrier`.
        monitoring: "continuous", or dates in years, none after the expiry.

    Raises:
        InputError: barriers that are not positive or not in order, an unknown style, or dates that are not in order.

    Example:
        >>> option = DoubleBarrier(100.0, lower=80.0, upper=120.0, expiry=1.0, style="knock-in", monitoring=(0.5, 1.0))
        >>> option.flows(Paths(torch.tensor([[110.0, 115.0], [75.0, 115.0]]))).amounts
        tensor([[ 0.],
                [15.]])
    """

    strike: Level
    lower: Level
    upper: Level
    expiry: float
    style: DoubleStyle
    kind: Kind = "call"
    rebate: Level = 0.0
    rebate_at: RebateAt = "hit"
    monitoring: Monitoring = "continuous"

    def __post_init__(self) -> None:
        check_barriers(self.name, self.lower, self.upper)
        check_choice(self.name, "style", self.style, DoubleStyle)
        self._check()

    @property
    def _barriers(self) -> dict[str, Level]:
        return {"lower": self.lower, "upper": self.upper}

    @property
    def region(self) -> Region:
        """Prices between the barriers."""
        return region(self.lower, self.upper)

    @property
    def knocks_in(self) -> bool:
        """Whether the style is "knock-in"."""
        return self.style == "knock-in"

    def _where(self, spot: Tensor) -> str:
        return f"the spot {float(spot):g} is not between lower = {self.lower} and upper = {self.upper}"
