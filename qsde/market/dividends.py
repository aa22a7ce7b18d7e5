"""Discrete dividends and what they do to a forward: the cash goes first, then a fraction of what is left."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.numerics import holds

#: Times closer than this many years (0.03 seconds) are one date.
SAME_TIME = 1e-9


@dataclass(frozen=True)
class CashDividend:
    """A known amount paid per share.

    Attributes:
        time: ex-date, years from today, positive.
        amount: paid per share, in the currency of the spot, not negative; a tensor may require grad.

    Raises:
        InputError: a time that is not positive, or an amount that is negative, not finite or not one number.

    Example:
        >>> CashDividend(time=0.5, amount=2.0)
        CashDividend(time=0.5, amount=2.0)
    """

    time: float
    amount: float | Tensor

    def __post_init__(self) -> None:
        _check_time("CashDividend", self.time)
        amount = _one_number("CashDividend: amount", self.amount)
        if not holds(torch.isfinite(amount) & (amount >= 0)):
            raise InputError(f"CashDividend: amount must be finite and not negative (per share), got {self.amount}")


@dataclass(frozen=True)
class ProportionalDividend:
    """A known fraction of the price on the ex-date.

    Attributes:
        time: ex-date, years from today, positive.
        fraction: of the price, from 0 up to but not including 1; a tensor may require grad.

    Raises:
        InputError: a time that is not positive, or a fraction outside [0, 1) or not one number.

    Example:
        >>> ProportionalDividend(time=0.5, fraction=0.02)
        ProportionalDividend(time=0.5, fraction=0.02)
    """

    time: float
    fraction: float | Tensor

    def __post_init__(self) -> None:
        _check_time("ProportionalDividend", self.time)
        fraction = _one_number("ProportionalDividend: fraction", self.fraction)
        if not holds((fraction >= 0) & (fraction < 1)):
            raise InputError(
                f"ProportionalDividend: fraction must lie in [0, 1), got {self.fraction}; it is a decimal, 0.02 for 2 %"
            )


Dividend = CashDividend | ProportionalDividend


@dataclass(frozen=True)
class Schedule:
    """Dividends merged by ex-date: on each the price drops by `cash`, then is multiplied by `exp(log_kept)`.

    Attributes:
        times: ex-dates in years, increasing, [date].
        cash: sum of the cash amounts of each date, [date].
        log_kept: sum of `log(1 - fraction)` over the proportional dividends of each date, [date].
    """

    times: Tensor
    cash: Tensor
    log_kept: Tensor

    @classmethod
    def of(cls, dividends: Sequence[Dividend]) -> Schedule:
        """Merges dividends given in any order; those less than 1e-9 years apart share a date.

        Example:
            >>> Schedule.of([CashDividend(1.0, 2.0), ProportionalDividend(0.5, 0.0), CashDividend(0.5, 1.0)]).cash
            tensor([1., 2.], dtype=torch.float64)
        """
        none = torch.zeros((), dtype=torch.float64)
        times: list[float] = []
        cash: list[Tensor] = []
        log_kept: list[Tensor] = []
        for dividend in sorted(dividends, key=lambda d: d.time):
            if not times or dividend.time > times[-1] + SAME_TIME:
                times.append(float(dividend.time))
                cash.append(none)
                log_kept.append(none)
            if isinstance(dividend, CashDividend):
                cash[-1] = cash[-1] + torch.as_tensor(dividend.amount, dtype=torch.float64)
            else:
                log_kept[-1] = log_kept[-1] + torch.log1p(-torch.as_tensor(dividend.fraction, dtype=torch.float64))
        empty = torch.zeros(0, dtype=torch.float64)
        return cls(
            torch.tensor(times, dtype=torch.float64),
            torch.stack(cash) if cash else empty,
            torch.stack(log_kept) if log_kept else empty,
        )

    def paid(self, t: Tensor, before: bool = False) -> Tensor:
        """Whether each dividend has been paid by `t`, or (`before`) strictly before it: [*t, date]."""
        return self.times <= t.unsqueeze(-1) + (-SAME_TIME if before else SAME_TIME)

    def kept(self, paid: Tensor) -> Tensor:
        """What the proportional dividends marked in `paid` [*, date] leave of one share's price, [*]."""
        return torch.exp((paid * self.log_kept).sum(-1))

    def cash_today(self, growth: Tensor) -> Tensor:
        """Value today of each date's cash, to a holder who reinvests yield and proportional dividends, [date].

        Args:
            growth: forward over spot by rates and yield alone, at `times`.
        """
        earlier = torch.cumsum(self.log_kept, 0) - self.log_kept
        return self.cash / (growth * torch.exp(earlier))


def _check_time(owner: str, time: float) -> None:
    if not (math.isfinite(time) and time > 0):
        raise InputError(f"{owner}: time must be positive and finite (years from today), got {time}")


def _one_number(field: str, value: float | Tensor) -> Tensor:
    tensor = torch.as_tensor(value, dtype=torch.float64)
    if tensor.dim():
        raise InputError(f"{field} must be one number, got a tensor of shape {tuple(tensor.shape)}")
    return tensor
