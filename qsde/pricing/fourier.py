"""European options under any model with a characteristic function, by quadrature that checks its own error.

Two contours serve two needs. The first, Lewis (2001) at `Re z = 1/2` with a Black-Scholes control variate, shares its
nodes among all strikes of an expiry and all parameter sets of a batch, and is exact to about 1e-15 of `sqrt(F K)`.
Options worth so little that this is not enough *relative* precision, and slices where it does not converge, are priced
on contours through their own saddle points, bent to where the integrand falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.market.black import normalised_price
from qsde.market.implied_vol import implied_vol
from qsde.models.base import FourierModel, Model, fourier_model
from qsde.numerics import broadcast_shape, one_by_one
from qsde.pricing.contours import (
    ABSOLUTE,
    GAP_POWER,
    Integral,
    Lewis,
    lewis_range,
    nodes_for_ripples,
    nodes_needed,
    refine,
    sinh_nodes,
    through_saddle,
)

Number = float | Tensor

#: Bytes of the largest temporary: larger jobs are priced in pieces.
_CHUNK_BYTES = 1 << 28
#: Nodes beyond which a slice leaves the first contour for the second, and an option the second for the first.
_LEWIS_NODES, _SADDLE_NODES = 1536, 6144
#: Options that need more nodes and that `price_rows` does together.
_AGAIN = 5


@dataclass(frozen=True)
class Fourier:
    """Settings of the quadrature.

    Attributes:
        tolerance: error asked for, in units of a hundredth of `sqrt(F K)`; options cheaper than
            `1e-15 sqrt(F K) / tolerance` get their own contour, where it is relative to the price. The errors returned
            are estimates for each price, whatever was asked for.
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
    model = fourier_model(model)
    strike, t, forward, discount_factor = (to_tensor(x) for x in (strike, t, forward, discount_factor))
    check_positive(strike=strike, t=t, forward=forward, discount_factor=discount_factor)
    no_expiry_axis, no_strike_axis = t.dim() == 0, strike.dim() == 0
    batch = model.batch_shape
    n_strikes = strike.shape[-1] if strike.dim() else 1
    expiries = broadcast_shape(t.shape, forward.shape, strike.shape[:-1], (1,))
    rows = broadcast_shape((*batch, 1), expiries, discount_factor.shape)
    forward_, df_ = forward.unsqueeze(-1), discount_factor.unsqueeze(-1)
    k = torch.log(strike / forward_).expand(*expiries, n_strikes)
    if len(expiries) == 1:  # one grid for all parameter sets: they share the nodes
        shaped = model.map(lambda p: p.expand(batch).reshape(-1, 1, 1)) if batch else model
        ratio, error = _otm_ratio(shaped, t.expand(expiries).unsqueeze(-1), k, engine)
    else:
        shaped = model.map(lambda p: p.unsqueeze(-1).expand(rows).reshape(-1, 1))
        flat_k = k.expand(*rows, n_strikes).reshape(-1, n_strikes)
        ratio, error = _otm_ratio(shaped, t.expand(rows).reshape(-1, 1), flat_k, engine)
    common = (*broadcast_shape((*batch, 1), expiries), n_strikes)
    call = torch.as_tensor(is_call, device=ratio.device)
    value, error = _discounted(ratio.reshape(common), error.reshape(common), k, strike, forward_, df_, call)
    if no_strike_axis:
        value, error = value.squeeze(-1), error.squeeze(-1)
    if no_expiry_axis:
        axis = -1 if no_strike_axis else -2
        value, error = value.squeeze(axis), error.squeeze(axis)
    return FourierPrice(value, error)


@one_by_one()
def price_rows(
    model: Model, strike: Tensor, t: Tensor, forward: Tensor, discount_factor: Tensor, is_call: Tensor,
    engine: Fourier, max_nodes: int | None = None,
) -> tuple[FourierPrice, Tensor]:  # fmt: skip
    """Prices of options that have nothing in common but the kind of their model, by a few passes on the first contour.

    No option has other digits than `price_european` gives it alone on one thread, as long as the numbers of one are
    fewer than `qsde.numerics.FEW` and the rows few (`tests/service/test_shared_integrals`).

    Args:
        model: parameters [R], one set for each option.
        strike: of each option, [R], as all that follow.
        t: years to expiry.
        forward: forward to expiry.
        discount_factor: discount factor to expiry.
        is_call: call or put.
        engine: quadrature settings.
        max_nodes: most nodes of a pass; None is four times those of the first.

    Returns:
        Prices and errors [R], and which of them are final [R]: the others need still more nodes or a contour of their
        own, and are left to `price_european`.

    Example:
        >>> from qsde.models import BlackScholes
        >>> one = torch.ones(2, dtype=torch.float64)
        >>> rows = BlackScholes(0.2 * one), 100 * one, one, 100 * one, one, torch.tensor([True, False])
        >>> found, final = price_rows(*rows, Fourier())
        >>> found.value, final
        (tensor([7.9656, 7.9656], dtype=torch.float64), tensor([True, True]))
    """
    columns = (x.unsqueeze(-1) for x in (strike, t, forward, discount_factor, is_call))
    strike, t, forward, discount_factor, is_call = columns
    k, shaped = torch.log(strike / forward), fourier_model(model).map(lambda p: p.unsqueeze(-1))
    if shaped.gaussian:
        (ratio,), (error,) = _black(shaped, t, k)
        value, error = _discounted(ratio, error, k, strike, forward, discount_factor, is_call)
        return FourierPrice(value.squeeze(-1), error.squeeze(-1)), torch.ones_like(is_call).squeeze(-1)
    first, needed, variance = _first_pass(shaped, t, k, engine)
    ratio, error, (again, cut) = first.value[0], first.error(1.0)[0] + ABSOLUTE, _again(first, needed, engine)
    most = 4 * engine.nodes if max_nodes is None else max_nodes
    for rows in torch.nonzero(again[0]).squeeze(-1).split(_AGAIN):
        value, gap, failed = _lewis_rows(
            shaped, variance, t, k, torch.zeros_like(rows), rows, 2 * engine.nodes, most, _limit(engine),
            wide=cut[0, rows],
        )  # fmt: skip
        ratio, error = ratio.index_put((rows,), value), error.index_put((rows,), gap + ABSOLUTE)
        again = again.index_fill(1, rows, False).index_fill(1, rows[failed], True)
    final = ~(again[0] | _cheap(ratio, k, engine).squeeze(-1))
    value, error = _discounted(ratio, error, k, strike, forward, discount_factor, is_call)
    return FourierPrice(value.squeeze(-1), error.squeeze(-1)), final


def _discounted(
    ratio: Tensor, error: Tensor, k: Tensor, strike: Tensor, forward: Tensor, discount_factor: Tensor, is_call: Tensor
) -> tuple[Tensor, Tensor]:
    """Prices and errors from out-of-the-money ones over `sqrt(F K)`."""
    scale = torch.sqrt(strike * forward) * discount_factor
    otm, error = ratio * scale, error * scale.detach()
    intrinsic = torch.where(is_call, forward - strike, strike - forward) * discount_factor
    value = otm + torch.where((k < 0) == is_call, intrinsic, 0.0)  # in the money: a call at k < 0, a put at k >= 0
    return value, torch.add(error, value.detach().abs(), alpha=4e-16)


def model_vols(model: Model, t: Number, strike: Number, forward: Number, engine: Fourier | None = None) -> Tensor:
    """Implied volatilities of a model on a grid; shapes as in `price_european`. 0 where a price has no time value.

    Example:
        >>> from qsde.models import BlackScholes
        >>> model_vols(BlackScholes(0.2), t=0.5, strike=torch.tensor([80.0, 120.0]), forward=100.0)
        tensor([0.2000, 0.2000], dtype=torch.float64)
    """
    strike, t, forward = to_tensor(strike), to_tensor(t), to_tensor(forward)
    row_forward, row_t = (x.unsqueeze(-1) if strike.dim() and x.dim() else x for x in (forward, t))
    is_call = strike >= row_forward
    price = price_european(model, strike, t, forward, 1.0, is_call, engine).value
    return implied_vol(price, row_forward, strike, row_t, 1.0, is_call).vol


def to_tensor(x: Number) -> Tensor:
    """A float64 tensor."""
    return x if isinstance(x, Tensor) and x.dtype == torch.float64 else torch.as_tensor(x, dtype=torch.float64)


def check_positive(**inputs: Tensor) -> None:
    """Raises InputError, naming the input, unless all entries are positive and finite."""
    for name, x in inputs.items():
        least, most = torch.aminmax(x.detach())
        if not (float(least) > 0 and float(most) < math.inf):
            raise InputError(f"{name} must be positive and finite; got values from {least.item()} to {most.item()}")


def _otm_ratio(model: FourierModel, t: Tensor, k: Tensor, engine: Fourier) -> tuple[Tensor, Tensor]:
    """Out-of-the-money prices over `sqrt(F K)` and their errors, [B, E, K] each.

    Parameters broadcast to [B, E, 1] (or are [E, 1], one set per expiry); t is [E, 1], k is [E, K].
    """
    if model.gaussian:
        return _black(model, t, k)
    n_sets = math.prod(model.batch_shape[:-2])
    if n_sets > 1 and n_sets * t.shape[0] * engine.nodes * 160 > _CHUNK_BYTES:
        pieces = torch.arange(n_sets).tensor_split(2)
        return _joined([_otm_ratio(model.map(lambda p, i=i: p[i]), t, k, engine) for i in pieces], 0)  # type: ignore[misc]
    if t.shape[0] > 1 and k.numel() * engine.nodes * 32 > _CHUNK_BYTES:
        pieces = torch.arange(t.shape[0]).tensor_split(2)
        own = model.batch_shape[-2:-1] == t.shape[:1]
        parts = [(model.map(lambda p, i=i: p[i]) if own else model, t[i], k[i]) for i in pieces]  # type: ignore[misc]
        return _joined([_otm_ratio(*part, engine) for part in parts], 1)
    return _with_own_contours(model, t, k, engine)


def _black(model: FourierModel, t: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The same where log-prices are normal: their variance is known from one value of the characteristic function."""
    u = torch.ones((1, 1), dtype=torch.complex128, device=t.device)
    deviation = torch.sqrt((-2 * model.log_cf(u, t).real).clamp(min=1e-30)).reshape(-1, *t.shape)
    distance = torch.where(k >= 0, k, -k)  # abs has no slope at 0, where a call counts as out of the money
    ratio = normalised_price(*torch.broadcast_tensors(distance, deviation)) * torch.exp(-0.5 * distance)
    moves = 1 + (distance / deviation).square()  # relatively, for a relative move of the variance, but for a factor
    return ratio, 1e-14 * (moves * ratio).detach()


def _joined(parts: list[tuple[Tensor, Tensor]], axis: int) -> tuple[Tensor, Tensor]:
    return torch.cat([p[0] for p in parts], axis), torch.cat([p[1] for p in parts], axis)


def _with_own_contours(model: FourierModel, t: Tensor, k: Tensor, engine: Fourier) -> tuple[Tensor, Tensor]:
    return finish(*_first_pass(model, t, k, engine), model, t, k, engine)


def _first_pass(model: FourierModel, t: Tensor, k: Tensor, engine: Fourier) -> tuple[Integral, Tensor, Tensor]:
    """The first contour with the nodes of a first attempt, the nodes it needs to be trusted, and total variances."""
    with torch.no_grad():
        variance = model.total_variance(t)
        variance = variance.reshape(-1, *t.shape)
        farthest = k.abs().amax(-1, keepdim=True)
        least, most = (variance[0], variance[0]) if len(variance) == 1 else torch.aminmax(variance, dim=0)
        scale, reach = lewis_range(least, most, farthest)
        ripples = nodes_for_ripples(model, t, farthest, reach)
        needed = nodes_needed(least, farthest)
        needed = needed if ripples is None else torch.maximum(needed, ripples)
    return Lewis()(*sinh_nodes(scale, reach, engine.nodes), model, t, k), needed, variance


def _again(first: Integral, needed: Tensor, engine: Fourier) -> tuple[Tensor, Tensor]:
    """Which slices [B, E] the first pass has not enough nodes for, and which [B, E, 1] must reach further."""
    unfinished, cut = first.unfinished(1.0, _limit(engine))
    return unfinished | (needed > engine.nodes).squeeze(-1), cut


def _limit(engine: Fourier) -> float:
    return math.pow(1e-2 * engine.tolerance, 1 / GAP_POWER)


def _cheap(ratio: Tensor, k: Tensor, engine: Fourier) -> Tensor:
    """Which options [B, E, K] are worth so little that they get a contour of their own."""
    return (ratio.detach() < ABSOLUTE / engine.tolerance) & (k != 0)


def finish(
    first: Integral, needed: Tensor, variance: Tensor, model: FourierModel, t: Tensor, k: Tensor, engine: Fourier
) -> tuple[Tensor, Tensor]:
    """Prices over `sqrt(F K)` and their errors [B, E, K] from a first pass: what missed its tolerance is done again.

    Args:
        first: the first contour with `engine.nodes` nodes.
        needed: nodes that this contour needs to be trusted, broadcasts to [B, E, 1].
        variance: total variance of each set and expiry [B, E, 1].
        model: parameters broadcast to [B, E, 1], or are [E, 1], one set per expiry.
        t: years [E, 1].
        k: log strikes [E, K].
        engine: settings.
    """
    limit = _limit(engine)
    ratio, error = first.value, first.error(1.0) + ABSOLUTE
    (again, cut), cheap = _again(first, needed, engine), _cheap(ratio, k, engine)
    if not (bool(again.any()) or bool(cheap.any())):
        return ratio, error
    stuck = torch.zeros_like(again)
    if bool(again.any()):
        b, e = torch.nonzero(again, as_tuple=True)
        value, gap, failed = _lewis_rows(
            model, variance, t, k, b, e, 2 * engine.nodes, _LEWIS_NODES, limit, wide=cut[b, e]
        )
        ratio, error = ratio.index_put((b, e), value), error.index_put((b, e), gap + ABSOLUTE)
        stuck[b[failed], e[failed]] = True
    cheap = _cheap(ratio, k, engine)
    own = cheap | stuck.unsqueeze(-1)
    if bool(own.any()):
        b, e, column = torch.nonzero(own, as_tuple=True)
        value, gap, failed = _saddle_options(model, ratio.shape, t[e], k[e, column].unsqueeze(-1), b, e, engine, limit)
        ratio, error = ratio.index_put((b, e, column), value), error.index_put((b, e, column), gap)
        if failed.numel():  # many nodes on the first contour are the last resort
            b, e, column = b[failed], e[failed], column[failed]
            k_one = k[e, column].unsqueeze(-1)
            value, gap, failed = _lewis_rows(
                model, variance, t, k_one, b, e, 2 * _LEWIS_NODES, engine.max_nodes, limit, paired=True
            )
            if failed.numel():
                raise NumericsError(
                    f"{model.name}: {failed.numel()} prices did not converge with {engine.max_nodes} Fourier nodes (t "
                    f"from {t[e[failed]].min().item():.3g} years); the characteristic function hardly decays: is there "
                    "any diffusion?"
                )
            ratio = ratio.index_put((b, e, column), value.squeeze(-1))
            error = error.index_put((b, e, column), gap.squeeze(-1) + ABSOLUTE)
    return ratio, error


def _lewis_rows(
    model: FourierModel, variance: Tensor, t: Tensor, k: Tensor, b: Tensor, e: Tensor,
    nodes: int, max_nodes: int, limit: float, paired: bool = False, wide: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """`refine` on the first contour for chosen (set, expiry) pairs.

    `paired` if k already has one row per pair; `wide` [R, 1] tells the pairs that are known to need a longer reach.
    """
    spread = variance[b, e] if len(variance) > 1 else variance[0, e]
    own, rows_k = _rows(model, (len(variance), len(t)), b, e), k if paired else k[e]
    with torch.no_grad():
        farthest = rows_k.abs().amax(-1, keepdim=True)
        scale, reach = lewis_range(spread, spread, farthest)
        reach = reach if wide is None else torch.where(wide, Lewis.widening * reach, reach)
        ripples = nodes_for_ripples(own, t[e], farthest, reach)
        needed = nodes_needed(spread, farthest)
        needed = needed if ripples is None else torch.maximum(needed, ripples)
        needed = needed if wide is None else torch.where(wide, needed.clamp(min=2.0 * nodes), needed)
    return refine(
        Lewis(), scale, reach, own, t[e], rows_k, needed, nodes, max_nodes, limit, relative=False,
    )  # fmt: skip


def _saddle_options(
    model: FourierModel, shape: torch.Size, t: Tensor, k: Tensor, b: Tensor, e: Tensor, engine: Fourier, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """`refine` on the second contour for single options: t, k [Q, 1] with their (set, expiry) pairs."""
    own = _rows(model, shape, b, e)
    contour = through_saddle(own, t, k)
    value, gap, failed = refine(
        contour, contour.width, contour.reach, own, t, k, torch.zeros_like(t),
        min(engine.nodes, engine.max_nodes), min(engine.max_nodes, _SADDLE_NODES), limit, relative=True,
    )  # fmt: skip
    return value.squeeze(-1), (gap + contour.rounding * value.detach().abs()).squeeze(-1), failed


def _rows(model: FourierModel, shape: Sequence[int], b: Tensor, e: Tensor) -> FourierModel:
    """The parameter sets of chosen (set, expiry) pairs, [R, 1] each."""
    return model.map(lambda p: p.expand(*shape[:2], 1)[b, e])
