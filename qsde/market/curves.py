"""Discount and dividend curves, differentiable in their pillars, and the US Treasury par curve."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from torch import Tensor

from qsde.errors import FileFormatError, ParameterError, QuoteError
from qsde.numerics import holds

Times = Tensor | ArrayLike
#: Flat rates outside are taken for percent or a slip of the hand.
_LOWEST_RATE, _HIGHEST_RATE = -0.5, 1.0


@runtime_checkable
class Curve(Protocol):
    """Anything that discounts: `discount(t)` and `zero_rate(t)` for times `t` in years."""

    def discount(self, t: Times) -> Tensor:
        """Value today of 1 paid at `t` years."""

    def zero_rate(self, t: Times) -> Tensor:
        """Continuously compounded zero rate to `t` years, annualised decimal."""


@dataclass(frozen=True)
class FlatCurve:
    """One continuous rate for all times: `D(t) = exp(-rate * t)`.

    Example:
        >>> round(FlatCurve(0.05).discount(2.0).item(), 6)
        0.904837
    """

    rate: float | Tensor

    def discount(self, t: Times) -> Tensor:
        """Discount factor to `t` years."""
        return torch.exp(-torch.as_tensor(self.rate, dtype=torch.float64) * _times(t))

    def zero_rate(self, t: Times) -> Tensor:
        """The flat rate in the shape of `t`."""
        return torch.as_tensor(self.rate, dtype=torch.float64) * torch.ones_like(_times(t))


@dataclass(frozen=True)
class ShiftedCurve:
    """A curve moved in parallel: every zero rate plus `shift`; a shift that requires grad gives rho.

    Example:
        >>> round(ShiftedCurve(FlatCurve(0.05), 0.01).zero_rate(2.0).item(), 6)
        0.06
    """

    curve: Curve
    shift: float | Tensor

    def discount(self, t: Times) -> Tensor:
        """Discount factor to `t` years."""
        return self.curve.discount(t) * torch.exp(-torch.as_tensor(self.shift) * _times(t))

    def zero_rate(self, t: Times) -> Tensor:
        """Zero rate of the curve plus the shift."""
        return self.curve.zero_rate(t) + self.shift


@dataclass(frozen=True)
class PillarCurve:
    """Zero rates at pillars, log-linear in the discount factor between them.

    `log D(t) = -z(t) t` is piecewise linear: the zero rate is flat before the first pillar, the forward rate flat
    between pillars and, after the last, equal to that of the last interval. Gradients flow to `zero_rates`.

    Attributes:
        t: pillar times in years, increasing and positive.
        zero_rates: continuous zero rates at the pillars, annualised decimals.

    Raises:
        ParameterError: shapes differ, a pillar is not positive or the pillars do not increase.

    Example:
        >>> curve = PillarCurve(t=[1.0, 2.0], zero_rates=[0.03, 0.04])
        >>> [round(x, 4) for x in curve.zero_rate([0.5, 1.0, 1.5, 3.0]).tolist()]
        [0.03, 0.03, 0.0367, 0.0433]
    """

    t: Tensor
    zero_rates: Tensor

    def __init__(self, t: Times, zero_rates: Times) -> None:
        object.__setattr__(self, "t", _times(t))
        object.__setattr__(self, "zero_rates", _times(zero_rates))
        self._check()

    def _check(self) -> None:
        if self.t.ndim != 1 or self.t.shape != self.zero_rates.shape or not len(self.t):
            raise ParameterError(
                f"a curve needs one zero rate per pillar: got {tuple(self.t.shape)} pillars and "
                f"{tuple(self.zero_rates.shape)} rates"
            )
        if not (self.t > 0).all() or not (self.t.diff() > 0).all():
            raise ParameterError(f"pillars must be positive and increasing years, got {self.t.tolist()}")
        if not holds(torch.isfinite(self.zero_rates)):
            raise ParameterError(f"zero rates must be finite, got {self.zero_rates.tolist()}")

    def discount(self, t: Times) -> Tensor:
        """Discount factor to `t` years."""
        return torch.exp(-self._exponent(_times(t)))

    def zero_rate(self, t: Times) -> Tensor:
        """Continuous zero rate to `t` years; at and below 0 the short end of the curve."""
        # The exponent is linear through the origin before the first pillar, so any small time gives the limit.
        positive = torch.clamp(_times(t), min=0.5 * float(self.t[0]))
        return self._exponent(positive) / positive

    def _exponent(self, t: Tensor) -> Tensor:
        knots = torch.cat([self.t.new_zeros(1), self.t])
        values = torch.cat([self.t.new_zeros(1), self.zero_rates * self.t])
        right = torch.searchsorted(knots, t.detach().contiguous()).clamp(1, len(knots) - 1)
        left = right - 1
        slope = (values[right] - values[left]) / (knots[right] - knots[left])
        return values[left] + slope * (t - knots[left])


def as_curve(rate: float | Curve, name: str = "rate") -> Curve:
    """A curve from a continuous rate or a curve.

    Raises:
        ParameterError: `rate` is neither, or outside -0.5 to 1, and so most likely percent.

    Example:
        >>> as_curve(0.03)
        FlatCurve(rate=0.03)
    """
    if hasattr(rate, "discount") and hasattr(
        rate, "zero_rate"
    ):  # isinstance() of a protocol takes thirty times as long
        return cast(Curve, rate)
    try:
        value = float(rate)
    except (TypeError, ValueError):
        raise ParameterError(f"{name} must be a number or a curve, got {rate!r}") from None
    if not _LOWEST_RATE <= value <= _HIGHEST_RATE:
        raise ParameterError(
            f"{name} is {value:g}, {value:.0%} a year: rates are decimals: 0.05, not 5 (not percent), and must lie "
            f"between {_LOWEST_RATE:g} and {_HIGHEST_RATE:g}"
        )
    return FlatCurve(value)


def treasury_curve(par_yields: Mapping[float, float]) -> PillarCurve:
    """Zero curve through US Treasury par yields (bond-equivalent, semi-annual coupons).

    Up to six months a bill pays once: `D(T) = 1 / (1 + y T)`. Beyond, `D` solves the par condition
    `(y/2) sum_j D(j/2) + D(T) = 1`, `j = 1..2T`, with log-linear discount factors between tenors.

    Args:
        par_yields: tenor in years to par yield as annualised decimal; NaN yields are skipped.

    Raises:
        QuoteError: no yield is given, a tenor beyond six months is not a multiple of half a year, or a yield is
            not below 100 %.

    Example:
        >>> curve = treasury_curve({0.5: 0.04, 1.0: 0.04, 2.0: 0.04})
        >>> [round(x, 6) for x in curve.zero_rate([0.5, 2.0]).tolist()]   # 2 log(1 + 0.04 / 2)
        [0.039605, 0.039605]
    """
    tenors = sorted(float(tenor) for tenor, y in par_yields.items() if np.isfinite(y))
    if not tenors:
        raise QuoteError("no par yield is given: supply at least one tenor, such as {1.0: 0.04}")
    knots, exponents = [0.0], [0.0]
    for tenor in tenors:
        _check_par(tenor, float(par_yields[tenor]))
        exponents.append(_par_exponent(tenor, float(par_yields[tenor]), knots, exponents))
        knots.append(tenor)
    t, y = np.array(knots[1:]), np.array(exponents[1:])
    return PillarCurve(t, y / t)


def read_treasury(path: str | Path, date: str) -> PillarCurve:
    """Treasury curve of one day from a CSV of par yields: `date,1M,3M,...,30Y`, in percent, blanks missing.

    A day without yields (weekend, holiday) takes the nearest earlier one within seven days, with a warning.

    Raises:
        FileFormatError: the file cannot be read, has no `date` column or no tenor columns such as 3M or 10Y, or
            something else than dates and numbers in them.
        QuoteError: `date` is not a date, or the file has no yields on it or in the seven days before.
    """
    tenors, days, yields = _par_yields(path)
    try:
        wanted = pd.Timestamp(date).tz_localize(None).normalize()
    except (ValueError, TypeError):
        raise QuoteError(f"date {date!r} is not a date such as 2022-02-15") from None
    usable = days.le(wanted) & days.ge(wanted - pd.Timedelta(days=7)) & yields.notna().any(axis=1)
    if not usable.any():
        raise QuoteError(
            f"{path} has no Treasury yields on {wanted:%Y-%m-%d} or in the seven days before: it covers "
            f"{days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}"
        )
    at = int(np.flatnonzero(usable)[days[usable].argmax()])
    if days.iloc[at] != wanted:
        warnings.warn(
            f"no Treasury yields on {wanted:%Y-%m-%d}: those of {days.iloc[at]:%Y-%m-%d} are used", stacklevel=2
        )
    return treasury_curve(dict(zip(tenors, (yields.iloc[at] / 100).tolist(), strict=True)))


def _par_yields(path: str | Path) -> tuple[list[float], pd.Series, pd.DataFrame]:
    """Tenors in years, days, and yields in percent [days, tenors] of a file."""
    try:
        table = pd.read_csv(path)
        tenors = {c: years for c in table.columns if (years := _tenor_years(c)) is not None}
        days = pd.to_datetime(table["date"]) if "date" in table else None
        yields = table[list(tenors)].astype(float)
    except (ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise FileFormatError(f"{path}: no CSV of Treasury yields, date,1M,3M,...,30Y in percent: {reason}") from error
    if days is None or not tenors:
        raise FileFormatError(f"{path}: expected columns date,1M,3M,...,30Y, got {list(table.columns)}")
    return list(tenors.values()), days, yields


def _times(t: Times) -> Tensor:
    return torch.as_tensor(t, dtype=torch.float64)


def _tenor_years(label: str) -> float | None:
    number, unit = label[:-1].replace(".", "", 1), label[-1:].upper()
    if not number.isdigit() or unit not in "MY":
        return None
    return float(label[:-1]) / (12 if unit == "M" else 1)


def _check_par(tenor: float, par_yield: float) -> None:
    if tenor <= 0 or (tenor > 0.5 and abs(2 * tenor - round(2 * tenor)) > 1e-9):
        raise QuoteError(f"tenor {tenor:g} years: par yields beyond six months need tenors in half years")
    if not abs(par_yield) < 1:
        raise QuoteError(f"par yield {par_yield:g} at {tenor:g} years: give a decimal such as 0.04, not percent")


def _par_exponent(tenor: float, par_yield: float, knots: list[float], exponents: list[float]) -> float:
    if tenor <= 0.5:
        return float(np.log1p(par_yield * tenor))
    coupons = np.arange(1, round(2 * tenor) + 1) / 2

    def mispricing(exponent: float) -> float:
        discount = np.exp(-np.interp(coupons, [*knots, tenor], [*exponents, exponent]))
        return float(par_yield / 2 * discount.sum() + discount[-1] - 1)

    if mispricing(-tenor) * mispricing(5 * tenor) > 0:
        raise QuoteError(
            f"no discount factor makes a par bond of {tenor:g} years yield {par_yield:g}: check the yields"
        )
    return float(brentq(mispricing, -tenor, 5 * tenor, xtol=1e-15, rtol=1e-14))
