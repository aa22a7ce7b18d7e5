"""Cash or the asset if the price touches a barrier, or if it never does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds
from qsde.payoffs.base import Flows, Piece, Stage, Staged
from qsde.payoffs.checks import as_like, check_choice, check_finite, refuse_gradient
from qsde.payoffs.monitoring import Crossing, Exits, Monitoring, Schedule, checked_monitoring
from qsde.payoffs.region import Level, check_barriers, region
from qsde.payoffs.seen import Paths
from qsde.payoffs.stages import outside

Pays = Literal["cash", "asset"]
PayAt = Literal["hit", "expiry"]


class _Touch(Crossing):
    """A contract on whether the price leaves the region between its barriers."""

    expiry: float
    lower: Level | None
    upper: Level | None
    pays: Pays
    cash: Level
    monitoring: Monitoring

    @property
    def bounds(self) -> tuple[Level | None, Level | None]:
        """The barriers below and above, None where there is none."""
        return self.lower, self.upper

    def _check(self) -> None:
        check_barriers(self.name, self.lower, self.upper)
        check_choice(self.name, "pays", self.pays, Pays)
        check_finite(self.name, cash=self.cash)
        object.__setattr__(self, "monitoring", checked_monitoring(self.name, self.monitoring, self.expiry))

    @property
    def _schedule(self) -> Schedule:
        return Schedule(self.monitoring, self.expiry, at_hit=self._at_hit)

    @property
    def _at_hit(self) -> bool:
        """Whether the payment is made at the moment of the hit."""
        return False

    def _exits(self, paths: Paths) -> Exits:
        if not self.continuous:
            refuse_gradient(self.name, lower=self.lower, upper=self.upper)
        return self._schedule.exits(region(self.lower, self.upper), paths)

    def _at_expiry(self, paths: Paths, weight: Tensor) -> Flows:
        amount = paths.prices[..., -1] if self.pays == "asset" else as_like(self.cash, weight)
        return Flows((self.maturity,), (amount * weight).unsqueeze(-1))

    def _untouched(self, cash: Level, assets: float) -> list[Stage]:
        """An amount at expiry if no barrier was touched."""
        looks, end, bounds = self._schedule.looks, float(self.expiry), self.bounds
        last = Piece(*(bounds if end in looks else (None, None)), cash, assets, end)
        return [*(Stage(t, stays=bounds) for t in looks if t < end), Stage(end, (last,))]

    @property
    def _amount(self) -> tuple[Level, float]:
        """Cash and assets that are paid."""
        return (0.0, 1.0) if self.pays == "asset" else (self.cash, 0.0)

    def _check_inside(self, spot: Tensor, worth: str) -> None:
        if self._schedule.watches_now and not holds(region(self.lower, self.upper).inside(spot)):
            given = {"lower": self.lower, "upper": self.upper}
            levels = " and ".join(f"{field} = {level}" for field, level in given.items() if level is not None)
            raise InputError(f"{self.name}: the spot {float(spot):g} has touched already ({levels}): {worth}")


@dataclass(frozen=True)
class OneTouch(_Touch):
    """Pays cash or the asset if the price touches a barrier before expiry (American digital, touch option).

    With both barriers either touch counts (double one-touch).

    Args:
        expiry: years.
        lower: lower barrier, or None.
        upper: upper barrier, or None.
        pays: "cash", or "asset": the price at the moment of payment.
        cash: the amount of cash.
        pay_at: "hit" or "expiry". At the hit of a continuous barrier the payment is shared between the ends of a step
            with the right mean time; steps are three months at most, so the discount factor is off by less than
            `r^2 / 128`, relatively.
        monitoring: "continuous", or dates in years, none after the expiry.

    Raises:
        InputError: no barrier, levels that are not positive or not in order, dates that are not in order, or the asset
            at the hit of either of two continuously watched barriers.

    References:
        Reiner and Rubinstein, "Unscrambling the binary code", Risk 4 (1991), 75-83.

    Example:
        >>> import torch
        >>> touch = OneTouch(expiry=1.0, upper=120.0, cash=10.0, monitoring=(0.5, 1.0))
        >>> touch.flows(Paths(torch.tensor([[110.0, 125.0], [125.0, 115.0]]))).amounts
        tensor([[ 0., 10.],
                [10.,  0.]])
    """

    expiry: float
    lower: Level | None = None
    upper: Level | None = None
    pays: Pays = "cash"
    cash: Level = 1.0
    pay_at: PayAt = "hit"
    monitoring: Monitoring = "continuous"

    def __post_init__(self) -> None:
        self._check()
        check_choice(self.name, "pay_at", self.pay_at, PayAt)
        two = self.lower is not None and self.upper is not None
        if two and self.continuous and self.pays == "asset" and self._at_hit:
            raise InputError(
                "OneTouch: with two barriers pays = 'asset' at the hit is two amounts; use pay_at='expiry' or "
                "monitoring dates"
            )

    @property
    def _at_hit(self) -> bool:
        return self.pay_at == "hit"

    def flows(self, paths: Paths) -> Flows:
        """Cash or the asset at the times of the hit, or at expiry.

        Raises:
            InputError: a gradient to a barrier that is looked at on dates only: the amount jumps there.
        """
        exits = self._exits(paths)
        if not self._at_hit:
            return self._at_expiry(paths, 1.0 - exits.survival)
        amounts = self._assets(exits) if self.pays == "asset" else as_like(self.cash, exits.left) * exits.left
        return Flows(exits.times, amounts)

    def stages(self) -> Staged | None:
        """It ends at the first date on which the price is outside; paid at expiry, it is all less no touch."""
        if self.continuous:
            return None
        if not self._at_hit:
            whole = Stage(float(self.expiry), (Piece(None, None, *self._amount, float(self.expiry)),))
            return [(1.0, [whole]), (-1.0, self._untouched(*self._amount))]
        return [(1.0, [Stage(t, outside(self.bounds, *self._amount, t), self.bounds) for t in self._schedule.looks])]

    def _assets(self, exits: Exits) -> Tensor:
        level = self.lower if self.upper is None else self.upper
        assert level is not None, "checked when the payoff was made"
        return as_like(level, exits.left) * exits.touched + exits.prices * exits.jumped

    def check_spot(self, spot: Tensor) -> None:
        """Raises InputError if the barrier is touched already."""
        what = "the asset" if self.pays == "asset" else f"{self.cash} in cash"
        self._check_inside(spot, f"it is worth {what} {'now' if self._at_hit else 'at expiry'}")


@dataclass(frozen=True)
class NoTouch(_Touch):
    """Pays cash or the asset at expiry if the price never touches a barrier; with both barriers a double no-touch.

    Args:
        expiry: years.
        lower: lower barrier, or None.
        upper: upper barrier, or None.
        pays: "cash", or "asset": the price at expiry.
        cash: the amount of cash.
        monitoring: "continuous", or dates in years, none after the expiry.

    Raises:
        InputError: no barrier, levels that are not positive or not in order, or dates that are not in order.

    Example:
        >>> import torch
        >>> touch = NoTouch(expiry=1.0, lower=80.0, upper=120.0, monitoring=(0.5, 1.0))
        >>> touch.flows(Paths(torch.tensor([[110.0, 115.0], [125.0, 115.0]]))).amounts
        tensor([[1.],
                [0.]])
    """

    expiry: float
    lower: Level | None = None
    upper: Level | None = None
    pays: Pays = "cash"
    cash: Level = 1.0
    monitoring: Monitoring = "continuous"

    def __post_init__(self) -> None:
        self._check()

    def flows(self, paths: Paths) -> Flows:
        """Cash or the asset at expiry, times the probability that no barrier was touched.

        Raises:
            InputError: a gradient to a barrier that is looked at on dates only: the amount jumps there.
        """
        return self._at_expiry(paths, self._exits(paths).survival)

    def stages(self) -> Staged | None:
        """It ends at the first date on which the price is outside."""
        return None if self.continuous else [(1.0, self._untouched(*self._amount))]

    def check_spot(self, spot: Tensor) -> None:
        """Raises InputError if a barrier is touched already."""
        self._check_inside(spot, "it is worth nothing")
