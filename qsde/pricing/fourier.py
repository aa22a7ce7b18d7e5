"""European options under any model with a characteristic function, by quadrature that checks its own error.

Two contours serve two needs. The first, Lewis (2001) at `Re z = 1/2` with a Black-Scholes control variate, shares its
nodes among all strikes of an expiry and is exact to about 1e-15 of `sqrt(F K)`. Options worth so little that this is
not enough *relative* precision are priced again, each on the contour through its own saddle point (Lord and Kahl
2007), where the integrand does not cancel. Both use the trapezoidal rule after a sinh map, which converges
exponentially; the difference to the rule with every second node measures the error, and nodes are doubled or the range
widened until it is small enough.
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.black import black_price
from qsde.market.implied_vol import implied_vol
from qsde.models.base import Model

Number = float | Tensor

#: Bytes of the largest temporary: rows are priced in chunks that stay below.
_CHUNK_BYTES = 1 << 28
#: Accuracy of the first contour in units of sqrt(F K).
_ABSOLUTE = 1e-15
#: Rounding of the second contour, relative.
_RELATIVE = 1e-13
#: Nodes reach this many standard deviations' inverses at first: a Gaussian needs 9, exponential tails some tens.
_REACH = 50.0
#: The rule with every second node may differ by this much: its error is about the square root of that of the full rule.
_GAP = 1e-9
#: Integrand at the last node, times the node: what the cut-off tail may amount to.
_TAIL = 1e-16
#: Slopes `d Re z / d Im z` of the far contour that are tried, and the fall of the integrand that ends it.
_TILTS, _LOG_EPS = (0.0, 0.25, 0.5, 1.0), 38.0


@dataclass(frozen=True)
class Fourier:
    """Settings of the quadrature.

    Attributes:
        tolerance: relative error asked for; options cheaper than `1e-15 sqrt(F K) / tolerance` get their own contour.
        nodes: nodes of the first attempt.
        max_nodes: nodes beyond which the attempt is given up and a NumericsError raised.
    """

    tolerance: float = 1e-10
    nodes: int = 96
    max_nodes: int = 1 << 14


@dataclass(frozen=True)
class FourierPrice:
    """Prices and the estimated absolute error of each, both discounted, in the currency of the strike."""

    value: Tensor
    error: Tensor


def price_european(
    model: Model,
    strike: Number,
    t: Number,
    forward: Number,
    discount_factor: Number = 1.0,
    is_call: bool | Tensor = True,
    engine: Fourier | None = None,
) -> FourierPrice:
    """Prices of European calls and puts: parameter sets x expiries x strikes in one call.

    Differentiable (to any order) with respect to the parameters, strike, t, forward and discount factor.

    Args:
        model: any model; its parameters may have leading batch axes `[*batch]`.
        strike: `[*batch, E, K]`, or anything that broadcasts to it, such as `[K]`; a scalar drops the axis K.
        t: years to expiry, `[*batch, E]`; a scalar drops the axis E.
        forward: forward to each expiry, broadcasts to `[*batch, E]`.
        discount_factor: discount factor to each expiry, broadcasts to `[*batch, E]`.
        is_call: call or put, a bool or a tensor that broadcasts like `strike`.
        engine: quadrature settings.

    Returns:
        Prices `[*batch, E, K]` and their error estimates.

    Raises:
        InputError: a strike, expiry or forward is not positive and finite.
        NumericsError: the quadrature did not reach its tolerance; the message names the model.

    References:
        Lewis (2001), "A simple option formula for general jump-diffusion and other exponential Levy processes";
        Lord and Kahl (2007), "Optimal Fourier inversion in semi-analytical option pricing".

    Example:
        >>> from qsde.models import Heston
        >>> m = Heston(v0=0.04, kappa=4.0, theta=0.25, sigma=1.0, rho=-0.5)
        >>> F, D = 100 * math.exp(0.01 - 0.02), math.exp(-0.01)
        >>> round(float(price_european(m, strike=100.0, t=1.0, forward=F, discount_factor=D).value), 10)
        16.070154917
    """
    engine = engine or Fourier()
    strike, t, forward, discount_factor = (_tensor(x) for x in (strike, t, forward, discount_factor))
    for name, x in (("strike", strike), ("t", t), ("forward", forward), ("discount_factor", discount_factor)):
        if not bool(((x > 0) & torch.isfinite(x)).all()):
            raise InputError(f"{name} must be positive and finite; smallest entry {x.min().item()}")
    no_expiry_axis, no_strike_axis = t.dim() == 0, strike.dim() == 0
    batch = model.batch_shape
    row_shape = torch.broadcast_shapes((*batch, 1), t.shape, forward.shape, discount_factor.shape, strike.shape[:-1])
    n_strikes = strike.shape[-1] if strike.dim() else 1
    grid = (*row_shape, n_strikes)

    rows = model.map(lambda p: p.unsqueeze(-1).expand(row_shape).reshape(-1, 1))
    forward_, df_ = (x.expand(row_shape).unsqueeze(-1) for x in (forward, discount_factor))
    k = torch.log(strike / forward_).expand(grid)
    ratio, error = _otm_ratio(rows, t.expand(row_shape).reshape(-1, 1), k.reshape(-1, n_strikes), engine)
    scale = torch.sqrt(strike * forward_)
    otm, error = ratio.reshape(grid) * scale * df_, error.reshape(grid) * scale * df_

    call = torch.as_tensor(is_call, device=otm.device)
    moneyness = torch.where(call, forward_ - strike, strike - forward_)
    in_the_money = torch.where(call, k < 0, k >= 0)
    value = otm + torch.where(in_the_money, moneyness * df_, torch.zeros_like(otm))
    error = error + 4e-16 * value.detach().abs()
    if no_strike_axis:
        value, error = value.squeeze(-1), error.squeeze(-1)
    if no_expiry_axis:
        axis = -1 if no_strike_axis else -2
        value, error = value.squeeze(axis), error.squeeze(axis)
    return FourierPrice(value, error)


def model_vols(model: Model, t: Number, strike: Number, forward: Number, engine: Fourier | None = None) -> Tensor:
    """Implied volatilities of a model on a grid; shapes as in `price_european`. 0 where a price has no time value.

    Example:
        >>> from qsde.models import BlackScholes
        >>> model_vols(BlackScholes(0.2), t=0.5, strike=torch.tensor([80.0, 120.0]), forward=100.0)
        tensor([0.2000, 0.2000], dtype=torch.float64)
    """
    strike, t, forward = _tensor(strike), _tensor(t), _tensor(forward)
    row_forward, row_t = (x.unsqueeze(-1) if strike.dim() and x.dim() else x for x in (forward, t))
    is_call = strike >= row_forward
    price = price_european(model, strike, t, forward, 1.0, is_call, engine).value
    return implied_vol(price, row_forward, strike, row_t, 1.0, is_call).vol


def _tensor(x: Number) -> Tensor:
    return x if isinstance(x, Tensor) and x.dtype == torch.float64 else torch.as_tensor(x, dtype=torch.float64)


def _otm_ratio(model: Model, t: Tensor, k: Tensor, engine: Fourier) -> tuple[Tensor, Tensor]:
    """Out-of-the-money prices over `sqrt(F K)` for rows of parameters [R, 1], expiries [R, 1], log strikes [R, K]."""
    rows_at_once = max(1, _CHUNK_BYTES // (k.shape[1] * engine.nodes * 32))
    if k.shape[0] > rows_at_once:
        cuts = [slice(i, i + rows_at_once) for i in range(0, k.shape[0], rows_at_once)]
        parts = [_otm_ratio(model.map(operator.itemgetter(cut)), t[cut], k[cut], engine) for cut in cuts]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    with torch.no_grad():
        scale, reach = lewis_range(model.total_variance(t), k.abs().amax(-1, keepdim=True))
    ratio, error = _refine(_Lewis(), scale, reach, model, t, k, engine, absolute=True)
    cheap = (ratio.detach() < _ABSOLUTE / engine.tolerance) & (k != 0)
    if bool(cheap.any()):
        row, column = torch.nonzero(cheap, as_tuple=True)
        one = model.map(lambda p: p[row])
        t_one, k_one = t[row], k[row, column].unsqueeze(-1)
        hyperbola = _saddle(one, t_one, k_one)
        fine, fine_error = _refine(
            hyperbola, hyperbola.width, hyperbola.reach, one, t_one, k_one, engine, absolute=False
        )  # fmt: skip
        ratio = ratio.index_put((row, column), fine.squeeze(-1))
        error = error.index_put((row, column), fine_error.squeeze(-1))
    return ratio, error


def _refine(
    contour: _Contour,
    scale: Tensor,
    reach: Tensor,
    model: Model,
    t: Tensor,
    k: Tensor,
    engine: Fourier,
    absolute: bool,
    nodes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Evaluates a contour, again with more nodes (and further out where the tail was cut) for rows that need it."""
    nodes = nodes or engine.nodes
    y, weight = sinh_nodes(scale, reach, nodes)
    value, difference, tail = contour(y, weight, model, t, k)
    unit = torch.ones_like(value) if absolute else value.detach().abs().clamp(min=1e-300)
    gap = difference / unit
    error = gap**1.5 + tail / unit + (_ABSOLUTE if absolute else _RELATIVE)
    with torch.no_grad():
        missed = (gap > _GAP).any(-1, keepdim=True)
        cut = (tail / unit > _TAIL).any(-1, keepdim=True)
        again = (missed | cut | ~torch.isfinite(value).all(-1, keepdim=True)).squeeze(-1)
    if not bool(again.any()):
        return value, error * unit
    if 2 * nodes > engine.max_nodes:
        raise NumericsError(
            f"{model.name}: {int(again.sum())} slices did not converge with {nodes} Fourier nodes (t from "
            f"{t[again].min().item():.3g} years); the characteristic function hardly decays: is there any diffusion?"
        )
    bad = torch.nonzero(again).squeeze(-1)
    fine, fine_error = _refine(
        contour.rows(bad), scale[bad], torch.where(cut, reach * 8, reach)[bad], model.map(lambda p: p[bad]),
        t[bad], k[bad], engine, absolute, 2 * nodes,
    )  # fmt: skip
    return value.index_put((bad,), fine), (error * unit).index_put((bad,), fine_error)


def sinh_nodes(scale: Tensor, reach: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Trapezoidal nodes and weights on [0, scale * reach] after `y = scale sinh(tau)`: [R, n] each."""
    step = torch.asinh(reach) / n
    tau = step * torch.arange(n, dtype=scale.dtype, device=scale.device)
    grow = torch.exp(tau)
    weight = scale * step * 0.5 * (grow + 1 / grow)
    weight[..., 0] *= 0.5
    return scale * 0.5 * (grow - 1 / grow), weight


def lewis_range(variance: Tensor, farthest: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and reach of the sinh map for an expiry of this total variance and largest `|k|`.

    Nodes are dense near 0 where heavy tails show, and even further out the more standard deviations away a strike is.
    """
    deviation = torch.sqrt(variance.clamp(min=1e-14))
    stretch = (farthest / (3 * deviation)).clamp(2.0, 8.0)
    return stretch / deviation, _REACH / stretch


class _Contour(Protocol):
    """A path of integration: from nodes to values, the difference to the half rule, and a bound on the tail.

    The bound is the size of the integrand at the last node times that node.
    """

    def rows(self, rows: Tensor) -> _Contour:
        """The contour of some rows."""

    def __call__(self, y: Tensor, weight: Tensor, model: Model, t: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Integrates over nodes [R, n] for rows of parameters [R, 1], t [R, 1] and k [R, K]: three of [R, K]."""


@dataclass(frozen=True)
class _Lewis:
    """Lewis (2001) eq. 3.11 minus its own Black-Scholes case, the variance chosen to match at the first node."""

    def rows(self, rows: Tensor) -> _Lewis:
        return self

    def __call__(self, y: Tensor, weight: Tensor, model: Model, t: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        phi = torch.exp(model.log_cf(y - 0.5j, t))
        q = y * y + 0.25
        variance = (-8 * torch.log(phi[:, :1].real.detach())).clamp(min=1e-30)
        psi = (torch.exp(-0.5 * q * variance) - phi) * (weight / (math.pi * q))
        angle = k.unsqueeze(-1) * y.unsqueeze(-2)
        half_rule = torch.zeros_like(y)
        half_rule[:, ::2] = 2.0
        wave = torch.cat([torch.cos(angle), torch.sin(angle)], -1)
        parts = torch.cat([psi.real, psi.imag], -1)
        correction = (wave @ parts.unsqueeze(-1)).squeeze(-1)
        with torch.no_grad():
            coarse = (wave @ (parts * half_rule.repeat(1, 2)).unsqueeze(-1)).squeeze(-1)
            tail = psi[:, -1:].abs() / weight[:, -1:] * y[:, -1:]
        smooth = black_price(torch.exp(-0.5 * k), torch.exp(0.5 * k), 1.0, torch.sqrt(variance), 1.0, k >= 0)
        return smooth + correction, (correction - coarse).abs().detach(), tail.expand_as(correction)


@dataclass(frozen=True)
class _Hyperbola:
    """`Re z = p + tilt (sqrt(width^2 + y^2) - width)`, `Im z = y` for the Bromwich integral of one option per row.

    The value is `1/(2 pi i) int E[exp(z x)] e^{(1/2 - z) k} / (z (z - 1)) dz`. Bending the line towards the side where
    `e^{-z k}` falls turns its oscillation into decay; the singularities of the models all lie on the real axis.
    """

    p: Tensor
    tilt: Tensor
    width: Tensor
    reach: Tensor

    def rows(self, rows: Tensor) -> _Hyperbola:
        return _Hyperbola(self.p[rows], self.tilt[rows], self.width[rows], self.reach[rows])

    def points(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Z and `dz/dy / i`."""
        root = torch.sqrt(self.width * self.width + y * y)
        z = torch.complex(self.p + self.tilt * (root - self.width), y)
        return z, torch.complex(torch.ones_like(y), -self.tilt * y / root)

    def log_integrand(self, z: Tensor, model: Model, t: Tensor, k: Tensor) -> Tensor:
        """Logarithm of `E[exp(z x)] e^{(1/2 - z) k} / (z (z - 1))`."""
        return model.log_cf(-1j * z, t) + (0.5 - z) * k - torch.log(z * (z - 1))

    def __call__(self, y: Tensor, weight: Tensor, model: Model, t: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, slope = self.points(y)
        term = torch.exp(self.log_integrand(z, model, t, k)) * slope * (weight / math.pi)
        value = term.real.sum(-1, keepdim=True)
        with torch.no_grad():
            coarse = 2 * term.real[:, ::2].sum(-1, keepdim=True)
            tail = term[:, -1:].abs() / weight[:, -1:] * y[:, -1:]
        return value, (value - coarse).abs().detach(), tail


@torch.no_grad()
def _saddle(model: Model, t: Tensor, k: Tensor) -> _Hyperbola:
    """The contour through the real `p` where the integrand is smallest, bent as far as it does not grow."""
    lower, upper = model.moment_range(t)
    call = k > 0
    room = torch.where(call, upper - 1, -lower).expand_as(k).clamp(max=1e7)
    # distances from the pole at 1 (calls) or 0 (puts), as logits of the share of the room that is used
    logit = torch.linspace(-30.0, 12.0, 64, dtype=k.dtype, device=k.device).expand(k.shape[0], 64)
    for _ in range(3):
        distance = room * torch.sigmoid(logit)
        p = torch.where(call, 1 + distance, -distance)
        height = model.log_cf(-1j * p, t).real + (0.5 - p) * k - torch.log(distance * (1 + distance))
        height = torch.where(torch.isfinite(height), height, torch.full_like(height, torch.inf))
        best = height.argmin(-1, keepdim=True)
        spacing = logit[:, 1:2] - logit[:, :1]
        logit = logit.gather(-1, best) + spacing * torch.linspace(-1.0, 1.0, 64, dtype=k.dtype, device=k.device)
    p, peak = p.gather(-1, best), height.gather(-1, best)
    y = torch.logspace(-5, 9, 141, dtype=k.dtype, device=k.device).expand(k.shape[0], 141)

    def fall(line: _Hyperbola) -> Tensor:
        return peak - line.log_integrand(line.points(y)[0], model, t, k).real

    straight = _Hyperbola(p, torch.zeros_like(p), torch.ones_like(p), torch.ones_like(p))
    width = y.gather(-1, _first(fall(straight) > 1))
    chosen = replace(straight, width=width, reach=torch.full_like(p, torch.inf))
    for tilt in _TILTS:
        line = replace(chosen, tilt=torch.where(call, tilt, -tilt).to(p))
        drop = fall(line)
        end = y.gather(-1, _first(drop > _LOG_EPS)) / width
        usable = (drop > -0.5).all(-1, keepdim=True) & (end < 0.8 * chosen.reach)
        chosen = replace(
            chosen,
            tilt=torch.where(usable, line.tilt, chosen.tilt),
            reach=torch.where(usable, end, chosen.reach),
        )
    return replace(chosen, reach=torch.where(torch.isfinite(chosen.reach), 1.3 * chosen.reach, _REACH))


def _first(condition: Tensor) -> Tensor:
    """Index of the first true entry of each row (the last index if there is none): [R, 1]."""
    last = condition.shape[-1] - 1
    return torch.where(condition.any(-1, keepdim=True), condition.to(torch.int8).argmax(-1, keepdim=True), last)
