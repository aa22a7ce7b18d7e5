"""The market of one underlying as text: spot, rates and dividends."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from qsde.errors import InputError
from qsde.market.curves import Curve, PillarCurve
from qsde.market.dividends import CashDividend, ProportionalDividend
from qsde.market.surface import Surface
from qsde.market.underlying import Market
from qsde.spec.base import DEAREST, Spec, at
from qsde.spec.settings import MarketSpec, Rate

#: Most dividends of one underlying: monthly ones for 40 years.
MAX_DIVIDENDS = 480


class CashDividendSpec(Spec):
    """A known `amount` per share on the ex-date `time`, years."""

    type: Literal["cash"] = "cash"
    time: float
    amount: float

    def build(self) -> CashDividend:
        """The dividend."""
        return CashDividend(self.time, self.amount)


class ProportionalDividendSpec(Spec):
    """A known `fraction` of the price on the ex-date `time`, years."""

    type: Literal["proportional"] = "proportional"
    time: float
    fraction: float

    def build(self) -> ProportionalDividend:
        """The dividend."""
        return ProportionalDividend(self.time, self.fraction)


DividendSpec = Annotated[CashDividendSpec | ProportionalDividendSpec, Field(discriminator="type")]


class UnderlyingSpec(Spec):
    """Spot, rates and dividends of one underlying.

    Attributes:
        spot: price now.
        rate: continuous rate, annualised decimal, or `{years: zero rate}`; None is the fit's, or 0 without a fit.
        dividend_yield: continuous yield in the same form; None is what the fit's forwards imply, or 0 without a fit.
        dividends: dividends on dates, such as `{"type": "cash", "time": 0.5, "amount": 2.0}`.

    Example:
        >>> UnderlyingSpec(spot=100.0, rate=0.03).build().forward(1.0)
        tensor(103.0455, dtype=torch.float64)
    """

    spot: float | None = Field(default=None, gt=0, le=DEAREST)
    rate: Rate | None = None
    dividend_yield: Rate | None = None
    dividends: tuple[DividendSpec, ...] = Field(default=(), max_length=MAX_DIVIDENDS)

    def build(self, surface: Surface | None = None) -> Market:
        """The market; what the spec leaves open comes from `surface`.

        Raises:
            InputError: there is no spot, a rate is no decimal, or a dividend is impossible; the message starts with
                the field.
        """
        with at("", fields=type(self).model_fields):
            given = MarketSpec(rate=self.rate, dividend_yield=self.dividend_yield)
            spot, rate, dividend_yield = self._spot(surface), given.rate_curve(), given.dividend_curve()
            if surface is not None:
                self._refuse_dividends_twice()
                rate = rate or _rates(surface)
                dividend_yield = dividend_yield or _dividend_yields(surface, spot)
            dividends = [self._dividend(i) for i in range(len(self.dividends))]
            return Market(spot, rate or 0.0, dividend_yield or 0.0, dividends)

    def _dividend(self, index: int) -> CashDividend | ProportionalDividend:
        spec = self.dividends[index]
        with at(f"dividends.{index}", fields=type(spec).model_fields):
            return spec.build()

    def _spot(self, surface: Surface | None) -> float:
        if self.spot is not None:
            return self.spot
        if surface is None:
            raise InputError("spot: field required")
        if not math.isfinite(surface.spot):
            raise InputError("spot: field required, since the quotes of the fit came without one: give it, or --spot")
        return surface.spot

    def _refuse_dividends_twice(self) -> None:
        if self.dividends and self.dividend_yield is None:
            raise InputError(
                "dividends: the forwards of the fit contain all dividends already; to use your own instead, give "
                "dividend_yield as well (0, say)"
            )


def _rates(surface: Surface) -> Curve:
    return PillarCurve(surface.slices["t"].tolist(), surface.slices["rate"].tolist())


def _dividend_yields(surface: Surface, spot: float) -> Curve:
    """The yields that lead from the spot of the quotes to their forwards, `q = r - log(F / S) / t`."""
    then = surface.spot if math.isfinite(surface.spot) else spot
    t, forward, rate = (surface.slices[name].to_numpy(float) for name in ("t", "forward", "rate"))
    return PillarCurve(t.tolist(), (rate - np.log(forward / then) / t).tolist())
