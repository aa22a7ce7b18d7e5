"""A European option as text: strikes, an expiry in years or as a date, and the market around it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

import numpy as np
import torch
from pydantic import AwareDatetime, Field
from torch import Tensor

from qsde.errors import InputError
from qsde.market.curves import PillarCurve
from qsde.market.surface import Surface
from qsde.spec.base import DEAREST, LONGEST, Spec
from qsde.spec.settings import MarketSpec, Rate

_EXPIRY_CLOCK = time(16, 0, tzinfo=ZoneInfo("America/New_York"))
_YEAR = 365 * 24 * 3600.0


@dataclass(frozen=True)
class Contract:
    """What a pricing formula needs: strikes [K], years, forward, discount factor, and the side."""

    strike: Tensor
    t: float
    forward: float
    discount_factor: float
    is_call: bool


class ContractSpec(Spec):
    """European calls or puts of one expiry.

    Attributes:
        strikes: strike prices.
        expiry: years (ACT/365F), or a date, taken as 16:00 in New York.
        put: puts instead of calls.
        valuation_time: the present where `expiry` is a date; now if None.
        spot: price of the underlying; with the rate and dividend yield it gives the forward.
        forward: forward price, instead of the spot.
        rate: continuous rate, or zero rates by years.
        dividend_yield: continuous yield, or yields by years.

    Example:
        >>> c = ContractSpec(strikes=(100.0,), expiry=1.0, spot=100.0, rate=0.05).build()
        >>> round(c.forward, 4), round(c.discount_factor, 4)
        (105.1271, 0.9512)
    """

    strikes: tuple[float, ...] = Field(min_length=1)
    expiry: float | date
    put: bool = False
    valuation_time: AwareDatetime | None = None
    spot: float | None = Field(default=None, gt=0, le=DEAREST)
    forward: float | None = Field(default=None, gt=0, le=DEAREST)
    rate: Rate | None = None
    dividend_yield: Rate | None = None

    def build(self, surface: Surface | None = None) -> Contract:
        """The contract; what the spec leaves open comes from `surface`, interpolated between its expiries.

        Raises:
            InputError: a strike is not positive, the expiry has passed or is centuries away, or forward and spot are
                both missing or given.
        """
        bad = [k for k in self.strikes if not k > 0]
        if bad:
            raise InputError(f"strikes must be positive, got {bad[0]:g}")
        t = self._years(surface)
        discount = self._discount(t, surface)
        return Contract(torch.tensor(self.strikes, dtype=torch.float64), t, self._forward(t, discount, surface),
                        discount, not self.put)  # fmt: skip

    def _years(self, surface: Surface | None) -> float:
        if isinstance(self.expiry, date):
            quoted = {} if surface is None else dict(zip(surface.slices["expiry"], surface.slices["t"], strict=True))
            if self.expiry.isoformat() in quoted:
                return float(quoted[self.expiry.isoformat()])
            t = (datetime.combine(self.expiry, _EXPIRY_CLOCK) - self._now(surface)).total_seconds() / _YEAR
        else:
            t = self.expiry
        if t > LONGEST:
            raise InputError(f"expiry is {t:,.10g} years away: give years (0.5) or a date (2026-12-18)")
        if not t > 0:
            raise InputError(f"expiry must lie in the future: {self.expiry} is {t:.4g} years away")
        return t

    def _now(self, surface: Surface | None) -> datetime:
        if self.valuation_time is not None:
            return self.valuation_time
        if surface is not None and surface.quote_time:
            quoted = datetime.fromisoformat(surface.quote_time)
            return quoted if quoted.tzinfo else quoted.replace(tzinfo=UTC)
        return datetime.now(UTC)

    def _discount(self, t: float, surface: Surface | None) -> float:
        curve = MarketSpec(rate=self.rate).rate_curve()
        if curve is None and surface is not None:
            curve = PillarCurve(surface.slices["t"].tolist(), surface.slices["rate"].tolist())
        return float(curve.discount(t)) if curve is not None else 1.0

    def _forward(self, t: float, discount: float, surface: Surface | None) -> float:
        if self.forward is not None and self.spot is not None:
            raise InputError("give the forward or the spot, not both: the spot gives the forward")
        if self.forward is not None:
            return self.forward
        if self.spot is not None:
            dividend = MarketSpec(dividend_yield=self.dividend_yield).dividend_curve()
            return self.spot * (float(dividend.discount(t)) if dividend is not None else 1.0) / discount
        if surface is None:
            raise InputError("the price needs a forward or a spot: give --forward, or --spot with --rate")
        log_forward = np.log(surface.slices["forward"].to_numpy(float))
        return math.exp(float(np.interp(t, surface.slices["t"].to_numpy(float), log_forward)))
