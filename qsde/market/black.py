"""Black's formula on the forward, accurate in relative terms and with finite derivatives in the whole domain.

Everything rests on one normalised function. With `X = |ln F/K|`, total volatility `s = sigma sqrt(t)`, `a = X/s` and
`tau = s/2`, the out-of-the-money option is worth `DF min(F, K) beta(X, s)`,

    beta = N(tau - a) - exp(X) N(-a - tau) = n(a - tau) [M(a - tau) - M(a + tau)],     M(z) = N(-z) / n(z),

which lies in [0, 1) and is increasing in `s`. `M` is Mills' ratio. The difference of the two `M` cancels when `tau` is
small, and is then summed as a series of positive terms instead (see `mills_difference`).
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from qsde.numerics import constant, norm_pdf

SQRT_HALF = math.sqrt(0.5)
SQRT_TWO_PI = math.sqrt(2.0 * math.pi)

# Below either limit the series is used; its first neglected term is then under 1e-16.
_SERIES_TAU = 0.3
_SERIES_TAU_PER_A = 1.0 / 9.0
_SERIES_TOP = 17
# Correction to 2 / (a + sqrt(a^2 + 69)) for the ratio g_17 below, a polynomial in y = a / sqrt(a^2 + 69) <= 0.6,
# fitted with 40-digit parabolic cylinder functions. Beyond y = 0.6 the recurrence itself damps what is left.
_TOP_RATIO = (
    0.99262926152045,
    -0.006733810374442964,
    0.014762127799713195,
    -0.0011587196103482616,
    6.782185750134115e-05,
    0.0005248680156086439,
    -0.0001497482156903793,
    3.4771329591527305e-05,
    3.648110681279087e-05,
    -2.2646120672270495e-05,
    9.553967362702486e-06,
)
_TOP_Y = 0.6
_DEAD = 1000.0


def as_tensors(*values: float | Tensor) -> tuple[Tensor, ...]:
    """The arguments as float64 tensors of one common shape, on the device of the first tensor among them."""
    device = next((v.device for v in values if isinstance(v, Tensor)), None)
    tensors = [torch.as_tensor(v, dtype=torch.float64, device=device) for v in values]
    return tuple(torch.broadcast_tensors(*tensors))


def mills(z: Tensor) -> Tensor:
    """Mills' ratio `N(-z) / n(z)` of the standard normal law.

    Example:
        >>> round(float(mills(torch.tensor(0.0, dtype=torch.float64))), 12)
        1.253314137316
    """
    ratio: Tensor = torch.special.erfcx(z * SQRT_HALF)
    return ratio * (0.5 * SQRT_TWO_PI)


def _difference_series(a: Tensor, tau: Tensor) -> Tensor:
    # M(a - tau) - M(a + tau) = 2 sum tau^n / n! m_n over odd n, m_n = int_0^inf u^n exp(-u^2/2 - a u) du > 0.
    # g_n = m_n / (n m_{n-1}) obeys g_n = 1 / (a + (n + 1) g_{n+1}) with g_0 = m_0: downwards it is stable and free of
    # subtractions. Two levels at a time: with d = a + (k + 1) g_{k+1}, g_k g_{k-1} = 1 / (a d + k) and
    # g_{k-1} = d g_k g_{k-1}.
    root = torch.sqrt(a * a + (4.0 * _SERIES_TOP + 1.0))
    y = torch.clamp(a / root, max=_TOP_Y)
    g = torch.full_like(a, _TOP_RATIO[-1])
    for c in reversed(_TOP_RATIO[:-1]):
        g.mul_(y).add_(c)
    g.mul_(2.0).div_(root.add_(a))
    square = tau * tau
    # the top pair: g_16 g_17
    lower = torch.add(a, g, alpha=_SERIES_TOP).reciprocal_()
    total = g.mul_(lower).mul_(square).add_(1.0)
    g = lower
    for k in range(_SERIES_TOP - 2, 0, -2):
        d = torch.add(a, g, alpha=k + 1)
        pair = (a * d).add_(k).reciprocal_()
        g = d.mul_(pair)
        total = total.mul_(pair.mul_(square)).add_(1.0) if k > 1 else total.mul_(pair)
    return total.mul_(tau).mul_(2.0)


def mills_difference(a: Tensor, tau: Tensor) -> Tensor:
    """`M(a - tau) - M(a + tau)` for `a, tau >= 0` to a few units of rounding: price over vega in total volatility.

    Not differentiable: it works in place. Infinite where `a - tau < -37`.
    """
    series = (tau < _SERIES_TAU) | (tau < _SERIES_TAU_PER_A * a)
    if bool(series.all()):
        return _difference_series(a, tau)
    direct = mills(a - tau) - mills(a + tau)
    return torch.where(series, _difference_series(a, tau), direct) if bool(series.any()) else direct


def _beta_value(x: Tensor, s: Tensor) -> Tensor:
    live = (s > 0.0) & (x < _DEAD * s)
    safe = torch.where(live, s, 1.0)
    tau = 0.5 * safe
    a = torch.where(live, x / safe, 0.0)
    d = a - tau
    density = norm_pdf(d)
    wing = (d >= 0.0) | (tau < _SERIES_TAU)
    if bool(wing.all()):
        price = density * mills_difference(a, tau)
    else:
        body = 0.5 * torch.special.erfc(d * SQRT_HALF) - density * mills(a + tau)
        # the wing form overflows where it is not used
        price = torch.where(wing, density * mills_difference(a, torch.where(wing, tau, 0.5)), body)
    beta = torch.where(live, price, 0.0)
    return torch.where((s >= 0.0) & (x >= 0.0), beta, torch.nan)


def _beta_slopes(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
    # d beta / dX = -n(d) M(a + tau), d beta / ds = n(d), with d = a - tau: no differences, so they keep their digits
    # in the wings and can be differentiated again. At s = 0 they take the limit and count as constants.
    live = (s > 0.0) & (x < _DEAD * s)
    safe = torch.where(live, s, 1.0)
    a = torch.where(live, x / safe, 0.0)
    tau = torch.where(live, 0.5 * safe, 0.0)
    density = norm_pdf(a - tau) * (live | (x == 0.0))
    return -density * mills(a + tau), density


class _Beta(torch.autograd.Function):
    """`beta(X, s)` with its analytic derivatives, in reverse and forward mode and under vmap."""

    @staticmethod
    def forward(x: Tensor, s: Tensor) -> Tensor:
        return _beta_value(x, s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        by_x, by_s = _beta_slopes(*ctx.saved_tensors)
        return grad * by_x, grad * by_s

    @staticmethod
    def jvp(ctx: Any, dx: Tensor, ds: Tensor) -> Tensor:
        by_x, by_s = _beta_slopes(*ctx.saved_tensors)
        return by_x * dx + by_s * ds

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        return normalised_price(*batch_first(in_dims, args)), 0


def normalised_price(x: Tensor, s: Tensor) -> Tensor:
    """`beta(X, s)`, the out-of-the-money price over `DF min(F, K)`, for `X = |ln F/K|` and total volatility `s`.

    Example:
        >>> round(float(normalised_price(torch.zeros(()).double(), torch.ones(()).double())), 12)
        0.382924922548
    """
    beta: Tensor = _beta_value(x, s) if constant(x, s) else _Beta.apply(x, s)  # type: ignore[no-untyped-call]
    return beta


def batch_first(in_dims: tuple[int | None, ...], args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Elementwise arguments of a vmap rule with their batch axis in front, broadcast to one shape."""
    moved = (v.unsqueeze(0) if dim is None else v.movedim(dim, 0) for v, dim in zip(args, in_dims, strict=True))
    return tuple(torch.broadcast_tensors(*moved))


def log_moneyness(numerator: Tensor, denominator: Tensor) -> Tensor:
    """`log(numerator / denominator)`, accurate in relative terms also where the two are nearly equal.

    Example:
        >>> one = torch.tensor(1.0, dtype=torch.float64)
        >>> float(log_moneyness(one + 2.0**-40, one)) * 2.0**40
        0.9999999999995453
    """
    gap = (numerator - denominator) / denominator
    near = gap.abs() < 0.5
    return torch.where(
        near,
        torch.log1p(torch.where(near, gap, 0.0)),
        torch.log(numerator / denominator),
    )


def _sqrt_or_zero(t: Tensor) -> Tensor:
    positive = t > 0.0
    root = torch.sqrt(torch.where(positive, t, 1.0))
    return torch.where(positive, root, torch.where(t == 0.0, 0.0, torch.nan))


def black_price(
    forward: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    vol: float | Tensor,
    discount_factor: float | Tensor = 1.0,
    is_call: bool | Tensor = True,
) -> Tensor:
    """Discounted Black (1976) price of a European option.

    `DF [F N(d1) - K N(d2)]` for a call, `DF [K N(-d2) - F N(-d1)]` for a put, `d1,2 = ln(F/K)/s +- s/2`,
    `s = vol sqrt(t)`.

    The out-of-the-money price keeps its relative precision down to underflow (about 1e-300), for any total volatility;
    the in-the-money price is intrinsic plus that. Arguments broadcast and are computed in float64. Differentiable in
    all arguments to any order, in reverse and forward mode; at `t = 0` or `vol = 0` the price is intrinsic, its first
    derivatives are the one-sided limits (delta 1/2 at the money) with 0 in place of infinite ones, and second
    derivatives are 0 there.

    Valid for `forward > 0`, `strike > 0`, `t >= 0`, `vol >= 0`; anything else, NaN included, gives NaN.

    Reference: F. Black, The pricing of commodity contracts, J. Financial Economics 3 (1976); the scaled form is that
    of P. Jaeckel, Let's be rational, Wilmott (2015).

    Example:
        >>> round(float(black_price(100.0, 120.0, 0.5, 0.25, discount_factor=0.98)), 10)
        1.4851990033
        >>> float(black_price(100.0, 300.0, 0.01, 0.3)) < 1e-290
        True
    """
    f, k, t, vol, df = as_tensors(forward, strike, t, vol, discount_factor)
    call = torch.as_tensor(is_call, device=f.device)
    call_is_otm = f <= k
    gap = torch.where(call_is_otm, k - f, f - k)
    x = log_moneyness(torch.where(call_is_otm, k, f), torch.where(call_is_otm, f, k))
    beta = normalised_price(x, vol * _sqrt_or_zero(t))
    return df * (torch.where(call_is_otm, f, k) * beta + gap * (call_is_otm != call))


def black_vega(
    forward: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    vol: float | Tensor,
    discount_factor: float | Tensor = 1.0,
) -> Tensor:
    """Discounted Black vega `DF F n(d1) sqrt(t)`: change of price per 1.00 of volatility, the same for call and put.

    Arguments, domain and precision as for `black_price`, whose derivative in `vol` it is.

    Example:
        >>> round(float(black_vega(100.0, 100.0, 1.0, 0.2)), 6)
        39.695255
    """
    f, k, t, vol, df = as_tensors(forward, strike, t, vol, discount_factor)
    root = _sqrt_or_zero(t)
    x = log_moneyness(torch.maximum(f, k), torch.minimum(f, k))
    _, slope = _beta_slopes(x, vol * root)
    return df * torch.minimum(f, k) * slope * root
