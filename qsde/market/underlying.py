"""The market a payoff is priced in: a spot, two curves and the discrete dividends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from qsde.errors import InputError
from qsde.market.clock import Clock
from qsde.market.curves import Curve, FlatCurve, Times, as_curve
from qsde.market.dividends import CashDividend, Dividend, ProportionalDividend, Schedule
from qsde.numerics import holds

#: A strike that dividends to come push to 0 or below is moved to this fraction of the forward.
_LEAST_STRIKE = 1e-10


@dataclass(frozen=True)
class Market:
    r"""Spot, interest rates and dividends of one underlying.

    **Forward.** With `g(t) = D_yield(t) / D_rate(t)`, the forward grows by `g` between ex-dates and on ex-date `tau`
    with cash amount `c` and fraction `d` drops by the cash first and then by the fraction of what is left:

        F(0) = spot,    F(t) = F(s) g(t) / g(s),    F(tau) = (F(tau-) - c) (1 - d).

    Written out, with `P(t)` the product of `1 - d` over ex-dates up to and including `t`,

        F(t) = g(t) P(t) (spot - sum over tau <= t of a_tau),    a_tau = c_tau / (g(tau) P(tau-)),

    where `a_tau` is the value today of the cash collected at `tau` by a holder of one share who reinvests the yield
    and the proportional dividends.

    **Price.** A price that pays known cash cannot fall below the value of that cash, so it cannot be lognormal. It is
    affine in the martingale `exp(x_t)` of the model, which has mean 1 (Buehler 2010; with cash dividends alone this is
    the escrowed dividend model):

        S_t = scale(t) exp(x_t) + shift(t),
        shift(t) = g(t) P(t) sum over t < tau <= horizon of a_tau,    scale(t) = F(t) - shift(t).

    `shift(t)` is the value at `t` of the cash still to come: each amount is discounted, and raised by the
    proportional dividends that will shrink the share before it is paid. On an ex-date every path drops by exactly
    `c`, then by exactly the fraction `d`. The volatility of the model is that of `S - shift`; that of the price is
    smaller, by the factor `1 - shift / S`.

    **Horizon.** Dividends after `horizon` are left out as if they did not exist. There are two consistent choices:

    - `horizon` = last date on which the contract looks at the price (its expiry): the escrowed convention of quotes
      and desks, taken by `qsde.pricing.montecarlo.price` and by default in `effective`. The price then depends
      neither on later dividends nor on other contracts priced along with it, `shift(expiry) = 0`, and
      `S_T = F(T) exp(x_T)`: European options are priced by their forward and strike alone, just as in a calibration
      to forwards and strikes, so that a calibrated model gives its quotes back. The cost: contracts of different
      expiries see different prices on one path, so that a call expiring just before a cash dividend and the call with
      the strike lowered by the cash just after it, which pay the same, do not cost the same.
    - `horizon` infinite (the default of `affine`), or one date beyond all contracts: one process for all of them,
      free of arbitrage between maturities. Every price then depends on the whole schedule, and a model must be
      calibrated to the forwards and strikes that `effective` gives for this horizon, not to the quoted ones.

    The last date of whatever is priced together is no third choice: the price of a contract would depend on its
    neighbours. Without cash dividends the choices agree.

    Args:
        spot: price now; a tensor that requires grad gives delta.
        rate: continuous zero rate, annualised decimal (a tensor that requires grad gives rho), or a curve.
        dividend_yield: continuous yield, or a curve.
        dividends: `CashDividend` and `ProportionalDividend`, in any order.

    Everything is differentiable in the spot, curves, amounts and fractions, also inside `torch.func` transforms.

    Raises:
        InputError: the spot is not one positive finite number, a dividend is of another type, or the cash dividends
            are worth as much as the spot or more (the sum of all `a_tau`).

    References:
        H. Buehler, Volatility and dividends: volatility modelling with cash dividends and simple credit risk (2010);
        E. Haug, J. Haug and A. Lewis, Back to basics: a new approach to the discrete dividend problem, Wilmott
        (2003), on what the escrowed model costs.

    Example:
        >>> Market(spot=100.0, rate=0.03, dividend_yield=0.01).forward(1.0)
        tensor(102.0201, dtype=torch.float64)
        >>> market = Market(100.0, dividends=[CashDividend(0.5, 4.0), ProportionalDividend(0.5, 0.25)])
        >>> market.forward([0.4, 0.5])                                                      # (100 - 4) 0.75 = 72
        tensor([100.,  72.], dtype=torch.float64)
        >>> market.affine([0.4, 0.5])
        (tensor([96., 72.], dtype=torch.float64), tensor([4., 0.], dtype=torch.float64))
    """

    spot: float | Tensor
    rate: float | Tensor | Curve = 0.0
    dividend_yield: float | Tensor | Curve = 0.0
    dividends: Sequence[Dividend] = ()
    _schedule: Schedule = field(init=False, repr=False, compare=False)
    #: Set where prices are differentiated by the passing of time (`qsde.greeks`).
    clock: Clock | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        try:
            spot = torch.as_tensor(self.spot, dtype=torch.float64)
        except (TypeError, ValueError, RuntimeError):
            raise InputError(f"spot must be one positive finite number, got {self.spot!r}") from None
        if spot.dim() or not holds((spot > 0) & torch.isfinite(spot)):
            raise InputError(f"spot must be one positive finite number, got {self.spot}")
        object.__setattr__(self, "spot", spot)
        for name in ("rate", "dividend_yield"):
            given = getattr(self, name)
            curve = FlatCurve(given) if isinstance(given, Tensor) else as_curve(given, name)
            object.__setattr__(self, name, curve)
        self._set_dividends(spot)

    def _set_dividends(self, spot: Tensor) -> None:
        object.__setattr__(self, "dividends", tuple(self.dividends))
        for i, dividend in enumerate(self.dividends):
            if not isinstance(dividend, (CashDividend, ProportionalDividend)):
                raise InputError(
                    f"dividends[{i}] must be a CashDividend or a ProportionalDividend, got {type(dividend).__name__}"
                )
        object.__setattr__(self, "_schedule", Schedule.of(self.dividends))
        worth = self._cash_today().sum()
        if not holds(worth < spot):
            raise InputError(
                f"dividends: the cash dividends are worth {worth.detach():g} today, the spot is {spot.detach():g}; "
                "leave out the far ones or give them as ProportionalDividend"
            )

    @property
    def has_cash(self) -> bool:
        """Whether there are cash dividends, so that the price is shifted."""
        return any(isinstance(d, CashDividend) for d in self.dividends)

    @property
    def dividend_times(self) -> tuple[float, ...]:
        """Ex-dates in years, increasing, each once."""
        return tuple(self._schedule.times.tolist())

    def years(self, dates: Times) -> Tensor:
        """Years from now to dates: the dates themselves, unless time passes."""
        return torch.as_tensor(dates, dtype=torch.float64) if self.clock is None else self.clock(dates)

    def discount(self, t: Times) -> Tensor:
        """Value today of 1 paid at `t` years."""
        return _curve(self.rate).discount(self.years(t))

    def forward(self, t: Times) -> Tensor:
        """Forward price for delivery at `t`, after the dividends of that date: `F(t)` of the class."""
        t = torch.as_tensor(t, dtype=torch.float64)
        if not self.dividends:
            return self._accrued(self.spot, t)
        paid = self._schedule.paid(t)
        return self._grown(self.spot - self._cash(paid), t, paid)

    def affine(self, t: Times, before: bool = False, horizon: Times = math.inf) -> tuple[Tensor, Tensor]:
        """Scale and shift, in the shape of `t`, of the price `S_t = scale exp(x_t) + shift`.

        Args:
            t: years.
            before: just before the dividends of date `t` are paid; it matters only if `t` is an ex-date.
            horizon: dividends after it are left out (the class says what to choose); broadcasts with `t`.

        Example:
            >>> market = Market(100.0, dividends=[CashDividend(0.5, 4.0), CashDividend(2.0, 6.0)])
            >>> [x.item() for x in market.affine(0.5, before=True)], [x.item() for x in market.affine(0.5)]
            ([90.0, 10.0], [90.0, 6.0])
            >>> [x.item() for x in market.affine(0.5, horizon=1.0)]
            [96.0, 0.0]
        """
        t = torch.as_tensor(t, dtype=torch.float64)
        if not self.dividends:
            scale = self._accrued(self.spot, t)
            return scale, torch.zeros_like(scale)
        paid = self._schedule.paid(t, before)
        counted = self._schedule.paid(torch.as_tensor(horizon, dtype=torch.float64))
        paid, to_come = paid & counted, ~paid & counted
        return (
            self._grown(self.spot - self._cash(paid | to_come), t, paid),
            self._grown(self._cash(to_come), t, paid),
        )

    def effective(self, strike: Times, t: Times, horizon: Times | None = None) -> tuple[Tensor, Tensor]:
        """Forward and strike at which an option on `exp(x_t)` is the European option on `S_t`.

        `(S_t - K)^+ = (scale exp(x_t) - (K - shift))^+`, so a pricer for `(scale, K - shift)` prices the option, call
        or put, with the discount factor as always. With dividends counted up to the expiry this is `(forward(t), K)`.

        Where dividends after `t` are worth the strike or more (`K <= shift`), the call is always exercised and worth
        `D (forward(t) - K)`, the put worthless. The pair then has the strike `1e-10 scale` and the forward that much
        above `forward(t) - K`: any pricer of calls and puts gives these values within `1e-10 D scale`.

        Args:
            strike: strikes, positive.
            t: years to expiry; broadcasts with `strike`.
            horizon: dividends after it are left out; None is the expiry of each option, `math.inf` counts the whole
                schedule (the class says what to choose).

        Raises:
            InputError: a strike is not positive and finite.

        Example:
            >>> market = Market(100.0, dividends=[CashDividend(0.5, 4.0), CashDividend(2.0, 6.0)])
            >>> [x.item() for x in market.effective(strike=100.0, t=1.0)]
            [96.0, 100.0]
            >>> [x.item() for x in market.effective(strike=100.0, t=1.0, horizon=math.inf)]
            [90.0, 94.0]
        """
        strike = torch.as_tensor(strike, dtype=torch.float64)
        if not holds((strike > 0) & torch.isfinite(strike)):
            raise InputError(f"strike must be positive and finite, got {strike.tolist()}")
        scale, shift = self.affine(t, horizon=t if horizon is None else horizon)
        left, least = strike - shift, _LEAST_STRIKE * scale
        raised = torch.relu(least - left)
        return scale + raised, left + raised

    def _cash_today(self) -> Tensor:
        """The value today `a_tau` of each ex-date's cash, [date]."""
        times = self._schedule.times
        return self._schedule.cash_today(_curve(self.dividend_yield).discount(self.years(times)) / self.discount(times))

    def _cash(self, marked: Tensor) -> Tensor:
        """Value today of the cash on the ex-dates marked in [*, date], [*]."""
        cash = self._cash_today()
        return (marked * (cash.unsqueeze(-2) if cash.dim() > 1 else cash)).sum(-1)  # a market of folds has an axis more

    def _grown(self, today: Tensor, t: Tensor, paid: Tensor) -> Tensor:
        """What a value today of stock becomes by `t`, less the proportional dividends marked in `paid` [*t, date]."""
        return self._accrued(today, t) * self._schedule.kept(paid)

    def _accrued(self, today: float | Tensor, t: Tensor) -> Tensor:
        """What a value today of stock becomes by `t` without dividends."""
        return today * _curve(self.dividend_yield).discount(self.years(t)) / self.discount(t)


def _curve(rate: float | Tensor | Curve) -> Curve:
    assert not isinstance(rate, float | Tensor), "curves are made when the market is"
    return rate
