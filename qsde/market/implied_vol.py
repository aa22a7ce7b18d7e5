"""Black implied volatility: vectorised, to the precision the price allows, differentiable, never a silent wrong number.

A quote is reduced to `X = |ln F/K|` and the normalised out-of-the-money time value `beta` in (0, 1); the total
volatility `s = sigma sqrt(t)` then solves `beta(X, s) = beta` (see `qsde.market.black`). The guess inverts a normal
(Bachelier) price corrected for the lognormal skew, or a normal quantile for large prices; third-order Householder steps
inside a bracket refine it, on `ln beta` below and on `ln(1 - beta)` above, both of which bend little in `s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from qsde.errors import QuoteError, VolStatus
from qsde.market.black import SQRT_TWO_PI, as_tensors, batch_first, log_moneyness, mills, mills_difference

_UPPER = 0.4
_TINY_BETA = 2.0**-1022
_ITM_ROUNDING = 4.0 * 2.0**-52
# The order of convergence is four: a last step of 1e-4 leaves about 1e-16.
_LAST_STEP = 1e-4
_MAX_STEPS = 80
_ROUGH_ABOVE = 1e-3
# A warm start that is not there after this many steps was a bad one: the quote starts again from its own guess.
_WARM_STEPS = 4
# Working arrays stay in the cache and memory does not grow with the number of quotes.
_BLOCK = 1 << 15
# (ln(1+z)/a)^2 - ln(1+z)/2 as a polynomial in ln(1 + ln(1+z)), where z = a / (n(a) - a N(-a)): fitted to 0.2 % in a.
_NORMAL_FIT = (6.286088945340374, -0.39382572203061167, -0.5424714553064476, 0.20133472297914767, -0.01722689790589607)


@dataclass(frozen=True)
class ImpliedVol:
    """Implied volatilities and how each inversion ended.

    `vol` is float64 and 0.0, with zero gradient, wherever `status` (int64 codes of `VolStatus`) is not `OK`.
    """

    vol: Tensor
    status: Tensor

    @property
    def ok(self) -> Tensor:
        """Boolean tensor: which quotes have an implied volatility."""
        return self.status == VolStatus.OK

    def messages(self) -> list[str]:
        """One sentence per quote, in the order of the flattened tensor."""
        return [VolStatus(code).message for code in self.status.flatten().tolist()]

    def require(self) -> Tensor:
        """The volatilities, or `QuoteError` naming the first few quotes that have none."""
        bad = (~self.ok).flatten().nonzero().flatten().tolist()
        if not bad:
            return self.vol
        messages = self.messages()
        lines = "; ".join(f"quote {i}: {messages[i]}" for i in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise QuoteError(f"{len(bad)} of {self.status.numel()} quotes have no implied volatility: {lines}{more}")


def implied_vol(
    price: float | Tensor,
    forward: float | Tensor,
    strike: float | Tensor,
    t: float | Tensor,
    discount_factor: float | Tensor = 1.0,
    is_call: bool | Tensor = True,
    guess: float | Tensor | None = None,
) -> ImpliedVol:
    """Black implied volatility: the `sigma` with `black_price(forward, strike, t, sigma, ...) == price`.

    Arguments broadcast and are computed in float64. `guess` is a volatility to start from (last calibration step, say);
    it saves time and changes the result by rounding only; entries that are not positive and finite are ignored.

    Precision: the error is of the size of the rounding of the inputs,
    `|d sigma| <= 8 eps (sigma + |price / vega| + |ln(F/K) d sigma / d ln(F/K)|)` for an out-of-the-money price. An
    in-the-money price is first reduced to its time value, whose error is that of the price: deep in the money little or
    nothing is left of it, and a time value within `4 eps` of intrinsic counts as none.

    Status: `BAD_INPUT` where an argument is not finite, or one other than the price is not positive; `AT_INTRINSIC`,
    `BELOW_INTRINSIC`, `ABOVE_MAXIMUM` where no volatility gives the price. A time value under 2e-308 of
    `min(F, K)` counts as none. `NOT_CONVERGED` is not known to happen.

    Derivatives with respect to price, forward, strike, t and discount factor are the exact ones of the inverse
    function, `d sigma / d price = 1 / vega` and so on, to any order, in reverse and forward mode. For prices under
    about 1e-150 the second derivatives with respect to the price itself leave the float64 range and come out infinite.

    Reference: the normalisation and the use of Householder steps follow P. Jaeckel, Let's be rational, Wilmott (2015).

    Example:
        >>> from qsde.market.black import black_price
        >>> quotes = black_price(100.0, torch.tensor([80.0, 100.0, 150.0]), 0.5, 0.2)
        >>> implied_vol(quotes, 100.0, torch.tensor([80.0, 100.0, 150.0]), 0.5).vol
        tensor([0.2000, 0.2000, 0.2000], dtype=torch.float64)
        >>> implied_vol(101.0, 100.0, 90.0, 0.5).messages()[0][:33]
        'price is at or above the no-arbit'
    """
    p, f, k, t, df = as_tensors(price, forward, strike, t, discount_factor)
    call = torch.as_tensor(is_call, device=p.device)
    valid = torch.isfinite(p + f + k + t + df) & (torch.minimum(torch.minimum(f, k), torch.minimum(t, df)) > 0.0)
    all_valid = bool(valid.all())
    if not all_valid:
        p, f, k, t, df = (torch.where(valid, v, 1.0) for v in (p, f, k, t, df))
    call_is_otm = f <= k
    low, high = torch.where(call_is_otm, f, k), torch.where(call_is_otm, k, f)
    intrinsic = (high - low) * (call_is_otm != call)
    beta, x = (p / df - intrinsic) / low, log_moneyness(high, low)
    status = _status(beta.detach(), (intrinsic / low).detach())
    if not all_valid:
        status = torch.where(valid, status, int(VolStatus.BAD_INPUT))
    ok = status == VolStatus.OK
    all_ok = bool(ok.all())
    if not all_ok:
        beta, x = torch.where(ok, beta, 0.5), torch.where(ok, x, 0.0)
    root = torch.sqrt(t)
    start = None if guess is None else torch.as_tensor(guess, dtype=torch.float64, device=p.device) * root.detach()
    solved, converged = _solve(x.detach(), beta.detach(), start)
    vol = _total_vol(beta, x, solved) / root
    if all_ok and bool(converged.all()):
        return ImpliedVol(vol=vol, status=status)
    status = torch.where(ok & ~converged, int(VolStatus.NOT_CONVERGED), status)
    return ImpliedVol(vol=torch.where(status == VolStatus.OK, vol, 0.0), status=status)


def _status(beta: Tensor, intrinsic: Tensor) -> Tensor:
    noise = _ITM_ROUNDING * intrinsic
    status = torch.zeros_like(beta, dtype=torch.int64)
    fine = (beta > torch.clamp(noise, min=_TINY_BETA)) & (beta < 1.0)
    if bool(fine.all()):
        return status
    status = torch.where(fine, status, int(VolStatus.AT_INTRINSIC))
    status = torch.where(beta < -noise, int(VolStatus.BELOW_INTRINSIC), status)
    return torch.where(beta >= 1.0, int(VolStatus.ABOVE_MAXIMUM), status)


class _TotalVol(torch.autograd.Function):
    """The solved total volatility as a function of `(beta, X)`, with the derivatives of the inverse function.

    `ds = d beta / n(d) + M(e) dX` with `d = X/s - s/2`, `e = X/s + s/2`: positive terms, finite for every normal
    `beta`. They are differentiable in `X` and in `s` itself, hence any order.
    """

    @staticmethod
    def forward(beta: Tensor, x: Tensor, solved: Tensor) -> Tensor:
        return solved.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1], output)
        ctx.save_for_forward(inputs[1], output)

    @staticmethod
    def _slopes(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        d = x / s - 0.5 * s
        return SQRT_TWO_PI * torch.exp(0.5 * d * d), mills(d + s)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        by_beta, by_x = _TotalVol._slopes(*ctx.saved_tensors)
        return grad * by_beta, grad * by_x, None

    @staticmethod
    def jvp(ctx: Any, d_beta: Tensor, dx: Tensor, _: Any) -> Tensor:
        by_beta, by_x = _TotalVol._slopes(*ctx.saved_tensors)
        return by_beta * d_beta + by_x * dx

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *args: Tensor) -> tuple[Tensor, int]:
        return _total_vol(*batch_first(in_dims, args)), 0


def _total_vol(beta: Tensor, x: Tensor, solved: Tensor) -> Tensor:
    s: Tensor = _TotalVol.apply(beta, x, solved)  # type: ignore[no-untyped-call]
    return s


@torch.no_grad()
def _solve(x: Tensor, beta: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    shape = beta.shape
    x, beta = x.reshape(-1), beta.reshape(-1)
    starts = None if start is None else start.broadcast_to(shape).reshape(-1)
    s, done = torch.empty_like(beta), torch.empty_like(beta, dtype=torch.bool)
    for i in range(0, beta.numel(), _BLOCK):
        part = slice(i, i + _BLOCK)
        s[part], done[part] = _solve_block(x[part], beta[part], None if starts is None else starts[part])
    return s.reshape(shape), done.reshape(shape)


def _solve_block(x: Tensor, beta: Tensor, start: Tensor | None) -> tuple[Tensor, Tensor]:
    if start is None:
        return _householder(x, beta, _guess(x, beta), _MAX_STEPS, rough=True)
    s, done = _householder(x, beta, start, _WARM_STEPS)
    if not bool(done.all()):
        left = (~done).nonzero().flatten()
        s[left], done[left] = _solve_block(x[left], beta[left], None)
    return s, done


def _guess(x: Tensor, beta: Tensor) -> Tensor:
    value = torch.clamp(beta * torch.exp(-0.5 * x), min=1e-300)
    s = _normal_total_vol(x, value)
    # exact factor between the lognormal and the normal price, to first order in (s/2)^2
    square = 0.25 * s * s
    s = _normal_total_vol(x, value * torch.exp(0.5 * square) / (1.0 + square / (3.0 + (x / s) ** 2)))
    upper = beta > _UPPER
    return torch.where(upper, _upper_guess(x, torch.where(upper, beta, 0.5)), s) if bool(upper.any()) else s


def _normal_total_vol(x: Tensor, value: Tensor) -> Tensor:
    z = torch.clamp(x / value, min=1e-16, max=1e306)
    log = torch.log1p(z)
    w = torch.log1p(log)
    p = torch.full_like(w, _NORMAL_FIT[-1])
    for c in reversed(_NORMAL_FIT[:-1]):
        p.mul_(w).add_(c)
    return value * (z / log) * torch.sqrt(p.add_(log, alpha=0.5))


def _upper_guess(x: Tensor, beta: Tensor) -> Tensor:
    # 1 - beta = N(d) + e^X N(-e), e^2 = d^2 + 2X: the quantile with the ratio of the two terms from a first pass
    rest = 1.0 - beta
    d = torch.special.ndtri(0.5 * rest)
    e = torch.sqrt(d * d + 2.0 * x)
    d = torch.special.ndtri(rest / (1.0 + mills(e) / mills(-d)))
    s: Tensor = torch.sqrt(d * d + 2.0 * x) - d
    return s


def _householder(x: Tensor, beta: Tensor, s: Tensor, max_steps: int, rough: bool = False) -> tuple[Tensor, Tensor]:
    upper = beta > _UPPER
    target = torch.where(upper, 1.0 - beta, beta) * SQRT_TWO_PI
    result, done = s, torch.zeros_like(upper)
    low, high = torch.zeros_like(s), torch.full_like(s, torch.inf)
    if rough and bool((s > _ROUGH_ABOVE).all()):
        # the first step may use the plain difference, a third of the work: it leaves under 1e-10, and no verdict
        s, *_ = _step(x, target, upper, s, low, high, _plain_difference)
    index: Tensor | None = None
    for _ in range(max_steps):
        new, newton, low, high = _step(x, target, upper, s, low, high)
        moved = torch.maximum((new - s).abs(), newton.abs() * s)
        finished = moved <= _LAST_STEP * torch.clamp(s, max=1.0)
        if index is None:
            result, done = new, finished
        else:
            result[index], done[index] = new, finished
        left = int(finished.numel() - finished.sum())
        if left == 0:
            break
        s = new
        if 2 * left < s.numel():
            rest = (~finished).nonzero().flatten()
            index = rest if index is None else index[rest]
            x, target, upper, s, low, high = (v[rest] for v in (x, target, upper, s, low, high))
    return result, done


def _plain_difference(a: Tensor, tau: Tensor) -> Tensor:
    return mills(a - tau) - mills(a + tau)


def _step(
    x: Tensor,
    target: Tensor,
    upper: Tensor,
    s: Tensor,
    low: Tensor,
    high: Tensor,
    difference: Callable[[Tensor, Tensor], Tensor] = mills_difference,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    tau = 0.5 * s
    a = x / s
    d = a - tau
    ratio = difference(a, tau)
    sign: Tensor | float = 1.0
    if bool(upper.any()):
        ratio = torch.where(upper, mills(-d) + mills(a + tau), ratio)
        sign = torch.where(upper, -1.0, 1.0)
    # Newton step on ln beta or ln(1 - beta) as a fraction of s, and the higher derivatives in the same unit: nothing
    # here overflows, however small s is
    newton = sign * (ratio / s) * (torch.log(target / ratio) + 0.5 * d * d)
    slope = sign * s / ratio
    curve = d * (a + tau)
    second = curve - slope
    third = curve * (curve - 3.0 * slope) - 3.0 * a * a - tau * tau + 2.0 * slope * slope
    step = newton * (1.0 + 0.5 * second * newton) / (1.0 + newton * (second + third * newton / 6.0))
    step = torch.where(step * newton > 0.0, step, newton)
    low, high = torch.where(newton > 0.0, s, low), torch.where(newton < 0.0, s, high)
    new = s + s * torch.clamp(step, min=-0.875, max=7.0)
    inside = ((new > low) & (new < high)) | (newton.abs() <= 1e-15)
    return torch.where(inside, new, 0.5 * (low + torch.minimum(high, 2.0 * s))), newton, low, high
