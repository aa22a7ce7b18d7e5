"""Digital options under any model with a characteristic function: one Fourier integral, with its own error estimate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from qsde.errors import InputError, NumericsError
from qsde.models.base import FourierModel, Model, fourier_model
from qsde.numerics import broadcast_shape, complex_exp
from qsde.pricing.contours import (
    ABSOLUTE,
    GAP_POWER,
    Hyperbola,
    Integral,
    Lewis,
    lewis_range,
    nodes_for_ripples,
    nodes_needed,
    refine,
    through_saddle,
)
from qsde.pricing.fourier import Fourier, FourierPrice, Number, check_positive, to_tensor

Pays = Literal["cash", "asset"]

#: Options integrated together: more do not run faster and take more memory.
_TOGETHER = 4096
#: Nodes beyond which an option leaves the line for a contour of its own, and that for the line again.
_LINE_NODES, _SADDLE_NODES = 1536, 6144


@dataclass(frozen=True)
class StepLine:
    """The line `Re z = 1/2` for payoffs that jump, minus its own Black-Scholes case, which has closed form.

    With `phi(y) = E[exp((1/2 + i y) x)]` the integrals are

        cash:  e^{k/2}  P(x > k)        = 1/pi int_0^inf Re[e^{-i k y} phi(y) / (1/2 + i y)] dy,
        asset: e^{-k/2} E[e^x 1{x < k}] = 1/pi int_0^inf Re[e^{-i k y} phi(y) / (1/2 - i y)] dy,

    and the values are those out of the money, calls where `k >= 0`, in the same unit.

    Attributes:
        sign: 1 for cash, -1 for the asset.
    """

    sign: float
    widening: ClassVar[float] = Lewis.widening

    def rows(self, rows: Tensor) -> StepLine:
        """The same: nothing here belongs to an option."""
        return self

    def __call__(self, y: Tensor, weight: Tensor, model: Model, t: Tensor, k: Tensor) -> Integral:
        """Integrates over nodes [E, N]; k is [E, 1]."""
        phi = complex_exp(fourier_model(model).log_cf(torch.complex(y, torch.full_like(y, -0.5)), t))
        variance = (-8 * torch.log(phi.real.detach()[..., :1])).clamp(min=1e-30)
        gauss = torch.exp(-0.5 * variance * (y * y + 0.25))
        wave = complex_exp(torch.complex(torch.zeros_like(y), -k * y))
        term = (phi - gauss) * wave * (weight / (math.pi * torch.complex(torch.full_like(y, 0.5), self.sign * y)))
        deviation, unit = torch.sqrt(variance), torch.exp(0.5 * self.sign * k)
        value = unit * torch.special.ndtr(-self.sign * k / deviation - 0.5 * deviation) + _sum(term)
        found = torch.where((k >= 0) == (self.sign > 0), value, unit - value)
        return _integral(found, term, y, weight)


@dataclass(frozen=True)
class StepHyperbola:
    """The same values as `StepLine` on contours through saddle points, to relative precision.

    The integrand is that of a European option times `z - 1` (cash) or `z` (asset): one pole fewer.
    """

    contour: Hyperbola
    sign: float
    widening: ClassVar[float] = Hyperbola.widening

    def rows(self, rows: Tensor) -> StepHyperbola:
        """The contours of some options."""
        return StepHyperbola(self.contour.rows(rows), self.sign)

    def __call__(self, y: Tensor, weight: Tensor, model: Model, t: Tensor, k: Tensor) -> Integral:
        """Integrates over nodes [E, N]; k is [E, 1]."""
        z, slope = self.contour.points(y)
        factor = (z - 1 if self.sign > 0 else z) * slope * (weight / math.pi)
        term = complex_exp(self.contour.log_integrand(z, fourier_model(model), t, k)) * factor
        term = torch.where(k >= 0, term, -term)
        return _integral(_sum(term), term, y, weight)


def _sum(term: Tensor) -> Tensor:
    return term.real.sum(-1, keepdim=True)


def _integral(value: Tensor, term: Tensor, y: Tensor, weight: Tensor) -> Integral:
    """With the gap and the tail of the terms [E, N] of a sum."""
    fixed = term.detach()
    gap = (_sum(fixed) - 2 * _sum(fixed[:, ::2])).abs()
    tail = fixed[:, -1:].abs() * (y[:, -1:] / weight[:, -1:])
    return Integral(value.unsqueeze(0), gap.unsqueeze(0), tail.unsqueeze(0))


def price_digital(
    model: Model,
    strike: Number,
    t: Number,
    forward: Number,
    discount_factor: Number = 1.0,
    is_call: bool | Tensor = True,
    pays: Pays = "cash",
    engine: Fourier | None = None,
) -> FourierPrice:
    """Prices of cash-or-nothing and asset-or-nothing options, elementwise.

    A cash call is worth `D P(S_T > K)`, an asset call `D E[S_T 1{S_T > K}]`; puts have `S_T < K`. An asset call less
    `K` cash calls is the European call. Differentiable with respect to the parameters, strike, t, forward and discount
    factor.

    Args:
        model: any model with a characteristic function.
        strike: strikes, positive.
        t: years to expiry, positive.
        forward: forward to the expiry.
        discount_factor: discount factor to the expiry.
        is_call: call or put, a bool or a tensor.
        pays: "cash" (1 unit; a digital is linear in its amount) or "asset".
        engine: quadrature settings; the tolerance is in units of a hundredth of the amount at the money, and relative
            to the price for options worth next to nothing.

    Returns:
        Prices in the broadcast shape of all arguments and parameters, and error estimates.

    Raises:
        InputError: a strike, expiry, forward or discount factor is not positive and finite, a model without a
            characteristic function, or `pays` is another word.
        NumericsError: the quadrature did not reach its tolerance.

    Reference:
        Lewis (2001), "A simple option formula for general jump-diffusion and other exponential Levy processes".

    Example:
        >>> from qsde.models import BlackScholes
        >>> price = price_digital(BlackScholes(0.35), 80.0, 0.75, 100.0, math.exp(-0.06 * 0.75), is_call=False)
        >>> round(10 * float(price.value), 4)                         # Haug (1998), p. 88
        2.671
    """
    engine, model = engine or Fourier(), fourier_model(model)
    if pays not in get_args(Pays):
        raise InputError(f"pays must be 'cash' or 'asset', got {pays!r}")
    strike, t, forward, discount_factor = (to_tensor(x) for x in (strike, t, forward, discount_factor))
    check_positive(strike=strike, t=t, forward=forward, discount_factor=discount_factor)
    shape = broadcast_shape(strike.shape, t.shape, forward.shape, model.batch_shape)
    k = torch.log(strike / forward)
    own = model.map(lambda p: p.expand(shape).reshape(-1, 1))
    sign = 1.0 if pays == "cash" else -1.0
    found, error = _otm(own, t.expand(shape).reshape(-1, 1), k.expand(shape).reshape(-1, 1), sign, engine)
    unit = torch.exp(-0.5 * sign * k)
    otm, error = found.reshape(shape) * unit, error.reshape(shape) * unit.detach()
    amount = discount_factor * (forward if pays == "asset" else 1.0)
    is_otm = torch.as_tensor(is_call, device=otm.device) == (k >= 0)
    value = amount * torch.where(is_otm, otm, 1 - otm)
    return FourierPrice(value, torch.add((amount * error).detach(), value.detach().abs(), alpha=4e-16))


def _otm(model: FourierModel, t: Tensor, k: Tensor, sign: float, engine: Fourier) -> tuple[Tensor, Tensor]:
    """Out-of-the-money values and errors [R, 1], in the unit of `StepLine`; a row of parameters, t and k for each."""
    if len(k) > _TOGETHER:
        pieces = torch.arange(len(k)).split(_TOGETHER)
        parts = [_otm(model.map(lambda p, i=i: p[i]), t[i], k[i], sign, engine) for i in pieces]  # type: ignore[misc]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])
    limit = (1e-2 * engine.tolerance) ** (1 / GAP_POWER)
    value, error, stuck = _on_line(model, t, k, sign, engine.nodes, min(engine.max_nodes, _LINE_NODES), limit)
    own = (value.detach() < ABSOLUTE / engine.tolerance).index_fill(0, stuck, True).squeeze(-1)
    rows = torch.nonzero(own).squeeze(-1)
    if not rows.numel():
        return value, error
    found, gap, failed = _on_hyperbola(model.map(lambda p: p[rows]), t[rows], k[rows], sign, engine, limit)
    value, error = value.index_put((rows,), found), error.index_put((rows,), gap)
    rows = rows[failed]
    if rows.numel():  # many nodes on the line are the last resort
        found, gap, failed = _on_line(
            model.map(lambda p: p[rows]), t[rows], k[rows], sign, 2 * _LINE_NODES, engine.max_nodes, limit
        )
        value, error = value.index_put((rows,), found), error.index_put((rows,), gap)
        _check(model, t[rows][failed], engine)
    return value, error


def _on_line(
    model: FourierModel, t: Tensor, k: Tensor, sign: float, nodes: int, max_nodes: int, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    with torch.no_grad():
        variance = model.total_variance(t)
        scale, reach = lewis_range(variance, variance, k.abs())
        needed = nodes_needed(variance, k.abs())
        ripples = nodes_for_ripples(model, t, k.abs(), reach)
        needed = needed if ripples is None else torch.maximum(needed, ripples)
    value, error, failed = refine(
        StepLine(sign), scale, reach, model, t, k, needed, nodes, max_nodes, limit, relative=False
    )
    return value, error + ABSOLUTE, failed


def _on_hyperbola(
    model: FourierModel, t: Tensor, k: Tensor, sign: float, engine: Fourier, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    contour = through_saddle(model, t, k)
    value, gap, failed = refine(
        StepHyperbola(contour, sign), contour.width, contour.reach, model, t, k, torch.zeros_like(t),
        min(engine.nodes, engine.max_nodes), min(engine.max_nodes, _SADDLE_NODES), limit, relative=True,
    )  # fmt: skip
    return value, gap + contour.rounding * value.detach().abs(), failed


def _check(model: FourierModel, stuck: Tensor, engine: Fourier) -> None:
    if stuck.numel():
        raise NumericsError(
            f"{model.name}: {stuck.numel()} digital prices did not converge with {engine.max_nodes} Fourier nodes (t "
            f"from {stuck.min().item():.3g} years); the characteristic function hardly decays: is there any diffusion?"
        )
