"""American options under Black-Scholes with a continuous rate and yield: price, and volatility implied by a price.

A put is worth its European price plus the value of exercising early (Kim 1990)

`int_0^T r K e^{-r s} N(-d_-(S / B(T - s), s)) - q S e^{-q s} N(-d_+(S / B(T - s), s)) ds`,

with `d_+-(z, s) = (ln z + (r - q) s) / (sigma sqrt(s)) +- sigma sqrt(s) / 2`, where `B(tau)` is the price of the
underlying at and below which exercise pays with `tau` to go. A call is a put: `C(S, K, r, q) = P(K, S, q, r)`.

The boundary follows Andersen, Lake and Offengenden (2016), High-performance American option pricing: the fixed point
(their system B) `B(tau) = K e^{-(r - q) tau} N(tau, B) / D(tau, B)` at Chebyshev points of `sqrt(tau)`, with
`ln^2(B / B(0))` interpolated in between. Integrals run over `phi` with `s = tau sin^2 phi`, smooth at both ends. Time
is in units of `T`, so rates and the volatility are totals up to expiry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial.chebyshev import chebvander
from numpy.polynomial.legendre import leggauss
from numpy.typing import NDArray
from torch import Tensor

from qsde.errors import InputError, VolStatus
from qsde.market.black import as_tensors
from qsde.market.implied_vol import ImpliedVol, implied_vol
from qsde.numerics import holds, norm_pdf

#: Chebyshev intervals of the boundary, points of its integrals and of that of the premium.
_INTERVALS, _POINTS, _PREMIUM_POINTS = 10, 12, 32
#: Sweeps of the fixed point from the first guess, from there in a search, and in its steps.
_SWEEPS, _FEW_SWEEPS, _MORE_SWEEPS = 12, 6, 3
#: Working arrays stay in the cache.
_BLOCK = 1 << 11
#: An implied volatility is found to this, relative, or reprices to that, in units of the strike.
_VOL_ERROR, _PRICE_ERROR = 1e-8, 1e-13
#: A boundary that lags behind its volatility shows in the price.
_REPRICED = 1e-8
#: Steps while the boundary follows, and where it starts afresh each time.
_FEW_STEPS, _MAX_STEPS = 16, 60
#: Prices within this of the value of exercise, in units of the strike, say nothing about the volatility.
_AT_EXERCISE = 1e-10
#: Chances below which the volatility is so small that the boundary stays where it is at expiry.
_SEEN = 1e-280
#: Largest total volatility looked for.
_MOST = 8.0
_Z = -np.cos(np.pi * np.arange(_INTERVALS + 1) / _INTERVALS)
_ROOT = torch.tensor((1 + _Z) / 2)
#: Chebyshev coefficients of the polynomial through values at the points.
_COEFFICIENTS = np.linalg.inv(chebvander(_Z, _INTERVALS))
_TRANSFORM = torch.tensor(_COEFFICIENTS.T.copy())
#: Roots of the times at which a boundary is checked: its points, and between them.
_CHECKS = torch.tensor((1 - np.cos(np.pi * np.arange(1, 2 * _INTERVALS + 1) / (2 * _INTERVALS))) / 2).unsqueeze(-1)
_UNIT, _WEIGHT = (torch.tensor(v) for v in leggauss(_PREMIUM_POINTS))
#: Distances to the boundary, in standard deviations, below and above which the rule of the premium does not follow.
_NEAREST, _FARTHEST = 1e-5, 10.0


class _Rule(NamedTuple):
    """`int_0^tau f(s) ds = sum_k weight_k f(rest_k)` for each `tau`; `nodes` interpolate to `tau - rest_k`."""

    tau: Tensor
    rest: Tensor
    weight: Tensor
    nodes: Tensor

    @classmethod
    def of(cls, root: NDArray[np.float64], points: int) -> _Rule:
        y, w = leggauss(points)
        phi, tau = np.pi / 4 * (1 + y), root[:, None] ** 2
        nodes = chebvander(2 * root[:, None] * np.cos(phi) - 1, _INTERVALS) @ _COEFFICIENTS
        parts = tau, tau * np.sin(phi) ** 2, tau * np.sin(2 * phi) * w * np.pi / 4, nodes
        return cls(*(torch.tensor(part) for part in parts))

    def to(self, device: torch.device) -> _Rule:
        return _Rule(*(part.to(device) for part in self))


_SWEEP = _Rule.of((1 + _Z[1:]) / 2, _POINTS)


def _graded(distance: Tensor) -> tuple[Tensor, Tensor]:
    """Points and weights of an integral over `phi` from 0 to `pi / 2`, dense around `distance` standard deviations.

    Next to the boundary the integrand of the premium is a smooth step there, its derivatives are peaks.
    """
    y, w = _UNIT.to(distance.device), _WEIGHT.to(distance.device)
    scale = 0.5 * torch.clamp(distance.detach(), _NEAREST, _FARTHEST)
    top = torch.asinh(0.5 * np.pi / scale)
    u = top * (1 + y) / 2
    return scale * torch.sinh(u), scale * torch.cosh(u) * top / 2 * w


def _interpolated(squares: Tensor, root: Tensor) -> Tensor:
    """Boundary at times with these roots, from the Chebyshev coefficients of its squares: Clenshaw's recurrence."""
    first, *rest = squares[..., None, None].unbind(1)
    z, high, low = 2 * root - 1, torch.zeros_like(root), torch.zeros_like(root)
    for c in reversed(rest):
        high, low = c + 2 * z * high - low, high
    return -torch.sqrt(_positive(first + z * high - low))


@dataclass(frozen=True)
class _Puts:
    """Puts struck at 1 that expire at 1; tensors of shape (quotes, 1, 1).

    Boundaries, of shape (quotes, nodes), are logarithms in units of the boundary at expiry.
    """

    log_spot: Tensor
    rate: Tensor
    dividend: Tensor

    @classmethod
    def of(cls, spot: Tensor, strike: Tensor, t: Tensor, rate: Tensor, dividend: Tensor, call: Tensor) -> _Puts:
        x, r, q = torch.log(spot / strike), rate * t, dividend * t
        parts = (torch.where(call, -x, x), torch.where(call, q, r), torch.where(call, r, q))
        return cls(*(part.reshape(-1, 1, 1) for part in parts))

    def part(self, rows: Tensor) -> _Puts:
        return _Puts(self.log_spot[rows], self.rate[rows], self.dividend[rows])

    @property
    def never(self) -> Tensor:
        """Whether early exercise never pays, (quotes, 1, 1)."""
        return (self.rate <= 0) & (self.dividend >= self.rate)

    @property
    def early(self) -> _Puts:
        """With other rates in place of those at which early exercise never pays."""
        return _Puts(
            self.log_spot, torch.where(self.never, 1.0, self.rate), torch.where(self.never, 0.0, self.dividend)
        )

    @property
    def near(self) -> Tensor:
        """Logarithm of the boundary at expiry."""
        low = (self.rate > 0) & (self.dividend > self.rate)
        return torch.where(low, torch.log(torch.where(low, self.rate / torch.where(low, self.dividend, 1.0), 1.0)), 0.0)

    def distance(self, log_ratio: Tensor, time: Tensor, vol: Tensor) -> tuple[Tensor, Tensor]:
        """`d_-` and `d_+`."""
        width = vol * time.sqrt()
        lower = (log_ratio + (self.rate - self.dividend) * time) / width - 0.5 * width
        return lower, lower + width

    def european(self, x: Tensor, tau: Tensor, vol: Tensor) -> Tensor:
        """At log-prices `x` with `tau` to go."""
        cash, stock = (torch.special.ndtr(-d) for d in self.distance(x, tau, vol))
        value: Tensor = torch.exp(-self.rate * tau) * cash - torch.exp(x - self.dividend * tau) * stock
        return value

    def premium(self, x: Tensor, tau: Tensor, boundary: Tensor, vol: Tensor) -> Tensor:
        """Of early exercise, at log-prices `x` with `tau` to go, both (quotes or 1, points, 1)."""
        squares, root = boundary**2 @ _TRANSFORM.to(x.device), tau.sqrt()
        now = _interpolated(squares, root)
        phi, weight = _graded((x - self.near - now) / (vol * root))
        sin, cos = torch.sin(phi), torch.cos(phi)
        then = _interpolated(squares, root * cos)
        rest, weight = tau * sin**2, 2 * tau * sin * cos * weight
        cash, stock = (torch.special.ndtr(-d) for d in self.distance(x - self.near - then, rest, vol))
        gain = self.rate * torch.exp(-self.rate * rest) * cash
        loss = self.dividend * torch.exp(x - self.dividend * rest) * stock
        total: Tensor = ((gain - loss) * weight).sum(-1, keepdim=True)
        return total

    def value(self, boundary: Tensor, vol: Tensor) -> Tensor:
        """American prices, of shape (quotes,)."""
        x, one = self.log_spot, torch.ones_like(vol)
        held = self.european(x, one, vol) + torch.relu(self.premium(x, one, boundary, vol))
        exercise = x - self.near <= boundary[:, -1:, None]
        american: Tensor = torch.where(exercise, -torch.expm1(x), held)
        return american.flatten()

    def error(self, boundary: Tensor, vol: Tensor) -> Tensor:
        """By how much holding on differs from exercise on the boundary, at worst, (quotes,)."""
        squares, root = boundary**2 @ _TRANSFORM.to(vol.device), _CHECKS.to(vol.device)
        x, tau = self.near + _interpolated(squares, root), root**2
        gap = self.european(x, tau, vol) + self.premium(x, tau, boundary, vol) + torch.expm1(x)
        worst: Tensor = gap.abs().amax((1, 2))
        return worst

    def vega(self, vol: Tensor) -> Tensor:
        """Of the European put."""
        _, upper = self.distance(self.log_spot, torch.ones_like(vol), vol)
        return (torch.exp(self.log_spot - self.dividend) * norm_pdf(upper)).flatten()

    def boundary(self, vol: Tensor, sweeps: int = _SWEEPS) -> Tensor:
        """From a guess between the boundary at expiry and the perpetual one (Bjerksund and Stensland 1993)."""
        drift, variance = self.rate - self.dividend - 0.5 * vol**2, vol**2
        power = (drift + torch.sqrt(drift**2 + 2 * variance * torch.relu(self.rate))) / variance
        near, far = torch.exp(self.near), power / (power + 1)
        pace = -2 * vol * _ROOT.to(vol.device) * near / torch.clamp(near - far, min=1e-12)
        guess = torch.log(far + (near - far) * torch.exp(pace)) - self.near
        return self.swept(guess.detach().squeeze(1), vol, sweeps)

    def swept(self, boundary: Tensor, vol: Tensor, times: int) -> Tensor:
        """Steps of the fixed point."""
        tau, rest, weight, nodes = _SWEEP.to(vol.device)
        cash_weight = self.rate * torch.exp(self.rate * (tau - rest)) * weight
        stock_weight = self.dividend * torch.exp(self.dividend * (tau - rest)) * weight
        for _ in range(times):
            now = boundary[:, 1:, None]
            then = -torch.sqrt(_positive(torch.einsum("nj,ikj->nik", boundary**2, nodes)))
            last = self.distance(now + self.near, tau, vol)
            early = self.distance(now - then, rest, vol)
            cash, stock = (
                torch.special.ndtr(at).squeeze(-1) + (weight * torch.special.ndtr(d)).sum(-1)
                for at, d, weight in zip(last, early, (cash_weight, stock_weight), strict=True)
            )
            seen = torch.minimum(cash, stock) > _SEEN
            ratio = torch.where(seen, cash, 1.0) / torch.where(seen, stock, 1.0)
            new = torch.log(ratio) - ((self.rate - self.dividend) * tau + self.near).squeeze(-1)
            new = torch.where(seen, torch.clamp(new, max=0.0), 0.0)
            boundary = torch.nn.functional.pad(new, (1, 0))
        return boundary


def _positive(x: Tensor) -> Tensor:
    """So that its root has a derivative."""
    return torch.clamp(x, min=1e-30)


def american_price(
    spot: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    vol: float | Tensor,
    rate: float | Tensor,
    dividend_yield: float | Tensor = 0.0,
    is_call: bool | Tensor = False,
) -> Tensor:
    """American option price under Black-Scholes, to about 1e-7 of the strike (1e-6 at the worst seen).

    Arguments broadcast and are computed in float64, thousands of options at once. Where early exercise never pays (a
    call with `q <= 0 <= r`, a put with `r <= 0 <= q`) the price is the European one.

    Args:
        spot: price of the underlying.
        strike: strike.
        t: years to expiry.
        vol: annualised volatility.
        rate: continuous rate.
        dividend_yield: continuous yield.
        is_call: call or put.

    Raises:
        InputError: spot, strike, t or vol not positive; or `q < r < 0` for a put, `r < q < 0` for a call, where
            exercise pays between two boundaries.

    Reference: Andersen, Lake and Offengenden (2016), equations (8) and (24) to (27).

    Example:
        >>> american_price(36.0, 40.0, 1.0, 0.2, 0.06).round(decimals=4)
        tensor(4.4867, dtype=torch.float64)
    """
    return _each(_price, spot, strike, t, vol, rate, dividend_yield, is_call=is_call)


@torch.no_grad()
def american_error(
    spot: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    vol: float | Tensor,
    rate: float | Tensor,
    dividend_yield: float | Tensor = 0.0,
    is_call: bool | Tensor = False,
) -> Tensor:
    """Bound on the error of `american_price`, which is smaller the further the spot is from where exercise pays.

    The boundary is found by smooth pasting; what says how good it is is by how much the integral, on it, differs from
    the value of exercise. Both satisfy the equation of Black and Scholes above it and agree at expiry, so that by the
    maximum principle no price there is further off. Left out is what a boundary that is off costs its holder, which
    is of second order. Arguments and errors as of `american_price`, without derivatives.

    Example:
        >>> bool(american_error(36.0, 40.0, 1.0, 0.2, 0.06) < 1e-4)
        True
    """
    return _each(_error, spot, strike, t, vol, rate, dividend_yield, is_call=is_call)


def two_boundaries(rate: Tensor, dividend_yield: Tensor, is_call: bool | Tensor) -> Tensor:
    """Whether exercise pays between two boundaries: puts with `q < r < 0`, calls with `r < q < 0`."""
    call = torch.as_tensor(is_call, device=rate.device)
    mine, other = torch.where(call, dividend_yield, rate), torch.where(call, rate, dividend_yield)
    return (mine < 0) & (other < mine)


def _each(result: Callable[[_Puts, Tensor], Tensor], *numbers: float | Tensor, is_call: bool | Tensor) -> Tensor:
    """A result in units of the strike of puts of total volatilities, for options given as to `american_price`."""
    numbers = as_tensors(*numbers)
    s, k, time, sigma, r, q, call = torch.broadcast_tensors(
        *numbers, torch.as_tensor(is_call, device=numbers[0].device)
    )
    for name, value in (("spot", s), ("strike", k), ("t", time), ("vol", sigma)):
        if not holds(value > 0):
            raise InputError(f"american_price: {name} must be positive, got {float(value.min()):g}")
    if not holds(~two_boundaries(r, q, call)):
        raise InputError(
            "american_price: a put with dividend_yield < rate < 0 (a call with rate < dividend_yield < 0) is exercised "
            "between two boundaries, which this method does not find: price it by simulation"
        )
    puts, total = _Puts.of(s, k, time, r, q, call), (sigma * time.sqrt()).flatten()
    found = torch.cat([result(puts.part(rows), total[rows]) for rows in torch.arange(len(total)).split(_BLOCK)])
    return torch.where(call, s, k) * found.reshape(s.shape)


@torch.no_grad()
def american_vol(
    price: Tensor, spot: Tensor, strike: Tensor, t: Tensor, rate: Tensor, dividend_yield: Tensor, is_call: Tensor
) -> ImpliedVol:
    """Volatility with `american_price(...) == price`, without derivatives; arguments as there, of one shape.

    Status: `AT_INTRINSIC` where the price is worth no more than exercise at once, `BELOW_INTRINSIC` where less (or less
    than the European option without volatility), `ABOVE_MAXIMUM` from the strike of a put and the spot of a call on,
    `BAD_INPUT` where an argument is not finite or not positive, or there are two boundaries (see `american_price`).

    Example:
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> price = american_price(36.0, 40.0, one, 0.2, 0.06)
        >>> american_vol(price, 36 * one, 40 * one, one, 0.06 * one, 0 * one, one < 0).vol.round(decimals=6)
        tensor([0.2000], dtype=torch.float64)
    """
    p, s, k, t, r, q = as_tensors(price, spot, strike, t, rate, dividend_yield)
    valid = torch.isfinite(p + s + k + t + r + q) & (torch.minimum(torch.minimum(s, k), t) > 0)
    valid &= ~two_boundaries(r, q, is_call)
    p, s, k, t, r, q = (
        torch.where(valid, v, one) for v, one in ((p, 0.1), (s, 1.0), (k, 1.0), (t, 1.0), (r, 0), (q, 0))
    )
    puts, p = _Puts.of(s, k, t, r, q, is_call), p / torch.where(is_call, s, k)
    start, status = _start(puts, p)
    todo = ((status == VolStatus.OK) & ~puts.never.flatten()).nonzero().flatten()
    for rows in todo.split(_BLOCK):
        start[rows], solved = _solve(puts.part(rows), p[rows], start[rows])
        status[rows] = torch.where(solved, VolStatus.OK, VolStatus.AT_INTRINSIC)
    status = torch.where(valid, status, int(VolStatus.BAD_INPUT))
    return ImpliedVol(torch.where(status == VolStatus.OK, start / t.sqrt(), 0.0), status)


def _start(puts: _Puts, price: Tensor) -> tuple[Tensor, Tensor]:
    """Total volatility of a European option of that price, which is too high, and whether there can be one."""
    log_spot, rate, dividend = (v.flatten() for v in (puts.log_spot, puts.rate, puts.dividend))
    european = implied_vol(price, torch.exp(log_spot + rate - dividend), 1.0, 1.0, torch.exp(-rate), False)
    never = puts.never.flatten()
    high = ~never & (european.status == VolStatus.ABOVE_MAXIMUM) & (price < 1.0)
    over = price + torch.expm1(log_spot)
    status = torch.where(high, int(VolStatus.OK), european.status)
    status = torch.where((over <= _AT_EXERCISE) & ~never, int(VolStatus.AT_INTRINSIC), status)
    status = torch.where((over < -_AT_EXERCISE) & ~never, int(VolStatus.BELOW_INTRINSIC), status)
    return torch.where(high, _MOST, european.vol), status


def _solve(puts: _Puts, price: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Total volatilities below `start`, and whether they are solutions."""
    vol, solved = _secants(puts, price, start, follow=True)
    left = (~solved | ((_price(puts, vol) - price).abs() > _REPRICED)).nonzero().flatten()
    if len(left):
        vol[left], solved[left] = _secants(puts.part(left), price[left], start[left], follow=False)
    return vol, solved


def _price(puts: _Puts, vol: Tensor) -> Tensor:
    total, early = _column(vol), puts.early
    never = puts.european(puts.log_spot, torch.ones_like(total), total)
    return torch.where(puts.never.flatten(), never.flatten(), early.value(early.boundary(total), total))


def _error(puts: _Puts, vol: Tensor) -> Tensor:
    total, early = _column(vol), puts.early
    return torch.where(puts.never.flatten(), 0.0, early.error(early.boundary(total), total))


def _secants(puts: _Puts, price: Tensor, start: Tensor, follow: bool) -> tuple[Tensor, Tensor]:
    """Secants inside a bracket; the boundary follows by a few sweeps, so that it may lag, or starts afresh."""
    result, solved, rows = start.clone(), torch.zeros_like(start, dtype=torch.bool), torch.arange(len(start))
    vol, low, high = start, torch.zeros_like(start), start * (1 + 1e-9)
    slope, boundary = puts.vega(_column(vol)), puts.boundary(_column(vol), _FEW_SWEEPS if follow else _SWEEPS)
    gap = puts.value(boundary, _column(vol)) - price
    for _ in range(_FEW_STEPS if follow else _MAX_STEPS):
        done = gap.abs() <= torch.clamp(_VOL_ERROR * slope * vol, min=_PRICE_ERROR)
        result[rows], solved[rows] = vol, done
        left = (~done).nonzero().flatten()
        if not len(left):
            break
        rows, puts, price, low, high = rows[left], puts.part(left), price[left], low[left], high[left]
        old, before, slope, boundary = vol[left], gap[left], slope[left], boundary[left]
        low, high = torch.where(before < 0, old, low), torch.where(before > 0, old, high)
        vol = old - before / slope
        vol = torch.where((vol > low) & (vol < high), vol, 0.5 * (low + high))
        column = _column(vol)
        boundary = puts.swept(boundary, column, _MORE_SWEEPS) if follow else puts.boundary(column)
        gap = puts.value(boundary, column) - price
        secant = (gap - before) / (vol - old)
        slope = torch.where(secant > 0, secant, slope)
    return result, solved


def _column(vol: Tensor) -> Tensor:
    return vol.reshape(-1, 1, 1)
